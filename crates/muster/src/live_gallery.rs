//! A role's own copy of the gallery, brought up to date when a request needs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use muster_recognize::gallery::{Change, Gallery, GalleryError, GalleryStore};
use tokio::sync::Mutex;

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
            self.store.sync(&mut copy.gallery).await?;
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
            self.store.sync(&mut copy.gallery).await?;
        }
        Ok(look(&copy.gallery))
    }

    /// Makes a change durable, as [`GalleryStore::append`] does.
    ///
    /// # Errors
    /// [`GalleryError`].
    pub async fn append<E>(
        &self,
        decide: impl FnMut(&Gallery) -> Result<Change, E>,
    ) -> Result<Result<(), E>, GalleryError> {
        let mut copy = self.copy.lock().await;
        self.store.append(&mut copy.gallery, decide).await
    }

    /// Completes a removal that a crash cut off before the embeddings were gone.
    ///
    /// # Errors
    /// [`GalleryError`].
    pub async fn compact(&self) -> Result<(), GalleryError> {
        let copy = self.copy.lock().await;
        self.store.compact(&copy.gallery).await
    }
}
