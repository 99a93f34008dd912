//! The gallery as a log in the object store.
//!
//! Change `n` is the object `<n>.change.json`, created only if it does not exist yet: of two
//! concurrent writers one wins the number and the other looks again and takes the next, so no
//! change is lost. Every so many changes, and after every removal of a face, those who changed are
//! written into segments ([`crate::segment`]), and a manifest names the segments that make the
//! gallery at that version; what it makes superfluous is deleted, so that a removed person's
//! embeddings are gone from the store.
//!
//! Manifest `s` is created only if it does not exist yet, and follows manifest `s - 1`: of two who
//! compact at the same time one wins. It is announced as `<n>.snapshot-<s>.json` among the changes,
//! so that a reader finds everything with one listing. A segment's name begins with the number of
//! the first manifest that names it, so that nobody deletes what another is about to name. Segments
//! and manifests stand apart from the changes, which are listed with every request.
//!
//! Invariant: the newest announced manifest and the changes after its version make the gallery,
//! whichever step a crash cut off.

mod attempts;
mod blocking;
mod envelope;
mod error;
mod manifest;
mod objects;

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use muster_jobs::keys::{LogEntry, SegmentId};
use object_store::ObjectStore;
use object_store::path::Path;

use self::attempts::{MAX_ATTEMPTS, back_off};
use self::blocking::blocking;
use self::manifest::{Manifest, ManifestSegment};
use self::objects::{CALLS_IN_FLIGHT, Objects};
use crate::cache::SegmentCache;
use crate::gallery::{Gallery, Snapshot};
use crate::live_segment::LiveSegment;
use crate::person::Change;
use crate::segment::Segment;

pub use self::error::{GalleryError, WriteError};

/// Those who changed are written into segments after this many changes, which bounds what a reader
/// lists and replays.
const CHANGES_PER_MANIFEST: u64 = 64;

/// How far a listing of the log could be applied.
enum Replayed {
    Whole,
    /// That object was not there.
    Without(Path),
}

/// A change that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Written {
    /// Nothing else is to be done.
    Settled,
    /// Something is to be forgotten, or has to be written into segments: see
    /// [`GalleryStore::compact`].
    CompactionDue,
}

/// The durable gallery. Cheap to clone; any number of processes may use one at the same time.
#[derive(Clone)]
pub struct GalleryStore {
    objects: Objects,
    cache: Option<SegmentCache>,
}

impl fmt::Debug for GalleryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GalleryStore")
            .field("objects", &self.objects)
            .field("cache", &self.cache)
            .finish()
    }
}

