//! Photographs: bytes from a stranger to upright RGB pixels.
//!
//! Every limit is checked on the header, before memory for pixels is asked for, and a picture is
//! either whole or refused: a half-grey face would be matched against the gallery as if it were
//! one.

mod header;
mod jpeg;
mod raster;
mod tiff;
mod upright;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation;

/// The kinds of picture that are taken, for sentences to their senders.
pub const ACCEPTED: &str = "JPEG, PNG, WebP, GIF, BMP or TIFF";

/// Endings of the names of files that are taken, in lower case, without the dot.
pub const EXTENSIONS: &[&str] = &[
    "jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff",
];

/// Endings of the names of photographs that are not taken, but refused with a hint how to convert
/// them.
pub const REFUSED_EXTENSIONS: &[&str] = &["heic", "heif", "hif", "avif"];

/// A decoded photograph.
#[derive(Clone, PartialEq, Eq)]
pub struct Photo {
    /// Width in pixels, after the EXIF orientation is applied.
    pub width: u32,
    /// Height in pixels, after the EXIF orientation is applied.
    pub height: u32,
    /// `width * height * 3` bytes: interleaved RGB 0-255, top row first, no padding.
    pub rgb: Vec<u8>,
}

impl fmt::Debug for Photo {
    /// Prints the size only: pixels of people stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Photo({}x{})", self.width, self.height)
    }
}

/// What a picture may cost before it is refused.
///
/// Decoding takes at most about 16 bytes a pixel at its peak (a planar 16-bit TIFF as CMYK; a 16-bit PNG
/// with alpha takes 11, a progressive JPEG 9, an ordinary JPEG 3), so `max_pixels` bounds the memory
/// of one decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// The largest file, in bytes.
    pub max_bytes: usize,
    /// The largest picture, in pixels (width times height).
    pub max_pixels: u64,
}

impl Default for DecodeLimits {
    /// 16 MiB and 50 megapixels: the photographs of today's phones and most cameras.
    fn default() -> Self {
        Self {
            max_bytes: 16 << 20,
            max_pixels: 50_000_000,
        }
    }
}

/// A kind of picture that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Baseline or progressive JPEG, 8 bits a sample; grey, YCbCr, RGB, CMYK or YCCK.
    Jpeg,
    /// PNG of any colour type and depth; of an animation, its default picture.
    Png,
    /// Lossy or lossless WebP; of an animation, its first frame.
    WebP,
    /// GIF; of an animation, its first frame.
    Gif,
    /// BMP of 1 to 32 bits a pixel, plain or run-length coded.
    Bmp,
    /// TIFF of whole numbers up to 16 bits a sample: grey, RGB, palette, CMYK, or YCbCr in JPEG;
    /// plain or compressed by PackBits, LZW, Deflate or JPEG; of several pages, the first.
    Tiff,
}

impl Format {
    /// Names the media type, `image/jpeg` for example.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::WebP => "image/webp",
            Self::Gif => "image/gif",
            Self::Bmp => "image/bmp",
            Self::Tiff => "image/tiff",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
        })
    }
}

/// What the first bytes of a picture say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The kind of picture.
    pub format: Format,
    /// Width in pixels as stored, before any EXIF rotation.
    pub width: u32,
    /// Height in pixels as stored, before any EXIF rotation.
    pub height: u32,
}

/// Why a picture was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// There are no bytes.
    #[error("the picture is empty: send the bytes of a {} file", ACCEPTED)]
    Empty,
    /// The bytes are something else, or a rare kind that is not taken.
    #[error("the file is {found}: {remedy}")]
    Unsupported {
        /// What was found, with its article.
        found: &'static str,
        /// What its sender can do.
        remedy: &'static str,
    },
    /// The picture is of a kind that is taken, but damaged or cut short.
    #[error(
        "the {format} picture is damaged or cut short ({reason}): send the whole file again or export it anew"
    )]
    Unreadable {
        /// The kind that the first bytes announce.
        format: Format,
        /// What was wrong with it.
        reason: String,
    },
    /// The file is over [`DecodeLimits::max_bytes`].
    #[error("the file has {got} bytes and at most {max} are taken: send a smaller picture")]
    TooLargeBytes {
        /// Bytes of the file.
        got: usize,
        /// Bytes that are taken.
        max: usize,
    },
    /// The picture is over [`DecodeLimits::max_pixels`].
    #[error(
        "the picture is {width}x{height} and at most {max} pixels are taken: send a smaller picture"
    )]
    TooManyPixels {
        /// Width that the header announces.
        width: u32,
        /// Height that the header announces.
        height: u32,
        /// Pixels that are taken.
        max: u64,
    },
}

impl ImageError {
    /// The stable code for a client: `image.unreadable` (422), `image.unsupported` (415) or
    /// `image.too_large` (413).
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty | Self::Unreadable { .. } => "image.unreadable",
            Self::Unsupported { .. } => "image.unsupported",
            Self::TooLargeBytes { .. } | Self::TooManyPixels { .. } => "image.too_large",
        }
    }

    fn unreadable(format: Format, reason: impl fmt::Display) -> Self {
        Self::Unreadable {
            format,
            reason: reason.to_string(),
        }
    }
}

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
    if u64::from(header.width) * u64::from(header.height) > limits.max_pixels {
        return Err(ImageError::TooManyPixels {
            width: header.width,
            height: header.height,
            max: limits.max_pixels,
        });
    }
    Ok(header)
}

/// Decodes a picture to upright RGB.
///
/// The orientation of EXIF, and of TIFF's own field, is applied; transparency is laid over white, since the colour under a
/// transparent pixel is arbitrary; colour profiles are ignored; 16-bit samples are rounded to 8.
///
/// # Errors
/// Every variant of [`ImageError`]. It does not panic: a decoder's panic is caught and told as
/// [`ImageError::Unreadable`].
pub fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Photo, ImageError> {
    let header = probe(bytes, limits)?;
    let decoded = catch_unwind(AssertUnwindSafe(|| match header.format {
        Format::Jpeg => jpeg::decode(bytes, &header),
        Format::Png => raster::decode_png(bytes, &header),
        Format::WebP => raster::decode_webp(bytes, &header),
        Format::Gif => raster::decode_gif(bytes, &header),
        Format::Bmp => raster::decode_bmp(bytes, &header),
        Format::Tiff => tiff::decode(bytes, &header),
    }));
    let (rgb, orientation) = decoded
        .unwrap_or_else(|_| Err(ImageError::unreadable(header.format, "the decoder gave up")))?;
    Ok(upright::turn(
        Photo {
            width: header.width,
            height: header.height,
            rgb,
        },
        orientation,
    ))
}

/// The remedy for what is a picture of a kind that is taken, but a rare variety.
const RARE: &str = "save it anew as an ordinary JPEG or PNG and send that";
/// The remedy for a camera's raw data.
const RAW: &str = "develop it, or export it as JPEG, and send that";

/// Pixels as stored (RGB, `width * height * 3` bytes) and how they are to be turned.
type Stored = (Vec<u8>, Orientation);

/// Reads the orientation from an EXIF block, with or without its `Exif\0\0` prefix.
fn orientation(exif: Option<&[u8]>) -> Orientation {
    exif.map(|exif| exif.strip_prefix(b"Exif\0\0").unwrap_or(exif))
        .and_then(Orientation::from_exif_chunk)
        .unwrap_or(Orientation::NoTransforms)
}
