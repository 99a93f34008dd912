//! One controller acts at a time: a lease, kept as one object in the state store.
//!
//! Invariant: no two clocks are compared. A contender takes over when it has itself seen the object
//! unchanged for the lease time; a holder stops acting earlier than that by itself, counting from
//! before its last renewal was sent. A holder that slept through all of this (a suspended machine)
//! is stopped by the fence: whatever it is about to do is written down first, under a fencing number
//! that its successor has raised.
//!
//! A write that timed out may still have happened, and one that was refused may have been refused
//! because it had happened already: object_store repeats a write that a server has failed. So every
//! write has a number of its own, and the object that is found tells which of them it was.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use object_store::path::Path;
use object_store::{
    Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutPayload, UpdateVersion,
};
use serde::{Deserialize, Serialize};
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Renewals of a holder, and reads of a contender, in one lease time.
const CALLS_PER_LEASE: u32 = 5;
/// The holder stops acting before a contender may take over, by the lease time divided by this.
const MARGIN: u32 = 5;
/// How much of the lease time one call may take while nothing is held.
///
/// Half of what a lease is held for: a renewal that is begun at the answer of the one before it is
/// answered two calls after that was begun, so no lease can be kept in a store that is slower.
const ATTEMPT: f64 = 0.4;

/// Why the lease could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// The object could not be read or written.
    #[error("could not use the lease {path}")]
    Store {
        /// Where it is stored.
        path: Path,
        /// Why not.
        #[source]
        source: StoreError,
    },
    /// The object is not a lease: something else is kept there, or a later version wrote it.
    #[error("{path} is not a lease")]
    Unreadable {
        /// Where it is stored.
        path: Path,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// The content of the object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// For people; two holders may call themselves the same.
    holder: String,
    /// Which of the holders wrote it.
    id: Uuid,
    /// Grows with every change of holder.
    fence: u64,
    /// Which of this holder's writes it is. Each has a number of its own, and so an ETag.
    renewal: u64,
    /// Whether the holder has released it.
    released: bool,
}

/// The right to act on a fleet, for as long as [`Lease::held`] says.
pub struct Lease {
    contender: Contender,
    fence: u64,
    state: Mutex<State>,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("path", &self.contender.path)
            .field("holder", &self.contender.holder)
            .field("fence", &self.fence)
            .finish_non_exhaustive()
    }
}

impl Lease {
    /// Waits until this process is the one that acts; `None` when `shutdown` came first.
    ///
    /// As long as another holds the lease this reads it five times in each lease `time`, and takes
    /// over once the other has not renewed for all of it. A store that fails meanwhile is asked
    /// again; it delays the takeover and never hastens it.
    ///
    /// # Errors
    /// When the first read fails, what is kept there is not a lease, or the store has no conditional
    /// writes.
    pub async fn acquire(
        store: Arc<dyn ObjectStore>,
        path: Path,
        holder: &str,
        time: Duration,
        shutdown: &CancellationToken,
    ) -> Result<Option<Arc<Self>>, LeaseError> {
        let contender = Contender {
            store,
            path,
            holder: holder.to_owned(),
            time,
            id: Uuid::now_v7(),
        };
        contender.read(contender.attempt()).await?;
        contender.contend(None, shutdown).await
    }

    /// Waits until this process acts again; `None` when `shutdown` came first.
    ///
    /// This lease is lost. Where nobody has taken it up meanwhile there is nobody to wait for, since
    /// its holder was this process.
    ///
    /// # Errors
    /// When what is kept there is not a lease any more. A store that fails is asked again.
    pub async fn regain(
        &self,
        shutdown: &CancellationToken,
    ) -> Result<Option<Arc<Self>>, LeaseError> {
        self.state().lost = true;
        let contender = Contender {
            id: Uuid::now_v7(),
            ..self.contender.clone()
        };
        contender.contend(Some(self.contender.id), shutdown).await
    }

    /// Whether this holder may still act.
    #[must_use]
    pub fn held(&self) -> bool {
        let state = self.state();
        !state.lost && Instant::now() < state.until
    }

