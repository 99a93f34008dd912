//! Segments in a folder of this machine, which all of its processes share.
//!
//! A file under a segment's name is whole and was verified, since it is synced and then renamed to
//! that name; Muster never changes it, and removes it when no manifest names it any more. Whatever
//! something else does to it is noticed: by [`SegmentCache::get`], and by the segment later on.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_jobs::keys::SegmentId;

use crate::segment::Segment;

/// What the name of a file that is being written begins with.
const UNFINISHED: &str = "unfinished-";
/// A file that has been unfinished for longer was left by a process that was killed.
const ABANDONED: Duration = Duration::from_secs(600);

/// The folder. Any number of processes may share one; it must be theirs alone.
#[derive(Clone, Debug)]
pub struct SegmentCache {
    folder: PathBuf,
}

impl SegmentCache {
    /// Makes the folder where it is absent.
    ///
    /// # Errors
    /// When that fails.
    pub fn open(folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = folder.into();
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    /// The folder's path.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, id: &SegmentId) -> PathBuf {
        self.folder.join(id.file_name())
    }

    /// The segment of that name, where it is here. Every byte is verified.
    pub(super) fn get(&self, id: &SegmentId) -> Option<Segment> {
        let path = self.path(id);
        let mut file = File::open(&path).ok()?;
        let mut bytes = Vec::new();
        let verified = file.read_to_end(&mut bytes).ok().and_then(|_| {
            let segment = Segment::open(bytes).ok()?;
            segment.verify().ok().map(|()| segment.leave_in(file))
        });
        if verified.is_none() {
            tracing::warn!(
                "{} is damaged and is fetched again from the object store",
                path.display()
            );
        }
        verified
    }

    /// Keeps a verified segment, and gives it back with its rest left in the file.
    pub(super) fn put(&self, id: &SegmentId, bytes: &[u8]) -> io::Result<Segment> {
        let mut unfinished = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(&self.folder)?;
        unfinished.write_all(bytes)?;
        unfinished.as_file().sync_all()?;
        let file = unfinished.persist(self.path(id)).map_err(|e| e.error)?;
        let segment = Segment::open(bytes.to_vec()).map_err(io::Error::other)?;
        Ok(segment.leave_in(file))
    }

    /// Removes every segment.
    pub(super) fn clear(&self) -> io::Result<()> {
        self.retain(&HashSet::new(), u64::MAX)
    }

    /// Removes the segments up to that manifest's number that it does not name, and what killed
    /// processes left. Whoever still has one open keeps it until they let go.
    pub(super) fn retain(&self, named: &HashSet<&SegmentId>, sequence: u64) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let path = entry.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            let superseded = SegmentId::parse(name).is_some_and(|id| {
                !named.contains(&id) && id.first_manifest().is_some_and(|of| of <= sequence)
            });
            let abandoned = name.starts_with(UNFINISHED)
                && entry
                    .metadata()
                    .and_then(|meta| meta.modified())
                    .is_ok_and(|written| written.elapsed().is_ok_and(|age| age > ABANDONED));
            if superseded || abandoned {
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use muster_jobs::Embedding;

    use super::*;
    use crate::{Embeddings, EnrolledFace, Person};

    #[test]
    fn what_is_no_longer_named_or_is_damaged_is_not_served() {
        let folder = tempfile::tempdir().unwrap();
        let cache = SegmentCache::open(folder.path().join("new")).unwrap();
        let embedding = Embedding::normalise(&[0.6, 0.8]).unwrap();
        let face = EnrolledFace::new(String::new(), Embeddings::of("sface", embedding), 0);
        let anna = Person::new("Anna".to_owned(), vec![face], 0);
        let segment = Segment::build(Some("sface"), vec![Cow::Borrowed(&anna)]);
        let ids = [SegmentId::new(1, "a"), SegmentId::new(2, "b")];
        for id in &ids {
            let kept = cache.put(id, segment.as_slice()).unwrap();
            assert_eq!(kept.person(0).as_ref(), Some(&anna));
        }
        let open = cache.get(&ids[0]).unwrap();
        cache.retain(&HashSet::new(), 1).unwrap();
        assert!(cache.get(&ids[0]).is_none());
        let found = open.person(0);
        assert_eq!(found.as_ref(), Some(&anna), "whoever has it open keeps it");
        let found = cache.get(&ids[1]).unwrap().person(0);
        assert_eq!(found.as_ref(), Some(&anna));
        let path = cache.path(&ids[1]);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(cache.get(&ids[1]).is_none(), "cut off");
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&path, &flipped).unwrap();
            let found = cache.get(&ids[1]);
            // Between the sections nothing is read.
            assert!(
                found.is_none_or(|found| found.person(0).as_ref() == Some(&anna)),
                "byte {at}"
            );
        }
    }
}
