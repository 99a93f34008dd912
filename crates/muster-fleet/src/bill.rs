//! What the instances of a day (UTC) cost, counted from their ages, and what the operator's limits
//! leave of it.
//!
//! Invariant: what is paid for is counted, also what a launch commits to, and what controllers before
//! this one have spent; where it is not known how long an instance was there, it is counted longer.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fleet::{Instance, InstanceId, InstanceState};
use crate::policy::{Budget, LOOK_S, Policy};

const DAY_S: Seconds = 86_400.0;
const HOUR_S: Seconds = 3600.0;
/// Ages and the time are taken one after the other, from clocks that may differ by this much.
const TOLERANCE_S: Seconds = 5.0;

/// Seconds, as the planner counts them.
type Seconds = f64;

/// What the fleet has cost today.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Bill {
    /// The day, since the Unix epoch.
    day: u64,
    /// Instance-seconds of this day that are paid for instances that are gone.
    settled_s: Seconds,
    /// Instances that are there.
    runs: BTreeMap<InstanceId, Run>,
    #[serde(skip)]
    now: Seconds,
    /// Whether instances came or went since that was last asked.
    #[serde(skip)]
    changed: bool,
}

/// An instance from a launch or start on.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Run {
    launched_s: Seconds,
    /// What was before is settled.
    not_before_s: Seconds,
    seen_s: Seconds,
    /// When it was first seen to drain.
    draining_s: Option<Seconds>,
}

impl Run {
    /// Until when it is paid for, where it is there until `until`.
    fn paid_until(&self, until: Seconds, policy: &Policy, budget: &Budget) -> Seconds {
        let drained_s = self
            .draining_s
            .map_or(f64::INFINITY, |at| at + budget.drain_time.as_secs_f64());
        let minimum = self.launched_s + policy.billing_minimum.as_secs_f64();
        until.min(drained_s).max(minimum)
    }
}

/// What the limits allow from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// Instances at one time.
    pub at_a_time: u32,
    /// Of the instances that are there, those that may stay until the next look.
    pub stay: u32,
    /// Launches.
    pub launches: u32,
}

impl Allowance {
    const UNLIMITED: Self = Self {
        at_a_time: u32::MAX,
        stay: u32::MAX,
        launches: u32::MAX,
    };
}

/// What the fleet costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// The instances that are there, for as long as they are.
    pub dollars_per_hour: f64,
    /// Since midnight (UTC), with what is billed for a launch at least.
    pub dollars_today: f64,
    /// The operator's limit of the first.
    pub max_dollars_per_hour: Option<f64>,
    /// The operator's limit of the second.
    pub max_dollars_per_day: Option<f64>,
}

impl Bill {
    /// Takes in the instances that are there at `now`, since the Unix epoch; nothing where no price is
    /// known.
    pub fn observe(&mut self, now: Duration, instances: &[Instance], policy: &Policy) {
        let Some(budget) = &policy.budget else {
            return;
        };
        let now = now.as_secs_f64();
        self.now = now;
        let day = (now / DAY_S) as u64;
        // Where the clock was set back, the day that was thought to be over goes on.
        if day > self.day {
            self.settled_s = 0.0;
        }
        self.day = day;
        // What is paid for anyway costs nothing.
        let paid = |instance: &&Instance| !policy.is_before_the_fleet(instance.tier);
        let instances: Vec<_> = instances.iter().filter(paid).collect();
        let there: HashSet<_> = instances.iter().map(|instance| &instance.id).collect();
        let gone: Vec<_> = self
            .runs
            .extract_if(.., |id, _| !there.contains(id))
            .collect();
        for (_, run) in gone {
            let until = now.min(run.seen_s + budget.unattended.as_secs_f64());
            self.settle(&run, until, policy, budget);
        }
        for instance in instances {
            let launched_s = now - instance.age.as_secs_f64();
            let fresh = |not_before_s| Run {
                launched_s,
                not_before_s,
                seen_s: now,
                draining_s: None,
            };
            let known = self.runs.get(&instance.id).copied();
            let mut run = match known {
                Some(run) if launched_s <= run.seen_s + TOLERANCE_S => run,
                // Another of the same name, or one that was started again.
                Some(run) => {
                    self.settle(&run, run.seen_s, policy, budget);
                    fresh(run.seen_s)
                }
                None => {
                    self.changed = true;
                    fresh(0.0)
                }
            };
            // An age may turn out to be greater than was known.
            run.launched_s = run.launched_s.min(launched_s).max(run.not_before_s);
            run.seen_s = now;
            run.draining_s = match instance.state {
                InstanceState::Draining => run.draining_s.or(Some(now)),
                InstanceState::Pending | InstanceState::Running => None,
            };
            match self.runs.get_mut(&instance.id) {
                Some(known) => *known = run,
                None => drop(self.runs.insert(instance.id.clone(), run)),
            }
        }
    }

