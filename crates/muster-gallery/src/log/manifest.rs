//! The manifest: which segments make a gallery at one version.

use muster_jobs::keys::{SegmentId, manifest_number};
use serde::{Deserialize, Serialize};

/// A gallery at one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// Its number: one more than that of the manifest that it follows.
    pub sequence: u64,
    pub version: u64,
    /// The model whose embeddings are compared.
    pub model: Option<String>,
    pub segments: Vec<ManifestSegment>,
}

/// A segment of a gallery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ManifestSegment {
    pub id: SegmentId,
    /// The positions of those who do not count any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "dead")]
    pub tombstones: Vec<u32>,
}

impl Manifest {
    /// Whether it makes the segment or manifest of that name superfluous.
    pub fn supersedes(&self, name: &str) -> bool {
        if let Some(number) = manifest_number(name) {
            return number < self.sequence;
        }
        SegmentId::parse(name).is_some_and(|id| {
            let of_this_or_before = id.first_manifest().is_some_and(|of| of <= self.sequence);
            of_this_or_before && !self.segments.iter().any(|named| named.id == id)
        })
    }
}
