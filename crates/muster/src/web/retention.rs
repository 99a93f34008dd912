//! Forgetting: photographs and results are kept for a while and then deleted.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::TryStreamExt;
use muster_jobs::{JOBS_PREFIX, owned_by};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio_util::sync::CancellationToken;

/// Longest time between two sweeps.
const LONGEST_INTERVAL: Duration = Duration::from_secs(300);
/// Shortest time between two sweeps.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// Deletes what is older than `retention` from all of `stores`, again and again, until `stop`.
pub async fn sweep(
    stores: Vec<Arc<dyn ObjectStore>>,
    retention: Duration,
    stop: CancellationToken,
) {
    let interval = (retention / 4).clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL);
    loop {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        for store in &stores {
            match delete_before(&**store, now.saturating_sub(retention)).await {
                Ok(0) => {}
                Ok(deleted) => tracing::info!(deleted, "deleted what was kept long enough"),
                Err(error) => {
                    tracing::warn!(error = %crate::Chain(&error), "could not delete old objects");
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
    }
}

/// Deletes objects of requests that were submitted before `limit` (since the Unix epoch).
///
/// The request's id tells its age; objects without one, in the `filename` layout, go by when they
/// were last written.
async fn delete_before(
    objects: &dyn ObjectStore,
    limit: Duration,
) -> Result<u64, object_store::Error> {
    let mut deleted = 0;
    let listing = objects.list_with_delimiter(None).await?;
    let jobs = Path::from(JOBS_PREFIX);
    let mut folders = listing.common_prefixes;
    if folders.contains(&jobs) {
        folders.extend(
            objects
                .list_with_delimiter(Some(&jobs))
                .await?
                .common_prefixes,
        );
    }
    for folder in folders {
        let submitted = folder
            .filename()
            .and_then(owned_by)
            .and_then(|request| request.submitted_at());
        if submitted.is_some_and(|at| at < limit) {
            let inside: Vec<Path> = objects
                .list(Some(&folder))
                .map_ok(|meta| meta.location)
                .try_collect()
                .await?;
            for location in inside {
                deleted += u64::from(delete(objects, &location).await?);
            }
        }
    }
    for meta in listing.objects {
        let written = Duration::try_from_secs_f64(meta.last_modified.timestamp() as f64);
        if written.is_ok_and(|at| at < limit) {
            deleted += u64::from(delete(objects, &meta.location).await?);
        }
    }
    Ok(deleted)
}

async fn delete(objects: &dyn ObjectStore, location: &Path) -> Result<bool, object_store::Error> {
    match objects.delete(location).await {
        Ok(()) => Ok(true),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use muster_jobs::RequestId;
    use object_store::PutPayload;
    use object_store::local::LocalFileSystem;
    use object_store::prefix::PrefixStore;

    use super::*;

    #[tokio::test]
    async fn only_what_is_old_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let objects: Arc<dyn ObjectStore> = Arc::new(
            LocalFileSystem::new_with_prefix(folder.path())
                .unwrap()
                .with_automatic_cleanup(true),
        );
        let id = RequestId::new();
        let keys = [
            format!("input/{id}/a.jpg"),
            format!("input/jobs/{id}/a.jpg"),
            "input/b.jpg".to_owned(),
            "gallery/1.json".to_owned(),
        ];
        let input = PrefixStore::new(Arc::clone(&objects), "input");
        for key in &keys {
            objects
                .put(&Path::from(key.as_str()), PutPayload::from_static(b"x"))
                .await
                .unwrap();
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let hour = Duration::from_secs(3600);
        assert_eq!(delete_before(&input, now - hour).await.unwrap(), 0);
        assert_eq!(delete_before(&input, now + hour).await.unwrap(), 3);
        let left: Vec<_> = objects.list(None).try_collect().await.unwrap();
        assert_eq!(left.len(), 1);
        assert!(!folder.path().join("input").join(id.to_string()).exists());
        assert!(!folder.path().join("input/jobs").exists());
    }
}
