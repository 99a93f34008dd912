//! The worker role: receive requests, recognise, store, reply, delete, in that order.
//!
//! One thread does nothing but inference; everything that waits runs beside it, so that the next
//! photograph is fetched and the last answer is stored while the models run. A request is deleted
//! only after its result is stored and its reply sent, so a worker killed at any point loses
//! nothing: the visibility timeout returns its requests.

mod decide;
mod inference;
mod replies;
mod report;

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use base64::Engine as _;
use muster_fleet::READY_LINE;
use muster_jobs::{
    Embedded, EmbeddedFace, Failure, FailureCode, ImageSize, ObjectKeys, Outcome, Purpose,
    Recognition, Reply, Request, TimingMs, WorkerCpu, now_ms,
};
use muster_queue::{Deleter, Outgoing, QueueError, Receipt, Received};
use muster_recognize::embed::Embedding;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStoreExt, PutMode, PutPayload};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::aws::{self, ThisInstance};
use crate::backend::{Backend, Role};
use crate::catalogue::Catalogue;
use crate::config::{FleetKind, Settings, seconds};
use crate::cpu;
use crate::live_gallery::LiveGallery;
use crate::logging;
use crate::pauses;
use crate::traces::Traces;
pub use decide::Judge;
pub use inference::image_failure;
use inference::{Analyzed, Inference, InferenceError};
use replies::Replies;

/// Requests in hand at one time: one at the models, the others being fetched or answered.
const IN_HAND: usize = 3;
/// The same where storage and queues are across a network: fetching, storing and answering take
/// several times as long as the models do.
const IN_HAND_REMOTE: usize = 6;
/// Bytes of a reply that go over the queue; a larger result is pointed to. SQS took 256 KiB for long,
/// and servers that speak its protocol may still.
const MAX_REPLY_BYTES: usize = 200 << 10;
/// One long poll on this machine; a drain cuts it short.
const POLL: Duration = Duration::from_secs(20);
/// The same across a network, where a drain waits for its end: a service that does not notice that
/// nobody listens any more gives the next request to a poll that was cut, and it is gone for the
/// visibility timeout.
const POLL_REMOTE: Duration = Duration::from_secs(5);
/// After its parent's end, a worker finishes what it has for at most this long.
const ORPHAN_DRAIN: Duration = Duration::from_secs(5);

/// How this worker was started.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// The instance's id; EC2's own where this is an instance of an EC2 fleet and none is given.
    pub id: Option<String>,
    /// Whether the end of standard input means that the parent is gone and to drain.
    pub exit_with_stdin: bool,
}

/// Drains when standard input ends: the parent holds the other end and the kernel closes it
/// however the parent dies.
fn watch_stdin(drain: CancellationToken) -> anyhow::Result<()> {
    std::thread::Builder::new()
        .name("parent".into())
        .spawn(move || {
            let mut buffer = [0; 64];
            while !matches!(std::io::stdin().read(&mut buffer), Ok(0) | Err(_)) {}
            drain.cancel();
            std::thread::sleep(ORPHAN_DRAIN);
            tracing::error!("the drain did not end in time after the parent had gone");
            std::process::exit(1);
        })
        .context("start the thread that watches the parent")?;
    Ok(())
}

