//! PNG, WebP, GIF and BMP by the `image` crate, brought to 8-bit RGB.

use std::io::Cursor;

use image::codecs::bmp::BmpDecoder;
use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, Limits};

use super::chunks::{png_chunks, webp_is_short};
use super::error::ImageError;
use super::format::{Format, Header};
use super::stored::Stored;
use super::tiff_directory::orientation;

/// Bytes that chunks other than the pixels (profiles, text) may inflate to.
pub(super) const METADATA_BYTES: u64 = 4 << 20;

/// Decodes a PNG to RGB as stored.
pub(super) fn decode_png(bytes: &[u8], header: &Header) -> Result<Stored, ImageError> {
    let mut limits = Limits::no_limits();
    // The decoder counts two rows against the same limit: eight bytes a pixel at most.
    limits.max_alloc = Some(METADATA_BYTES + 2 * 8 * u64::from(header.width));
    let decoder = PngDecoder::with_limits(Cursor::new(bytes), limits)
        .map_err(|error| refuse(Format::Png, &error))?;
    let (rgb, turned) = pixels(decoder, header)?;
    if turned != Orientation::NoTransforms {
        return Ok((rgb, turned));
    }
    // The decoder does not look behind the pixels.
    let late = png_chunks(bytes).find(|(kind, _)| *kind == b"eXIf");
    Ok((rgb, orientation(late.map(|(_, exif)| exif))))
}

/// Decodes a WebP, or the first frame of an animation, to RGB as stored.
pub(super) fn decode_webp(bytes: &[u8], header: &Header) -> Result<Stored, ImageError> {
    if webp_is_short(bytes) {
        return Err(ImageError::unreadable(
            Format::WebP,
            "the file is shorter than it says",
        ));
    }
    let decoder =
        WebPDecoder::new(Cursor::new(bytes)).map_err(|error| refuse(Format::WebP, &error))?;
    pixels(decoder, header)
}

/// Decodes a GIF's first frame, laid on its canvas, to RGB.
pub(super) fn decode_gif(bytes: &[u8], header: &Header) -> Result<Stored, ImageError> {
    let decoder =
        GifDecoder::new(Cursor::new(bytes)).map_err(|error| refuse(Format::Gif, &error))?;
    pixels(decoder, header)
}

/// Decodes a BMP to RGB.
pub(super) fn decode_bmp(bytes: &[u8], header: &Header) -> Result<Stored, ImageError> {
    let decoder =
        BmpDecoder::new(Cursor::new(bytes)).map_err(|error| refuse(Format::Bmp, &error))?;
    pixels(decoder, header)
}

fn pixels(mut decoder: impl ImageDecoder, header: &Header) -> Result<Stored, ImageError> {
    if decoder.dimensions() != (header.width, header.height) {
        return Err(ImageError::unreadable(header.format, "it states two sizes"));
    }
    // A broken EXIF block turns nothing; the pixels decide whether the picture is readable.
    let exif = decoder.exif_metadata().ok().flatten();
    let color = decoder.color_type();
    let count = header.width as usize * header.height as usize;
    let mut samples = vec![0; count * usize::from(color.bytes_per_pixel())];
    decoder
        .read_image(&mut samples)
        .map_err(|error| refuse(header.format, &error))?;
    let rgb = match color {
        ColorType::Rgb8 => samples,
        ColorType::L8 => samples.iter().flat_map(|&grey| [grey; 3]).collect(),
        ColorType::La8 => all_over_white(samples.as_chunks::<2>().0, |&[grey, alpha]| {
            ([grey; 3], alpha)
        }),
        ColorType::Rgba8 => rgba_to_rgb(&samples, over_white),
        ColorType::L16 => eight_bits(&samples).flat_map(|grey| [grey; 3]).collect(),
        ColorType::Rgb16 => eight_bits(&samples).collect(),
        ColorType::La16 => all_over_white(samples.as_chunks::<4>().0, |pixel| {
            let [grey, alpha] = eight_bits_of(pixel);
            ([grey; 3], alpha)
        }),
        ColorType::Rgba16 => all_over_white(samples.as_chunks::<8>().0, |pixel| {
            let [r, g, b, alpha] = eight_bits_of(pixel);
            ([r, g, b], alpha)
        }),
        _ => {
            return Err(ImageError::unreadable(
                header.format,
                "its colours are not understood",
            ));
        }
    };
    Ok((rgb, orientation(exif.as_deref())))
}

/// Lays RGB with alpha over white, sample by sample as told.
pub(super) fn rgba_to_rgb(samples: &[u8], over_white: fn(u8, u8) -> u8) -> Vec<u8> {
    let pixels = samples.as_chunks::<4>().0;
    let mut rgb = Vec::with_capacity(pixels.len() * 3);
    for &[r, g, b, alpha] in pixels {
        rgb.extend([r, g, b].map(|color| over_white(color, alpha)));
    }
    rgb
}

fn all_over_white<P>(pixels: &[P], split: impl Fn(&P) -> ([u8; 3], u8)) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(pixels.len() * 3);
    for pixel in pixels {
        let (color, alpha) = split(pixel);
        rgb.extend(color.map(|sample| over_white(sample, alpha)));
    }
    rgb
}

/// Lays one sample of the given opacity over white.
pub(super) fn over_white(sample: u8, alpha: u8) -> u8 {
    let alpha = u32::from(alpha);
    ((u32::from(sample) * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

/// Lays one sample that is already multiplied with its opacity over white.
pub(super) fn premultiplied_over_white(sample: u8, alpha: u8) -> u8 {
    sample.saturating_add(255 - alpha)
}

/// Turns CMYK, 255 for full ink, into RGB.
pub(super) fn inks_to_rgb(samples: &[u8]) -> Vec<u8> {
    let light = |ink: u8, black: u8| {
        let product = u32::from(255 - ink) * u32::from(255 - black);
        ((product + 127) / 255) as u8
    };
    samples
        .as_chunks::<4>()
        .0
        .iter()
        .flat_map(|&[c, m, y, k]| [light(c, k), light(m, k), light(y, k)])
        .collect()
}

/// Rounds 16-bit samples, in the machine's byte order, to 8 bits.
fn eight_bits(samples: &[u8]) -> impl Iterator<Item = u8> {
    samples
        .as_chunks::<2>()
        .0
        .iter()
        .map(|&sample| rounded(u16::from_ne_bytes(sample)))
}

/// Rounds the 16-bit samples of one pixel.
fn eight_bits_of<const N: usize>(pixel: &[u8]) -> [u8; N] {
    let samples = pixel.as_chunks::<2>().0;
    std::array::from_fn(|at| rounded(u16::from_ne_bytes(samples[at])))
}

/// Rounds a 16-bit sample to 8 bits.
pub(super) fn rounded(sample: u16) -> u8 {
    ((u32::from(sample) * 255 + 32_767) / 65_535) as u8
}

fn refuse(format: Format, error: &image::ImageError) -> ImageError {
    let reason = match error {
        image::ImageError::Limits(_) => "its data is larger than its header says",
        image::ImageError::IoError(_) => "it ends in the middle",
        _ => "its data makes no sense",
    };
    ImageError::unreadable(format, reason)
}
