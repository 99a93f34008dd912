//! What travels between the web tier, the workers and the controller: ids, file names, object keys
//! and messages; what the gallery and the recognizer share: embeddings, quality, and what is shipped
//! of an embedder; and how names are compared, and text of strangers is shown.
//!
//! No I/O happens here. Every message carries its format version, so that a rolling update never
//! has a worker guess at a newer request.

mod attributes;
mod calibration;
mod compact;
mod embedding;
mod face_probe;
mod file_name;
pub mod keys;
mod message;
mod name;
mod printable;
mod quality;
mod reply;
mod report;
mod request_id;
mod trace;

pub use attributes::Attributes;
pub use calibration::{ShippedCalibration, ShippedImpostors};
pub use embedding::{Embedding, EmbeddingError, cosine, cosine_le};
pub use face_probe::FaceProbe;
pub use file_name::FileName;
pub use message::{MESSAGE_VERSION, MessageError, Purpose, Request, now_ms};
pub use name::{UNKNOWN, name_key, reads_unknown};
pub use printable::{Printable, unprintable};
pub use quality::{Measure, Quality, QualityLimits, Requirements, UnmetRequirement};
pub use reply::{
    CandidateReport, Decision, Embedded, EmbeddedFace, FaceBox, FaceQuality, FaceReport, Failure,
    FailureCode, ImageSize, MAX_FACES, Outcome, PersonRef, Recognition, Repair, Reply, TimingMs,
    WorkerCpu,
};
pub use report::{Report, ReportContent, WebReport, WorkerPhase, WorkerReport};
pub use request_id::RequestId;
pub use trace::{NoTraceParent, TRACEPARENT, TraceParent};