/// Runs until `drain`, then finishes what is in hand and hands back what was not started.
///
/// # Errors
/// When the models are missing or damaged, or the data folder can not be used.
pub async fn run(
    settings: Settings,
    options: WorkerOptions,
    drain: CancellationToken,
) -> anyhow::Result<()> {
    if options.exit_with_stdin {
        watch_stdin(drain.clone())?;
    }
    let started = Instant::now();
    let started_at_ms = now_ms();
    let on_ec2 = settings.fleet == FleetKind::Ec2;
    let instance = match &options.id {
        None if on_ec2 => Some(ThisInstance::find().await?),
        _ => None,
    };
    let id = match (&instance, options.id) {
        (Some(instance), _) => instance.id.clone(),
        (None, given) => given.unwrap_or_else(|| "worker".to_owned()),
    };
    logging::identify(logging::INSTANCE, &id);
    let traces = Traces::start(&settings, "muster-worker", &id)?;
    let installation = settings.installation()?;
    let catalogue = Catalogue::open(&settings)?;
    // The models load while the stores and queues are opened.
    let inference = Inference::start(installation.clone(), &settings)?;
    let backend = Backend::open(&settings, Role::Worker).await?;
    let gallery = LiveGallery::load(backend.gallery.clone())
        .await
        .context("load the gallery")?;
    inference.ready().await?;
    let model = gallery
        .held(|gallery| {
            catalogue.expect(gallery)?;
            anyhow::Ok(catalogue.model_of(gallery))
        })
        .await?;
    if model != installation.embedder().name {
        // Before a request is taken that could not be answered.
        tokio::task::spawn_blocking(move || installation.other_embedder(&model))
            .await
            .context("verify the gallery's model")?
            .context("find the gallery's model")?;
    }
    let remote = backend.sdk.is_some();
    let in_hand = if remote { IN_HAND_REMOTE } else { IN_HAND };
    let tasks = TaskTracker::new();
    let (receipts, deleting) = Deleter::new(Arc::clone(&backend.requests), backend.deletions());
    let deleting = tokio::spawn(deleting);
    let worker = Arc::new(Worker {
        replies: Replies::new(&backend),
        backend,
        inference,
        gallery,
        receipts,
        id,
        judge: Judge::new(&settings, catalogue.clone()),
        catalogue,
        max_receives: settings.max_receives,
        processing_timeout: seconds(settings.processing_timeout_s),
        visibility_timeout: seconds(settings.visibility_timeout_s),
        drain: drain.clone(),
        traces: traces.clone(),
        answered: AtomicU64::new(0),
        failures: AtomicU32::new(0),
    });
    tracing::info!(
        boot_ms = started.elapsed().as_millis() as u64,
        "the worker takes requests"
    );
    let places = Arc::new(Semaphore::new(in_hand));
    let ended = CancellationToken::new();
    let following = tokio::spawn(worker.gallery.clone().follow(ended.clone()));
    let reporting = on_ec2.then(|| {
        let (worker, tasks) = (Arc::clone(&worker), tasks.clone());
        let busy = move || !tasks.is_empty();
        tokio::spawn(report::run(worker, busy, started_at_ms, ended.clone()))
    });
    let interruption = instance.map(|instance| {
        let drain = drain.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = drain.cancelled() => {}
                () = instance.interrupted() => {
                    tracing::warn!("EC2 takes this Spot instance back: what is in hand is finished first");
                    drain.cancel();
                }
            }
        })
    });
    if writeln!(std::io::stdout(), "{READY_LINE}").is_err() {
        tracing::warn!("nobody reads that the worker is ready: its parent is gone");
        drain.cancel();
    }

    // Across a network a receive costs as much for one request as for several.
    let least = if remote { in_hand / 2 } else { 1 };
    while !drain.is_cancelled() {
        let mut taken = Arc::clone(&places)
            .acquire_many_owned(least as u32)
            .await
            .context("take a place in hand")?;
        let max = least + places.available_permits();
        // A worker that can do nothing at present leaves the requests to others.
        let failures = worker.failures.load(Ordering::Relaxed);
        if failures > 0 {
            tokio::select! {
                () = drain.cancelled() => break,
                () = tokio::time::sleep(pauses::after(failures)) => {}
            }
        }
        let received = if remote {
            // What it brings after a drain has begun is handed back like all that was not started.
            worker.backend.requests.receive(max, POLL_REMOTE).await
        } else {
            tokio::select! {
                biased;
                () = drain.cancelled() => break,
                received = worker.backend.requests.receive(max, POLL) => received,
            }
        };
        let received = match received {
            Ok(received) => received,
            Err(error) => {
                aws::failed("could not receive requests", &error);
                worker.failures.fetch_add(1, Ordering::Relaxed);
                continue;
            }
        };
        for message in received {
            let permit = match taken.split(1) {
                Some(permit) => permit,
                None => Arc::clone(&places)
                    .acquire_owned()
                    .await
                    .context("take a place in hand")?,
            };
            tasks.spawn(Arc::clone(&worker).handle(message, permit));
        }
    }
    tasks.close();
    tasks.wait().await;
    ended.cancel();
    following.await.context("follow the gallery")?;
    if let Some(reporting) = reporting {
        reporting.await.context("report to the controller")?;
    }
    if let Some(interruption) = interruption {
        drain.cancel();
        interruption.await.context("watch for an interruption")?;
    }
    // The last handles: what was accepted is sent and deleted before the process ends.
    let worker = Arc::into_inner(worker).context("end the worker's tasks")?;
    let Worker {
        replies, receipts, ..
    } = worker;
    drop(receipts);
    deleting.await.context("delete what was answered")?;
    replies.close().await;
    traces.stop().await;
    tracing::info!("the worker has drained");
    Ok(())
}

