//! A share that was counted, and how far the count is to be trusted.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is left out on either side of an interval: intervals are of 95 %.
const BEYOND: f64 = 0.025;

/// How often something happened, with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Rate {
    /// The share; `None` where nothing was counted.
    pub estimate: Option<f64>,
    /// The interval's lower end; 0 where nothing was counted.
    pub low: f64,
    /// The interval's upper end; 1 where nothing was counted.
    pub high: f64,
    /// How often it happened.
    pub happened: usize,
    /// Out of how many.
    pub of: usize,
}

impl Rate {
    /// The share of `happened` among `of`.
    ///
    /// The interval is the exact one of C. J. Clopper and E. S. Pearson (1934): it holds the true
    /// share in at least 95 of 100 cases however rare the counted is, where approximations fail. It
    /// takes the counted to be independent of each other.
    #[must_use]
    pub fn of(happened: usize, of: usize) -> Self {
        // The share at which as few, or as many, become too unlikely.
        let most = |happened: usize| {
            let (mut low, mut high) = (0.0, 1.0);
            for _ in 0..50 {
                let middle = (low + high) / 2.0;
                if at_most(happened, of, middle) > BEYOND {
                    low = middle;
                } else {
                    high = middle;
                }
            }
            high
        };
        Self {
            estimate: (of > 0).then(|| happened as f64 / of as f64),
            low: if happened == 0 {
                0.0
            } else {
                1.0 - most(of - happened)
            },
            high: if happened == of { 1.0 } else { most(happened) },
            happened,
            of,
        }
    }

    /// Counts those of which `test` says that it happened.
    pub fn count<T>(all: impl IntoIterator<Item = T>, mut test: impl FnMut(T) -> bool) -> Self {
        let (mut happened, mut of) = (0, 0);
        for one in all {
            happened += usize::from(test(one));
            of += 1;
        }
        Self::of(happened, of)
    }
}

/// How likely at most `happened` of `of` are, each with the probability `share` within (0, 1).
fn at_most(happened: usize, of: usize, share: f64) -> f64 {
    let ln_factorial = |n: usize| libm::lgamma(n as f64 + 1.0);
    let ln_odds = share.ln() - f64::ln_1p(-share);
    let all_other = of as f64 * f64::ln_1p(-share) + ln_factorial(of);
    let terms = (0..=happened)
        .rev()
        .map(|n| (all_other + n as f64 * ln_odds - ln_factorial(n) - ln_factorial(of - n)).exp());
    let (mut sum, mut last) = (0.0, 0.0);
    for term in terms {
        sum += term;
        // Falling, and too small to matter.
        if term < last && term < 1e-12 * sum {
            break;
        }
        last = term;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_clopper_and_pearsons() {
        let near = |a: f64, b: f64| (a - b).abs() < 5e-5;
        // Newcombe (1998), table I, method 5.
        for (happened, of, low, high) in [
            (81, 263, 0.2527, 0.3676),
            (15, 148, 0.0578, 0.1617),
            (0, 20, 0.0, 0.1684),
            (1, 29, 0.0009, 0.1776),
            (29, 29, 0.8806, 1.0),
        ] {
            let rate = Rate::of(happened, of);
            assert!(near(rate.low, low) && near(rate.high, high), "{rate:?}");
            let other = Rate::of(of - happened, of);
            assert!(near(other.low, 1.0 - rate.high) && near(other.high, 1.0 - rate.low));
        }
        assert_eq!(Rate::of(0, 0).estimate, None);
        assert_eq!((Rate::of(0, 0).low, Rate::of(0, 0).high), (0.0, 1.0));
    }

    #[test]
    fn large_counts_have_intervals_as_the_normal_distribution_has() {
        let rate = Rate::of(50_000, 100_000);
        let half = 1.96 * (0.25f64 / 100_000.0).sqrt();
        assert!((rate.low - (0.5 - half)).abs() < 2e-5, "{rate:?}");
        assert!((rate.high - (0.5 + half)).abs() < 2e-5, "{rate:?}");
    }
}
