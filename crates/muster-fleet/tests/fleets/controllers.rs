//! Two whole controllers on one store and one account.

use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_fleet::{Controller, FleetReport, KeepAlive, Learned, Policy, RequestTotals, run};
use muster_queue::{Queue, QueueOptions, Queues, SqliteQueues};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::account::{Account, Booter};
use crate::conformance::LIMIT;

const MAX: u32 = 5;
/// Well before a settled fleet is looked at again, which is every ten seconds.
const SOON: Duration = Duration::from_secs(5);

/// A controller with everything around it; aborting the task kills it.
fn controller(
    account: Account,
    queue: Arc<dyn Queue>,
    totals: Option<watch::Receiver<RequestTotals>>,
    acting: watch::Sender<u64>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let shutdown = CancellationToken::new();
        let lease = account.lease(&shutdown).await.unwrap();
        acting.send_replace(lease.fence());
        let endpoint = account.server.endpoint();
        let fleet = account.fleet_under(endpoint, Arc::clone(&lease)).await;
        let _booter = Booter::new(account, Arc::clone(&fleet), None);
        let controller = Controller {
            requests: queue,
            fleet,
            policy: Policy {
                keep_alive: KeepAlive::Fixed(Duration::from_secs(1)),
                billing_minimum: Duration::ZERO,
                count_lag: Duration::ZERO,
                expected_boot: Duration::from_secs(2),
                expected_service: Duration::from_secs(1),
                ..Policy::on_ec2(MAX)
            },
            totals,
            count_interval: Duration::from_secs(1),
            learned: watch::Sender::new(Learned::default()),
        };
        let reports = watch::Sender::new(FleetReport::default());
        tokio::select! {
            () = run(controller, reports, shutdown.clone()) => {}
            () = lease.keep(&shutdown) => {}
        }
    })
}

async fn queue() -> (Arc<dyn Queue>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let queues = SqliteQueues::open(&folder.path().join("queue.db")).unwrap();
    let options = QueueOptions {
        visibility_timeout: Duration::from_secs(60),
        redrive: None,
        retention: Duration::from_secs(3600),
    };
    let queue = Queues::queue(&queues, "requests", &options).await.unwrap();
    (queue, folder)
}

#[tokio::test]
async fn of_two_controllers_one_acts_and_the_other_takes_over() {
    let Some(mut account) = Account::new(MAX).await else {
        return;
    };
    account.lease_time = Duration::from_secs(4);
    let (queue, _folder) = queue().await;
    for _ in 0..4 {
        queue
            .send(&vec!["work".to_owned().into(); 10])
            .await
            .unwrap();
    }
    let [a, b] = [watch::Sender::new(0), watch::Sender::new(0)];
    let (mut fence_a, mut fence_b) = (a.subscribe(), b.subscribe());
    let first = controller(account.clone(), Arc::clone(&queue), None, a);
    let second = controller(account.clone(), Arc::clone(&queue), None, b);

    let watched = account.clone();
    let most = tokio::spawn(async move {
        let mut most = 0;
        loop {
            most = most.max(watched.instances().await.len());
            assert!(most <= MAX as usize, "{most} instances");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    account
        .until("the fleet has grown and is named", |there| {
            there.len() == MAX as usize && there.values().all(|seen| seen.slot.is_some())
        })
        .await;
    let before: Vec<_> = account.instances().await.into_keys().collect();
    let fences = [*fence_a.borrow(), *fence_b.borrow()];
    assert!(fences == [1, 0] || fences == [0, 1], "one acts: {fences:?}");
    let (killed, left, fence) = if fences == [1, 0] {
        (first, second, &mut fence_b)
    } else {
        (second, first, &mut fence_a)
    };
    killed.abort();
    let taken = tokio::time::timeout(LIMIT, fence.wait_for(|fence| *fence == 2)).await;
    taken.expect("the other takes over").unwrap();
    // Long enough for it to look a few times: it leaves the fleet as it is.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after: Vec<_> = account.instances().await.into_keys().collect();
    assert_eq!(before, after);
    queue.purge().await.unwrap();
    account
        .until("the fleet is gone", |there| there.is_empty())
        .await;
    assert!(!most.is_finished(), "never more than {MAX}");
    most.abort();
    left.abort();
}

#[tokio::test]
async fn a_submission_and_the_last_answer_are_acted_on_soon() {
    let Some(account) = Account::new(MAX).await else {
        return;
    };
    let (queue, _folder) = queue().await;
    let totals = watch::Sender::new(RequestTotals::default());
    let acting = watch::Sender::new(0);
    let mut fence = acting.subscribe();
    let known = Some(totals.subscribe());
    let running = controller(account.clone(), queue, known, acting);
    fence.wait_for(|fence| *fence == 1).await.unwrap();
    // Idle for a while: the look must come from the submission.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let submitted = Instant::now();
    totals.send_modify(|totals| totals.submitted = 1);
    account.until("a launch", |there| there.len() == 1).await;
    let launch = submitted.elapsed();
    account
        .until("it is named", |there| {
            there.values().all(|seen| seen.slot.is_some())
        })
        .await;
    let answered = Instant::now();
    totals.send_modify(|totals| totals.answered = 1);
    account
        .until("the fleet is gone", |there| there.is_empty())
        .await;
    let end = answered.elapsed();
    running.abort();
    println!("launched after {launch:?}, terminated after {end:?}");
    assert!(launch < SOON, "{launch:?}");
    assert!(end < SOON, "{end:?}");
}
