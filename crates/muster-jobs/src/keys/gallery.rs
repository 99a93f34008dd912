//! The keys of a gallery: its log of changes, and the segments and manifests beside it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the name of a change ends with.
const CHANGE: &str = "change";
/// What stands between the version and the number in the name of a snapshot.
const SNAPSHOT: &str = "snapshot-";
/// What the name of an object of the log ends with.
const LOG_ENTRY: &str = ".json";
/// What the name of a manifest ends with.
const MANIFEST: &str = ".manifest.json";
/// What the name of a segment ends with.
const SEGMENT: &str = ".segment";

/// Names what the segments and manifests stand below of the gallery whose changes stand below
/// `prefix`: elsewhere, since the changes are listed with every request.
pub fn segments_prefix(prefix: &str) -> String {
    format!("{prefix}-segments")
}

/// The keys of one gallery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GalleryKeys {
    log: String,
    segments: String,
}

impl GalleryKeys {
    /// The keys of the gallery whose changes stand below `prefix`.
    pub fn new(prefix: &str) -> Self {
        Self {
            log: prefix.to_owned(),
            segments: segments_prefix(prefix),
        }
    }

    /// What the changes and snapshots stand below.
    pub fn log_prefix(&self) -> &str {
        &self.log
    }

    /// What the segments and manifests stand below.
    pub fn segments_prefix(&self) -> &str {
        &self.segments
    }

    /// Names the change that leads to a version.
    pub fn change(&self, version: u64) -> String {
        format!("{}/{version:020}.{CHANGE}{LOG_ENTRY}", self.log)
    }

    /// Names the announcement, among the changes, of a manifest at its version.
    pub fn snapshot(&self, version: u64, manifest: u64) -> String {
        format!(
            "{}/{version:020}.{SNAPSHOT}{manifest:020}{LOG_ENTRY}",
            self.log
        )
    }

    /// Names what sorts after every object of a version in the log, and before those of the next.
    pub fn after_version(&self, version: u64) -> String {
        format!("{}/{version:020}.z", self.log)
    }

    /// Names a manifest by its number.
    pub fn manifest(&self, number: u64) -> String {
        format!("{}/{number:020}{MANIFEST}", self.segments)
    }

    /// Names a segment.
    pub fn segment(&self, id: &SegmentId) -> String {
        format!("{}/{id}{SEGMENT}", self.segments)
    }
}

/// What the name of an object in a gallery's log says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogEntry {
    /// The change that leads to its version.
    Change,
    /// The announcement of the manifest of that number.
    Snapshot(u64),
    /// What another version of Muster wrote.
    Unknown,
}

impl LogEntry {
    /// Reads the last part of a key: the version, and what stands there. `None` where it is no
    /// object of a log.
    pub fn parse(name: &str) -> Option<(u64, Self)> {
        let (version, kind) = name.split_once('.')?;
        let kind = kind.strip_suffix(LOG_ENTRY)?;
        let entry = if kind == CHANGE {
            Self::Change
        } else {
            match kind.strip_prefix(SNAPSHOT).map(str::parse) {
                Some(Ok(manifest)) => Self::Snapshot(manifest),
                _ => Self::Unknown,
            }
        };
        Some((version.parse().ok()?, entry))
    }
}

/// A segment's name: the number of the first manifest that names it, then a hash of its content.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SegmentId(String);

impl SegmentId {
    /// The name of a segment that the manifest of that number names first.
    pub fn new(manifest: u64, digest: &str) -> Self {
        Self(format!("{manifest:020}-{digest}"))
    }

    /// Reads the last part of a key; `None` where it is not a segment's.
    pub fn parse(name: &str) -> Option<Self> {
        Some(Self(name.strip_suffix(SEGMENT)?.to_owned()))
    }

    /// Returns the number of the manifest that named it first, where the name says it.
    pub fn first_manifest(&self) -> Option<u64> {
        self.0.split_once('-')?.0.parse().ok()
    }

    /// Names the file that a machine keeps it in.
    pub fn file_name(&self) -> String {
        format!("{}{SEGMENT}", self.0)
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads the last part of a key: a manifest's number. `None` where it is not a manifest's.
pub fn manifest_number(name: &str) -> Option<u64> {
    name.strip_suffix(MANIFEST)?.parse().ok()
}
