//! How readers and writers that others keep overtaking try again.

use std::time::Duration;

/// How often one tries before it gives up.
pub(super) const MAX_ATTEMPTS: u32 = 50;
/// The wait between such attempts grows to this.
const LONGEST_WAIT: Duration = Duration::from_millis(50);

/// Waits before the next attempt.
pub(super) async fn back_off(attempt: u32) {
    tokio::time::sleep(Duration::from_millis(1 << attempt.min(6)).min(LONGEST_WAIT)).await;
}
