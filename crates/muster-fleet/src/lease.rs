//! One controller acts at a time: a lease, kept as one object in the state store.
//!
//! Invariant: no two clocks are compared. A contender takes over when it has itself seen the object
//! unchanged for the lease time; a holder stops acting earlier than that by itself, counting from
//! before its last renewal was sent. A holder that slept through all of this (a suspended machine)
//! is stopped by the fence: whatever it is about to do is written down first, under a number that
//! its successor has raised.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use object_store::path::Path;
use object_store::{
    Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutPayload, UpdateVersion,
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Renewals, and looks of a contender, in one lease time.
const LOOKS: u32 = 5;
/// The holder stops acting this share of the lease time before a contender may take over.
const MARGIN: u32 = 5;

/// Why the lease could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// The object could not be read or written.
    #[error("could not use the lease {path}")]
    Store {
        /// Where it is kept.
        path: Path,
        /// Why not.
        #[source]
        source: StoreError,
    },
    /// The object is not a lease: something else is kept there, or a later version wrote it.
    #[error("{path} is not a lease")]
    Unreadable {
        /// Where it is kept.
        path: Path,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// What the object says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// For people; two holders may call themselves the same.
    holder: String,
    /// Which of the holders wrote it.
    id: Uuid,
    /// Grows with every change of holder.
    fence: u64,
    /// Grows with every renewal, so that every renewal changes the ETag.
    renewal: u64,
    /// Whether the holder has let go of it.
    released: bool,
}

/// The right to act on a fleet, for as long as [`Lease::held`] says.
pub struct Lease {
    store: Arc<dyn ObjectStore>,
    path: Path,
    time: Duration,
    id: Uuid,
    holder: String,
    fence: u64,
    kept: Mutex<Kept>,
}

struct Kept {
    version: UpdateVersion,
    renewal: u64,
    /// When this holder stops acting by itself.
    until: Instant,
    over: bool,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("path", &self.path)
            .field("holder", &self.holder)
            .field("fence", &self.fence)
            .finish_non_exhaustive()
    }
}

impl Lease {
    /// Waits until this process is the one that acts; `None` when `shutdown` came first.
    ///
    /// As long as another holds the lease this looks five times in each lease `time`, and takes
    /// over once the other has not renewed for all of it. A store that fails meanwhile is asked
    /// again; it delays the takeover and never hastens it.
    ///
    /// # Errors
    /// When the first look fails, or what is kept there is not a lease.
    pub async fn acquire(
        store: Arc<dyn ObjectStore>,
        path: Path,
        holder: &str,
        time: Duration,
        shutdown: &CancellationToken,
    ) -> Result<Option<Arc<Self>>, LeaseError> {
        let contender = Contender {
            store: &*store,
            path: &path,
            holder,
            id: Uuid::now_v7(),
        };
        let mut first = true;
        let mut written: Option<Instant> = None;
        let mut unchanged: Option<(UpdateVersion, Instant)> = None;
        let (kept, fence) = loop {
            let looked = contender.look(time / LOOKS).await;
            let current = match looked {
                Ok(current) => current,
                Err(error @ LeaseError::Unreadable { .. }) => return Err(error),
                Err(error) if first => return Err(error),
                Err(error) => {
                    tracing::warn!(
                        error = format!("{:#}", anyhow::Error::new(error)),
                        "the lease could not be looked at"
                    );
                    if pause(time / LOOKS, shutdown).await {
                        return Ok(None);
                    }
                    continue;
                }
            };
            let (next, mode) = match current {
                None => (contender.record(1), PutMode::Create),
                Some((record, version)) if record.id == contender.id => {
                    // A write of ours whose answer was lost: its time runs from before the first.
                    let begun = written.unwrap_or_else(Instant::now);
                    break (Kept::new(version, begun, time), record.fence);
                }
                Some((record, version)) => {
                    let since = match &unchanged {
                        Some((seen, since)) if *seen == version => *since,
                        _ => Instant::now(),
                    };
                    unchanged = Some((version.clone(), since));
                    if !record.released && since.elapsed() < time {
                        if first {
                            tracing::info!(
                                holder = record.holder,
                                "another controller acts: standing by"
                            );
                        }
                        first = false;
                        if pause(time / LOOKS, shutdown).await {
                            return Ok(None);
                        }
                        continue;
                    }
                    (contender.record(record.fence + 1), PutMode::Update(version))
                }
            };
            first = false;
            let begun = Instant::now();
            written.get_or_insert(begun);
            match contender.write(&next, mode, time / LOOKS).await {
                Ok(version) => break (Kept::new(version, begun, time), next.fence),
                Err(StoreError::Precondition { .. } | StoreError::AlreadyExists { .. }) => {}
                Err(
                    source @ (StoreError::NotImplemented { .. } | StoreError::NotSupported { .. }),
                ) => {
                    return Err(LeaseError::Store { path, source });
                }
                Err(error) => {
                    tracing::warn!(
                        error = format!("{:#}", anyhow::Error::new(error)),
                        "the lease could not be taken"
                    );
                    if pause(time / LOOKS, shutdown).await {
                        return Ok(None);
                    }
                }
            }
        };
        tracing::info!(holder, fence, "this controller acts");
        let id = contender.id;
        Ok(Some(Arc::new(Self {
            store,
            path,
            time,
            id,
            holder: holder.to_owned(),
            fence,
            kept: Mutex::new(kept),
        })))
    }

