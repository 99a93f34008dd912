//! The enrolled people: in memory for matching, and as a log in the object store.

mod log;
mod people;

pub use log::{GalleryError, GalleryStore};
pub use people::{Candidate, Change, EnrolledFace, FaceId, Gallery, Person, PersonId};
