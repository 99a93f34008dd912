//! The way of one photograph to a worker and of its reply back.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures::FutureExt;
use muster_jobs::{Outcome, Purpose, Reply, RequestId, TraceParent, now_ms};
use muster_queue::{Deleter, Outbox, Queue, QueueError, Receipt, Receiving};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::problem::ApiError;
use crate::dispatch::counts::Counts;
use crate::dispatch::issued::Issued;
use crate::dispatch::slot_time::{answered, slot_time};
use crate::dispatch::throughput::Throughput;
use crate::dispatch::unawaited::{Since, Unawaited};
use crate::forms::upload::Photo;
use crate::metrics::Metrics;
use crate::quota::Quota;
use crate::server::STOP_MARGIN;
use muster_api::problem::Code;
use muster_base::aws;
use muster_base::backend::Backend;
use muster_base::backoff;
use muster_base::catalogue::Catalogue;
use muster_base::live_gallery::LiveGallery;
use muster_base::traces::Traces;
use muster_fleet::RequestTotals;

/// One long poll for replies.
const POLL: Duration = Duration::from_secs(20);
/// How long a reply that is given back stays invisible, so that the other replica comes first to it.
const GIVE_BACK: Duration = Duration::from_secs(1);

/// Submits photographs and hands their replies to whoever waits. Cheap to clone.
#[derive(Clone)]
pub struct Dispatcher {
    pub(super) inner: Arc<Inner>,
}

/// The dependencies of a dispatcher.
pub struct Dependencies {
    /// Stores and queues.
    pub backend: Backend,
    /// The gallery, whose version each request carries.
    pub gallery: LiveGallery,
    /// Which models a face is embedded by.
    pub catalogue: Catalogue,
    /// This replica's reply queue.
    pub replies: Arc<dyn Queue>,
    /// How long a client waits for its answer.
    pub timeout: Duration,
    /// Photographs that may wait at one time.
    pub max_waiting: usize,
    /// Workers that there may be.
    pub max_instances: u32,
    /// What was submitted and answered, for the controller.
    pub backlog: watch::Sender<RequestTotals>,
    /// What photographs may take of the disk.
    pub quota: Arc<Quota>,
    /// Where spans are recorded.
    pub traces: Traces,
    /// What is measured for Prometheus.
    pub metrics: Metrics,
}

/// What is asked of a worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Submission {
    pub(super) purpose: Purpose,
    /// Whether nobody waits for the answer.
    pub(super) job: bool,
}

impl Submission {
    fn awaited(purpose: Purpose) -> Self {
        Self {
            purpose,
            job: false,
        }
    }

    pub(super) fn job() -> Self {
        Self {
            purpose: Purpose::Recognize,
            job: true,
        }
    }
}

/// What the clones of a dispatcher share.
pub(super) struct Inner {
    pub(super) backend: Backend,
    pub(super) gallery: LiveGallery,
    pub(super) catalogue: Catalogue,
    pub(super) reply_to: String,
    pub(super) outbox: Outbox,
    /// Locked within `backlog`.
    waiting: Mutex<BTreeMap<RequestId, oneshot::Sender<Reply>>>,
    /// Requests that nobody waits for here, jobs and those that a client gave up; locked within
    /// `waiting`.
    pub(super) unawaited: Unawaited,
    /// What was submitted here, where replies to others may come too.
    issued: Option<Issued>,
    pub(super) counts: Counts,
    metrics: Metrics,
    /// How fast the waiting are answered.
    throughput: Mutex<Throughput>,
    /// What was submitted and answered, for the controller; changed by [`Inner::count`].
    pub(super) backlog: watch::Sender<RequestTotals>,
    pub(super) timeout: Duration,
    max_waiting: usize,
    pub(super) max_instances: u32,
    pub(super) quota: Arc<Quota>,
    pub(super) traces: Traces,
    /// What goes on without its client.
    tasks: TaskTracker,
}

/// Removes a request from the waiters however the wait ends, and counts it as failed where that is
/// not by an answer: a client that hangs up drops the wait.
struct Waiter<'a> {
    inner: &'a Inner,
    id: RequestId,
    /// Whether the request is on the queue.
    queued: bool,
    answered: bool,
    /// How long requests occupied its worker's slot, where it said so.
    worked: Option<Duration>,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let abandoned = {
            let mut waiting = self.inner.waiting();
            let unanswered = waiting.remove(&self.id).is_some();
            self.queued
                && unanswered
                && self
                    .inner
                    .unawaited
                    .abandon(self.id, self.inner.max_waiting)
        };
        let counts = &self.inner.counts;
        let ended = if self.answered {
            &counts.answered
        } else {
            &counts.failed
        };
        ended.fetch_add(1, Ordering::Relaxed);
        self.inner.throughput().ended(self.answered, Instant::now());
        if abandoned {
            // A worker is still needed for it.
            return;
        }
        self.inner.count(|totals| answered(totals, self.worked));
    }
}

