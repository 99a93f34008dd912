//! The objects that a gallery consists of, one by one.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use muster_jobs::keys::{GalleryKeys, LogEntry, SegmentId, manifest_number};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};

use super::attempts::{MAX_ATTEMPTS, back_off};
use super::blocking::blocking;
use super::envelope::{Envelope, FORMAT, encode};
use super::error::GalleryError;
use super::manifest::Manifest;
use crate::person::Change;
use crate::segment::Segment;

/// So many of the changes that a manifest covers keep their place, emptied, so that a writer who
/// has not seen them yet collides with them instead of writing one that nobody reads.
pub(super) const CHANGES_KEPT_EMPTY: u64 = 32;
/// Objects that are fetched or deleted at one time.
pub(super) const CALLS_IN_FLIGHT: usize = 8;

#[derive(Clone)]
pub(super) struct Objects {
    store: Arc<dyn ObjectStore>,
    keys: GalleryKeys,
    /// Below which changes and snapshots stand.
    log: Path,
    /// Below which segments and manifests stand.
    segments: Path,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.log.fmt(f)
    }
}

impl Objects {
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        let keys = GalleryKeys::new(prefix);
        Self {
            store,
            log: Path::from(keys.log_prefix()),
            segments: Path::from(keys.segments_prefix()),
            keys,
        }
    }

    pub fn change_key(&self, version: u64) -> Path {
        Path::from(self.keys.change(version))
    }

    pub fn announcement_key(&self, version: u64, sequence: u64) -> Path {
        Path::from(self.keys.snapshot(version, sequence))
    }

    pub fn segment_key(&self, id: &SegmentId) -> Path {
        Path::from(self.keys.segment(id))
    }

    /// Changes and announcements newer than `version`, ascending.
    ///
    /// # Errors
    /// [`GalleryError`], also where another version of Muster wrote one of them.
    pub async fn newer_than(&self, version: u64) -> Result<Vec<(u64, LogEntry)>, GalleryError> {
        let offset = Path::from(self.keys.after_version(version));
        let mut found: Vec<(u64, LogEntry, Path)> = self
            .store
            .list_with_offset(Some(&self.log), &offset)
            .try_filter_map(async |meta| {
                Ok(parse(&meta).map(|(version, entry)| (version, entry, meta.location)))
            })
            .try_collect()
            .await?;
        found.sort_by_key(|(version, ..)| *version);
        if let Some((_, _, key)) = found.iter().find(|(_, e, _)| *e == LogEntry::Unknown) {
            return Err(self.unknown(key).await);
        }
        let entries = found
            .into_iter()
            .map(|(version, entry, _)| (version, entry));
        Ok(entries.collect())
    }

    /// What is wrong with an object of another version of Muster.
    async fn unknown(&self, key: &Path) -> GalleryError {
        match self.read::<serde::de::IgnoredAny>(key).await {
            Err(error) => error,
            Ok(_) => GalleryError::Format {
                key: key.to_string(),
                found: FORMAT,
            },
        }
    }

    /// The change that leads to `version`; `None` where it is gone or was emptied.
    pub async fn change(&self, version: u64) -> Result<Option<Change>, GalleryError> {
        self.read(&self.change_key(version)).await
    }

    pub async fn announced(
        &self,
        version: u64,
        sequence: u64,
    ) -> Result<Option<Manifest>, GalleryError> {
        self.read(&self.announcement_key(version, sequence)).await
    }

    /// `false` where another change has that version.
    pub async fn create_change(&self, version: u64, change: &Change) -> Result<bool, GalleryError> {
        self.create(&self.change_key(version), change).await
    }

    /// Whether an announced manifest covers a version, so that nobody looks at its change any more.
    pub async fn is_covered(&self, version: u64) -> Result<bool, GalleryError> {
        let listed = self.newer_than(version.saturating_sub(1)).await?;
        Ok(listed
            .iter()
            .any(|(_, entry)| matches!(entry, LogEntry::Snapshot(_))))
    }

    /// `false` where another manifest has that number.
    pub async fn create_manifest(&self, manifest: &Manifest) -> Result<bool, GalleryError> {
        let key = Path::from(self.keys.manifest(manifest.sequence));
        self.create(&key, manifest).await
    }

    async fn create<T>(&self, key: &Path, content: &T) -> Result<bool, GalleryError>
    where
        T: Serialize + for<'de> Deserialize<'de> + PartialEq,
    {
        match self.put(key, Some(content), PutMode::Create).await {
            Ok(()) => Ok(true),
            // A write whose answer was lost is tried again, and then collides with itself.
            Err(object_store::Error::AlreadyExists { .. }) => {
                Ok(self.read::<T>(key).await?.as_ref() == Some(content))
            }
            Err(error) => Err(error.into()),
        }
    }

    pub async fn put_segment(&self, id: &SegmentId, bytes: &[u8]) -> Result<(), GalleryError> {
        let body = PutPayload::from(bytes.to_vec());
        self.store.put(&self.segment_key(id), body).await?;
        Ok(())
    }

    /// A segment of which every byte was verified; `None` where it is gone.
    pub async fn segment(&self, id: &SegmentId) -> Result<Option<Segment>, GalleryError> {
        let key = self.segment_key(id);
        let bytes = match self.store.get(&key).await {
            Ok(found) => found.bytes().await?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let verified = blocking(move || {
            let segment = Segment::open(bytes.into())?;
            segment.verify().map(|()| segment)
        })
        .await;
        verified.map(Some).map_err(|source| GalleryError::Segment {
            key: key.to_string(),
            source,
        })
    }

    async fn read<T: for<'de> Deserialize<'de>>(
        &self,
        key: &Path,
    ) -> Result<Option<T>, GalleryError> {
        let bytes = match self.store.get(key).await {
            Ok(found) => found.bytes().await?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let malformed = |source| GalleryError::Malformed {
            key: key.to_string(),
            source,
        };
        let format: Envelope<serde::de::IgnoredAny> =
            serde_json::from_slice(&bytes).map_err(malformed)?;
        if format.format != FORMAT {
            return Err(GalleryError::Format {
                key: key.to_string(),
                found: format.format,
            });
        }
        let envelope: Envelope<T> = serde_json::from_slice(&bytes).map_err(malformed)?;
        Ok(envelope.content)
    }

    async fn put<T: Serialize>(
        &self,
        key: &Path,
        content: Option<&T>,
        mode: PutMode,
    ) -> Result<(), object_store::Error> {
        let options = PutOptions {
            mode,
            ..PutOptions::default()
        };
        let payload = PutPayload::from(encode(content));
        self.store.put_opts(key, payload, options).await?;
        Ok(())
    }

    /// Announces the newest manifest and deletes whatever it makes superfluous.
    ///
    /// Safe at any time, by any number of processes: only what the newest manifest covers goes.
    pub async fn clean_up(&self) -> Result<(), GalleryError> {
        for attempt in 0..MAX_ATTEMPTS {
            let listed = self.list(&self.segments).await?;
            let names = listed.iter().filter_map(|meta| meta.location.filename());
            let numbers = names.filter_map(manifest_number);
            let Some(newest) = numbers.max() else {
                return Ok(());
            };
            let newest_key = Path::from(self.keys.manifest(newest));
            let Some(manifest) = self.read::<Manifest>(&newest_key).await? else {
                back_off(attempt).await;
                continue;
            };
            self.announce(&manifest).await?;
            let superfluous = listed.iter().filter(|meta| {
                let name = meta.location.filename();
                name.is_some_and(|name| manifest.supersedes(name))
            });
            let deleting = superfluous.map(|meta| self.delete(&meta.location).boxed());
            return at_once(deleting.collect()).await;
        }
        Err(GalleryError::Contended)
    }

    /// Announces the manifest among the changes, and empties or deletes those that it covers.
    pub async fn announce(&self, manifest: &Manifest) -> Result<(), GalleryError> {
        let announcement = self.announcement_key(manifest.version, manifest.sequence);
        let among = self.list(&self.log).await?;
        if !among.iter().any(|meta| meta.location == announcement) {
            let mode = PutMode::Overwrite;
            self.put(&announcement, Some(manifest), mode).await?;
        }
        let empty = encode::<Change>(None);
        let mut tidying: Vec<BoxFuture<'_, _>> = Vec::new();
        for meta in &among {
            match parse(meta) {
                // The newest change stays, so that a writer who has not seen it collides with it.
                Some((version, LogEntry::Change)) if version < manifest.version => {
                    if version + CHANGES_KEPT_EMPTY < manifest.version {
                        tidying.push(self.delete(&meta.location).boxed());
                    } else if meta.size != empty.len() as u64 {
                        tidying.push(self.empty_change(&meta.location).boxed());
                    }
                }
                Some((_, LogEntry::Snapshot(sequence))) if sequence < manifest.sequence => {
                    tidying.push(self.delete(&meta.location).boxed());
                }
                _ => {}
            }
        }
        at_once(tidying).await
    }

    async fn empty_change(&self, key: &Path) -> Result<(), GalleryError> {
        self.put::<Change>(key, None, PutMode::Overwrite).await?;
        Ok(())
    }

    async fn list(&self, prefix: &Path) -> Result<Vec<ObjectMeta>, GalleryError> {
        Ok(self.store.list(Some(prefix)).try_collect().await?)
    }

    async fn delete(&self, key: &Path) -> Result<(), GalleryError> {
        match self.store.delete(key).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Runs them, some at the same time, until one fails.
async fn at_once(calls: Vec<BoxFuture<'_, Result<(), GalleryError>>>) -> Result<(), GalleryError> {
    let calls = futures::stream::iter(calls).buffer_unordered(CALLS_IN_FLIGHT);
    calls.try_collect().await
}

fn parse(meta: &ObjectMeta) -> Option<(u64, LogEntry)> {
    LogEntry::parse(meta.location.filename()?)
}
