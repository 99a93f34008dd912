//! Durations as SQS takes them, and how long its calls may take.

use std::time::Duration;

use aws_config::timeout::TimeoutConfig;

/// How long one attempt of a call may take beyond the wait of a long poll.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a call may take with its retries, beyond the wait of a long poll.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Bounds a call that waits for `wait` on the server's side.
pub(super) fn timeouts(wait: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(3))
        .operation_attempt_timeout(wait + ATTEMPT_TIMEOUT)
        .operation_timeout(wait + CALL_TIMEOUT)
        .build()
}

/// Rounds up to whole seconds, so that nothing is visible again before its time.
pub(super) fn whole_seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(i32::MAX)
}

/// Writes a duration as the value of a queue attribute.
pub(super) fn seconds(duration: Duration) -> String {
    whole_seconds(duration).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_rounded_up() {
        assert_eq!(whole_seconds(Duration::ZERO), 0);
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1000)), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1001)), 2);
    }
}
