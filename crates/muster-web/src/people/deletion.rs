//! What a deletion does once the gallery has let go of a person, a face or a denial, and its receipt.
//!
//! Invariant: what is left to do stands in the state store from before the gallery is changed until
//! the receipt is handed out, with nothing of the person but ids. So the same request, made again,
//! completes a deletion wherever it was cut off, and gets the receipt.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use muster_api::people::Receipt;
use muster_base::backend::Backend;
use muster_base::live_gallery::{LiveGallery, RELEASED_WITHIN};
use muster_gallery::{Gallery, Person, Source};
use muster_jobs::keys::{self, ObjectKeys};
use muster_jobs::now_ms;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::api::gallery;
use crate::api::problem::ApiError;
use crate::people::photographs;
use crate::retention::Retention;

/// Results that are looked through at one time.
const CONCURRENT_READS: usize = 16;
/// Time between two looks for old notes.
const SWEEP_INTERVAL: Duration = Duration::from_secs(3600);
/// How long a deletion that was cut off can be completed by the same request.
const NOTES_KEPT: Duration = Duration::from_secs(24 * 3600);

/// A deletion, as it stands in the state store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Begun {
    /// The person.
    person_id: Uuid,
    /// Whether it is the person, and not a face or a denial of theirs.
    whole: bool,
    /// The names of the kept photographs.
    photographs: Vec<String>,
}

impl Begun {
    /// The deletion of a person.
    pub fn of_person(person: &Person) -> Self {
        Self {
            whole: true,
            ..Self::of_sources(person, person.sources())
        }
    }

    /// The deletion of some of what is kept of a person.
    pub fn of_sources(person: &Person, sources: impl IntoIterator<Item = Source>) -> Self {
        let photographs = sources.into_iter().map(Source::photograph_key);
        Self {
            person_id: person.id.into(),
            whole: false,
            photographs: photographs.collect(),
        }
    }

    fn kept(&self) -> impl Iterator<Item = Path> {
        self.photographs
            .iter()
            .map(|name| Path::from(name.as_str()))
    }
}

/// The deletions of this installation. Cheap to clone.
#[derive(Clone)]
pub struct Deletions {
    /// Stores and queues.
    pub backend: Backend,
    /// The enrolled people.
    pub gallery: LiveGallery,
    /// How long uploads and results are kept.
    pub retention: Retention,
}

impl Deletions {
    /// Notes what a deletion will have to do, before the gallery is changed. Where no space is left
    /// for that, the photographs go first.
    pub async fn begin(&self, id: Uuid, begun: &Begun) -> Result<(), ApiError> {
        if self.write(id, begun).await.is_ok() {
            return Ok(());
        }
        photographs::delete(&*self.backend.enrolled, begun.kept()).await;
        self.write(id, begun)
            .await
            .map_err(|error| ApiError::internal("a deletion could not be noted", &error))
    }

    /// Completes a deletion that the gallery's change was made for, and hands out its receipt.
    ///
    /// # Errors
    /// 503 where something could not be deleted now; the same request completes it.
    pub async fn complete(&self, id: Uuid, begun: Begun) -> Result<Receipt, ApiError> {
        let erased = self.gallery.settle().await;
        erased
            .map_err(|error| unfinished("embeddings are still in the gallery's store", &error))?;
        self.finish(id, begun).await
    }

    /// Completes a deletion that was cut off, and hands out its receipt.
    ///
    /// # Errors
    /// `unknown` where there is none that was; else as [`Self::complete`].
    pub async fn again(
        &self,
        id: Uuid,
        unknown: impl FnOnce() -> ApiError,
    ) -> Result<Receipt, ApiError> {
        let failed = |error| ApiError::internal("a deletion could not be read", &error);
        let found = match self
            .backend
            .state
            .get(&Path::from(keys::deletion(id)))
            .await
        {
            Ok(found) => found.bytes().await.map_err(failed)?,
            Err(object_store::Error::NotFound { .. }) => return Err(unknown()),
            Err(error) => return Err(failed(error)),
        };
        let begun: Begun = serde_json::from_slice(&found)
            .map_err(|error| ApiError::internal("a deletion could not be read", &error))?;
        // Another process may have made the change.
        let erased = self.gallery.compact().await;
        erased
            .map_err(|error| unfinished("embeddings are still in the gallery's store", &error))?;
        self.finish(id, begun).await
    }

    /// Deletes what stands outside the gallery.
    async fn finish(&self, id: Uuid, begun: Begun) -> Result<Receipt, ApiError> {
        let embeddings = begun.photographs.len();
        let deleted = photographs::delete(&*self.backend.enrolled, begun.kept()).await;
        let results = match (begun.whole, self.backend.keys) {
            (true, ObjectKeys::Request) if !self.retention.output_is_bucket => {
                let anonymous = forget_in_results(&*self.backend.output, begun.person_id).await;
                Some(
                    anonymous
                        .map_err(|error| unfinished("results still name the person", &error))?,
                )
            }
            _ => None,
        };
        self.erase_messages().await?;
        let receipt = Receipt {
            id: Uuid::now_v7(),
            person_id: begun.person_id,
            deleted_at_ms: now_ms(),
            gallery_version: gallery::read(&self.gallery, Gallery::version).await?,
            embeddings,
            photographs: deleted,
            photographs_pending: embeddings - deleted,
            results,
            other_machines_within_s: RELEASED_WITHIN.as_secs(),
            uploads_kept_s: (!self.retention.input_is_bucket)
                .then_some(self.retention.period.as_secs()),
        };
        let note = self
            .backend
            .state
            .delete(&Path::from(keys::deletion(id)))
            .await;
        if let Err(error) = note {
            tracing::warn!(
                error = %muster_base::ErrorChain(&error),
                "what a deletion had to do stays noted for a day"
            );
        }
        Ok(receipt)
    }

