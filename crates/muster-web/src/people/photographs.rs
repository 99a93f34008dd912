//! The photographs of enrolled and denied faces: kept for a change of the model, deleted with the face.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use futures::TryStreamExt;
use futures::future::join_all;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio_util::sync::CancellationToken;

use muster_base::backend::Backend;
use muster_base::live_gallery::LiveGallery;

/// How old a photograph must be before it counts as left over: one that was just kept is not in the
/// gallery yet.
const LEFT_OVER: Duration = Duration::from_secs(3600);
/// Time between two sweeps.
const INTERVAL: Duration = Duration::from_secs(3600);

/// Deletes kept photographs and says how many are gone now; those that could not be deleted are
/// left to [`sweep`].
pub async fn delete(enrolled: &dyn ObjectStore, keys: impl IntoIterator<Item = Path>) -> usize {
    let deletions = keys
        .into_iter()
        .map(async |key| match enrolled.delete(&key).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => true,
            Err(error) => {
                muster_base::aws::failed("a kept photograph could not be deleted", &error);
                false
            }
        });
    let gone = join_all(deletions).await;
    gone.into_iter().filter(|gone| *gone).count()
}

/// Deletes photographs whose face is not in the gallery, again and again, until `stop`: an
/// enrolment that a crash cut off leaves some, and so does a deletion.
pub async fn sweep(enrolled: Arc<dyn ObjectStore>, gallery: LiveGallery, stop: CancellationToken) {
    loop {
        match sweep_once(&*enrolled, &gallery, LEFT_OVER).await {
            Ok(0) => {}
            Ok(deleted) => tracing::info!(deleted, "deleted photographs of faces that are gone"),
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "could not look for photographs of faces that are gone"
                );
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

async fn sweep_once(
    enrolled: &dyn ObjectStore,
    gallery: &LiveGallery,
    left_over: Duration,
) -> anyhow::Result<u64> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let old = now.saturating_sub(left_over);
    let listed: HashSet<Path> = enrolled
        .list(None)
        .try_filter_map(async |meta| {
            let kept = Duration::try_from_secs_f64(meta.last_modified.timestamp() as f64);
            Ok(kept.is_ok_and(|kept| kept <= old).then_some(meta.location))
        })
        .try_collect()
        .await?;
    if listed.is_empty() {
        return Ok(0);
    }
    // The gallery is read after the listing: whatever was listed and is enrolled is in it.
    let gallery = gallery.copy().await?;
    let left = tokio::task::spawn_blocking(move || {
        gallery.look(|gallery| {
            let mut left = listed;
            for person in gallery.people() {
                for source in person.sources() {
                    left.remove(&Backend::kept(source));
                }
            }
            left
        })
    });
    let left = left.await.context("look for left photographs")?;
    let left = left.context("look for left photographs in the gallery")?;
    let mut deleted = 0;
    for location in left {
        match enrolled.delete(&location).await {
            Ok(()) => deleted += 1,
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(deleted)
}

#[cfg(test)]
mod tests {
    use muster_gallery::{Change, Embeddings, EnrolledFace, FaceId, GalleryStore, Person, Source};
    use muster_jobs::Embedding;
    use object_store::PutPayload;
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn only_photographs_without_a_face_are_swept() {
        let store = GalleryStore::new(Arc::new(InMemory::new()), "gallery");
        let gallery = LiveGallery::load(store).await.unwrap();
        let embedding = Embedding::normalise(&[1.0, 0.0]).unwrap();
        let face = EnrolledFace::new("anna.jpg".to_owned(), Embeddings::of("sface", embedding), 0);
        let person = Person::new("Anna".to_owned(), vec![face.clone()], 0);
        gallery
            .append(|_| Ok::<_, ()>(Change::Put(person.clone())))
            .await
            .unwrap();
        let enrolled = InMemory::new();
        let kept = Backend::kept(Source::Face(face.id));
        let left = Backend::kept(Source::Face(FaceId::new()));
        for key in [&kept, &left] {
            enrolled
                .put(key, PutPayload::from_static(b"x"))
                .await
                .unwrap();
        }
        let hour = Duration::from_secs(3600);
        let swept = async |age| sweep_once(&enrolled, &gallery, age).await.unwrap();
        assert_eq!(swept(hour).await, 0, "what was just kept stays");
        assert_eq!(swept(Duration::ZERO).await, 1);
        assert!(enrolled.head(&kept).await.is_ok());
        assert!(enrolled.head(&left).await.is_err());
    }
}
