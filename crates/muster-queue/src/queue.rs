//! The contract: [`Queue`], [`Queues`], and the values that pass through them.
//!
//! Invariant: whatever one implementation refuses (names, options, batches), the other refuses too,
//! because both ask the functions of this module first.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{MessageId, Outgoing, QueueError, Receipt, Received};

/// Entries in one batch and messages in one receive. SQS: 10.
pub const MAX_BATCH: usize = 10;

/// Longest wait of one receive. SQS: 20 s.
pub const MAX_WAIT: Duration = Duration::from_secs(20);

/// Longest retention. SQS: 14 days.
pub const MAX_RETENTION: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Longest visibility timeout. SQS: 12 hours.
const MAX_VISIBILITY: Duration = Duration::from_secs(12 * 60 * 60);

/// Longest queue name. SQS: 80.
const MAX_NAME: usize = 80;

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
    /// The queue that takes it, made if absent and keeping messages for [`MAX_RETENTION`].
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

    /// Sends up to [`MAX_BATCH`] messages, [`MAX_BODY_BYTES`](crate::MAX_BODY_BYTES) together.
    ///
    /// The outcome is per message, in order, so that a caller retries only what failed. An error
    /// of the whole means that nothing was sent, but for [`QueueError::Unavailable`], after
    /// which anything may have been.
    async fn send(
        &self,
        messages: &[Outgoing],
    ) -> Result<Vec<Result<MessageId, QueueError>>, QueueError>;

    /// Receives up to `max` messages, never more than [`MAX_BATCH`].
    ///
    /// Returns as soon as at least one is available, or with none after `wait`, at most
    /// [`MAX_WAIT`] (whole seconds on SQS, rounded up).
    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Received>, QueueError>;

    /// Deletes messages for good, up to [`MAX_BATCH`]; the outcome is per receipt, in order.
    ///
    /// Use the receipt of the last delivery. On SQLite one whose message another consumer has
    /// received since never deletes it and is reported as [`QueueError::ReceiptExpired`]; SQS
    /// promises neither.
    async fn delete(&self, receipts: &[Receipt])
    -> Result<Vec<Result<(), QueueError>>, QueueError>;

    /// Sets how long messages stay invisible from now on, up to [`MAX_BATCH`] (at most 12 hours;
    /// whole seconds on SQS, rounded up).
    ///
    /// `Duration::ZERO` hands them back at once. A message that became visible again is reported
    /// as [`QueueError::ReceiptExpired`], whether somebody else has it yet or not.
    async fn extend(
        &self,
        receipts: &[Receipt],
        visibility: Duration,
    ) -> Result<Vec<Result<(), QueueError>>, QueueError>;

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
}

pub(crate) fn check_name(name: &str) -> Result<(), QueueError> {
    let accepted = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(accepted) {
        return Ok(());
    }
    let name = name.to_owned();
    Err(if name.ends_with(".fifo") {
        QueueError::Fifo { queue: name }
    } else {
        QueueError::InvalidName { name }
    })
}

pub(crate) fn check_options(name: &str, options: &QueueOptions) -> Result<(), QueueError> {
    check_name(name)?;
    if options.visibility_timeout > MAX_VISIBILITY {
        return Err(QueueError::InvalidOption {
            option: "visibility_timeout",
            limits: "0 to 12 hours",
        });
    }
    if !(Duration::from_secs(60)..=MAX_RETENTION).contains(&options.retention) {
        return Err(QueueError::InvalidOption {
            option: "retention",
            limits: "60 s to 14 days",
        });
    }
    if let Some(redrive) = &options.redrive {
        check_name(&redrive.dead_letter)?;
        if redrive.dead_letter == name {
            return Err(QueueError::InvalidOption {
                option: "dead_letter",
                limits: "another queue than this one",
            });
        }
        if !(1..=1000).contains(&redrive.max_receives) {
            return Err(QueueError::InvalidOption {
                option: "max_receives",
                limits: "1 to 1000",
            });
        }
    }
    Ok(())
}

pub(crate) fn check_entries(entries: usize) -> Result<(), QueueError> {
    if entries > MAX_BATCH {
        return Err(QueueError::BatchTooLong {
            entries,
            limit: MAX_BATCH,
        });
    }
    Ok(())
}

pub(crate) fn check_visibility(visibility: Duration) -> Result<(), QueueError> {
    if visibility > MAX_VISIBILITY {
        return Err(QueueError::InvalidOption {
            option: "visibility",
            limits: "0 to 12 hours",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_sqs() {
        for good in ["a", "muster_requests-2", &"x".repeat(80)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a.b", "a/b", "../a", "é", "a b", "a\0", &"x".repeat(81)] {
            assert!(
                matches!(check_name(bad), Err(QueueError::InvalidName { .. })),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_fifo_queue_is_called_so() {
        let refused = check_name("muster.fifo");
        assert!(matches!(refused, Err(QueueError::Fifo { queue }) if queue == "muster.fifo"));
    }

    #[test]
    fn options_are_those_of_sqs() {
        let good = QueueOptions {
            visibility_timeout: Duration::from_secs(30),
            redrive: Some(Redrive {
                dead_letter: "dead".to_owned(),
                max_receives: 1,
            }),
            retention: MAX_RETENTION,
        };
        assert!(check_options("q", &good).is_ok());
        assert!(check_options("dead", &good).is_err());
        let short = QueueOptions {
            retention: Duration::from_secs(59),
            ..good.clone()
        };
        assert!(check_options("q", &short).is_err());
        let long = QueueOptions {
            visibility_timeout: MAX_RETENTION,
            ..good.clone()
        };
        assert!(check_options("q", &long).is_err());
        let never = Redrive {
            dead_letter: "dead".to_owned(),
            max_receives: 0,
        };
        assert!(
            check_options(
                "q",
                &QueueOptions {
                    redrive: Some(never),
                    ..good
                }
            )
            .is_err()
        );
    }
}