    /// The fencing number: greater than that of every holder before.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.fence
    }

    /// Renews the lease until it is lost, or `shutdown`; it is not held any more when it is lost.
    ///
    /// A renewal is under way for as long as the lease is held, and is joined by another when it
    /// takes longer than usual: whichever is answered in time keeps the lease.
    pub async fn keep(&self, shutdown: &CancellationToken) {
        let time = self.contender.time;
        let mut renewals = FuturesUnordered::new();
        let mut due = self.state().begun(time) + time / CALLS_PER_LEASE;
        while self.held() {
            let until = self.state().until;
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep_until(until.into()) => {}
                () = sleep_until(due.into()) => {
                    renewals.push(self.renew(false, time));
                    due = Instant::now() + time / CALLS_PER_LEASE;
                }
                Some(renewed) = renewals.next() => match renewed {
                    Ok(()) => {
                        // The others ask for what has been replaced.
                        renewals.clear();
                        due = self.state().begun(time) + time / CALLS_PER_LEASE;
                    }
                    Err(error) => tracing::warn!(
                        error = format!("{:#}", anyhow::Error::new(error)),
                        "the lease was not renewed"
                    ),
                }
            }
        }
        self.state().lost = true;
        tracing::error!(
            holder = self.contender.holder,
            "the lease is lost: this controller stops"
        );
    }

    /// Releases the lease, so that a successor need not wait. It is not held any more, even if the
    /// store could not be told.
    ///
    /// # Errors
    /// When the store could not be told: a successor waits for the lease time.
    pub async fn release(&self) -> Result<(), LeaseError> {
        // A renewal that was given up may come in between, and the next attempt knows of it.
        while self.held() {
            let told = self.renew(true, self.contender.attempt()).await;
            let mut state = self.state();
            state.lost |= state.released || told.is_err();
            told?;
        }
        Ok(())
    }

    /// Writes the lease anew, and takes in what is there if that is not what was expected.
    async fn renew(&self, released: bool, at_most: Duration) -> Result<(), LeaseError> {
        let Contender { path, id, .. } = &self.contender;
        let (version, renewal) = {
            let mut state = self.state();
            (state.version.clone(), state.writes.begin())
        };
        let record = Record {
            released,
            ..self.contender.record(self.fence, renewal)
        };
        let mode = PutMode::Update(version);
        let now = match self.contender.write(&record, mode, at_most).await {
            Ok(version) => Some((record, version)),
            // Either an earlier write whose answer was lost, or a successor.
            Err(StoreError::Precondition { .. } | StoreError::NotFound { .. }) => {
                self.contender.read(at_most).await?
            }
            Err(source) => {
                let path = path.clone();
                return Err(LeaseError::Store { path, source });
            }
        };
        let mut state = self.state();
        match now {
            Some((record, version)) if record.id == *id => {
                state.found(&record, version, self.contender.time);
            }
            _ => state.lost = true,
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no code panics while it holds the lease")
    }
}

/// What the holder knows of its lease.
struct State {
    version: UpdateVersion,
    released: bool,
    /// When this holder stops acting by itself.
    until: Instant,
    writes: Writes,
    lost: bool,
}

impl State {
    /// Takes in the object as it was found, written by this holder.
    fn found(&mut self, record: &Record, version: UpdateVersion, time: Duration) {
        self.version = version;
        self.released = record.released;
        if let Some(begun) = self.writes.end(record.renewal) {
            self.until = held_until(begun, time);
        }
    }

    /// Returns when the write was begun that the lease is held by.
    fn begun(&self, time: Duration) -> Instant {
        self.until - held_for(time)
    }
}

fn held_for(time: Duration) -> Duration {
    time - time / MARGIN
}

/// `begun`: before the write was sent.
fn held_until(begun: Instant, time: Duration) -> Instant {
    begun + held_for(time)
}

/// The writes of one holder that are not known to have been replaced, and when each was begun.
#[derive(Default)]
struct Writes {
    last: u64,
    begun: BTreeMap<u64, Instant>,
}

impl Writes {
    /// Call it before the write is sent.
    fn begin(&mut self) -> u64 {
        self.last += 1;
        self.begun.insert(self.last, Instant::now());
        self.last
    }

    /// The write has happened, and no earlier one can any more; `None` when that was known.
    fn end(&mut self, number: u64) -> Option<Instant> {
        let begun = self.begun.remove(&number);
        self.begun = self.begun.split_off(&number);
        begun
    }
}

/// A process that holds the lease or waits for it.
#[derive(Clone)]
struct Contender {
    store: Arc<dyn ObjectStore>,
    path: Path,
    holder: String,
    time: Duration,
    id: Uuid,
}

