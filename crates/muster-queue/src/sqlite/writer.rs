//! The thread that writes: one for each [`SqliteQueues`](crate::SqliteQueues).
//!
//! While a transaction runs, further jobs gather and become the next transaction together, so
//! throughput grows with load and the async runtime never waits for the disk.
//!
//! A file that is locked by others is locked for all jobs: those that wait are told so together.
//!
//! SQLite begins its log anew only when no reader is in the midst of it, which readers that overlap
//! without a pause may keep from ever happening. A log that has grown is therefore emptied here. So is
//! any log some seconds after it was written to, and at the end: it still has what was deleted since.
//!
//! Invariant: a caller is told of success, and listeners are notified, only after the commit.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, TransactionBehavior};
use tokio::{
    runtime::Runtime,
    sync::{mpsc, oneshot},
    time::timeout_at,
};

use super::{
    failure::is_busy,
    notification::Notifier,
    schema,
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

/// Bytes of the log beyond which it is emptied. SQLite's own checkpoints come after 4 MB.
const MAX_LOG_BYTES: u64 = 16 << 20;

/// How long readers are waited for to empty the log: all that write wait meanwhile.
const LOG_WAIT: Duration = Duration::from_millis(100);

/// How long the log is left alone after readers kept it from being emptied.
const LOG_PAUSE: Duration = Duration::from_secs(1);

/// How long after a write the log is emptied.
const LOG_KEPT: Duration = Duration::from_secs(5);

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
        let timer = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        thread::Builder::new()
            .name("muster-queue".to_owned())
            .spawn(move || run(db, inbox, &timer))?;
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

fn run(mut db: Connection, mut inbox: mpsc::Receiver<Box<dyn Job>>, timer: &Runtime) {
    let mut swept_at = Instant::now();
    let mut log = Log::of(&db);
    loop {
        if log.empty_at.is_some_and(|at| at <= Instant::now()) {
            log.empty(&mut db);
        }
        let first = match log.empty_at {
            None => inbox.blocking_recv(),
            Some(at) => match timer.block_on(async { timeout_at(at.into(), inbox.recv()).await }) {
                Ok(first) => first,
                Err(_) => continue,
            },
        };
        let Some(first) = first else { break };
        let mut jobs = vec![first];
        while jobs.len() < MAX_JOBS
            && let Ok(job) = inbox.try_recv()
        {
            jobs.push(job);
        }
        let wrote = match serve(&mut db, jobs) {
            Ok(wrote) => wrote,
            Err(error) => {
                // Those that came meanwhile would find the same, each batch after as long again.
                while let Ok(job) = inbox.try_recv() {
                    job.settle(Some(error.clone()));
                }
                continue;
            }
        };
        if wrote {
            log.empty_at
                .get_or_insert_with(|| Instant::now() + LOG_KEPT);
            log.bound(&mut db);
        }
        if wrote && swept_at.elapsed() >= SWEEP_INTERVAL {
            swept_at = Instant::now();
            if let Err(error) = store::sweep(&db, now(), SWEEP_LIMIT) {
                tracing::warn!(%error, "messages past their retention cannot be deleted");
            }
        }
    }
    if log.empty_at.is_some() {
        log.empty(&mut db);
    }
}

/// The write-ahead log beside the file.
struct Log {
    path: PathBuf,
    leave_until: Instant,
    /// When it is emptied at the latest; `None` while it is empty.
    empty_at: Option<Instant>,
}

impl Log {
    fn of(db: &Connection) -> Self {
        Self {
            path: format!("{}-wal", db.path().unwrap_or_default()).into(),
            leave_until: Instant::now(),
            empty_at: None,
        }
    }

    /// Empties the log if it is large.
    fn bound(&mut self, db: &mut Connection) {
        if self.bytes() > MAX_LOG_BYTES && Instant::now() >= self.leave_until {
            self.empty(db);
        }
    }

    fn bytes(&self) -> u64 {
        self.path.metadata().map_or(0, |log| log.len())
    }

    /// Empties the log, or leaves it for a while where readers are in the midst of it.
    fn empty(&mut self, db: &mut Connection) {
        let bytes = self.bytes();
        self.empty_at = None;
        match schema::empty_log(db, LOG_WAIT) {
            Ok(true) => return,
            Ok(false) => {
                if bytes > 4 * MAX_LOG_BYTES {
                    tracing::warn!(bytes, "readers keep the queue's log from being emptied");
                }
            }
            Err(error) => {
                tracing::warn!(%error, bytes, "the queue's log can not be emptied");
            }
        }
        self.leave_until = Instant::now() + LOG_PAUSE;
        self.empty_at = Some(self.leave_until);
    }
}

/// Does the jobs, and says whether there was anything to write; fails where the file is locked.
fn serve(db: &mut Connection, jobs: Vec<Box<dyn Job>>) -> Result<bool, QueueError> {
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
    while !writes.is_empty() {
        match commit(db, &mut writes) {
            Ok(()) => {
                conclude(writes);
                return Ok(true);
            }
            Err((Some(to_blame), error)) if !is_busy(&error) => {
                writes.remove(to_blame).settle(Some(error.into()));
            }
            Err((_, error)) => {
                let locked = is_busy(&error);
                let error = QueueError::from(error);
                for job in writes {
                    job.settle(Some(error.clone()));
                }
                return if locked { Err(error) } else { Ok(true) };
            }
        }
    }
    Ok(false)
}

/// Does all jobs in one transaction, or none; a failure comes with the job that is to blame, if one is.
fn commit(
    db: &mut Connection,
    jobs: &mut [Box<dyn Job>],
) -> Result<(), (Option<usize>, rusqlite::Error)> {
    let of_all = |error| (None, error);
    let tx = db
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(of_all)?;
    for (at, job) in jobs.iter_mut().enumerate() {
        job.write(&tx).map_err(|error| (Some(at), error))?;
    }
    tx.commit().map_err(of_all)
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::{task::JoinSet, time::timeout};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);
    const BUSY: Duration = Duration::from_millis(500);

    fn open(folder: &Path) -> (Writer, Connection) {
        let path = folder.join("queues.db");
        let db = schema::open_writer(&path).expect("make the file");
        db.busy_timeout(BUSY).expect("wait for less long");
        let other = Connection::open(&path).expect("open the file again");
        (Writer::start(db).expect("start the thread"), other)
    }

    fn insert(db: &Connection) -> rusqlite::Result<Done<()>> {
        let sql = "INSERT INTO queues (name, visibility_ms, retention_ms) VALUES (?1, 1, 1)";
        let name = format!("{:x}", fastrand::u128(..));
        db.execute(sql, [name]).map(|_| Done::without_effects(()))
    }

    #[tokio::test]
    async fn a_file_that_is_locked_is_waited_for_once_by_all_together() {
        let folder = tempfile::tempdir().expect("make a folder");
        let (writer, other) = open(folder.path());
        other.execute_batch("BEGIN IMMEDIATE").expect("lock");
        let begun = Instant::now();
        // More than one transaction takes, and fewer than may wait.
        let mut calls = JoinSet::new();
        for _ in 0..2 * MAX_JOBS {
            let writer = writer.clone();
            calls.spawn(async move { writer.write(insert).await });
        }
        let outcomes = timeout(LIMIT, calls.join_all()).await.expect("settled");
        for outcome in outcomes {
            assert!(
                matches!(outcome, Err(QueueError::Unavailable { .. })),
                "{outcome:?}"
            );
        }
        assert!(begun.elapsed() < 4 * BUSY, "{:?}", begun.elapsed());
        other.execute_batch("ROLLBACK").expect("unlock");
        writer.write(insert).await.expect("go on");
    }

    #[tokio::test]
    async fn only_the_job_that_is_to_blame_fails() {
        let folder = tempfile::tempdir().expect("make a folder");
        let (writer, other) = open(folder.path());
        other.execute_batch("BEGIN IMMEDIATE").expect("lock");
        let bad = |db: &Connection| {
            db.execute("INSERT INTO nowhere VALUES (1)", [])
                .map(|_| Done::without_effects(()))
        };
        let unlock = async {
            tokio::time::sleep(BUSY / 5).await;
            other.execute_batch("ROLLBACK").expect("unlock");
        };
        // The first waits for the lock, and the others become one transaction.
        let (first, second, third, fourth, ()) = tokio::join!(
            writer.write(insert),
            writer.write(insert),
            writer.write(bad),
            writer.write(insert),
            unlock
        );
        for good in [first, second, fourth] {
            good.expect("written");
        }
        assert!(
            matches!(third, Err(QueueError::Refused { .. })),
            "{third:?}"
        );
    }

    /// Neither while it is idle nor at its end.
    #[tokio::test]
    async fn nothing_that_was_deleted_stays_in_the_log() {
        let folder = tempfile::tempdir().expect("make a folder");
        let (writer, _other) = open(folder.path());
        let insert = |db: &Connection| {
            let sql = "INSERT INTO messages (queue, visible_at, sent_at, receive_count, body)
                       VALUES (1, 1, 1, 0, ?1)";
            db.execute(sql, ["Anna Secret"])
                .map(|_| Done::without_effects(()))
        };
        let delete = |db: &Connection| {
            db.execute("DELETE FROM messages", [])
                .map(|_| Done::without_effects(()))
        };
        let log = folder.path().join("queues.db-wal");
        let holds = || {
            // The last to close the file removes it.
            let bytes = std::fs::read(&log).unwrap_or_default();
            bytes.windows(11).any(|part| part == b"Anna Secret")
        };
        let gone = async || {
            while holds() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        writer.write(insert).await.expect("write");
        writer.write(delete).await.expect("write");
        assert!(holds());
        timeout(LIMIT, gone()).await.expect("emptied while idle");
        writer.write(insert).await.expect("write");
        writer.write(delete).await.expect("write");
        assert!(holds());
        drop(writer);
        timeout(LOG_KEPT / 2, gone())
            .await
            .expect("emptied at the end");
    }

    /// Two readers of which one is always in the midst of the log.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn readers_that_overlap_do_not_let_the_log_grow() {
        let folder = tempfile::tempdir().expect("make a folder");
        let (writer, other) = open(folder.path());
        let done = Arc::new(AtomicBool::new(false));
        let path = folder.path().join("queues.db");
        let (turn, turns) = std::sync::mpsc::channel();
        turn.send(()).expect("begin");
        let reader = {
            let done = Arc::clone(&done);
            thread::spawn(move || {
                let dbs = [0, 1].map(|_| Connection::open(&path).expect("open"));
                let look = |db: &Connection| {
                    db.query_row("SELECT count(*) FROM queues", [], |row| {
                        row.get::<_, i64>(0)
                    })
                };
                turns.recv().expect("begin");
                dbs[0].execute_batch("BEGIN").expect("begin");
                look(&dbs[0]).expect("read");
                while !done.load(Ordering::Relaxed) {
                    for (now, next) in [(0, 1), (1, 0)] {
                        dbs[next].execute_batch("BEGIN").expect("begin");
                        look(&dbs[next]).expect("read");
                        thread::sleep(Duration::from_millis(2));
                        dbs[now].execute_batch("COMMIT").expect("end");
                    }
                }
            })
        };
        let write = |db: &Connection| {
            let sql = "INSERT INTO messages (queue, visible_at, sent_at, receive_count, body)
                       VALUES (1, 1, 1, 0, ?1)";
            db.execute(sql, ["x".repeat(1 << 20)])?;
            db.execute("DELETE FROM messages", [])
                .map(|_| Done::without_effects(()))
        };
        let log = folder.path().join("queues.db-wal");
        let mut largest = 0;
        for _ in 0..150 {
            writer.write(write).await.expect("write");
            largest = largest.max(log.metadata().expect("look at the log").len());
        }
        done.store(true, Ordering::Relaxed);
        reader.join().expect("the readers end");
        drop(other);
        assert!(largest < 3 * MAX_LOG_BYTES, "{largest}");
    }
}
