//! What travels between the web tier, the workers and the controller: ids, file names, object keys and messages.
//!
//! No I/O happens here. Every message carries its format version, so that a rolling update never
//! has a worker guess at a newer request.

mod calibration;
mod embedding;
mod file_name;
mod keys;
mod message;
mod quality;
mod reply;
mod report;
mod trace;

pub use calibration::{Shipped, ShippedImpostors};
pub use embedding::{Embedding, EmbeddingError, cosine, cosine_le};
pub use file_name::FileName;
pub use keys::{
    AUDIT_PREFIX, ENROLLED_PREFIX, GALLERY_PREFIX, INPUT_PREFIX, JOBS_PREFIX, KEYS_PREFIX,
    OUTPUT_PREFIX, ObjectKeys, STATUS_PREFIX, job, owned_by,
};
pub use message::{Attributes, MESSAGE_VERSION, MessageError, Purpose, Request, RequestId, now_ms};
pub use quality::{Lack, Measure, Quality, Requirements};
pub use reply::{
    Candidate, Decision, Embedded, EmbeddedFace, FaceBox, FaceQuality, FaceReport, Failure,
    FailureCode, ImageSize, Outcome, PersonRef, Recognition, Reply, TimingMs, WorkerCpu,
};
pub use report::{Report, ReportContent, WebReport, WorkerPhase, WorkerReport};
pub use trace::{NoTraceParent, TRACEPARENT, TraceParent};
