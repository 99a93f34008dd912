//! What every object of a gallery but a segment is wrapped in: JSON that says its format.

use serde::{Deserialize, Serialize};

/// The format that this build writes, and the only one it reads.
pub(super) const FORMAT: u32 = 3;

/// What an object holds; nothing where it was emptied.
#[derive(Serialize, Deserialize)]
pub(super) struct Envelope<T> {
    pub format: u32,
    pub content: Option<T>,
}

/// Writes an object of this build's format.
pub(super) fn encode<T: Serialize>(content: Option<&T>) -> Vec<u8> {
    serde_json::to_vec(&Envelope {
        format: FORMAT,
        content,
    })
    .expect("a gallery has only string keys")
}
