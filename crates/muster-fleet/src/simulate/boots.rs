//! How long simulated instances boot.

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::SeedableRng;

use super::random::{standard_normal, unit};
use super::scenario::Scenario;

/// Share of boots that take [`STRAGGLER_FACTOR`] times as long.
const STRAGGLERS: f64 = 0.01;
/// How much longer a straggler boots.
const STRAGGLER_FACTOR: f64 = 4.0;
/// Standard deviation of the logarithm of the boot time.
const BOOT_SPREAD: f64 = 0.1;
/// The boot of one launch after another, by the seed.
pub(super) struct Boots {
    random: SplitMix64,
}

impl Boots {
    pub(super) fn new(scenario: &Scenario) -> Self {
        Self {
            random: SplitMix64::seed_from_u64(scenario.seed),
        }
    }

    /// Draws the seconds that the next launched instance boots, around a median.
    pub(super) fn next_s(&mut self, median_s: f64) -> f64 {
        let normal = standard_normal(&mut self.random);
        let boot_s = median_s * (BOOT_SPREAD * normal).exp();
        if unit(&mut self.random) < STRAGGLERS {
            STRAGGLER_FACTOR * boot_s
        } else {
            boot_s
        }
    }
}
