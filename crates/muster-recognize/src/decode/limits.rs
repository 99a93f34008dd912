//! What a picture may cost.

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