    /// Overwrites what went through the queue, embeddings and names: a message that was deleted may
    /// stay in its file.
    async fn erase_messages(&self) -> Result<(), ApiError> {
        let erased = self.backend.queues.erase_deleted().await;
        erased.map_err(|error| unfinished("messages are still in the queue's file", &error))
    }

    async fn write(&self, id: Uuid, begun: &Begun) -> Result<(), object_store::Error> {
        let body = serde_json::to_vec(begun).expect("it has only string keys");
        let key = Path::from(keys::deletion(id));
        let put = self.backend.state.put(&key, PutPayload::from(body)).await;
        put.map(|_| ())
    }
}

/// Deletes old notes of deletions, again and again, until `stop`.
pub async fn sweep(state: Arc<dyn ObjectStore>, stop: CancellationToken) {
    loop {
        if let Err(error) = sweep_once(&*state).await {
            tracing::warn!(
                error = %muster_base::ErrorChain(&error),
                "could not delete old notes of deletions"
            );
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SWEEP_INTERVAL) => {}
        }
    }
}

async fn sweep_once(state: &dyn ObjectStore) -> Result<(), object_store::Error> {
    let kept_from = now_ms().saturating_sub(NOTES_KEPT.as_millis() as u64);
    let below = Path::from(keys::DELETIONS_PREFIX);
    let listed: Vec<_> = state.list(Some(&below)).try_collect().await?;
    for meta in listed {
        let written = u64::try_from(meta.last_modified.timestamp_millis());
        if written.is_ok_and(|written| written < kept_from) {
            match state.delete(&meta.location).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn unfinished(what: &str, error: &(dyn std::error::Error + 'static)) -> ApiError {
    ApiError::unavailable(
        format!(
            "it is deleted and is recognised no more, but {what}: Muster goes on until they are gone; \
             send the same request again for the receipt"
        ),
        error,
    )
}

/// Takes a person out of all results that name them, and says of how many.
async fn forget_in_results(
    output: &dyn ObjectStore,
    person: Uuid,
) -> Result<usize, object_store::Error> {
    let looks = output.list(None).map(|listed| async move {
        let location = listed?.location;
        let bytes = match output.get(&location).await {
            Ok(found) => found.bytes().await?,
            Err(object_store::Error::NotFound { .. }) => return Ok(0),
            Err(error) => return Err(error),
        };
        let Some(without) = without(&bytes, &person.to_string()) else {
            return Ok(0);
        };
        output.put(&location, PutPayload::from(without)).await?;
        Ok(1)
    });
    let looks = looks.buffer_unordered(CONCURRENT_READS);
    looks.try_fold(0, async |sum, one| Ok(sum + one)).await
}

/// A result without that person; `None` where it does not name them.
fn without(result: &[u8], person: &str) -> Option<Vec<u8>> {
    let mut result: Value = serde_json::from_slice(result).ok()?;
    let is = |named: &Value| named["id"] == person;
    let mut found = false;
    let faces = result["faces"].as_array_mut()?;
    for face in faces.iter_mut() {
        if is(&face["person"]) {
            found = true;
            face["person"] = Value::Null;
            face["decision"] = "unknown".into();
        }
        if let Some(candidates) = face["candidates"].as_array_mut() {
            let before = candidates.len();
            candidates.retain(|candidate| !is(&candidate["person"]));
            found |= candidates.len() < before;
        }
    }
    if !found {
        return None;
    }
    for face in faces {
        // They may name the person too.
        face["reasons"] = vec!["a person whom this answer named has been deleted"].into();
    }
    Some(serde_json::to_vec(&result).expect("it was JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_keeps_everything_but_the_person() {
        let result = serde_json::json!({
            "request_id": "r",
            "faces": [
                {
                    "person": {"id": "1", "name": "Anna"},
                    "decision": "match",
                    "candidates": [
                        {"person": {"id": "1", "name": "Anna"}, "similarity": 0.9},
                        {"person": {"id": "2", "name": "Ben"}, "similarity": 0.2},
                    ],
                    "reasons": [],
                },
                {
                    "person": {"id": "2", "name": "Ben"},
                    "decision": "match",
                    "candidates": [],
                    "reasons": ["0.01 ahead of Anna"],
                },
            ],
        });
        let bytes = serde_json::to_vec(&result).unwrap();
        assert_eq!(without(&bytes, "3"), None);
        let left = without(&bytes, "1").unwrap();
        let left: Value = serde_json::from_slice(&left).unwrap();
        assert!(!left.to_string().contains("Anna"));
        assert_eq!(left["faces"][0]["decision"], "unknown");
        assert_eq!(left["faces"][0]["candidates"][0]["person"]["name"], "Ben");
        assert_eq!(left["faces"][1]["person"]["name"], "Ben");
        assert_eq!(left["request_id"], "r");
    }
}
