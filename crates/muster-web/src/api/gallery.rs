//! Reads and changes of the gallery, whose failures are the API's errors.

use muster_base::live_gallery::LiveGallery;
use muster_gallery::{Change, Gallery, GalleryError, WriteError};

use crate::api::problem::ApiError;

/// Brings this replica's gallery up to date and runs `read` on it.
///
/// # Errors
/// 500 where the gallery can not be read.
pub async fn read<T>(
    gallery: &LiveGallery,
    read: impl FnOnce(&Gallery) -> T,
) -> Result<T, ApiError> {
    gallery
        .newest(read)
        .await
        .map_err(|error| ApiError::internal("the gallery could not be read", &error))
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

/// Runs a long computation on a blocking thread.
///
/// # Errors
/// 500 where the computation panics.
pub async fn compute<T: Send + 'static>(
    computation: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(computation)
        .await
        .map_err(|error| ApiError::internal("a look at the whole gallery ended", &error))
}
