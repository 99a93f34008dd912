//! Photographs for the commands that measure: found in folders, brought to one size, varied.

use std::path::{Path, PathBuf};

use anyhow::Context;
use bytes::Bytes;
use image::{RgbImage, imageops};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use muster_api::files::files_in;
use muster_recognize::decode::{DecodeLimits, EXTENSIONS, ImageError, decode};

use crate::random::Random;

/// Quality of the square JPEGs, 1 to 100, with the chroma halved both ways as cameras do.
const QUALITY: u8 = 85;

/// The distance of two variations' seeds: SplitMix64's own step, so that they are its outputs in order.
const SEED_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Every photograph below a folder that can be decoded, by its extension, in order of the paths.
///
/// # Errors
/// When a folder can not be read.
pub fn photos_in(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    files_in(folder, |extension| EXTENSIONS.contains(&extension))
}

/// Reads a photograph, upright.
///
/// # Errors
/// Names the file that can not be read or decoded.
pub fn open(path: &Path) -> anyhow::Result<RgbImage> {
    let bytes =
        std::fs::read(path).with_context(|| format!("read the photograph {}", path.display()))?;
    pixels(&bytes).with_context(|| format!("decode the photograph {}", path.display()))
}

/// Decodes a photograph, upright.
///
/// # Errors
/// When it is no photograph within the limits.
pub fn pixels(bytes: &[u8]) -> Result<RgbImage, ImageError> {
    let photo = decode(bytes, &DecodeLimits::default())?;
    let (width, height) = (photo.width, photo.height);
    Ok(RgbImage::from_raw(width, height, photo.rgb)
        .expect("a decoded photograph has as many bytes as its pixels need"))
}

/// Encodes a picture as a JPEG of that quality, 1 to 100.
///
/// # Errors
/// When a side is longer than a JPEG's can be.
pub fn jpeg(picture: &RgbImage, quality: u8, chroma: SamplingFactor) -> anyhow::Result<Vec<u8>> {
    let side = |side: u32| u16::try_from(side).context("a JPEG has at most 65535 pixels a side");
    let (width, height) = (side(picture.width())?, side(picture.height())?);
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, quality);
    encoder.set_sampling_factor(chroma);
    encoder
        .encode(picture, width, height, ColorType::Rgb)
        .context("encode a photograph")?;
    Ok(bytes)
}

/// How one photograph is varied; all zero and `false` leaves it as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Variation {
    /// Share of the square cut off at the left and at the top, 0 to 0.1.
    pub inset: (f32, f32),
    /// Mirrored left to right.
    pub flipped: bool,
    /// Added to every channel, -255 to 255.
    pub brightness: i32,
}

impl Variation {
    /// The `n`th variation: the same for the same number, on every machine.
    pub fn nth(n: u64) -> Self {
        let bits = Random::new(n.wrapping_mul(SEED_STEP)).bits();
        let share = |shift: u32| ((bits >> shift) & 0xff) as f32 / 255.0 * 0.1;
        Self {
            inset: (share(0), share(8)),
            flipped: bits >> 16 & 1 == 1,
            brightness: ((bits >> 24) % 61) as i32 - 30,
        }
    }
}

/// Cuts a square, varies it, and encodes it as a JPEG of `size` x `size`.
///
/// The square spans the short side; of a portrait it begins near the top, where the face is.
pub fn square_jpeg(photo: &RgbImage, size: u32, variation: Variation) -> anyhow::Result<Bytes> {
    let (width, height) = photo.dimensions();
    let side = width.min(height);
    let kept = (side as f32 * (1.0 - variation.inset.0.max(variation.inset.1))) as u32;
    let x = (width - side) / 2 + (side as f32 * variation.inset.0) as u32;
    let y = (height - side) / 8 + (side as f32 * variation.inset.1) as u32;
    let kept = kept.min(width - x).min(height - y).max(1);
    let square = imageops::crop_imm(photo, x, y, kept, kept);
    let mut square = if kept > size {
        imageops::thumbnail(&*square, size, size)
    } else {
        imageops::resize(&*square, size, size, imageops::FilterType::Triangle)
    };
    if variation.flipped {
        imageops::flip_horizontal_in_place(&mut square);
    }
    if variation.brightness != 0 {
        imageops::colorops::brighten_in_place(&mut square, variation.brightness);
    }
    jpeg(&square, QUALITY, SamplingFactor::F_2_2).map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variations_are_repeatable_and_differ() {
        let first: Vec<_> = (0..100).map(Variation::nth).collect();
        assert_eq!(first, (0..100).map(Variation::nth).collect::<Vec<_>>());
        assert!(first.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(
            first
                .iter()
                .all(|v| (0.0..=0.1).contains(&v.inset.0) && v.brightness.abs() <= 30)
        );
        assert!(first.iter().any(|v| v.flipped) && first.iter().any(|v| !v.flipped));
    }

    #[test]
    fn any_photograph_becomes_a_square_jpeg() {
        for (width, height) in [(40, 90), (90, 40), (600, 600), (1, 1), (3, 200)] {
            let photo = RgbImage::from_pixel(width, height, image::Rgb([10, 200, 30]));
            for n in 0..8 {
                let bytes = square_jpeg(&photo, 64, Variation::nth(n)).unwrap();
                let decoded = decode(&bytes, &DecodeLimits::default()).unwrap();
                assert_eq!((decoded.width, decoded.height), (64, 64));
            }
        }
    }
}
