//! Photographs for the commands that measure: found in folders, brought to one size, varied.

use std::path::{Path, PathBuf};

use anyhow::Context;
use bytes::Bytes;
use image::{RgbImage, imageops};
use jpeg_encoder::{ColorType, Encoder, EncodingError, SamplingFactor};
use muster_api::files::files_in;
use muster_recognize::decode::{DecodeLimits, EXTENSIONS, ImageError, decode};

use crate::random::Random;

/// Quality of the JPEGs that are made, 1 to 100, with the chroma halved both ways as cameras do.
const QUALITY: u8 = 85;
/// Quality of the JPEGs of photographs that are made smaller.
const SMALLER_QUALITY: u8 = 90;

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
    let photo = decode(&bytes, &DecodeLimits::default())
        .with_context(|| format!("decode the photograph {}", path.display()))?;
    RgbImage::from_raw(photo.width, photo.height, photo.rgb)
        .context("a decoded photograph has as many bytes as pixels")
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
    let mut bytes = Vec::new();
    let side = u16::try_from(size).context("a JPEG has at most 65535 pixels a side")?;
    let mut encoder = Encoder::new(&mut bytes, QUALITY);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder
        .encode(&square, side, side, ColorType::Rgb)
        .context("encode a photograph")?;
    Ok(bytes.into())
}

/// Why a photograph can not be made smaller.
#[derive(Debug, thiserror::Error)]
pub enum PhotoError {
    /// It can not be decoded.
    #[error("decode it")]
    Decode(#[from] ImageError),
    /// It can not be encoded.
    #[error("encode it")]
    Encode(#[from] EncodingError),
}

/// Makes a photograph `scale` times as large, below 1: by a Lanczos filter of three lobes, which is
/// widened so that nothing aliases, and encoded as a JPEG of quality 90 with all of its chroma.
///
/// # Errors
/// When it is no photograph.
pub fn smaller(bytes: &[u8], scale: f32) -> Result<Vec<u8>, PhotoError> {
    let photo = decode(bytes, &DecodeLimits::default())?;
    let scaled = |side: u32| ((side as f32 * scale).round() as u32).clamp(1, u16::MAX.into());
    let (width, height) = (scaled(photo.width), scaled(photo.height));
    let whole = RgbImage::from_raw(photo.width, photo.height, photo.rgb).unwrap_or_default();
    let small = imageops::resize(&whole, width, height, imageops::FilterType::Lanczos3);
    let mut made = Vec::new();
    let mut encoder = Encoder::new(&mut made, SMALLER_QUALITY);
    encoder.set_sampling_factor(SamplingFactor::F_1_1);
    encoder.encode(&small, width as u16, height as u16, ColorType::Rgb)?;
    Ok(made)
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
    fn a_photograph_is_made_smaller_and_keeps_its_mean() {
        let stripes = |x: u32, _| image::Rgb([(x % 2) as u8 * 200; 3]);
        let photo = RgbImage::from_fn(200, 80, stripes);
        let mut bytes = Vec::new();
        Encoder::new(&mut bytes, 100)
            .encode(&photo, 200, 80, ColorType::Rgb)
            .unwrap();
        let made = smaller(&bytes, 0.3).unwrap();
        let made = decode(&made, &DecodeLimits::default()).unwrap();
        assert_eq!((made.width, made.height), (60, 24));
        // Neither stripe is chosen over the other.
        let worst = made.rgb.iter().map(|value| value.abs_diff(100)).max();
        assert!(worst < Some(12), "{worst:?}");
        assert!(smaller(b"no photograph", 0.5).is_err());
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
