//! The deletion of photographs and results after their retention.

use std::collections::BTreeSet;
use std::fs::DirEntry;
use std::io;
use std::path::{Path as Folder, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use futures::TryStreamExt;
use muster_base::backend::{Backend, data_folder};
use muster_base::settings::StorageSettings;
use muster_jobs::keys::{ObjectKeys, owned_by};
use muster_jobs::{Failure, FailureCode, RequestId};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
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
    /// Whether results are in a bucket.
    pub output_is_bucket: bool,
}

impl Retention {
    /// The retention by these settings.
    pub fn new(settings: &StorageSettings) -> Self {
        let input_is_bucket = settings.input_store.is_some();
        let output_is_bucket = settings.output_store.is_some();
        Self {
            period: settings.retention,
            deletes: !input_is_bucket && !output_is_bucket,
            input_is_bucket,
            output_is_bucket,
        }
    }
}

/// Deletes photographs and results that are older than the retention, again and again, until `stop`.
/// What stands in a bucket is left to the bucket's own rules.
///
/// A job is kept until it has an answer, and then for the retention. One that no worker can come to
/// any more, since its message is gone from the queue, is answered with a failure.
pub async fn sweep(backend: Backend, settings: StorageSettings, stop: CancellationToken) {
    let interval = (settings.retention / 4).clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL);
    loop {
        let now = data_folder::time(&settings.data_dir)
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let mut sweep = Sweep::new(&backend, settings.retention, now);
        if settings.input_store.is_none() {
            sweep.photographs().await;
        }
        if settings.output_store.is_none() {
            sweep.results().await;
        }
        sweep.report();
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
    }
}

/// One sweep. What fails is left to the next one, and ends nothing else.
struct Sweep<'a> {
    backend: &'a Backend,
    /// The time by which the files are dated, and the time that what is kept was written after; since the
    /// Unix epoch.
    now: Duration,
    limit: Duration,
    deleted: u64,
    failed: u64,
    /// The first failure.
    failure: Option<object_store::Error>,
}

impl<'a> Sweep<'a> {
    fn new(backend: &'a Backend, retention: Duration, now: Duration) -> Self {
        Self {
            backend,
            now,
            limit: now.saturating_sub(retention),
            deleted: 0,
            failed: 0,
            failure: None,
        }
    }

    fn report(self) {
        if self.deleted > 0 {
            tracing::info!(deleted = self.deleted, "deleted what was kept long enough");
        }
        if let Some(error) = self.failure {
            tracing::warn!(
                failed = self.failed,
                error = %muster_base::ErrorChain(&error),
                "could not delete old objects, which is tried again"
            );
        }
    }

