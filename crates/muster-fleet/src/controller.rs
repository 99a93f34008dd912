//! The loop around [`plan()`]: observe the backlog and the fleet, plan, apply, report.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use muster_queue::{Counts, Queue, QueueError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::activity::ActivityRecorder;
use crate::back_off::{BackOff, doubled};
use crate::fleet::{Fleet, FleetError, Instance, InstanceState};
use crate::learn::Learned;
use crate::observation::{Observation, RequestTotals};
use crate::plan::{Plan, plan};
use crate::policy::Policy;
use crate::report::FleetReport;
use crate::tier::{Tier, TierCounts};

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
/// How long a count of the backlog may take where the totals say as much.
const COUNT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often what was learned is published, to be stored.
const LEARNED_INTERVAL: Duration = Duration::from_secs(60);

/// What a controller needs to run.
pub struct Controller<F> {
    /// The queue whose backlog the fleet follows.
    pub requests: Arc<dyn Queue>,
    /// The fleet.
    pub fleet: Arc<F>,
    /// The operator's bounds.
    pub policy: Policy,
    /// What the web tiers have submitted and had answered, where it is known here; a submission
    /// wakes the controller.
    pub totals: Option<watch::Receiver<RequestTotals>>,
    /// Shortest time between two counts of the backlog, unless the queue signals that something
    /// was sent: each costs a call on SQS.
    pub count_interval: Duration,
    /// What earlier controllers have learned; updated now and then, and at the end.
    pub learned: watch::Sender<Learned>,
}

