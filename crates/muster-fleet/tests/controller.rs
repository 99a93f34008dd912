//! The controller around real queues and real processes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use muster_fleet::{
    Controller, Fleet, FleetError, FleetReport, Instance, InstanceId, KeepAlive, Learned,
    LocalFleet, LocalFleetOptions, Policy, RequestTotals, Tier,
};
use muster_queue::{Queue, QueueOptions, Queues, SqliteQueues};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest wait for anything that a test expects to happen.
const LIMIT: Duration = Duration::from_secs(20);
/// A worker that is ready at once, takes no work, and ends when it is told to.
const WORKER: &str = "trap 'exit 0' TERM; exec 3<&0; cat <&3 & echo ready; wait";

struct Running {
    queue: Arc<dyn Queue>,
    fleet: Arc<LocalFleet>,
    reports: watch::Receiver<FleetReport>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

fn local(script: &str) -> Arc<LocalFleet> {
    Arc::new(LocalFleet::new(LocalFleetOptions {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        drain_timeout: LIMIT,
        // These workers say that they are ready, and nothing more.
        hung_timeout: LIMIT,
        nice: 0,
    }))
}

async fn start(script: &str, max_instances: u32, idle_grace: Duration) -> Running {
    let fleet = local(script);
    control(Arc::clone(&fleet), fleet, max_instances, idle_grace, None).await
}

/// Controls `controlled`, whose instances are those of `fleet`.
async fn control<F: Fleet>(
    controlled: Arc<F>,
    fleet: Arc<LocalFleet>,
    max_instances: u32,
    idle_grace: Duration,
    totals: Option<watch::Receiver<RequestTotals>>,
) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let queues = SqliteQueues::open(&folder.path().join("queue.db")).unwrap();
    let options = QueueOptions {
        visibility_timeout: Duration::from_secs(60),
        redrive: None,
        retention: Duration::from_secs(3600),
    };
    let queue = Queues::queue(&queues, "requests", &options).await.unwrap();
    let (sender, reports) = watch::channel(FleetReport::default());
    let stop = CancellationToken::new();
    let controller = Controller {
        requests: Arc::clone(&queue),
        fleet: controlled,
        policy: Policy {
            tier: Tier::Local,
            keep_alive: KeepAlive::Fixed(idle_grace),
            billing_minimum: Duration::ZERO,
            count_lag: Duration::ZERO,
            expected_boot: Duration::from_secs(1),
            expected_service: Duration::from_secs(1),
            ..Policy::on_ec2(max_instances)
        },
        totals,
        count_interval: Duration::from_millis(50),
        learned: watch::Sender::new(Learned::default()),
    };
    let task = tokio::spawn(muster_fleet::run(controller, sender, stop.clone()));
    Running {
        queue,
        fleet,
        reports,
        stop,
        task,
        _folder: folder,
    }
}

