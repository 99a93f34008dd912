//! Latencies, by a histogram of high dynamic range.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::spread::round;

/// Shortest latency that is told apart, in microseconds.
const SHORTEST_US: u64 = 1;
/// Longest, in microseconds: an hour. What is longer counts as this in the percentiles.
const LONGEST_US: u64 = 3_600_000_000;
/// Significant decimal digits of a percentile, at every magnitude: it is exact to a thousandth of itself.
const DIGITS: u8 = 3;

/// Milliseconds from when a photograph was due to its answer; in a closed loop it is due when it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencyMs {
    /// Arithmetic mean.
    pub avg: f64,
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Longest.
    pub max: f64,
}

impl LatencyMs {
    /// Of these latencies; of none it is 0.
    pub fn of(latencies: &[Duration]) -> Self {
        let Some(longest) = latencies.iter().max() else {
            return Self::default();
        };
        let mut histogram = Histogram::<u64>::new_with_bounds(SHORTEST_US, LONGEST_US, DIGITS)
            .expect("the bounds are constants");
        for latency in latencies {
            let us = u64::try_from(latency.as_micros()).unwrap_or(LONGEST_US);
            histogram.saturating_record(us);
        }
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let max = ms(*longest);
        // A value stands for those down to a thousandth below it, of which the longest may be one.
        let percentile = |share| round((histogram.value_at_quantile(share) as f64 / 1e3).min(max));
        let sum: Duration = latencies.iter().sum();
        Self {
            avg: round(ms(sum) / latencies.len() as f64),
            p50: percentile(0.5),
            p95: percentile(0.95),
            p99: percentile(0.99),
            max: round(max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_near(found: f64, expected: f64) {
        assert!((found / expected - 1.0).abs() <= 1e-3, "{found} {expected}");
    }

    #[test]
    fn percentiles_are_exact_to_a_thousandth() {
        for unit in [Duration::from_micros(10), Duration::from_millis(100)] {
            let latencies: Vec<_> = (1..=1000).rev().map(|n| unit * n).collect();
            let latency = LatencyMs::of(&latencies);
            let unit = unit.as_secs_f64() * 1e3;
            assert_near(latency.avg, 500.5 * unit);
            assert_near(latency.p50, 500.0 * unit);
            assert_near(latency.p95, 950.0 * unit);
            assert_near(latency.p99, 990.0 * unit);
            assert_eq!(latency.max, round(1000.0 * unit));
        }
    }

    #[test]
    fn no_percentile_is_beyond_the_longest() {
        let latency = LatencyMs::of(&[Duration::from_micros(100_001)]);
        assert_eq!((latency.p50, latency.p99), (100.001, 100.001));
        let day = LatencyMs::of(&[Duration::from_secs(86_400)]);
        assert_eq!(day.max, 86_400_000.0);
        assert_near(day.p50, 3_600_000.0);
        assert_eq!(LatencyMs::of(&[]), LatencyMs::default());
    }
}
