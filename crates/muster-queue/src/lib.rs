//! Durable message queues behind one trait, [`Queue`].
//!
//! Two implementations: [`SqliteQueues`], one file shared by every process of one machine, and
//! [`SqsQueues`], Amazon SQS. One conformance suite (`tests/queues/conformance.rs`) runs against both.
//!
//! Invariant: a message that was acknowledged as sent is delivered at least once, or moved to the
//! dead-letter queue, or outlives its retention; no crash of a holder loses it. On SQLite a stale
//! receipt never takes away another consumer's delivery.
//!
//! [`Outbox`] and [`Deleter`] make batches of what many tasks send and delete one by one, on either, and
//! [`Receiving`] receives as much as there is.
//!
//! # What both guarantee
//!
//! - **Visibility.** A received message is invisible for the queue's visibility timeout. Deleting
//!   it within that time is final; otherwise it comes back and its receive count grows.
//! - **Order** is roughly first in, first out. Nothing may depend on it.
//! - **Redrive** happens at receive: a message that was already received `max_receives` times
//!   is moved to the dead-letter queue instead of being delivered once more.
//! - **Cancellation.** Dropping the future of [`Queue::receive`] loses nothing. While it waits it
//!   holds nothing. Dropped at the very moment a delivery arrives, SQLite hands the messages
//!   back at once and SQS returns them after the visibility timeout. Every other operation, when
//!   dropped, has either happened whole or not at all, and the caller cannot tell which.

mod error;
mod limits;
mod message;
mod outbox;
mod queue;
mod receiving;
mod sqlite;
mod sqs;

pub use error::{BatchResult, QueueError, SourceError};
pub use limits::{
    LEAST_MESSAGE_BYTES, MAX_ATTRIBUTES, MAX_BATCH, MAX_BODY_BYTES, MAX_RETENTION, MAX_WAIT,
    check_name,
};
pub use message::{MessageId, Outgoing, Receipt, Received};
pub use outbox::{Deleter, Outbox, OutboxOptions, RETRY_FOR};
pub use queue::{Counts, Queue, QueueOptions, Queues, Redrive};
pub use receiving::Receiving;
pub use sqlite::{SqliteQueue, SqliteQueues};
pub use sqs::{QueueDescription, SqsQueue, SqsQueues, SqsRefusal};
