//! Reads and changes of the gallery, whose failures are the API's errors.

use muster_base::live_gallery::LiveGallery;
use muster_gallery::{Change, Gallery, GalleryError, WriteError};

use crate::api::problem::ApiError;

/// Brings this replica's gallery up to date and runs `read` on it.
///
/// # Errors
/// 500 where the gallery can not be read.
pub async fn read<T>(gallery: &LiveGallery, read: impl Fn(&Gallery) -> T) -> Result<T, ApiError> {
    gallery.newest(read).await.map_err(unread)
}

fn unread(error: impl Into<GalleryError>) -> ApiError {
    ApiError::internal("the gallery could not be read", &error.into())
}

/// Makes the change that `decide` returns for the newest gallery.
///
/// # Errors
/// The refusal of `decide`; 500 where the gallery can not be changed.
pub async fn change(
    gallery: &LiveGallery,
    decide: impl FnMut(&Gallery) -> Result<Change, ApiError>,
) -> Result<(), ApiError> {
    gallery.append(decide).await.map_err(|error| match error {
        WriteError::Refused(refusal) => refusal,
        WriteError::Failed(error) => failed(&error),
    })
}

/// The error where the gallery can not be changed.
pub fn failed(error: &GalleryError) -> ApiError {
    ApiError::internal("the gallery could not be changed", error)
}

/// Runs a look that takes long at a copy of the gallery, on a blocking thread; once more at another copy
/// where something else than Muster wrote to what it read.
///
/// # Errors
/// 500 where it panics, or the gallery can not be read.
pub async fn look<T, L>(gallery: &LiveGallery, copy: Gallery, look: L) -> Result<T, ApiError>
where
    T: Send + 'static,
    L: FnMut(&Gallery) -> T + Send + 'static,
{
    let run = async |copy: Gallery, mut look: L| {
        let looking = tokio::task::spawn_blocking(move || (copy.look(&mut look), look));
        let ended = looking.await;
        ended.map_err(|error| ApiError::internal("a look at the whole gallery ended", &error))
    };
    let (seen, look) = run(copy, look).await?;
    let Err(_) = seen else {
        return seen.map_err(unread);
    };
    let copy = gallery.copy().await.map_err(unread)?;
    run(copy, look).await?.0.map_err(unread)
}
