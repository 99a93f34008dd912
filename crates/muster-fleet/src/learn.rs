//! What the controller learns while it runs: how long a boot and a request take, how many requests
//! come and when, and how long an idle instance is worth keeping.
//!
//! Everything is updated from one [`Observation`] after another and from nothing else, so that a
//! simulation learns what the service would. It can be stored and read back, and survives a
//! restart of the controller that way.

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backlog::BacklogEstimator;
use crate::bill::Bill;
use crate::boots::Boots;
use crate::fleet::{InstanceId, InstanceState};
use crate::observation::{Observation, RequestTotals};
use crate::policy::{KeepAlive, Policy, Scaling, instances_for};
use crate::season::{Season, ServiceModel};
use crate::tier::Tier;

mod arrivals;
mod capacity;
mod levels;
mod standing;
mod steady;
mod window;
mod worth;

use arrivals::Arrivals;
use capacity::{Believed, Capacity};
use levels::{Keeping, Levels};
use standing::{Requests, StandingQueue};
use steady::{SteadyLoad, Terms};
use window::{Quantity, Window};
use worth::{Look, Worth};

/// Answers that make one sample of the service time.
const ANSWERS_PER_SAMPLE: u64 = 4;
/// A boot is suspicious when it takes this many times the longest seen.
const HUNG: f64 = 1.5;
/// While no boot was seen, one may take this many times what the policy expects.
const UNKNOWN_BOOT: f64 = 3.0;
/// A worker of this machine before a fleet that is elsewhere is counted on for so long at least: the
/// machine may be busy, and no instance would be there sooner.
const LOCAL_PATIENCE_S: Seconds = 5.0;
/// What instances cost, and what they were used for, is forgotten at this rate.
const COSTS_MEMORY: Seconds = 7.0 * 86_400.0;

/// Longest time between two observations; with more the machine has slept, and nothing is known of
/// that time.
const MAX_OBSERVATION_GAP: Seconds = 60.0;

/// Seconds, as the planner counts them.
type Seconds = f64;

/// What was learned so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Learned {
    /// The last boots of the fleet's instances that were launched.
    boots: Boots,
    /// The last boots of those that had been stopped.
    stopped_boots: Boots,
    /// The last boots of this machine's workers before a fleet that is elsewhere.
    local_boots: Boots,
    /// The service time, in seconds for one request on one slot.
    service: Option<Window>,
    /// How the levels of the fleet were used.
    levels: Levels,
    /// The load's seasonal pattern.
    season: Season,
    /// What instances that stand are worth, where a late request has a price.
    worth: Worth,
    /// Instance-seconds in use, and those spent idle on nothing but what was expected.
    used: Seconds,
    ahead: Seconds,
    /// What instances cost today: not learned, and kept with what is.
    pub(crate) bill: Bill,
    #[serde(skip)]
    now: Seconds,
    #[serde(skip)]
    backlog: u64,
    #[serde(skip)]
    pending: HashSet<InstanceId>,
    /// What the next launch of the fleet's own is of.
    #[serde(skip)]
    next: Tier,
    /// When this machine's workers before the fleet were last needed.
    #[serde(skip)]
    local_needed: Option<Seconds>,
    /// Instances that were there before the first observation: how long they boot is not known.
    #[serde(skip)]
    inherited: HashSet<InstanceId>,
    /// `(timed, worked)` of the totals when the last sample was taken.
    #[serde(skip)]
    timed: Option<(u64, Duration)>,
    #[serde(skip)]
    arrivals: Arrivals,
    #[serde(skip)]
    load: SteadyLoad,
    /// What instances drain of what is planned.
    #[serde(skip)]
    capacity: Capacity,
    #[serde(skip)]
    standing: StandingQueue,
    #[serde(skip)]
    backlog_estimator: BacklogEstimator,
    #[serde(skip)]
    summary: Summary,
    /// Requests answered so far, as estimated where there are no totals.
    #[serde(skip)]
    answered: f64,
    #[serde(skip)]
    submitted_before: Option<f64>,
    #[serde(skip)]
    has_observed: bool,
}

