//! Batches of what many tasks send or delete one by one.
//!
//! A call of SQS costs the same for one message and for ten, in money, in processor time and in
//! round trips. So entries of all tasks gather here for a moment and go together; what fails of a
//! batch goes again alone, while the rest is settled.
//!
//! Invariants: every accepted entry is settled once, by the service's answer to it or by the
//! failure that outlasted [`RETRY_FOR`]; an entry that the service has taken never goes again. What
//! is not settled holds at most [`HELD_BYTES`]: whoever has more waits to hand it in.

#[cfg(test)]
mod faults;

use std::{collections::VecDeque, fmt, future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until},
};

use crate::{
    MAX_BATCH, MAX_BODY_BYTES, MessageId, Outgoing, Queue, QueueError, Receipt,
    message::check_messages,
};

/// How long an entry is tried again after it was accepted. A call that has begun by then may take
/// as long as it does.
pub const RETRY_FOR: Duration = Duration::from_secs(20);

/// Entries handed in and not yet looked at.
const INBOX: usize = 1024;

/// Bytes of all entries that are not settled: 16 of the largest messages.
const HELD_BYTES: usize = 16 * MAX_BODY_BYTES;

/// What an entry takes beside its body.
const ENTRY_BYTES: usize = 512;

/// When what failed goes again.
#[derive(Debug, Clone, Copy)]
struct Retries {
    /// The longest first pause. It doubles, and each is a random part of it.
    first: Duration,
    longest: Duration,
    give_up_after: Duration,
}

const RETRIES: Retries = Retries {
    first: Duration::from_millis(100),
    longest: Duration::from_secs(5),
    give_up_after: RETRY_FOR,
};

/// How entries become batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxOptions {
    /// How long the first entry of a batch waits for others, unless they fill it. Zero: a batch is
    /// what is there when a call may begin, which suits a queue that answers within microseconds.
    pub linger: Duration,
    /// Calls at one time, at least 1. While as many are under way, the next batch gathers.
    pub in_flight: usize,
}

/// Sends messages in batches. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbox(Entrance<Sends>);

impl Outbox {
    /// Makes the outbox of a queue, and the future that does its work.
    ///
    /// The future ends when every clone of the outbox is dropped and what was accepted is settled,
    /// within [`RETRY_FOR`] and one call. Dropped before, it leaves what it had as it is.
    #[must_use]
    pub fn new(
        queue: Arc<dyn Queue>,
        options: OutboxOptions,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (entrance, run) = start(queue, options, RETRIES);
        (Self(entrance), run)
    }

    /// Sends a message, and returns when the service has it.
    ///
    /// What can not be carried is refused at once and disturbs nobody else's batch. Transient
    /// failures are tried again for [`RETRY_FOR`], then the last is returned. A call that failed as
    /// [`QueueError::Unavailable`] may have happened, so the message that goes again may arrive
    /// twice: its receiver copes with that. Dropped while it waits, the message is sent all the
    /// same, if it was accepted.
    pub async fn send(&self, message: Outgoing) -> Result<MessageId, QueueError> {
        check_messages(std::slice::from_ref(&message))?;
        self.0.hand_in(message).await
    }
}

/// Deletes messages in batches. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Deleter(Entrance<Deletes>);

impl Deleter {
    /// Makes the deleter of a queue, and the future that does its work, as [`Outbox::new`] does.
    #[must_use]
    pub fn new(
        queue: Arc<dyn Queue>,
        options: OutboxOptions,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (entrance, run) = start(queue, options, RETRIES);
        (Self(entrance), run)
    }

    /// Deletes a message for good, and returns when that is so.
    ///
    /// An expired receipt concerns its own caller alone. On SQLite, a delete that happened in a
    /// call that failed as [`QueueError::Unavailable`] is [`QueueError::ReceiptExpired`] when it is
    /// tried again. Dropped while it waits, the message is deleted all the same, if the receipt was
    /// accepted.
    pub async fn delete(&self, receipt: Receipt) -> Result<(), QueueError> {
        self.0.hand_in(receipt).await
    }
}

/// One of the two batch calls that are worth the wait.
#[async_trait]
trait Operation: 'static {
    type Item: Send + Sync;
    type Answer: Send;

    fn bytes(item: &Self::Item) -> usize;

    async fn call(
        queue: &dyn Queue,
        items: &[Self::Item],
    ) -> Result<Vec<Result<Self::Answer, QueueError>>, QueueError>;
}