impl Running {
    async fn until(&mut self, what: &str, holds: impl FnMut(&FleetReport) -> bool) {
        tokio::time::timeout(LIMIT, self.reports.wait_for(holds))
            .await
            .expect(what)
            .unwrap();
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
        self.fleet.shut_down().await;
        assert!(self.fleet.instances().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn the_fleet_grows_from_zero_with_the_backlog_and_returns_to_zero() {
    let mut running = start(WORKER, 3, Duration::from_millis(300)).await;
    running
        .until("an empty fleet is reported", |report| report.max == 3)
        .await;
    assert!(running.fleet.instances().await.unwrap().is_empty());

    running.queue.send(&["a".to_owned().into()]).await.unwrap();
    running
        .until("one request brings one worker", |report| {
            report.running == 1
        })
        .await;
    running
        .queue
        .send(&vec!["b".to_owned().into(); 9])
        .await
        .unwrap();
    running
        .until("the backlog brings no more than the most", |report| {
            report.running == 3
        })
        .await;

    // In flight counts like visible: nothing is drained while a worker has it.
    let mut in_hand = running.queue.receive(10, LIMIT).await.unwrap();
    while in_hand.len() < 10 {
        in_hand.extend(running.queue.receive(10, LIMIT).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(
        running.reports.borrow().running,
        3,
        "in-flight requests hold the fleet"
    );

    let receipts: Vec<_> = in_hand.into_iter().map(|message| message.receipt).collect();
    let answered = Instant::now();
    running.queue.delete(&receipts).await.unwrap();
    running
        .until("the fleet returns to zero", |report| {
            report.pending + report.running + report.draining == 0
        })
        .await;
    // The grace counts from the last look at the requests, which was a while before.
    assert!(
        answered.elapsed() >= Duration::from_millis(150),
        "after the idle grace, not before"
    );
    running.stop().await;
}

/// The queue is gone: it can be neither counted nor waited on.
#[tokio::test]
async fn a_queue_that_can_not_be_counted_leaves_the_totals_to_scale_by() {
    let fleet = local(WORKER);
    let (totals, known) = watch::channel(RequestTotals::default());
    let grace = Duration::from_millis(300);
    let mut running = control(Arc::clone(&fleet), fleet, 2, grace, Some(known)).await;
    running
        .until("an empty fleet is reported", |report| report.max == 2)
        .await;
    running.queue.remove().await.unwrap();
    let begun = Instant::now();
    totals.send_modify(|totals| totals.submitted = 20);
    running
        .until("the fleet grows", |report| report.running == 2)
        .await;
    totals.send_modify(|totals| totals.answered = 20);
    running
        .until("the fleet returns to zero", |report| {
            report.pending + report.running + report.draining == 0
        })
        .await;
    assert!(begun.elapsed() < LIMIT / 2, "at once, not after a back-off");
    running.stop().await;
}

#[tokio::test]
async fn starts_that_fail_are_backed_off_from() {
    let mut running = start("exit 1", 2, Duration::from_millis(100)).await;
    running.queue.send(&["a".to_owned().into()]).await.unwrap();
    running
        .until("launches are held back", |report| {
            report.reason.contains("held back")
        })
        .await;
    // Four doublings from a quarter of a second take almost four seconds.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let starts = running.fleet.failed_starts(Tier::Local);
    assert!(
        (2..=5).contains(&starts),
        "{starts} starts in three seconds"
    );
    running.stop().await;
}

/// Keeps some stopped instances, and has no others for hours.
struct Shortage {
    fleet: Arc<LocalFleet>,
    stopped: AtomicU32,
}

#[async_trait]
impl Fleet for Shortage {
    async fn instances(&self) -> Result<Vec<Instance>, FleetError> {
        self.fleet.instances().await
    }

    async fn launch(&self, tier: Tier, count: u32) -> Result<(), FleetError> {
        let started = count.min(self.stopped.load(Ordering::Relaxed));
        self.fleet.launch(tier, started).await?;
        self.stopped.fetch_sub(started, Ordering::Relaxed);
        if started == count {
            return Ok(());
        }
        Err(FleetError::NoCapacity {
            missing: count - started,
            retry_after: Duration::from_secs(3600),
            last: "the only place: none".to_owned(),
        })
    }

    async fn stopped(&self) -> u32 {
        self.stopped.load(Ordering::Relaxed)
    }

    async fn drain(&self, ids: &[InstanceId]) -> Result<(), FleetError> {
        self.fleet.drain(ids).await
    }

    async fn changed(&self) {
        self.fleet.changed().await;
    }

    fn failed_starts(&self, tier: Tier) -> u64 {
        self.fleet.failed_starts(tier)
    }
}

#[tokio::test]
async fn the_stopped_are_started_while_launches_are_held_back() {
    let fleet = local(WORKER);
    let shortage = Arc::new(Shortage {
        fleet: Arc::clone(&fleet),
        stopped: AtomicU32::new(1),
    });
    let mut running = control(Arc::clone(&shortage), fleet, 5, LIMIT, None).await;
    running
        .queue
        .send(&vec!["a".to_owned().into(); 10])
        .await
        .unwrap();
    running
        .until("one is started and the others fail", |report| {
            report.running == 1 && report.reason.contains("held back")
        })
        .await;
    shortage.stopped.store(2, Ordering::Relaxed);
    running
        .until("those that are stopped by now are started", |report| {
            report.running == 3 && report.reason.contains("held back")
        })
        .await;
    assert_eq!(shortage.stopped().await, 0);
    running.stop().await;
}
