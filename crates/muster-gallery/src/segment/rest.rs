//! What of a segment stays in its file: the vectors, and the people's records.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

/// The file, and what its pieces were when all of it was verified.
#[derive(Debug)]
pub(super) struct Rest {
    file: File,
    /// The CRC-32 of each piece.
    checks: Vec<u32>,
    damaged: AtomicBool,
}

impl Rest {
    /// The rest of a verified segment, cut into pieces.
    pub fn new<'a>(file: File, pieces: impl Iterator<Item = &'a [u8]>) -> Self {
        Self {
            file,
            checks: pieces.map(crc32fast::hash).collect(),
            damaged: AtomicBool::new(false),
        }
    }

    /// Reads pieces of one length, beginning with piece number `first`; `None` where they are not as
    /// they were, of which [`Self::is_damaged`] tells from then on.
    pub fn read(&self, at: Range<usize>, length: usize, first: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; at.len()];
        let read = self.file.read_exact_at(&mut bytes, at.start as u64);
        let mut checked = bytes
            .chunks(length.max(1))
            .zip(self.checks.get(first..).unwrap_or_default());
        if read.is_ok() && checked.all(|(piece, check)| crc32fast::hash(piece) == *check) {
            return Some(bytes);
        }
        self.damaged.store(true, Ordering::Relaxed);
        None
    }

    /// Whether something was found to be other than it was verified.
    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }
}
