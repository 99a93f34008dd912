//! How an error rate is printed.

use muster_gallery::calibration::Rate;

/// A rate with its interval and counts.
pub fn with_interval(rate: &Rate) -> String {
    match rate.estimate {
        Some(share) => format!(
            "{:.3} % ({} of {}; 95 %: {:.3} to {:.3} %)",
            100.0 * share,
            rate.happened,
            rate.of,
            100.0 * rate.low,
            100.0 * rate.high
        ),
        None => "not known: there is nothing to count".to_owned(),
    }
}
