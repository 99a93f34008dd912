//! The gallery as a log in the object store.
//!
//! Change `n` is the object `<n>.change.json`, created only if it does not exist yet: of two
//! concurrent writers one wins the number and the other looks again and takes the next, so no
//! change is lost. Every so many changes, and after every removal of a face, the whole gallery is written as
//! `<n>.snapshot.json` and all older objects are deleted, so that a removed person's embeddings
//! are gone from the store. Invariant: the newest snapshot and the changes after it make the
//! gallery, whichever step a crash cut off.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};

use super::people::Gallery;
use super::person::{Change, Person};

/// A snapshot is written after this many changes, which bounds what a reader lists and replays.
const CHANGES_PER_SNAPSHOT: u64 = 64;
/// How often a reader or writer that others keep overtaking tries before it gives up.
const MAX_ATTEMPTS: u32 = 50;
/// The wait between such attempts grows to this.
const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// The format that this build writes, and the only one it reads.
const FORMAT: u32 = 2;

/// Why the gallery could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GalleryError {
    /// The object store failed: try again.
    #[error("the object store did not serve the gallery")]
    Store(#[from] object_store::Error),
    /// An object is damaged, or written by another version of Muster.
    #[error(
        "the gallery's object {key} can not be read: restore it, or run the version that wrote it"
    )]
    Malformed {
        /// The object's key.
        key: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// An object has a format that this build does not know.
    #[error("the gallery's object {key} has format {found}, this build reads {FORMAT}")]
    Format {
        /// The object's key.
        key: String,
        /// Its format.
        found: u32,
    },
    /// Other writers were faster each time.
    #[error("the gallery kept changing while it was being read or written: try again")]
    Contended,
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    format: u32,
    content: T,
}

/// A whole gallery, as it stands in a snapshot.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Snapshot {
    model: Option<String>,
    people: Vec<Person>,
}

/// The same, to write.
#[derive(Serialize)]
struct SnapshotOf<'a> {
    model: Option<&'a str>,
    people: Vec<std::borrow::Cow<'a, Person>>,
}