/// Quantiles of the samples; kept, since a plan asks for them many times.
#[derive(Clone, Copy, Debug, Default)]
struct Summary {
    service_s: Option<Seconds>,
    service_cv2: Option<f64>,
}

impl Learned {
    /// Takes in what was observed; call it once for each observation, before the plan.
    pub fn observe(&mut self, observed: &Observation, policy: &Policy) {
        let now = observed.now.as_secs_f64();
        let first = !std::mem::replace(&mut self.has_observed, true);
        let elapsed = if first {
            0.0
        } else {
            (now - self.now).clamp(0.0, MAX_OBSERVATION_GAP)
        };
        let before = self.backlog;
        if first || now < self.now {
            self.reset_after_clock_change(now);
        }
        self.now = now;
        if first {
            self.summarise();
            let there = observed.instances.iter().filter(|i| !i.age.is_zero());
            self.inherited = there.map(|instance| instance.id.clone()).collect();
        }
        self.learn_boots(observed, policy);
        self.next = if observed.available.stopped > 0 {
            Tier::Stopped
        } else {
            policy.tier
        };
        self.bill.observe(observed.now, &observed.instances, policy);
        self.backlog = self
            .backlog_estimator
            .estimate(now, observed, policy.count_lag);

        let submitted = match &observed.totals {
            Some(totals) => {
                self.learn_service(totals);
                self.learn_drain(observed, totals, policy);
                totals.submitted as f64
            }
            // Without totals: what is there, and what must have been answered in between.
            None => {
                let slots = f64::from(observed.count(InstanceState::Running) * policy.slots.max(1));
                let busy = ((before as f64).min(slots) + (self.backlog as f64).min(slots)) / 2.0;
                self.answered += elapsed * busy / self.service_s(policy);
                self.answered + self.backlog as f64
            }
        };
        let before = self.submitted_before.replace(submitted);
        let came = (submitted - before.unwrap_or(submitted)).max(0.0);
        self.learn_arrivals(now, submitted, policy);
        self.learn_load(came, elapsed, policy);
        self.learn_season(came, elapsed, policy);
        self.learn_levels(policy);
        self.learn_local(observed, policy);
        self.learn_costs(observed, elapsed, policy);
    }

    /// Moves times that lie ahead of `now` back to it: the clock was set back, perhaps before a
    /// restart.
    fn reset_after_clock_change(&mut self, now: Seconds) {
        self.levels.set_back(now);
        self.local_needed = self.local_needed.map(|last| last.min(now));
        self.arrivals = Arrivals::default();
        self.backlog_estimator = BacklogEstimator::default();
        self.capacity = Capacity::default();
        self.standing = StandingQueue::default();
        self.worth.forget_times();
    }

    /// A boot that was given up took as long as it was given, at least.
    fn learn_boots(&mut self, observed: &Observation, policy: &Policy) {
        let mut learned = false;
        for instance in &observed.instances {
            let age_s = instance.age.as_secs_f64();
            let ended = match instance.state {
                InstanceState::Pending => false,
                InstanceState::Running => true,
                InstanceState::Draining => age_s > self.hung_s(instance.tier, policy),
            };
            if ended && self.pending.contains(&instance.id) {
                self.boots_mut(instance.tier, policy).push(age_s);
                learned = true;
            }
        }
        if learned {
            self.levels.boots_changed();
        }
        self.pending.clear();
        let pending = observed
            .instances
            .iter()
            .filter(|instance| instance.state == InstanceState::Pending)
            .filter(|instance| !self.inherited.contains(&instance.id));
        self.pending
            .extend(pending.map(|instance| instance.id.clone()));
    }

    fn learn_service(&mut self, totals: &RequestTotals) {
        let (timed, worked) = self.timed.get_or_insert((totals.timed, totals.worked));
        let answers = totals.timed.saturating_sub(*timed);
        if answers >= ANSWERS_PER_SAMPLE {
            let took = totals.worked.saturating_sub(*worked);
            (*timed, *worked) = (totals.timed, totals.worked);
            if !took.is_zero() {
                let mean = || Window::of(Quantity::Mean);
                let service = self.service.get_or_insert_with(mean);
                service.add(
                    answers as f64,
                    took.as_secs_f64(),
                    ANSWERS_PER_SAMPLE as f64,
                );
                self.summarise();
            }
        }
    }

