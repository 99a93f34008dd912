//! What photographs are taken.

use muster_recognize::decode::DecodeLimits;
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
            max_in_request: 50,
        }
    }
}

impl PhotographSettings {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        for (name, value) in [
            ("max_images", self.max_in_request),
            ("max_image_bytes", self.max_bytes),
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
        }
    }
}
