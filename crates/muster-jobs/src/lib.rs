//! What travels between the web tier and the workers: ids, file names, object keys and messages.
//!
//! No I/O happens here. Every message carries its format version, so that a rolling update never
//! has a worker guess at a newer request.

mod file_name;
mod keys;
mod message;
mod reply;

pub use file_name::FileName;
pub use keys::{GALLERY_PREFIX, INPUT_PREFIX, OUTPUT_PREFIX, ObjectKeys, STATUS_PREFIX, owned_by};
pub use message::{MESSAGE_VERSION, MessageError, Purpose, Request, RequestId, now_ms};
pub use reply::{
    Candidate, Decision, EnrolledPhoto, FaceBox, FaceReport, Failure, FailureCode, ImageSize,
    Outcome, PersonRef, Recognition, Reply, TimingMs,
};
