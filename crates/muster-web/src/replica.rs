//! The reports of this replica to the controller, over the report queue.

use std::sync::Arc;
use std::time::Duration;

use muster_fleet::RequestTotals;
use muster_jobs::{Report, ReportContent, WebReport};
use muster_queue::{Outgoing, Queue, QueueError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use muster_base::backoff;

/// Longest time between two reports.
const EVERY: Duration = Duration::from_secs(10);
/// Shortest time between two reports of changed counts; the first waiting request and the last answer
/// are reported at once.
const SHORTEST: Duration = Duration::from_millis(500);

/// One web tier among several.
pub struct Replica {
    /// Its id, fresh for each process.
    pub id: String,
    /// What was submitted to it and answered.
    pub totals: watch::Sender<RequestTotals>,
    /// What it reports.
    pub reporting: Reporting,
}

/// What a replica reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reporting {
    /// What was submitted and answered, as it changes.
    Totals,
    /// Only that it runs: the controller is in this process and reads the counts.
    Presence,
}

impl Replica {
    /// A replica of its own.
    pub fn new(reporting: Reporting) -> Self {
        Self {
            id: Uuid::now_v7().simple().to_string(),
            totals: watch::Sender::default(),
            reporting,
        }
    }
}

/// Reports until `stop`, and then that the replica has stopped.
pub async fn run(
    reports: Arc<dyn Queue>,
    replica: String,
    mut totals: watch::Receiver<RequestTotals>,
    reporting: Reporting,
    stop: CancellationToken,
) {
    let mut failures = 0;
    loop {
        let now = *totals.borrow_and_update();
        let stopped = stop.is_cancelled();
        let sent = send(&*reports, &replica, &now, stopped).await;
        match &sent {
            Err(error) if failures == 0 => {
                tracing::warn!(
                    error = %muster_base::ErrorChain(error),
                    "a report was not sent; the fleet follows the queue's own counts meanwhile"
                );
            }
            Ok(()) if failures > 0 => tracing::info!("reports are sent again"),
            _ => {}
        }
        failures = if sent.is_err() { failures + 1 } else { 0 };
        if stopped {
            return;
        }
        if failures > 0 {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(backoff::after(failures)) => {}
            }
            continue;
        }
        let reported = now;
        let begun = Instant::now();
        tokio::select! {
            () = stop.cancelled() => {}
            () = sleep_until(begun + EVERY) => {}
            () = news(&mut totals, &reported, begun), if reporting == Reporting::Totals => {}
        }
    }
}

/// Returns when there is more to say than was reported at `begun`: at once when requests wait and none
/// did, or none do and some did.
async fn news(
    totals: &mut watch::Receiver<RequestTotals>,
    reported: &RequestTotals,
    begun: Instant,
) {
    let waiting = |totals: &RequestTotals| totals.submitted > totals.answered;
    let turned = async {
        let turned = totals
            .wait_for(|now| waiting(now) != waiting(reported))
            .await;
        turned.is_err()
    };
    let ended = match tokio::time::timeout_at(begun + SHORTEST, turned).await {
        Ok(ended) => ended,
        Err(_) => totals.wait_for(|now| now != reported).await.is_err(),
    };
    if ended {
        // The web tier is stopping, and will say so.
        std::future::pending::<()>().await;
    }
}

async fn send(
    reports: &dyn Queue,
    replica: &str,
    totals: &RequestTotals,
    stopped: bool,
) -> Result<(), QueueError> {
    let report = Report::new(ReportContent::Web(WebReport {
        replica: replica.to_owned(),
        submitted: totals.submitted,
        answered: totals.answered,
        timed: totals.timed,
        worked_ms: totals.worked.as_secs_f64() * 1e3,
        oldest_at_ms: totals.oldest.map(|at| at.as_millis() as u64),
        stopped,
    }));
    let sent = reports.send(&[Outgoing::from(report.to_json())]).await?;
    sent.into_iter().try_for_each(|entry| entry.map(drop))
}
