//! Random numbers that are the same for the same seed, on every machine.

use anyhow::Context;
use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// A seed on the command line.
///
/// # Errors
/// Says what a seed is.
pub fn seed(text: &str) -> anyhow::Result<u64> {
    let seed = text.parse().ok();
    seed.with_context(|| {
        format!(
            "{text} is no seed: name a whole number from 0 to {}",
            u64::MAX
        )
    })
}

/// A generator whose draws published figures rest on: another way to draw from it would change them.
pub struct Random(SplitMix64);

impl Random {
    /// Begins at a seed.
    pub fn new(seed: u64) -> Self {
        Self(SplitMix64::seed_from_u64(seed))
    }

    /// A number of 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `end`, which is above 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    /// Shuffles (Fisher and Yates).
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            all.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_whole_number() {
        assert_eq!(seed("18446744073709551615").unwrap(), u64::MAX);
        let refused = seed("1.5").unwrap_err().to_string();
        let said = "1.5 is no seed: name a whole number from 0 to 18446744073709551615";
        assert_eq!(refused, said);
    }

    #[test]
    fn draws_are_repeatable_and_lose_nothing() {
        let shuffled = |seed| {
            let mut all: Vec<usize> = (0..50).collect();
            Random::new(seed).shuffle(&mut all);
            all
        };
        assert_eq!(shuffled(1), shuffled(1));
        assert_ne!(shuffled(1), shuffled(2));
        let mut sorted = shuffled(1);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
    }
}
