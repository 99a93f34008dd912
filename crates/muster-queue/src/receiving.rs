//! Receives of one queue, more of them at one time while there is more than one can bring.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;

use crate::{error::QueueError, limits::MAX_BATCH, message::Received, queue::Queue};

/// Receives from a queue again and again.
///
/// Across a network one receive after another brings ten messages in the time of a call, whatever waits. So
/// each that brings as many has one more follow at the same time, up to a number, and each that brings fewer
/// one less. An idle queue has one long poll.
#[derive(Debug)]
pub struct Receiving {
    queue: Arc<dyn Queue>,
    wait: Duration,
    most: usize,
    wanted: usize,
    calls: JoinSet<Result<Vec<Received>, QueueError>>,
}

impl Receiving {
    /// Receives that wait so long for messages, and at most so many at one time, at least 1. Dropped, it
    /// loses nothing, as when a receive is dropped.
    pub fn new(queue: Arc<dyn Queue>, wait: Duration, most: usize) -> Self {
        Self {
            queue,
            wait,
            most: most.max(1),
            wanted: 1,
            calls: JoinSet::new(),
        }
    }

    /// Returns what the next receive brings that ends. When this is dropped, the receives go on.
    ///
    /// # Errors
    /// As [`Queue::receive`].
    pub async fn next(&mut self) -> Result<Vec<Received>, QueueError> {
        while self.calls.len() < self.wanted {
            let (queue, wait) = (Arc::clone(&self.queue), self.wait);
            self.calls
                .spawn(async move { queue.receive(MAX_BATCH, wait).await });
        }
        let received = match self.calls.join_next().await {
            Some(Ok(received)) => received,
            Some(Err(ended)) => Err(QueueError::Unavailable {
                source: ended.into(),
            }),
            None => Ok(Vec::new()),
        };
        let full = received.as_ref().is_ok_and(|all| all.len() == MAX_BATCH);
        self.wanted = match full {
            true => (self.wanted + 1).min(self.most),
            false => (self.wanted - 1).max(1),
        };
        received
    }
}

#[cfg(test)]
mod tests;
