//! Photographs: bytes from a stranger to upright RGB pixels.
//!
//! Every limit is checked on the header, before memory for pixels is asked for, and a picture is
//! either whole or refused: a half-grey face would be matched against the gallery as if it were
//! one.

mod animation;
mod chunks;
mod error;
mod format;
mod header;
mod iso;
mod jpeg;
mod jpeg_segment;
mod jxl;
mod libheif;
mod limits;
mod photo;
mod raster;
mod repair;
mod stored;
mod tiff;
mod tiff_directory;
mod upright;

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use animation::Later;
use image::metadata::Orientation;
use muster_jobs::Repair;

pub use error::ImageError;
pub use format::{ACCEPTED, Format, Header};
pub use libheif::{Libheif, libheif};
pub use limits::DecodeLimits;
pub use photo::Photo;

/// Endings of the names of files that are taken, in lower case, without the dot.
pub const EXTENSIONS: &[&str] = &[
    "jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "heic", "heif",
    "hif", "avif", "jxl",
];

/// Reads the kind and size of a picture and holds them against the limits, without decoding it.
///
/// It is cheap (headers are walked, next to nothing is allocated) and meant for refusing early; a picture
/// that passes can still prove [`ImageError::Unreadable`] in [`decode`].
///
/// # Errors
/// Every variant of [`ImageError`].
pub fn probe(bytes: &[u8], limits: &DecodeLimits) -> Result<Header, ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    if bytes.len() > limits.max_bytes {
        return Err(ImageError::TooLargeBytes {
            got: bytes.len(),
            max: limits.max_bytes,
        });
    }
    let header = header::read(bytes)?;
    let Header { width, height, .. } = header;
    let (shorter, longer) = (width.min(height), width.max(height));
    if longer > limits.max_side {
        let max = limits.max_side;
        return Err(ImageError::TooLong { width, height, max });
    }
    if u64::from(longer) > u64::from(shorter) * u64::from(limits.max_ratio) {
        let max = limits.max_ratio;
        return Err(ImageError::TooNarrow { width, height, max });
    }
    if u64::from(width) * u64::from(height) > limits.max_pixels {
        let max = limits.max_pixels;
        return Err(ImageError::TooManyPixels { width, height, max });
    }
    if header.decoded_bytes > limits.max_decoded_bytes {
        return Err(ImageError::TooLargeDecoded {
            width,
            height,
            got: header.decoded_bytes,
            max: limits.max_decoded_bytes,
        });
    }
    Ok(header)
}

/// A decoded picture, and the way to what follows it in an animation.
pub struct Picture<'a> {
    /// The picture, or the first of an animation.
    pub photo: Photo,
    /// What was wrong with the file and was put right.
    pub repaired: Vec<Repair>,
    later: Later<'a>,
}

impl Picture<'_> {
    /// Puts the next picture of an animation in the place of this one; `false`, and no other picture, where
    /// there is none that can be read, and after the tenth.
    pub fn advance(&mut self) -> bool {
        match self.later.next() {
            Some(photo) => {
                self.photo = photo;
                true
            }
            None => false,
        }
    }
}

/// Decodes a picture to upright RGB.
///
/// The orientation of EXIF, and of TIFF's own field, is applied; transparency is laid over white, since the colour under a
/// transparent pixel is arbitrary; colour profiles are ignored; 16-bit samples are rounded to 8.
///
/// A file that is refused as damaged is read once more, with faults put right that every viewer passes over: an end
/// marker that is missing, a beginning that is there twice, a webcam's frame without Huffman tables. What is missing of
/// the pixels is never made up.
///
/// # Errors
/// Every variant of [`ImageError`]. It does not panic: a decoder's panic is caught and told as
/// [`ImageError::Unreadable`].
pub fn open<'a>(bytes: &'a [u8], limits: &DecodeLimits) -> Result<Picture<'a>, ImageError> {
    let header = probe(bytes, limits)?;
    let mut bytes = Cow::Borrowed(bytes);
    let mut repaired = Vec::new();
    let stored = match stored(&bytes, &header) {
        Err(refused @ ImageError::Unreadable { .. }) => {
            let mended = repair::mend(&bytes, header.format).ok_or_else(|| refused.clone())?;
            let again = stored(&mended.bytes, &header).map_err(|_| refused)?;
            bytes = Cow::Owned(mended.bytes);
            repaired = mended.repaired;
            again
        }
        read => read?,
    };
    let (photo, orientation) = stored;
    let photo = upright::turn(photo, orientation);
    Ok(Picture {
        photo,
        repaired,
        later: Later::of(bytes, header, orientation, limits),
    })
}

/// Decodes a picture as [`open`] does, the first of an animation.
///
/// # Errors
/// As [`open`].
pub fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Photo, ImageError> {
    open(bytes, limits).map(|picture| picture.photo)
}

/// Decodes to pixels as stored, and tells how they are to be turned.
fn stored(bytes: &[u8], header: &Header) -> Result<(Photo, Orientation), ImageError> {
    let decoded = catch_unwind(AssertUnwindSafe(|| {
        let (rgb, orientation) = match header.format {
            Format::Jpeg => jpeg::decode(bytes, header)?,
            Format::Png => raster::decode_png(bytes, header)?,
            Format::WebP => raster::decode_webp(bytes, header)?,
            Format::Gif => raster::decode_gif(bytes, header)?,
            Format::Bmp => raster::decode_bmp(bytes, header)?,
            Format::Tiff => tiff::decode(bytes, header)?,
            // These come turned, and cut, which changes their size.
            Format::Heic | Format::Avif => {
                let photo = libheif::decode(bytes, header)?;
                return Ok((photo, Orientation::NoTransforms));
            }
            Format::JpegXl => {
                let photo = jxl::decode(bytes, header)?;
                return Ok((photo, Orientation::NoTransforms));
            }
        };
        Ok((header.photo(rgb), orientation))
    }));
    decoded.unwrap_or_else(|_| Err(ImageError::unreadable(header.format, "the decoder gave up")))
}
