//! Batches of what many tasks send or delete one by one.
//!
//! A call of SQS costs the same for one message and for ten, in money, in processor time and in
//! round trips. So entries of all tasks gather here for a moment and are sent together; what fails
//! of a batch is retried alone, while the rest is answered.
//!
//! Invariants: every accepted entry is answered once, with the service's answer to it or with the
//! failure that outlasted [`RETRY_FOR`]; an entry that the service has taken is never sent again.
//! Unanswered entries hold at most [`MAX_PENDING_BYTES`]: with more, callers wait.

use std::{collections::VecDeque, fmt, future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until},
};

use crate::{
    error::{BatchResult, QueueError},
    limits::{MAX_BATCH, MAX_BODY_BYTES, check_messages},
    message::{MessageId, Outgoing, Receipt},
    queue::Queue,
};

/// How long an entry is retried after it was accepted. A call that has begun by then is waited for.
pub const RETRY_FOR: Duration = Duration::from_secs(20);

/// Entries submitted and not yet looked at.
const INBOX_ENTRIES: usize = 1024;

/// Bytes of all entries that are not answered: 16 of the largest messages.
const MAX_PENDING_BYTES: usize = 16 * MAX_BODY_BYTES;

/// Memory that an entry takes beside its body.
const ENTRY_OVERHEAD_BYTES: usize = 512;

/// When failed entries are sent again: exponential back-off with full jitter.
#[derive(Debug, Clone, Copy)]
struct Retries {
    /// The longest first pause. It doubles with each failure, and each pause is a random part of it.
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
pub struct Outbox(Submitter<SendBatch>);

impl Outbox {
    /// Makes the outbox of a queue, and the future that does its work.
    ///
    /// The future ends when every clone of the outbox is dropped and what was accepted is answered,
    /// within [`RETRY_FOR`] and one call. Dropped before, it sends nothing more.
    pub fn new(
        queue: Arc<dyn Queue>,
        options: OutboxOptions,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (submitter, run) = start(queue, options, RETRIES);
        (Self(submitter), run)
    }

    /// Sends a message, and returns when the service has it.
    ///
    /// A message outside the limits is refused at once and disturbs nobody else's batch. Transient
    /// failures are retried for [`RETRY_FOR`], then the last is returned. A call that failed as
    /// [`QueueError::Unavailable`] may have happened, so a message that is sent again may arrive
    /// twice: its receiver copes with that. When this future is dropped while it waits, a message
    /// that was accepted is sent nevertheless.
    pub async fn send(&self, message: Outgoing) -> Result<MessageId, QueueError> {
        check_messages(std::slice::from_ref(&message))?;
        self.0.submit(message).await
    }
}

/// Deletes messages in batches. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Deleter(Submitter<DeleteBatch>);

impl Deleter {
    /// Makes the deleter of a queue, and the future that does its work, as [`Outbox::new`] does.
    pub fn new(
        queue: Arc<dyn Queue>,
        options: OutboxOptions,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (submitter, run) = start(queue, options, RETRIES);
        (Self(submitter), run)
    }

    /// Deletes a message for good, and returns when that is so.
    ///
    /// An expired receipt concerns its own caller alone. On SQLite, a delete that happened in a
    /// call that failed as [`QueueError::Unavailable`] is [`QueueError::ReceiptExpired`] when it is
    /// retried. When this future is dropped while it waits, the message of a receipt that was
    /// accepted is deleted nevertheless.
    pub async fn delete(&self, receipt: Receipt) -> Result<(), QueueError> {
        self.0.submit(receipt).await
    }
}

/// A batch call: sending or deleting.
#[async_trait]
trait BatchOperation: 'static {
    type Item: Send + Sync;
    type Answer: Send;

    fn bytes(item: &Self::Item) -> usize;

    async fn call(queue: &dyn Queue, items: &[Self::Item]) -> BatchResult<Self::Answer>;
}

enum SendBatch {}

#[async_trait]
impl BatchOperation for SendBatch {
    type Item = Outgoing;
    type Answer = MessageId;

    fn bytes(message: &Outgoing) -> usize {
        message.bytes()
    }

    async fn call(queue: &dyn Queue, messages: &[Outgoing]) -> BatchResult<MessageId> {
        queue.send(messages).await
    }
}

enum DeleteBatch {}

#[async_trait]
impl BatchOperation for DeleteBatch {
    type Item = Receipt;
    type Answer = ();

    fn bytes(receipt: &Receipt) -> usize {
        receipt.0.len()
    }

    async fn call(queue: &dyn Queue, receipts: &[Receipt]) -> BatchResult<()> {
        queue.delete(receipts).await
    }
}

/// An item with the caller that waits for its answer.
struct Entry<O: BatchOperation> {
    item: O::Item,
    ticket: Ticket<O::Answer>,
}

/// The caller of an entry, and how often the entry has failed.
struct Ticket<A> {
    bytes: usize,
    accepted_at: Instant,
    failures: u32,
    answer: oneshot::Sender<Result<A, QueueError>>,
    _memory: OwnedSemaphorePermit,
}

impl<A> Ticket<A> {
    fn answer(self, outcome: Result<A, QueueError>) {
        // A caller that left does not want the answer.
        drop(self.answer.send(outcome));
    }
}

/// Submits entries to the batcher.
struct Submitter<O: BatchOperation> {
    inbox: mpsc::Sender<Entry<O>>,
    /// Bytes left of [`MAX_PENDING_BYTES`].
    memory: Arc<Semaphore>,
}

