//! The contract: [`Queue`], [`Queues`], and what a queue is made with and counted as.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::error::{BatchResult, QueueError};
use crate::message::{MessageId, Outgoing, Receipt, Received};

/// How many messages a queue holds. Exact on SQLite, approximate and late on SQS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Ready to be received.
    pub visible: u64,
    /// Received, neither deleted nor returned.
    pub in_flight: u64,
}

/// What a queue is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueOptions {
    /// How long a received message stays invisible. Whole seconds on SQS, rounded up.
    pub visibility_timeout: Duration,
    /// Where messages go that are received too often. `None`: they are delivered for ever.
    pub redrive: Option<Redrive>,
    /// How long a message is kept after it was sent. SQS: 60 s to 14 days.
    pub retention: Duration,
}

/// When a message is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redrive {
    /// The queue that takes it, made if absent and keeping messages for
    /// [`MAX_RETENTION`](crate::MAX_RETENTION).
    pub dead_letter: String,
    /// Deliveries before that, at least 1.
    pub max_receives: u32,
}

/// One queue, as seen by a sender, a consumer or a controller.
///
/// All methods may be called at the same time from any number of tasks and processes.
#[async_trait]
pub trait Queue: fmt::Debug + Send + Sync + 'static {
    /// Returns the name that [`Queues::existing`] accepts.
    fn name(&self) -> &str;

    /// Returns how many bytes one message may have, its attributes included
    /// ([`Outgoing::bytes`]): never fewer than [`LEAST_MESSAGE_BYTES`](crate::LEAST_MESSAGE_BYTES).
    ///
    /// On SQS a call, for which `sqs:GetQueueAttributes` is needed.
    async fn message_limit(&self) -> Result<usize, QueueError>;

    /// Sends up to [`MAX_BATCH`](crate::MAX_BATCH) messages,
    /// [`MAX_BODY_BYTES`](crate::MAX_BODY_BYTES) together.
    ///
    /// The outcome is per message, in order, so that a caller retries only what failed. An error
    /// of the whole means that nothing was sent, but for [`QueueError::Unavailable`], after
    /// which anything may have been.
    async fn send(&self, messages: &[Outgoing]) -> BatchResult<MessageId>;

    /// Receives up to `max` messages, never more than [`MAX_BATCH`](crate::MAX_BATCH).
    ///
    /// Returns as soon as at least one is available, or with none after `wait`, at most
    /// [`MAX_WAIT`](crate::MAX_WAIT) (whole seconds on SQS, rounded up).
    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Received>, QueueError>;

    /// Deletes messages for good, up to [`MAX_BATCH`](crate::MAX_BATCH); the outcome is per receipt,
    /// in order.
    ///
    /// Use the receipt of the last delivery. On SQLite one whose message another consumer has
    /// received since never deletes it and is reported as [`QueueError::ReceiptExpired`]; SQS
    /// promises neither.
    async fn delete(&self, receipts: &[Receipt]) -> BatchResult<()>;

    /// Sets how long messages stay invisible from now on, up to [`MAX_BATCH`](crate::MAX_BATCH)
    /// (at most 12 hours; whole seconds on SQS, rounded up).
    ///
    /// `Duration::ZERO` hands them back at once. A message that became visible again is reported
    /// as [`QueueError::ReceiptExpired`], whether somebody else has it yet or not.
    async fn extend(&self, receipts: &[Receipt], visibility: Duration) -> BatchResult<()>;

    /// Hands messages back that nobody has worked on, up to [`MAX_BATCH`](crate::MAX_BATCH): they
    /// are visible at once, and their receive counts are as before.
    ///
    /// SQS knows no such call. There, a copy is sent that carries the count, and the original is
    /// deleted; where that is cut off between the two, the message is there twice.
    async fn hand_back(&self, messages: &[Received]) -> BatchResult<()>;

    /// Deletes every message that was in the queue when the call began.
    ///
    /// SQS takes up to a minute and refuses a second purge within it
    /// ([`QueueError::PurgeInProgress`]).
    async fn purge(&self) -> Result<(), QueueError>;

    /// Counts the messages.
    async fn counts(&self) -> Result<Counts, QueueError>;

    /// Waits until a message may have arrived, at most `timeout`.
    ///
    /// The handle remembers what its callers have seen: the call returns at once when messages
    /// were sent, were handed back or became visible after the previous call on this handle
    /// returned (or after the handle was made). So nothing is missed between [`Queue::counts`]
    /// and this call. It may return early for no reason: callers count again and act on that.
    ///
    /// SQS has no such signal: there it sleeps for `timeout`.
    async fn wait_for_send(&self, timeout: Duration) -> Result<(), QueueError>;

    /// Removes the queue and its messages. Every later call on any handle of it is
    /// [`QueueError::NotFound`] (on SQS within a minute).
    async fn remove(&self) -> Result<(), QueueError>;
}

/// All queues of one file or of one SQS account and prefix.
#[async_trait]
pub trait Queues: fmt::Debug + Send + Sync + 'static {
    /// Opens a queue and makes it if absent; an existing one takes these options.
    async fn queue(&self, name: &str, options: &QueueOptions)
    -> Result<Arc<dyn Queue>, QueueError>;

    /// Opens a queue that must exist, for those who only send to it or work on it.
    ///
    /// A reply queue whose owner is gone stays gone: this never makes one.
    async fn existing(&self, name: &str) -> Result<Arc<dyn Queue>, QueueError>;

    /// Lists the names of the queues that begin with `prefix`, sorted (late on SQS).
    async fn names(&self, prefix: &str) -> Result<Vec<String>, QueueError>;

    /// Overwrites the messages that were deleted, where the service keeps them in a file of this
    /// machine. SQS has no such file.
    async fn erase_deleted(&self) -> Result<(), QueueError> {
        Ok(())
    }
}
