//! The enrolled people: in memory for matching, and as a log in the object store.

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
pub use log::{GalleryError, GalleryStore};
pub use people::{Candidate, Gallery};
pub use person::{
    Change, Denial, DenialId, Embeddings, EnrolledFace, FaceId, Person, PersonId, Source,
};
pub use segment::SegmentError;
