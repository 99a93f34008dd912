//! The loop around [`plan()`]: observe the backlog and the fleet, apply, say what was done.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use muster_queue::{Counts, Queue, QueueError};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::activity::{Activity, Follower};
use crate::fleet::{Fleet, FleetError, Instance, InstanceId, InstanceState};
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
/// How often a report is published that says nothing new: on S3 each is paid for.
const UNCHANGED_INTERVAL: Duration = Duration::from_secs(60);
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
    /// What was done since the controller began.
    #[serde(default)]
    pub activity: Activity,
}

/// What a controller needs to run.
pub struct Controller<F> {
    /// The queue whose backlog the fleet follows.
    pub requests: Arc<dyn Queue>,
    /// The fleet.
    pub fleet: Arc<F>,
    /// The operator's bounds.
    pub policy: Policy,
    /// What the web tier has submitted and had answered, where it is known here; a submission
    /// wakes the controller.
    pub ledger: Option<watch::Receiver<Ledger>>,
    /// Time between two counts of the backlog at least, unless the queue signals that something
    /// was sent: each costs a call on SQS.
    pub count_interval: Duration,
    /// What earlier controllers have learned; updated now and then, and at the end.
    pub learned: watch::Sender<Learned>,
}

/// Launches held back after starts that failed: the wait doubles with each, and a start that
/// succeeds ends it.
#[derive(Default)]
struct BackOff {
    failures_seen: u64,
    consecutive: u32,
    /// Instances that ran when it last looked: one that runs since then has started.
    running: HashSet<InstanceId>,
    until: Option<Instant>,
    /// What the last launch failed of, while launches are held and nothing has failed to start
    /// since.
    why: Option<String>,
}

impl BackOff {
    fn observe(&mut self, now: Instant, failed_starts: u64, instances: &[Instance]) {
        let running = instances
            .iter()
            .filter(|instance| instance.state == InstanceState::Running)
            .map(|instance| instance.id.clone())
            .collect();
        let before = std::mem::replace(&mut self.running, running);
        if failed_starts > self.failures_seen {
            self.failures_seen = failed_starts;
            self.why = None;
            self.fail(now, Duration::ZERO);
        } else if !self.running.is_subset(&before) {
            self.consecutive = 0;
        }
        self.until = self.until.filter(|until| *until > now);
        if self.until.is_none() {
            self.why = None;
        }
    }

