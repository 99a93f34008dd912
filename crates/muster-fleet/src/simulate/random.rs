//! Reproducible random numbers: the same seed gives the same simulation everywhere.

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::Rng;

/// Draws a number from 0, inclusive, to 1, exclusive.
pub(crate) fn unit(random: &mut SplitMix64) -> f64 {
    (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Draws from the standard normal distribution, by Box and Muller's transform.
///
/// `rand_distr` draws other numbers from the same seed, and every published figure would change.
pub(crate) fn standard_normal(random: &mut SplitMix64) -> f64 {
    let (u, v) = (unit(random).max(f64::MIN_POSITIVE), unit(random));
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

#[cfg(test)]
mod tests {
    use rand_xoshiro::rand_core::SeedableRng;

    use super::*;

    #[test]
    fn a_seed_gives_the_numbers_that_figures_were_published_with() {
        let mut random = SplitMix64::seed_from_u64(7);
        let drawn: Vec<_> = (0..3).map(|_| random.next_u64()).collect();
        assert_eq!(
            drawn,
            [
                7_191_089_600_892_374_487,
                309_689_372_594_955_804,
                16_616_101_746_815_609_346
            ]
        );
    }
}
