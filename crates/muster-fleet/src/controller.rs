//! The loop around [`plan()`]: observe the backlog and the fleet, apply, say what was done.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_queue::{Queue, QueueError};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::fleet::{Fleet, FleetError, Instance, InstanceState};
use crate::plan::{Observation, Policy, plan};

/// How long after one observation the next may begin: submissions in between are seen together.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(5);
/// How often a fleet that is working is observed at least, to see the backlog shrink.
const BUSY_INTERVAL: Duration = Duration::from_millis(50);
/// How often a settled fleet is observed at least.
const IDLE_INTERVAL: Duration = Duration::from_secs(10);
/// How often a report is published whose reason alone has changed.
const REASON_INTERVAL: Duration = Duration::from_secs(1);
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
    /// How long the fleet must have needed fewer instances before any is drained.
    pub idle_grace: Duration,
}

/// Backlogs of the last idle grace, to find their peak.
struct RecentBacklog {
    grace: Duration,
    seen: VecDeque<(Instant, u64)>,
}

impl RecentBacklog {
    fn note(&mut self, now: Instant, backlog: u64) -> u64 {
        self.seen.push_back((now, backlog));
        while self
            .seen
            .front()
            .is_some_and(|(at, _)| now.duration_since(*at) > self.grace)
        {
            self.seen.pop_front();
        }
        self.seen
            .iter()
            .map(|(_, backlog)| *backlog)
            .max()
            .unwrap_or(0)
    }
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
    let mut recent = RecentBacklog {
        grace: controller.idle_grace,
        seen: VecDeque::new(),
    };
    let mut back_off = BackOff::default();
    let mut published: Option<(Instant, FleetReport)> = None;
    let mut failures = 0u32;
    loop {
        let wake = match step(&controller, &mut recent, &mut back_off).await {
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
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = sleep_until(wake, &controller) => {}
        }
    }
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
    recent: &mut RecentBacklog,
    back_off: &mut BackOff,
) -> Result<(FleetReport, Wake), StepError> {
    let counts = controller.requests.counts().await?;
    let instances = controller.fleet.instances().await?;
    let now = Instant::now();
    let backlog = counts.visible + counts.in_flight;
    back_off.observe(
        now,
        controller.fleet.failed_starts(),
        instances
            .iter()
            .any(|instance| instance.state == InstanceState::Running),
    );
    let seen = Observation {
        backlog,
        peak_backlog: recent.note(now, backlog),
        instances,
        launches_held: back_off.until.is_some(),
    };
    let made = plan(&seen, &controller.policy);
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
    let settled = seen.peak_backlog == 0 && report.running == members && members == report.min;
    let wake = if settled {
        Wake::OnChange(IDLE_INTERVAL)
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
