//! The cheapest schedule that is known to keep the objective.
//!
//! It knows every arrival. What each level of the fleet is for, in each stretch of the trace, is told by how
//! many requests a fixed fleet of each size makes late there, or by what it serves of the smoothest rate
//! of service. The price of a late request is bisected until the replay has as many late ones as are
//! allowed. What remains is tried: runs are left out, moved and cut.

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::SeedableRng;

use super::autoscaler::{Autoscaler, BEST_KNOWN};
use super::engine::run;
use super::levels::{Levels, STEPS_PER_WAIT};
use super::load::Load;
use super::outcome::Outcome;
use super::peers::Fixed;
use super::random::unit;
use super::scenario::Scenario;
use super::schedule::{Rehearsal, Run, Schedule};

/// Stretches of the trace that levels are decided for, and how long they are kept after each, both in
/// objectives; in the order in which they are tried.
const STRETCHES: [(f64, f64); 5] = [(4.0, 0.0), (16.0, 1.0), (0.25, 0.0), (1.0, 1.0), (4.0, 1.0)];
/// Prices of a late request, in seconds of an instance: next to nothing, and more than any is worth.
const LOWEST_PRICE_S: f64 = 1e-2;
const HIGHEST_PRICE_S: f64 = 1e5;
/// Bisections of the price.
const PRICES: u32 = 12;
/// Requests that are replayed in the search, all together.
const REHEARSED: usize = 80_000_000;
/// Changes that are tried at most.
const CHANGES: usize = 1000;
/// What part of the price of a late request a change has to be worth.
const SPARED: f64 = 0.25;
/// How far, in seconds, a change moves or cuts a run at most.
const MOVED_S: f64 = 60.0;

/// Returns what the cheapest schedule does that was found to keep the objective: never one dearer than the
/// cheapest fixed fleet that keeps it. Where none of them does, it is the one that makes the fewest
/// requests late.
///
/// Where some request needs more than 256 instances, they are decided in groups, whose number is 256 at most:
/// what a finer schedule would save is given up then.
pub fn best_known(arrivals: &[f64], length_s: f64, scenario: &Scenario) -> Outcome {
    let load = Load::new(arrivals, scenario);
    let each = load.instances_a_level(scenario.max_instances);
    let needed = needed(&load, each, scenario.max_instances);
    let mut search = Search {
        replays: REHEARSED / arrivals.len().max(1),
        load: &load,
        scenario,
        best: None,
        price_s: HIGHEST_PRICE_S,
    };
    let as_late_as_allowed = (0..=STEPS_PER_WAIT).rev();
    for delay in as_late_as_allowed {
        let levels = Levels::smooth(&load, each, length_s, delay, scenario);
        if search.take(levels.runs(HIGHEST_PRICE_S, scenario), HIGHEST_PRICE_S) == 0 {
            search.bisect(&levels);
            break;
        }
    }
    for (stretch, kept) in STRETCHES {
        let wait_s = scenario.target_wait_s;
        search.bisect(&Levels::of_fixed(
            &load,
            each,
            &needed,
            stretch * wait_s,
            kept * wait_s,
        ));
    }
    search.change();
    let runs = search.best.map(|best| best.runs).unwrap_or_default();
    let schedule = Schedule::new(&runs, scenario.boot_s);
    let replay = |autoscaler| Outcome {
        name: BEST_KNOWN.to_owned(),
        ..run(arrivals, length_s, scenario, autoscaler)
    };
    let late = |outcome: &Outcome| {
        let late = outcome
            .waits
            .iter()
            .filter(|&&wait| wait > scenario.target_wait_s);
        late.count().saturating_sub(load.allowed_late())
    };
    let scheduled = replay(Autoscaler::Scheduled(schedule));
    let fixed = cheapest_fixed(arrivals, scenario).unwrap_or(scenario.max_instances);
    let fixed = replay(Autoscaler::Peer(Box::new(Fixed(fixed))));
    let of_fixed = (late(&fixed), fixed.instance_hours);
    if of_fixed < (late(&scheduled), scheduled.instance_hours) {
        fixed
    } else {
        scheduled
    }
}

/// How many levels of `each` instances a request needs, at least, to be in time, if there are always as many.
fn needed(load: &Load, each: u32, most: u32) -> Vec<u32> {
    let mut needed = vec![1; load.arrivals.len()];
    for levels in 1..=most.div_ceil(each) {
        let instances = (levels * each).min(most);
        if load.late(instances, |request| needed[request] = levels + 1) == 0 {
            break;
        }
    }
    needed
}