/// Runs the controller until `shutdown`. The fleet is left as it is: its owner drains it.
///
/// A failure to observe is logged and retried; it changes nothing, since a fleet that cannot see
/// its backlog must neither grow nor shrink on a guess. Where only the queue can not be counted, the
/// web tiers' own totals are followed. `reports` gets every report that differs
/// from the one before, and one now and then while nothing changes.
pub async fn run<F: Fleet>(
    controller: Controller<F>,
    reports: watch::Sender<FleetReport>,
    shutdown: CancellationToken,
) {
    let mut control = ControlLoop::new(controller);
    let mut publisher = Publisher {
        reports,
        published: None,
    };
    let mut stored_at = Instant::now();
    let mut failures = 0u32;
    loop {
        let wake = match control.step().await {
            Ok((report, wake)) => {
                failures = 0;
                publisher.publish(report);
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
        let spent = control
            .learned
            .bill
            .take_changed(&control.controller.policy);
        if spent || stored_at.elapsed() >= LEARNED_INTERVAL {
            stored_at = Instant::now();
            control.publish_learned();
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = control.sleep(wake) => {}
        }
    }
    control.publish_learned();
}

/// Publishes reports when they say something new, and now and then otherwise.
struct Publisher {
    reports: watch::Sender<FleetReport>,
    /// The last report and when it was published.
    published: Option<(Instant, FleetReport)>,
}

impl Publisher {
    fn publish(&mut self, report: FleetReport) {
        let last = self.published.as_ref();
        let is_new = last.is_none_or(|(_, last)| last.differs_from(&report));
        if is_new {
            tracing::info!("{}", report.reason);
        }
        let is_due = last.is_none_or(|(at, last)| {
            at.elapsed() >= UNCHANGED_INTERVAL
                || at.elapsed() >= REASON_INTERVAL && report.reason != last.reason
        });
        if is_new || is_due {
            self.reports.send_replace(report.clone());
            self.published = Some((Instant::now(), report));
        }
    }
}

/// When the controller is to observe again.
#[derive(Clone, Copy, Debug)]
enum Wake {
    /// After this long, whatever happens.
    After(Duration),
    /// When a request is sent or an instance changes state, and after a while at the latest.
    OnChange {
        /// The longest time.
        at_most: Duration,
        /// What had been submitted and answered at the last observation.
        observed: RequestTotals,
    },
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

/// A controller with what it knows from one step to the next.
struct ControlLoop<F> {
    controller: Controller<F>,
    learned: Learned,
    back_off: BackOff,
    /// Of this machine's workers, where they stand before the fleet.
    local_back_off: BackOff,
    recorder: ActivityRecorder,
    /// The last count of the backlog and when it was made; none once something was sent since.
    counted: Option<(Instant, Counts)>,
    /// Counts that failed in a row, and when the next is due.
    uncounted: Option<(u32, Instant)>,
}

impl<F: Fleet> ControlLoop<F> {
    fn new(controller: Controller<F>) -> Self {
        let learned = controller.learned.borrow().clone();
        Self {
            controller,
            learned,
            back_off: BackOff::default(),
            local_back_off: BackOff::default(),
            recorder: ActivityRecorder::default(),
            counted: None,
            uncounted: None,
        }
    }

    fn publish_learned(&self) {
        self.controller.learned.send_replace(self.learned.clone());
    }

    /// Observes, plans and applies the plan once.
    async fn step(&mut self) -> Result<(FleetReport, Wake), StepError> {
        let observed = self.observe().await?;
        self.learned.observe(&observed, &self.controller.policy);
        let made = plan(&observed, &self.learned, &self.controller.policy);
        self.recorder.record_plan(&made);
        self.apply(&made, observed.now).await?;
        let report = self.report(made.reason, observed.now).await?;
        let wake = self.next_wake(&report, observed.totals.unwrap_or_default());
        Ok((report, wake))
    }

    async fn observe(&mut self) -> Result<Observation, StepError> {
        let counts = self.count().await?;
        let Controller { fleet, policy, .. } = &self.controller;
        let instances = fleet.instances().await.map_err(StepError::List)?;
        let (local, own): (Vec<_>, Vec<_>) = instances
            .iter()
            .partition(|instance| policy.is_before_the_fleet(instance.tier));
        let now = Instant::now();
        self.back_off
            .observe(now, fleet.failed_starts(policy.tier), &own);
        let mut available = match (self.back_off.is_holding(), self.back_off.reason()) {
            // Where launches fail, stopped instances may be started nevertheless.
            (false, _) | (true, Some(_)) => TierCounts {
                stopped: fleet.stopped().await,
                ..TierCounts::UNLIMITED
            },
            (true, None) => TierCounts::default(),
        };
        if self.back_off.is_holding() {
            (available.local, available.ec2) = (0, 0);
        }
        if policy.local.is_some() {
            let failed = fleet.failed_starts(Tier::Local);
            self.local_back_off.observe(now, failed, &local);
            let held = self.local_back_off.is_holding();
            available.local = if held { 0 } else { u32::MAX };
        }
        let throttled = policy.local.is_some() && fleet.is_throttled();
        let totals = self.controller.totals.as_mut();
        Ok(Observation {
            // Wall-clock time, since what was learned outlives this process.
            now: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
            visible: counts.visible,
            in_flight: counts.in_flight,
            totals: totals.map(|totals| *totals.borrow_and_update()),
            instances,
            available,
            throttled,
        })
    }

    /// Counts the backlog, unless that was done a moment ago. While that fails, nothing is known
    /// beyond the totals, where there are some.
    async fn count(&mut self) -> Result<Counts, QueueError> {
        let interval = self.controller.count_interval;
        if let Some((at, counts)) = self.counted
            // A step that comes a little early must not put the count off to the next.
            && at.elapsed() + SHORTEST_INTERVAL < interval
        {
            return Ok(counts);
        }
        let at = Instant::now();
        let counts = self.controller.requests.counts();
        if self.controller.totals.is_none() {
            let counts = counts.await?;
            self.counted = Some((at, counts));
            return Ok(counts);
        }
        if self.uncounted.is_some_and(|(_, due)| at < due) {
            return Ok(Counts::default());
        }
        let error = match tokio::time::timeout(COUNT_TIMEOUT, counts).await {
            Ok(Ok(counts)) => {
                if self.uncounted.take().is_some() {
                    tracing::info!("the backlog is counted again");
                }
                self.counted = Some((at, counts));
                return Ok(counts);
            }
            Ok(Err(error)) => format!("{:#}", anyhow::Error::new(error)),
            Err(_) => format!("no answer within {COUNT_TIMEOUT:?}"),
        };
        let failures = self.uncounted.map_or(0, |(failures, _)| failures);
        if failures == 0 {
            tracing::error!(
                error,
                "the backlog can not be counted; the fleet follows the web tiers' own totals"
            );
        }
        self.counted = None;
        self.uncounted = Some((failures + 1, Instant::now() + doubled(failures)));
        Ok(Counts::default())
    }

    /// Launches and drains; a launch that fails is held against the next ones and is no error.
    async fn apply(&mut self, plan: &Plan, now: Duration) -> Result<(), StepError> {
        let Controller { fleet, policy, .. } = &self.controller;
        for (tier, count) in plan.launch.some() {
            let begun = Instant::now();
            match fleet.launch(tier, count).await {
                Ok(()) => self.recorder.record_launch(now, count),
                Err(error) => {
                    self.recorder.activity.failed_launches += 1;
                    let at_least = error.retry_after().unwrap_or_default();
                    let reason = format!("{:#}", anyhow::Error::new(error));
                    tracing::error!(error = reason, "a launch failed");
                    let back_off = if policy.is_before_the_fleet(tier) {
                        &mut self.local_back_off
                    } else {
                        &mut self.back_off
                    };
                    back_off.launch_failed(begun, reason, at_least);
                }
            }
        }
        if !plan.drain.is_empty() {
            let drained = fleet.drain(&plan.drain).await;
            drained.map_err(StepError::Drain)?;
            self.recorder.activity.drained += plan.drain.len() as u64;
        }
        Ok(())
    }

    /// Lists the fleet as it is after the plan.
    async fn report(&mut self, reason: String, now: Duration) -> Result<FleetReport, StepError> {
        let Controller { fleet, policy, .. } = &self.controller;
        self.recorder.activity.failed_starts = failed_starts(&**fleet, policy);
        let instances = fleet.instances().await.map_err(StepError::List)?;
        let backlog = self.learned.backlog();
        self.learned.bill.observe(now, &instances, policy);
        self.recorder
            .observe(now, &instances, backlog, policy.min_instances);
        let count = |state| instances.iter().filter(|i| i.state == state).count() as u32;
        Ok(FleetReport {
            pending: count(InstanceState::Pending),
            running: count(InstanceState::Running),
            draining: count(InstanceState::Draining),
            min: policy.min_instances,
            max: policy.most_instances(),
            reason: match self.back_off.reason().or(self.local_back_off.reason()) {
                Some(failure) => format!("{reason} ({failure})"),
                None => reason,
            },
            cost: {
                let own = |i: &&Instance| !policy.is_before_the_fleet(i.tier);
                let own = instances.iter().filter(own).count();
                self.learned.bill.cost(own, policy)
            },
            instances,
            activity: self.recorder.activity.clone(),
        })
    }

    fn next_wake(&self, report: &FleetReport, observed: RequestTotals) -> Wake {
        let Controller {
            policy,
            totals,
            count_interval,
            ..
        } = &self.controller;
        let members = report.pending + report.running + report.draining;
        let idle = self.learned.backlog() == 0 && report.running == members;
        let at_most = if idle {
            let at_most = if members > report.min {
                RELEASE_INTERVAL
            } else if totals.is_some() || policy.count_lag.is_zero() {
                IDLE_INTERVAL
            } else {
                // Nothing but the count says that something was sent.
                (*count_interval).max(BUSY_INTERVAL)
            };
            let at_most = if self.learned.bill.is_limited(policy) {
                at_most.min(RELEASE_INTERVAL)
            } else {
                at_most
            };
            let change = self.learned.next_change_s(policy);
            let change = change.and_then(|s| Duration::try_from_secs_f64(s).ok());
            change.map_or(at_most, |change| change.clamp(BUSY_INTERVAL, at_most))
        } else if members >= report.max {
            // No submission can change the plan: waking for each would only cost.
            return Wake::After(BUSY_INTERVAL);
        } else {
            BUSY_INTERVAL
        };
        Wake::OnChange { at_most, observed }
    }

    /// Sleeps until the controller is to observe again.
    async fn sleep(&mut self, wake: Wake) {
        let (at_most, observed) = match wake {
            Wake::After(wait) => return tokio::time::sleep(wait).await,
            Wake::OnChange { at_most, observed } => (at_most, observed),
        };
        tokio::time::sleep(SHORTEST_INTERVAL).await;
        let Controller {
            fleet,
            totals,
            requests,
            ..
        } = &mut self.controller;
        let begun = Instant::now();
        let uncounted = self.uncounted.is_some();
        let sent = async {
            let Err(error) = requests.wait_for_send(at_most).await else {
                // SQS has no signal: there, waiting ends with its time.
                return begun.elapsed() < at_most;
            };
            if !uncounted {
                tracing::error!(
                    error = format!("{:#}", anyhow::Error::new(error)),
                    "could not wait for requests"
                );
            }
            tokio::time::sleep(at_most).await;
            false
        };
        tokio::select! {
            () = fleet.changed() => {}
            () = requests_changed(totals.as_mut(), observed) => {}
            sent = sent => if sent {
                self.counted = None;
            }
        }
    }
}

/// The failed starts of all tiers.
fn failed_starts(fleet: &impl Fleet, policy: &Policy) -> u64 {
    let local = policy.local.map_or(0, |_| fleet.failed_starts(Tier::Local));
    fleet.failed_starts(policy.tier) + local
}

/// Returns when the web tiers have submitted something, or have had their last answer, since the
/// totals were as `observed`; never without totals.
async fn requests_changed(
    totals: Option<&mut watch::Receiver<RequestTotals>>,
    observed: RequestTotals,
) {
    let Some(totals) = totals else {
        return std::future::pending().await;
    };
    let waits = |totals: &RequestTotals| totals.answered < totals.submitted;
    let is_news = |now: &RequestTotals| {
        now.submitted != observed.submitted || waits(&observed) && !waits(now)
    };
    if totals.wait_for(is_news).await.is_err() {
        std::future::pending::<()>().await;
    }
}
