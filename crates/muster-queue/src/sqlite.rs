//! Queues in one SQLite file, shared by every process of one machine.
//!
//! The file is in WAL mode with `synchronous = NORMAL`: what was acknowledged survives the kill of
//! any process at any point; a power failure leaves the file consistent, but may lose the last
//! transactions before it. The file must be on a local file system, with its `-wal`, `-shm` and
//! `-bells` (the folder of notification files) beside it. Times are the machine's wall clock: when
//! that is set back, messages that were received come back later by as much, and at once where that is
//! more than a message may be hidden (12 hours).
//!
//! Invariant: the async runtime never waits for the disk. Writes go through one thread of each
//! [`SqliteQueues`], reads through a connection of their own on the blocking pool.

mod failure;
#[cfg(test)]
mod model;
mod notification;
mod schema;
mod store;
mod writer;

use std::{
    path::{Path, PathBuf, absolute},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::time::{Instant, timeout_at};

use self::{
    notification::{Listener, Notifier, Notifiers},
    store::{DeliveryId, Millis, QueueId, millis},
    writer::{Done, Effect, WeakWriter, Writer, now},
};
use crate::{
    error::{BatchResult, QueueError},
    limits::{
        MAX_BATCH, MAX_BODY_BYTES, MAX_WAIT, check_entries, check_messages, check_name,
        check_options, check_visibility,
    },
    message::{MessageId, Outgoing, Receipt, Received},
    queue::{Counts, Queue, QueueOptions, Queues},
};

/// Messages that one transaction of a purge deletes, so that others get their turn.
const PURGE_STEP: u32 = 2_000;

/// The queues of one SQLite file. Cheap to clone.
///
/// The first handle starts the writing thread; it ends when the last clone and the last
/// [`SqliteQueue`] are dropped.
#[derive(Debug, Clone)]
pub struct SqliteQueues(Arc<Database>);

#[derive(Debug)]
struct Database {
    path: PathBuf,
    writer: Writer,
    reader: Arc<Mutex<Connection>>,
    notifiers: Arc<Notifiers>,
}

impl Database {
    async fn read<T, R>(&self, read: R) -> Result<T, QueueError>
    where
        T: Send + 'static,
        R: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let reader = Arc::clone(&self.reader);
        let work = move || read(&reader.lock().unwrap_or_else(PoisonError::into_inner));
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => Ok(result?),
            Err(error) => Err(QueueError::Unavailable {
                source: error.into(),
            }),
        }
    }
}

impl SqliteQueues {
    /// Opens the file and creates it if absent. Blocks for some milliseconds.
    pub fn open(path: &Path) -> Result<Self, QueueError> {
        let refused = |source: std::io::Error| QueueError::Refused {
            source: source.into(),
        };
        let path = absolute(path).map_err(refused)?;
        let writer = schema::open_writer(&path)?;
        let reader = schema::open_reader(&path)?;
        let notifiers = Arc::new(Notifiers::open(&path).map_err(refused)?);
        // The files are listed before the queues: one without a queue is of a queue that is gone.
        let with_files = notifiers.list().map_err(refused)?;
        let queues = store::ids(&reader)?;
        with_files
            .into_iter()
            .filter(|queue| !queues.contains(queue))
            .for_each(|queue| notifiers.remove_file(queue));
        let writer = Writer::start(writer).map_err(refused)?;
        Ok(Self(Arc::new(Database {
            path,
            writer,
            reader: Arc::new(Mutex::new(reader)),
            notifiers,
        })))
    }

    /// Returns the file's absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Opens a queue and makes it if absent; an existing one takes these options.
    pub async fn queue(
        &self,
        name: &str,
        options: &QueueOptions,
    ) -> Result<SqliteQueue, QueueError> {
        check_options(name, options)?;
        let made = (name.to_owned(), options.clone());
        let id = self
            .0
            .writer
            .write(move |db| Ok(Done::without_effects(store::create(db, &made.0, &made.1)?)));
        Ok(self.handle(name, id.await?))
    }

