//! Telling the controller how this worker fares: no port is open for it.
//!
//! A worker whose work does not get on says nothing: the controller takes its silence for what it is,
//! whether the process can still speak or not.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use muster_fleet::alive_line;
use muster_jobs::{Report, ReportContent, WorkerPhase, WorkerReport};
use muster_queue::Outgoing;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::worker::{Worker, one};

/// How often a worker speaks within the time after which its silence counts as hung.
const SIGNS: u32 = 4;
/// How often it says at most whether it is busy.
const SHORTEST: Duration = Duration::from_secs(5);
/// How often it looks whether that has changed.
const LOOK: Duration = Duration::from_millis(250);

/// Prints a line while the work gets on, for a parent on this machine.
pub async fn print(worker: Arc<Worker>, hung_timeout: Duration, ended: CancellationToken) {
    let mut stdout = tokio::io::stdout();
    let mut gets_on = true;
    let mut signs = tokio::time::interval(hung_timeout / SIGNS);
    signs.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = ended.cancelled() => return,
            _ = signs.tick() => {}
        }
        gets_on = worker.look_whether_it_gets_on(gets_on);
        if !gets_on {
            continue;
        }
        let line = alive_line(worker.answered.load(Ordering::Relaxed)) + "\n";
        let written = async {
            stdout.write_all(line.as_bytes()).await?;
            stdout.flush().await
        };
        if let Err(error) = written.await {
            // Its end of the pipe is closed: standard input says the same, and ends this worker.
            tracing::debug!(%error, "nobody reads that the worker is alive");
            return;
        }
    }
}

/// Reports over the report queue until the worker has drained.
pub async fn run(
    worker: Arc<Worker>,
    busy: impl Fn() -> bool,
    started_at_ms: u64,
    hung_timeout: Duration,
    ended: CancellationToken,
) {
    let every = hung_timeout / SIGNS;
    let (mut failing, mut gets_on) = (false, true);
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
            every_ms: every.as_millis() as u64,
        };
        let reported_busy = report.busy;
        let body = Report::new(ReportContent::Worker(report)).to_json();
        gets_on = worker.look_whether_it_gets_on(gets_on);
        if gets_on {
            let sent = one(worker.backend.reports.send(&[Outgoing::from(body)]).await);
            if let (Err(error), false) = (&sent, failing) {
                tracing::warn!(
                    error = %muster_base::ErrorChain(error),
                    "the controller could not be told how this worker fares"
                );
            }
            failing = sent.is_err();
        }
        let begun = Instant::now();
        let changed = async {
            loop {
                tokio::time::sleep(LOOK).await;
                let quiet = begun.elapsed();
                if quiet >= every || quiet >= SHORTEST.min(every) && busy() != reported_busy {
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