impl Contender {
    /// How long a call may take while nothing is held.
    fn attempt(&self) -> Duration {
        self.time.mul_f64(ATTEMPT)
    }

    /// Waits until the lease is this contender's; `own` is the id that this process had before.
    async fn contend(
        self,
        own: Option<Uuid>,
        shutdown: &CancellationToken,
    ) -> Result<Option<Arc<Lease>>, LeaseError> {
        let mut writes = Writes::default();
        let mut unchanged: Option<(UpdateVersion, Instant)> = None;
        let mut standing_by = false;
        loop {
            let next = match self.read(self.attempt()).await {
                Ok(None) => Some((1, PutMode::Create)),
                Ok(Some((record, version))) if record.id == self.id => {
                    // A write of ours whose answer was lost, or that was repeated on its way.
                    if let Some(begun) = writes.end(record.renewal) {
                        return Ok(Some(self.acquired(record.fence, begun, version, writes)));
                    }
                    None
                }
                Ok(Some((record, version))) => {
                    let since = match &unchanged {
                        Some((seen, since)) if *seen == version => *since,
                        _ => Instant::now(),
                    };
                    unchanged = Some((version.clone(), since));
                    let free = record.released || own == Some(record.id);
                    if free || since.elapsed() >= self.time {
                        Some((record.fence + 1, PutMode::Update(version)))
                    } else {
                        if !standing_by {
                            tracing::info!(
                                holder = record.holder,
                                "another controller acts: standing by"
                            );
                        }
                        standing_by = true;
                        None
                    }
                }
                Err(error @ LeaseError::Unreadable { .. }) => return Err(error),
                Err(error) => {
                    tracing::warn!(
                        error = format!("{:#}", anyhow::Error::new(error)),
                        "the lease could not be read"
                    );
                    None
                }
            };
            if let Some((fence, mode)) = next {
                let number = writes.begin();
                let record = self.record(fence, number);
                match self.write(&record, mode, self.attempt()).await {
                    Ok(version) => {
                        if let Some(begun) = writes.end(number) {
                            return Ok(Some(self.acquired(fence, begun, version, writes)));
                        }
                    }
                    // Another was first, or this write itself: the next read tells.
                    Err(StoreError::Precondition { .. } | StoreError::AlreadyExists { .. }) => {}
                    Err(
                        source @ (StoreError::NotImplemented { .. }
                        | StoreError::NotSupported { .. }),
                    ) => {
                        let path = self.path;
                        return Err(LeaseError::Store { path, source });
                    }
                    Err(error) => {
                        tracing::warn!(
                            error = format!("{:#}", anyhow::Error::new(error)),
                            "the lease could not be taken"
                        );
                    }
                }
            }
            if timeout(self.time / CALLS_PER_LEASE, shutdown.cancelled())
                .await
                .is_ok()
            {
                return Ok(None);
            }
        }
    }

    fn acquired(
        self,
        fence: u64,
        begun: Instant,
        version: UpdateVersion,
        writes: Writes,
    ) -> Arc<Lease> {
        tracing::info!(holder = self.holder, fence, "this controller acts");
        let state = State {
            version,
            released: false,
            until: held_until(begun, self.time),
            writes,
            lost: false,
        };
        Arc::new(Lease {
            contender: self,
            fence,
            state: Mutex::new(state),
        })
    }

    fn record(&self, fence: u64, renewal: u64) -> Record {
        Record {
            holder: self.holder.clone(),
            id: self.id,
            fence,
            renewal,
            released: false,
        }
    }

    async fn read(&self, at_most: Duration) -> Result<Option<(Record, UpdateVersion)>, LeaseError> {
        let read = async {
            let found = self.store.get(&self.path).await?;
            let version = UpdateVersion {
                e_tag: found.meta.e_tag.clone(),
                version: found.meta.version.clone(),
            };
            Ok((found.bytes().await?, version))
        };
        let path = || self.path.clone();
        let (bytes, version) = match in_time(at_most, read).await {
            Ok(found) => found,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(source) => {
                return Err(LeaseError::Store {
                    path: path(),
                    source,
                });
            }
        };
        let record = serde_json::from_slice(&bytes).map_err(|source| LeaseError::Unreadable {
            path: path(),
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
        let put = self.store.put_opts(&self.path, body, mode.into());
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

#[cfg(test)]
mod tests;
