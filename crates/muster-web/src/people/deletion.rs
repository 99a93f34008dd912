//! What a deletion does once the gallery has let go of a person, a face or a denial, and its receipt.
//!
//! Invariant: what is left to do stands in the state store from before the gallery is changed until
//! nothing is left to do, with nothing of the person but ids. So the same request, made again,
//! completes a deletion wherever it was cut off, and gets the receipt; without one it is completed a
//! day later. A worker that has not seen the change yet may store a result that names the person after
//! the receipt: results are searched once more when no worker can any more.

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
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Notify;
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
/// How long a deletion that was cut off is left to the same request to complete.
const LEFT_TO_CLIENT: Duration = Duration::from_secs(24 * 3600);
/// When results are searched once more: every worker has released the person, and what it had matched
/// before is stored.
const SEARCHED_AGAIN: Duration = RELEASED_WITHIN.saturating_add(Duration::from_secs(5));

/// A deletion, as it stands in the state store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Begun {
    /// The person.
    person_id: Uuid,
    /// Whether it is the person, and not a face or a denial of theirs.
    whole: bool,
    /// The names of the kept photographs.
    photographs: Vec<String>,
    /// When all was done but to search the results once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    done_at_ms: Option<u64>,
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
            done_at_ms: None,
        }
    }

    /// Whether the gallery still has what is to be deleted: the change was never made.
    fn is_enrolled(&self, gallery: &Gallery) -> bool {
        let person = gallery.person(self.person_id.into());
        person.is_some_and(|person| {
            let mut sources = person.sources().map(Source::photograph_key);
            self.whole || sources.any(|name| self.photographs.contains(&name))
        })
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
    backend: Backend,
    gallery: LiveGallery,
    retention: Retention,
    /// Notified where results are to be searched once more.
    done: Arc<Notify>,
}

impl Deletions {
    /// The deletions on these stores and queues, from this gallery.
    pub fn new(backend: Backend, gallery: LiveGallery, retention: Retention) -> Self {
        Self {
            backend,
            gallery,
            retention,
            done: Arc::default(),
        }
    }

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
        let begun = match self.read(&Path::from(keys::deletion(id))).await? {
            Some(begun) if begun.done_at_ms.is_none() => begun,
            _ => return Err(unknown()),
        };
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
        let results = if self.names_in_results(&begun) {
            Some(self.forget_in_results(&begun).await?)
        } else {
            None
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
        let noted = if self.names_in_results(&begun) {
            let done = Begun {
                done_at_ms: Some(receipt.deleted_at_ms),
                ..begun
            };
            self.write(id, &done).await
        } else {
            self.delete_note(id).await
        };
        if let Err(error) = noted {
            tracing::warn!(
                error = %muster_base::ErrorChain(&error),
                "a deletion that is done is noted as one that is not, and done again in a day"
            );
        }
        self.done.notify_one();
        Ok(receipt)
    }

    /// Whether results may name what was deleted, and Muster can change them.
    fn names_in_results(&self, begun: &Begun) -> bool {
        begun.whole && self.backend.keys != ObjectKeys::Filename && !self.retention.output_is_bucket
    }

