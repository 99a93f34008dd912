//! A role's own copy of the gallery, brought up to date when a request needs it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard};
use std::time::Duration;

use muster_gallery::{Change, Gallery, GalleryError, GalleryStore, WriteError, Written};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// Within so long every running process has released what was removed.
pub const RELEASED_WITHIN: Duration = Duration::from_secs(30);
/// Time between two looks of a process that has no request to look for.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(25);
const _: () = assert!(FOLLOW_INTERVAL.as_secs() < RELEASED_WITHIN.as_secs());

/// The gallery in memory, and the store that it follows. Cheap to clone.
///
/// Changes and compactions work on copies of their own, so that nobody who looks waits for them.
#[derive(Clone)]
pub struct LiveGallery {
    store: GalleryStore,
    copy: Arc<Mutex<Held>>,
    /// Looks at the store begun so far.
    begun: Arc<AtomicU64>,
    /// Held by the one of this process who makes a change: others would only take its version.
    writing: Arc<Mutex<()>>,
    due: Arc<Due>,
}

struct Held {
    gallery: Gallery,
    /// The number of the last look that ended well.
    seen: u64,
}

impl Held {
    /// Takes over a copy that went ahead.
    fn adopt(&mut self, ahead: Gallery) {
        if ahead.is_newer_than(&self.gallery) {
            self.gallery = ahead;
        }
    }
}

/// The version since which something waits to be gone from the segments.
#[derive(Default)]
struct Due(StdMutex<Option<u64>>);

impl Due {
    fn version(&self) -> MutexGuard<'_, Option<u64>> {
        self.0.lock().expect("no code panics while it holds this")
    }
}

impl LiveGallery {
    /// Reads the whole gallery.
    ///
    /// # Errors
    /// [`GalleryError`].
    pub async fn load(store: GalleryStore) -> Result<Self, GalleryError> {
        let mut gallery = Gallery::default();
        store.sync(&mut gallery).await?;
        Ok(Self {
            store,
            copy: Arc::new(Mutex::new(Held { gallery, seen: 0 })),
            begun: Arc::default(),
            writing: Arc::default(),
            due: Arc::default(),
        })
    }

    /// Runs `look` on the copy as it is, without a look at the store.
    ///
    /// # Errors
    /// [`GalleryError`].
    pub async fn held<T>(&self, look: impl Fn(&Gallery) -> T) -> Result<T, GalleryError> {
        let mut copy = self.copy.lock().await;
        self.look(&mut copy, look).await
    }

    /// Runs `look` on a copy that knows whatever was changed before this call.
    ///
    /// Calls at the same time share one look at the store.
    ///
    /// # Errors
    /// [`GalleryError`].
    pub async fn newest<T>(&self, look: impl Fn(&Gallery) -> T) -> Result<T, GalleryError> {
        // Any look with a higher number begins after this moment, and sees what was there.
        let before = self.begun.load(Ordering::SeqCst);
        let mut copy = self.copy.lock().await;
        if copy.seen <= before {
            let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            self.store.catch_up(&mut copy.gallery).await?;
            copy.seen = number;
        }
        self.look(&mut copy, look).await
    }

    /// Runs `look` on a copy that has at least that version.
    ///
    /// # Errors
    /// [`GalleryError`].
    pub async fn at_least<T>(
        &self,
        version: u64,
        look: impl Fn(&Gallery) -> T,
    ) -> Result<T, GalleryError> {
        let mut copy = self.copy.lock().await;
        if copy.gallery.version() < version {
            self.store.catch_up(&mut copy.gallery).await?;
        }
        self.look(&mut copy, look).await
    }

    /// Runs `look` on the copy, and once more where that found a file that something else than Muster
    /// wrote to: nothing that was not verified is looked at.
    async fn look<T>(
        &self,
        copy: &mut Held,
        look: impl Fn(&Gallery) -> T,
    ) -> Result<T, GalleryError> {
        if let Ok(seen) = copy.gallery.look(&look) {
            return Ok(seen);
        }
        self.store.catch_up(&mut copy.gallery).await?;
        Ok(copy.gallery.look(look)?)
    }

    /// The gallery as it is held, to work on.
    async fn own(&self) -> Result<Gallery, GalleryError> {
        self.held(Gallery::clone).await
    }

    /// A copy of its own that knows whatever was changed before this call, for looks that take
    /// long: others are not kept waiting.
    ///
    /// # Errors
    /// [`GalleryError`].
    pub async fn copy(&self) -> Result<Gallery, GalleryError> {
        self.newest(Gallery::clone).await
    }

