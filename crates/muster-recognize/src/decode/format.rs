//! The kinds of picture that are taken.

use std::fmt;

use super::photo::Photo;

/// Width and height in pixels.
pub(super) type Size = (u32, u32);

/// The kinds of picture that are taken, for sentences to their senders.
pub const ACCEPTED: &str = "JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC, AVIF or JPEG XL";

/// A kind of picture that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Baseline or progressive JPEG, 8 bits a sample; grey, YCbCr, RGB, CMYK or YCCK.
    Jpeg,
    /// PNG of any colour type and depth, perhaps an animation.
    Png,
    /// Lossy or lossless WebP, perhaps an animation.
    WebP,
    /// GIF, perhaps an animation.
    Gif,
    /// BMP of 1 to 32 bits a pixel, plain or run-length coded.
    Bmp,
    /// TIFF of whole numbers up to 16 bits a sample: grey, RGB, palette, CMYK, or YCbCr in JPEG;
    /// plain or compressed by PackBits, LZW, Deflate or JPEG; of several pages, the first.
    Tiff,
    /// HEIC, or HEIF of another coding that libheif knows; of several pictures, the primary one.
    Heic,
    /// AVIF; of several pictures, the primary one.
    Avif,
    /// JPEG XL of grey or RGB; of an animation, its first picture.
    JpegXl,
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
            Self::Heic => "image/heic",
            Self::Avif => "image/avif",
            Self::JpegXl => "image/jxl",
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
            Self::Heic => "HEIC",
            Self::Avif => "AVIF",
            Self::JpegXl => "JPEG XL",
        })
    }
}

/// What the first bytes of a picture say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The kind of picture.
    pub format: Format,
    /// Width in pixels as stored, before any rotation.
    pub width: u32,
    /// Height in pixels as stored, before any rotation.
    pub height: u32,
    /// Memory that decoding takes at its peak, in bytes, as estimated from the kind of picture: its
    /// samples, what they are turned into, and what lies between.
    pub decoded_bytes: u64,
}

impl Header {
    /// Makes a picture of pixels as stored.
    pub(super) fn photo(&self, rgb: Vec<u8>) -> Photo {
        Photo {
            width: self.width,
            height: self.height,
            rgb,
        }
    }
}
