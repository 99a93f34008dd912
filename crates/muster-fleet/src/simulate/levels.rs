//! The levels of a fleet: the first instance, the second, and so on; or as many at a time.
//!
//! Fleets decouple by level (Lin, Wierman, Andrew and Thereska, "Dynamic right-sizing for
//! power-proportional data centers", 2011): the `n`-th instance is needed while the load exceeds
//! what `n - 1` serve, and whether it is stopped in between depends on its own gaps alone. So each
//! level has a dynamic program of its own.

use super::load::{Load, saved_by_each};
use super::scenario::Scenario;
use super::schedule::Run;

/// Steps in the time that a request may wait, for the smoothest rate of service.
pub(super) const STEPS_PER_WAIT: usize = 4;
/// Steps of a trace at most.
const MOST_STEPS: f64 = 1e6;

/// One stretch of the trace, for one level of the fleet.
struct Stretch {
    begin_s: f64,
    /// When an instance that is there for it may be drained.
    end_s: f64,
    /// How many requests less are late with this level, for each instance of it.
    saved: f64,
}

/// For each level of the fleet, the stretches that it saves late requests of.
pub(super) struct Levels {
    /// Instances of one level.
    each: u32,
    levels: Vec<Vec<Stretch>>,
}

impl Levels {
    /// By how many requests are late where fixed fleets serve them; `needed` is how many levels of `each`
    /// instances every one needs. A level is kept for `kept_s` after each stretch.
    pub(super) fn of_fixed(
        load: &Load,
        each: u32,
        needed: &[u32],
        stretch_s: f64,
        kept_s: f64,
    ) -> Self {
        let stretch = |request: usize| (load.arrivals[request] / stretch_s) as u64;
        let requests: Vec<usize> = (0..needed.len()).collect();
        let mut levels: Vec<Vec<Stretch>> = Vec::new();
        for together in requests.chunk_by(|a, b| stretch(*a) == stretch(*b)) {
            let most = together.iter().map(|request| needed[*request]).max();
            let mut late = vec![0usize; most.unwrap_or(0) as usize + 1];
            for request in together {
                late[needed[*request] as usize - 1] += 1;
            }
            for fewer in (0..late.len() - 1).rev() {
                late[fewer] += late[fewer + 1];
            }
            let begin_s = stretch(together[0]) as f64 * stretch_s;
            for (level, saved) in saved_by_each(&late).into_iter().enumerate() {
                if levels.len() == level {
                    levels.push(Vec::new());
                }
                levels[level].push(Stretch {
                    begin_s,
                    end_s: begin_s + stretch_s + kept_s,
                    saved: saved / f64::from(each),
                });
            }
        }
        Self { each, levels }
    }

    /// By what each level would serve of the smoothest rate by which no request waits longer than `delay`
    /// of [`STEPS_PER_WAIT`] parts of the objective.
    pub(super) fn smooth(
        load: &Load,
        each: u32,
        length_s: f64,
        delay: usize,
        scenario: &Scenario,
    ) -> Self {
        let wait_s = scenario.target_wait_s.max(scenario.service_s);
        let step_s = (wait_s / STEPS_PER_WAIT as f64).max(length_s / MOST_STEPS);
        let instance = step_s * f64::from(scenario.slots) / scenario.service_s;
        let served = instance * f64::from(each);
        let most = scenario.max_instances.div_ceil(each);
        let mut levels: Vec<Vec<Stretch>> = Vec::new();
        for (step, rate) in smoothest(load.arrivals, length_s, step_s, delay)
            .into_iter()
            .enumerate()
        {
            // What is a hair over a whole number of levels is rounding.
            let count = ((rate / served - 1e-9).ceil() as u32).min(most) as usize;
            let begin_s = step as f64 * step_s;
            levels.resize_with(levels.len().max(count), Vec::new);
            for (level, stretches) in levels[..count].iter_mut().enumerate() {
                stretches.push(Stretch {
                    begin_s,
                    end_s: begin_s + step_s,
                    saved: (rate - level as f64 * served).min(served) / f64::from(each),
                });
            }
        }
        Self { each, levels }
    }

    /// The cheapest runs where a late request costs `price_s` seconds of an instance.
    pub(super) fn runs(&self, price_s: f64, scenario: &Scenario) -> Vec<Run> {
        let mut runs = Vec::new();
        let mut left = scenario.max_instances;
        for level in &self.levels {
            let instances = self.each.min(left);
            left -= instances;
            let alike = runs_of(level, price_s, scenario);
            for _ in 0..instances {
                runs.extend_from_slice(&alike);
            }
        }
        runs
    }
}

