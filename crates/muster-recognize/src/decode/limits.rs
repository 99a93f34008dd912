//! What a picture may cost.

/// What a picture may cost before it is refused. All of it is known from the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// The largest file, in bytes.
    pub max_bytes: usize,
    /// The largest picture, in pixels (width times height).
    pub max_pixels: u64,
    /// The longest side, in pixels.
    pub max_side: u32,
    /// How many times longer than the shorter side the longer one may be.
    pub max_ratio: u32,
    /// The memory that decoding may take at its peak, in bytes
    /// ([`Header::decoded_bytes`](super::Header::decoded_bytes)).
    pub max_decoded_bytes: u64,
}

impl Default for DecodeLimits {
    /// 16 MiB and 50 megapixels, the photographs of today's phones and most cameras, and panoramas of
    /// them. Ordinary pictures of as many pixels decode within the memory; 16 bits a sample with
    /// alpha do up to 48 megapixels.
    fn default() -> Self {
        Self {
            max_bytes: 16 << 20,
            max_pixels: 50_000_000,
            max_side: 32_768,
            max_ratio: 50,
            max_decoded_bytes: 512 << 20,
        }
    }
}