    /// Compares what is answered with what was planned, and looks for requests that wait for too long.
    fn learn_drain(&mut self, observed: &Observation, totals: &RequestTotals, policy: &Policy) {
        self.capacity.observe(Believed {
            now: self.now,
            visible: observed.visible,
            backlog: self.backlog,
            answered: totals.answered,
            timed: totals.timed,
            worked_s: totals.worked.as_secs_f64(),
            instances: &observed.instances,
            slots: f64::from(policy.slots.max(1)),
            service_s: self.summary.service_s,
        });
        let target_s = policy.target_wait.as_secs_f64();
        let late_from = self.now - target_s - self.service_s(policy);
        let oldest = totals.oldest.map(|at| at.as_secs_f64());
        let requests = Requests {
            submitted: totals.submitted,
            answered: totals.answered,
            late: oldest.filter(|at| *at < late_from),
        };
        let runs = observed.count(InstanceState::Running) > 0;
        let interval_s = self.boot_s(policy).max(target_s);
        self.standing.observe(self.now, requests, runs, interval_s);
    }

    fn summarise(&mut self) {
        let service = self.service.as_ref().map(Window::estimate);
        // What is stored may be damaged: no request takes no time, or for ever.
        let service = service.filter(|service| service.rate().is_normal() && service.rate() > 0.0);
        if service.is_none() {
            self.service = None;
        }
        self.summary = Summary {
            service_s: service.map(|service| service.rate()),
            service_cv2: service.map(|service| service.variance / service.rate().powi(2)),
        };
    }

    fn learn_arrivals(&mut self, now: Seconds, submitted: f64, policy: &Policy) {
        let boot_s = self.boot_s(policy).max(self.boot_s_of(policy.tier, policy));
        let longest = boot_s.max(self.short_window_s(policy));
        self.arrivals.observe(now, submitted, self.backlog, longest);
    }

    fn learn_load(&mut self, came: f64, elapsed: Seconds, policy: &Policy) {
        let terms = self.terms(policy);
        self.load.observe(came, elapsed, terms.as_ref());
        if self.load.is_steady() {
            return self.arrivals.believe_no_growth();
        }
        let (late_s, window_s) = (self.standing.late_s(self.now), self.long_window_s(policy));
        self.arrivals
            .believe_growth(late_s, self.boot_s(policy), window_s);
    }

    /// What instances are staffed for; nothing where the operator says how long one is kept.
    fn terms(&self, policy: &Policy) -> Option<Terms> {
        let KeepAlive::Learned { at_most } = policy.keep_alive else {
            return None;
        };
        let (boot_s, at_most_s) = (self.boot_s(policy), at_most.as_secs_f64());
        let billed_s = policy.billing_minimum.as_secs_f64();
        Some(Terms {
            objective_s: policy.target_wait.as_secs_f64(),
            known_s: self.long_window_s(policy),
            kept_s: boot_s.max(billed_s).min(at_most_s),
            service_s: self.service_s(policy),
            service_cv2: self.summary.service_cv2.unwrap_or(1.0),
            slots: policy.slots,
            max_instances: policy.most_instances(),
            // Where nothing else is said, a late request is worth the longest that an instance idles.
            worth_s: policy.late_request.unwrap_or(at_most).as_secs_f64(),
            by_worth_alone: policy.late_request.is_some(),
        })
    }

    fn learn_season(&mut self, came: f64, elapsed: Seconds, policy: &Policy) {
        // What a guessed service time would make of a minute is not worth remembering.
        if self.summary.service_s.is_none() {
            return;
        }
        let service = ServiceModel {
            service_s: self.service_s(policy),
            slots: f64::from(policy.slots.max(1)),
            objective_s: policy.target_wait.as_secs_f64(),
            max_instances: policy.most_instances(),
        };
        let in_service = self.arrivals.in_service(service.service_s);
        self.season
            .observe(self.now, elapsed, came, in_service, service);
        if policy.late_request.is_some() {
            self.worth.observe(&Look {
                now: self.now,
                elapsed,
                came,
                in_service,
                wanted: self.wanted(policy),
                boot_s: self.boot_s(policy),
                service,
            });
        }
    }

