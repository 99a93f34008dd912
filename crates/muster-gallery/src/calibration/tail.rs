//! The upper tail of what was compared: where it lies, and how well a sample tells that.
//!
//! Over the highest similarities a normal tail is fitted, s = a + b z, with z the standard normal
//! value that as large a share lies above. How many count as the highest follows the number of
//! comparisons to the power of 2/3, the order that balances error and bias in the upper order
//! statistics (P. Hall, 1982, 'On some simple estimates of an exponent of regular variation'). The
//! very highest are left out: they are those of people who are enrolled under two names.

use super::normal;

/// The share of people who may be enrolled twice before that bends the fit.
const DOUBLED: f64 = 0.1;
/// Places in the order of the highest that the line is laid through, at most.
const PLACES: usize = 64;
/// The share of samples whose upper bound may be too low: of 20 galleries one may miss its target.
const BEYOND: f64 = 0.05;
/// Fewer comparisons have no tail.
const FEWEST: usize = 3;

/// The upper tail of the similarities of different people: a line through their upper quantiles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tail {
    /// The mean of the standard normal values.
    pub(super) middle: f64,
    /// The similarity there.
    pub(super) level: f64,
    /// How much the similarity grows with the standard normal value.
    pub(super) slope: f64,
    /// How many of the comparisons count as the highest.
    pub(super) highest: usize,
}

impl Tail {
    /// Fits the tail of similarities, in any order, of so many people to each other; `None` where
    /// there are too few.
    ///
    /// The line is laid by least squares; each of the highest counts alike.
    #[must_use]
    pub fn fit(similarities: &mut [f32], people: usize) -> Option<Self> {
        let all = similarities.len();
        if all < FEWEST || people < 2 {
            return None;
        }
        let highest = libm::cbrt((all as f64).powi(2)).round() as usize;
        let last = highest.clamp(2, all - 1);
        let doubled = 2.0 * DOUBLED * all as f64 / (people - 1) as f64;
        let first = (doubled.ceil() as usize).clamp(1, last - 1);
        let descending = |one: &f32, other: &f32| other.total_cmp(one);
        let (upper, ..) = similarities.select_nth_unstable_by(last, descending);
        upper.sort_unstable_by(descending);
        let place = |n: usize| first + (last - first) * n / (PLACES - 1);
        let mut places: Vec<usize> = (0..PLACES).map(place).collect();
        places.dedup();
        let points = places.iter().map(|place| {
            let above = (*place as f64 + 0.5) / all as f64;
            (
                normal::inverse_survival(above),
                f64::from(similarities[*place]),
            )
        });
        let points: Vec<(f64, f64)> = points.collect();
        let count = points.len() as f64;
        let middle = points.iter().map(|(z, _)| z).sum::<f64>() / count;
        let level = points.iter().map(|(_, s)| s).sum::<f64>() / count;
        let (mut covariance, mut variance) = (0.0, 0.0);
        for (z, s) in points {
            covariance += (z - middle) * (s - level);
            variance += (z - middle).powi(2);
        }
        Some(Self {
            middle,
            level,
            slope: covariance / variance,
            highest: last,
        })
    }

    /// The similarity that a comparison exceeds at that rate.
    #[must_use]
    pub fn exceeded_at(&self, rate: f64) -> f64 {
        self.level + self.slope * self.beyond_middle(rate)
    }

    /// The upper 95 % bound of [`Self::exceeded_at`].
    #[must_use]
    pub fn bound_at(&self, rate: f64) -> f64 {
        self.exceeded_at(rate) + normal::inverse_survival(BEYOND) * self.error_at(rate)
    }

    /// The standard error of [`Self::exceeded_at`] beyond the middle of the tail.
    ///
    /// That of the slope, relative to it, is one by the root of the number of the highest (B. Hill,
    /// 1975, 'A simple general approach to inference about the tail of a distribution').
    fn error_at(&self, rate: f64) -> f64 {
        self.slope * self.beyond_middle(rate).max(0.0) / (self.highest as f64).sqrt()
    }

