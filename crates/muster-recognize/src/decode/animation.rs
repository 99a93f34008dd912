//! What follows the first picture of an animation: GIF, WebP and PNG, by the `image` crate.

use std::borrow::Cow;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{AnimationDecoder, Frames, ImageDecoder, ImageResult, Limits};

use super::format::{Format, Header};
use super::limits::DecodeLimits;
use super::photo::Photo;
use super::raster::{METADATA_BYTES, over_white, rgba_to_rgb};
use super::upright;

/// Pictures of an animation that are looked at, with the first.
const MOST: usize = 10;
/// Bytes of a pixel: the canvas now and before, the frame that is laid on it as stored and with alpha, its copy,
/// and RGB.
const PIXEL: u64 = 5 * 4 + 3;

/// The pictures after the first, decoded one at a time and only when they are asked for.
pub(super) enum Later<'a> {
    /// Nothing has been asked for.
    Unread {
        bytes: Cow<'a, [u8]>,
        header: Header,
        orientation: Orientation,
    },
    Read {
        frames: std::iter::Take<Frames<'a>>,
        header: Header,
        orientation: Orientation,
    },
    None,
}

impl<'a> Later<'a> {
    /// Keeps the file for later, if it may be an animation and decoding one keeps within the limits.
    pub(super) fn of(
        bytes: Cow<'a, [u8]>,
        header: Header,
        orientation: Orientation,
        limits: &DecodeLimits,
    ) -> Self {
        let pixels = u64::from(header.width) * u64::from(header.height);
        match header.format {
            Format::Gif | Format::WebP | Format::Png
                if pixels * PIXEL <= limits.max_decoded_bytes =>
            {
                Self::Unread {
                    bytes,
                    header,
                    orientation,
                }
            }
            _ => Self::None,
        }
    }

    /// Decodes the next picture. One that can not be read ends the animation: the first was read, and what is shown of
    /// it is answered for.
    pub(super) fn next(&mut self) -> Option<Photo> {
        catch_unwind(AssertUnwindSafe(|| self.advance()))
            .ok()
            .flatten()
            .or_else(|| {
                *self = Self::None;
                None
            })
    }

    fn advance(&mut self) -> Option<Photo> {
        if let Self::Unread { .. } = self
            && let Self::Unread {
                bytes,
                header,
                orientation,
            } = std::mem::replace(self, Self::None)
        {
            *self = Self::Read {
                frames: frames(bytes, &header).ok().flatten()?,
                header,
                orientation,
            };
        }
        let Self::Read {
            frames,
            header,
            orientation,
        } = self
        else {
            return None;
        };
        let frame = frames.next()?.ok()?.into_buffer();
        if frame.dimensions() != (header.width, header.height) {
            return None;
        }
        let photo = header.photo(rgba_to_rgb(frame.as_raw(), over_white));
        Some(upright::turn(photo, *orientation))
    }
}

/// Opens an animation behind its first picture; `None` where there is none.
fn frames<'a>(
    bytes: Cow<'a, [u8]>,
    header: &Header,
) -> ImageResult<Option<std::iter::Take<Frames<'a>>>> {
    let pixels = u64::from(header.width) * u64::from(header.height);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(METADATA_BYTES + 16 * u64::from(header.width) + PIXEL * pixels);
    let bytes = Cursor::new(bytes);
    let mut frames = match header.format {
        Format::Gif => {
            let mut decoder = GifDecoder::new(bytes)?;
            decoder.set_limits(limits)?;
            decoder.into_frames()
        }
        Format::WebP => WebPDecoder::new(bytes)?.into_frames(),
        Format::Png => {
            // The picture that viewers without animations show need not be the first of it.
            let apart = is_apart(bytes.get_ref());
            let decoder = PngDecoder::with_limits(bytes, limits)?;
            if !decoder.is_apng()? {
                return Ok(None);
            }
            let frames = decoder.apng()?.into_frames();
            if apart {
                return Ok(Some(frames.take(MOST - 1)));
            }
            frames
        }
        _ => return Ok(None),
    };
    frames.next().transpose()?;
    Ok(Some(frames.take(MOST - 1)))
}

/// Whether the default picture of an animated PNG is none of its frames: no frame is announced before it.
fn is_apart(png: &[u8]) -> bool {
    let pixels = memchr::memmem::find(png, b"IDAT").unwrap_or(png.len());
    memchr::memmem::find(&png[..pixels], b"fcTL").is_none()
}