    /// Makes a change durable, and compacts where that is due. A compaction that fails is logged and
    /// left to [`Self::follow`]: the change is made all the same.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn append<E>(
        &self,
        decide: impl FnMut(&Gallery) -> Result<Change, E>,
    ) -> Result<(), WriteError<E>> {
        if self.write(decide).await? == Written::CompactionDue
            && let Err(error) = self.compact().await
        {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(
                error,
                "the gallery was changed, but is not written into segments yet; it is tried again"
            );
        }
        Ok(())
    }

    /// Makes a change durable without writing segments, and says whether [`Self::compact`] is due.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn write<E>(
        &self,
        mut decide: impl FnMut(&Gallery) -> Result<Change, E>,
    ) -> Result<Written, WriteError<E>> {
        let _one_at_a_time = self.writing.lock().await;
        let mut gallery = self.own().await?;
        let before = *self.due.version();
        let decide = |gallery: &Gallery| {
            let change = decide(gallery)?;
            // Where this fails or is cut off from here on, it may have been written.
            let mut due = self.due.version();
            *due = Some(due.unwrap_or(gallery.version() + 1));
            Ok(change)
        };
        let written = self.store.write(&mut gallery, decide).await;
        self.copy.lock().await.adopt(gallery);
        if let Ok(Written::Settled) | Err(WriteError::Refused(_)) = written {
            *self.due.version() = before;
        }
        written
    }

    /// Takes over the newest segments and releases those that were deleted.
    async fn release_deleted(&self) -> Result<(), GalleryError> {
        let mut gallery = self.own().await?;
        self.store.sync(&mut gallery).await?;
        self.copy.lock().await.adopt(gallery);
        Ok(())
    }

    /// Follows the store until the stop, so that what was removed goes from this machine although
    /// no request asks for it.
    pub async fn follow(self, stop: CancellationToken) {
        self.follow_every(FOLLOW_INTERVAL, stop).await;
    }

    async fn follow_every(self, interval: Duration, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(interval) => {}
            }
            let followed = match self.settle().await {
                Ok(true) => Ok(()),
                Ok(false) => self.release_deleted().await,
                Err(error) => Err(error),
            };
            if let Err(error) = followed {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "the gallery could not be brought up to date");
            }
        }
    }

    /// Compacts where a change of this process has left that to be done; tells whether it had.
    ///
    /// # Errors
    /// [`GalleryError`].
    pub async fn settle(&self) -> Result<bool, GalleryError> {
        let due = self.due.version().is_some();
        if due {
            self.compact().await?;
        }
        Ok(due)
    }

    /// Writes what was changed into segments, so that what was removed is gone. It goes on where
    /// nobody waits for it any more.
    ///
    /// # Errors
    /// [`GalleryError`].
    pub async fn compact(&self) -> Result<(), GalleryError> {
        let live = self.clone();
        let compacting = tokio::spawn(async move {
            let written = live.own().await?;
            live.store.compact(&written).await?;
            let version = written.version();
            drop(written);
            live.release_deleted().await?;
            let mut due = live.due.version();
            *due = due.filter(|due| *due > version);
            Ok(())
        });
        compacting.await.expect("it does not panic")
    }
}

#[cfg(test)]
mod tests {
    use muster_gallery::{Person, SegmentCache};
    use object_store::ObjectStore;
    use object_store::local::LocalFileSystem;
    use object_store::memory::InMemory;
    use object_store::throttle::{ThrottleConfig, ThrottledStore};

    use super::*;