    /// Whether this holder may still act.
    #[must_use]
    pub fn held(&self) -> bool {
        let kept = self.kept();
        !kept.over && Instant::now() < kept.until
    }

    /// The fencing number: greater than that of every holder before.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.fence
    }

    /// Renews the lease until it is lost, or `shutdown`; it is not held any more when it is lost.
    pub async fn keep(&self, shutdown: &CancellationToken) {
        while !pause(self.time / LOOKS, shutdown).await {
            if let Err(error) = self.renew(false).await {
                tracing::warn!(
                    error = format!("{:#}", anyhow::Error::new(error)),
                    "the lease was not renewed"
                );
            }
            if !self.held() {
                self.kept().over = true;
                tracing::error!(
                    holder = self.holder,
                    "the lease is lost: this controller stops"
                );
                return;
            }
        }
    }

    /// Lets go of the lease, so that a successor need not wait. It is not held any more, even if
    /// the store could not be told.
    ///
    /// # Errors
    /// When the store could not be told: a successor waits for the lease time.
    pub async fn release(&self) -> Result<(), LeaseError> {
        if !self.held() {
            return Ok(());
        }
        let told = self.renew(true).await;
        self.kept().over = true;
        told
    }

    async fn renew(&self, released: bool) -> Result<(), LeaseError> {
        let (version, renewal) = {
            let kept = self.kept();
            (kept.version.clone(), kept.renewal + 1)
        };
        let contender = Contender {
            store: &*self.store,
            path: &self.path,
            holder: &self.holder,
            id: self.id,
        };
        let record = Record {
            renewal,
            released,
            ..contender.record(self.fence)
        };
        let begun = Instant::now();
        let attempt = self.time / LOOKS;
        let written = contender
            .write(&record, PutMode::Update(version), attempt)
            .await;
        match written {
            Ok(version) => {
                let mut kept = self.kept();
                *kept = Kept {
                    renewal,
                    over: kept.over,
                    ..Kept::new(version, begun, self.time)
                };
                Ok(())
            }
            Err(StoreError::Precondition { .. } | StoreError::NotFound { .. }) => {
                // Either an earlier renewal whose answer was lost, or a successor.
                match contender.look(attempt).await? {
                    Some((record, version)) if record.id == self.id => {
                        let mut kept = self.kept();
                        kept.version = version;
                        kept.renewal = record.renewal.max(renewal);
                    }
                    _ => self.kept().over = true,
                }
                Ok(())
            }
            Err(source) => Err(LeaseError::Store {
                path: self.path.clone(),
                source,
            }),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept
            .lock()
            .expect("no code panics while it holds the lease")
    }
}

impl Kept {
    /// `begun`: before the write that made `version` was sent.
    fn new(version: UpdateVersion, begun: Instant, time: Duration) -> Self {
        Self {
            version,
            renewal: 0,
            until: begun + (time - time / MARGIN),
            over: false,
        }
    }
}

/// One that reads and writes the object.
struct Contender<'a> {
    store: &'a dyn ObjectStore,
    path: &'a Path,
    holder: &'a str,
    id: Uuid,
}

impl Contender<'_> {
    fn record(&self, fence: u64) -> Record {
        Record {
            holder: self.holder.to_owned(),
            id: self.id,
            fence,
            renewal: 0,
            released: false,
        }
    }

    async fn look(&self, at_most: Duration) -> Result<Option<(Record, UpdateVersion)>, LeaseError> {
        let failed = |source| LeaseError::Store {
            path: self.path.clone(),
            source,
        };
        let read = async {
            let found = self.store.get(self.path).await?;
            let version = UpdateVersion {
                e_tag: found.meta.e_tag.clone(),
                version: found.meta.version.clone(),
            };
            Ok((found.bytes().await?, version))
        };
        let (bytes, version) = match in_time(at_most, read).await {
            Ok(found) => found,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(source) => return Err(failed(source)),
        };
        let record = serde_json::from_slice(&bytes).map_err(|source| LeaseError::Unreadable {
            path: self.path.clone(),
            source,
        })?;
        Ok(Some((record, version)))
    }

    async fn write(
        &self,
        record: &Record,
        mode: PutMode,
        at_most: Duration,
    ) -> Result<UpdateVersion, StoreError> {
        let body = PutPayload::from(serde_json::to_vec(record).expect("only string keys"));
        let put = self.store.put_opts(self.path, body, mode.into());
        in_time(at_most, put).await.map(UpdateVersion::from)
    }
}

