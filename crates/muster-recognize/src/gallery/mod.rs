//! The enrolled people: as a log and as segments in the object store, mapped for matching.

mod cache;
mod codes;
mod index;
mod log;
mod parts;
mod people;
mod person;
mod segment;
mod shortlist;

pub use cache::SegmentCache;
pub use log::{GalleryError, GalleryStore, segments_prefix};
pub use people::{Candidate, Gallery};
pub use person::{
    Change, Denial, DenialId, Embeddings, EnrolledFace, FaceId, Person, PersonId, Source,
};
pub use segment::SegmentError;
