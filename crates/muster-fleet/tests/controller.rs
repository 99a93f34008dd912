//! The controller around real queues and real processes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_fleet::{
    Controller, Fleet, FleetReport, KeepAlive, Learned, LocalFleet, LocalFleetOptions, Policy,
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

async fn start(script: &str, max_instances: u32, idle_grace: Duration) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let queues = SqliteQueues::open(&folder.path().join("queue.db")).unwrap();
    let options = QueueOptions {
        visibility_timeout: Duration::from_secs(60),
        redrive: None,
        retention: Duration::from_secs(3600),
    };
    let queue = Queues::queue(&queues, "requests", &options).await.unwrap();
    let fleet = Arc::new(LocalFleet::new(LocalFleetOptions {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        drain_timeout: LIMIT,
    }));
    let (sender, reports) = watch::channel(FleetReport::default());
    let stop = CancellationToken::new();
    let controller = Controller {
        requests: Arc::clone(&queue),
        fleet: Arc::clone(&fleet),
        policy: Policy {
            min_instances: 0,
            max_instances,
            slots: 1,
            target_wait: Duration::from_secs(1),
            keep_alive: KeepAlive::Fixed(idle_grace),
            billing_minimum: Duration::ZERO,
            count_lag: Duration::ZERO,
            expected_boot: Duration::from_secs(1),
            expected_service: Duration::from_secs(1),
        },
        ledger: None,
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
    assert!(
        answered.elapsed() >= Duration::from_millis(250),
        "after the idle grace, not before"
    );
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
    let starts = running.fleet.failed_starts();
    assert!(
        (2..=5).contains(&starts),
        "{starts} starts in three seconds"
    );
    running.stop().await;
}
