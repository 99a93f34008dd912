//! One worker's handling of a message: read it, keep it invisible, answer it, delete it or hand it
//! back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use muster_base::ErrorChain;
use muster_base::backend::Backend;
use muster_base::backoff;
use muster_base::catalogue::Catalogue;
use muster_base::live_gallery::LiveGallery;
use muster_base::traces::Traces;
use muster_gallery::{GalleryError, Judge};
use muster_jobs::{Request, now_ms};
use muster_queue::{Deleter, Outgoing, QueueError, Receipt, Received};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::inference::Inference;
use super::replies::Replies;

/// What the tasks of one worker share.
pub struct Worker {
    pub backend: Backend,
    pub inference: Inference,
    pub gallery: LiveGallery,
    pub replies: Replies,
    pub receipts: Deleter,
    pub id: String,
    pub judge: Judge,
    pub catalogue: Catalogue,
    pub max_receives: u32,
    pub processing_timeout: Duration,
    pub visibility_timeout: Duration,
    pub drain: CancellationToken,
    pub traces: Traces,
    pub answered: AtomicU64,
    /// Receives and requests that failed in a row, for no fault of a photograph.
    pub failures: AtomicU32,
}

/// Why a request was not answered now; it comes back when its visibility timeout ends.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    #[error("the object store failed")]
    Store(#[from] object_store::Error),
    #[error("the gallery could not be brought up to date")]
    Gallery(#[from] GalleryError),
    #[error("the queue failed")]
    Queue(#[from] QueueError),
}

impl Worker {
    /// Answers one message, whatever it is, and holds its place in hand until then.
    pub async fn handle(self: Arc<Self>, message: Received, in_hand: OwnedSemaphorePermit) {
        match Request::from_message(&message.body, &message.attributes) {
            Ok(request) => {
                let span = tracing::info_span!(
                    "request",
                    request.id = %request.id,
                    trace_id = request.trace.trace_id(),
                );
                self.work(request, message, in_hand).instrument(span).await;
            }
            Err(error) => {
                tracing::error!(
                    message.id = message.id.as_str(),
                    error = %ErrorChain(&error),
                    "a message is not a request and goes to the dead-letter queue"
                );
                self.set_aside(&message).await;
            }
        }
    }

    async fn work(&self, mut request: Request, message: Received, in_hand: OwnedSemaphorePermit) {
        let receipt = message.receipt.clone();
        let queue = self.backend.requests.name();
        let mut span = self
            .traces
            .process(request.trace, queue, request.id, &message);
        request.trace = span.context();
        let waited_ms = now_ms().saturating_sub(request.sent_at_ms);
        span.set("muster.queue_ms", waited_ms as i64);
        let outcome = {
            let work = self.answer_or_persist(&request, &message);
            let keep = self.keep_invisible(&receipt);
            tokio::select! {
                outcome = work => outcome,
                () = keep => unreachable!("the extension never ends by itself"),
            }
        };
        match outcome {
            Ok(outcome) => {
                span.set("muster.outcome", outcome);
                drop(span);
                tracing::debug!(outcome, "a request was answered");
                self.answered.fetch_add(1, Ordering::Relaxed);
                self.failures.store(0, Ordering::Relaxed);
                // Another may take its place while the deletion waits for others.
                drop(in_hand);
                if let Err(error) = self.receipts.delete(receipt).await {
                    tracing::warn!(
                        error = %ErrorChain(&error),
                        "an answered request could not be deleted and will be answered again"
                    );
                }
            }
            Err(error) => {
                span.fail(error.to_string());
                drop(span);
                tracing::error!(
                    receive_count = message.receive_count,
                    error = %ErrorChain(&error),
                    "a request could not be answered and is handed back"
                );
                self.failures.fetch_add(1, Ordering::Relaxed);
                // Longer each time: a request must not be set aside for a store that is away.
                let wait = backoff::after(message.receive_count + 1);
                self.hand_back(&receipt, wait.min(self.visibility_timeout))
                    .await;
            }
        }
    }

    async fn hand_back(&self, receipt: &Receipt, wait: Duration) {
        let receipts = std::slice::from_ref(receipt);
        if let Err(error) = one(self.backend.requests.extend(receipts, wait).await) {
            tracing::warn!(error = %ErrorChain(&error), "a request could not be handed back");
        }
    }

    /// Extends the visibility for as long as it is polled.
    async fn keep_invisible(&self, receipt: &Receipt) {
        loop {
            tokio::time::sleep(self.visibility_timeout / 3).await;
            let receipts = std::slice::from_ref(receipt);
            let extended = self
                .backend
                .requests
                .extend(receipts, self.visibility_timeout)
                .await;
            if let Err(error) = one(extended) {
                tracing::warn!(error = %ErrorChain(&error), "a visibility timeout was not extended");
            }
        }
    }

    /// Moves a message that can not be read to the dead-letter queue.
    async fn set_aside(&self, message: &Received) {
        let sent = one(self
            .backend
            .dead_letters
            .send(&[Outgoing::from(message)])
            .await);
        let moved = match sent {
            Ok(_) => one(self
                .backend
                .requests
                .delete(std::slice::from_ref(&message.receipt))
                .await),
            Err(error) => Err(error),
        };
        if let Err(error) = moved {
            tracing::error!(error = %ErrorChain(&error), "a message could not be set aside");
        }
    }
}

/// The outcome of a batch of one.
pub fn one<T>(outcomes: Result<Vec<Result<T, QueueError>>, QueueError>) -> Result<T, QueueError> {
    outcomes?.pop().expect("one entry has one outcome")
}

/// Milliseconds, to the microsecond.
pub fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