enum Sends {}

#[async_trait]
impl Operation for Sends {
    type Item = Outgoing;
    type Answer = MessageId;

    fn bytes(message: &Outgoing) -> usize {
        message.bytes()
    }

    async fn call(
        queue: &dyn Queue,
        messages: &[Outgoing],
    ) -> Result<Vec<Result<MessageId, QueueError>>, QueueError> {
        queue.send(messages).await
    }
}

enum Deletes {}

#[async_trait]
impl Operation for Deletes {
    type Item = Receipt;
    type Answer = ();

    fn bytes(receipt: &Receipt) -> usize {
        receipt.0.len()
    }

    async fn call(
        queue: &dyn Queue,
        receipts: &[Receipt],
    ) -> Result<Vec<Result<(), QueueError>>, QueueError> {
        queue.delete(receipts).await
    }
}

/// An item with all that is known of it.
struct Entry<O: Operation> {
    item: O::Item,
    ticket: Ticket<O::Answer>,
}

/// Whom an entry is for, and how it fared so far.
struct Ticket<A> {
    bytes: usize,
    accepted_at: Instant,
    failures: u32,
    answer: oneshot::Sender<Result<A, QueueError>>,
    _room: OwnedSemaphorePermit,
}

impl<A> Ticket<A> {
    fn settle(self, outcome: Result<A, QueueError>) {
        // A caller that left does not want the answer.
        drop(self.answer.send(outcome));
    }
}

/// Where entries are handed in.
struct Entrance<O: Operation> {
    inbox: mpsc::Sender<Entry<O>>,
    room: Arc<Semaphore>,
}

impl<O: Operation> Clone for Entrance<O> {
    fn clone(&self) -> Self {
        Self {
            inbox: self.inbox.clone(),
            room: Arc::clone(&self.room),
        }
    }
}

impl<O: Operation> fmt::Debug for Entrance<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entrance").finish_non_exhaustive()
    }
}

impl<O: Operation> Entrance<O> {
    async fn hand_in(&self, item: O::Item) -> Result<O::Answer, QueueError> {
        let bytes = O::bytes(&item);
        let size = u32::try_from(bytes + ENTRY_BYTES).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(size);
        let (answer, settled) = oneshot::channel();
        let ticket = Ticket {
            bytes,
            _room: room.await.map_err(|_| stopped())?,
            accepted_at: Instant::now(),
            failures: 0,
            answer,
        };
        let handed_in = self.inbox.send(Entry { item, ticket }).await;
        handed_in.map_err(|_| stopped())?;
        settled.await.map_err(|_| stopped())?
    }
}

fn stopped() -> QueueError {
    QueueError::Unavailable {
        source: "the task that batches calls has stopped".into(),
    }
}

fn start<O: Operation>(
    queue: Arc<dyn Queue>,
    options: OutboxOptions,
    retries: Retries,
) -> (Entrance<O>, impl Future<Output = ()> + Send + 'static) {
    let (inbox, entries) = mpsc::channel(INBOX);
    let room = Arc::new(Semaphore::new(HELD_BYTES));
    let batcher = Batcher {
        queue,
        linger: options.linger,
        in_flight: options.in_flight.max(1),
        retries,
        inbox: entries,
        open: true,
        waiting: VecDeque::new(),
        split: Vec::new(),
        resting: Vec::new(),
        calls: JoinSet::new(),
    };
    (Entrance { inbox, room }, batcher.run())
}

/// A call that has ended: what it was made for, and how each of that fared.
struct Call<O: Operation> {
    entries: Vec<Entry<O>>,
    outcome: Result<Vec<Result<O::Answer, QueueError>>, QueueError>,
}

struct Batcher<O: Operation> {
    queue: Arc<dyn Queue>,
    linger: Duration,
    in_flight: usize,
    retries: Retries,
    inbox: mpsc::Receiver<Entry<O>>,
    /// Whether more may be handed in.
    open: bool,
    /// Entries for the next batches, and when each waits no longer for others.
    waiting: VecDeque<(Instant, Entry<O>)>,
    /// Batches that the service found too large, halved.
    split: Vec<Vec<Entry<O>>>,
    /// Entries that failed, and when each goes again.
    resting: Vec<(Instant, Entry<O>)>,
    calls: JoinSet<Call<O>>,
}

