//! Keeping a request invisible to others for as long as it is worked on.

use std::time::Duration;

use muster_base::ErrorChain;
use muster_queue::QueueError;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// The shortest time that one attempt is given, and the shortest pause after one that failed.
const SHORTEST: Duration = Duration::from_millis(100);

/// Calls `extend`, by which a delivery stays invisible for `visibility` from then, for as long as it is
/// polled and the work gets on; returns only when the request is another's.
///
/// An attempt may hang for longer than the visibility itself. So each has half of what is left of
/// it, less a margin for the answer's way, and another follows.
pub async fn renew<F: Future<Output = Result<(), QueueError>>>(
    extend: impl Fn() -> F,
    visibility: Duration,
    gets_on: impl Fn() -> bool,
) {
    let (margin, period) = (visibility / 10, visibility / 3);
    let mut renewed = Instant::now();
    loop {
        sleep_until(renewed + period).await;
        if !gets_on() {
            // Another worker is to have it.
            sleep(period).await;
            continue;
        }
        let begun = Instant::now();
        let left = (renewed + visibility).saturating_duration_since(begun + margin);
        let attempt = if left.is_zero() { period } else { left / 2 };
        match timeout(attempt.max(SHORTEST), extend()).await {
            Ok(Ok(())) => renewed = begun,
            Ok(Err(QueueError::ReceiptExpired)) => {
                tracing::warn!("a visibility timeout ended before it was extended");
                return;
            }
            Ok(Err(error)) => {
                tracing::warn!(error = %ErrorChain(&error), "a visibility timeout was not extended");
                sleep(SHORTEST).await;
            }
            Err(_) => {
                tracing::warn!(
                    ?attempt,
                    "the extension of a visibility timeout hangs: trying again"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use muster_queue::{Queue, QueueOptions, Queues, Received, SqliteQueues};

    use super::*;
    use crate::worker::one;

    const VISIBILITY: Duration = Duration::from_millis(1500);
    /// Long enough for a lease that is not kept to end twice.
    const WORK: Duration = Duration::from_secs(4);

    async fn received(folder: &std::path::Path) -> (Arc<dyn Queue>, Received) {
        let queues = SqliteQueues::open(&folder.join("queue.db")).unwrap();
        let options = QueueOptions {
            visibility_timeout: VISIBILITY,
            redrive: None,
            retention: Duration::from_secs(3600),
        };
        let queue = Queues::queue(&queues, "requests", &options).await.unwrap();
        queue.send(&["x".to_owned().into()]).await.unwrap();
        let mut received = queue.receive(1, WORK).await.unwrap();
        (queue, received.remove(0))
    }

    #[tokio::test]
    async fn a_lease_outlasts_extensions_that_hang() {
        let folder = tempfile::tempdir().unwrap();
        let (queue, message) = received(folder.path()).await;
        let calls = AtomicU32::new(0);
        // Every second one, as over a connection that is cut.
        let extend = || async {
            if calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
                std::future::pending::<()>().await;
            }
            one(queue
                .extend(std::slice::from_ref(&message.receipt), VISIBILITY)
                .await)
        };
        tokio::select! {
            () = renew(extend, VISIBILITY, || true) => panic!("the lease was lost"),
            others = queue.receive(1, WORK) => {
                assert!(others.unwrap().is_empty(), "another worker received it");
            }
        }
        assert!(calls.load(Ordering::Relaxed) >= 4);
    }

    #[tokio::test]
    async fn a_lease_ends_where_the_work_does_not_get_on() {
        let folder = tempfile::tempdir().unwrap();
        let (queue, message) = received(folder.path()).await;
        let extend = || async {
            one(queue
                .extend(std::slice::from_ref(&message.receipt), VISIBILITY)
                .await)
        };
        tokio::select! {
            () = renew(extend, VISIBILITY, || false) => panic!("it is not looked at"),
            others = queue.receive(1, WORK) => {
                assert_eq!(others.unwrap().len(), 1, "another worker has it");
            }
        }
    }
}