impl Inner {
    /// The id of a new request.
    pub(super) fn issue(&self) -> RequestId {
        let id = RequestId::new();
        if let Some(issued) = &self.issued {
            issued.add(id);
        }
        id
    }

    /// Whether a reply that nobody waits for here is to be left to another replica.
    fn is_anothers(&self, id: RequestId) -> bool {
        let issued = self.issued.as_ref();
        issued.is_some_and(|issued| issued.may_be_anothers(id))
    }

    /// How long the waiting will take at the throughput seen of late. Before any was seen, as long
    /// as a client waits at most: by then each has its answer or has given up.
    fn expected_wait(&self) -> Duration {
        let seen = self.throughput().time(Instant::now());
        seen.map_or(self.timeout, |time| time.min(self.timeout))
    }

    fn throughput(&self) -> MutexGuard<'_, Throughput> {
        self.throughput
            .lock()
            .expect("no code panics while it holds these")
    }

    pub(super) fn waiting(&self) -> MutexGuard<'_, BTreeMap<RequestId, oneshot::Sender<Reply>>> {
        self.waiting
            .lock()
            .expect("no code panics while it holds the waiters")
    }

    /// Deletes what was put into the input store for a request; what can not be deleted now goes once it
    /// is old.
    pub(super) async fn delete_upload(&self, id: RequestId, key: &Path) {
        match self.backend.input.delete(key).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => {
                tracing::warn!(
                    request.id = %id,
                    error = %muster_base::ErrorChain(&error),
                    "a photograph is kept until it is old"
                );
            }
        }
    }

    /// Takes those out of the backlog that nothing was heard of for too long.
    fn forget_unawaited(&self) {
        let forgotten = self.unawaited.expire();
        if forgotten > 0 {
            self.count(|totals| totals.answered += forgotten);
        }
    }

    /// Changes what the controller is told of the backlog.
    pub(super) fn count(&self, change: impl FnOnce(&mut RequestTotals)) {
        self.backlog.send_modify(|totals| {
            change(totals);
            totals.oldest = self.oldest().and_then(RequestId::submitted_at);
        });
    }

    /// The oldest request of this replica that has no answer, jobs and those that a client gave up
    /// included.
    fn oldest(&self) -> Option<RequestId> {
        let waiting = self.waiting().first_key_value().map(|(id, _)| *id);
        waiting.into_iter().chain(self.unawaited.oldest()).min()
    }

    /// Takes note of the answer to a request that nobody has waited for here since then.
    fn settle_unawaited(&self, reply: &Reply, since: Since) {
        if let Since::Submitted(_) = since {
            self.counts.answered.fetch_add(1, Ordering::Relaxed);
            self.metrics.worked(&reply.outcome);
        }
        self.count(|totals| answered(totals, slot_time(reply)));
    }
}