/// Bounds a call to the store; one that took longer may still have happened.
pub(crate) async fn in_time<T>(
    at_most: Duration,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    timeout(at_most, call).await.unwrap_or_else(|elapsed| {
        Err(StoreError::Generic {
            store: "state store",
            source: Box::new(elapsed),
        })
    })
}

/// Sleeps; says whether `shutdown` came first.
async fn pause(time: Duration, shutdown: &CancellationToken) -> bool {
    timeout(time, shutdown.cancelled()).await.is_ok()
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    const TIME: Duration = Duration::from_millis(500);
    const LIMIT: Duration = Duration::from_secs(20);

    fn store() -> Arc<dyn ObjectStore> {
        Arc::new(InMemory::new())
    }

    async fn acquire(store: &Arc<dyn ObjectStore>, holder: &str) -> Arc<Lease> {
        let path = Path::from("lease.json");
        let never = CancellationToken::new();
        let acquired = Lease::acquire(Arc::clone(store), path, holder, TIME, &never);
        let acquired = timeout(LIMIT, acquired).await.expect("in time");
        acquired.unwrap().expect("nothing shuts down")
    }

    #[tokio::test]
    async fn a_released_lease_is_taken_at_once_and_under_a_higher_fence() {
        let store = store();
        let first = acquire(&store, "a").await;
        assert!(first.held());
        assert_eq!(first.fence(), 1);
        first.release().await.unwrap();
        assert!(!first.held());
        let begun = Instant::now();
        let second = acquire(&store, "b").await;
        assert!(begun.elapsed() < TIME, "{:?}", begun.elapsed());
        assert_eq!(second.fence(), 2);
        // The first finds out, and does not take it back.
        first.release().await.unwrap();
        assert!(second.held());
    }

    #[tokio::test]
    async fn a_standby_waits_for_as_long_as_the_holder_renews() {
        let store = store();
        let first = acquire(&store, "a").await;
        let stop = CancellationToken::new();
        let keeping = tokio::spawn({
            let (first, stop) = (Arc::clone(&first), stop.clone());
            async move { first.keep(&stop).await }
        });
        let give_up = CancellationToken::new();
        let path = Path::from("lease.json");
        let waiting = Lease::acquire(Arc::clone(&store), path, "b", TIME, &give_up);
        tokio::pin!(waiting);
        assert!(timeout(3 * TIME, &mut waiting).await.is_err());
        assert!(first.held());
        // Killed: nothing renews and nothing releases.
        stop.cancel();
        keeping.await.unwrap();
        let second = timeout(LIMIT, waiting).await.expect("takes over");
        let second = second.unwrap().expect("nothing shuts down");
        assert!(!first.held(), "the first has stopped by itself before");
        assert_eq!(second.fence(), 2);
        // The renewal of one that slept is refused and tells it.
        first.kept().until = Instant::now() + LIMIT;
        first.renew(false).await.unwrap();
        assert!(!first.held());
        assert!(second.held());
    }

    #[tokio::test]
    async fn of_many_that_start_together_one_acts() {
        let store = store();
        let mut contenders = tokio::task::JoinSet::new();
        let stop = CancellationToken::new();
        for n in 0..8 {
            let (store, stop) = (Arc::clone(&store), stop.clone());
            contenders.spawn(async move {
                let path = Path::from("lease.json");
                let lease = Lease::acquire(store, path, &n.to_string(), TIME, &stop).await;
                let lease = lease.unwrap()?;
                lease.keep(&stop).await;
                Some(lease.fence())
            });
        }
        tokio::time::sleep(3 * TIME).await;
        stop.cancel();
        let fences: Vec<_> = contenders.join_all().await.into_iter().flatten().collect();
        assert_eq!(fences, [1]);
    }

    #[tokio::test]
    async fn what_is_not_a_lease_is_left_alone() {
        let store = store();
        let path = Path::from("lease.json");
        store.put(&path, "a photograph".into()).await.unwrap();
        let never = CancellationToken::new();
        let refused = Lease::acquire(Arc::clone(&store), path.clone(), "a", TIME, &never).await;
        assert!(matches!(refused, Err(LeaseError::Unreadable { .. })));
        let kept = store.get(&path).await.unwrap().bytes().await.unwrap();
        assert_eq!(kept.as_ref(), b"a photograph");
    }
}
