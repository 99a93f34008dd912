//! Why a gallery could not be read or changed, or was not.

use super::envelope::FORMAT;
use crate::segment::SegmentError;

/// Why the gallery could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GalleryError {
    /// The object store failed: try again.
    #[error("the object store did not serve the gallery")]
    Store(#[from] object_store::Error),
    /// An object is damaged, or written by another version of Muster.
    #[error(
        "the gallery's object {key} can not be read: restore it, or run the version that wrote it"
    )]
    Malformed {
        /// The object's key.
        key: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A segment is damaged, or written by another version of Muster.
    #[error(
        "the gallery's object {key} can not be read: restore it, or run the version that wrote it"
    )]
    Segment {
        /// The object's key.
        key: String,
        /// What is wrong with it.
        #[source]
        source: SegmentError,
    },
    /// An object has a format that this build does not know.
    #[error("the gallery's object {key} has format {found}, this build reads {FORMAT}")]
    Format {
        /// The object's key.
        key: String,
        /// Its format.
        found: u32,
    },
    /// An object that others are built on is not there.
    #[error(
        "the gallery's object {key} is missing: restore it from a backup, or all of the gallery as it \
         was at one time"
    )]
    Missing {
        /// The object's key.
        key: String,
    },
    /// The folder for segments can not be used.
    #[error("the folder {folder} can not be used: free space there, and let Muster write to it")]
    Cache {
        /// The folder's path.
        folder: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something else than Muster wrote to a segment's file while it was in use.
    #[error(
        "something else than Muster writes to the folder for segments: leave it to Muster, and try again"
    )]
    Damaged(#[from] SegmentError),
    /// Other writers were faster each time.
    #[error("the gallery kept changing while it was being read or written: try again")]
    Contended,
}

/// Why a change was not made.
#[derive(Debug)]
pub enum WriteError<E> {
    /// Whoever decides on the change refused it; nothing was written.
    Refused(E),
    /// The gallery could not be read or changed; after [`GalleryError::Store`] the change may have
    /// been made or not.
    Failed(GalleryError),
}

impl<E> From<GalleryError> for WriteError<E> {
    fn from(error: GalleryError) -> Self {
        Self::Failed(error)
    }
}