impl<O: Operation> Batcher<O> {
    async fn run(mut self) {
        let mut arrivals = Vec::with_capacity(INBOX);
        loop {
            let now = Instant::now();
            self.rouse(now);
            while self.calls.len() < self.in_flight
                && let Some(batch) = self.next_batch(now)
            {
                self.call(batch);
            }
            let alarm = self.alarm();
            if !self.open && alarm.is_none() && self.calls.is_empty() {
                return;
            }
            tokio::select! {
                count = self.inbox.recv_many(&mut arrivals, INBOX), if self.open => {
                    self.open = count > 0;
                    let until = Instant::now() + self.linger;
                    self.waiting.extend(arrivals.drain(..).map(|entry| (until, entry)));
                }
                Some(call) = self.calls.join_next() => self.conclude(call),
                () = sleep_until(alarm.unwrap_or(now)), if alarm.is_some() => {}
            }
        }
    }

    /// Puts back in line whose rest is over.
    fn rouse(&mut self, now: Instant) {
        let awake = self.resting.extract_if(.., |(until, _)| *until <= now);
        for (_, entry) in awake {
            self.waiting.push_front((now, entry));
        }
    }

    /// Takes the next batch, if one is full or has waited long enough.
    fn next_batch(&mut self, now: Instant) -> Option<Vec<Entry<O>>> {
        if let Some(batch) = self.split.pop() {
            return Some(batch);
        }
        let (until, _) = self.waiting.front()?;
        let mut bytes = 0;
        let fitting = self
            .waiting
            .iter()
            .take(MAX_BATCH)
            .take_while(|(_, entry)| {
                bytes += entry.ticket.bytes;
                bytes <= MAX_BODY_BYTES
            });
        // A receipt or message that is too large alone is the service's to refuse.
        let fitting = fitting.count().max(1);
        let full = fitting == MAX_BATCH || fitting < self.waiting.len();
        let due = !self.open || *until <= now;
        let batch = || {
            self.waiting
                .drain(..fitting)
                .map(|(_, entry)| entry)
                .collect()
        };
        (full || due).then(batch)
    }

    /// Returns when to look again, though nothing arrives and no call ends.
    fn alarm(&self) -> Option<Instant> {
        let rested = self.resting.iter().map(|(until, _)| *until).min();
        let may_call = self.calls.len() < self.in_flight;
        let lingered = self.waiting.front().filter(|_| may_call);
        let lingered = lingered.map(|(until, _)| *until);
        rested.into_iter().chain(lingered).min()
    }

    fn call(&mut self, batch: Vec<Entry<O>>) {
        let queue = Arc::clone(&self.queue);
        let (items, tickets): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|entry| (entry.item, entry.ticket))
            .unzip();
        self.calls.spawn(async move {
            let outcome = O::call(&*queue, &items).await;
            let entries = items.into_iter().zip(tickets);
            Call {
                entries: entries
                    .map(|(item, ticket)| Entry { item, ticket })
                    .collect(),
                outcome,
            }
        });
    }

    fn conclude(&mut self, call: Result<Call<O>, JoinError>) {
        let Call {
            mut entries,
            outcome,
        } = match call {
            Ok(call) => call,
            Err(error) => {
                let queue = self.queue.name();
                tracing::error!(%error, queue, "a batch was lost with its call");
                return;
            }
        };
        match outcome {
            Ok(outcomes) => {
                for (entry, outcome) in entries.into_iter().zip(outcomes) {
                    match outcome {
                        Err(error) if error.is_transient() => self.rest(entry, error),
                        settled => entry.ticket.settle(settled),
                    }
                }
            }
            Err(QueueError::TooLarge { .. }) if entries.len() > 1 => {
                self.split.push(entries.split_off(entries.len() / 2));
                self.split.push(entries);
            }
            Err(error) => {
                for entry in entries {
                    if error.is_transient() {
                        self.rest(entry, error.clone());
                    } else {
                        entry.ticket.settle(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// Lets an entry rest before it goes again, unless its time is over by then.
    fn rest(&mut self, mut entry: Entry<O>, error: QueueError) {
        let Retries {
            first,
            longest,
            give_up_after,
        } = self.retries;
        let pause = (first * 2_u32.saturating_pow(entry.ticket.failures.min(16))).min(longest);
        let until = Instant::now() + pause.mul_f64(fastrand::f64());
        if until >= entry.ticket.accepted_at + give_up_after {
            entry.ticket.settle(Err(error));
        } else {
            entry.ticket.failures += 1;
            self.resting.push((until, entry));
        }
    }
}