impl Dispatcher {
    /// Starts sending and listening on `tasks`, until `stop`.
    pub fn start(
        dependencies: Dependencies,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let (outbox, sending) = Outbox::new(
            Arc::clone(&dependencies.backend.requests),
            dependencies.backend.sends(),
        );
        let (receipts, deleting) = Deleter::new(
            Arc::clone(&dependencies.replies),
            dependencies.backend.deletions(),
        );
        let shared = dependencies.backend.shares_replies();
        let inner = Arc::new(Inner {
            issued: shared.then(|| Issued::new(dependencies.timeout)),
            backend: dependencies.backend,
            gallery: dependencies.gallery,
            catalogue: dependencies.catalogue,
            reply_to: dependencies.replies.name().to_owned(),
            outbox,
            waiting: Mutex::default(),
            unawaited: Unawaited::default(),
            counts: Counts::default(),
            metrics: dependencies.metrics,
            throughput: Mutex::new(Throughput::new(Instant::now())),
            backlog: dependencies.backlog,
            timeout: dependencies.timeout,
            max_waiting: dependencies.max_waiting,
            max_instances: dependencies.max_instances,
            quota: dependencies.quota,
            traces: dependencies.traces,
            tasks: tasks.clone(),
        });
        // They end when nobody can send any more; a connection that was cut may hold on for longer.
        for batching in [sending.boxed(), deleting.boxed()] {
            let stop = stop.clone();
            tasks.spawn(async move {
                let cut = async {
                    stop.cancelled().await;
                    tokio::time::sleep(STOP_MARGIN).await;
                };
                tokio::select! {
                    () = batching => {}
                    () = cut => {}
                }
            });
        }
        let listening = listen(
            Arc::clone(&inner),
            dependencies.replies,
            receipts,
            tasks.clone(),
        );
        let stop = stop.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = listening => {}
            }
        });
        Self { inner }
    }

    /// Counts and latencies.
    pub fn counts(&self) -> &Counts {
        &self.inner.counts
    }

    /// Photographs that wait for their reply.
    pub fn waiting(&self) -> usize {
        self.inner.waiting().len()
    }

    /// The age of the oldest request of this replica that has no answer, jobs and those that a
    /// client gave up included.
    pub fn oldest(&self) -> Option<Duration> {
        let now = Duration::from_millis(now_ms());
        Some(now.saturating_sub(self.inner.oldest()?.submitted_at()?))
    }

    /// Submits a photograph to be recognised, and waits for its outcome. After the timeout it is a job of
    /// that owner.
    ///
    /// # Errors
    /// 429 where too many wait already, 504 with the job's URL after the timeout, 500 where the
    /// store or the queue fails.
    pub async fn recognize(
        &self,
        photo: Photo,
        owner: &str,
        trace: TraceParent,
    ) -> Result<Outcome, ApiError> {
        let (id, file) = (self.inner.issue(), photo.file.clone());
        match self.answered(id, photo, Purpose::Recognize, trace).await? {
            Some(outcome) => Ok(outcome),
            None => Err(self.becomes_job(id, owner, &file).await),
        }
    }

    /// Submits a photograph to have a face embedded, and waits for its outcome.
    ///
    /// The face is kept elsewhere or not at all, so the photograph is deleted however that ends. It
    /// goes on without its client, whose hang-up must not leave the photograph behind.
    ///
    /// # Errors
    /// 429 where too many wait already, 504 after the timeout, 500 where the store or the queue fails.
    pub async fn embed(
        &self,
        photo: Photo,
        face: Option<u32>,
        trace: TraceParent,
    ) -> Result<Outcome, ApiError> {
        let (id, purpose) = (self.inner.issue(), Purpose::Embed { face });
        let this = self.clone();
        let embedding = self.inner.tasks.spawn(async move {
            let layout = this.inner.backend.layout(purpose);
            let key = Path::from(layout.input(id, &photo.file));
            let outcome = this.answered(id, photo, purpose, trace).await;
            this.inner.delete_upload(id, &key).await;
            outcome?.ok_or_else(|| this.timed_out("send it again later"))
        });
        embedding
            .await
            .map_err(|ended| ApiError::internal("the embedding of a photograph ended", &ended))?
    }

    /// The outcome of a photograph; `None` where it did not come in time.
    async fn answered(
        &self,
        id: RequestId,
        photo: Photo,
        purpose: Purpose,
        trace: TraceParent,
    ) -> Result<Option<Outcome>, ApiError> {
        let inner = &*self.inner;
        let begun = Instant::now();
        let (reply, replied) = oneshot::channel();
        {
            let mut waiting = inner.waiting();
            self.room_for(1, waiting.len())?;
            waiting.insert(id, reply);
        }
        inner.throughput().begun(Instant::now());
        let mut waiter = Waiter {
            inner,
            id,
            queued: false,
            answered: false,
            worked: None,
        };
        inner.counts.accepted.fetch_add(1, Ordering::Relaxed);
        inner.count(|totals| totals.submitted += 1);
        let outcome = self
            .submit_and_wait(id, photo, purpose, trace, replied, &mut waiter)
            .await;
        if let Ok(Some(outcome)) = &outcome {
            waiter.answered = true;
            inner.counts.note(begun.elapsed());
            inner.metrics.answered(purpose, begun.elapsed());
            inner.metrics.worked(outcome);
        }
        drop(waiter);
        let mut outcome = outcome?;
        if let Some(Outcome::Recognized(recognition)) = &mut outcome {
            recognition.timing_ms.total = (begun.elapsed().as_secs_f64() * 1e6).round() / 1e3;
        }
        Ok(outcome)
    }

    /// Refuses so many photographs where not all of them may wait.
    ///
    /// # Errors
    /// 429 with the time after which to try again.
    pub fn check_room(&self, photos: usize) -> Result<(), ApiError> {
        self.room_for(photos, self.waiting())
    }

    fn room_for(&self, photos: usize, waiting: usize) -> Result<(), ApiError> {
        let most = self.inner.max_waiting;
        if waiting + photos <= most {
            return Ok(());
        }
        Err(ApiError::overloaded(
            format!("{waiting} photographs wait already, of {most} that may: try again later"),
            self.inner.expected_wait(),
        ))
    }

    async fn submit_and_wait(
        &self,
        id: RequestId,
        photo: Photo,
        purpose: Purpose,
        trace: TraceParent,
        replied: oneshot::Receiver<Reply>,
        waiter: &mut Waiter<'_>,
    ) -> Result<Option<Outcome>, ApiError> {
        let deadline = tokio::time::Instant::now() + self.inner.timeout;
        let file = photo.file.clone();
        self.submit(id, photo, Submission::awaited(purpose), trace, deadline)
            .await?;
        waiter.queued = true;
        match tokio::time::timeout_at(deadline, replied).await {
            Ok(Ok(reply)) => {
                waiter.worked = slot_time(&reply);
                match reply.outcome {
                    Outcome::Stored => self.read_stored(id, &file, purpose).await.map(Some),
                    outcome => Ok(Some(outcome)),
                }
            }
            Ok(Err(_)) => Err(ApiError::new(
                Code::Stopping,
                "this Muster is stopping: send the photograph again",
            )),
            Err(_) => Ok(None),
        }
    }
}

