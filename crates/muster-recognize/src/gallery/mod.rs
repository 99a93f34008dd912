//! The enrolled people: in memory for matching, and as a log in the object store.

mod log;
mod people;
mod person;

pub use log::{GalleryError, GalleryStore};
pub use people::{Candidate, Gallery};
pub use person::{
    Change, Denial, DenialId, Embeddings, EnrolledFace, FaceId, Person, PersonId, Source,
};
