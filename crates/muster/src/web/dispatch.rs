//! From a photograph to its reply: store, send, wait.
//!
//! The web tier's own ledger of who waits for which request is here. A reply that nobody waits for
//! (late, or a duplicate after a visibility timeout) is dropped.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use muster_jobs::{
    MESSAGE_VERSION, ObjectKeys, Outcome, Purpose, Reply, Request, RequestId, now_ms,
};
use muster_queue::{MAX_BATCH, Queue, QueueError, Receipt};
use object_store::{ObjectStoreExt, PutPayload};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::problem::ApiError;
use super::upload::Photo;
use crate::backend::Backend;

/// Messages that may wait to be sent; more make the submitters wait.
const OUTBOX: usize = 1024;
/// Latencies kept to answer the percentiles from.
const LATENCIES: usize = 1000;
/// One long poll for replies.
const POLL: Duration = Duration::from_secs(20);
/// Pause after a queue failure, so that an outage is not a busy loop.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(200);

struct Outgoing {
    body: String,
    sent: oneshot::Sender<Result<(), QueueError>>,
}

/// Counts and latencies since the web tier started.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Photographs submitted.
    pub accepted: AtomicU64,
    /// Photographs answered, refusals of the photograph included.
    pub answered: AtomicU64,
    /// Photographs that timed out, that Muster failed on, or whose client hung up.
    pub failed: AtomicU64,
    latencies: Mutex<VecDeque<Duration>>,
}

impl Ledger {
    fn note(&self, latency: Duration) {
        let mut latencies = self
            .latencies
            .lock()
            .expect("no code panics while it holds these");
        if latencies.len() == LATENCIES {
            latencies.pop_front();
        }
        latencies.push_back(latency);
    }

    /// The given percentiles (0 to 1) of the last answers; `None` before the first.
    pub fn percentiles<const N: usize>(&self, wanted: [f64; N]) -> Option<[Duration; N]> {
        let mut sorted: Vec<Duration> = self
            .latencies
            .lock()
            .expect("no code panics while it holds these")
            .iter()
            .copied()
            .collect();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1)?;
        Some(wanted.map(|p| sorted[(p * last as f64).round() as usize]))
    }
}

/// Submits photographs and hands their replies to whoever waits. Cheap to clone.
#[derive(Clone)]
pub struct Dispatcher {
    inner: Arc<Inner>,
}

struct Inner {
    backend: Backend,
    reply_to: String,
    outbox: mpsc::Sender<Outgoing>,
    waiting: Mutex<HashMap<RequestId, oneshot::Sender<Reply>>>,
    ledger: Ledger,
    /// The same for the controller, where it runs in this process.
    backlog: watch::Sender<muster_fleet::Ledger>,
    timeout: Duration,
    max_waiting: usize,
}

/// Removes a request from the waiters however the wait ends, and counts it as failed where that is
/// not by an answer: a client that hangs up drops the wait.
struct Waiter<'a> {
    inner: &'a Inner,
    id: RequestId,
    answered: bool,
    /// How long its worker's models were occupied, where it said so.
    worked: Option<Duration>,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.inner.waiting().remove(&self.id);
        let ledger = &self.inner.ledger;
        let ended = if self.answered {
            &ledger.answered
        } else {
            &ledger.failed
        };
        ended.fetch_add(1, Ordering::Relaxed);
        self.inner.backlog.send_modify(|ledger| {
            ledger.answered += 1;
            if let Some(worked) = self.worked {
                ledger.timed += 1;
                ledger.worked += worked;
            }
        });
    }
}

impl Inner {
    fn waiting(&self) -> MutexGuard<'_, HashMap<RequestId, oneshot::Sender<Reply>>> {
        self.waiting
            .lock()
            .expect("no code panics while it holds the waiters")
    }
}

