//! Where the keys are kept: one object each, in the state store.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::Context;
use futures::{StreamExt, TryStreamExt};
use muster_jobs::keys::{self, KEYS_PREFIX};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};

use super::key::{ApiKey, KeyId};

/// Keys read at one time for a list.
const READS: usize = 16;

/// The keys of an installation. Cheap to clone.
#[derive(Clone, Debug)]
pub struct KeyStore {
    state: Arc<dyn ObjectStore>,
}

impl KeyStore {
    /// The keys in that state store.
    pub fn new(state: Arc<dyn ObjectStore>) -> Self {
        Self { state }
    }

    fn at(id: &KeyId) -> Path {
        Path::from(keys::api_key(&id.to_string()))
    }

    /// Reads one; `None` where there is none.
    ///
    /// # Errors
    /// When the store fails, or what it has is no key.
    pub async fn get(&self, id: &KeyId) -> anyhow::Result<Option<ApiKey>> {
        self.read(&Self::at(id)).await
    }

    async fn read(&self, path: &Path) -> anyhow::Result<Option<ApiKey>> {
        let bytes = match self.state.get(path).await {
            Ok(found) => found.bytes().await,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => Err(error),
        };
        let bytes = bytes.context("read an API key")?;
        let key = serde_json::from_slice(&bytes)
            .with_context(|| format!("{path} in the state store is not an API key"))?;
        Ok(Some(key))
    }

    /// Every one, the oldest first.
    ///
    /// # Errors
    /// When the store fails, or what it has is no key.
    pub async fn list(&self) -> anyhow::Result<Vec<ApiKey>> {
        let below = Path::from(KEYS_PREFIX);
        let found = self.state.list(Some(&below));
        let mut keys: Vec<ApiKey> = found
            .map(|listed| async {
                let location = listed.context("list the API keys")?.location;
                self.read(&location).await
            })
            .buffer_unordered(READS)
            .try_filter_map(|key| async { Ok(key) })
            .try_collect()
            .await?;
        keys.sort_by(|a, b| (a.created_at_ms, &a.id).cmp(&(b.created_at_ms, &b.id)));
        Ok(keys)
    }

    /// The ids of all.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn ids(&self) -> anyhow::Result<HashSet<KeyId>> {
        let below = Path::from(KEYS_PREFIX);
        let found = self.state.list(Some(&below));
        let ids = found.try_filter_map(|listed| async move {
            let id = keys::id_of_api_key(listed.location.as_ref());
            Ok(id.and_then(|id| id.parse().ok()))
        });
        ids.try_collect().await.context("list the API keys")
    }

    /// Whether there is any.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn any(&self) -> anyhow::Result<bool> {
        let below = Path::from(KEYS_PREFIX);
        let first = self.state.list(Some(&below)).try_next().await;
        Ok(first.context("list the API keys")?.is_some())
    }

    /// Keeps a new one.
    ///
    /// # Errors
    /// When the store fails, or has one with the id.
    pub async fn create(&self, key: &ApiKey) -> anyhow::Result<()> {
        let body = serde_json::to_vec_pretty(key).context("write an API key")?;
        self.state
            .put_opts(
                &Self::at(&key.id),
                PutPayload::from(body),
                PutMode::Create.into(),
            )
            .await
            .context("keep the API key")?;
        Ok(())
    }

    /// Deletes one; `false` where there is none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn revoke(&self, id: &KeyId) -> anyhow::Result<bool> {
        if self.get(id).await?.is_none() {
            return Ok(false);
        }
        let deleted = self.state.delete(&Self::at(id)).await;
        deleted.context("delete the API key")?;
        Ok(true)
    }
}
