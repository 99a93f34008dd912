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
    /// By the queue's name; one is forgotten when its queue is gone.
    open: Mutex<HashMap<String, Outbox>>,
    sending: TaskTracker,
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

    /// Sends one reply.
    ///
    /// # Errors
    /// [`QueueError::NotFound`] where the replica and its queue are gone.
    pub async fn send(&self, queue: &str, reply: Outgoing) -> Result<(), QueueError> {
        let sent = self.outbox(queue).await?.send(reply.clone()).await;
        if let Err(QueueError::NotFound { .. }) = sent {
            // It is gone, or was made anew since it was opened.
            self.open().remove(queue);
            return self.outbox(queue).await?.send(reply).await.map(drop);
        }
        sent.map(drop)
    }

    /// Returns when every reply that was accepted is settled.
    pub async fn close(self) {
        drop(self.open);
        self.sending.close();
        self.sending.wait().await;
    }

    fn open(&self) -> MutexGuard<'_, HashMap<String, Outbox>> {
        self.open
            .lock()
            .expect("no code panics while it holds the reply queues")
    }

    async fn outbox(&self, name: &str) -> Result<Outbox, QueueError> {
        let open = self.open().get(name).cloned();
        if let Some(outbox) = open {
            return Ok(outbox);
        }
        let queue = self.queues.existing(name).await?;
        let (outbox, sending) = Outbox::new(queue, self.batching);
        self.sending.spawn(sending);
        self.open().insert(name.to_owned(), outbox.clone());
        Ok(outbox)
    }
}
