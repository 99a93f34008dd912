//! The stores: buckets, or folders of the data folder.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use aws_config::SdkConfig;
use futures::TryStreamExt;
use muster_gallery::SegmentCache;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;

use super::data_folder;
use super::folder_store::FolderStore;
use crate::aws;
use crate::settings::{AwsSettings, S3Url, StorageSettings};

/// The folder, in the data folder, of the objects that are in no bucket.
const OBJECTS: &str = "objects";
/// The folder, in the data folder, of the gallery's segments.
const SEGMENTS: &str = "gallery-cache";

/// Where the gallery's segments are mapped from.
///
/// # Errors
/// Names the folder that can not be used.
pub fn segment_cache(settings: &StorageSettings) -> anyhow::Result<SegmentCache> {
    data_folder::prepare(&settings.data_dir, Some(SEGMENTS))?;
    let folder = settings.data_dir.join(SEGMENTS);
    SegmentCache::open(&folder)
        .with_context(|| format!("make the folder {} for the gallery", folder.display()))
}

/// The state store alone, for a command that works on it.
///
/// # Errors
/// Names the folder or bucket that can not be used.
pub async fn state_store(
    settings: &StorageSettings,
    aws_settings: &AwsSettings,
) -> anyhow::Result<Arc<dyn ObjectStore>> {
    let Some(place) = &settings.state_store else {
        return Ok(Arc::new(local(settings, |objects| {
            objects.with_fsync(true)
        })?));
    };
    let sdk = aws::sdk_config(aws_settings).await?;
    let store = aws::bucket(&sdk, place)?;
    look_into(&*store, place).await?;
    Ok(store)
}

/// The state store for a command that only reads, or changes what is there: it begins no Muster in a folder
/// that has none.
///
/// # Errors
/// As [`state_store`], and where there is none.
pub async fn existing_state_store(
    settings: &StorageSettings,
    aws_settings: &AwsSettings,
) -> anyhow::Result<Arc<dyn ObjectStore>> {
    anyhow::ensure!(
        settings.state_store.is_some() || local_folder(settings).is_dir(),
        "there is no Muster in {}: name its data folder with --data, or its configuration with --config",
        settings.data_dir.display()
    );
    state_store(settings, aws_settings).await
}

/// Where the objects are that are in no bucket.
pub fn local_folder(settings: &StorageSettings) -> PathBuf {
    settings.data_dir.join(OBJECTS)
}

/// The objects in the data folder.
pub fn local(
    settings: &StorageSettings,
    options: impl FnOnce(LocalFileSystem) -> LocalFileSystem,
) -> anyhow::Result<FolderStore> {
    let folder = local_folder(settings);
    data_folder::prepare(&settings.data_dir, Some(OBJECTS))?;
    FolderStore::open(&folder, options)
        .with_context(|| format!("open the objects in {}", folder.display()))
}

/// Opens the bucket that is set, or that part of the data folder.
pub fn store(
    settings: &StorageSettings,
    sdk: Option<&SdkConfig>,
    place: &Option<S3Url>,
    part: &str,
) -> anyhow::Result<Arc<dyn ObjectStore>> {
    let (Some(place), Some(sdk)) = (place, sdk) else {
        let local = local(settings, |objects| objects.with_automatic_cleanup(true))?;
        return Ok(if part.is_empty() {
            Arc::new(local)
        } else {
            Arc::new(PrefixStore::new(local, part))
        });
    };
    aws::bucket(sdk, place)
}

/// Fails where a bucket is not there, which would look like one without objects.
pub async fn look_into(store: &dyn ObjectStore, place: &S3Url) -> anyhow::Result<()> {
    store
        .list(None)
        .try_next()
        .await
        .with_context(|| format!("look into {place}"))?;
    Ok(())
}
