//! The thread that writes: one for each [`SqliteQueues`](crate::SqliteQueues).
//!
//! While a transaction runs, further jobs gather and become the next transaction together, so
//! throughput grows with load and the async runtime never waits for the disk.
//!
//! Invariant: a caller is told of success, and listeners are notified, only after the commit.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::{
    notification::Notifier,
    store::{self, Millis},
};
use crate::error::QueueError;

/// Jobs that wait for the thread; with more, callers wait.
const QUEUED_JOBS: usize = 1024;

/// Jobs in one transaction, which other processes wait for.
const MAX_JOBS: usize = 128;

/// How often messages past their retention are deleted, while anything is written at all.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// Messages deleted in one sweep.
const SWEEP_LIMIT: u32 = 500;

/// Tells the wall clock's time.
pub(super) fn now() -> Millis {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, store::millis)
}

/// What happens after the commit.
#[derive(Debug)]
pub(super) enum Effect {
    /// Wakes those who wait on a queue.
    Notify(Arc<Notifier>),
    /// Wakes those who wait on a queue that is gone.
    Remove(Arc<Notifier>),
    /// Sets a flag.
    Confirm(Arc<AtomicBool>),
}

/// What a job has done, provided that it is committed.
#[derive(Debug)]
pub(super) struct Done<T> {
    pub(super) value: T,
    pub(super) effects: Vec<Effect>,
}

impl<T> Done<T> {
    pub(super) fn without_effects(value: T) -> Self {
        Self {
            value,
            effects: Vec::new(),
        }
    }
}

/// Work for the thread. It may run again when its transaction fails.
trait Job: Send {
    /// Says whether nobody waits for the job any more.
    fn is_abandoned(&self) -> bool;
    /// Reads first, and says whether that was all: then there is no transaction.
    fn read(&mut self, db: &Connection) -> rusqlite::Result<bool>;
    /// Writes within a transaction.
    fn write(&mut self, db: &Connection) -> rusqlite::Result<()>;
    /// Takes what is to happen after the commit.
    fn effects(&mut self) -> Vec<Effect>;
    /// Answers the caller.
    fn settle(self: Box<Self>, failure: Option<QueueError>);
}

type Read<T> = Box<dyn FnMut(&Connection) -> rusqlite::Result<Option<T>> + Send>;

struct Call<T, W> {
    read: Option<Read<T>>,
    write: W,
    done: Option<Done<T>>,
    reply: Option<oneshot::Sender<Result<T, QueueError>>>,
}

impl<T, W> Job for Call<T, W>
where
    T: Send,
    W: FnMut(&Connection) -> rusqlite::Result<Done<T>> + Send,
{
    fn is_abandoned(&self) -> bool {
        self.reply.as_ref().is_some_and(oneshot::Sender::is_closed)
    }

    fn read(&mut self, db: &Connection) -> rusqlite::Result<bool> {
        if let Some(read) = &mut self.read {
            self.done = read(db)?.map(Done::without_effects);
        }
        Ok(self.done.is_some())
    }

    fn write(&mut self, db: &Connection) -> rusqlite::Result<()> {
        self.done = Some((self.write)(db)?);
        Ok(())
    }

    fn effects(&mut self) -> Vec<Effect> {
        self.done
            .as_mut()
            .map(|done| std::mem::take(&mut done.effects))
            .unwrap_or_default()
    }

    fn settle(self: Box<Self>, failure: Option<QueueError>) {
        let Some(reply) = self.reply else { return };
        let result = match (failure, self.done) {
            (None, Some(done)) => Ok(done.value),
            (Some(failure), _) => Err(failure),
            (None, None) => Err(stopped()),
        };
        // A caller that left does not want the answer; deliveries hand themselves back.
        drop(reply.send(result));
    }
}

fn stopped() -> QueueError {
    QueueError::Unavailable {
        source: "the queue's thread has stopped".into(),
    }
}

/// The way to the thread, which ends when the last of these is dropped.
#[derive(Debug, Clone)]
pub(super) struct Writer(mpsc::Sender<Box<dyn Job>>);

/// A [`Writer`] that keeps no thread alive.
#[derive(Debug, Clone)]
pub(super) struct WeakWriter(mpsc::WeakSender<Box<dyn Job>>);

impl Writer {
    pub(super) fn start(db: Connection) -> std::io::Result<Self> {
        let (jobs, inbox) = mpsc::channel(QUEUED_JOBS);
        thread::Builder::new()
            .name("muster-queue".to_owned())
            .spawn(move || run(db, inbox))?;
        Ok(Self(jobs))
    }

