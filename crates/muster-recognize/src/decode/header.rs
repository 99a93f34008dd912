//! Magic bytes and picture sizes, read without decoding.

use super::chunks::{PNG_MAGIC, little_endian, riff_chunks};
use super::error::{ANYTHING_ELSE, ImageError, RARE, RAW};
use super::format::{Format, Header, Size};
use super::iso;
use super::jpeg_segment::next_segment;
use super::jxl;
use super::tiff;

/// Bytes of a pixel as RGB.
const RGB: u64 = 3;
/// A quarter turn has the picture twice.
const TURNED: u64 = 2 * RGB;
/// WebP: the decoder's own canvas and its copy, both with alpha, or one of them and RGB; lossy
/// pictures take less.
const WEBP: u64 = 8;
/// GIF: the canvas and the frame that is laid on it, both with alpha.
const GIF: u64 = 8;
/// BMP: samples with alpha, and RGB.
const BMP: u64 = 4 + RGB;

/// Tells the format, the stored size, and what decoding takes.
pub(super) fn read(bytes: &[u8]) -> Result<Header, ImageError> {
    let (format, size, pixel_bytes) = if bytes.starts_with(&[0xFF, 0xD8, 0xFF]) {
        let (size, pixel_bytes) = jpeg_size(bytes)?.unzip();
        (Format::Jpeg, size, pixel_bytes.unwrap_or(RGB))
    } else if bytes.starts_with(PNG_MAGIC) {
        let (size, pixel_bytes) = png_size(bytes).unzip();
        (Format::Png, size, pixel_bytes.unwrap_or(RGB))
    } else if is_webp(bytes) {
        (Format::WebP, webp_size(bytes)?, WEBP)
    } else if bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a") {
        (Format::Gif, gif_size(bytes)?, GIF)
    } else if is_bmp(bytes) {
        (Format::Bmp, bmp_size(bytes)?, BMP)
    } else if bytes.starts_with(b"II*\0") || bytes.starts_with(b"MM\0*") {
        let (size, sample_bytes) = tiff::size(bytes)?.unzip();
        (Format::Tiff, size, sample_bytes.unwrap_or(0) + RGB)
    } else if bytes.get(4..8) == Some(b"ftyp") {
        let format = iso::format(bytes)
            .map_err(|(found, remedy)| ImageError::Unsupported { found, remedy })?;
        let (size, pixel_bytes) = iso::size(bytes, format)?.unzip();
        (format, size, pixel_bytes.unwrap_or(RGB))
    } else if jxl::is_jxl(bytes) {
        (Format::JpegXl, jxl::size(bytes), jxl::PIXEL)
    } else {
        let (found, remedy) = kind_of(bytes);
        return Err(ImageError::Unsupported { found, remedy });
    };
    match size {
        Some((width, height)) if width > 0 && height > 0 => Ok(Header {
            format,
            width,
            height,
            decoded_bytes: u64::from(width) * u64::from(height) * pixel_bytes.max(TURNED),
        }),
        Some(_) => Err(ImageError::unreadable(
            format,
            "its width or height is zero",
        )),
        None => Err(ImageError::unreadable(format, "its header is not whole")),
    }
}

/// Reads the size, and the bytes of a pixel: a progressive picture has all its coefficients in memory,
/// and one of four inks has them beside what they become.
fn jpeg_size(bytes: &[u8]) -> Result<Option<(Size, u64)>, ImageError> {
    let mut at = 2;
    while let Some(segment) = next_segment(bytes, at) {
        at = segment.end;
        match segment.marker {
            0xC0..=0xC2 => {
                let &[precision, h1, h0, w1, w0, components, ..] = segment.payload else {
                    return Ok(None);
                };
                if precision != 8 {
                    return Err(ImageError::Unsupported {
                        found: "a JPEG with 12 bits a sample",
                        remedy: RARE,
                    });
                }
                let (width, height) = (u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0]));
                let components = u64::from(components);
                let samples = if components > 3 {
                    components + RGB
                } else {
                    RGB
                };
                let coefficients = if segment.marker == 0xC2 {
                    2 * components
                } else {
                    0
                };
                let size = (width.into(), height.into());
                return Ok(Some((size, samples + coefficients)));
            }
            0xC4 | 0xC8 | 0xCC => {}
            0xC3..=0xCF => {
                return Err(ImageError::Unsupported {
                    found: "a JPEG of a rare kind (lossless, hierarchical or arithmetic-coded)",
                    remedy: RARE,
                });
            }
            0xD9 | 0xDA => return Ok(None),
            _ => {}
        }
    }
    Ok(None)
}

