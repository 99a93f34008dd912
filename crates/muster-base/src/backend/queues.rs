//! The queues: which service has them, and the three that every role uses.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aws_config::SdkConfig;
use muster_queue::{
    MAX_RETENTION, Queue, QueueError, QueueOptions, Queues, Redrive, SqliteQueues, SqsQueues,
};

use super::data_folder;
use crate::settings::{QueueKind, QueueSettings};

/// How long a message that nobody takes is kept.
pub const RETENTION: Duration = Duration::from_secs(24 * 3600);

/// How long a request is kept. On one machine, whose clock is the queue's and may be a day ahead, that is
/// longer.
pub fn requests_kept(kind: QueueKind) -> Duration {
    match kind {
        QueueKind::Local => MAX_RETENTION,
        QueueKind::Sqs => RETENTION,
    }
}

/// How long a report is kept: one that is older says nothing. The least that SQS takes.
const REPORT_RETENTION: Duration = Duration::from_secs(60);

/// The queues that every role uses.
pub struct Opened {
    /// Where requests wait.
    pub requests: Arc<dyn Queue>,
    /// Where requests end that no worker can do.
    pub dead_letters: Arc<dyn Queue>,
    /// Where workers and web replicas tell the controller how they fare.
    pub reports: Arc<dyn Queue>,
}

/// The service that has the queues: SQS, or the file in the data folder.
///
/// # Errors
/// Names the file that can not be opened.
pub fn service(
    settings: &QueueSettings,
    data_dir: &Path,
    sdk: Option<&SdkConfig>,
) -> anyhow::Result<Arc<dyn Queues>> {
    Ok(match (settings.kind, sdk) {
        (QueueKind::Sqs, Some(sdk)) => Arc::new(SqsQueues::new(sdk, &settings.prefix)),
        _ => {
            data_folder::prepare(data_dir, None)?;
            let database = data_dir.join("queue.db");
            // SQLite gives its other files the mode of this one.
            data_folder::make_file(&database)?;
            for beside in ["queue.db-wal", "queue.db-shm"] {
                data_folder::refuse_link(&data_dir.join(beside))?;
            }
            let queues = SqliteQueues::open(&database)
                .with_context(|| format!("open the queue {}", database.display()))?;
            Arc::new(queues)
        }
    })
}

/// Opens one queue; `may_make` says whether one that is missing on SQS is made.
///
/// # Errors
/// Names the queue that can not be used.
pub async fn open_one(
    queues: &dyn Queues,
    settings: &QueueSettings,
    may_make: bool,
    name: &str,
    options: &QueueOptions,
) -> anyhow::Result<Arc<dyn Queue>> {
    let opened = match settings.kind {
        QueueKind::Local => queues.queue(name, options).await,
        // One that is there is taken as it is: a role need not be allowed to change it.
        QueueKind::Sqs => match queues.existing(name).await {
            Err(QueueError::NotFound { .. }) if may_make => {
                tracing::info!(
                    queue = format!("{}{name}", settings.prefix),
                    "the queue is not there and is made"
                );
                queues.queue(name, options).await
            }
            opened => opened,
        },
    };
    opened.with_context(|| format!("open the queue {}{name}", settings.prefix))
}

/// Opens the three queues; `may_make` says whether one that is missing on SQS is made.
///
/// # Errors
/// Names the queue that can not be used.
pub async fn open(
    queues: &dyn Queues,
    settings: &QueueSettings,
    may_make: bool,
) -> anyhow::Result<Opened> {
    let open = async |name: &str, retention: Duration, redrive: Option<Redrive>| {
        let options = QueueOptions {
            visibility_timeout: settings.visibility_timeout,
            redrive,
            retention,
        };
        open_one(queues, settings, may_make, name, &options).await
    };
    let dead_letters = open(&settings.dead_letters, 14 * RETENTION, None).await?;
    // Workers set failing requests aside themselves, so that the client is answered; the queue's own
    // redrive is for requests that even the setting aside fails on.
    let redrive = Redrive {
        dead_letter: settings.dead_letters.clone(),
        max_receives: settings.max_receives + 3,
    };
    Ok(Opened {
        dead_letters,
        requests: open(
            &settings.requests,
            requests_kept(settings.kind),
            Some(redrive),
        )
        .await?,
        reports: open(&settings.reports, REPORT_RETENTION, None).await?,
    })
}