impl<O: BatchOperation> Clone for Submitter<O> {
    fn clone(&self) -> Self {
        Self {
            inbox: self.inbox.clone(),
            memory: Arc::clone(&self.memory),
        }
    }
}

impl<O: BatchOperation> fmt::Debug for Submitter<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submitter").finish_non_exhaustive()
    }
}

impl<O: BatchOperation> Submitter<O> {
    async fn submit(&self, item: O::Item) -> Result<O::Answer, QueueError> {
        let bytes = O::bytes(&item);
        let size = u32::try_from(bytes + ENTRY_OVERHEAD_BYTES).unwrap_or(u32::MAX);
        let memory = Arc::clone(&self.memory).acquire_many_owned(size);
        let (answer, answered) = oneshot::channel();
        let ticket = Ticket {
            bytes,
            _memory: memory.await.map_err(|_| stopped())?,
            accepted_at: Instant::now(),
            failures: 0,
            answer,
        };
        let submitted = self.inbox.send(Entry { item, ticket }).await;
        submitted.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

fn stopped() -> QueueError {
    QueueError::Unavailable {
        source: "the task that batches calls has stopped".into(),
    }
}

fn start<O: BatchOperation>(
    queue: Arc<dyn Queue>,
    options: OutboxOptions,
    retries: Retries,
) -> (Submitter<O>, impl Future<Output = ()> + Send + 'static) {
    let (inbox, entries) = mpsc::channel(INBOX_ENTRIES);
    let memory = Arc::new(Semaphore::new(MAX_PENDING_BYTES));
    let batcher = Batcher {
        queue,
        linger: options.linger,
        in_flight: options.in_flight.max(1),
        retries,
        inbox: entries,
        open: true,
        waiting: VecDeque::new(),
        split: Vec::new(),
        retrying: Vec::new(),
        calls: JoinSet::new(),
    };
    (Submitter { inbox, memory }, batcher.run())
}

/// A batch call that has ended, with the outcome of each entry.
struct Call<O: BatchOperation> {
    entries: Vec<Entry<O>>,
    outcome: BatchResult<O::Answer>,
}

struct Batcher<O: BatchOperation> {
    queue: Arc<dyn Queue>,
    linger: Duration,
    in_flight: usize,
    retries: Retries,
    inbox: mpsc::Receiver<Entry<O>>,
    /// Whether more may be submitted.
    open: bool,
    /// Entries for the next batches, and when each stops waiting for others.
    waiting: VecDeque<(Instant, Entry<O>)>,
    /// Batches that the service found too large, halved.
    split: Vec<Vec<Entry<O>>>,
    /// Entries that failed, and when each is retried.
    retrying: Vec<(Instant, Entry<O>)>,
    calls: JoinSet<Call<O>>,
}

impl<O: BatchOperation> Batcher<O> {
    async fn run(mut self) {
        let mut submitted = Vec::with_capacity(INBOX_ENTRIES);
        loop {
            let now = Instant::now();
            self.requeue_due(now);
            while self.calls.len() < self.in_flight
                && let Some(batch) = self.next_batch(now)
            {
                self.call(batch);
            }
            let deadline = self.next_deadline();
            if !self.open && deadline.is_none() && self.calls.is_empty() {
                return;
            }
            tokio::select! {
                count = self.inbox.recv_many(&mut submitted, INBOX_ENTRIES), if self.open => {
                    self.open = count > 0;
                    let until = Instant::now() + self.linger;
                    self.waiting.extend(submitted.drain(..).map(|entry| (until, entry)));
                }
                Some(call) = self.calls.join_next() => self.finish(call),
                () = sleep_until(deadline.unwrap_or(now)), if deadline.is_some() => {}
            }
        }
    }

    /// Queues the entries again whose pause is over.
    fn requeue_due(&mut self, now: Instant) {
        let due = self.retrying.extract_if(.., |(until, _)| *until <= now);
        for (_, entry) in due {
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

    /// Returns when there is something to do even if nothing arrives and no call ends.
    fn next_deadline(&self) -> Option<Instant> {
        let retry = self.retrying.iter().map(|(until, _)| *until).min();
        let may_call = self.calls.len() < self.in_flight;
        let lingered = self.waiting.front().filter(|_| may_call);
        let lingered = lingered.map(|(until, _)| *until);
        retry.into_iter().chain(lingered).min()
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

    fn finish(&mut self, call: Result<Call<O>, JoinError>) {
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
                        Err(error) if error.is_transient() => self.retry_later(entry, error),
                        answer => entry.ticket.answer(answer),
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
                        self.retry_later(entry, error.clone());
                    } else {
                        entry.ticket.answer(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// Retries an entry after a pause, unless its time is over by then.
    fn retry_later(&mut self, mut entry: Entry<O>, error: QueueError) {
        let Retries {
            first,
            longest,
            give_up_after,
        } = self.retries;
        let pause = (first * 2_u32.saturating_pow(entry.ticket.failures.min(16))).min(longest);
        let until = Instant::now() + pause.mul_f64(fastrand::f64());
        if until >= entry.ticket.accepted_at + give_up_after {
            entry.ticket.answer(Err(error));
        } else {
            entry.ticket.failures += 1;
            self.retrying.push((until, entry));
        }
    }
}

#[cfg(test)]
mod tests;
