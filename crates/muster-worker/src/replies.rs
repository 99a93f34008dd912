//! The reply queues of the web replicas, each with the replies on their way to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use muster_queue::{Outbox, OutboxOptions, Outgoing, QueueError, Queues};
use tokio_util::task::TaskTracker;

use muster_base::backend::Backend;

/// Sends replies to whichever replica asked.
pub struct Replies {
    queues: Arc<dyn Queues>,
    batching: OutboxOptions,
    /// By the queue's name; one is forgotten when its queue is gone or has refused a reply.
    open: Mutex<HashMap<String, ReplyQueue>>,
    sending: TaskTracker,
}

/// One replica's queue.
#[derive(Clone)]
struct ReplyQueue {
    outbox: Outbox,
    /// Bytes that a message may have.
    limit: usize,
}

impl Replies {
    /// No queue is open yet.
    pub fn new(backend: &Backend) -> Self {
        Self {
            queues: Arc::clone(&backend.queues),
            batching: backend.sends(),
            open: Mutex::default(),
            sending: TaskTracker::new(),
        }
    }

    /// Says how many bytes a reply on that queue may have, its attributes included.
    ///
    /// # Errors
    /// [`QueueError::NotFound`] where the replica and its queue are gone.
    pub async fn limit(&self, queue: &str) -> Result<usize, QueueError> {
        Ok(self.opened(queue).await?.limit)
    }

    /// Sends one reply.
    ///
    /// # Errors
    /// [`QueueError::NotFound`] where the replica and its queue are gone.
    pub async fn send(&self, queue: &str, reply: Outgoing) -> Result<(), QueueError> {
        let outbox = self.opened(queue).await?.outbox;
        let sent = outbox.send(reply.clone()).await;
        match sent {
            Err(QueueError::NotFound { .. }) => {
                // It is gone, or was made anew since it was opened.
                self.open().remove(queue);
                let outbox = self.opened(queue).await?.outbox;
                return outbox.send(reply).await.map(drop);
            }
            // Its limit may have been lowered since.
            Err(QueueError::Refused { .. } | QueueError::TooLarge { .. }) => {
                self.open().remove(queue);
            }
            _ => {}
        }
        sent.map(drop)
    }

    /// Returns when every reply that was accepted is settled.
    pub async fn close(self) {
        drop(self.open);
        self.sending.close();
        self.sending.wait().await;
    }

    fn open(&self) -> MutexGuard<'_, HashMap<String, ReplyQueue>> {
        self.open
            .lock()
            .expect("no code panics while it holds the reply queues")
    }

    async fn opened(&self, name: &str) -> Result<ReplyQueue, QueueError> {
        let open = self.open().get(name).cloned();
        if let Some(open) = open {
            return Ok(open);
        }
        let queue = self.queues.existing(name).await?;
        let limit = queue.message_limit().await?;
        let (outbox, sending) = Outbox::new(queue, self.batching);
        self.sending.spawn(sending);
        let opened = ReplyQueue { outbox, limit };
        self.open().insert(name.to_owned(), opened.clone());
        Ok(opened)
    }
}