    fn learn_levels(&mut self, policy: &Policy) {
        let used = self.in_use(policy) as usize;
        let keeping = self.keeping(policy);
        self.levels.observe(used, &keeping);
    }

    /// What it depends on how long idle instances are kept.
    fn keeping(&self, policy: &Policy) -> Keeping {
        Keeping {
            now: self.now,
            // Less than the time between two observations is no gap.
            shortest_gap_s: prompt_window_s(policy),
            boot_s: self.boot_s(policy),
            billed_s: policy.billing_minimum.as_secs_f64(),
            keep_alive: policy.keep_alive,
        }
    }

    /// This machine's workers are needed for what the fleet's running instances do not take.
    fn learn_local(&mut self, observed: &Observation, policy: &Policy) {
        let own = observed.instances.iter().filter(|instance| {
            instance.state == InstanceState::Running && !policy.is_before_the_fleet(instance.tier)
        });
        let own = own.count() as u32;
        let slots = u64::from(own) * u64::from(policy.slots.max(1));
        if self.backlog > slots || self.in_use(policy) > own {
            self.local_needed = Some(self.now);
        }
    }

    fn learn_costs(&mut self, observed: &Observation, elapsed: Seconds, policy: &Policy) {
        // This machine's workers are paid for anyway.
        let paid = |state| {
            let there = observed.instances.iter().filter(|i| i.state == state);
            there
                .filter(|i| !policy.is_before_the_fleet(i.tier))
                .count() as u32
        };
        let running = paid(InstanceState::Running);
        let members = running + paid(InstanceState::Pending);
        let local = policy.local_workers();
        let expected = self.expected_soon(policy).min(members + local);
        let ahead = expected.saturating_sub(self.kept_idle(policy).max(local));
        let used = self.in_use(policy).saturating_sub(local).min(running);
        let left = (-elapsed / COSTS_MEMORY).exp();
        self.ahead = self.ahead * left + elapsed * f64::from(ahead);
        self.used = self.used * left + elapsed * f64::from(used);
        self.levels.fade(left);
        self.worth.fade(left);
    }

    /// Requests submitted and not answered.
    pub fn backlog(&self) -> u64 {
        self.backlog
    }

    fn boots_mut(&mut self, tier: Tier, policy: &Policy) -> &mut Boots {
        match tier {
            Tier::Stopped => &mut self.stopped_boots,
            tier if policy.is_before_the_fleet(tier) => &mut self.local_boots,
            _ => &mut self.boots,
        }
    }

    /// What is known of a tier's boots. Of those that had been stopped, until some were seen, what is
    /// known of the others: they take no longer.
    fn boots_of(&self, tier: Tier, policy: &Policy) -> &Boots {
        match tier {
            Tier::Stopped if self.stopped_boots.median_s.is_some() => &self.stopped_boots,
            tier if policy.is_before_the_fleet(tier) => &self.local_boots,
            _ => &self.boots,
        }
    }

    fn expected_boot_s(tier: Tier, policy: &Policy) -> Seconds {
        let before = policy.local.filter(|_| tier == Tier::Local);
        before
            .map_or(policy.expected_boot, |local| local.expected_boot)
            .as_secs_f64()
    }

    /// The median boot of the fleet's next launch, in seconds.
    pub fn boot_s(&self, policy: &Policy) -> Seconds {
        self.boot_s_of(self.next, policy)
    }

    /// The median boot of a tier, in seconds.
    pub fn boot_s_of(&self, tier: Tier, policy: &Policy) -> Seconds {
        let known = self.boots_of(tier, policy).median_s;
        known.unwrap_or_else(|| Self::expected_boot_s(tier, policy))
    }

    /// From which age, in seconds, an instance of a tier that still boots is not counted on any more.
    pub fn hung_s(&self, tier: Tier, policy: &Policy) -> Seconds {
        let hung_s = match self.boots_of(tier, policy).longest_s {
            Some(longest_s) => HUNG * longest_s,
            None => UNKNOWN_BOOT * Self::expected_boot_s(tier, policy),
        };
        if policy.is_before_the_fleet(tier) {
            hung_s.max(LOCAL_PATIENCE_S)
        } else {
            hung_s
        }
    }