    /// Longer than anything that does not wait for it.
    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_process_that_nobody_asks_lets_go_of_what_was_removed() {
        let folder = tempfile::tempdir().unwrap();
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let live = async |machine: &str| {
            let cache = SegmentCache::open(folder.path().join(machine)).unwrap();
            let store = GalleryStore::new(Arc::clone(&objects), "gallery").cached(cache);
            LiveGallery::load(store).await.unwrap()
        };
        let segments = |machine: &str| {
            let files = std::fs::read_dir(folder.path().join(machine)).unwrap();
            files.count()
        };
        let asked = live("one").await;
        let anna = Person::new("Anna".to_owned(), Vec::new(), 0);
        let append = async |change: Change| {
            let appended = asked.append(|_| Ok::<_, ()>(change.clone()));
            appended.await.unwrap();
        };
        append(Change::Put(anna.clone())).await;
        asked.compact().await.unwrap();
        let idle = live("two").await;
        assert_eq!((segments("one"), segments("two")), (1, 1));
        let stop = CancellationToken::new();
        let following = tokio::spawn(idle.follow_every(Duration::from_millis(5), stop.clone()));
        append(Change::Remove(anna.id)).await;
        assert_eq!(segments("one"), 0);
        let gone = async {
            while segments("two") > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(RELEASED_WITHIN, gone).await.unwrap();
        stop.cancel();
        following.await.unwrap();
    }

    #[tokio::test]
    async fn a_change_that_is_cut_off_may_be_due() {
        let slow = ThrottleConfig {
            wait_put_per_call: Duration::from_millis(50),
            ..ThrottleConfig::default()
        };
        let slow = ThrottledStore::new(InMemory::new(), slow);
        let store = GalleryStore::new(Arc::new(slow), "gallery");
        let live = LiveGallery::load(store).await.unwrap();
        let anna = Person::new("Anna".to_owned(), Vec::new(), 0);
        let put = |_: &Gallery| Ok::<_, ()>(Change::Put(anna.clone()));
        assert_eq!(live.write(put).await.unwrap(), Written::Settled);
        assert_eq!(*live.due.version(), None);
        let refuse = |_: &Gallery| Err(());
        let refused = live.write(refuse).await;
        assert!(matches!(refused, Err(WriteError::Refused(()))));
        assert_eq!(*live.due.version(), None);
        let decided = tokio::sync::Notify::new();
        let remove = |_: &Gallery| {
            decided.notify_one();
            Ok::<_, ()>(Change::Remove(anna.id))
        };
        tokio::select! {
            biased;
            () = decided.notified() => {}
            written = live.write(remove) => panic!("it was not cut off: {written:?}"),
        }
        assert_eq!(*live.due.version(), Some(2));
    }

    #[tokio::test]
    async fn nobody_who_looks_waits_for_a_change() {
        let slow = ThrottleConfig {
            wait_put_per_call: LONG,
            ..ThrottleConfig::default()
        };
        let slow = ThrottledStore::new(InMemory::new(), slow);
        let store = GalleryStore::new(Arc::new(slow), "gallery");
        let live = LiveGallery::load(store).await.unwrap();
        let anna = Person::new("Anna".to_owned(), Vec::new(), 0);
        let decided = tokio::sync::Notify::new();
        let put = |_: &Gallery| {
            decided.notify_one();
            Ok::<_, ()>(Change::Put(anna.clone()))
        };
        let looking = async {
            decided.notified().await;
            for _ in 0..3 {
                live.newest(Gallery::version).await.unwrap();
                live.at_least(0, Gallery::version).await.unwrap();
                live.held(Gallery::version).await.unwrap();
            }
        };
        tokio::select! {
            biased;
            () = looking => {}
            written = live.write(put) => panic!("somebody waited for it: {written:?}"),
        }
    }

    #[tokio::test]
    async fn a_removal_is_completed_though_nobody_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let objects = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
        let store = GalleryStore::new(Arc::new(objects), "gallery");
        let live = LiveGallery::load(store).await.unwrap();
        let anna = Person::new("Anna".to_owned(), Vec::new(), 0);
        let put = |_: &Gallery| Ok::<_, ()>(Change::Put(anna.clone()));
        live.append(put).await.unwrap();
        live.compact().await.unwrap();
        let segments = folder.path().join("gallery-segments");
        let kept = || {
            let files = std::fs::read_dir(&segments).into_iter().flatten();
            let names = files.map(|file| file.unwrap().file_name());
            let segments = names.filter(|name| name.to_str().unwrap().ends_with(".segment"));
            segments.count()
        };
        assert_eq!(kept(), 1);

        // No new segment can be written, nor the old one deleted.
        let away = folder.path().join("away");
        std::fs::rename(&segments, &away).unwrap();
        std::fs::write(&segments, "no folder").unwrap();
        let remove = |_: &Gallery| Ok::<_, ()>(Change::Remove(anna.id));
        live.append(remove).await.unwrap();
        live.settle().await.unwrap_err();
        assert_eq!(
            live.held(|gallery| gallery.people().count()).await.unwrap(),
            0
        );
        std::fs::remove_file(&segments).unwrap();
        std::fs::rename(&away, &segments).unwrap();
        assert_eq!(kept(), 1);

        let stop = CancellationToken::new();
        let following = live.follow_every(Duration::from_millis(5), stop.clone());
        let following = tokio::spawn(following);
        let gone = async {
            while kept() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(RELEASED_WITHIN, gone).await.unwrap();
        stop.cancel();
        following.await.unwrap();
    }
}
