//! Objects in a folder of this machine, for as long as it is the folder that was opened.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path as Folder, PathBuf};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// The folder that objects stand in was removed, or replaced, while it was in use.
#[derive(Debug, thiserror::Error)]
#[error(
    "the folder {} is gone, or it is another one than at the start: put it back, or restart Muster to \
     begin anew in it", path.display()
)]
pub struct FolderGone {
    path: PathBuf,
    #[source]
    source: Option<io::Error>,
}

/// Objects in a folder. A store that makes folders as it needs them would take objects into an empty
/// one where the folder was removed, and find none of those before.
#[derive(Debug)]
pub struct FolderStore {
    objects: LocalFileSystem,
    path: PathBuf,
    /// The device and the number of the folder.
    opened: (u64, u64),
}

impl FolderStore {
    /// The objects in that folder, which is there.
    ///
    /// # Errors
    /// When the folder can not be opened.
    pub fn open(
        path: &Folder,
        options: impl FnOnce(LocalFileSystem) -> LocalFileSystem,
    ) -> Result<Self> {
        let objects = options(LocalFileSystem::new_with_prefix(path)?);
        let found = identity(path).map_err(|source| gone(path, Some(source)))?;
        Ok(Self {
            objects,
            path: path.to_owned(),
            opened: found,
        })
    }

    fn check(&self) -> Result<()> {
        match identity(&self.path) {
            Ok(found) if found == self.opened => Ok(()),
            Ok(_) => Err(gone(&self.path, None)),
            Err(source) => Err(gone(&self.path, Some(source))),
        }
    }

    fn checked<T: Send + 'static>(
        &self,
        listing: impl FnOnce(&LocalFileSystem) -> BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        match self.check() {
            Ok(()) => listing(&self.objects),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }
}

fn identity(path: &Folder) -> io::Result<(u64, u64)> {
    let found = std::fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}

fn gone(path: &Folder, source: Option<io::Error>) -> Error {
    let path = path.to_owned();
    Error::Generic {
        store: "folder",
        source: Box::new(FolderGone { path, source }),
    }
}

impl fmt::Display for FolderStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.objects.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for FolderStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.check()?;
        self.objects.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.check()?;
        self.objects.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.check()?;
        self.objects.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.checked(|objects| objects.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.checked(|objects| objects.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.checked(|objects| objects.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.check()?;
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.check()?;
        self.objects.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use object_store::ObjectStoreExt;

    use super::*;

    #[tokio::test]
    async fn a_folder_that_is_gone_takes_nothing_and_is_not_taken_for_an_empty_one() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("objects");
        std::fs::create_dir(&folder).unwrap();
        let store = FolderStore::open(&folder, |objects| objects.with_automatic_cleanup(true));
        let store = store.unwrap();
        let key = Path::from("input/a.jpg");
        let put = async || store.put(&key, PutPayload::from_static(b"x")).await;
        put().await.unwrap();
        store.delete(&key).await.unwrap();
        put().await.unwrap();
        let away = parent.path().join("away");
        std::fs::rename(&folder, &away).unwrap();
        let refused = async || {
            let error = put().await.unwrap_err();
            let said = error.to_string();
            assert!(
                said.contains("is gone") && said.contains("objects"),
                "{said}"
            );
            store.get(&key).await.unwrap_err();
            store.list(None).try_next().await.unwrap_err();
            store.delete(&key).await.unwrap_err();
        };
        refused().await;
        assert!(!folder.exists());
        std::fs::create_dir(&folder).unwrap();
        refused().await;
        std::fs::remove_dir(&folder).unwrap();
        std::fs::rename(&away, &folder).unwrap();
        store.get(&key).await.unwrap();
    }
}