impl<'a> SnapshotOf<'a> {
    fn of(gallery: &'a Gallery) -> Self {
        Self {
            model: gallery.model(),
            people: gallery.people().collect(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Change,
    Snapshot,
}

/// The durable gallery. Cheap to clone; any number of processes may use one at the same time.
#[derive(Clone)]
pub struct GalleryStore {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

impl fmt::Debug for GalleryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GalleryStore")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl GalleryStore {
    /// The gallery whose objects stand below `prefix`.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        Self {
            store,
            prefix: Path::from(prefix),
        }
    }

    fn key(&self, version: u64, kind: Kind) -> Path {
        let kind = match kind {
            Kind::Change => "change",
            Kind::Snapshot => "snapshot",
        };
        self.prefix
            .clone()
            .join(format!("{version:020}.{kind}.json"))
    }

    /// Objects newer than `version`, ascending.
    async fn newer_than(&self, version: u64) -> Result<Vec<(u64, Kind)>, GalleryError> {
        // Sorts after every object of `version` and before every object of the next.
        let offset = self.prefix.clone().join(format!("{version:020}.z"));
        let mut found: Vec<(u64, Kind)> = self
            .store
            .list_with_offset(Some(&self.prefix), &offset)
            .try_filter_map(async |meta| Ok(parse(&meta.location)))
            .try_collect()
            .await?;
        found.sort_by_key(|(version, _)| *version);
        Ok(found)
    }

    /// Brings `gallery` up to the newest version. Whatever was appended before the call is seen.
    ///
    /// # Errors
    /// [`GalleryError`]; `gallery` is then at some version that existed, and a later call goes on.
    pub async fn sync(&self, gallery: &mut Gallery) -> Result<(), GalleryError> {
        for attempt in 0..MAX_ATTEMPTS {
            let newer = self.newer_than(gallery.version()).await?;
            if self.replay(gallery, &newer).await? {
                return Ok(());
            }
            back_off(attempt).await;
        }
        Err(GalleryError::Contended)
    }

    /// Applies what was listed; `false` where an object was deleted meanwhile or the listing has a
    /// gap, since the listing is not atomic.
    async fn replay(
        &self,
        gallery: &mut Gallery,
        newer: &[(u64, Kind)],
    ) -> Result<bool, GalleryError> {
        let snapshot = newer.iter().rev().find(|(_, kind)| *kind == Kind::Snapshot);
        if let Some(&(version, kind)) = snapshot {
            match self.read::<Snapshot>(&self.key(version, kind)).await? {
                Some(Snapshot { model, people }) => {
                    *gallery = Gallery::restore(version, model, people);
                }
                None => return Ok(false),
            }
        }
        for &(version, kind) in newer {
            if version <= gallery.version() {
                continue;
            }
            if version != gallery.version() + 1 {
                return Ok(false);
            }
            match self.read::<Change>(&self.key(version, kind)).await? {
                Some(change) => gallery.apply(version, change),
                None => return Ok(false),
            }
        }
        Ok(true)
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
        Ok(Some(envelope.content))
    }

    async fn write<T: Serialize>(
        &self,
        key: &Path,
        content: T,
        mode: PutMode,
    ) -> Result<(), object_store::Error> {
        let body = serde_json::to_vec(&Envelope {
            format: FORMAT,
            content,
        })
        .expect("a gallery has only string keys");
        let options = PutOptions {
            mode,
            ..PutOptions::default()
        };
        self.store
            .put_opts(key, PutPayload::from(body), options)
            .await?;
        Ok(())
    }

    /// Makes one change durable and applies it to `gallery`.
    ///
    /// `decide` sees the gallery at its newest version and returns the change, or refuses; it is
    /// called again when another writer came first. When this returns `Ok(Ok(_))`, every later
    /// [`GalleryStore::sync`] of any process sees the change.
    ///
    /// # Errors
    /// [`GalleryError`]; after [`GalleryError::Store`] the change may or may not have happened.
    pub async fn append<E>(
        &self,
        gallery: &mut Gallery,
        mut decide: impl FnMut(&Gallery) -> Result<Change, E>,
    ) -> Result<Result<(), E>, GalleryError> {
        for attempt in 0..MAX_ATTEMPTS {
            self.sync(gallery).await?;
            let change = match decide(gallery) {
                Ok(change) => change,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let version = gallery.version() + 1;
            let key = self.key(version, Kind::Change);
            let written = match self.write(&key, &change, PutMode::Create).await {
                // A write whose answer was lost is tried again, and then collides with itself.
                Err(object_store::Error::AlreadyExists { path, source }) => {
                    match self.read::<Change>(&key).await? {
                        Some(there) if there == change => Ok(()),
                        _ => Err(object_store::Error::AlreadyExists { path, source }),
                    }
                }
                written => written,
            };
            match written {
                Ok(()) => {
                    let forgets = gallery.forgets(&change);
                    gallery.apply(version, change);
                    if forgets || version.is_multiple_of(CHANGES_PER_SNAPSHOT) {
                        self.compact(gallery).await?;
                    }
                    return Ok(Ok(()));
                }
                Err(object_store::Error::AlreadyExists { .. }) => back_off(attempt).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(GalleryError::Contended)
    }

    /// Writes `gallery` as a snapshot and deletes every object that it makes superfluous.
    ///
    /// Safe at any time, by any number of processes: the snapshot of a version has always the same
    /// content, and only what it covers is deleted.
    ///
    /// # Errors
    /// [`GalleryError::Store`]; the gallery is unharmed, and the next compaction does what is left.
    pub async fn compact(&self, gallery: &Gallery) -> Result<(), GalleryError> {
        let version = gallery.version();
        if version == 0 {
            return Ok(());
        }
        let key = self.key(version, Kind::Snapshot);
        self.write(&key, SnapshotOf::of(gallery), PutMode::Overwrite)
            .await?;
        let all: Vec<(Path, (u64, Kind))> = self
            .store
            .list(Some(&self.prefix))
            .try_filter_map(async |meta| Ok(parse(&meta.location).map(|is| (meta.location, is))))
            .try_collect()
            .await?;
        // Another process may have written a newer snapshot meanwhile, which covers this one too.
        let newest = all
            .iter()
            .filter_map(|(_, (found, kind))| (*kind == Kind::Snapshot).then_some(*found))
            .fold(version, u64::max);
        let superfluous = all.into_iter().filter(|(_, (found, kind))| match kind {
            // The newest change stays, so that a writer who has not seen it yet collides with it.
            Kind::Change | Kind::Snapshot => *found < newest,
        });
        for (location, _) in superfluous {
            match self.store.delete(&location).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn parse(location: &Path) -> Option<(u64, Kind)> {
    let name = location.filename()?;
    let (version, kind) = name.split_once('.')?;
    let kind = match kind {
        "change.json" => Kind::Change,
        "snapshot.json" => Kind::Snapshot,
        _ => return None,
    };
    Some((version.parse().ok()?, kind))
}

async fn back_off(attempt: u32) {
    tokio::time::sleep(Duration::from_millis(1 << attempt.min(6)).min(LONGEST_WAIT)).await;
}

#[cfg(test)]
mod tests {
    use object_store::local::LocalFileSystem;
    use object_store::memory::InMemory;

    use super::*;
    use crate::embed::Embedding;
    use crate::gallery::{Embeddings, EnrolledFace};

    fn person(name: &str, direction: usize) -> Person {
        let mut values = vec![0.0; 8];
        values[direction % 8] = 1.0;
        let embeddings = Embeddings::of("sface", Embedding::normalise(&values).unwrap());
        let face = EnrolledFace::new(format!("{name}.jpg"), embeddings, 1);
        Person::new(name.to_owned(), vec![face], 1)
    }

    async fn put(store: &GalleryStore, gallery: &mut Gallery, person: Person) {
        let change = Change::Put(person);
        store
            .append(gallery, |_| Ok::<_, ()>(change.clone()))
            .await
            .unwrap()
            .unwrap();
    }

    fn stores() -> Vec<(Arc<dyn ObjectStore>, Option<tempfile::TempDir>)> {
        let folder = tempfile::tempdir().unwrap();
        let local = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
        vec![
            (Arc::new(local), Some(folder)),
            (Arc::new(InMemory::new()), None),
        ]
    }

    async fn names(store: &GalleryStore) -> Vec<String> {
        let mut fresh = Gallery::default();
        store.sync(&mut fresh).await.unwrap();
        let mut names: Vec<_> = fresh.people().map(|person| person.name.clone()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn what_was_appended_is_seen_by_every_reader() {
        for (objects, _folder) in stores() {
            let store = GalleryStore::new(objects, "gallery");
            let (mut writer, mut reader) = (Gallery::default(), Gallery::default());
            // Past one snapshot, with a reader that stays behind and catches up across it.
            for n in 0..CHANGES_PER_SNAPSHOT + 3 {
                put(&store, &mut writer, person(&format!("p{n:03}"), n as usize)).await;
                if n % 10 == 0 {
                    store.sync(&mut reader).await.unwrap();
                    assert_eq!(reader, writer);
                }
            }
            store.sync(&mut reader).await.unwrap();
            assert_eq!(reader, writer);
            assert_eq!(names(&store).await.len(), CHANGES_PER_SNAPSHOT as usize + 3);
        }
    }

    #[tokio::test]
    async fn concurrent_writers_lose_nothing() {
        for (objects, _folder) in stores() {
            let store = GalleryStore::new(objects, "gallery");
            let writers: Vec<_> = (0..4)
                .map(|w| {
                    let store = store.clone();
                    tokio::spawn(async move {
                        let mut gallery = Gallery::default();
                        for n in 0..25 {
                            put(&store, &mut gallery, person(&format!("w{w}-{n:02}"), n)).await;
                        }
                    })
                })
                .collect();
            for writer in writers {
                writer.await.unwrap();
            }
            assert_eq!(names(&store).await.len(), 100);
        }
    }

    #[tokio::test]
    async fn a_removed_person_is_gone_from_the_store() {
        for (objects, _folder) in stores() {
            let store = GalleryStore::new(Arc::clone(&objects), "gallery");
            let mut gallery = Gallery::default();
            let (anna, ben) = (person("Anna", 0), person("Ben", 1));
            put(&store, &mut gallery, anna.clone()).await;
            put(&store, &mut gallery, ben.clone()).await;
            let change = Change::Remove(anna.id);
            store
                .append(&mut gallery, |_| Ok::<_, ()>(change.clone()))
                .await
                .unwrap()
                .unwrap();
            assert_eq!(names(&store).await, ["Ben"]);
            let all: Vec<_> = objects.list(None).try_collect().await.unwrap();
            assert!(!all.is_empty());
            for meta in all {
                let bytes = objects
                    .get(&meta.location)
                    .await
                    .unwrap()
                    .bytes()
                    .await
                    .unwrap();
                let text = String::from_utf8(bytes.to_vec()).unwrap();
                assert!(!text.contains("Anna"), "{} still has Anna", meta.location);
            }
        }
    }

    #[tokio::test]
    async fn a_crash_between_snapshot_and_cleanup_changes_nothing() {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let store = GalleryStore::new(Arc::clone(&objects), "gallery");
        let mut gallery = Gallery::default();
        for n in 0..5 {
            put(&store, &mut gallery, person(&format!("p{n}"), n)).await;
        }
        let key = store.key(gallery.version(), Kind::Snapshot);
        let snapshot = SnapshotOf::of(&gallery);
        store
            .write(&key, snapshot, PutMode::Overwrite)
            .await
            .unwrap();
        assert_eq!(names(&store).await.len(), 5);
        let mut again = Gallery::default();
        put(&store, &mut again, person("p5", 5)).await;
        store.compact(&again).await.unwrap();
        assert_eq!(names(&store).await.len(), 6);
        assert_eq!(
            objects
                .list(None)
                .try_collect::<Vec<_>>()
                .await
                .unwrap()
                .len(),
            2,
            "the newest snapshot and the newest change"
        );
    }

    #[tokio::test]
    async fn damage_is_named_not_guessed_around() {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let store = GalleryStore::new(Arc::clone(&objects), "gallery");
        for (body, expected) in [
            ("{", "can not be read"),
            (r#"{"format":9,"content":0}"#, "format 9"),
        ] {
            let key = store.key(1, Kind::Change);
            objects
                .put(&key, PutPayload::from(body.to_owned()))
                .await
                .unwrap();
            let error = store
                .sync(&mut Gallery::default())
                .await
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(expected) && error.contains(key.as_ref()),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn a_refusal_changes_nothing_and_the_nearest_come_first() {
        let store = GalleryStore::new(Arc::new(InMemory::new()), "gallery");
        let mut gallery = Gallery::default();
        put(&store, &mut gallery, person("Anna", 0)).await;
        put(&store, &mut gallery, person("Ben", 1)).await;
        let refused = store.append(&mut gallery, |_| Err("taken")).await.unwrap();
        assert_eq!((refused, gallery.version()), (Err("taken"), 2));
        let probe = Embedding::normalise(&[0.1, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]).unwrap();
        let nearest: Vec<_> = gallery
            .nearest(&probe, 5)
            .iter()
            .map(|c| c.person.name.clone())
            .collect();
        assert_eq!(nearest, ["Ben", "Anna"]);
    }
}