    /// Opens a queue that must exist.
    pub async fn existing(&self, name: &str) -> Result<SqliteQueue, QueueError> {
        check_name(name)?;
        let wanted = name.to_owned();
        match self.0.read(move |db| store::find(db, &wanted)).await? {
            Some(id) => Ok(self.handle(name, id)),
            None => Err(QueueError::NotFound {
                queue: name.to_owned(),
                source: None,
            }),
        }
    }

    /// Lists the names of the queues that begin with `prefix`, sorted.
    pub async fn names(&self, prefix: &str) -> Result<Vec<String>, QueueError> {
        let prefix = prefix.to_owned();
        self.0.read(move |db| store::names(db, &prefix)).await
    }

    fn handle(&self, name: &str, id: QueueId) -> SqliteQueue {
        SqliteQueue {
            name: name.to_owned(),
            id,
            notifier: self.0.notifiers.get(id),
            database: Arc::clone(&self.0),
            seen_notifications: AtomicU64::new(0),
            seen_at: AtomicI64::new(now() - 1),
        }
    }
}

#[async_trait]
impl Queues for SqliteQueues {
    async fn queue(
        &self,
        name: &str,
        options: &QueueOptions,
    ) -> Result<Arc<dyn Queue>, QueueError> {
        Ok(Arc::new(self.queue(name, options).await?))
    }

    async fn existing(&self, name: &str) -> Result<Arc<dyn Queue>, QueueError> {
        Ok(Arc::new(self.existing(name).await?))
    }

    async fn names(&self, prefix: &str) -> Result<Vec<String>, QueueError> {
        self.names(prefix).await
    }

    async fn erase_deleted(&self) -> Result<(), QueueError> {
        let erase = |db: &Connection| schema::truncate_log(db).map(Some);
        let nothing = |_: &Connection| Ok(Done::without_effects(()));
        self.0.writer.read_or_write(erase, nothing).await
    }
}

/// One queue of a SQLite file.
///
/// The first [`Queue::wait_for_send`] of a handle may miss a message that another process sent
/// and a third received before the call; later ones miss nothing.
///
/// A handle stands for the queue it was made for: once that is removed it says
/// [`QueueError::NotFound`], even if a queue of the same name is made again.
#[derive(Debug)]
pub struct SqliteQueue {
    name: String,
    id: QueueId,
    notifier: Arc<Notifier>,
    database: Arc<Database>,
    /// How many notifications there were when `wait_for_send` last returned.
    seen_notifications: AtomicU64,
    /// When `wait_for_send` last looked at the messages and returned.
    seen_at: AtomicI64,
}

/// Messages on their way to the caller. Whatever is not taken is handed back.
#[derive(Debug)]
struct Delivery {
    messages: Vec<Received>,
    /// Set once the delivery is committed: before, it may be rolled back and its receipts given to
    /// somebody else.
    committed: Arc<AtomicBool>,
    notifier: Arc<Notifier>,
    writer: WeakWriter,
}

impl Delivery {
    fn take(mut self) -> Vec<Received> {
        std::mem::take(&mut self.messages)
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if !self.committed.load(Ordering::Acquire) {
            return;
        }
        let deliveries: Vec<_> = self
            .messages
            .iter()
            .map(|message| DeliveryId::parse(&message.receipt))
            .collect();
        if deliveries.is_empty() {
            return;
        }
        let notifier = Arc::clone(&self.notifier);
        self.writer.post(move |db| {
            store::undo_receive(db, notifier.queue, &deliveries, now())?;
            Ok(Done {
                value: (),
                effects: vec![Effect::Notify(Arc::clone(&notifier))],
            })
        });
    }
}

enum Attempt {
    Missing,
    Empty { next_visible_at: Option<Millis> },
    Delivered(Delivery),
}

impl SqliteQueue {
    fn found<T>(&self, value: Option<T>) -> Result<T, QueueError> {
        value.ok_or_else(|| QueueError::NotFound {
            queue: self.name.clone(),
            source: None,
        })
    }

