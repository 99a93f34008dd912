//! A change of the model, as the state store has it.

use futures::TryStreamExt;
use muster_api::gallery::NotEmbedded;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};

use crate::api::problem::ApiError;
use muster_base::backend::Backend;
use muster_jobs::keys;

/// A change that is under way, as it stands in the state store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Begun {
    /// The next model.
    pub to: String,
    pub started_at_ms: u64,
}

/// Writes that a change is under way.
pub async fn write(state: &dyn ObjectStore, begun: &Begun) -> Result<(), ApiError> {
    put(state, &Backend::model_change(), begun).await
}

/// Writes that there is no embedding of a face.
pub async fn write_not_embedded(
    state: &dyn ObjectStore,
    face: &NotEmbedded,
) -> Result<(), ApiError> {
    put(state, &Path::from(keys::not_embedded(&face.id)), face).await
}

async fn put(
    state: &dyn ObjectStore,
    key: &Path,
    content: &impl Serialize,
) -> Result<(), ApiError> {
    let body = serde_json::to_vec(content).expect("it has only string keys");
    let put = state.put(key, PutPayload::from(body)).await;
    put.map(|_| ()).map_err(store_failed)
}

/// Removes the change that is under way.
pub async fn remove(state: &dyn ObjectStore) -> Result<(), ApiError> {
    match state.delete(&Backend::model_change()).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(store_failed(error)),
    }
}

/// The change that is under way.
pub async fn read(state: &dyn ObjectStore) -> Result<Option<Begun>, ApiError> {
    let found = match state.get(&Backend::model_change()).await {
        Ok(found) => found.bytes().await.map_err(store_failed)?,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(store_failed(error)),
    };
    serde_json::from_slice(&found)
        .map(Some)
        .map_err(|error| ApiError::internal("a change of the model could not be read", &error))
}

/// What the last change, or the one that is under way, made no embedding of.
pub async fn not_embedded(state: &dyn ObjectStore) -> Result<Vec<NotEmbedded>, ApiError> {
    let listed: Vec<_> = state
        .list(Some(&Backend::not_embedded()))
        .try_collect()
        .await
        .map_err(store_failed)?;
    let mut found = Vec::with_capacity(listed.len());
    for object in listed {
        let bytes = match state.get(&object.location).await {
            Ok(there) => there.bytes().await.map_err(store_failed)?,
            Err(object_store::Error::NotFound { .. }) => continue,
            Err(error) => return Err(store_failed(error)),
        };
        let face = serde_json::from_slice(&bytes);
        found.push(face.map_err(|error| {
            ApiError::internal("a face that was not embedded could not be read", &error)
        })?);
    }
    Ok(found)
}

/// Forgets what earlier changes made no embedding of.
pub async fn forget_not_embedded(state: &dyn ObjectStore) -> Result<(), ApiError> {
    let listed: Vec<_> = state
        .list(Some(&Backend::not_embedded()))
        .try_collect()
        .await
        .map_err(store_failed)?;
    for object in listed {
        match state.delete(&object.location).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(store_failed(error)),
        }
    }
    Ok(())
}

pub fn store_failed(error: object_store::Error) -> ApiError {
    ApiError::internal(
        "the state of a change of the model could not be kept",
        &error,
    )
}
