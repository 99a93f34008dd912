//! What workers and web replicas report, and the queues of replicas that report no more.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use muster_jobs::{Report, ReportContent, WorkerReport};
use muster_queue::{MAX_BATCH, QueueError};

use uuid::Uuid;

use super::ledgers::Ledgers;
use muster_base::aws;
use muster_base::backend::Backend;
use muster_base::backoff;

/// One long poll for reports.
const POLL: Duration = Duration::from_secs(20);
/// How often reply queues are looked at.
const SWEEP: Duration = Duration::from_secs(60);
/// A reply queue whose replica was not heard from for this long has no owner.
const ORPHANED: Duration = Duration::from_secs(300);

/// What is done with what is heard.
pub struct Hears<W, L> {
    /// Takes a worker's report.
    pub worker: W,
    /// Told whenever reports could be received, whether there were any or not.
    pub listening: L,
}

/// Receives reports for as long as it is polled.
pub async fn listen(
    backend: &Backend,
    ledgers: &Ledgers,
    hears: Hears<impl Fn(WorkerReport), impl Fn()>,
) {
    let mut failures = 0;
    loop {
        let received = match backend.reports.receive(MAX_BATCH, POLL).await {
            Ok(received) => received,
            Err(error) => {
                ledgers.listening(false);
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
        ledgers.listening(true);
        (hears.listening)();
        if received.is_empty() {
            continue;
        }
        for message in &received {
            match Report::from_json(&message.body) {
                Ok(report) => match report.content {
                    ReportContent::Worker(worker) => (hears.worker)(worker),
                    ReportContent::Web(web) => ledgers.report(&web),
                },
                Err(error) => {
                    // Of a replica, perhaps, that is taken for gone if nobody reads what it says.
                    ledgers.listening(false);
                    tracing::error!(error = %muster_base::ErrorChain(&error), "a report was dropped");
                }
            }
        }
        let receipts: Vec<_> = received.into_iter().map(|m| m.receipt).collect();
        let deleted = backend.reports.delete(&receipts).await;
        if let Err(error) = deleted.and_then(|all| all.into_iter().collect::<Result<(), _>>()) {
            // They come again, say the same, and are too old after a minute.
            tracing::debug!(error = %muster_base::ErrorChain(&error), "reports were not deleted");
        }
    }
}

/// Removes the reply queues of replicas that are gone, for as long as it is polled.
pub async fn sweep(backend: &Backend, ledgers: &Ledgers) {
    let mut unowned: HashMap<String, Instant> = HashMap::new();
    loop {
        if let Err(error) = sweep_once(backend, ledgers, &mut unowned, ORPHANED).await {
            tracing::warn!(error = %muster_base::ErrorChain(&error), "reply queues could not be swept");
        }
        tokio::time::sleep(SWEEP).await;
    }
}

async fn sweep_once(
    backend: &Backend,
    ledgers: &Ledgers,
    unowned: &mut HashMap<String, Instant>,
    orphaned: Duration,
) -> Result<(), QueueError> {
    if ledgers.listened_for() < orphaned {
        unowned.clear();
        return Ok(());
    }
    let prefix = backend.reply_queues();
    let names = backend.queues.names(&prefix).await?;
    unowned.retain(|name, _| names.contains(name));
    for name in names {
        let replica = name.strip_prefix(&prefix).unwrap_or_default();
        // A queue of another name is somebody else's.
        let ours = Uuid::try_parse(replica).is_ok();
        if !ours || ledgers.knows(replica) {
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
        let ledgers = Ledgers::new(None);
        let [here, gone] = [(); 2].map(|()| Uuid::now_v7().simple().to_string());
        for replica in [&here, &gone, "audit"] {
            backend.replies(replica).await.unwrap();
        }
        let report = WebReport {
            replica: here.clone(),
            submitted: 0,
            answered: 0,
            timed: 0,
            worked_ms: 0.0,
            stopped: false,
        };
        ledgers.report(&report);
        let mut unowned = HashMap::new();
        let names = async || {
            let prefix = backend.reply_queues();
            backend.queues.names(&prefix).await.unwrap()
        };
        sweep_once(&backend, &ledgers, &mut unowned, ORPHANED)
            .await
            .unwrap();
        assert_eq!(names().await.len(), 3, "not while nothing is heard");
        ledgers.listening(true);
        sweep_once(&backend, &ledgers, &mut unowned, Duration::ZERO)
            .await
            .unwrap();
        let left = [format!("resp-queue-{here}"), "resp-queue-audit".to_owned()];
        assert_eq!(names().await, left);
    }
}
