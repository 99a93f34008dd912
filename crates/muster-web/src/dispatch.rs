//! From a photograph to its reply: store, send, wait.
//!
//! The web tier's record of who waits for which request is here. A reply that nobody waits for (late,
//! or a duplicate after a visibility timeout) is dropped; on a queue that is shared, one that another
//! replica may wait for is given back.

pub mod answer;
pub mod counts;
pub mod dispatcher;
mod issued;
mod jobs;
mod slot_time;
mod stored;
mod submission;
mod throughput;
mod unawaited;
