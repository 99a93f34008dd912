//! From a photograph to its reply: store, send, wait.
//!
//! The web tier's record of who waits for which request is here. A reply that nobody waits for (late,
//! or a duplicate after a visibility timeout) is dropped.

pub mod answer;
pub mod counts;
pub mod dispatcher;
mod jobs;
mod throughput;
mod unawaited;