    /// Notes a failure.
    fn note<T>(&mut self, outcome: Result<T, object_store::Error>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(error) => {
                self.failed += 1;
                self.failure.get_or_insert(error);
                None
            }
        }
    }

    /// Sweeps the input store: old photographs, and what lists the old jobs.
    async fn photographs(&mut self) {
        let input = &*self.backend.input;
        let top = input.list_with_delimiter(None).await;
        let Some(top) = self.note(top) else { return };
        let jobs = input.list_with_delimiter(Some(&Backend::jobs())).await;
        // Without it nobody knows which are jobs.
        let Some(jobs) = self.note(jobs) else { return };
        let jobs: BTreeSet<RequestId> = self.old_requests(&jobs.common_prefixes).collect();
        let photographs: BTreeSet<RequestId> = self.old_requests(&top.common_prefixes).collect();
        for id in &photographs - &jobs {
            self.delete_of(input, id).await;
        }
        for id in jobs {
            let swept = self.job(id).await;
            self.note(swept);
        }
        self.files(input, &top.objects).await;
    }

    /// Sweeps the output store: results that were written before the retention.
    async fn results(&mut self) {
        let output = &*self.backend.output;
        let top = output.list_with_delimiter(None).await;
        let Some(top) = self.note(top) else { return };
        let old: BTreeSet<_> = self.old_requests(&top.common_prefixes).collect();
        for id in old {
            let listed = Backend::of_request(output, id).await;
            if let Some(listed) = self.note(listed) {
                self.files(output, &listed).await;
            }
        }
        self.files(output, &top.objects).await;
    }

    /// An old job: all of it goes some time after its answer; it is answered where no worker will.
    async fn job(&mut self, id: RequestId) -> Result<(), object_store::Error> {
        let Backend { input, output, .. } = self.backend;
        let results = Backend::of_request(&**output, id).await?;
        if let Some(answered) = results.iter().map(written).max() {
            if answered < self.limit {
                self.delete_job(id).await;
            }
            return Ok(());
        }
        let Some(photograph) = Backend::of_request(&**input, id).await?.pop() else {
            // Somebody deleted it: there is nothing to wait for.
            self.delete_job(id).await;
            return Ok(());
        };
        if written(&photograph) + self.backend.requests_kept > self.now {
            return Ok(());
        }
        if let Some(file) = Backend::file_of(&photograph.location) {
            let body = serde_json::to_vec(&never_worked(file.as_str()));
            let body = PutPayload::from(body.expect("a failure has only string keys"));
            let hashed = Path::from(ObjectKeys::PrefixHashed.input(id, &file));
            let layout = if photograph.location == hashed {
                ObjectKeys::PrefixHashed
            } else {
                ObjectKeys::Request
            };
            let key = Path::from(layout.output(id, &file));
            match output.put_opts(&key, body, PutMode::Create.into()).await {
                // A worker has answered it this moment.
                Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Deletes the photograph of a job, and then what lists it.
    async fn delete_job(&mut self, id: RequestId) {
        let input = &*self.backend.input;
        if self.delete_of(input, id).await {
            let job = Backend::of_job(id);
            let listed = input.list(Some(&job)).try_collect::<Vec<_>>().await;
            self.delete_listed(input, listed).await;
        }
    }

    /// The requests whose folders these are that were submitted before the retention. The id says
    /// when, so that no file is looked at.
    fn old_requests(&self, folders: &[Path]) -> impl Iterator<Item = RequestId> {
        let limit = self.limit;
        let ids = folders
            .iter()
            .filter_map(|folder| owned_by(folder.filename()?));
        ids.filter(move |id| id.submitted_at().is_some_and(|at| at < limit))
    }

    /// Deletes those that were written before the retention.
    async fn files(&mut self, objects: &dyn ObjectStore, listed: &[ObjectMeta]) {
        for meta in listed {
            if written(meta) < self.limit {
                self.delete(objects, &meta.location).await;
            }
        }
    }

    /// Deletes what a store has of a request; tells whether nothing is left.
    async fn delete_of(&mut self, objects: &dyn ObjectStore, id: RequestId) -> bool {
        let listed = Backend::of_request(objects, id).await;
        self.delete_listed(objects, listed).await
    }

    /// Deletes everything that was listed; tells whether nothing is left.
    async fn delete_listed(
        &mut self,
        objects: &dyn ObjectStore,
        listed: Result<Vec<ObjectMeta>, object_store::Error>,
    ) -> bool {
        let Some(listed) = self.note(listed) else {
            return false;
        };
        let mut all = true;
        for meta in listed {
            all &= self.delete(objects, &meta.location).await;
        }
        all
    }

    async fn delete(&mut self, objects: &dyn ObjectStore, location: &Path) -> bool {
        let deleted = match objects.delete(location).await {
            Ok(()) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        };
        let deleted = self.note(deleted);
        self.deleted += u64::from(deleted == Some(true));
        deleted.is_some()
    }
}

/// When an object was written, since the Unix epoch; one that says a time before it counts as new.
pub fn written(meta: &ObjectMeta) -> Duration {
    let seconds = meta.last_modified.timestamp() as f64;
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// How a job ends whose request was kept for as long as the queue keeps one.
pub fn never_worked(file: &str) -> Failure {
    Failure {
        code: FailureCode::RecognitionFailed,
        detail: format!("{file}: no worker received it before its request expired: send it again"),
    }
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

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use muster_base::backend::Role;
    use muster_base::settings::Settings;
    use muster_jobs::keys::request_prefixes;
    use object_store::local::LocalFileSystem;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// A backend on one machine, in that folder.
    async fn backend(folder: &Folder) -> Backend {
        let mut settings = Settings::default();
        settings.storage.data_dir = folder.to_owned();
        Backend::open(&settings, Role::Web).await.unwrap()
    }

    /// Sweeps what is older than an hour, so long from now, and says how much that was and what is
    /// left.
    async fn sweep_in(backend: &Backend, later: Duration) -> (u64, u64, Vec<String>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let mut sweep = Sweep::new(backend, HOUR, now + later);
        sweep.photographs().await;
        sweep.results().await;
        (sweep.deleted, sweep.failed, left(backend).await)
    }

    async fn left(backend: &Backend) -> Vec<String> {
        let mut left = Vec::new();
        for store in [&backend.input, &backend.output] {
            let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
            left.extend(listed.into_iter().map(|meta| meta.location.to_string()));
        }
        left.sort();
        left
    }

    async fn put(store: &dyn ObjectStore, key: &str) -> String {
        let body = PutPayload::from_static(b"{\"faces\": []}");
        store.put(&Path::from(key), body).await.unwrap();
        key.to_owned()
    }

    #[tokio::test]
    async fn only_what_is_old_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let backend = backend(folder.path()).await;
        let (input, output) = (&*backend.input, &*backend.output);
        let [id, job, hashed, hashed_job] = [(); 4].map(|()| RequestId::new());
        let [hashed, hashed_job_prefix] = [hashed, hashed_job].map(|id| {
            let [_, hashed] = request_prefixes(id);
            hashed
        });
        let mut all = vec![
            put(input, &format!("{hashed}/a.jpg")).await,
            put(output, &format!("{hashed}/a.json")).await,
            put(input, &format!("{hashed_job_prefix}/a.jpg")).await,
            put(input, &format!("jobs/{hashed_job}/own/a.jpg")).await,
            put(output, &format!("{hashed_job_prefix}/a.json")).await,
            put(input, &format!("{id}/a.jpg")).await,
            put(output, &format!("{id}/a.json")).await,
            put(input, &format!("{job}/a.jpg")).await,
            put(input, &format!("jobs/{job}/a.jpg")).await,
            put(output, &format!("{job}/a.json")).await,
            put(input, "b.jpg").await,
            put(output, "b").await,
        ];
        all.sort();
        assert_eq!(sweep_in(&backend, Duration::ZERO).await, (0, 0, all));
        let (deleted, failed, left) = sweep_in(&backend, 2 * HOUR).await;
        assert_eq!((deleted, failed, left.len()), (12, 0, 0), "{left:?}");
    }

    #[tokio::test]
    async fn a_job_is_kept_until_it_is_answered_and_then_for_the_retention() {
        for layout in [0, 1] {
            a_job_is_kept_in(layout).await;
        }
    }

    /// In that one of the layouts by id.
    async fn a_job_is_kept_in(layout: usize) {
        let folder = tempfile::tempdir().unwrap();
        let backend = backend(folder.path()).await;
        let (input, output) = (&*backend.input, &*backend.output);
        let [waiting, deleted] = [RequestId::new(), RequestId::new()];
        let prefix = &request_prefixes(waiting)[layout];
        let photograph = put(input, &format!("{prefix}/a.jpg")).await;
        let entry = put(input, &format!("jobs/{waiting}/a.jpg")).await;
        put(input, &format!("jobs/{deleted}/a.jpg")).await;
        let kept = vec![photograph.clone(), entry.clone()];
        assert_eq!(sweep_in(&backend, 5 * HOUR).await, (1, 0, kept.clone()));
        assert_eq!(sweep_in(&backend, 23 * HOUR).await, (0, 0, kept));

        // The queue has no message any more. What was answered is kept from now on.
        let result = format!("{prefix}/a.json");
        let mut all = vec![photograph, entry, result.clone()];
        all.sort();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let late = now + backend.requests_kept + HOUR;
        Sweep::new(&backend, HOUR, late).photographs().await;
        assert_eq!(left(&backend).await, all);
        let failure = output.get(&Path::from(result)).await.unwrap();
        let failure = failure.bytes().await.unwrap();
        let failure: Failure = serde_json::from_slice(&failure).unwrap();
        assert_eq!(failure.code, FailureCode::RecognitionFailed);
        assert_eq!(sweep_in(&backend, HOUR * 2).await, (3, 0, Vec::new()));
    }

    #[tokio::test]
    async fn what_can_not_be_deleted_ends_no_sweep() {
        let folder = tempfile::tempdir().unwrap();
        let backend = backend(folder.path()).await;
        let [stuck, other] = [RequestId::new(), RequestId::new()];
        let input = &*backend.input;
        put(input, &format!("{other}/a.jpg")).await;
        put(&*backend.output, &format!("{other}/a.json")).await;
        let stuck_key = put(input, &format!("{stuck}/a.jpg")).await;
        // Listing a folder whose name is no object's key fails.
        let odd = folder.path().join("objects/input").join(stuck.to_string());
        std::fs::write(odd.join("\u{1}"), "odd").unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let mut sweep = Sweep::new(&backend, HOUR, now + 2 * HOUR);
        sweep.photographs().await;
        sweep.results().await;
        assert_eq!((sweep.deleted, sweep.failed), (2, 1));
        assert!(folder.path().join("objects/input").join(stuck_key).exists());
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
