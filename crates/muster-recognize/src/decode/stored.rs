//! Pixels as a file has them, before they are turned.

use image::metadata::Orientation;

/// Pixels as stored (RGB, `width * height * 3` bytes) and how they are to be turned.
pub(super) type Stored = (Vec<u8>, Orientation);

/// Reads the orientation from an EXIF block, with or without its `Exif\0\0` prefix.
pub(super) fn orientation(exif: Option<&[u8]>) -> Orientation {
    exif.map(|exif| exif.strip_prefix(b"Exif\0\0").unwrap_or(exif))
        .and_then(Orientation::from_exif_chunk)
        .unwrap_or(Orientation::NoTransforms)
}