    /// Whether this machine's workers before the fleet are needed, or not idle for long enough to go.
    pub fn needs_local(&self, policy: &Policy) -> bool {
        let grace_s = policy.local.map(|local| local.idle_grace.as_secs_f64());
        match (self.local_needed, grace_s) {
            (Some(last), Some(grace_s)) => self.now <= last + grace_s,
            _ => false,
        }
    }

    /// Seconds that one request takes of one slot: what workers say, corrected by what instances drain.
    pub fn service_s(&self, policy: &Policy) -> Seconds {
        let said_s = self.summary.service_s;
        said_s.unwrap_or(policy.expected_service.as_secs_f64()) / self.capacity.mean()
    }

    /// What an instance drains, of what one does whose slots take [`Self::service_s`] for a request.
    pub(crate) fn speed(&self, id: &InstanceId) -> f64 {
        self.capacity.of(id)
    }

    /// Instances for the requests that stand, if there are any: each is to be answered once within the
    /// time that it may wait and is worked on (Little's law). Half the square root of them is added, since
    /// requests do not come evenly.
    pub(crate) fn standing(&self, policy: &Policy) -> u32 {
        let service_s = self.service_s(policy);
        let cycle_s = policy.target_wait.as_secs_f64() + service_s;
        let busy_slots = self.standing.requests() as f64 * service_s / cycle_s;
        let busy = busy_slots / f64::from(policy.slots.max(1));
        (busy + busy.sqrt() / 2.0).ceil() as u32
    }

    fn short_window_s(&self, policy: &Policy) -> Seconds {
        4.0 * policy.target_wait.as_secs_f64().max(self.service_s(policy))
    }

    fn long_window_s(&self, policy: &Policy) -> Seconds {
        self.boot_s(policy).max(self.short_window_s(policy))
    }

    /// Requests a second that are to be expected for as long as a boot takes: no more than came in
    /// as long a time before, unless the load has risen and earlier rises lasted; and no more than come just
    /// now; each a standard deviation less than was counted, so that chance launches nothing. Where requests
    /// take longer than they may wait, fewer seconds may tell more than many do.
    pub fn expected_rate(&self, policy: &Policy) -> f64 {
        let (short, long) = (self.short_window_s(policy), self.long_window_s(policy));
        let growth = self.growth(policy);
        let rate = |window| {
            less_a_deviation(self.arrivals.within(window)) / window + growth * window / 2.0
        };
        let risen = self.load.risen_rate(2.0 * long).unwrap_or(0.0);
        let prompt = prompt_window_s(policy);
        let at_once = rate(prompt.max(self.boot_s(policy))).min(rate(prompt));
        rate(long).max(risen).min(rate(short)).max(at_once)
    }

    /// By how much the requests a second become more each second, of a load that grows: the fleet fell behind
    /// for that, and it has gone on since.
    pub fn growth(&self, policy: &Policy) -> f64 {
        self.arrivals.growth(self.long_window_s(policy))
    }

    /// Instances that a load that goes on needs, as far as one is known.
    pub(crate) fn floor(&self) -> u32 {
        self.load.needed()
    }

    /// Whether the load has been the same for so long that what a moment brings is chance.
    pub(crate) fn is_steady(&self) -> bool {
        self.load.is_steady()
    }

    /// Instances that serve what is there within the objective and keep up with what comes, and those that
    /// a load that goes on needs; or those that the number of requests is worth.
    pub fn in_use(&self, policy: &Policy) -> u32 {
        if let Scaling::RequestsPerInstance(requests) = policy.scaling {
            return instances_for(self.backlog, requests).min(policy.most_instances());
        }
        if self.backlog == 0 {
            return self.floor();
        }
        let slot_s = self.service_s(policy) / f64::from(policy.slots.max(1));
        let within = policy.target_wait.as_secs_f64().max(self.service_s(policy));
        let clearing = self.backlog as f64 * slot_s / within;
        let window = self.short_window_s(policy);
        let came = self.arrivals.within(window);
        // Of a load that is known, the staffing keeps up. Otherwise: what a launch would mend before the
        // window is over need not be kept for a chance; what it would mend too late is kept with a deviation in
        // hand. The first tells nothing of how soon others follow.
        let came = if self.is_steady() {
            0.0
        } else if self.boot_s(policy) <= window {
            less_a_deviation(came)
        } else {
            (came - 1.0 + came.sqrt()).max(0.0)
        };
        let keeping_up = came / window * slot_s;
        let here = clearing.max(keeping_up).ceil() as u32;
        here.max(self.floor()).min(policy.most_instances())
    }

