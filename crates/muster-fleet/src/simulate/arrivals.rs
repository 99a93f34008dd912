//! Arrivals, made from counts of a trace.

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::SeedableRng;

use super::random::unit;

/// Turns counts, each `(second, arrivals)` of a step of `step_s` seconds, into arrivals in order,
/// uniformly at random within their step.
pub fn spread(counts: &[(f64, u64)], step_s: f64, seed: u64) -> Vec<f64> {
    let mut random = SplitMix64::seed_from_u64(seed);
    let mut arrivals: Vec<f64> = counts
        .iter()
        .flat_map(|(at, count)| (0..*count).map(move |_| *at))
        .map(|at| at + unit(&mut random) * step_s)
        .collect();
    arrivals.sort_unstable_by(f64::total_cmp);
    arrivals
}
