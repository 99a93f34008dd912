//! One worker's handling of a message: read it, keep it invisible, answer it, delete it or hand it
//! back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use muster_base::ErrorChain;
use muster_base::backend::Backend;
use muster_base::backoff;
use muster_base::catalogue::Catalogue;
use muster_base::live_gallery::LiveGallery;
use muster_base::traces::Traces;
use muster_gallery::{GalleryError, Judge};
use muster_jobs::{Request, now_ms};
use muster_queue::{Deleter, Outgoing, QueueError, Receipt, Received};
use muster_recognize::decode::DecodeLimits;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::inference::Inference;
use super::lease;
use super::place::Place;
use super::replies::Replies;
use super::slot::Slot;
use super::steps::Steps;

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
    pub limits: DecodeLimits,
    pub visibility_timeout: Duration,
    pub drain: CancellationToken,
    pub traces: Traces,
    pub answered: AtomicU64,
    /// Receives and requests that failed in a row, for no fault of a photograph.
    pub failures: AtomicU32,
    pub steps: Steps,
    pub slot: Arc<Slot>,
    /// How long a step may take before the worker counts as hung.
    pub longest_step: Duration,
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
    /// Says whether the work in hand gets on, or there is none.
    pub fn gets_on(&self) -> bool {
        self.steps.longest() <= self.longest_step
    }

    /// Says whether the work gets on now, and logs when that changes from `before`.
    pub fn look_whether_it_gets_on(&self, before: bool) -> bool {
        let gets_on = self.gets_on();
        if before && !gets_on {
            tracing::error!(
                longest_step = ?self.longest_step,
                "the work in hand does not get on: this worker takes no more, and says no more that it lives"
            );
        } else if gets_on && !before {
            tracing::info!("the work in hand gets on again");
        }
        gets_on
    }

    /// Answers one message, whatever it is, when it has its place in hand, and holds it until then.
    pub async fn handle(self: Arc<Self>, message: Received, place: BoxFuture<'static, Place>) {
        match Request::from_message(&message.body, &message.attributes) {
            Ok(request) => {
                let span = tracing::info_span!(
                    "request",
                    request.id = %request.id,
                    trace_id = request.trace.trace_id(),
                );
                self.work(request, message, place).instrument(span).await;
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

    async fn work(
        &self,
        mut request: Request,
        message: Received,
        place: BoxFuture<'static, Place>,
    ) {
        let receipt = message.receipt.clone();
        let queue = self.backend.requests.name();
        let mut span = self
            .traces
            .process(request.trace, queue, request.id, &message);
        request.trace = span.context();
        let waited_ms = now_ms().saturating_sub(request.sent_at_ms);
        span.set("muster.queue_ms", waited_ms as i64);
        let work = async {
            let mut place = place.await;
            let outcome = self.answer_or_persist(&request, &message, &mut place).await;
            (outcome, place)
        };
        let keep = async {
            let visibility = self.visibility_timeout;
            let receipts = std::slice::from_ref(&receipt);
            let extend = || async { one(self.backend.requests.extend(receipts, visibility).await) };
            lease::renew(extend, visibility, || self.gets_on()).await;
            // Another may have it now; the answer that comes first counts.
            std::future::pending::<()>().await;
        };
        let (outcome, place) = tokio::select! {
            done = work => done,
            () = keep => unreachable!("it never ends"),
        };
        match outcome {
            Ok(outcome) => {
                span.set("muster.outcome", outcome);
                drop(span);
                tracing::debug!(outcome, "a request was answered");
                self.answered.fetch_add(1, Ordering::Relaxed);
                self.failures.store(0, Ordering::Relaxed);
                // Another may take its place while the deletion waits for others.
                drop(place);
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

    /// Hands messages back that were not begun, as if they had never been received.
    pub async fn hand_back_unseen(&self, messages: &[Received]) {
        let handed = match self.backend.requests.hand_back(messages).await {
            Ok(each) => each.into_iter().collect::<Result<(), _>>(),
            Err(error) => Err(error),
        };
        if let Err(error) = handed {
            tracing::warn!(
                error = %ErrorChain(&error),
                "requests could not be handed back as they were, and are so as received once more"
            );
            for message in messages {
                self.hand_back(&message.receipt, Duration::ZERO).await;
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