impl GalleryStore {
    /// The gallery whose objects stand below `prefix`, its segments held in memory; see
    /// [`GalleryStore::cached`].
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        Self {
            objects: Objects::new(store, prefix),
            cache: None,
        }
    }

    /// Keeps the segments in files that all processes of this machine share.
    #[must_use]
    pub fn cached(self, cache: SegmentCache) -> Self {
        Self {
            cache: Some(cache),
            ..self
        }
    }

    /// Brings `gallery` up to the newest version, and lets go of the segments that are superfluous.
    /// Whatever was appended before the call is seen.
    ///
    /// # Errors
    /// [`GalleryError`]; `gallery` is then at some version that existed, and a later call goes on.
    pub async fn sync(&self, gallery: &mut Gallery) -> Result<(), GalleryError> {
        // From the manifest on: one that came since may cover changes that are known already.
        self.follow(gallery, |gallery| gallery.snapshot().version)
            .await
    }

    /// Brings `gallery` up to the newest version, and looks at nothing older: what a look for each
    /// request costs. Segments that became superfluous without a change stay until the next
    /// [`GalleryStore::sync`].
    ///
    /// # Errors
    /// As [`GalleryStore::sync`].
    pub async fn catch_up(&self, gallery: &mut Gallery) -> Result<(), GalleryError> {
        self.follow(gallery, Gallery::version).await
    }

    async fn follow(
        &self,
        gallery: &mut Gallery,
        known: impl Fn(&Gallery) -> u64,
    ) -> Result<(), GalleryError> {
        if gallery.is_intact() {
            return self.read_on(gallery, known).await;
        }
        tracing::error!(
            "something else than Muster wrote to the folder for segments: the gallery is read anew"
        );
        let mut anew = Gallery::default();
        self.read_on(&mut anew, known).await?;
        *gallery = anew;
        Ok(())
    }

    async fn read_on(
        &self,
        gallery: &mut Gallery,
        known: impl Fn(&Gallery) -> u64,
    ) -> Result<(), GalleryError> {
        let mut missing: Option<Path> = None;
        for attempt in 0..MAX_ATTEMPTS {
            let newer = self.objects.newer_than(known(gallery)).await?;
            match self.replay(gallery, &newer).await? {
                Replayed::Whole => return Ok(()),
                // What others have deleted meanwhile is another object each time.
                Replayed::Without(key) if attempt == 0 => missing = Some(key),
                Replayed::Without(key) => missing = missing.filter(|before| *before == key),
            }
            back_off(attempt).await;
        }
        Err(match missing {
            Some(key) => GalleryError::Missing {
                key: key.to_string(),
            },
            None => GalleryError::Contended,
        })
    }

    /// Applies what was listed, where all of it is there: an object may have been deleted meanwhile,
    /// and the listing may have a gap, since it is not atomic.
    async fn replay(
        &self,
        gallery: &mut Gallery,
        newer: &[(u64, LogEntry)],
    ) -> Result<Replayed, GalleryError> {
        let snapshots = newer.iter().filter_map(|(version, entry)| match entry {
            LogEntry::Snapshot(sequence) => Some((*sequence, *version)),
            _ => None,
        });
        let announced = snapshots.max();
        match announced {
            Some((sequence, version)) if sequence > gallery.snapshot().sequence => {
                let Some(manifest) = self.objects.announced(version, sequence).await? else {
                    let key = self.objects.announcement_key(version, sequence);
                    return Ok(Replayed::Without(key));
                };
                let mut next = match self.open(manifest, gallery.snapshot()).await? {
                    Ok(next) => next,
                    Err(segment) => {
                        let key = self.objects.segment_key(&segment);
                        return Ok(Replayed::Without(key));
                    }
                };
                let replayed = self.replay_changes(&mut next, newer).await?;
                if let Replayed::Without(_) = replayed {
                    return Ok(replayed);
                }
                if next.version() < gallery.version() {
                    let key = self.objects.change_key(next.version() + 1);
                    return Ok(Replayed::Without(key));
                }
                *gallery = next;
                self.evict(gallery.snapshot())?;
                Ok(Replayed::Whole)
            }
            _ => self.replay_changes(gallery, newer).await,
        }
    }

    async fn replay_changes(
        &self,
        gallery: &mut Gallery,
        newer: &[(u64, LogEntry)],
    ) -> Result<Replayed, GalleryError> {
        for (version, entry) in newer {
            if *entry != LogEntry::Change || *version <= gallery.version() {
                continue;
            }
            let next = gallery.version() + 1;
            let change = match *version == next {
                true => self.objects.change(next).await?,
                false => None,
            };
            match change {
                Some(change) => gallery.apply(next, change),
                None => return Ok(Replayed::Without(self.objects.change_key(next))),
            }
        }
        Ok(Replayed::Whole)
    }

    /// The gallery that a manifest names, or which of its segments is gone, as when a newer manifest
    /// has come.
    async fn open(
        &self,
        manifest: Manifest,
        before: &Snapshot,
    ) -> Result<Result<Gallery, SegmentId>, GalleryError> {
        let mut opening: Vec<BoxFuture<'_, _>> = Vec::new();
        for segment in manifest.segments {
            opening.push(self.live_segment(segment, before).boxed());
        }
        let opening = futures::stream::iter(opening).buffered(CALLS_IN_FLIGHT);
        let opened: Vec<Result<LiveSegment, SegmentId>> = opening.try_collect().await?;
        let segments = match opened.into_iter().collect() {
            Ok(segments) => segments,
            Err(gone) => return Ok(Err(gone)),
        };
        let snapshot = Snapshot {
            sequence: manifest.sequence,
            version: manifest.version,
            segments,
        };
        Ok(Ok(Gallery::restore(manifest.model, snapshot)))
    }

    async fn live_segment(
        &self,
        ManifestSegment { id, tombstones }: ManifestSegment,
        before: &Snapshot,
    ) -> Result<Result<LiveSegment, SegmentId>, GalleryError> {
        let mut known = before.segments.iter();
        let known = known.find(|live| live.id.as_ref() == Some(&id) && live.segment.is_intact());
        let segment = match known {
            Some(live) => Arc::clone(&live.segment),
            None => match self.segment(&id).await? {
                Some(segment) => segment,
                None => return Ok(Err(id)),
            },
        };
        Ok(Ok(LiveSegment {
            segment,
            id: Some(id),
            tombstones: tombstones.into_iter().collect(),
            erase: false,
        }))
    }

    async fn segment(&self, id: &SegmentId) -> Result<Option<Arc<Segment>>, GalleryError> {
        if let Some(cache) = &self.cache {
            let (looking, id) = (cache.clone(), id.clone());
            if let Some(here) = blocking(move || looking.get(&id)).await {
                return Ok(Some(Arc::new(here)));
            }
        }
        match self.objects.segment(id).await? {
            Some(fetched) => self.cache_segment(id, Arc::new(fetched)).await.map(Some),
            None => Ok(None),
        }
    }

    /// Puts a segment into this machine's folder, and gives it back as it is used from here on.
    async fn cache_segment(
        &self,
        id: &SegmentId,
        segment: Arc<Segment>,
    ) -> Result<Arc<Segment>, GalleryError> {
        let Some(cache) = &self.cache else {
            return Ok(segment);
        };
        let (keeping, id) = (cache.clone(), id.clone());
        let kept = blocking(move || keeping.put(&id, segment.as_slice())).await;
        kept.map(Arc::new).map_err(|source| failed(cache, source))
    }

    /// Removes from this machine what the manifest does not name.
    fn evict(&self, snapshot: &Snapshot) -> Result<(), GalleryError> {
        let Some(cache) = &self.cache else {
            return Ok(());
        };
        let named = snapshot.segments.iter().filter_map(|live| live.id.as_ref());
        let removed = cache.retain(&named.collect(), snapshot.sequence);
        removed.map_err(|source| failed(cache, source))
    }

    /// Removes the segments from this machine, which others may have a while longer in use.
    ///
    /// # Errors
    /// [`GalleryError::Cache`].
    pub fn leave_machine(&self) -> Result<(), GalleryError> {
        match &self.cache {
            Some(cache) => cache.clear().map_err(|source| failed(cache, source)),
            None => Ok(()),
        }
    }

    /// Makes one change durable and applies it to `gallery`, and says whether
    /// [`GalleryStore::compact`] is due.
    ///
    /// `decide` sees the gallery at its newest version and returns the change, or refuses; it is
    /// called again when another writer came first. When this returns `Ok`, every later
    /// [`GalleryStore::sync`] of any process sees the change.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn write<E>(
        &self,
        gallery: &mut Gallery,
        mut decide: impl FnMut(&Gallery) -> Result<Change, E>,
    ) -> Result<Written, WriteError<E>> {
        for attempt in 0..MAX_ATTEMPTS {
            self.sync(gallery).await?;
            let Ok(decided) = gallery.look(&mut decide) else {
                back_off(attempt).await;
                continue;
            };
            let change = decided.map_err(WriteError::Refused)?;
            let version = gallery.version() + 1;
            if self.objects.create_change(version, &change).await?
                && self.counts(gallery, version, &change).await?
            {
                let at_once = gallery.must_erase(&change) || matches!(change, Change::UseModel(_));
                gallery.apply(version, change);
                if at_once || version.is_multiple_of(CHANGES_PER_MANIFEST) {
                    return Ok(Written::CompactionDue);
                }
                return Ok(Written::Settled);
            }
            back_off(attempt).await;
        }
        Err(GalleryError::Contended.into())
    }

    /// Whether a change that was just created is one that readers look at.
    ///
    /// A create that took long, as when a call is repeated, may come after newer versions were
    /// compacted and their changes deleted: it succeeds on a key that a manifest covers already. A
    /// manifest that was made since may cover it too, and then the people are as it says.
    async fn counts(
        &self,
        gallery: &Gallery,
        version: u64,
        change: &Change,
    ) -> Result<bool, GalleryError> {
        if !self.objects.is_covered(version).await? {
            return Ok(true);
        }
        let mut newest = gallery.clone();
        self.sync(&mut newest).await?;
        if newest.look(|newest| newest.reflects(change))? {
            return Ok(true);
        }
        // What nobody looks at is not left lying there.
        self.objects.clean_up().await?;
        Ok(false)
    }

    /// Writes what changed into segments and deletes everything that they make superfluous. The
    /// caller's copy follows at its next [`GalleryStore::sync`].
    ///
    /// Safe at any time, by any number of processes: of two at the same time one wins, and the
    /// other goes on from there.
    ///
    /// # Errors
    /// [`GalleryError`]; the gallery is unharmed, and the next compaction does what is left.
    pub async fn compact(&self, gallery: &Gallery) -> Result<(), GalleryError> {
        let mut gallery = gallery.clone();
        if !gallery.is_intact() {
            self.sync(&mut gallery).await?;
        }
        for attempt in 0..MAX_ATTEMPTS {
            let manifest = if gallery.version() == gallery.snapshot().version {
                None
            } else {
                Some(self.write_segments(&gallery).await?)
            };
            let won = match &manifest {
                Some(manifest) => self.objects.create_manifest(manifest).await?,
                None => true,
            };
            self.objects.clean_up().await?;
            if won {
                return Ok(());
            }
            back_off(attempt).await;
            self.sync(&mut gallery).await?;
        }
        Err(GalleryError::Contended)
    }

    /// Stores the segments that this version of the gallery needs.
    async fn write_segments(&self, gallery: &Gallery) -> Result<Manifest, GalleryError> {
        let sequence = gallery.snapshot().sequence + 1;
        let (version, model) = (gallery.version(), gallery.model().map(str::to_owned));
        let gallery = gallery.clone();
        let compacted = blocking(move || gallery.look(Gallery::compacted)).await?;
        let mut segments = Vec::with_capacity(compacted.len());
        for live in compacted {
            let id = match live.id {
                Some(id) => id,
                None => {
                    let id = SegmentId::new(sequence, &live.segment.digest());
                    self.objects
                        .put_segment(&id, live.segment.as_slice())
                        .await?;
                    self.cache_segment(&id, live.segment).await?;
                    id
                }
            };
            segments.push(ManifestSegment {
                id,
                tombstones: live.tombstones.into_iter().collect(),
            });
        }
        Ok(Manifest {
            sequence,
            version,
            model,
            segments,
        })
    }
}

fn failed(cache: &SegmentCache, source: std::io::Error) -> GalleryError {
    GalleryError::Cache {
        folder: cache.folder().display().to_string(),
        source,
    }
}

#[cfg(test)]
mod tests;
