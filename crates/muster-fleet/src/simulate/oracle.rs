//! The oracle (offline optimum): the cheapest fleet that anyone could have had who knew every
//! arrival.
//!
//! Fleets decouple by level (Lin, Wierman, Andrew and Thereska, "Dynamic right-sizing for
//! power-proportional data centers", 2011): the `n`-th instance is needed while the load exceeds
//! what `n - 1` serve, and whether it is stopped in between depends on its own gaps alone. So each
//! level has a dynamic program of its own.

use super::autoscaler::Autoscaler;
use super::engine::run;
use super::outcome::Outcome;
use super::scenario::Scenario;

/// Steps in the time that a request may wait.
const STEPS_PER_WAIT: usize = 4;
/// Prices of a late request that are tried.
const PRICES: u32 = 14;
/// In seconds of an instance: next to nothing, and more than any request is worth.
const LOWEST_PRICE_S: f64 = 1e-3;
const HIGHEST_PRICE_S: f64 = 1e6;
/// The share of requests that may be late: 1 % for a p99.
const LATE_SHARE: f64 = 0.01;

/// Searches for the cheapest schedule whose replay has its p99 wait within the objective.
///
/// For a given price of a late request the dynamic programs find the optimal integer schedule; the
/// price is searched for by bisection, and each schedule is replayed request by request. Where the
/// scenario allows too few instances for the objective, the schedule that makes no request late on
/// purpose is returned.
pub fn optimum(arrivals: &[f64], length_s: f64, scenario: &Scenario) -> Outcome {
    let wait_s = scenario.target_wait_s.max(scenario.service_s);
    let step_s = wait_s / STEPS_PER_WAIT as f64;
    let replay = |levels: &Levels, price_s: f64| {
        let ready = levels.schedule(price_s);
        run(
            arrivals,
            length_s,
            scenario,
            Autoscaler::Scheduled { step_s, ready },
        )
    };
    let meets = |outcome: &Outcome| outcome.share_over(scenario.target_wait_s) <= LATE_SHARE;
    // The later the service, the smoother; how late it may be is a matter of whole requests and
    // whole steps.
    let mut strictest = None;
    for delay in (0..=STEPS_PER_WAIT).rev() {
        let rates = smoothest(arrivals, length_s, step_s, delay);
        let levels = Levels::new(&rates, step_s, scenario);
        let punctual = replay(&levels, HIGHEST_PRICE_S);
        if meets(&punctual) {
            return cheapest(punctual, |price_s| replay(&levels, price_s), meets);
        }
        strictest = Some(punctual);
    }
    strictest.expect("one delay at least is tried")
}

/// Bisects the price of a late request.
fn cheapest(
    punctual: Outcome,
    replay: impl Fn(f64) -> Outcome,
    meets: impl Fn(&Outcome) -> bool,
) -> Outcome {
    let (mut low, mut high) = (LOWEST_PRICE_S, HIGHEST_PRICE_S);
    let mut best = punctual;
    for _ in 0..PRICES {
        let middle = (low * high).sqrt();
        let outcome = replay(middle);
        if meets(&outcome) {
            high = middle;
            if outcome.instance_hours < best.instance_hours {
                best = outcome;
            }
        } else {
            low = middle;
        }
    }
    best
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

/// What each level of the fleet would serve.
struct Levels {
    /// For each level, the requests of each step that it would serve.
    served: Vec<Vec<f32>>,
    step_s: f64,
    /// What a launch costs at least, in seconds of an instance.
    launch_s: f64,
    /// Steps after an instance is ready that a launch has paid for.
    paid_steps: usize,
}

impl Levels {
    fn new(rates: &[f64], step_s: f64, scenario: &Scenario) -> Self {
        let each = step_s * f64::from(scenario.slots) / scenario.service_s;
        let peak = rates.iter().copied().fold(0.0, f64::max);
        // What is a hair over a whole number of instances is rounding.
        let count = ((peak / each - 1e-9).ceil() as u32).min(scenario.max_instances);
        let served = (0..count)
            .map(|level| {
                let below = f64::from(level) * each;
                rates
                    .iter()
                    .map(|rate| {
                        let share = (rate - below).clamp(0.0, each);
                        if share > 1e-9 * each {
                            share as f32
                        } else {
                            0.0
                        }
                    })
                    .collect()
            })
            .collect();
        let launch_s = scenario.boot_s.max(scenario.billing_minimum_s);
        Self {
            served,
            step_s,
            launch_s,
            paid_steps: ((launch_s - scenario.boot_s) / step_s) as usize,
        }
    }

    /// Instances ready in each step, the cheapest where a late request costs `price_s` seconds of an
    /// instance.
    fn schedule(&self, price_s: f64) -> Vec<u32> {
        let steps = self.served.first().map_or(1, Vec::len);
        let mut ready = vec![0; steps];
        for served in &self.served {
            self.add_level(served, price_s, &mut ready);
        }
        ready
    }

    /// Before each step, a level is off or on with its minimum used up; a launch leads from the
    /// one to the other, serving what comes until its minimum is used up.
    fn add_level(&self, served: &[f32], price_s: f64, ready: &mut [u32]) {
        let steps = served.len();
        let mut off = vec![f64::INFINITY; steps + 1];
        let mut on = vec![f64::INFINITY; steps + 1];
        // How each was reached: by stopping, and by a launch in which step.
        let mut stopped = vec![false; steps + 1];
        let mut launched: Vec<Option<usize>> = vec![None; steps + 1];
        off[0] = 0.0;
        for t in 0..=steps {
            if on[t] <= off[t] {
                (off[t], stopped[t]) = (on[t], true);
            }
            if t == steps {
                break;
            }
            let paid = (t + self.paid_steps).min(steps);
            if off[t] + self.launch_s < on[paid] {
                (on[paid], launched[paid]) = (off[t] + self.launch_s, Some(t));
            }
            let kept = on[t] + self.step_s;
            if kept < on[t + 1] {
                (on[t + 1], launched[t + 1]) = (kept, None);
            }
            off[t + 1] = off[t] + price_s * f64::from(served[t]);
        }
        let (mut t, mut is_on) = (steps, false);
        while t > 0 {
            if !is_on {
                is_on = stopped[t];
                t -= usize::from(!is_on);
            } else if let Some(begun) = launched[t] {
                ready[begun..t].iter_mut().for_each(|n| *n += 1);
                (t, is_on) = (begun, false);
            } else {
                t -= 1;
                ready[t] += 1;
            }
        }
    }
}
