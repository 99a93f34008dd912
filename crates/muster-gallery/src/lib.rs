//! The enrolled people, and who a face is.
//!
//! The people stand as a log and as segments in the object store, and segments in files of this machine. Knows no
//! pixels and no model's runtime: a face is an embedding here.

mod cache;
pub mod calibration;
mod codes;
mod compaction;
pub mod decide;
mod gallery;
pub mod health;
mod index;
mod judge;
mod live_segment;
mod log;
mod person;
mod segment;
mod shortlist;
pub mod template;

pub use cache::SegmentCache;
pub use gallery::{Gallery, Neighbour};
pub use judge::{Judge, JudgeOptions};
pub use log::{GalleryError, GalleryStore, WriteError, Written};
pub use person::{
    Change, Denial, DenialId, Embeddings, EnrolledFace, FaceId, Person, PersonId, Source,
};
pub use segment::SegmentError;
