//! The role from its start to its end: what it opens, the loop that receives, and the drain.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::FutureExt;
use futures::future::BoxFuture;
use muster_base::aws::{self, ThisInstance};
use muster_base::backend::{Backend, Role};
use muster_base::catalogue::Catalogue;
use muster_base::live_gallery::LiveGallery;
use muster_base::settings::{FleetKind, Settings};
use muster_base::traces::Traces;
use muster_base::{backoff, logging, signals};
use muster_fleet::READY_LINE;
use muster_gallery::Judge;
use muster_jobs::now_ms;
use muster_queue::Deleter;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::inference::Inference;
use super::orphan::orphaned;
use super::place::Place;
use super::replies::Replies;
use super::report;
use super::slot::Slot;
use super::steps::Steps;
use super::worker::Worker;

/// Requests in hand at one time: one at the models, the others being fetched or answered.
const IN_HAND: usize = 3;
/// Requests in hand where storage and queues are across a network: fetching, storing and answering take
/// several times as long as the models do.
const IN_HAND_REMOTE: usize = 6;
/// One long poll on this machine; a drain cuts it short.
const POLL: Duration = Duration::from_secs(20);
/// One long poll across a network, where a drain waits for its end and hands back what it brings: a
/// service that does not notice that nobody listens any more gives the next request to a poll that was
/// cut, and it is gone for the visibility timeout.
const POLL_REMOTE: Duration = Duration::from_secs(5);
/// How often a worker whose work does not get on looks whether it does again.
const LOOK: Duration = Duration::from_millis(250);
/// After its parent's end, a worker finishes what it has for at most this long, and the poll that is
/// waited for.
const ORPHAN_DRAIN: Duration = Duration::from_secs(5);

/// How this worker was started.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// The instance's id; EC2's own where this is an instance of an EC2 fleet and none is given.
    pub id: Option<String>,
    /// Whether the end of standard input means that the parent is gone and to drain.
    pub exit_with_stdin: bool,
}

/// Why a worker has ended, having answered what it had received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Drained,
    /// Nobody controls its EC2 instance any more, which is to be powered off.
    Orphaned,
}

/// Runs until `drain`, or until nobody controls its EC2 instance, then answers what was received before.
///
/// # Errors
/// When the models are missing or damaged, or the data folder can not be used.
pub fn run(
    settings: Settings,
    options: WorkerOptions,
    drain: CancellationToken,
) -> BoxFuture<'static, anyhow::Result<Ended>> {
    // Boxed here, so that all of the role is compiled with this crate and not with its caller.
    work_until(settings, options, drain).boxed()
}

