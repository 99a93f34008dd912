//! What workers and web replicas report, and the queues of replicas that report no more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_jobs::{Report, ReportContent, WorkerReport};
use muster_queue::{QueueError, Receiving};

use uuid::Uuid;

use super::replicas::ReplicaTotals;
use muster_base::ErrorChain;
use muster_base::aws;
use muster_base::backend::Backend;
use muster_base::backoff;

/// The longest poll for reports.
const POLL: Duration = Duration::from_secs(20);
/// How often reply queues are looked at.
const SWEEP: Duration = Duration::from_secs(60);
/// A reply queue whose replica was not heard from for this long has no owner.
const ORPHANED: Duration = Duration::from_secs(300);

/// What is done with the reports of workers.
pub struct ReportHandlers<W, L> {
    /// Takes a worker's report.
    pub worker: W,
    /// Told whenever reports could be received, whether there were any or not.
    pub listening: L,
}

/// Receives reports for as long as it is polled. Where workers' silence counts as hung after a time,
/// each poll is shorter than that: who is silent is known only when it has ended.
pub async fn listen(
    backend: &Backend,
    hung_timeout: Option<Duration>,
    totals: &ReplicaTotals,
    handlers: ReportHandlers<impl Fn(WorkerReport), impl Fn()>,
) {
    let mut failures = 0;
    let poll = hung_timeout.map_or(POLL, |timeout| POLL.min(timeout / 4));
    let reports = Arc::clone(&backend.reports);
    let mut receiving = Receiving::new(reports, poll, backend.receives_at_once());
    loop {
        let received = match receiving.next().await {
            Ok(received) => received,
            Err(error) => {
                totals.listening(false);
                if failures == 0 {
                    aws::failed(
                        "reports can not be received; the fleet follows the queue's own counts meanwhile",
                        &error,
                    );
                }
                failures += 1;
                tokio::time::sleep(backoff::after(failures)).await;
                continue;
            }
        };
        if std::mem::take(&mut failures) > 0 {
            tracing::info!("reports are received again");
        }
        totals.listening(true);
        (handlers.listening)();
        if received.is_empty() {
            continue;
        }
        for message in &received {
            match Report::from_json(&message.body) {
                Ok(report) => match report.content {
                    ReportContent::Worker(worker) => (handlers.worker)(worker),
                    ReportContent::Web(web) => totals.report(&web),
                },
                Err(error) => {
                    // Of a replica, perhaps, that is taken for gone if nobody reads what it says.
                    totals.listening(false);
                    tracing::error!(error = %ErrorChain(&error), "a report was dropped");
                }
            }
        }
        let receipts: Vec<_> = received.into_iter().map(|m| m.receipt).collect();
        let deleted = backend.reports.delete(&receipts).await;
        if let Err(error) = deleted.and_then(|all| all.into_iter().collect::<Result<(), _>>()) {
            // They come again, say the same, and are too old after a minute.
            tracing::debug!(error = %ErrorChain(&error), "reports were not deleted");
        }
    }
}

/// Removes the reply queues of replicas that are gone, for as long as it is polled.
pub async fn sweep(backend: &Backend, totals: &ReplicaTotals) {
    let mut unowned: HashMap<String, Instant> = HashMap::new();
    loop {
        if let Err(error) = sweep_once(backend, totals, &mut unowned, ORPHANED).await {
            tracing::warn!(error = %ErrorChain(&error), "reply queues could not be swept");
        }
        tokio::time::sleep(SWEEP).await;
    }
}

async fn sweep_once(
    backend: &Backend,
    totals: &ReplicaTotals,
    unowned: &mut HashMap<String, Instant>,
    orphaned: Duration,
) -> Result<(), QueueError> {
    if totals.listened_for() < orphaned {
        unowned.clear();
        return Ok(());
    }
    let prefix = backend.reply_queues();
    let names = backend.queues.names(&prefix).await?;
    unowned.retain(|name, _| names.contains(name));
    for name in names {
        let replica = name.strip_prefix(&prefix).unwrap_or_default();
        if !is_replica(replica) || totals.knows(replica) {
            unowned.remove(&name);
            continue;
        }
        let since = *unowned.entry(name.clone()).or_insert_with(Instant::now);
        if since.elapsed() < orphaned {
            continue;
        }
        let removed = match backend.queues.existing(&name).await {
            Ok(queue) => queue.remove().await,
            Err(error) => Err(error),
        };
        match removed {
            Ok(()) => tracing::info!(queue = name, "removed a reply queue whose replica is gone"),
            Err(QueueError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        unowned.remove(&name);
    }
    Ok(())
}

/// Whether this is how a web replica calls itself: a queue of another name is somebody else's.
fn is_replica(name: &str) -> bool {
    let id = Uuid::try_parse(name).ok();
    id.is_some_and(|id| id.get_version_num() == 7 && id.simple().to_string() == name)
}

#[cfg(test)]
mod tests {
    use muster_jobs::WebReport;

    use super::*;
    use muster_base::backend::Role;
    use muster_base::settings::Settings;

    #[tokio::test]
    async fn only_queues_without_an_owner_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.storage.data_dir = folder.path().join("data");
        let backend = Backend::open(&settings, Role::Controller).await.unwrap();
        let totals = ReplicaTotals::new(None);
        let [here, gone] = [(); 2].map(|()| Uuid::now_v7().simple().to_string());
        // Of others, and of another use of ids.
        let anothers = format!("b-{}", Uuid::now_v7().simple());
        let hyphened = Uuid::now_v7().to_string();
        let random = "936da01f9abd4d9d80c702af85c822a8";
        for replica in [&here, &gone, "audit", &anothers, &hyphened, random] {
            backend.replies(replica).await.unwrap();
        }
        let shared = backend.reply_queues();
        let shared = shared.trim_end_matches('-');
        backend.replies_on(shared).await.unwrap();
        let report = WebReport {
            replica: here.clone(),
            submitted: 0,
            answered: 0,
            timed: 0,
            worked_ms: 0.0,
            oldest_at_ms: None,
            stopped: false,
        };
        totals.report(&report);
        let mut unowned = HashMap::new();
        let names = async || {
            let prefix = backend.reply_queues();
            backend.queues.names(&prefix).await.unwrap()
        };
        sweep_once(&backend, &totals, &mut unowned, ORPHANED)
            .await
            .unwrap();
        assert_eq!(names().await.len(), 6, "not while nothing is heard");
        totals.listening(true);
        sweep_once(&backend, &totals, &mut unowned, Duration::ZERO)
            .await
            .unwrap();
        let mut left = [&here, "audit", &anothers, &hyphened, random]
            .map(|replica| format!("resp-queue-{replica}"));
        left.sort();
        assert_eq!(names().await, left);
        assert!(backend.queues.existing(shared).await.is_ok());
    }
}
