//! Outcomes that a reply only points to, in the output store.

use muster_base::aws;
use muster_base::backend::Backend;
use muster_jobs::{FileName, Outcome, Purpose, Reply, RequestId};
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::api::problem::ApiError;
use crate::dispatch::dispatcher::{Dispatcher, Inner};

impl Dispatcher {
    /// Reads a result that a reply only points to: one that was too large for the queue, or that
    /// stood there before. What was put there for its way alone is deleted.
    pub(super) async fn read_stored(
        &self,
        id: RequestId,
        file: &FileName,
        purpose: Purpose,
    ) -> Result<Outcome, ApiError> {
        let backend = &self.inner.backend;
        let failed = |error| ApiError::internal("a stored result could not be read", &error);
        let garbled = |error| ApiError::internal("a stored result is not JSON", &error);
        let layout = backend.layout(purpose);
        let stays = Backend::stores_outcome(layout, purpose);
        let key = if stays {
            Path::from(layout.output(id, file))
        } else {
            Backend::carried_key(id)
        };
        let found = backend.output.get(&key).await.map_err(failed)?;
        let bytes = found.bytes().await.map_err(failed)?;
        if !stays {
            self.inner.delete_carried(id).await;
            return serde_json::from_slice(&bytes).map_err(garbled);
        }
        if let Ok(failure) = serde_json::from_slice(&bytes) {
            return Ok(Outcome::Failed(failure));
        }
        serde_json::from_slice(&bytes)
            .map(Outcome::Recognized)
            .map_err(garbled)
    }
}

impl Inner {
    /// Answers those who wait and whose reply was sent while there was no queue for it: a worker stores a
    /// result before it replies.
    pub(super) async fn answer_from_store(&self) {
        let waiting: Vec<RequestId> = self.waiting().keys().copied().collect();
        for id in waiting {
            match Backend::of_request(&*self.backend.output, id).await {
                Ok(stored) => {
                    let Some(stored) = stored.first() else {
                        continue;
                    };
                    let file = Backend::file_of(&stored.location);
                    let waiter = self.waiting().remove(&id);
                    if let (Some(waiter), Some(file)) = (waiter, file) {
                        // A client that hung up this moment needs no reply.
                        let _ = waiter.send(Reply::new(id, file, Outcome::Stored));
                    }
                }
                Err(error) => {
                    aws::failed("could not look for a result whose reply is lost", &error);
                }
            }
        }
    }

    /// Deletes an outcome that was put into the output store for its way here, where one was.
    pub(super) async fn delete_carried(&self, id: RequestId) {
        match self.backend.output.delete(&Backend::carried_key(id)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => {
                tracing::warn!(
                    request.id = %id,
                    error = %muster_base::ErrorChain(&error),
                    "an outcome that was on its way is kept until it is old"
                );
            }
        }
    }
}