/// How a level came to run in a stretch.
#[derive(Clone, Copy)]
enum Way {
    /// It ran in the one before.
    Kept,
    /// It was launched for this one, or for an earlier one since which its launch has paid.
    Launched(usize),
}

fn runs_of(level: &[Stretch], price_s: f64, scenario: &Scenario) -> Vec<Run> {
    let (boot_s, minimum_s) = (scenario.boot_s, scenario.billing_minimum_s);
    // What is there from the begin has no boot.
    let launch = |at: usize| {
        let begin_s = level[at].begin_s;
        if begin_s < boot_s {
            (0.0, 0.0)
        } else {
            (begin_s, boot_s)
        }
    };
    let cost = |from: usize, to: usize| {
        let (begin_s, boot_s) = launch(from);
        (boot_s + level[to].end_s - begin_s).max(minimum_s)
    };
    let paid_until = |at: usize| {
        let (begin_s, boot_s) = launch(at);
        begin_s + (minimum_s - boot_s).max(0.0)
    };
    let count = level.len();
    let mut off_s = vec![f64::INFINITY; count + 1];
    let mut stopped = vec![false; count + 1];
    let mut on: Vec<(f64, Way)> = vec![(f64::INFINITY, Way::Kept); count];
    off_s[0] = 0.0;
    let mut paid = 0;
    for at in 0..=count {
        if at > 0 && on[at - 1].0 < off_s[at] {
            (off_s[at], stopped[at]) = (on[at - 1].0, true);
        }
        if at == count {
            break;
        }
        paid = paid.max(at);
        while paid + 1 < count && level[paid + 1].end_s <= paid_until(at) {
            paid += 1;
        }
        for (to, on) in on.iter_mut().enumerate().skip(paid).take(2) {
            let launched_s = off_s[at] + cost(at, to);
            if launched_s < on.0 {
                *on = (launched_s, Way::Launched(at));
            }
        }
        if at > 0 {
            let kept_s = on[at - 1].0 + level[at].end_s - level[at - 1].end_s;
            if kept_s < on[at].0 {
                on[at] = (kept_s, Way::Kept);
            }
        }
        off_s[at + 1] = off_s[at] + price_s * level[at].saved;
    }
    let mut runs = Vec::new();
    let mut at = count;
    while at > 0 {
        if !stopped[at] {
            at -= 1;
            continue;
        }
        let last = at - 1;
        at = last;
        let from = loop {
            match on[at].1 {
                Way::Kept => at -= 1,
                Way::Launched(from) => break from,
            }
        };
        runs.push(Run {
            ready_s: launch(from).0,
            end_s: level[last].end_s.max(paid_until(from)),
        });
        at = from;
    }
    runs
}

/// The smoothest rate of service, in requests of each step, by which no request waits longer than
/// `delay` steps.
///
/// Of all rates that never run ahead of the arrivals nor fall behind them by more than `delay`
/// steps, the taut string between these two bounds has the least sum of any convex cost (Davies
/// and Kovac, "Local extremes, runs, strings and multiresolution", 2001).
fn smoothest(arrivals: &[f64], length_s: f64, step_s: f64, delay: usize) -> Vec<f64> {
    let steps = (length_s / step_s).ceil() as usize + delay + 1;
    // Arrivals before the end of each step, with a first point of none.
    let mut arrived = vec![0u32; steps + 1];
    for at in arrivals {
        arrived[((at / step_s) as usize + 1).min(steps)] += 1;
    }
    let mut total = 0;
    for count in &mut arrived {
        total += *count;
        *count = total;
    }
    let most = |t: usize| f64::from(arrived[t]);
    let least = |t: usize| {
        if t == steps {
            f64::from(total)
        } else {
            f64::from(arrived[t.saturating_sub(delay)])
        }
    };
    let mut rates = Vec::with_capacity(steps);
    let (mut from, mut served) = (0, 0.0);
    while from < steps {
        let (mut low, mut low_at) = (f64::NEG_INFINITY, from);
        let (mut high, mut high_at) = (f64::INFINITY, from);
        let mut to = from + 1;
        // How far one straight line stays between the bounds.
        let (slope, until) = loop {
            if to > steps {
                break (low.min(high), steps);
            }
            let width = (to - from) as f64;
            let (up, down) = ((most(to) - served) / width, (least(to) - served) / width);
            if down > high {
                break (high, high_at);
            }
            if up < low {
                break (low, low_at);
            }
            if up <= high {
                (high, high_at) = (up, to);
            }
            if down >= low {
                (low, low_at) = (down, to);
            }
            to += 1;
        };
        let slope = slope.max(0.0);
        rates.resize(until, slope);
        served += slope * (until - from) as f64;
        from = until;
    }
    rates
}