    fn settle(&mut self, run: &Run, until: Seconds, policy: &Policy, budget: &Budget) {
        self.settled_s += self.of_today(run, until, policy, budget);
        self.changed = true;
    }

    /// The seconds of an instance since midnight that are paid for if it is there until `until`.
    fn of_today(&self, run: &Run, until: Seconds, policy: &Policy, budget: &Budget) -> Seconds {
        let from = run.launched_s.max(self.day as f64 * DAY_S);
        (run.paid_until(until, policy, budget) - from).max(0.0)
    }

    /// Instance-seconds since midnight, if all that are there end at `until`.
    fn committed_s(&self, until: Seconds, policy: &Policy, budget: &Budget) -> Seconds {
        let runs = self.runs.values();
        let there: Seconds = runs
            .map(|run| self.of_today(run, until, policy, budget))
            .sum();
        self.settled_s + there
    }

    /// What the limits allow, where a boot takes `boot_s`.
    ///
    /// What is left of the day's limit when everything that is there has been ended pays for those
    /// that stay until the next look, and then for launches ([`Policy::launch_s`]).
    pub fn allowance(&self, boot_s: Seconds, policy: &Policy) -> Allowance {
        let Some(budget) = policy.budget.filter(|budget| budget.price_per_hour > 0.0) else {
            return Allowance::UNLIMITED;
        };
        let price = budget.price_per_hour;
        // Twelve times a price is twelve instances, whatever its last digit becomes.
        let at_a_time = |dollars: f64| (dollars / price + 1e-9) as u32;
        let hourly = Allowance {
            at_a_time: budget.max_dollars_per_hour.map_or(u32::MAX, at_a_time),
            ..Allowance::UNLIMITED
        };
        let Some(dollars) = budget.max_dollars_per_day else {
            return hourly;
        };
        let ended = self.now + budget.drain_time.as_secs_f64();
        let committed_s = self.committed_s(ended, policy, &budget);
        let left_s = (dollars / price * HOUR_S - committed_s).max(0.0);
        let (mut paid, mut growing) = (0u32, 0u32);
        for run in self.runs.values().filter(|run| run.draining_s.is_none()) {
            if self.is_paid(run, policy, &budget) {
                paid += 1;
            } else {
                growing += 1;
            }
        }
        let for_launches_s = (left_s - f64::from(growing) * LOOK_S).max(0.0);
        Allowance {
            stay: ((left_s / LOOK_S) as u32).saturating_add(paid),
            launches: (for_launches_s / policy.launch_s(boot_s)) as u32,
            ..hourly
        }
    }

    /// Says whether an instance that is there, and is ended at the next look only, costs nothing more.
    fn is_paid(&self, run: &Run, policy: &Policy, budget: &Budget) -> bool {
        let ended = self.now + budget.drain_time.as_secs_f64() + LOOK_S;
        ended <= run.launched_s + policy.billing_minimum.as_secs_f64()
    }

    /// Says whether an instance that is there costs more for staying until the next look.
    pub fn grows_with(&self, id: &InstanceId, policy: &Policy) -> bool {
        match (self.runs.get(id), &policy.budget) {
            (Some(run), Some(budget)) => !self.is_paid(run, policy, budget),
            _ => true,
        }
    }

    /// What the fleet costs, with so many of its own instances there.
    pub fn cost(&self, instances: usize, policy: &Policy) -> Option<Cost> {
        let budget = policy.budget?;
        let today_s = self.committed_s(self.now, policy, &budget);
        Some(Cost {
            dollars_per_hour: instances as f64 * budget.price_per_hour,
            dollars_today: today_s / HOUR_S * budget.price_per_hour,
            max_dollars_per_hour: budget.max_dollars_per_hour,
            max_dollars_per_day: budget.max_dollars_per_day,
        })
    }

    /// Whether instances are there whose cost nears a limit.
    pub fn is_limited(&self, policy: &Policy) -> bool {
        let limit = policy.budget.and_then(|budget| budget.max_dollars_per_day);
        limit.is_some() && !self.runs.is_empty()
    }

    /// Says whether instances came or went since this was last asked, where a day's limit depends on
    /// that being remembered.
    pub fn take_changed(&mut self, policy: &Policy) -> bool {
        let limit = policy.budget.and_then(|budget| budget.max_dollars_per_day);
        std::mem::take(&mut self.changed) && limit.is_some()
    }
}

#[cfg(test)]
mod tests;
