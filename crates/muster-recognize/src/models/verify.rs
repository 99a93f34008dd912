//! Holding installed files against the hashes of the manifest.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use sha2::{Digest as _, Sha256};

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// What became of an installed file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileState {
    /// It has the hash of the manifest.
    Intact,
    /// It is another file, or cannot be read.
    Altered,
    /// It is not there.
    Missing,
    /// Nothing of its part of the manifest is there.
    NotInstalled,
}

impl fmt::Display for FileState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Intact => "intact",
            Self::Altered => "altered",
            Self::Missing => "missing",
            Self::NotInstalled => "not installed",
        })
    }
}

/// Hashes a file, lower-case hexadecimal.
pub(super) fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk)? {
            0 => {
                return Ok(hasher
                    .finalize()
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect());
            }
            read => hasher.update(&chunk[..read]),
        }
    }
}

/// Tells what became of one file.
pub(super) fn state(path: &Path, expected: &str) -> FileState {
    match sha256(path) {
        Ok(actual) if actual == expected => FileState::Intact,
        Err(error) if error.kind() == io::ErrorKind::NotFound => FileState::Missing,
        Ok(_) | Err(_) => FileState::Altered,
    }
}

/// Tells what became of each file, in order, on all the cores.
pub(super) fn states<P: AsRef<Path> + Sync>(files: &[(P, &str)]) -> Vec<FileState> {
    // The largest first, so that no core is left alone with it at the end.
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_by_key(|&at| {
        std::cmp::Reverse(files[at].0.as_ref().metadata().map_or(0, |file| file.len()))
    });
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let Some(&at) = order.get(next.fetch_add(1, Ordering::Relaxed)) else {
                return done;
            };
            let (path, expected) = &files[at];
            done.push((at, state(path.as_ref(), expected)));
        }
    };
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(files.len());
    let mut states = vec![FileState::Missing; files.len()];
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        for (at, state) in work() {
            states[at] = state;
        }
        for thread in others {
            // A thread that panicked leaves its files as not verified.
            for (at, state) in thread.join().unwrap_or_default() {
                states[at] = state;
            }
        }
    });
    states
}
