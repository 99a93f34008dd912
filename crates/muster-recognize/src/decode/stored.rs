//! Pixels as a file has them, before they are turned.

use image::metadata::Orientation;

/// Pixels as stored (RGB, `width * height * 3` bytes) and how they are to be turned.
pub(super) type Stored = (Vec<u8>, Orientation);