    fn beyond_middle(&self, rate: f64) -> f64 {
        normal::inverse_survival(rate) - self.middle
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_xoshiro::SplitMix64;
    use rand_xoshiro::rand_core::{Rng, SeedableRng};

    use super::*;

    /// All pairs of so many people, each as alike as `draw` says of a share.
    fn pairs(people: usize, seed: u64, draw: impl Fn(f64) -> f64) -> Vec<f32> {
        let mut random = SplitMix64::seed_from_u64(seed);
        let mut share = || ((random.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        let pairs = people * (people - 1) / 2;
        (0..pairs).map(|_| draw(share()) as f32).collect()
    }

    fn normal(share: f64) -> f64 {
        0.1 + 0.08 * normal::inverse_survival(share)
    }

    #[test]
    fn a_normal_distribution_is_found_again_whatever_its_lower_half_and_top_are() {
        let expected = 0.1 + 0.08 * 4.7534;
        let mut all = pairs(600, 1, normal);
        let tail = Tail::fit(&mut all, 600).unwrap();
        assert!((tail.exceeded_at(1e-6) - expected).abs() < 0.01, "{tail:?}");
        // One person in ten is enrolled twice, and half of all pairs are of nothing.
        all.sort_unstable_by(|one, other| other.total_cmp(one));
        all[..30].fill(0.9);
        let half = all.len() / 2;
        all[half..].fill(-0.9);
        let bent = Tail::fit(&mut all, 600).unwrap();
        assert!(
            (bent.exceeded_at(1e-6) - expected).abs() < 0.015,
            "{bent:?}"
        );
    }

    /// One comparison in ten is of two people of a kind, who are more alike and differ more. A normal
    /// distribution of the mean and deviation of all is exceeded 72 times as often as it says.
    #[test]
    fn a_heavy_tail_keeps_its_rate_where_a_normal_distribution_misses_it() {
        const RATE: f64 = 1e-6;
        let above = |similarity: f64| {
            0.9 * normal::survival(similarity / 0.08)
                + 0.1 * normal::survival((similarity - 0.12) / 0.1)
        };
        let inverse = |share: f64| {
            let (mut low, mut high) = (-1.0, 1.0);
            for _ in 0..40 {
                let middle = (low + high) / 2.0;
                if above(middle) > share {
                    low = middle
                } else {
                    high = middle
                }
            }
            high
        };
        let (mean, square) = (
            0.1 * 0.12,
            0.9 * 0.08f64.powi(2) + 0.1 * (0.1f64.powi(2) + 0.12f64.powi(2)),
        );
        let deviation = (square - mean * mean).sqrt();
        let normal = mean + deviation * normal::inverse_survival(RATE);
        let misses = above(normal) / RATE;
        assert!((71.0..73.0).contains(&misses), "{misses}");
        for seed in 0..3 {
            let tail = Tail::fit(&mut pairs(500, seed, inverse), 500).unwrap();
            let reached = above(tail.bound_at(RATE)) / RATE;
            assert!(
                (0.01..=1.0).contains(&reached),
                "{reached} with the seed {seed}"
            );
        }
    }

    #[test]
    fn the_error_is_how_much_samples_differ() {
        for people in [10, 20, 40] {
            let tails = (0..400).map(|seed| Tail::fit(&mut pairs(people, seed, normal), people));
            let tails: Vec<Tail> = tails.map(Option::unwrap).collect();
            let mean = |of: &dyn Fn(&Tail) -> f64| tails.iter().map(of).sum::<f64>() / 400.0;
            let centre = mean(&|tail| tail.exceeded_at(1e-5));
            let differ = mean(&|tail| (tail.exceeded_at(1e-5) - centre).powi(2)).sqrt();
            let told = mean(&|tail| tail.error_at(1e-5));
            assert!((0.8..1.2).contains(&(told / differ)), "{told} {differ}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn tails_are_numbers_that_grow_with_what_is_compared_and_as_the_rate_falls(
            values in prop::collection::vec(-1.0f32..1.0, 0..300),
            people in 2usize..40,
            ties in 1u32..50,
            scale in 0.1f64..1.0,
            rate in 1e-9f64..0.4,
            of_it in 0.001f64..1.0,
        ) {
            let tie = |value: f32| (value * ties as f32).round() / ties as f32;
            let at = |scale: f64, rate: f64| {
                let values = values.iter().map(|value| (f64::from(tie(*value)) * scale) as f32);
                let tail = Tail::fit(&mut values.collect::<Vec<f32>>(), people)?;
                Some(tail.bound_at(rate))
            };
            match at(1.0, rate) {
                None => prop_assert!(values.len() < FEWEST),
                Some(found) => {
                    prop_assert!(found.is_finite());
                    prop_assert!(at(1.0, rate * of_it).unwrap() >= found - 1e-6);
                    let small = at(scale, rate).unwrap();
                    prop_assert!((small - scale * found).abs() < 1e-4 * (1.0 + found.abs()));
                }
            }
        }
    }
}