    async fn try_receive(&self, max: usize) -> Result<Attempt, QueueError> {
        let id = self.id;
        let read = move |db: &Connection| {
            let now = now();
            Ok(match store::next_visible_at(db, id, now)? {
                None => Some(Attempt::Missing),
                Some(Some(at)) if at <= now => None,
                Some(next_visible_at) => Some(Attempt::Empty { next_visible_at }),
            })
        };
        let notifier = Arc::clone(&self.notifier);
        let notifiers = Arc::clone(&self.database.notifiers);
        let weak = self.database.writer.weak();
        let write = move |db: &Connection| {
            let Some(delivered) = store::receive(db, id, max, now())? else {
                return Ok(Done::without_effects(Attempt::Missing));
            };
            let moved_to = delivered
                .moved_to
                .map(|queue| Effect::Notify(notifiers.get(queue)));
            let mut effects: Vec<_> = moved_to.into_iter().collect();
            let value = if delivered.messages.is_empty() {
                Attempt::Empty {
                    next_visible_at: delivered.next_visible_at,
                }
            } else {
                let committed = Arc::new(AtomicBool::new(false));
                effects.push(Effect::Confirm(Arc::clone(&committed)));
                Attempt::Delivered(Delivery {
                    messages: delivered.messages,
                    committed,
                    notifier: Arc::clone(&notifier),
                    writer: weak.clone(),
                })
            };
            Ok(Done { value, effects })
        };
        self.database.writer.read_or_write(read, write).await
    }

    fn deliveries(receipts: &[Receipt]) -> Vec<Option<DeliveryId>> {
        receipts.iter().map(DeliveryId::parse).collect()
    }

    fn outcomes(held: Vec<bool>) -> Vec<Result<(), QueueError>> {
        let outcome = |held| {
            if held {
                Ok(())
            } else {
                Err(QueueError::ReceiptExpired)
            }
        };
        held.into_iter().map(outcome).collect()
    }
}

/// Waits for a notification, the time a message becomes visible, a re-check, or the deadline.
async fn wait_for_notification(
    listener: &mut Listener,
    next_visible_at: Option<Millis>,
    deadline: Instant,
) {
    let until_visible = next_visible_at.map_or(listener.recheck, |at| {
        Duration::from_millis(u64::try_from(at - now()).unwrap_or(0).max(1))
    });
    let until = deadline.min(Instant::now() + until_visible.min(listener.recheck));
    // The sender lives in the handle, and a time-out is as good as a notification.
    let _ = timeout_at(until, listener.notifications.changed()).await;
}

#[async_trait]
impl Queue for SqliteQueue {
    fn name(&self) -> &str {
        &self.name
    }

    async fn message_limit(&self) -> Result<usize, QueueError> {
        Ok(MAX_BODY_BYTES)
    }

