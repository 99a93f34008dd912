//! What can go wrong with a queue, one variant for each decision a caller makes.

use std::{error::Error, ops::Deref, sync::Arc};

/// The failure underneath, kept as it came; shared by all entries of a batch that failed.
#[derive(Debug, Clone)]
pub struct SourceError(Arc<dyn Error + Send + Sync>);

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for SourceError {
    fn from(error: E) -> Self {
        Self(Arc::from(error.into()))
    }
}

impl Deref for SourceError {
    type Target = dyn Error + Send + Sync;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

/// A queue operation that did not happen.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The queue does not exist, or was removed since the handle was made.
    #[error("queue {queue} does not exist")]
    NotFound {
        /// The queue's name.
        queue: String,
        /// What SQS answered; it answers this too for queues that the caller may not see.
        #[source]
        source: Option<SourceError>,
    },
    /// The queue is one of the FIFO queues of SQS, which promise and refuse other things.
    #[error("queue {queue} is a FIFO queue, and only standard queues are used")]
    Fifo {
        /// The queue's name.
        queue: String,
    },
    /// The queue was removed so recently that the service refuses to make it again (SQS: 60 s).
    #[error("queue {queue} was removed less than a minute ago")]
    RemovedRecently {
        /// The queue's name.
        queue: String,
    },
    /// The name is not 1 to 80 letters, digits, hyphens and underscores.
    #[error("{name:?} is not a queue name: 1 to 80 letters, digits, hyphens and underscores")]
    InvalidName {
        /// The name that was refused.
        name: String,
    },
    /// The options are outside what both services accept.
    #[error("the queue's {option} is outside its limits: {limits}")]
    InvalidOption {
        /// The field of [`QueueOptions`](crate::QueueOptions).
        option: &'static str,
        /// What is accepted.
        limits: &'static str,
    },
    /// The body is empty or holds a character that SQS refuses (a control character, U+FFFE).
    #[error("message {index} of the batch is empty or holds a control character")]
    InvalidBody {
        /// Its position in the batch.
        index: usize,
    },
    /// The attributes are not those that SQS carries; nothing was sent.
    #[error("the attributes of message {index} of the batch are refused: {rule}")]
    InvalidAttributes {
        /// The message's position in the batch.
        index: usize,
        /// The rule that they break.
        rule: &'static str,
    },
    /// The messages of one batch are too large together; nothing was sent.
    #[error("the batch has {bytes} bytes, {limit} are accepted")]
    TooLarge {
        /// Bytes of all messages of the batch, attributes included.
        bytes: usize,
        /// What is accepted.
        limit: usize,
    },
    /// The batch has too many entries; nothing was done.
    #[error("the batch has {entries} entries, {limit} are accepted")]
    BatchTooLong {
        /// Entries of the batch.
        entries: usize,
        /// What is accepted.
        limit: usize,
    },
    /// The receipt no longer stands for a delivery: the work belongs to somebody else, or is done.
    #[error("the receipt has expired")]
    ReceiptExpired,
    /// The queue was purged less than a minute ago (SQS only); it may be purged again later.
    #[error("queue {queue} was purged less than a minute ago")]
    PurgeInProgress {
        /// The queue's name.
        queue: String,
    },
    /// The service asks for fewer requests: retry with back-off.
    #[error("the queue service is throttling")]
    Throttled {
        /// What the service answered.
        #[source]
        source: SourceError,
    },
    /// The service could not be reached, was busy or failed: retry with back-off.
    ///
    /// A send that ended so may have happened.
    #[error("the queue service is unavailable")]
    Unavailable {
        /// What happened.
        #[source]
        source: SourceError,
    },
    /// The service refuses, and will refuse again: permissions, a damaged or newer file.
    #[error("the queue service refuses the request")]
    Refused {
        /// What the service answered.
        #[source]
        source: SourceError,
    },
}

/// What became of a batch: an outcome for each entry, in order, or an error of the whole call.
pub type BatchResult<T> = Result<Vec<Result<T, QueueError>>, QueueError>;

impl QueueError {
    /// Says whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Throttled { .. }
                | Self::Unavailable { .. }
                | Self::PurgeInProgress { .. }
                | Self::RemovedRecently { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_linked_and_not_repeated() {
        let error = QueueError::Unavailable {
            source: "disk on fire".into(),
        };
        assert!(!error.to_string().contains("fire"));
        assert_eq!(
            error.source().map(ToString::to_string).as_deref(),
            Some("disk on fire")
        );
        assert!(error.is_transient());
        assert!(!QueueError::ReceiptExpired.is_transient());
        let missing = |source| QueueError::NotFound {
            queue: "q".to_owned(),
            source,
        };
        assert!(missing(None).source().is_none());
        assert!(missing(Some("hidden".into())).source().is_some());
    }
}
