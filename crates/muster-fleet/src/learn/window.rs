//! A window over a quantity that is as long as the quantity has been the same.
//!
//! What came is kept in buckets, the older the longer (an exponential histogram: Datar, Gionis,
//! Indyk and Motwani, "Maintaining stream statistics over sliding windows", 2002), and forgotten
//! where what came before some time differs from what came after it by more than chance (Bifet and
//! Gavaldà, "Learning from time-changing data with adaptive windowing", 2007).

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Buckets of one length, before two of them become one of the next.
const BUCKETS_PER_LENGTH: usize = 6;
/// Deviations by which a part of a rate is more, or less, than what came before it where it is another
/// rate. Four come by chance once in 16,000 times, five once in two million, and a rate is compared at
/// some dozens of places each time: a rise that was none costs an instance for a while, a fall that was
/// none makes requests late.
const RISE_DEVIATIONS: f64 = 5.0;
const FALL_DEVIATIONS: f64 = 5.0;
/// Those of a mean: its samples come from any distribution, and some have long tails.
const MEAN_DEVIATIONS: f64 = 6.0;
/// Samples in either part below which two means are not compared.
const FEWEST_SAMPLES: f64 = 16.0;
/// Samples are believed to differ by one in a hundred at least.
const LEAST_DEVIATION: f64 = 0.01;
/// Makes the root of a count a normal variable (Anscombe, 1948).
const ANSCOMBE: f64 = 0.375;

/// What is measured.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) enum Quantity {
    /// Events of a time, which may come by chance (Poisson) or in bursts.
    #[default]
    Rate,
    /// Samples of a mean.
    Mean,
}

/// A stretch of the window: its length, in seconds or samples, and what came in it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Bucket {
    length: f64,
    total: f64,
    /// Squared differences of neighbours, scaled so that each is expected to be the variance of one
    /// unit of length (von Neumann, 1941), and how many there are.
    differences: f64,
    pairs: f64,
}

impl Bucket {
    fn add(&mut self, other: &Self) {
        self.length += other.length;
        self.total += other.total;
        self.differences += other.differences;
        self.pairs += other.pairs;
    }

    fn estimate(&self) -> Estimate {
        Estimate {
            length: self.length,
            total: self.total,
            variance: if self.pairs > 0.0 {
                self.differences / self.pairs
            } else {
                0.0
            },
        }
    }
}

/// What a window says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Estimate {
    /// How long it is, in seconds or samples.
    pub length: f64,
    /// What came.
    pub total: f64,
    /// The variance of what comes in one second, or of one sample.
    pub variance: f64,
}

impl Estimate {
    /// What comes in a second, or the mean of the samples.
    pub fn rate(&self) -> f64 {
        if self.length > 0.0 {
            self.total / self.length
        } else {
            0.0
        }
    }
}

/// Of a rate.
impl Estimate {
    /// By how much more the count of events varies than it would by chance, where they come in groups; 1
    /// at least.
    pub fn dispersion(&self) -> f64 {
        if self.total > 0.0 {
            (self.variance / self.rate()).max(1.0)
        } else {
            1.0
        }
    }

    /// Groups of events a second: as many as there are events, unless these come together.
    pub fn groups(&self) -> f64 {
        self.rate() / self.dispersion()
    }
}

/// What came before some time was forgotten, since what came after it is another quantity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Change {
    /// It is more now.
    Rise,
    /// It is less.
    Fall,
}

/// The window.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Window {
    quantity: Quantity,
    /// Oldest first.
    buckets: VecDeque<Bucket>,
    /// The one that is being filled.
    open: Bucket,
    /// Length and rate of the last that was filled.
    last: Option<(f64, f64)>,
}

impl Window {
    pub fn of(quantity: Quantity) -> Self {
        Self {
            quantity,
            ..Self::default()
        }
    }

    /// Takes in what came in another `length`; the newest buckets are at least a `grain` long. Says
    /// whether the quantity became another.
    pub fn add(&mut self, length: f64, total: f64, grain: f64) -> Option<Change> {
        self.open.length += length;
        self.open.total += total;
        if self.open.length < grain || self.open.length <= 0.0 {
            return None;
        }
        let mut bucket = std::mem::take(&mut self.open);
        let rate = bucket.total / bucket.length;
        if let Some((last_length, last_rate)) = self.last.replace((bucket.length, rate)) {
            let scale = 1.0 / last_length + 1.0 / bucket.length;
            bucket.differences = (rate - last_rate).powi(2) / scale;
            bucket.pairs = 1.0;
        }
        self.buckets.push_back(bucket);
        self.compress(grain);
        self.forget()
    }

    /// Makes one of the two oldest buckets of each length of which there are too many.
    fn compress(&mut self, grain: f64) {
        let mut longest = 1.5 * grain;
        let mut end = self.buckets.len();
        while end > 0 {
            let newer = self.buckets.range(..end).rev();
            let alike = newer.take_while(|bucket| bucket.length <= longest).count();
            end -= alike;
            if alike > BUCKETS_PER_LENGTH
                && let Some(second) = self.buckets.remove(end + 1)
            {
                self.buckets[end].add(&second);
                end += 1;
            }
            longest *= 2.0;
        }
    }

    /// Forgets what came before the latest time at which the quantity became another.
    fn forget(&mut self) -> Option<Change> {
        let before = self.sum().estimate().rate();
        let mut forgotten = false;
        while let Some(at) = self.change() {
            self.buckets.drain(..at);
            if let Some(first) = self.buckets.front_mut() {
                (first.differences, first.pairs) = (0.0, 0.0);
            }
            forgotten = true;
        }
        let has_risen = self.sum().estimate().rate() > before;
        forgotten.then_some(if has_risen {
            Change::Rise
        } else {
            Change::Fall
        })
    }

