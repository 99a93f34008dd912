//! Magic bytes and picture sizes, read without decoding and without allocating.

use super::{Format, Header, ImageError};

const PNG_MAGIC: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Tells the format and the stored size.
pub(super) fn read(bytes: &[u8]) -> Result<Header, ImageError> {
    let (format, size) = if bytes.starts_with(&[0xFF, 0xD8, 0xFF]) {
        (Format::Jpeg, jpeg_size(bytes)?)
    } else if bytes.starts_with(PNG_MAGIC) {
        (Format::Png, png_size(bytes))
    } else if is_webp(bytes) {
        (Format::WebP, webp_size(bytes)?)
    } else {
        return Err(ImageError::Unsupported {
            found: kind_of(bytes),
        });
    };
    match size {
        Some((width, height)) if width > 0 && height > 0 => Ok(Header {
            format,
            width,
            height,
        }),
        Some(_) => Err(ImageError::unreadable(
            format,
            "its width or height is zero",
        )),
        None => Err(ImageError::unreadable(format, "its header is not whole")),
    }
}

/// One marker of a JPEG and the bytes of its segment.
pub(super) struct Segment<'a> {
    pub(super) marker: u8,
    pub(super) payload: &'a [u8],
    /// Where the bytes behind the segment begin.
    pub(super) end: usize,
}

/// Finds the next JPEG marker at or behind `at`, past anything that is not one.
///
/// Stuffed bytes, fill bytes and restart markers are no segments; so the entropy-coded data of a
/// scan is skipped too.
pub(super) fn next_segment(bytes: &[u8], mut at: usize) -> Option<Segment<'_>> {
    loop {
        at += bytes.get(at..)?.iter().position(|&byte| byte == 0xFF)? + 1;
        let marker = *bytes.get(at)?;
        match marker {
            0xFF => {}
            0x00 | 0x01 | 0xD0..=0xD8 => at += 1,
            0xD9 => {
                return Some(Segment {
                    marker,
                    payload: &[],
                    end: at + 1,
                });
            }
            _ => {
                let length = usize::from(u16::from_be_bytes([
                    *bytes.get(at + 1)?,
                    *bytes.get(at + 2)?,
                ]));
                let payload = bytes.get(at + 3..(at + 1).checked_add(length)?)?;
                return Some(Segment {
                    marker,
                    payload,
                    end: at + 1 + length,
                });
            }
        }
    }
}

fn jpeg_size(bytes: &[u8]) -> Result<Option<(u32, u32)>, ImageError> {
    let mut at = 2;
    while let Some(segment) = next_segment(bytes, at) {
        at = segment.end;
        match segment.marker {
            0xC0..=0xC2 => {
                let &[precision, h1, h0, w1, w0, ..] = segment.payload else {
                    return Ok(None);
                };
                if precision != 8 {
                    return Err(ImageError::Unsupported {
                        found: "a JPEG with 12 bits a sample",
                    });
                }
                let (width, height) = (u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0]));
                return Ok(Some((width.into(), height.into())));
            }
            0xC4 | 0xC8 | 0xCC => {}
            0xC3..=0xCF => {
                return Err(ImageError::Unsupported {
                    found: "a JPEG of a rare kind (lossless, hierarchical or arithmetic-coded)",
                });
            }
            0xD9 | 0xDA => return Ok(None),
            _ => {}
        }
    }
    Ok(None)
}

fn png_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let chunk = bytes.get(PNG_MAGIC.len()..PNG_MAGIC.len() + 16)?;
    let (kind, size) = chunk.split_at(8);
    if kind != b"\0\0\0\x0dIHDR" {
        return None;
    }
    let (width, height) = size.split_at(4);
    Some((
        u32::from_be_bytes(width.try_into().ok()?),
        u32::from_be_bytes(height.try_into().ok()?),
    ))
}

fn is_webp(bytes: &[u8]) -> bool {
    bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP")
}

/// Reads the canvas of a WebP, having checked that the file is whole and that no frame is larger
/// than the canvas.
fn webp_size(bytes: &[u8]) -> Result<Option<(u32, u32)>, ImageError> {
    let Some(announced) = little_endian(bytes, 4, 4) else {
        return Ok(None);
    };
    // The byte that pads an odd chunk is left out by some encoders.
    if announced as usize > bytes.len().saturating_sub(8) + 1 {
        return Err(ImageError::unreadable(
            Format::WebP,
            "the file is shorter than it says",
        ));
    }
    let end = bytes.len().min((announced as usize).saturating_add(8));
    let body = bytes.get(12..end).unwrap_or_default();
    let canvas = match body.get(..4) {
        Some(b"VP8X") => little_endian(body, 12, 3)
            .zip(little_endian(body, 15, 3))
            .map(|(width, height)| (width + 1, height + 1)),
        Some(_) => riff_chunks(body)
            .next()
            .and_then(|(kind, payload)| webp_frame(kind, payload)),
        None => None,
    };
    let Some((width, height)) = canvas else {
        return Ok(None);
    };
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

/// Walks RIFF chunks: four letters, the length, the payload, a padding byte after an odd one.
fn riff_chunks(mut bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        let length = little_endian(bytes, 4, 4)? as usize;
        let kind = bytes.get(..4)?;
        let payload = bytes.get(8..length.checked_add(8)?)?;
        bytes = bytes.get(8 + length + length % 2..).unwrap_or_default();
        Some((kind, payload))
    })
}

/// Reads the size from a lossy (`VP8 `) or lossless (`VP8L`) bitstream's first bytes.
fn webp_frame(kind: &[u8], payload: &[u8]) -> Option<(u32, u32)> {
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

fn little_endian(bytes: &[u8], at: usize, length: usize) -> Option<u32> {
    let field = bytes.get(at..at + length)?;
    Some(
        field
            .iter()
            .rev()
            .fold(0, |value, &byte| (value << 8) | u32::from(byte)),
    )
}

/// Names what the bytes are instead of a picture that is taken.
fn kind_of(bytes: &[u8]) -> &'static str {
    match bytes {
        [b'G', b'I', b'F', b'8', ..] => "a GIF picture",
        [b'B', b'M', ..] if bytes.len() > 26 => "a BMP picture",
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => "a TIFF or camera raw picture",
        [b'%', b'P', b'D', b'F', ..] => "a PDF document",
        [b'8', b'B', b'P', b'S', ..] => "a Photoshop picture",
        [0xFF, 0x0A, ..] | [0, 0, 0, 12, b'J', b'X', b'L', b' ', ..] => "a JPEG XL picture",
        [0, 0, 0, 12, b'j', b'P', b' ', b' ', ..] => "a JPEG 2000 picture",
        [b'P', b'K', 3, 4, ..] => "a ZIP archive",
        [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] => match brand.get(..4) {
            Some(b"avif" | b"avis") => "an AVIF picture",
            Some(b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1") => {
                "a HEIC picture"
            }
            _ => "a video or another ISO media file",
        },
        _ if is_text(&bytes[..bytes.len().min(512)]) => "text, not a picture",
        _ => "not a picture of a known kind",
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
