//! The API keys as a replica knows them: what the store had of each, and not long ago.
//!
//! A guess costs the store nothing: of an id that is not known the list of ids is read again, once for all
//! who ask meanwhile, and no more often than [`LIST_EVERY`]. Whoever guesses waits for that, and nobody with a
//! key waits for them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use muster_base::api_keys::{ApiKey, KeyId, KeyStore};

use crate::access::rate::Bucket;
use crate::api::problem::ApiError;

/// How long the store's answer on a key is cached: how long a revocation may take to be noticed.
const FRESH: Duration = Duration::from_secs(3);
/// How often the ids are listed at most.
const LIST_EVERY: Duration = Duration::from_secs(1);

/// The keys that there are.
pub struct Keys {
    store: KeyStore,
    known: Mutex<HashMap<KeyId, Arc<KnownKey>>>,
    /// When the ids were listed last, and whether that succeeded. Locked while they are listed.
    listed: tokio::sync::Mutex<Option<(Instant, bool)>>,
}

/// One key. The lock is held while the store is asked, so that it is asked once.
#[derive(Default)]
pub struct KnownKey {
    state: tokio::sync::Mutex<KeyState>,
}

/// What the store had of a key, and its rate.
#[derive(Default)]
pub struct KeyState {
    /// When the store was asked, and what it had.
    read: Option<(Instant, Option<Arc<ApiKey>>)>,
    /// How often its holder may still ask; none before the first time.
    pub bucket: Option<Bucket>,
}

impl KeyState {
    /// What the store had.
    pub fn key(&self) -> Option<Arc<ApiKey>> {
        self.read.as_ref()?.1.clone()
    }

    fn is_fresh(&self) -> bool {
        self.read
            .as_ref()
            .is_some_and(|(at, _)| at.elapsed() < FRESH)
    }
}

impl Keys {
    /// The keys of that store.
    pub fn new(store: KeyStore) -> Self {
        Self {
            store,
            known: Mutex::default(),
            listed: tokio::sync::Mutex::default(),
        }
    }

    /// The key of that id; `None` where there is none, by a list that was read after the question.
    ///
    /// # Errors
    /// 500 where the list can not be read.
    pub async fn find(&self, id: &KeyId) -> Result<Option<Arc<KnownKey>>, ApiError> {
        if let Some(known) = self.known().get(id) {
            return Ok(Some(Arc::clone(known)));
        }
        let asked = Instant::now();
        let mut listed = self.listed.lock().await;
        match *listed {
            Some((at, succeeded)) if at >= asked => {
                if !succeeded {
                    return Err(unreadable(&anyhow::anyhow!(
                        "the ids could not be listed just now"
                    )));
                }
            }
            before => {
                if let Some((at, _)) = before {
                    tokio::time::sleep_until((at + LIST_EVERY).into()).await;
                }
                *listed = Some((Instant::now(), false));
                let ids = self.store.ids().await.map_err(|error| unreadable(&error))?;
                *listed = listed.map(|(at, _)| (at, true));
                self.replace(ids);
            }
        }
        drop(listed);
        Ok(self.known().get(id).map(Arc::clone))
    }

    /// The state of a key, read again where that is long ago.
    ///
    /// # Errors
    /// 500 where the key can not be read.
    pub async fn read<'a>(
        &self,
        id: &KeyId,
        known: &'a KnownKey,
    ) -> Result<tokio::sync::MutexGuard<'a, KeyState>, ApiError> {
        let mut state = known.state.lock().await;
        if !state.is_fresh() {
            let found = self.store.get(id).await;
            let found = found.map_err(|error| unreadable(&error))?;
            state.read = Some((Instant::now(), found.map(Arc::new)));
        }
        Ok(state)
    }

    fn replace(&self, ids: HashSet<KeyId>) {
        let mut known = self.known();
        known.retain(|id, _| ids.contains(id));
        for id in ids {
            known.entry(id).or_default();
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<KeyId, Arc<KnownKey>>> {
        let known = self.known.lock();
        known.expect("no code panics while it holds these")
    }
}

fn unreadable(error: &anyhow::Error) -> ApiError {
    ApiError::internal("an API key could not be read", error.as_ref())
}