/// Reads the size, and the bytes of a pixel: its samples, perhaps with alpha by another chunk, and RGB.
fn png_size(bytes: &[u8]) -> Option<(Size, u64)> {
    let chunk = bytes.get(PNG_MAGIC.len()..PNG_MAGIC.len() + 18)?;
    let (kind, rest) = chunk.split_at(8);
    if kind != b"\0\0\0\x0dIHDR" {
        return None;
    }
    let (width, rest) = rest.split_at(4);
    let (height, rest) = rest.split_at(4);
    let &[depth, color] = rest else { return None };
    let samples = if matches!(color, 0 | 4) { 2 } else { 4 };
    let sample_bytes = if depth == 16 { 2 } else { 1 };
    let size = (
        u32::from_be_bytes(width.try_into().ok()?),
        u32::from_be_bytes(height.try_into().ok()?),
    );
    Some((size, samples * sample_bytes + RGB))
}

fn is_webp(bytes: &[u8]) -> bool {
    bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP")
}

/// Reads the canvas of a WebP, having checked that its pixels are there and that no frame is larger
/// than the canvas.
fn webp_size(bytes: &[u8]) -> Result<Option<Size>, ImageError> {
    let Some(announced) = little_endian(bytes, 4, 4) else {
        return Ok(None);
    };
    let end = bytes.len().min((announced as usize).saturating_add(8));
    let body = bytes.get(12..end).unwrap_or_default();
    let canvas = match body.get(..4) {
        Some(b"VP8X") => little_endian(body, 12, 3)
            .zip(little_endian(body, 15, 3))
            .map(|(width, height)| (width + 1, height + 1)),
        Some(_) => body
            .get(8..)
            .and_then(|payload| webp_frame(&body[..4], payload)),
        None => None,
    };
    let Some((width, height)) = canvas else {
        return Ok(None);
    };
    let is_pixels = |(kind, _): (&[u8], _)| matches!(kind, b"VP8 " | b"VP8L" | b"ANMF");
    if !riff_chunks(body).any(is_pixels) {
        return Err(ImageError::unreadable(
            Format::WebP,
            "the file is shorter than it says",
        ));
    }
    for (kind, payload) in riff_chunks(body) {
        let inner = if kind == b"ANMF" {
            payload.get(16..).unwrap_or_default()
        } else {
            &[]
        };
        let frames = riff_chunks(inner).chain(std::iter::once((kind, payload)));
        for (frame_width, frame_height) in
            frames.filter_map(|(kind, payload)| webp_frame(kind, payload))
        {
            if frame_width > width || frame_height > height {
                return Err(ImageError::unreadable(
                    Format::WebP,
                    "a frame is larger than the picture",
                ));
            }
        }
    }
    Ok(canvas)
}