impl Dispatcher {
    /// Starts sending and listening on `tasks`, until `stop`.
    pub fn start(
        backend: Backend,
        replies: Arc<dyn Queue>,
        timeout: Duration,
        max_waiting: usize,
        backlog: watch::Sender<muster_fleet::Ledger>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let (outbox, outgoing) = mpsc::channel(OUTBOX);
        let requests = Arc::clone(&backend.requests);
        let inner = Arc::new(Inner {
            backend,
            reply_to: replies.name().to_owned(),
            outbox,
            waiting: Mutex::default(),
            ledger: Ledger::default(),
            backlog,
            timeout,
            max_waiting,
        });
        tasks.spawn(send_all(requests, outgoing, stop.clone()));
        tasks.spawn(listen(Arc::clone(&inner), replies, stop.clone()));
        Self { inner }
    }

    /// Counts and latencies.
    pub fn ledger(&self) -> &Ledger {
        &self.inner.ledger
    }

    /// Photographs that wait for their reply.
    pub fn waiting(&self) -> usize {
        self.inner.waiting().len()
    }

    /// Submits a photograph and waits for its outcome.
    ///
    /// # Errors
    /// 429 where too many wait already, 504 with the job's URL after the timeout, 500 where the
    /// store or the queue fails.
    pub async fn run(&self, photo: Photo, purpose: Purpose) -> Result<Outcome, ApiError> {
        let inner = &*self.inner;
        let begun = Instant::now();
        let id = RequestId::new();
        let (reply, replied) = oneshot::channel();
        {
            let mut waiting = inner.waiting();
            if waiting.len() >= inner.max_waiting {
                return Err(ApiError::overloaded(
                    format!(
                        "{} photographs wait already, the most that are taken: try again later",
                        inner.max_waiting
                    ),
                    self.drain_time(waiting.len()).as_secs().max(1),
                ));
            }
            waiting.insert(id, reply);
        }
        let mut waiter = Waiter {
            inner,
            id,
            answered: false,
            worked: None,
        };
        inner.ledger.accepted.fetch_add(1, Ordering::Relaxed);
        inner.backlog.send_modify(|ledger| ledger.submitted += 1);
        let outcome = self.submit_and_wait(id, photo, purpose, replied).await;
        if let Ok(outcome) = &outcome {
            waiter.answered = true;
            if let Outcome::Recognized(recognition) = outcome {
                waiter.worked = Some(recognition.timing_ms.inference());
            }
            inner.ledger.note(begun.elapsed());
        }
        drop(waiter);
        let mut outcome = outcome?;
        if let Outcome::Recognized(recognition) = &mut outcome {
            recognition.timing_ms.total = (begun.elapsed().as_secs_f64() * 1e6).round() / 1e3;
        }
        Ok(outcome)
    }

    /// Roughly how long the waiting ones will take, by the median latency of late.
    fn drain_time(&self, waiting: usize) -> Duration {
        let ledger = &self.inner.ledger;
        let median = ledger
            .percentiles([0.5])
            .map_or(Duration::from_secs(1), |[p50]| p50);
        median
            .min(self.inner.timeout)
            .max(Duration::from_millis(waiting as u64))
    }

