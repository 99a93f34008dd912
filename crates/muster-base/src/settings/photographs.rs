//! What photographs are taken.

use muster_recognize::decode::DecodeLimits;
use muster_recognize::recognizer::MAX_TILES;
use serde::{Deserialize, Serialize};

/// What photographs are taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PhotographSettings {
    /// Largest photograph taken.
    #[serde(rename = "max_image_bytes")]
    pub max_bytes: usize,
    /// Most pixels taken, width times height.
    #[serde(rename = "max_image_pixels")]
    pub max_pixels: u64,
    /// Longest side taken, in pixels.
    #[serde(rename = "max_image_side")]
    pub max_side: u32,
    /// How many times longer than the shorter side the longer one may be.
    #[serde(rename = "max_image_ratio")]
    pub max_ratio: u32,
    /// Memory that decoding one photograph may take; a worker decodes one at a time.
    #[serde(rename = "max_decoded_bytes")]
    pub max_decoded_bytes: u64,
    /// Most parts that the detector looks at of a large or long photograph.
    pub max_tiles: u32,
    /// Most photographs taken in one request.
    #[serde(rename = "max_images")]
    pub max_in_request: usize,
}

impl Default for PhotographSettings {
    fn default() -> Self {
        let limits = DecodeLimits::default();
        Self {
            max_bytes: limits.max_bytes,
            max_pixels: limits.max_pixels,
            max_side: limits.max_side,
            max_ratio: limits.max_ratio,
            max_decoded_bytes: limits.max_decoded_bytes,
            max_tiles: MAX_TILES,
            max_in_request: 50,
        }
    }
}

impl PhotographSettings {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        for (name, value) in [
            ("max_images", self.max_in_request as u64),
            ("max_image_bytes", self.max_bytes as u64),
            ("max_image_pixels", self.max_pixels),
            ("max_image_side", self.max_side.into()),
            ("max_image_ratio", self.max_ratio.into()),
            ("max_decoded_bytes", self.max_decoded_bytes),
            ("max_tiles", self.max_tiles.into()),
        ] {
            anyhow::ensure!(value >= 1, "{name} is 0: it must be at least 1");
        }
        Ok(())
    }

    /// The limits of one photograph.
    pub fn limits(&self) -> DecodeLimits {
        DecodeLimits {
            max_bytes: self.max_bytes,
            max_pixels: self.max_pixels,
            max_side: self.max_side,
            max_ratio: self.max_ratio,
            max_decoded_bytes: self.max_decoded_bytes,
        }
    }
}