    pub(super) fn weak(&self) -> WeakWriter {
        WeakWriter(self.0.downgrade())
    }

    /// Writes and returns what `write` returned, once that is committed.
    pub(super) async fn write<T, W>(&self, write: W) -> Result<T, QueueError>
    where
        T: Send + 'static,
        W: FnMut(&Connection) -> rusqlite::Result<Done<T>> + Send + 'static,
    {
        self.call(None, write).await
    }

    /// Reads first, and writes only if `read` returned nothing.
    pub(super) async fn read_or_write<T, L, W>(&self, read: L, write: W) -> Result<T, QueueError>
    where
        T: Send + 'static,
        L: FnMut(&Connection) -> rusqlite::Result<Option<T>> + Send + 'static,
        W: FnMut(&Connection) -> rusqlite::Result<Done<T>> + Send + 'static,
    {
        self.call(Some(Box::new(read)), write).await
    }

    async fn call<T, W>(&self, read: Option<Read<T>>, write: W) -> Result<T, QueueError>
    where
        T: Send + 'static,
        W: FnMut(&Connection) -> rusqlite::Result<Done<T>> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let call = Call {
            read,
            write,
            done: None,
            reply: Some(reply),
        };
        self.0.send(Box::new(call)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

impl WeakWriter {
    /// Writes later, and tells nobody. Does nothing if the thread is gone or has much to do.
    pub(super) fn post<W>(&self, write: W)
    where
        W: FnMut(&Connection) -> rusqlite::Result<Done<()>> + Send + 'static,
    {
        if let Some(jobs) = self.0.upgrade() {
            let call = Call {
                read: None,
                write,
                done: None,
                reply: None,
            };
            drop(jobs.try_send(Box::new(call)));
        }
    }
}

fn run(mut db: Connection, mut inbox: mpsc::Receiver<Box<dyn Job>>) {
    let mut swept_at = Instant::now();
    while let Some(first) = inbox.blocking_recv() {
        let mut jobs = vec![first];
        while jobs.len() < MAX_JOBS
            && let Ok(job) = inbox.try_recv()
        {
            jobs.push(job);
        }
        let wrote = serve(&mut db, jobs);
        if wrote && swept_at.elapsed() >= SWEEP_INTERVAL {
            swept_at = Instant::now();
            if let Err(error) = store::sweep(&db, now(), SWEEP_LIMIT) {
                tracing::warn!(%error, "messages past their retention cannot be deleted");
            }
        }
    }
}

/// Does the jobs, and says whether there was anything to write.
fn serve(db: &mut Connection, jobs: Vec<Box<dyn Job>>) -> bool {
    let mut writes = Vec::with_capacity(jobs.len());
    for mut job in jobs {
        if job.is_abandoned() {
            continue;
        }
        match job.read(db) {
            Ok(true) => job.settle(None),
            Ok(false) => writes.push(job),
            Err(error) => job.settle(Some(error.into())),
        }
    }
    if writes.is_empty() {
        return false;
    }
    if commit(db, &mut writes).is_ok() {
        conclude(writes);
        return true;
    }
    // One of them is to blame: each gets a transaction and an answer of its own.
    for job in writes {
        let mut alone = vec![job];
        match commit(db, &mut alone) {
            Ok(()) => conclude(alone),
            Err(error) => {
                let error = QueueError::from(error);
                alone
                    .into_iter()
                    .zip([error])
                    .for_each(|(job, error)| job.settle(Some(error)));
            }
        }
    }
    true
}

fn commit(db: &mut Connection, jobs: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for job in jobs {
        job.write(&tx)?;
    }
    tx.commit()
}

/// Notifies first, so that receivers elsewhere are on their way, and then answers.
fn conclude(mut jobs: Vec<Box<dyn Job>>) {
    let mut notified = Vec::new();
    for effect in jobs.iter_mut().flat_map(|job| job.effects()) {
        match effect {
            Effect::Notify(notifier) if notified.contains(&notifier.queue) => {}
            Effect::Notify(notifier) => {
                notifier.notify();
                notified.push(notifier.queue);
            }
            Effect::Remove(notifier) => notifier.remove(),
            Effect::Confirm(committed) => committed.store(true, Ordering::Release),
        }
    }
    for job in jobs {
        job.settle(None);
    }
}