    /// Holds launches for at least as long as the fleet says that they are sure to fail.
    fn fail(&mut self, now: Instant, at_least: Duration) {
        let wait = doubled(self.consecutive).max(at_least);
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
    mut controller: Controller<F>,
    reports: watch::Sender<FleetReport>,
    shutdown: CancellationToken,
) {
    let mut learned = controller.learned.borrow().clone();
    let mut kept = Instant::now();
    let mut back_off = BackOff::default();
    let mut follower = Follower::default();
    let mut published: Option<(Instant, FleetReport)> = None;
    let mut failures = 0u32;
    let mut counted = None;
    loop {
        let mut seen = Ledger::default();
        let looked = step(
            &mut controller,
            &mut seen,
            &mut counted,
            &mut learned,
            &mut back_off,
            &mut follower,
        );
        let wake = match looked.await {
            Ok((report, wake)) => {
                failures = 0;
                let news = published
                    .as_ref()
                    .is_none_or(|(_, last)| differs(last, &report));
                if news {
                    tracing::info!("{}", report.reason);
                }
                let due = published.as_ref().is_none_or(|(at, last)| {
                    at.elapsed() >= UNCHANGED_INTERVAL
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
                    "the controller could not observe or act"
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
            sent = sleep_until(wake, seen, &mut controller) => if sent {
                counted = None;
            },
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

/// Sleeps, and says whether the queue has signalled that something was sent.
async fn sleep_until<F: Fleet>(wake: Wake, seen: Ledger, controller: &mut Controller<F>) -> bool {
    let at_most = match wake {
        Wake::After(wait) => {
            tokio::time::sleep(wait).await;
            return false;
        }
        Wake::OnChange(at_most) => at_most,
    };
    tokio::time::sleep(SHORTEST_INTERVAL).await;
    let begun = Instant::now();
    tokio::select! {
        () = controller.fleet.changed() => false,
        () = submitted(controller.ledger.as_mut(), seen) => false,
        result = controller.requests.wait_for_send(at_most) => match result {
            // SQS has no signal: there, waiting ends with its time.
            Ok(()) => begun.elapsed() < at_most,
            Err(error) => {
                tracing::error!(error = format!("{:#}", anyhow::Error::new(error)), "could not wait for requests");
                tokio::time::sleep(at_most).await;
                false
            }
        }
    }
}

/// Returns when the web tier has submitted something, or has had its last answer, since the ledger
/// was as `seen`; never without a ledger.
async fn submitted(ledger: Option<&mut watch::Receiver<Ledger>>, seen: Ledger) {
    let Some(ledger) = ledger else {
        return std::future::pending().await;
    };
    let waits = |ledger: &Ledger| ledger.answered < ledger.submitted;
    let news = |now: &Ledger| now.submitted != seen.submitted || waits(&seen) && !waits(now);
    if ledger.wait_for(news).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Why a step of the controller failed.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("could not count the backlog")]
    Queue(#[from] QueueError),
    #[error("could not list the fleet")]
    List(#[source] FleetError),
    #[error("could not drain workers")]
    Drain(#[source] FleetError),
}

/// Counts the backlog, unless that was done a moment ago.
async fn count<F: Fleet>(
    controller: &Controller<F>,
    counted: &mut Option<(Instant, Counts)>,
) -> Result<Counts, QueueError> {
    let fresh = |(at, _): &&(Instant, Counts)| {
        // A look that comes a little early must not put the count off to the next.
        at.elapsed() + SHORTEST_INTERVAL < controller.count_interval
    };
    if let Some((_, counts)) = counted.as_ref().filter(fresh) {
        return Ok(*counts);
    }
    let at = Instant::now();
    let counts = controller.requests.counts().await?;
    *counted = Some((at, counts));
    Ok(counts)
}

async fn step<F: Fleet>(
    controller: &mut Controller<F>,
    ledger: &mut Ledger,
    counted: &mut Option<(Instant, Counts)>,
    learned: &mut Learned,
    back_off: &mut BackOff,
    follower: &mut Follower,
) -> Result<(FleetReport, Wake), StepError> {
    let counts = count(controller, counted).await?;
    let instances = controller.fleet.instances().await;
    let instances = instances.map_err(StepError::List)?;
    let now = Instant::now();
    back_off.observe(now, controller.fleet.failed_starts(), &instances);
    let launch_limit = match (&back_off.until, &back_off.why) {
        (None, _) => None,
        // Where launches fail, the stopped may be started all the same.
        (Some(_), Some(_)) => Some(controller.fleet.stopped().await),
        (Some(_), None) => Some(0),
    };
    let observed = controller
        .ledger
        .as_mut()
        .map(|ledger| *ledger.borrow_and_update());
    *ledger = observed.unwrap_or_default();
    let seen = Observation {
        // Wall-clock time, since what was learned outlives this process.
        now: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
        visible: counts.visible,
        in_flight: counts.in_flight,
        ledger: observed,
        instances,
        launch_limit,
    };
    learned.observe(&seen, &controller.policy);
    let made = plan(&seen, learned, &controller.policy);
    follower.decided(&made);
    if made.launch > 0
        && let Err(error) = controller.fleet.launch(made.launch).await
    {
        follower.activity.failed_launches += 1;
        let at_least = error.retry_after().unwrap_or_default();
        let why = format!("{:#}", anyhow::Error::new(error));
        tracing::error!(error = why, "a launch failed");
        back_off.why = Some(why);
        back_off.fail(now, at_least);
    } else if made.launch > 0 {
        follower.launched(seen.now, made.launch);
    }
    if !made.drain.is_empty() {
        let drained = controller.fleet.drain(&made.drain).await;
        drained.map_err(StepError::Drain)?;
        follower.activity.drained += made.drain.len() as u64;
    }
    follower.activity.failed_starts = controller.fleet.failed_starts();
    let instances = controller.fleet.instances().await;
    let instances = instances.map_err(StepError::List)?;
    let min = controller.policy.min_instances;
    follower.see(seen.now, &instances, learned.backlog(), min);
    let count = |state| instances.iter().filter(|i| i.state == state).count() as u32;
    let reason = match &back_off.why {
        Some(why) => format!("{} ({why})", made.reason),
        None => made.reason,
    };
    let report = FleetReport {
        pending: count(InstanceState::Pending),
        running: count(InstanceState::Running),
        draining: count(InstanceState::Draining),
        min,
        max: controller.policy.max_instances,
        reason,
        instances,
        activity: follower.activity.clone(),
    };
    let members = report.pending + report.running + report.draining;
    let idle = learned.backlog() == 0 && report.running == members;
    let wake = if idle {
        let at_most = if members > report.min {
            RELEASE_INTERVAL
        } else if controller.ledger.is_some() || controller.policy.count_lag.is_zero() {
            IDLE_INTERVAL
        } else {
            // Nothing but the count says that something was sent.
            controller.count_interval.max(BUSY_INTERVAL)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn instances(running: &[&str]) -> Vec<Instance> {
        let instance = |id: &&str| Instance {
            id: InstanceId((*id).to_owned()),
            state: InstanceState::Running,
            age: Duration::ZERO,
            busy: None,
        };
        running.iter().map(instance).collect()
    }

    #[test]
    fn only_a_start_that_succeeds_ends_the_doubling() {
        let mut back_off = BackOff::default();
        let now = Instant::now();
        let one = instances(&["one"]);
        back_off.observe(now, 0, &one);
        for (failures, doubled) in (1..).zip([1, 2, 4, 8, 16, 32, 64, 120, 120]) {
            back_off.observe(now, failures, &one);
            let wait = FIRST_BACK_OFF * doubled;
            assert_eq!(back_off.until, Some(now + wait));
            // One that runs all the time has not started.
            back_off.observe(now, failures, &one);
        }
        back_off.fail(now, Duration::ZERO);
        assert_eq!(back_off.until, Some(now + LAST_BACK_OFF), "a launch");

        back_off.observe(now, 9, &instances(&["one", "two"]));
        back_off.observe(now, 10, &one);
        assert_eq!(back_off.until, Some(now + FIRST_BACK_OFF));
    }
}