struct Worker {
    backend: Backend,
    inference: Inference,
    gallery: LiveGallery,
    replies: Replies,
    receipts: Deleter,
    id: String,
    judge: Judge,
    catalogue: Catalogue,
    max_receives: u32,
    processing_timeout: Duration,
    visibility_timeout: Duration,
    drain: CancellationToken,
    traces: Traces,
    answered: AtomicU64,
    /// Receives and requests that failed in a row, for no fault of a photograph.
    failures: AtomicU32,
}

/// Why a request was not answered now; it comes back when its visibility timeout ends.
#[derive(Debug, thiserror::Error)]
enum HandleError {
    #[error("the object store failed")]
    Store(#[from] object_store::Error),
    #[error("the gallery could not be brought up to date")]
    Gallery(#[from] muster_recognize::gallery::GalleryError),
    #[error("the queue failed")]
    Queue(#[from] QueueError),
}

impl Worker {
    async fn handle(self: Arc<Self>, message: Received, in_hand: OwnedSemaphorePermit) {
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
                    error = %crate::Chain(&error),
                    "a message is not a request and goes to the dead-letter queue"
                );
                self.bury(&message).await;
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
            Ok(Answered::Done(how)) => {
                span.set("muster.outcome", how);
                drop(span);
                tracing::debug!(outcome = how, "a request was answered");
                self.answered.fetch_add(1, Ordering::Relaxed);
                self.failures.store(0, Ordering::Relaxed);
                // Another may take its place while the deletion waits for others.
                drop(in_hand);
                if let Err(error) = self.receipts.delete(receipt).await {
                    tracing::warn!(
                        error = %crate::Chain(&error),
                        "an answered request could not be deleted and will be answered again"
                    );
                }
            }
            Ok(Answered::NotStarted) => {
                span.set("muster.outcome", "handed_back");
                drop(span);
                self.hand_back(&receipt, Duration::ZERO).await;
            }
            Err(error) => {
                span.fail(error.to_string());
                drop(span);
                tracing::error!(
                    receive_count = message.receive_count,
                    error = %crate::Chain(&error),
                    "a request could not be answered and is handed back"
                );
                self.failures.fetch_add(1, Ordering::Relaxed);
                // Longer each time: a request must not be set aside for a store that is away.
                let wait = pauses::after(message.receive_count + 1);
                self.hand_back(&receipt, wait.min(self.visibility_timeout))
                    .await;
            }
        }
    }

    async fn hand_back(&self, receipt: &Receipt, wait: Duration) {
        let receipts = std::slice::from_ref(receipt);
        if let Err(error) = one(self.backend.requests.extend(receipts, wait).await) {
            tracing::warn!(error = %crate::Chain(&error), "a request could not be handed back");
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
                tracing::warn!(error = %crate::Chain(&error), "a visibility timeout was not extended");
            }
        }
    }

    /// Answers; a job that the queue would soon set aside by itself, without an outcome, is held for
    /// as long as a store or a queue fails.
    async fn answer_or_persist(
        &self,
        request: &Request,
        message: &Received,
    ) -> Result<Answered, HandleError> {
        let mut failures = 0;
        loop {
            let error = match self.answer(request, message).await {
                Err(error) if request.job && message.receive_count >= self.max_receives => error,
                outcome => return outcome,
            };
            failures += 1;
            self.failures.fetch_add(1, Ordering::Relaxed);
            if failures == 1 {
                tracing::error!(
                    receive_count = message.receive_count,
                    error = %crate::Chain(&error),
                    "a job could not be answered and is tried again"
                );
            }
            tokio::select! {
                () = self.drain.cancelled() => return Err(error),
                () = tokio::time::sleep(pauses::after(failures)) => {}
            }
        }
    }