    async fn submit_and_wait(
        &self,
        id: RequestId,
        photo: Photo,
        purpose: Purpose,
        replied: oneshot::Receiver<Reply>,
    ) -> Result<Outcome, ApiError> {
        let inner = &*self.inner;
        let deadline = tokio::time::Instant::now() + inner.timeout;
        let key = inner.backend.input(id, &photo.file);
        let stored = inner
            .backend
            .objects
            .put(&key, PutPayload::from_bytes(photo.bytes))
            .await
            .map_err(|error| ApiError::internal("a photograph could not be stored", &error))?;
        drop(photo.taken);
        let request = Request {
            version: MESSAGE_VERSION,
            id,
            purpose,
            file: photo.file,
            input_etag: match inner.backend.keys {
                ObjectKeys::Request => None,
                ObjectKeys::Filename => stored.e_tag,
            },
            reply_to: inner.reply_to.clone(),
            sent_at_ms: now_ms(),
        };
        let (sent, outcome) = oneshot::channel();
        let outgoing = Outgoing {
            body: request.to_json(),
            sent,
        };
        let stopped = || {
            ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "stopping",
                "this Muster is stopping: send the photograph again",
            )
        };
        inner.outbox.send(outgoing).await.map_err(|_| stopped())?;
        outcome
            .await
            .map_err(|_| stopped())?
            .map_err(|error| ApiError::internal("a request could not be queued", &error))?;
        match tokio::time::timeout_at(deadline, replied).await {
            Ok(Ok(reply)) => Ok(reply.outcome),
            Ok(Err(_)) => Err(stopped()),
            Err(_) => Err(self.timed_out(id, purpose)),
        }
    }

    /// The error for a client that waited in vain, with the place of the later result if there is
    /// one: an enrolment ends with its client's request, and the `filename` layout knows no ids.
    fn timed_out(&self, id: RequestId, purpose: Purpose) -> ApiError {
        let inner = &*self.inner;
        let waited = inner.timeout.as_secs_f64();
        let error = |rest: &str| {
            let detail = format!("no answer within {waited:.0} s; {rest}");
            ApiError::new(StatusCode::GATEWAY_TIMEOUT, "timeout", detail)
        };
        match (purpose, inner.backend.keys) {
            (Purpose::Recognize, ObjectKeys::Request) => {
                let job = format!("/v1/jobs/{id}");
                error(&format!("the photograph is still queued: ask {job} later")).with("job", job)
            }
            _ => error("send it again later"),
        }
    }
}

/// Sends what is in the outbox, in batches: while one is sent the next gathers.
async fn send_all(
    requests: Arc<dyn Queue>,
    mut outgoing: mpsc::Receiver<Outgoing>,
    stop: CancellationToken,
) {
    let mut batch = Vec::with_capacity(MAX_BATCH);
    loop {
        let received = tokio::select! {
            biased;
            received = outgoing.recv_many(&mut batch, MAX_BATCH) => received,
            () = stop.cancelled() => 0,
        };
        if received == 0 {
            return;
        }
        let (bodies, waiters): (Vec<_>, Vec<_>) = batch
            .drain(..)
            .map(|out| (out.body.into(), out.sent))
            .unzip();
        match requests.send(&bodies).await {
            Ok(outcomes) => {
                for (outcome, waiter) in outcomes.into_iter().zip(waiters) {
                    // Nobody waits any more when the client has hung up.
                    let _ = waiter.send(outcome.map(|_| ()));
                }
            }
            Err(error) => {
                tracing::error!(error = %crate::Chain(&error), "requests could not be queued");
                // Dropping the waiters answers each of them 503: send again.
            }
        }
    }
}

/// Receives replies, hands them out and deletes them.
async fn listen(inner: Arc<Inner>, replies: Arc<dyn Queue>, stop: CancellationToken) {
    loop {
        let received = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            received = replies.receive(MAX_BATCH, POLL) => received,
        };
        let received = match received {
            Ok(received) => received,
            Err(error) => {
                tracing::error!(error = %crate::Chain(&error), "could not receive replies");
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                continue;
            }
        };
        if received.is_empty() {
            continue;
        }
        let receipts: Vec<Receipt> = received
            .into_iter()
            .map(|message| {
                match Reply::from_json(&message.body) {
                    Ok(reply) => {
                        if let Some(waiter) = inner.waiting().remove(&reply.id) {
                            // A client that hung up this moment needs no reply.
                            let _ = waiter.send(reply);
                        }
                    }
                    Err(error) => {
                        tracing::error!(error = %crate::Chain(&error), "a reply was dropped");
                    }
                }
                message.receipt
            })
            .collect();
        match replies.delete(&receipts).await {
            Ok(outcomes) => {
                for error in outcomes.into_iter().filter_map(Result::err) {
                    tracing::warn!(error = %crate::Chain(&error), "a reply was not deleted");
                }
            }
            Err(error) => {
                tracing::warn!(error = %crate::Chain(&error), "replies were not deleted");
            }
        }
    }
}