async fn work_until(
    settings: Settings,
    options: WorkerOptions,
    drain: CancellationToken,
) -> anyhow::Result<Ended> {
    if options.exit_with_stdin {
        let poll = if settings.remote() {
            POLL_REMOTE
        } else {
            Duration::ZERO
        };
        signals::stop_with_parent(drain.clone(), poll + ORPHAN_DRAIN)?;
    }
    let started = Instant::now();
    let started_at_ms = now_ms();
    // A controller's child tells its parent how it fares, and its machine is not its own.
    let on_ec2 = settings.fleet.kind == FleetKind::Ec2 && !options.exit_with_stdin;
    let hung_timeout = if on_ec2 {
        settings.fleet.ec2.hung_timeout
    } else {
        settings.fleet.hung_timeout
    };
    let instance = match &options.id {
        None if on_ec2 => Some(ThisInstance::find().await?),
        _ => None,
    };
    let id = match (&instance, options.id) {
        (Some(instance), _) => instance.id.clone(),
        (None, given) => given.unwrap_or_else(|| "worker".to_owned()),
    };
    logging::identify(logging::INSTANCE, &id);
    let traces = Traces::start(&settings.traces, settings.queues.kind, "muster-worker", &id)?;
    let installation = settings.models.installation()?;
    let catalogue = Catalogue::open(&settings.models)?;
    // The models load while the stores and queues are opened.
    let inference = Inference::start(
        installation.clone(),
        settings.photographs.limits(),
        settings.photographs.max_tiles,
        &settings.storage.data_dir,
    )?;
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
        .await??;
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
        judge: Judge::new(settings.decisions.judge_options()),
        catalogue,
        max_receives: settings.queues.max_receives,
        processing_timeout: settings.worker.processing_timeout,
        limits: settings.photographs.limits(),
        visibility_timeout: settings.queues.visibility_timeout,
        drain: drain.clone(),
        traces: traces.clone(),
        answered: AtomicU64::new(0),
        failures: AtomicU32::new(0),
        steps: Steps::default(),
        slot: Slot::new(in_hand),
        // The models may take as long over a photograph.
        longest_step: settings.worker.processing_timeout.max(hung_timeout),
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
        let ended = ended.clone();
        tokio::spawn(report::run(
            worker,
            busy,
            started_at_ms,
            hung_timeout,
            ended,
        ))
    });
    let owns_machine = instance.is_some();
    let interruption = instance.map(|instance| {
        let drain = drain.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = drain.cancelled() => {}
                () = instance.interrupted() => {
                    tracing::warn!("EC2 reclaims this Spot instance: the worker finishes the requests that it has received");
                    drain.cancel();
                }
            }
        })
    });
    let watching = owns_machine.then(|| {
        let (worker, tasks) = (Arc::clone(&worker), tasks.clone());
        let timeout = settings.fleet.ec2.orphan_timeout;
        tokio::spawn(async move {
            let work = || tasks.is_empty().then(|| worker.answered.load(Ordering::Relaxed));
            tokio::select! {
                () = worker.drain.cancelled() => Ended::Drained,
                () = orphaned(&*worker.backend.state, timeout, work) => {
                    tracing::warn!(
                        ?timeout,
                        "this worker had nothing to do, and no controller acted, for so long: its instance is \
                         powered off"
                    );
                    worker.drain.cancel();
                    Ended::Orphaned
                }
            }
        })
    });
    if writeln!(std::io::stdout(), "{READY_LINE}").is_err() {
        tracing::warn!("nobody reads that the worker is ready: its parent is gone");
        drain.cancel();
    }
    let printing = options.exit_with_stdin.then(|| {
        let worker = Arc::clone(&worker);
        tokio::spawn(report::print(worker, hung_timeout, ended.clone()))
    });

    // Across a network a receive costs as much for one request as for several.
    let least = if remote { in_hand / 2 } else { 1 };
    while !drain.is_cancelled() {
        let full = worker.slot.full();
        let mut taken = Arc::clone(&places)
            .acquire_many_owned(least as u32)
            .await
            .context("take a place in hand")?;
        drop(full);
        let max = least + places.available_permits();
        // A worker that can do nothing at present leaves the requests to others.
        while !worker.gets_on() && !drain.is_cancelled() {
            tokio::time::sleep(LOOK).await;
        }
        let failures = worker.failures.load(Ordering::Relaxed);
        if failures > 0 {
            tokio::select! {
                () = drain.cancelled() => break,
                () = tokio::time::sleep(backoff::after(failures)) => {}
            }
        }
        let received = if remote {
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
        if drain.is_cancelled() || !worker.gets_on() {
            // By a poll that had begun before. Others are to have these.
            worker.hand_back_unseen(&received).await;
            continue;
        }
        let (mut again, first): (Vec<_>, Vec<_>) = received
            .into_iter()
            .partition(|message| (2..=worker.max_receives).contains(&message.receive_count));
        for message in first {
            let permit = match taken.split(1) {
                Some(permit) => permit,
                None => Arc::clone(&places)
                    .acquire_owned()
                    .await
                    .context("take a place in hand")?,
            };
            let place = Place::new(permit, &worker.slot);
            tasks.spawn(Arc::clone(&worker).handle(message, async { place }.boxed()));
        }
        drop(taken);
        // One that was received before may be what ended the worker that had it. It is alone in hand,
        // so that it takes nobody else's receives with it if it does so again.
        if !again.is_empty() {
            let alone = again.swap_remove(0);
            if !again.is_empty() {
                worker.hand_back_unseen(&again).await;
            }
            let others = CancellationToken::new();
            let guard = others.clone().drop_guard();
            let slot = Arc::clone(&worker.slot);
            let place = Place::alone(Arc::clone(&places), in_hand as u32, guard, slot);
            tasks.spawn(Arc::clone(&worker).handle(alone, place.boxed()));
            let _full = worker.slot.full();
            others.cancelled().await;
        }
    }
    tasks.close();
    tasks.wait().await;
    ended.cancel();
    following.await.context("follow the gallery")?;
    if let Some(reporting) = reporting {
        reporting.await.context("report to the controller")?;
    }
    if let Some(printing) = printing {
        printing.await.context("say that the worker is alive")?;
    }
    if let Some(interruption) = interruption {
        drain.cancel();
        interruption.await.context("watch for an interruption")?;
    }
    let ended = match watching {
        Some(watching) => watching.await.context("watch the controller's lease")?,
        None => Ended::Drained,
    };
    // The last handles: what was accepted is sent and deleted before the process ends.
    let worker = Arc::into_inner(worker).context("end the worker's tasks")?;
    let Worker {
        backend,
        replies,
        receipts,
        ..
    } = worker;
    drop(receipts);
    deleting.await.context("delete what was answered")?;
    replies.close().await;
    if owns_machine {
        // A stopped instance follows no deletion.
        let left = backend.gallery.leave_machine();
        left.context("remove the gallery from this instance")?;
    }
    traces.stop().await;
    tracing::info!("the worker has drained");
    Ok(ended)
}