/// Returns the smallest fixed fleet that keeps the objective, if there is one.
pub fn cheapest_fixed(arrivals: &[f64], scenario: &Scenario) -> Option<u32> {
    let load = Load::new(arrivals, scenario);
    let keeps = |instances: u32| load.late(instances, |_| {}) <= load.allowed_late();
    let (mut too_few, mut enough) = (0, scenario.max_instances);
    if keeps(too_few) {
        return Some(too_few);
    }
    keeps(enough).then(|| {
        while enough - too_few > 1 {
            let middle = (too_few + enough) / 2;
            if keeps(middle) {
                enough = middle;
            } else {
                too_few = middle;
            }
        }
        enough
    })
}

struct Candidate {
    runs: Vec<Run>,
    /// Late requests beyond those that are allowed.
    excess: usize,
    late: usize,
    billed_s: f64,
}

struct Search<'a> {
    load: &'a Load<'a>,
    scenario: &'a Scenario,
    /// Replays that are left.
    replays: usize,
    best: Option<Candidate>,
    /// What a late request was worth in the best.
    price_s: f64,
}

impl Search<'_> {
    fn rehearse(&mut self, runs: Vec<Run>) -> Candidate {
        self.replays = self.replays.saturating_sub(1);
        let Rehearsal { late, billed_s } =
            Schedule::new(&runs, self.scenario.boot_s).rehearse(self.load, self.scenario);
        Candidate {
            runs,
            excess: late.saturating_sub(self.load.allowed_late()),
            late,
            billed_s,
        }
    }

    fn bisect(&mut self, levels: &Levels) {
        let (mut low_s, mut high_s) = (LOWEST_PRICE_S, HIGHEST_PRICE_S);
        for _ in 0..PRICES {
            if self.replays == 0 {
                return;
            }
            let price_s = (low_s * high_s).sqrt();
            if self.take(levels.runs(price_s, self.scenario), price_s) == 0 {
                high_s = price_s;
            } else {
                low_s = price_s;
            }
        }
    }

    /// Replays runs, takes them if they are better than the best so far, and returns how many requests
    /// too many are late.
    fn take(&mut self, runs: Vec<Run>, price_s: f64) -> usize {
        let found = self.rehearse(runs);
        let excess = found.excess;
        let key = |found: &Candidate| (found.excess, found.billed_s);
        if self
            .best
            .as_ref()
            .is_none_or(|best| key(&found) < key(best))
        {
            self.best = Some(found);
            self.price_s = price_s;
        }
        excess
    }

    /// Tries changes of the best, by the seed, and keeps those that are worth it.
    fn change(&mut self) {
        let Some(mut best) = self.best.take() else {
            return;
        };
        let mut random = SplitMix64::seed_from_u64(self.scenario.seed);
        let worth = |found: &Candidate, price_s: f64| found.billed_s + price_s * found.late as f64;
        for _ in 0..self.replays.min(CHANGES) {
            let price_s = SPARED * self.price_s;
            let Some(runs) = changed(&best.runs, &mut random) else {
                break;
            };
            let found = self.rehearse(runs);
            if found.excess <= best.excess && worth(&found, price_s) < worth(&best, price_s) {
                best = found;
            }
        }
        self.best = Some(best);
    }
}

/// Changes one run, or two, at random; nothing where there is none.
fn changed(runs: &[Run], random: &mut SplitMix64) -> Option<Vec<Run>> {
    let mut pick = |count: usize| (unit(random) * count as f64) as usize;
    let (kind, at, other) = (pick(5), pick(runs.len()), pick(runs.len()));
    let by_s = unit(random) * MOVED_S;
    let mut runs = runs.to_vec();
    let changed = runs.get_mut(at)?;
    match kind {
        0 => {
            runs.swap_remove(at);
        }
        1 => changed.ready_s += by_s,
        2 => changed.end_s -= by_s,
        3 => {
            let by_s = by_s - MOVED_S / 2.0;
            changed.ready_s = (changed.ready_s + by_s).max(0.0);
            changed.end_s += by_s;
        }
        _ => {
            runs[other].end_s += by_s;
            runs.swap_remove(at);
        }
    }
    runs.retain(|run| run.ready_s < run.end_s);
    Some(runs)
}
