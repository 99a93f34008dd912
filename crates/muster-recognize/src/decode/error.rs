//! Why a picture was refused, and what its sender can do.

use std::fmt;

use muster_jobs::{Failure, FailureCode};

use super::format::{ACCEPTED, Format};

/// The remedy for what is a picture of a kind that is taken, but a rare variety.
pub(super) const RARE: &str = "save it anew as an ordinary JPEG or PNG and send that";
/// The remedy for a camera's raw data.
pub(super) const RAW: &str = "develop it, or export it as JPEG, and send that";

/// What to do with any other file.
pub(super) const ANYTHING_ELSE: &str =
    "send a JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC, AVIF or JPEG XL picture";

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
    /// The file is over [`DecodeLimits::max_bytes`](super::limits::DecodeLimits::max_bytes).
    #[error("the file has {got} bytes and at most {max} are taken: send a smaller picture")]
    TooLargeBytes {
        /// Bytes of the file.
        got: usize,
        /// Bytes that are taken.
        max: usize,
    },
    /// The picture is over [`DecodeLimits::max_pixels`](super::limits::DecodeLimits::max_pixels).
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
    /// A side is over [`DecodeLimits::max_side`](super::limits::DecodeLimits::max_side).
    #[error(
        "the picture is {width}x{height} and at most {max} pixels on a side are taken: send a smaller picture"
    )]
    TooLong {
        /// Width that the header announces.
        width: u32,
        /// Height that the header announces.
        height: u32,
        /// Pixels on a side that are taken.
        max: u32,
    },
    /// The sides differ by more than [`DecodeLimits::max_ratio`](super::limits::DecodeLimits::max_ratio).
    #[error(
        "the picture is {width}x{height} and a side of at most {max} times the other is taken: cut out the part with the faces and send that"
    )]
    TooNarrow {
        /// Width that the header announces.
        width: u32,
        /// Height that the header announces.
        height: u32,
        /// What is taken.
        max: u32,
    },
    /// Decoding would take more than
    /// [`DecodeLimits::max_decoded_bytes`](super::limits::DecodeLimits::max_decoded_bytes).
    #[error(
        "decoding the picture ({width}x{height}) takes {got} bytes and at most {max} are taken: save it with fewer pixels, or as an ordinary JPEG, and send that"
    )]
    TooLargeDecoded {
        /// Width that the header announces.
        width: u32,
        /// Height that the header announces.
        height: u32,
        /// Bytes that it takes.
        got: u64,
        /// Bytes that are taken.
        max: u64,
    },
}

impl ImageError {
    /// The stable code for a client.
    pub fn code(&self) -> FailureCode {
        match self {
            Self::Empty | Self::Unreadable { .. } => FailureCode::ImageUnreadable,
            Self::Unsupported { .. } => FailureCode::ImageUnsupported,
            Self::TooLargeBytes { .. }
            | Self::TooManyPixels { .. }
            | Self::TooLong { .. }
            | Self::TooNarrow { .. }
            | Self::TooLargeDecoded { .. } => FailureCode::ImageTooLarge,
        }
    }

    pub(super) fn unreadable(format: Format, reason: impl fmt::Display) -> Self {
        Self::Unreadable {
            format,
            reason: reason.to_string(),
        }
    }
}

/// What to do with HEIC where it can not be decoded, and what whoever runs the service can.
const HEIC: &str = "convert it to JPEG and send that (an iPhone takes JPEGs after Settings, Camera, \
     Formats, Most Compatible; `heif-convert photo.heic photo.jpg` converts what was taken), or have libheif and its \
     HEVC decoder installed where the workers run (Debian: `apt-get install libheif1`, from Debian 13 on also \
     `libheif-plugin-libde265`)";
/// What to do with AVIF where it can not be decoded, and what whoever runs the service can.
const AVIF: &str = "convert it to PNG or JPEG, with `avifdec photo.avif photo.png` for example, and send that, or have \
     libheif and its AV1 decoder installed where the workers run (Debian: `apt-get install libheif1`, from Debian 13 on \
     also `libheif-plugin-dav1d`)";

impl ImageError {
    /// This machine can not decode the picture.
    pub(super) fn without_libheif(format: Format) -> Self {
        let (found, remedy) = match format {
            Format::Avif => ("an AVIF picture, and nothing here decodes it", AVIF),
            _ => ("a HEIC picture, and nothing here decodes it", HEIC),
        };
        Self::Unsupported { found, remedy }
    }

    /// libheif knows no such picture.
    pub(super) fn rare_heif(format: Format) -> Self {
        let found = match format {
            Format::Avif => "an AVIF of a rare kind",
            _ => "a HEIC of a rare kind",
        };
        Self::Unsupported {
            found,
            remedy: RARE,
        }
    }
}

impl From<&ImageError> for Failure {
    fn from(error: &ImageError) -> Self {
        Self {
            code: error.code(),
            detail: error.to_string(),
        }
    }
}
