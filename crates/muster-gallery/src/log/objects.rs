//! The objects that a gallery consists of, one by one.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};

use super::{
    CALLS_IN_FLIGHT, CHANGES_KEPT_EMPTY, FORMAT, GalleryError, MAX_ATTEMPTS, NOT_CANCELLED,
    back_off,
};
use crate::person::Change;
use crate::segment::{Bytes, Segment};

/// What the name of a manifest ends with.
const MANIFEST: &str = ".manifest.json";
/// What the name of a segment ends with.
const SEGMENT: &str = ".segment";

/// What an object holds; nothing where it was emptied.
#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    format: u32,
    content: Option<T>,
}

/// A gallery at one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// Its number: one more than that of the manifest that it follows.
    pub sequence: u64,
    pub version: u64,
    /// The model whose embeddings are compared.
    pub model: Option<String>,
    pub segments: Vec<SegmentOf>,
}

/// A segment of a gallery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SegmentOf {
    pub id: String,
    /// The positions of those who do not count any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dead: Vec<u32>,
}

impl Manifest {
    /// Whether it makes that segment or manifest superfluous.
    fn supersedes(&self, meta: &ObjectMeta) -> bool {
        if let Some(number) = manifest_number(meta) {
            return number < self.sequence;
        }
        let name = meta.location.filename();
        name.and_then(|name| name.strip_suffix(SEGMENT))
            .is_some_and(|id| {
                let of_this_or_before = sequence_of(id).is_some_and(|of| of <= self.sequence);
                of_this_or_before && !self.segments.iter().any(|named| named.id == id)
            })
    }
}

fn manifest_number(meta: &ObjectMeta) -> Option<u64> {
    let name = meta.location.filename()?;
    name.strip_suffix(MANIFEST)?.parse().ok()
}

/// An object among the changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Change,
    /// A manifest's number.
    Announcement(u64),
    /// Its key.
    Unknown(Path),
}

/// How a segment is called that the manifest of that number names first.
pub(super) fn segment_id(sequence: u64, digest: &str) -> String {
    format!("{sequence:020}-{digest}")
}

/// The number of the manifest that named a segment first.
pub(crate) fn sequence_of(segment_id: &str) -> Option<u64> {
    segment_id.split_once('-')?.0.parse().ok()
}

/// Below which prefix the segments of a gallery stand whose changes stand below that one: not below
/// the same, since the changes are listed with every request.
pub fn segments_prefix(prefix: &str) -> String {
    format!("{prefix}-segments")
}

#[derive(Clone)]
pub(super) struct Objects {
    store: Arc<dyn ObjectStore>,
    changes: Path,
    /// Segments and manifests.
    standing: Path,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.changes.fmt(f)
    }
}

