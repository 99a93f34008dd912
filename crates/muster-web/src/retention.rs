//! The deletion of photographs and results after their retention.

use std::fs::DirEntry;
use std::io;
use std::path::{Path as Folder, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::TryStreamExt;
use muster_base::settings::StorageSettings;
use muster_jobs::keys::{JOBS_PREFIX, owned_by};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio_util::sync::CancellationToken;

/// Longest time between two sweeps.
const LONGEST_INTERVAL: Duration = Duration::from_secs(300);
/// Shortest time between two sweeps.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// How old a file must be before nobody can be writing it any more.
const PARTIAL_FILE_AGE: Duration = Duration::from_secs(3600);

/// How long photographs and results are kept.
#[derive(Clone, Debug)]
pub struct Retention {
    /// The setting.
    pub period: Duration,
    /// Whether Muster deletes photographs and results when they are old: buckets have rules of their
    /// own.
    pub deletes: bool,
    /// Whether photographs are in a bucket, which lists in the order of its keys.
    pub input_is_bucket: bool,
}

impl Retention {
    /// The retention by these settings.
    pub fn new(settings: &StorageSettings) -> Self {
        let input_is_bucket = settings.input_store.is_some();
        Self {
            period: settings.retention,
            deletes: !input_is_bucket && settings.output_store.is_none(),
            input_is_bucket,
        }
    }
}

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
                    tracing::warn!(error = %muster_base::ErrorChain(&error), "could not delete old objects");
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

/// Deletes, again and again until `stop`, files below the folder of a local store whose writing a
/// kill has cut off: the store writes `photo.jpg#1` and renames it, and does not list it before.
pub async fn sweep_partial_files(folder: PathBuf, stop: CancellationToken) {
    loop {
        let folder = folder.clone();
        let swept =
            tokio::task::spawn_blocking(move || delete_partial_files(&folder, PARTIAL_FILE_AGE))
                .await;
        match swept.unwrap_or_else(|ended| Err(io::Error::other(ended))) {
            Ok(0) => {}
            Ok(deleted) => tracing::info!(deleted, "deleted files that were cut off"),
            Err(error) => {
                tracing::warn!(error = %muster_base::ErrorChain(&error), "could not look for cut-off files");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PARTIAL_FILE_AGE) => {}
        }
    }
}

fn delete_partial_files(folder: &Folder, age: Duration) -> io::Result<u64> {
    let mut deleted = 0;
    for entry in std::fs::read_dir(folder)? {
        match delete_if_partial(&entry?, age) {
            Ok(here) => deleted += here,
            // Others write and delete here meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(error = %muster_base::ErrorChain(&error), "could not delete a cut-off file");
            }
        }
    }
    if deleted > 0 {
        // It stays where something else is in it.
        let _ = std::fs::remove_dir(folder);
    }
    Ok(deleted)
}

fn delete_if_partial(entry: &DirEntry, age: Duration) -> io::Result<u64> {
    let about = entry.metadata()?;
    if about.is_dir() {
        return delete_partial_files(&entry.path(), age);
    }
    let cut_off = is_partial(&entry.file_name().to_string_lossy())
        && about.modified()?.elapsed().is_ok_and(|old| old >= age);
    if cut_off {
        std::fs::remove_file(entry.path())?;
    }
    Ok(cut_off.into())
}

/// Whether a file is one that the store has not renamed yet; in the names of objects it has `#`
/// percent-encoded.
fn is_partial(name: &str) -> bool {
    name.rsplit_once('#')
        .is_some_and(|(_, number)| number.parse::<u64>().is_ok())
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

    #[tokio::test]
    async fn what_was_cut_off_while_it_was_written_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let objects = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
        let kept = Path::from_iter(["input", "1", "a#1"]);
        let put = objects.put(&kept, PutPayload::from_static(b"x"));
        put.await.unwrap();
        let cut_off = ["input/1/a.jpg#1", "input/2/b.jpg#12"].map(|file| folder.path().join(file));
        for file in &cut_off {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "half").unwrap();
        }
        assert_eq!(
            delete_partial_files(folder.path(), PARTIAL_FILE_AGE).unwrap(),
            0
        );
        assert_eq!(
            delete_partial_files(folder.path(), Duration::ZERO).unwrap(),
            2
        );
        assert!(cut_off.iter().all(|file| !file.exists()));
        assert!(!folder.path().join("input/2").exists());
        assert!(objects.get(&kept).await.is_ok());
    }
}
