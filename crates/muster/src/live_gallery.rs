//! A role's own copy of the gallery, brought up to date when a request needs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use muster_recognize::gallery::{Change, Gallery, GalleryError, GalleryStore};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// Within so long every running process lets go of what was removed.
pub const LET_GO_WITHIN: Duration = Duration::from_secs(30);
/// Time between two looks of a process that has no request to look for.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(25);
const _: () = assert!(FOLLOW_INTERVAL.as_secs() < LET_GO_WITHIN.as_secs());

/// The gallery in memory, and the store that it follows. Cheap to clone.
#[derive(Clone)]
pub struct LiveGallery {
    store: GalleryStore,
    copy: Arc<Mutex<Held>>,
    /// Looks at the store begun so far.
    begun: Arc<AtomicU64>,
}

struct Held {
    gallery: Gallery,
    /// The number of the last look that ended well.
    seen: u64,
}

impl LiveGallery {
    /// Reads the whole gallery.
    ///
    /// # Errors
    /// [`GalleryError`].
    pub async fn load(store: GalleryStore) -> Result<Self, GalleryError> {
        let mut gallery = Gallery::default();
        store.sync(&mut gallery).await?;
        let copy = Held { gallery, seen: 0 };
        Ok(Self {
            store,
            copy: Arc::new(Mutex::new(copy)),
            begun: Arc::default(),
        })
    }

    /// Runs `look` on the copy as it is, without a look at the store.
    pub async fn held<T>(&self, look: impl FnOnce(&Gallery) -> T) -> T {
        look(&self.copy.lock().await.gallery)
    }

    /// Runs `look` on a copy that knows whatever was changed before this call.
    ///
    /// Calls at the same time share one look at the store.
    ///
    /// # Errors
    /// [`GalleryError`].
    pub async fn newest<T>(&self, look: impl FnOnce(&Gallery) -> T) -> Result<T, GalleryError> {
        // Any look with a higher number begins after this moment, and sees what was there.
        let before = self.begun.load(Ordering::SeqCst);
        let mut copy = self.copy.lock().await;
        if copy.seen <= before {
            let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            self.store.catch_up(&mut copy.gallery).await?;
            copy.seen = number;
        }
        Ok(look(&copy.gallery))
    }

    /// Runs `look` on a copy that has at least that version.
    ///
    /// # Errors
    /// [`GalleryError`].
    pub async fn at_least<T>(
        &self,
        version: u64,
        look: impl FnOnce(&Gallery) -> T,
    ) -> Result<T, GalleryError> {
        let mut copy = self.copy.lock().await;
        if copy.gallery.version() < version {
            self.store.catch_up(&mut copy.gallery).await?;
        }
        Ok(look(&copy.gallery))
    }

    /// A copy of its own that knows whatever was changed before this call, for looks that take
    /// long: others are not kept waiting.
    ///
    /// # Errors
    /// [`GalleryError`].
    pub async fn copy(&self) -> Result<Gallery, GalleryError> {
        self.newest(Gallery::clone).await
    }

    /// Makes a change durable, as [`GalleryStore::append`] does. Others look and change meanwhile,
    /// where what was changed has to be written into segments.
    ///
    /// # Errors
    /// [`GalleryError`].
    pub async fn append<E>(
        &self,
        decide: impl FnMut(&Gallery) -> Result<Change, E>,
    ) -> Result<Result<(), E>, GalleryError> {
        let mut copy = self.copy.lock().await;
        let written = match self.store.write(&mut copy.gallery, decide).await? {
            Ok(true) => copy.gallery.clone(),
            Ok(false) => return Ok(Ok(())),
            Err(refusal) => return Ok(Err(refusal)),
        };
        drop(copy);
        self.store.compact(&written).await?;
        drop(written);
        self.let_go().await?;
        Ok(Ok(()))
    }

    /// Takes over the newest segments and lets go of those that were deleted.
    async fn let_go(&self) -> Result<(), GalleryError> {
        let mut copy = self.copy.lock().await;
        self.store.sync(&mut copy.gallery).await
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
            if let Err(error) = self.let_go().await {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "the gallery could not be brought up to date");
            }
        }
    }

    /// Completes a removal that a crash cut off before the embeddings were gone.
    ///
    /// # Errors
    /// [`GalleryError`].
    pub async fn compact(&self) -> Result<(), GalleryError> {
        let written = self.copy.lock().await.gallery.clone();
        self.store.compact(&written).await?;
        drop(written);
        self.let_go().await
    }
}

#[cfg(test)]
mod tests {
    use muster_recognize::gallery::{Person, SegmentCache};
    use object_store::ObjectStore;
    use object_store::memory::InMemory;

    use super::*;

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
            appended.await.unwrap().unwrap();
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
        tokio::time::timeout(LET_GO_WITHIN, gone).await.unwrap();
        stop.cancel();
        following.await.unwrap();
    }
}
