//! What Muster needs and has not at present: space, a store, a queue, a whole gallery.

use std::error::Error;
use std::io;

use muster_gallery::GalleryError;
use muster_queue::QueueError;

use crate::backend::FolderGone;

/// What SQLite says where there is no space; its own error does not leave the queue.
const SQLITE_FULL: &str = "database or disk is full";

/// What is away or full, in a sentence that names it and the remedy; `None` where an error is of
/// another kind.
pub fn outage(error: &(dyn Error + 'static)) -> Option<String> {
    let mut links = Vec::new();
    let mut link = Some(error);
    while let Some(error) = link {
        links.push(error);
        link = error.source();
    }
    let first = |meaning: fn(&(dyn Error + 'static)) -> Option<String>| {
        links.iter().find_map(|error| meaning(*error))
    };
    first(named).or_else(|| first(away))
}

/// What one error of a chain says for itself.
fn named(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(gone) = error.downcast_ref::<FolderGone>() {
        return Some(gone.to_string());
    }
    if let Some(
        error @ (GalleryError::Missing { .. }
        | GalleryError::Malformed { .. }
        | GalleryError::Segment { .. }
        | GalleryError::Format { .. }),
    ) = error.downcast_ref()
    {
        return Some(error.to_string());
    }
    says_full(error).then(|| {
        "no space is left on the disk of the data folder: free some, then try again".to_owned()
    })
}

/// Whether an error is that no space is left.
pub fn is_full(error: &(dyn Error + 'static)) -> bool {
    let mut link = Some(error);
    while let Some(error) = link {
        if says_full(error) {
            return true;
        }
        link = error.source();
    }
    false
}

fn says_full(error: &(dyn Error + 'static)) -> bool {
    match error.downcast_ref::<io::Error>() {
        Some(error) => matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ),
        None => error.to_string().contains(SQLITE_FULL),
    }
}

/// Which service one error of a chain is of.
fn away(error: &(dyn Error + 'static)) -> Option<String> {
    let what = match error.downcast_ref() {
        Some(object_store::Error::NotFound { .. }) => return None,
        Some(_) => "the object store does not answer, or refuses",
        None => match error.downcast_ref()? {
            QueueError::Unavailable { .. }
            | QueueError::Throttled { .. }
            | QueueError::NotFound { .. }
            | QueueError::Refused { .. } => "the queue does not answer, or refuses",
            _ => return None,
        },
    };
    Some(format!("{what}, as Muster's log says: try again later"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(source: impl Into<Box<dyn Error + Send + Sync>>) -> object_store::Error {
        object_store::Error::Generic {
            store: "folder",
            source: source.into(),
        }
    }

    #[test]
    fn what_is_full_or_away_is_named() {
        let full = store(io::Error::from(io::ErrorKind::StorageFull));
        let sqlite = QueueError::Unavailable {
            source: SQLITE_FULL.into(),
        };
        for error in [&full as &(dyn Error + 'static), &sqlite] {
            assert!(outage(error).unwrap().starts_with("no space is left"));
        }
        let gallery = GalleryError::from(store("connection refused"));
        assert!(outage(&gallery).unwrap().starts_with("the object store"));
        let queue = QueueError::Unavailable {
            source: "connection refused".into(),
        };
        assert!(outage(&queue).unwrap().starts_with("the queue"));
        assert_eq!(outage(&GalleryError::Contended), None);
        assert_eq!(outage(&io::Error::other("something else")), None);
    }
}