    async fn answer(&self, request: &Request, message: &Received) -> Result<Answered, HandleError> {
        let received_ms = now_ms();
        if message.receive_count > self.max_receives {
            tracing::error!(
                receive_count = message.receive_count,
                "workers failed on a request too often; it goes to the dead-letter queue"
            );
            let failure = Failure {
                code: FailureCode::RecognitionFailed,
                detail: format!(
                    "workers did not come to an end with this photograph {} times; it was set \
                     aside for the operator: send it again later, or another",
                    self.max_receives
                ),
            };
            let how = self.deliver(request, Outcome::Failed(failure)).await?;
            one(self
                .backend
                .dead_letters
                .send(&[Outgoing::from(message)])
                .await)?;
            return Ok(Answered::Done(how));
        }
        let mut timing = TimingMs {
            queue: received_ms.saturating_sub(request.sent_at_ms) as f64,
            ..TimingMs::default()
        };
        let begun = Instant::now();
        let photo = match self.fetch(request).await? {
            Ok(photo) => photo,
            Err(failure) => {
                let how = self.deliver(request, Outcome::Failed(failure)).await?;
                return Ok(Answered::Done(how));
            }
        };
        let fetched = begun.elapsed();
        self.traces.stage(request.trace, "fetch", fetched);
        timing.fetch = millis(fetched);

        let mut models = request.models.clone();
        if models.is_empty() {
            let held = self
                .gallery
                .held(|gallery| self.catalogue.model_of(gallery));
            models.push(held.await);
        }
        let outcome = loop {
            let analysis = self
                .inference
                .analyze(photo.clone(), &models, self.processing_timeout, &self.drain)
                .await;
            let analyzed = match analysis {
                Ok(analyzed) => analyzed,
                Err(InferenceError::Refused(failure)) => break Outcome::Failed(failure),
                Err(InferenceError::Draining) => return Ok(Answered::NotStarted),
            };
            let spent = &analyzed.analysis.timing;
            let stages = [
                ("decode", spent.decode),
                ("detect", spent.detect),
                // Face by face in turns; each is shown as a whole.
                ("align", spent.align),
                ("embed", spent.embed),
            ];
            self.traces.stages(request.trace, analyzed.ended, stages);
            timing.decode = millis(spent.decode);
            timing.detect = millis(spent.detect);
            timing.align = millis(spent.align);
            timing.embed = millis(spent.embed);
            match request.purpose {
                Purpose::Embed { face } => break Outcome::Embedded(embedded(&analyzed, face)),
                Purpose::Recognize => match self.recognize(request, &analyzed, timing).await? {
                    Ok(outcome) => break outcome,
                    // It was changed meanwhile.
                    Err(OtherModel(model)) => models = vec![model],
                },
            }
        };
        let how = self.deliver(request, outcome).await?;
        Ok(Answered::Done(how))
    }

    /// Reads the photograph; the inner error is the client's answer.
    async fn fetch(
        &self,
        request: &Request,
    ) -> Result<Result<bytes::Bytes, Failure>, object_store::Error> {
        let key = self
            .backend
            .input_key(request.purpose, request.id, &request.file);
        let options = GetOptions {
            if_match: request.input_etag.clone(),
            ..GetOptions::default()
        };
        let failure = match self.backend.input.get_opts(&key, options).await {
            Ok(found) => match found.bytes().await {
                Ok(bytes) => return Ok(Ok(bytes)),
                Err(error) => return Err(error),
            },
            Err(object_store::Error::Precondition { .. }) => Failure {
                code: FailureCode::InputReplaced,
                detail: format!(
                    "another upload named {} replaced this photograph before it was read: send it \
                     again, under another name",
                    request.file.as_str()
                ),
            },
            Err(object_store::Error::NotFound { .. }) => Failure {
                code: FailureCode::InputMissing,
                detail: "the photograph is no longer stored: send it again".to_owned(),
            },
            Err(error) => return Err(error),
        };
        Ok(Err(failure))
    }

    async fn recognize(
        &self,
        request: &Request,
        Analyzed {
            analysis, models, ..
        }: &Analyzed,
        mut timing: TimingMs,
    ) -> Result<Result<Outcome, OtherModel>, HandleError> {
        let begun = Instant::now();
        // Whatever was enrolled before the request was sent is seen: it says which version that is.
        let faces = self
            .gallery
            .at_least(request.gallery_version, |gallery| {
                let model = self.catalogue.model_of(gallery);
                if models.first() == Some(&model) {
                    Ok((model, self.judge.decide(&analysis.faces, gallery)))
                } else {
                    Err(OtherModel(model))
                }
            })
            .await?;
        let (model, faces) = match faces {
            Ok(decided) => decided,
            Err(other) => return Ok(Err(other)),
        };
        let matched = begun.elapsed();
        self.traces.stage(request.trace, "match", matched);
        timing.match_ = millis(matched);
        timing.total = now_ms().saturating_sub(request.sent_at_ms) as f64;
        Ok(Ok(Outcome::Recognized(Box::new(Recognition {
            request_id: request.id,
            image: ImageSize {
                width: analysis.width,
                height: analysis.height,
            },
            faces,
            model,
            timing_ms: timing,
        }))))
    }