    async fn send(&self, messages: &[Outgoing]) -> BatchResult<MessageId> {
        check_messages(messages)?;
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let messages = messages.to_vec();
        let notifier = Arc::clone(&self.notifier);
        let sent = self.database.writer.write(move |db| {
            let sent = store::send(db, notifier.queue, &messages, now())?;
            let notify = sent.as_ref().map(|_| Effect::Notify(Arc::clone(&notifier)));
            Ok(Done {
                value: sent,
                effects: notify.into_iter().collect(),
            })
        });
        Ok(self.found(sent.await?)?.into_iter().map(Ok).collect())
    }

    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Received>, QueueError> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let deadline = Instant::now() + wait.min(MAX_WAIT);
        let mut listener = self.notifier.try_listen();
        loop {
            match self.try_receive(max.min(MAX_BATCH)).await? {
                Attempt::Missing => return self.found(None),
                Attempt::Delivered(delivery) => return Ok(delivery.take()),
                Attempt::Empty { .. } if Instant::now() >= deadline => return Ok(Vec::new()),
                Attempt::Empty { next_visible_at } => match &mut listener {
                    // What was sent before somebody listens is found by one more attempt.
                    none @ None => *none = Some(self.notifier.listen().await),
                    Some(listener) => {
                        wait_for_notification(listener, next_visible_at, deadline).await;
                    }
                },
            }
        }
    }

    async fn delete(&self, receipts: &[Receipt]) -> BatchResult<()> {
        check_entries(receipts.len())?;
        if receipts.is_empty() {
            return Ok(Vec::new());
        }
        let (id, deliveries) = (self.id, Self::deliveries(receipts));
        let write =
            move |db: &Connection| Ok(Done::without_effects(store::delete(db, id, &deliveries)?));
        Ok(Self::outcomes(
            self.found(self.database.writer.write(write).await?)?,
        ))
    }

    async fn extend(&self, receipts: &[Receipt], visibility: Duration) -> BatchResult<()> {
        check_entries(receipts.len())?;
        check_visibility(visibility)?;
        if receipts.is_empty() {
            return Ok(Vec::new());
        }
        let (notifier, deliveries) = (Arc::clone(&self.notifier), Self::deliveries(receipts));
        let extended = self.database.writer.write(move |db| {
            let extended =
                store::extend(db, notifier.queue, &deliveries, millis(visibility), now())?;
            let sooner = extended.as_ref().is_some_and(|extended| extended.sooner);
            let notify = sooner.then(|| Effect::Notify(Arc::clone(&notifier)));
            Ok(Done {
                value: extended,
                effects: notify.into_iter().collect(),
            })
        });
        Ok(Self::outcomes(self.found(extended.await?)?.held))
    }

    async fn hand_back(&self, messages: &[Received]) -> BatchResult<()> {
        check_entries(messages.len())?;
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let notifier = Arc::clone(&self.notifier);
        let deliveries: Vec<_> = messages
            .iter()
            .map(|message| DeliveryId::parse(&message.receipt))
            .collect();
        let handed = self.database.writer.write(move |db| {
            let held = store::undo_receive(db, notifier.queue, &deliveries, now())?;
            Ok(Done {
                value: held,
                effects: vec![Effect::Notify(Arc::clone(&notifier))],
            })
        });
        Ok(Self::outcomes(self.found(handed.await?)?))
    }

    async fn purge(&self) -> Result<(), QueueError> {
        let id = self.id;
        let last = self.database.read(store::last_message).await?;
        loop {
            let step = move |db: &Connection| {
                Ok(Done::without_effects(store::purge(
                    db, id, last, PURGE_STEP,
                )?))
            };
            if self.found(self.database.writer.write(step).await?)? < PURGE_STEP as usize {
                return Ok(());
            }
        }
    }

    async fn counts(&self) -> Result<Counts, QueueError> {
        let id = self.id;
        let counts = self
            .database
            .read(move |db| store::counts(db, id, now()))
            .await?;
        let (visible, in_flight) = self.found(counts)?;
        Ok(Counts { visible, in_flight })
    }

    async fn wait_for_send(&self, timeout: Duration) -> Result<(), QueueError> {
        let deadline = Instant::now() + timeout;
        let mut listener = self.notifier.listen().await;
        loop {
            let notifications = *listener.notifications.borrow_and_update();
            let looked_at = now();
            let (id, since) = (self.id, self.seen_at.load(Ordering::Relaxed));
            let arrivals = self
                .database
                .read(move |db| store::arrivals(db, id, since, looked_at))
                .await?;
            let (arrived, next_visible_at) = self.found(arrivals)?;
            let notified = notifications > self.seen_notifications.load(Ordering::Relaxed);
            if notified || arrived || Instant::now() >= deadline {
                self.seen_notifications
                    .fetch_max(notifications, Ordering::Relaxed);
                // More may come in this very millisecond: rather one return too many.
                self.seen_at.fetch_max(looked_at - 1, Ordering::Relaxed);
                return Ok(());
            }
            wait_for_notification(&mut listener, next_visible_at, deadline).await;
        }
    }

    async fn remove(&self) -> Result<(), QueueError> {
        let notifier = Arc::clone(&self.notifier);
        let removed = self.database.writer.write(move |db| {
            let removed = store::remove(db, notifier.queue)?;
            let gone = removed.then(|| Effect::Remove(Arc::clone(&notifier)));
            Ok(Done {
                value: removed,
                effects: gone.into_iter().collect(),
            })
        });
        self.found(removed.await?.then_some(()))
    }
}
