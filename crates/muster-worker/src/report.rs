//! Telling the controller how this worker fares, over the report queue: no port is open for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use muster_jobs::{Report, ReportContent, WorkerPhase, WorkerReport};
use muster_queue::Outgoing;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::worker::{Worker, one};

/// How often a worker says at least that it is there.
const EVERY: Duration = Duration::from_secs(10);
/// How often it says at most whether it is busy.
const SHORTEST: Duration = Duration::from_secs(5);
/// How often it looks whether that has changed.
const LOOK: Duration = Duration::from_millis(250);

/// Reports until the worker has drained.
pub async fn run(
    worker: Arc<Worker>,
    busy: impl Fn() -> bool,
    started_at_ms: u64,
    ended: CancellationToken,
) {
    let mut failing = false;
    loop {
        let phase = if worker.drain.is_cancelled() {
            WorkerPhase::Draining
        } else {
            WorkerPhase::Ready
        };
        let report = WorkerReport {
            instance: worker.id.clone(),
            phase,
            busy: busy(),
            started_at_ms,
            answered: worker.answered.load(Ordering::Relaxed),
        };
        let reported_busy = report.busy;
        let body = Report::new(ReportContent::Worker(report)).to_json();
        let sent = one(worker.backend.reports.send(&[Outgoing::from(body)]).await);
        if let (Err(error), false) = (&sent, failing) {
            tracing::warn!(
                error = %muster_base::ErrorChain(error),
                "the controller could not be told how this worker fares"
            );
        }
        failing = sent.is_err();
        let begun = Instant::now();
        let changed = async {
            loop {
                tokio::time::sleep(LOOK).await;
                let quiet = begun.elapsed();
                if quiet >= EVERY || quiet >= SHORTEST && busy() != reported_busy {
                    return;
                }
            }
        };
        let draining = async {
            if phase == WorkerPhase::Draining {
                std::future::pending::<()>().await;
            }
            worker.drain.cancelled().await;
        };
        // A worker that drains while it is idle ends in the same moment, and says so first.
        tokio::select! {
            biased;
            () = draining => {}
            () = ended.cancelled() => return,
            () = changed => {}
        }
    }
}
