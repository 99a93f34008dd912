//! The loop around [`plan()`]: observe the backlog and the fleet, apply, say what was done.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use muster_queue::{Queue, QueueError};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::fleet::{Fleet, FleetError, Instance, InstanceState};
use crate::learn::Learned;
use crate::plan::{Ledger, Observation, Policy, plan};

/// How long after one observation the next may begin: submissions in between are seen together.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(5);
/// How often a fleet that is working is observed at least, to see the backlog shrink.
const BUSY_INTERVAL: Duration = Duration::from_millis(50);
/// How often a settled fleet is observed at least.
const IDLE_INTERVAL: Duration = Duration::from_secs(10);
/// How often a fleet that is kept without work is observed at least.
const RELEASE_INTERVAL: Duration = Duration::from_secs(1);
/// How often a report is published whose reason alone has changed.
const REASON_INTERVAL: Duration = Duration::from_secs(1);
/// How often what was learned is handed out to be kept.
const KEEP_INTERVAL: Duration = Duration::from_secs(60);
/// Back-off after failed starts: doubles from the first to the last.
const FIRST_BACK_OFF: Duration = Duration::from_millis(250);
const LAST_BACK_OFF: Duration = Duration::from_secs(30);

/// What the controller last saw and decided; published whenever it changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FleetReport {
    /// Instances that are booting.
    pub pending: u32,
    /// Instances that take work.
    pub running: u32,
    /// Instances that finish what they have.
    pub draining: u32,
    /// The policy's lower bound.
    pub min: u32,
    /// The policy's upper bound.
    pub max: u32,
    /// The last plan's reason.
    pub reason: String,
    /// Every instance.
    pub instances: Vec<Instance>,
}

/// What a controller needs to run.
pub struct Controller<F> {
    /// The queue whose backlog the fleet follows.
    pub requests: Arc<dyn Queue>,
    /// The fleet.
    pub fleet: Arc<F>,
    /// The operator's bounds.
    pub policy: Policy,
    /// What the web tier has submitted and had answered, where it runs in this process.
    pub ledger: Option<watch::Receiver<Ledger>>,
    /// What earlier controllers have learned; updated now and then, and at the end.
    pub learned: watch::Sender<Learned>,
}

/// Launches held back after starts that failed: the wait doubles with each, and a start that
/// succeeds ends it.
#[derive(Default)]
struct BackOff {
    failures_seen: u64,
    consecutive: u32,
    until: Option<Instant>,
}

impl BackOff {
    fn observe(&mut self, now: Instant, failed_starts: u64, any_running: bool) {
        if failed_starts > self.failures_seen {
            self.failures_seen = failed_starts;
            self.fail(now);
        } else if any_running {
            self.consecutive = 0;
        }
        self.until = self.until.filter(|until| *until > now);
    }

    fn fail(&mut self, now: Instant) {
        let wait = doubled(self.consecutive);
        self.consecutive = self.consecutive.saturating_add(1);
        self.until = Some(now + wait);
        tracing::warn!(
            ?wait,
            self.consecutive,
            "a worker failed to start; launches wait"
        );
    }
}

fn doubled(times: u32) -> Duration {
    FIRST_BACK_OFF
        .saturating_mul(1 << times.min(16))
        .min(LAST_BACK_OFF)
}

/// Runs the controller until `shutdown`. The fleet is left as it is: its owner drains it.
///
/// A failure to observe is logged and retried; it changes nothing, since a fleet that cannot see
/// its backlog must neither grow nor shrink on a guess. `reports` gets every report that differs
/// from the one before, and one now and then while nothing changes.
pub async fn run<F: Fleet>(
    controller: Controller<F>,
    reports: watch::Sender<FleetReport>,
    shutdown: CancellationToken,
) {
    let mut learned = controller.learned.borrow().clone();
    let mut kept = Instant::now();
    let mut back_off = BackOff::default();
    let mut published: Option<(Instant, FleetReport)> = None;
    let mut failures = 0u32;
    loop {
        let wake = match step(&controller, &mut learned, &mut back_off).await {
            Ok((report, wake)) => {
                failures = 0;
                let news = published
                    .as_ref()
                    .is_none_or(|(_, last)| differs(last, &report));
                if news {
                    tracing::info!("{}", report.reason);
                }
                let due = published.as_ref().is_none_or(|(at, last)| {
                    at.elapsed() >= IDLE_INTERVAL
                        || at.elapsed() >= REASON_INTERVAL && report.reason != last.reason
                });
                if news || due {
                    reports.send_replace(report.clone());
                    published = Some((Instant::now(), report));
                }
                wake
            }
            Err(error) => {
                tracing::error!(
                    error = format!("{:#}", anyhow::Error::new(error)),
                    "the controller could not observe"
                );
                failures = failures.saturating_add(1);
                Wake::After(doubled(failures - 1))
            }
        };
        if kept.elapsed() >= KEEP_INTERVAL {
            kept = Instant::now();
            controller.learned.send_replace(learned.clone());
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = sleep_until(wake, &controller) => {}
        }
    }
    controller.learned.send_replace(learned);
}