/// Reads the size from a lossy (`VP8 `) or lossless (`VP8L`) bitstream's first bytes.
fn webp_frame(kind: &[u8], payload: &[u8]) -> Option<Size> {
    match kind {
        b"VP8 " => Some((
            little_endian(payload, 6, 2)? & 0x3FFF,
            little_endian(payload, 8, 2)? & 0x3FFF,
        )),
        b"VP8L" => {
            let bits = little_endian(payload, 1, 4)?;
            Some(((bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1))
        }
        _ => None,
    }
}

/// Reads the canvas of a GIF, having checked that the first frame is no larger.
fn gif_size(bytes: &[u8]) -> Result<Option<Size>, ImageError> {
    let canvas = little_endian(bytes, 6, 2).zip(little_endian(bytes, 8, 2));
    let (Some((width, height)), Some((frame_width, frame_height))) = (canvas, gif_frame(bytes))
    else {
        return Ok(None);
    };
    if frame_width > width || frame_height > height {
        return Err(ImageError::unreadable(
            Format::Gif,
            "a frame is larger than the picture",
        ));
    }
    Ok(canvas)
}

/// Reads the size of a GIF's first frame, past the palette and the extensions before it.
fn gif_frame(bytes: &[u8]) -> Option<Size> {
    let palette = |flags: u8| match flags & 0x80 {
        0 => 0,
        _ => 3 << ((flags & 7) + 1),
    };
    let mut at = 13 + palette(*bytes.get(10)?);
    loop {
        match bytes.get(at)? {
            0x2C => {
                return little_endian(bytes, at + 5, 2).zip(little_endian(bytes, at + 7, 2));
            }
            0x21 => {
                at += 2;
                loop {
                    let length = usize::from(*bytes.get(at)?);
                    at += 1 + length;
                    if length == 0 {
                        break;
                    }
                }
            }
            _ => return None,
        }
    }
}

/// Tells a BMP by its header's length too: two letters begin many a text.
fn is_bmp(bytes: &[u8]) -> bool {
    bytes.starts_with(b"BM")
        && match little_endian(bytes, 14, 4) {
            Some(length) => (12..=124).contains(&length),
            None => !is_text(bytes),
        }
}

fn bmp_size(bytes: &[u8]) -> Result<Option<Size>, ImageError> {
    let rare = Err(ImageError::Unsupported {
        found: "a BMP of a rare kind",
        remedy: RARE,
    });
    match little_endian(bytes, 14, 4) {
        Some(12) => Ok(little_endian(bytes, 18, 2).zip(little_endian(bytes, 20, 2))),
        Some(40 | 52 | 56 | 108 | 124) => {
            let (Some(width), Some(height), Some(compression)) = (
                little_endian(bytes, 18, 4),
                little_endian(bytes, 22, 4),
                little_endian(bytes, 30, 4),
            ) else {
                return Ok(None);
            };
            if compression > 3 {
                return rare;
            }
            // A negative height tells that the top row comes first.
            Ok(Some((width, height.cast_signed().unsigned_abs())))
        }
        Some(_) => rare,
        None => Ok(None),
    }
}

/// What to do with a picture of another kind.
const CONVERT: &str = "convert it to JPEG or PNG and send that";

/// Names what the bytes are instead of a picture that is taken, and what to do about it.
fn kind_of(bytes: &[u8]) -> (&'static str, &'static str) {
    match bytes {
        [b'I', b'I', 43, 0, ..] | [b'M', b'M', 0, 43, ..] => ("a BigTIFF picture", CONVERT),
        [b'I', b'I', b'U', 0, ..] | [b'I', b'I', b'R', b'O' | b'S', ..] => {
            ("a camera raw picture", RAW)
        }
        _ if bytes.starts_with(b"FUJIFILMCCD-RAW") => ("a camera raw picture", RAW),
        [b'%', b'P', b'D', b'F', ..] => ("a PDF document", CONVERT),
        [b'8', b'B', b'P', b'S', ..] => ("a Photoshop picture", CONVERT),
        [0, 0, 0, 12, b'j', b'P', b' ', b' ', ..] => ("a JPEG 2000 picture", CONVERT),
        [b'P', b'K', 3, 4, ..] => ("a ZIP archive", ANYTHING_ELSE),
        _ if is_text(&bytes[..bytes.len().min(512)]) => ("text, not a picture", ANYTHING_ELSE),
        _ => ("not a picture of a known kind", ANYTHING_ELSE),
    }
}

fn is_text(start: &[u8]) -> bool {
    start.utf8_chunks().next().is_some_and(|chunk| {
        // A character cut by the window is at most three bytes.
        chunk.valid().len() + 3 >= start.len()
            && chunk
                .valid()
                .chars()
                .all(|char| !char.is_control() || char.is_whitespace())
            && !chunk.valid().is_empty()
    })
}