impl Objects {
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        Self {
            store,
            changes: Path::from(prefix),
            standing: Path::from(segments_prefix(prefix)),
        }
    }

    pub fn change_key(&self, version: u64) -> Path {
        self.changes
            .clone()
            .join(format!("{version:020}.change.json"))
    }

    fn announcement_key(&self, version: u64, sequence: u64) -> Path {
        let name = format!("{version:020}.snapshot-{sequence:020}.json");
        self.changes.clone().join(name)
    }

    fn manifest_key(&self, sequence: u64) -> Path {
        self.standing
            .clone()
            .join(format!("{sequence:020}{MANIFEST}"))
    }

    pub fn segment_key(&self, id: &str) -> Path {
        self.standing.clone().join(format!("{id}{SEGMENT}"))
    }

    /// Changes and announcements newer than `version`, ascending.
    pub async fn newer_than(&self, version: u64) -> Result<Vec<(u64, Entry)>, GalleryError> {
        // Sorts after every object of `version` and before every object of the next.
        let offset = self.changes.clone().join(format!("{version:020}.z"));
        let mut found: Vec<(u64, Entry)> = self
            .store
            .list_with_offset(Some(&self.changes), &offset)
            .try_filter_map(async |meta| Ok(parse(&meta.location)))
            .try_collect()
            .await?;
        found.sort_by_key(|(version, _)| *version);
        Ok(found)
    }

    /// What is wrong with an object of another version of Muster.
    pub async fn unknown(&self, key: &Path) -> GalleryError {
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

    /// `false` where another manifest has that number.
    pub async fn create_manifest(&self, manifest: &Manifest) -> Result<bool, GalleryError> {
        let key = self.manifest_key(manifest.sequence);
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

    pub async fn put_segment(&self, id: &str, bytes: &[u8]) -> Result<(), GalleryError> {
        let body = PutPayload::from(bytes.to_vec());
        self.store.put(&self.segment_key(id), body).await?;
        Ok(())
    }

    /// A segment of which every byte was verified; `None` where it is gone.
    pub async fn segment(&self, id: &str) -> Result<Option<Segment>, GalleryError> {
        let key = self.segment_key(id);
        let bytes = match self.store.get(&key).await {
            Ok(found) => found.bytes().await?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let verified = tokio::task::spawn_blocking(move || {
            let segment = Segment::open(Bytes::Held(bytes.into()))?;
            segment.verify().map(|()| segment)
        });
        let verified = verified.await.expect(NOT_CANCELLED);
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
        let payload = PutPayload::from(body(content));
        self.store.put_opts(key, payload, options).await?;
        Ok(())
    }

    /// Announces the newest manifest and deletes whatever it makes superfluous.
    ///
    /// Safe at any time, by any number of processes: only what the newest manifest covers goes.
    pub async fn clean_up(&self) -> Result<(), GalleryError> {
        for attempt in 0..MAX_ATTEMPTS {
            let standing = self.list(&self.standing).await?;
            let numbers = standing.iter().filter_map(manifest_number);
            let Some(newest) = numbers.max() else {
                return Ok(());
            };
            let Some(manifest) = self.read::<Manifest>(&self.manifest_key(newest)).await? else {
                back_off(attempt).await;
                continue;
            };
            self.announce(&manifest).await?;
            let superfluous = standing.iter().filter(|meta| manifest.supersedes(meta));
            let deleting = superfluous.map(|meta| self.delete(&meta.location).boxed());
            return at_once(deleting.collect()).await;
        }
        Err(GalleryError::Contended)
    }

    /// Announces the manifest among the changes, and empties or deletes those that it covers.
    pub async fn announce(&self, manifest: &Manifest) -> Result<(), GalleryError> {
        let announcement = self.announcement_key(manifest.version, manifest.sequence);
        let among = self.list(&self.changes).await?;
        if !among.iter().any(|meta| meta.location == announcement) {
            let mode = PutMode::Overwrite;
            self.put(&announcement, Some(manifest), mode).await?;
        }
        let empty = body::<Change>(None);
        let mut tidying: Vec<BoxFuture<'_, _>> = Vec::new();
        for meta in &among {
            match parse(&meta.location) {
                // The newest change stays, so that a writer who has not seen it collides with it.
                Some((version, Entry::Change)) if version < manifest.version => {
                    if version + CHANGES_KEPT_EMPTY < manifest.version {
                        tidying.push(self.delete(&meta.location).boxed());
                    } else if meta.size != empty.len() as u64 {
                        tidying.push(self.empty_change(&meta.location).boxed());
                    }
                }
                Some((_, Entry::Announcement(sequence))) if sequence < manifest.sequence => {
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

fn body<T: Serialize>(content: Option<&T>) -> Vec<u8> {
    serde_json::to_vec(&Envelope {
        format: FORMAT,
        content,
    })
    .expect("a gallery has only string keys")
}

fn parse(location: &Path) -> Option<(u64, Entry)> {
    let (version, kind) = location.filename()?.split_once('.')?;
    let entry = match kind.strip_suffix(".json")? {
        "change" => Entry::Change,
        kind => match kind.strip_prefix("snapshot-").map(str::parse) {
            Some(Ok(sequence)) => Entry::Announcement(sequence),
            _ => Entry::Unknown(location.clone()),
        },
    };
    Some((version.parse().ok()?, entry))
}