/// Receives replies, hands them out and deletes them.
async fn listen(
    inner: Arc<Inner>,
    mut replies: Arc<dyn Queue>,
    receipts: Deleter,
    tasks: TaskTracker,
) {
    let mut failures = 0;
    let mut alone = true;
    let at_once = inner.backend.receives_at_once();
    let mut receiving = Receiving::new(Arc::clone(&replies), POLL, at_once);
    loop {
        let received = match receiving.next().await {
            Ok(received) => {
                failures = 0;
                received
            }
            Err(error) => {
                aws::failed("could not receive replies", &error);
                failures += 1;
                tokio::time::sleep(backoff::after(failures)).await;
                if let QueueError::NotFound { .. } = error {
                    // Somebody removed it. Without it nobody here is ever answered.
                    match inner.backend.replies_on(&inner.reply_to).await {
                        Ok(made) => {
                            replies = made;
                            receiving = Receiving::new(Arc::clone(&replies), POLL, at_once);
                            let inner = Arc::clone(&inner);
                            tasks.spawn(async move { inner.answer_from_store().await });
                        }
                        Err(error) => {
                            aws::failed("the reply queue could not be made anew", error.as_ref());
                        }
                    }
                }
                continue;
            }
        };
        inner.forget_unawaited();
        for message in received {
            let mut id = None;
            match Reply::from_body(&message.body) {
                Ok(reply) if inner.is_anothers(reply.id) => {
                    if std::mem::take(&mut alone) {
                        tracing::warn!(
                            request.id = %reply.id,
                            "a reply to another web replica, or to one before a restart, is given back: with \
                             reply_queues = \"shared\" run one web replica at a time"
                        );
                    }
                    tasks.spawn(give_back(Arc::clone(&replies), message.receipt));
                    continue;
                }
                Ok(mut reply) => {
                    id = Some(tracing::field::display(reply.id));
                    let sent = TraceParent::of_message(&message.attributes);
                    let _taken = sent.map(|sent| {
                        inner
                            .traces
                            .process(sent, &inner.reply_to, reply.id, &message)
                    });
                    if let Some(cpu) = reply.cpu.take() {
                        inner.counts.note_cpu(cpu);
                    }
                    let (waiter, since) = {
                        let mut waiting = inner.waiting();
                        let waiter = waiting.remove(&reply.id);
                        let since = match &waiter {
                            Some(_) => None,
                            None => inner.unawaited.remove(reply.id),
                        };
                        (waiter, since)
                    };
                    if let Some(waiter) = waiter {
                        // A client that hung up this moment needs no reply.
                        let _ = waiter.send(reply);
                    } else {
                        if let Some(since) = since {
                            inner.settle_unawaited(&reply, since);
                        }
                        if reply.outcome == Outcome::Stored {
                            let inner = Arc::clone(&inner);
                            tasks.spawn(async move { inner.delete_carried(reply.id).await });
                        }
                    }
                }
                Err(error) => {
                    tracing::error!(error = %muster_base::ErrorChain(&error), "a reply was dropped");
                }
            }
            let receipts = receipts.clone();
            tasks.spawn(async move {
                if let Err(error) = receipts.delete(message.receipt).await {
                    tracing::warn!(
                        request.id = id,
                        error = %muster_base::ErrorChain(&error),
                        "a reply was not deleted"
                    );
                }
            });
        }
    }
}

/// Leaves a reply to another replica.
async fn give_back(replies: Arc<dyn Queue>, receipt: Receipt) {
    let given = replies.extend(&[receipt], GIVE_BACK).await;
    if let Err(error) = given.and_then(|all| all.into_iter().collect::<Result<(), _>>()) {
        tracing::warn!(
            error = %muster_base::ErrorChain(&error),
            "a reply was not given back and is so when its visibility timeout ends"
        );
    }
}

#[cfg(test)]
mod tests;