    /// The first bucket after the oldest time before which all came otherwise than after it.
    fn change(&self) -> Option<usize> {
        let all = self.sum();
        let mut newer = Bucket::default();
        let mut change = None;
        for at in (1..self.buckets.len()).rev() {
            newer.add(&self.buckets[at]);
            let older = Bucket {
                length: all.length - newer.length,
                total: all.total - newer.total,
                ..Bucket::default()
            };
            let differs = match self.quantity {
                Quantity::Rate => rates_differ(&all, &older, &newer),
                Quantity::Mean => means_differ(&all, &older, &newer),
            };
            if differs {
                change = Some(at);
            }
        }
        change
    }

    fn sum(&self) -> Bucket {
        let mut sum = Bucket::default();
        self.buckets.iter().for_each(|bucket| sum.add(bucket));
        sum
    }

    /// What the window says now.
    pub fn estimate(&self) -> Estimate {
        let mut sum = self.sum();
        sum.add(&self.open);
        sum.estimate()
    }
}

/// The roots of two counts differ by chance by one half each, and by more where they come in bursts.
fn rates_differ(all: &Bucket, older: &Bucket, newer: &Bucket) -> bool {
    let dispersion = all.estimate().dispersion();
    let root = |count: f64| (count.max(0.0) + ANSCOMBE).sqrt();
    let expected = older.total / older.length * newer.length;
    let deviation = ((1.0 + newer.length / older.length) * dispersion).sqrt() / 2.0;
    let more = (root(newer.total) - root(expected)) / deviation;
    more > RISE_DEVIATIONS || -more > FALL_DEVIATIONS
}

fn means_differ(all: &Bucket, older: &Bucket, newer: &Bucket) -> bool {
    if older.length.min(newer.length) < FEWEST_SAMPLES {
        return false;
    }
    let mean = all.total / all.length;
    let variance = all
        .estimate()
        .variance
        .max((LEAST_DEVIATION * mean).powi(2));
    let deviation = (variance * (1.0 / older.length + 1.0 / newer.length)).sqrt();
    let difference = newer.total / newer.length - older.total / older.length;
    difference.abs() > MEAN_DEVIATIONS * deviation
}

#[cfg(test)]
mod tests {
    use rand_xoshiro::SplitMix64;
    use rand_xoshiro::rand_core::SeedableRng;

    use super::*;
    use crate::simulate::random::unit;

    /// Seconds of chance arrivals.
    fn arrive(window: &mut Window, rate: f64, seconds: u32, random: &mut SplitMix64) {
        for _ in 0..seconds {
            let mut came = 0.0;
            let mut left = rate + (1.0 - unit(random)).ln();
            while left > 0.0 {
                came += 1.0;
                left += (1.0 - unit(random)).ln();
            }
            window.add(1.0, came, 1.0);
        }
    }

    #[test]
    fn a_rate_that_stays_is_known_ever_better_and_its_length_costs_nothing() {
        for seed in 0..20 {
            let mut random = SplitMix64::seed_from_u64(seed);
            let mut window = Window::of(Quantity::Rate);
            arrive(&mut window, 2.0, 20_000, &mut random);
            let estimate = window.estimate();
            assert!(estimate.length > 2000.0, "{}: cut", estimate.length);
            assert!((estimate.rate() - 2.0).abs() < 0.1, "{}", estimate.rate());
            assert!(
                (estimate.variance / 2.0 - 1.0).abs() < 0.2,
                "{}: of Poisson, the variance is the rate",
                estimate.variance
            );
            assert!(window.buckets.len() < 100, "{}", window.buckets.len());
        }
    }

    #[test]
    fn a_rate_that_becomes_another_is_noticed_within_a_dozen_arrivals() {
        let mut random = SplitMix64::seed_from_u64(1);
        let mut window = Window::of(Quantity::Rate);
        arrive(&mut window, 0.5, 3600, &mut random);
        // An hour of one every other second, then nothing: 2 (sqrt(0.5 t + 3/8) - sqrt(3/8)) = 5.
        let mut quiet_s = 0;
        while window.estimate().rate() > 0.1 {
            window.add(1.0, 0.0, 1.0);
            quiet_s += 1;
        }
        assert!((15..=25).contains(&quiet_s), "{quiet_s}");
        let changes: Vec<_> = (0..4).filter_map(|_| window.add(1.0, 5.0, 1.0)).collect();
        assert_eq!(changes.first(), Some(&Change::Rise));
        assert!(window.estimate().rate() > 3.0);
    }

    /// So many looks, of five answers each.
    fn look(window: &mut Window, service_s: f64, looks: u32) {
        for _ in 0..looks {
            window.add(5.0, 5.0 * service_s, 4.0);
        }
    }

    #[test]
    fn a_mean_that_becomes_another_is_noticed_after_sixteen_samples() {
        let mut window = Window::of(Quantity::Mean);
        look(&mut window, 0.2, 40);
        look(&mut window, 0.6, 4);
        let mean = window.estimate().rate();
        assert!(mean > 0.35, "{mean}: with a look or two of before");
        look(&mut window, 0.6, 20);
        let mean = window.estimate().rate();
        assert!((0.55..=0.6).contains(&mean), "{mean}");
    }

    #[test]
    fn one_stall_changes_little_of_a_mean() {
        let mut window = Window::of(Quantity::Mean);
        look(&mut window, 0.2, 40);
        look(&mut window, 2.0, 1);
        look(&mut window, 0.2, 40);
        assert_eq!(window.estimate().length, 405.0);
        assert!((0.2..0.23).contains(&window.estimate().rate()));
    }
}