    async fn forget_in_results(&self, begun: &Begun) -> Result<usize, ApiError> {
        let anonymous = forget_in_results(&*self.backend.output, begun.person_id).await;
        anonymous.map_err(|error| unfinished("results still name the person", &error))
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

    async fn delete_note(&self, id: Uuid) -> Result<(), object_store::Error> {
        let key = Path::from(keys::deletion(id));
        match self.backend.state.delete(&key).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The deletion under that key; `None` where there is none.
    async fn read(&self, key: &Path) -> Result<Option<Begun>, ApiError> {
        let failed = |error| ApiError::internal("a deletion could not be read", &error);
        let found = match self.backend.state.get(key).await {
            Ok(found) => found.bytes().await.map_err(failed)?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        serde_json::from_slice(&found)
            .map(Some)
            .map_err(|error| ApiError::internal("a deletion could not be read", &error))
    }

    /// Does what is left of deletions, again and again, until `stop`.
    pub async fn sweep(self, stop: CancellationToken) {
        loop {
            let next = self.sweep_once(now_ms()).await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.done.notified() => {}
                () = tokio::time::sleep(next.min(SWEEP_INTERVAL)) => {}
            }
        }
    }

    /// Does what is left by that time, and says after how long to look again.
    async fn sweep_once(&self, now: u64) -> Duration {
        let below = Path::from(keys::DELETIONS_PREFIX);
        let listed: Result<Vec<_>, _> = self.backend.state.list(Some(&below)).try_collect().await;
        let listed = listed.unwrap_or_else(|error| {
            tracing::warn!(
                error = %muster_base::ErrorChain(&error),
                "could not look for deletions that are not complete"
            );
            Vec::new()
        });
        let mut next = SWEEP_INTERVAL;
        for meta in listed {
            match self.settle(&meta, now).await {
                Ok(None) => {}
                Ok(Some(left)) => next = next.min(left),
                Err(error) => tracing::warn!(
                    error = error.detail(),
                    "a deletion could not be completed; it is tried again"
                ),
            }
        }
        next
    }

    /// Does what is left of a deletion, where its time has come; says else in how long it comes.
    async fn settle(&self, note: &ObjectMeta, now: u64) -> Result<Option<Duration>, ApiError> {
        let name = note.location.filename().unwrap_or_default();
        let id = name.strip_suffix(".json").and_then(|id| id.parse().ok());
        let (Some(id), Some(begun)) = (id, self.read(&note.location).await?) else {
            return Ok(None);
        };
        let (since, wait) = match begun.done_at_ms {
            Some(done) => (done, SEARCHED_AGAIN),
            None => {
                let written = note.last_modified.timestamp_millis();
                (u64::try_from(written).unwrap_or_default(), LEFT_TO_CLIENT)
            }
        };
        // A clock that has been set back since says nothing: what can be done is done now.
        let age = now.checked_sub(since).map_or(wait, Duration::from_millis);
        if age < wait {
            return Ok(Some(wait - age));
        }
        if begun.done_at_ms.is_none() {
            let enrolled = gallery::read(&self.gallery, |gallery| begun.is_enrolled(gallery));
            if !enrolled.await? {
                self.complete(id, begun).await?;
                return Ok(None);
            }
        } else {
            let found = self.forget_in_results(&begun).await?;
            if found > 0 {
                tracing::info!(
                    results = found,
                    "a deleted person was taken out of results that were stored after the receipt"
                );
            }
            self.erase_messages().await?;
        }
        let deleted = self.delete_note(id).await;
        deleted
            .map_err(|error| ApiError::internal("a deletion could not be noted as done", &error))?;
        Ok(None)
    }
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
    use std::path::Path as Folder;

    use muster_base::backend::Role;
    use muster_base::settings::Settings;
    use muster_gallery::Change;

    use super::*;

    async fn deletions(folder: &Folder) -> Deletions {
        let mut settings = Settings::default();
        settings.storage.data_dir = folder.to_owned();
        let backend = Backend::open(&settings, Role::Web).await.unwrap();
        let gallery = LiveGallery::load(backend.gallery.clone()).await.unwrap();
        Deletions::new(backend, gallery, Retention::new(&settings.storage))
    }

    async fn notes(deletions: &Deletions) -> usize {
        let below = Path::from(keys::DELETIONS_PREFIX);
        let listed = deletions.backend.state.list(Some(&below));
        listed.try_collect::<Vec<_>>().await.unwrap().len()
    }

    fn unknown() -> ApiError {
        ApiError::not_found("nobody")
    }

    /// By a worker that had not seen the deletion yet.
    #[tokio::test]
    async fn a_result_that_is_stored_after_the_receipt_names_nobody_either() {
        let folder = tempfile::tempdir().unwrap();
        let deletions = deletions(folder.path()).await;
        let anna = Person::new("Anna".to_owned(), Vec::new(), 0);
        let id = Uuid::from(anna.id);
        let begun = Begun::of_person(&anna);
        deletions.begin(id, &begun).await.unwrap();
        let receipt = deletions.complete(id, begun).await.unwrap();
        assert_eq!(receipt.results, Some(0));
        let late = serde_json::json!({"faces": [{"person": {"id": id, "name": "Anna"}}]});
        let key = Path::from("r/a.json");
        let late = PutPayload::from(late.to_string());
        deletions.backend.output.put(&key, late).await.unwrap();
        let stored = async || {
            let found = deletions.backend.output.get(&key).await.unwrap();
            String::from_utf8(found.bytes().await.unwrap().to_vec()).unwrap()
        };
        // There is no second receipt.
        assert!(deletions.again(id, unknown).await.is_err());
        let now = receipt.deleted_at_ms;
        let early = deletions.sweep_once(now + 1_000).await;
        assert_eq!(early, SEARCHED_AGAIN - Duration::from_secs(1));
        assert!(stored().await.contains("Anna"));
        assert_eq!(notes(&deletions).await, 1);
        deletions
            .sweep_once(now + SEARCHED_AGAIN.as_millis() as u64)
            .await;
        assert!(!stored().await.contains("Anna"), "{}", stored().await);
        assert_eq!(notes(&deletions).await, 0);
    }

    #[tokio::test]
    async fn a_deletion_that_nobody_asks_for_again_is_completed_a_day_later() {
        let folder = tempfile::tempdir().unwrap();
        let deletions = deletions(folder.path()).await;
        let people = ["Anna", "Ben"].map(|name| Person::new(name.to_owned(), Vec::new(), 0));
        for person in &people {
            let put = |_: &Gallery| Ok::<_, ()>(Change::Put(person.clone()));
            deletions.gallery.append(put).await.unwrap();
            let begun = Begun::of_person(person);
            deletions.begin(person.id.into(), &begun).await.unwrap();
        }
        // Of Anna the gallery was changed; of Ben it was not.
        let remove = |_: &Gallery| Ok::<_, ()>(Change::Remove(people[0].id));
        let removed = deletions.gallery.write(remove).await;
        assert_eq!(removed.unwrap(), muster_gallery::Written::CompactionDue);
        let segments = folder.path().join("objects/gallery-segments");
        assert!(!segments.exists());
        let now = now_ms();
        deletions.sweep_once(now + 3_600_000).await;
        assert_eq!(notes(&deletions).await, 2);
        let day = LEFT_TO_CLIENT.as_millis() as u64;
        deletions.sweep_once(now + day + 1_000).await;
        // Anna's is searched for once more.
        assert_eq!(notes(&deletions).await, 1);
        assert!(segments.exists(), "nothing was written anew without her");
        assert!(deletions.again(people[1].id.into(), unknown).await.is_err());
    }

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