/// When the controller is to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wake {
    /// After this long, whatever happens.
    After(Duration),
    /// When a request is sent or an instance changes state, and after this long at the latest.
    OnChange(Duration),
}

async fn sleep_until<F: Fleet>(wake: Wake, controller: &Controller<F>) {
    let at_most = match wake {
        Wake::After(wait) => return tokio::time::sleep(wait).await,
        Wake::OnChange(at_most) => at_most,
    };
    tokio::time::sleep(SHORTEST_INTERVAL).await;
    tokio::select! {
        () = controller.fleet.changed() => {}
        result = controller.requests.wait_for_send(at_most) => {
            if let Err(error) = result {
                tracing::error!(error = format!("{:#}", anyhow::Error::new(error)), "could not wait for requests");
                tokio::time::sleep(at_most).await;
            }
        }
    }
}

/// Why a step of the controller failed.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("could not count the backlog")]
    Queue(#[from] QueueError),
    #[error("could not list the fleet")]
    Fleet(#[from] FleetError),
}

async fn step<F: Fleet>(
    controller: &Controller<F>,
    learned: &mut Learned,
    back_off: &mut BackOff,
) -> Result<(FleetReport, Wake), StepError> {
    let counts = controller.requests.counts().await?;
    let instances = controller.fleet.instances().await?;
    let now = Instant::now();
    back_off.observe(
        now,
        controller.fleet.failed_starts(),
        instances
            .iter()
            .any(|instance| instance.state == InstanceState::Running),
    );
    let seen = Observation {
        // Wall-clock time, since what was learned outlives this process.
        now: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
        visible: counts.visible,
        in_flight: counts.in_flight,
        ledger: controller.ledger.as_ref().map(|ledger| *ledger.borrow()),
        instances,
        launches_held: back_off.until.is_some(),
    };
    learned.observe(&seen, &controller.policy);
    let made = plan(&seen, learned, &controller.policy);
    for _ in 0..made.launch {
        if let Err(error) = controller.fleet.launch().await {
            tracing::error!(
                error = format!("{:#}", anyhow::Error::new(error)),
                "a launch failed"
            );
            back_off.fail(now);
            break;
        }
    }
    for id in &made.drain {
        controller.fleet.drain(id).await?;
    }
    let instances = controller.fleet.instances().await?;
    let count = |state| instances.iter().filter(|i| i.state == state).count() as u32;
    let report = FleetReport {
        pending: count(InstanceState::Pending),
        running: count(InstanceState::Running),
        draining: count(InstanceState::Draining),
        min: controller.policy.min_instances,
        max: controller.policy.max_instances,
        reason: made.reason,
        instances,
    };
    let members = report.pending + report.running + report.draining;
    let idle = learned.backlog() == 0 && report.running == members;
    let wake = if idle {
        let at_most = if members == report.min {
            IDLE_INTERVAL
        } else {
            RELEASE_INTERVAL
        };
        let change = learned.next_change_s(&controller.policy);
        let change = change.and_then(|s| Duration::try_from_secs_f64(s).ok());
        Wake::OnChange(change.map_or(at_most, |change| change.clamp(BUSY_INTERVAL, at_most)))
    } else if members >= report.max {
        // No submission can change the plan: looking at each would only cost.
        Wake::After(BUSY_INTERVAL)
    } else {
        Wake::OnChange(BUSY_INTERVAL)
    };
    Ok((report, wake))
}

/// Whether two reports differ in more than the instances' ages and the backlog in the reason.
fn differs(a: &FleetReport, b: &FleetReport) -> bool {
    let shape = |report: &FleetReport| -> Vec<_> {
        report
            .instances
            .iter()
            .map(|i| (i.id.clone(), i.state))
            .collect()
    };
    (a.min, a.max) != (b.min, b.max) || shape(a) != shape(b)
}
