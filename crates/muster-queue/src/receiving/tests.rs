//! Receives of a queue that says how many there are at one time.

use std::sync::Mutex;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::*;
use crate::error::BatchResult;
use crate::message::{MessageId, Outgoing, Receipt};
use crate::queue::Counts;

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);

/// Each receive waits for the test to say what it brings.
#[derive(Debug, Default)]
struct Held {
    /// What each receive under way is to bring, once that is said.
    answers: Mutex<Vec<Option<usize>>>,
    begun: Notify,
    said: Notify,
}

impl Held {
    /// Waits until there are so many receives at one time.
    async fn until(&self, receives: usize) {
        let waiting = async {
            while self.answers.lock().expect("no test panics here").len() < receives {
                self.begun.notified().await;
            }
        };
        tokio::time::timeout(LIMIT, waiting)
            .await
            .expect("as many receives begin");
    }

    fn bring(&self, messages: usize) {
        let mut answers = self.answers.lock().expect("no test panics here");
        let first = answers.iter_mut().find(|answer| answer.is_none());
        *first.expect("a receive is under way") = Some(messages);
        self.said.notify_waiters();
    }

    fn taken(&self) -> Option<usize> {
        let mut answers = self.answers.lock().expect("no test panics here");
        let at = answers.iter().position(Option::is_some)?;
        answers.remove(at)
    }
}

#[async_trait]
impl Queue for Held {
    fn name(&self) -> &str {
        "held"
    }

    async fn receive(&self, max: usize, _: Duration) -> Result<Vec<Received>, QueueError> {
        assert_eq!(max, MAX_BATCH);
        let answers = || self.answers.lock().expect("no test panics here");
        answers().push(None);
        self.begun.notify_one();
        let messages = loop {
            let said = self.said.notified();
            if let Some(messages) = self.taken() {
                break messages;
            }
            said.await;
        };
        let message = |n: usize| Received {
            id: MessageId(n.to_string()),
            receipt: Receipt(n.to_string()),
            body: "a".to_owned(),
            attributes: Default::default(),
            receive_count: 1,
        };
        Ok((0..messages).map(message).collect())
    }

    async fn message_limit(&self) -> Result<usize, QueueError> {
        unreachable!("nobody asks")
    }

    async fn send(&self, _: &[Outgoing]) -> BatchResult<MessageId> {
        unreachable!("nobody sends")
    }

    async fn delete(&self, _: &[Receipt]) -> BatchResult<()> {
        unreachable!("nobody deletes")
    }

    async fn extend(&self, _: &[Receipt], _: Duration) -> BatchResult<()> {
        unreachable!("nobody extends")
    }

    async fn hand_back(&self, _: &[Received]) -> BatchResult<()> {
        unreachable!("nobody hands back")
    }

    async fn purge(&self) -> Result<(), QueueError> {
        unreachable!("nobody purges")
    }

    async fn counts(&self) -> Result<Counts, QueueError> {
        unreachable!("nobody counts")
    }

    async fn wait_for_send(&self, _: Duration) -> Result<(), QueueError> {
        unreachable!("nobody waits")
    }

    async fn remove(&self) -> Result<(), QueueError> {
        unreachable!("nobody removes")
    }
}

#[tokio::test]
async fn there_are_more_receives_at_one_time_while_each_is_full() {
    let queue = Arc::new(Held::default());
    let mut receiving = Receiving::new(Arc::clone(&queue) as _, LIMIT, 3);
    // Before a receive, how many there are at one time, and what the first brings that ends.
    for (receives, messages) in [
        (1, MAX_BATCH),
        (2, MAX_BATCH),
        (3, MAX_BATCH),
        (3, MAX_BATCH - 1),
        (2, 0),
        (1, 1),
        (1, MAX_BATCH),
        (2, MAX_BATCH),
    ] {
        let bring = async {
            queue.until(receives).await;
            queue.bring(messages);
        };
        let (received, ()) = tokio::join!(receiving.next(), bring);
        assert_eq!(received.expect("it is received").len(), messages);
        let left = queue.answers.lock().expect("no test panics here").len();
        assert_eq!(left, receives - 1, "no more than that were under way");
    }
}