    /// Instances to launch by now for what is expected when they would be ready.
    pub fn expected_at_ready(&self, policy: &Policy) -> u32 {
        if !self.may_look_ahead(policy) {
            return 0;
        }
        let ready_s = self.now + self.lead_s(policy);
        let expected = self.season.forecast(ready_s).min(policy.most_instances());
        if self.load.is_exceeded_by(expected) {
            expected
        } else {
            0
        }
    }

    /// Instances that what is expected soon makes worth keeping: within the time of a boot, or that
    /// a launch would be billed anyway.
    fn expected_soon(&self, policy: &Policy) -> u32 {
        if !self.may_look_ahead(policy) {
            return 0;
        }
        let billed_s = policy.billing_minimum.as_secs_f64();
        let soon_s = self.lead_s(policy).max(billed_s);
        self.season.max_forecast(self.now, self.now + soon_s)
    }

    /// Says whether the cost of looking ahead leaves the whole below twice what one who knew the
    /// future would have paid.
    fn may_look_ahead(&self, policy: &Policy) -> bool {
        let (paid, clairvoyant) = self.levels.paid();
        matches!(policy.keep_alive, KeepAlive::Learned { .. })
            && self.ahead + paid <= self.used + 2.0 * clairvoyant
    }

    /// Nine of ten boots take no longer, in seconds.
    fn lead_s(&self, policy: &Policy) -> Seconds {
        let known = self.boots_of(self.next, policy).late_s;
        known.unwrap_or_else(|| Self::expected_boot_s(self.next, policy))
    }

    /// Instances that are in use, or expected to be soon, or not idle for long enough to be drained, or that
    /// stand for what a late request costs.
    pub fn worth_keeping(&self, policy: &Policy) -> u32 {
        self.wanted(policy).max(self.paid_for(policy))
    }

    /// The same, whatever a late request costs.
    fn wanted(&self, policy: &Policy) -> u32 {
        self.kept_idle(policy)
            .max(self.expected_soon(policy))
            .min(policy.most_instances())
    }

    /// Instances that stand because of what requests cost that would be late without them.
    pub(crate) fn paid_for(&self, policy: &Policy) -> u32 {
        let price = policy.late_request.map(|late| late.as_secs_f64());
        price.map_or(0, |price_s| self.worth.standing(price_s))
    }

    /// Instances that are in use or not idle for long enough to be drained.
    fn kept_idle(&self, policy: &Policy) -> u32 {
        self.levels.kept(&self.keeping(policy))
    }

    /// Seconds until the plan may change if nothing comes: an instance is no longer worth keeping,
    /// or what is expected of another minute comes within reach of a launch.
    pub fn next_change_s(&self, policy: &Policy) -> Option<Seconds> {
        let release = self.levels.next_release_s(&self.keeping(policy));
        let looks_ahead = matches!(policy.keep_alive, KeepAlive::Learned { .. });
        let minute = Season::until_next_minute_s(self.now + self.lead_s(policy));
        release
            .into_iter()
            .chain(looks_ahead.then_some(minute))
            .min_by(f64::total_cmp)
    }
}

/// Seconds in which what comes is told from what came before, however long requests take.
fn prompt_window_s(policy: &Policy) -> Seconds {
    4.0 * policy.target_wait.as_secs_f64()
}

/// One standard deviation less than a count of things that come by chance.
fn less_a_deviation(count: f64) -> f64 {
    (count - count.sqrt()).max(0.0)
}

#[cfg(test)]
mod tests;
