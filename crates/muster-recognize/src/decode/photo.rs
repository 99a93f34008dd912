//! A decoded photograph.

use std::fmt;

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