    /// Stores the result, then sends the reply; says in a word what came of the request.
    ///
    /// A failure never replaces what is stored: an answered request whose deletion was lost may come
    /// back until it counts as failed. The reply then points to what is there.
    async fn deliver(
        &self,
        request: &Request,
        outcome: Outcome,
    ) -> Result<&'static str, HandleError> {
        let how = match &outcome {
            Outcome::Recognized(_) => "recognized",
            Outcome::Embedded(_) => "embedded",
            Outcome::Failed(_) => "failed",
            Outcome::Stored => "stored",
        };
        let mut reply = Reply::new(request.id, request.file.clone(), outcome);
        reply.cpu = cpu::beside_models().map(|used| WorkerCpu {
            instance: self.id.clone(),
            io_ms: millis(used),
        });
        let begun = Instant::now();
        if let Some(body) = stored(&reply, request, self.backend.keys) {
            let key = self.backend.output_key(request.id, &request.file);
            let mode = match &reply.outcome {
                Outcome::Failed(_) => PutMode::Create,
                _ => PutMode::Overwrite,
            };
            let payload = PutPayload::from(body);
            let put = self
                .backend
                .output
                .put_opts(&key, payload, mode.into())
                .await;
            match (put, &reply.outcome) {
                (Ok(_), _) if request.job => self.unless_deleted(request, &key).await?,
                (Ok(_), _) => {}
                (Err(object_store::Error::AlreadyExists { .. }), Outcome::Failed(_)) => {
                    reply.outcome = Outcome::Stored;
                }
                // Its client is told at least.
                (Err(error), Outcome::Failed(_)) if !request.job => {
                    aws::failed("a failure could not be stored", &error);
                }
                (Err(error), _) => return Err(error.into()),
            }
            self.traces.stage(request.trace, "store", begun.elapsed());
        }
        if let Outcome::Recognized(recognition) = &mut reply.outcome {
            recognition.timing_ms.store = millis(begun.elapsed());
        }
        let mut span = self
            .traces
            .send(request.trace, &request.reply_to, request.id);
        let body = match for_queue(reply) {
            Ok(body) => body,
            Err((whole, pointer)) => {
                // By file name, the output object has no more than a name.
                if self.backend.keys == ObjectKeys::Filename {
                    let key = self.backend.large_output_key(request.id, &request.file);
                    let payload = PutPayload::from(whole);
                    self.backend.output.put(&key, payload).await?;
                }
                pointer
            }
        };
        let attributes = span.attributes();
        let reply = Outgoing { body, attributes };
        match self.replies.send(&request.reply_to, reply).await {
            Err(QueueError::NotFound { .. }) => {
                span.fail("no_such_queue");
                tracing::warn!("the web tier that asked is gone; the result is stored");
                Ok(how)
            }
            Err(error) => {
                span.fail("not_queued");
                Err(error.into())
            }
            Ok(()) => Ok(how),
        }
    }

    /// Deletes what was just stored of a job whose photograph was deleted meanwhile: whoever deletes
    /// a job deletes the photograph first, and the result that is there by then.
    async fn unless_deleted(
        &self,
        request: &Request,
        stored: &Path,
    ) -> Result<(), object_store::Error> {
        let photo = self
            .backend
            .input_key(request.purpose, request.id, &request.file);
        match self.backend.input.head(&photo).await {
            Ok(_) => return Ok(()),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        match self.backend.output.delete(stored).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Moves a message that can not be read to the dead-letter queue.
    async fn bury(&self, message: &Received) {
        let sent = one(self
            .backend
            .dead_letters
            .send(&[Outgoing::from(message)])
            .await);
        let buried = match sent {
            Ok(_) => one(self
                .backend
                .requests
                .delete(std::slice::from_ref(&message.receipt))
                .await),
            Err(error) => Err(error),
        };
        if let Err(error) = buried {
            tracing::error!(error = %crate::Chain(&error), "a message could not be set aside");
        }
    }
}

enum Answered {
    /// In a word, how.
    Done(&'static str),
    NotStarted,
}

/// The model that the gallery is matched by, where it is not the one that embedded the faces.
struct OtherModel(String);

/// The answer to who wants a face embedded.
fn embedded(
    Analyzed {
        analysis, models, ..
    }: &Analyzed,
    face: Option<u32>,
) -> Embedded {
    let asked = analysis.faces.get(face.unwrap_or(0) as usize);
    let encode = |made: &Embedding| {
        base64::engine::general_purpose::STANDARD.encode::<Vec<u8>>(made.to_bytes())
    };
    let (model, others) = models.split_first().expect("a model embedded the faces");
    Embedded {
        model: model.clone(),
        found: analysis.faces.len() as u32,
        face: asked.map(|face| EmbeddedFace {
            bounds: decide::face_box(face),
            confidence: face.confidence,
            embedding: encode(&face.embedding),
            others: others
                .iter()
                .cloned()
                .zip(face.others.iter().map(encode))
                .collect(),
            quality: decide::face_quality(&face.quality),
        }),
    }
}

/// What is written to the output object; nothing of embeddings, which are for the gallery alone, and
/// nothing of a job that was deleted.
fn stored(reply: &Reply, request: &Request, keys: ObjectKeys) -> Option<Vec<u8>> {
    if let Purpose::Embed { .. } = request.purpose {
        return None;
    }
    if let Outcome::Failed(failure) = &reply.outcome
        && failure.code == FailureCode::InputMissing
        && request.job
    {
        return None;
    }
    let json = match (&reply.outcome, keys) {
        (Outcome::Embedded(_) | Outcome::Stored, _) => return None,
        (Outcome::Recognized(recognition), ObjectKeys::Filename) => {
            return Some(recognition.headline().as_bytes().to_vec());
        }
        (Outcome::Failed(_), ObjectKeys::Filename) => return None,
        (Outcome::Recognized(recognition), _) => serde_json::to_vec(recognition),
        (Outcome::Failed(failure), _) => serde_json::to_vec(failure),
    };
    Some(json.expect("a result has only string keys"))
}

/// The body of a reply; of one that is too large for the queue, the whole result and the body of a
/// reply that points to it.
fn for_queue(mut reply: Reply) -> Result<String, (Vec<u8>, String)> {
    let body = reply.to_json();
    match &reply.outcome {
        Outcome::Recognized(recognition) if body.len() > MAX_REPLY_BYTES => {
            let whole = serde_json::to_vec(recognition).expect("a result has only string keys");
            reply.outcome = Outcome::Stored;
            Err((whole, reply.to_json()))
        }
        _ => Ok(body),
    }
}

/// The outcome of a batch of one.
fn one<T>(outcomes: Result<Vec<Result<T, QueueError>>, QueueError>) -> Result<T, QueueError> {
    outcomes?.pop().expect("one entry has one outcome")
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use muster_jobs::{Decision, FaceBox, FaceReport, FileName, RequestId};

    use super::*;

    fn reply(faces: usize) -> Reply {
        let face = FaceReport {
            bounds: FaceBox {
                x: 0.0,
                y: 0.0,
                width: 10.0,
                height: 10.0,
            },
            landmarks: [[1.5; 2]; 5],
            confidence: 0.9,
            decision: Decision::Unknown,
            person: None,
            similarity: None,
            margin: None,
            cutoff: None,
            quality: None,
            candidates: Vec::new(),
            reasons: vec!["nobody is enrolled".to_owned()],
        };
        let recognition = Recognition {
            request_id: RequestId::new(),
            image: ImageSize {
                width: 10,
                height: 10,
            },
            faces: vec![face; faces],
            model: "sface".to_owned(),
            timing_ms: TimingMs::default(),
        };
        let outcome = Outcome::Recognized(Box::new(recognition));
        Reply::new(RequestId::new(), FileName::from_client("a.jpg"), outcome)
    }

    #[test]
    fn a_result_that_is_too_large_for_the_queue_is_pointed_to() {
        let small = reply(2);
        assert_eq!(for_queue(small.clone()).unwrap(), small.to_json());
        let large = reply(2000);
        let (whole, pointer) = for_queue(large.clone()).unwrap_err();
        assert!(whole.len() > MAX_REPLY_BYTES && pointer.len() < 1000);
        let pointer = Reply::from_json(&pointer).unwrap();
        assert_eq!((pointer.id, pointer.outcome), (large.id, Outcome::Stored));
        let whole: Recognition = serde_json::from_slice(&whole).unwrap();
        assert_eq!(Outcome::Recognized(Box::new(whole)), large.outcome);
    }
}
