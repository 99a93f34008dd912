//! The object store and the queues that a role works on, opened from the settings.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use muster_jobs::{
    FileName, GALLERY_PREFIX, INPUT_PREFIX, OUTPUT_PREFIX, ObjectKeys, RequestId, STATUS_PREFIX,
};
use muster_queue::{Queue, QueueOptions, Queues, Redrive, SqliteQueues};
use muster_recognize::gallery::GalleryStore;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;

use crate::config::{Settings, seconds};

/// Requests wait here for a worker.
const REQUESTS: &str = "requests";
/// Requests that workers failed on too often.
const DEAD_LETTERS: &str = "requests-dead";
/// How long a message that nobody takes is kept.
const RETENTION: Duration = Duration::from_secs(24 * 3600);

/// Everything that the roles share, whichever machine they run on.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Photographs, results and the fleet's status.
    pub objects: Arc<dyn ObjectStore>,
    /// The enrolled people.
    pub gallery: GalleryStore,
    /// All queues, to open a web replica's reply queue.
    pub queues: Arc<dyn Queues>,
    /// Where requests wait.
    pub requests: Arc<dyn Queue>,
    /// Where requests end that no worker can do.
    pub dead_letters: Arc<dyn Queue>,
    /// How objects are named.
    pub keys: ObjectKeys,
    visibility_timeout: Duration,
}

impl Backend {
    /// Opens what stands below the data folder, making what is absent.
    ///
    /// # Errors
    /// Names the folder or file that can not be used.
    pub async fn open(settings: &Settings) -> anyhow::Result<Self> {
        let folder = &settings.data_dir;
        let objects_folder = folder.join("objects");
        std::fs::create_dir_all(&objects_folder)
            .with_context(|| format!("make the data folder {}", folder.display()))?;
        restrict(folder)?;
        let local = || {
            LocalFileSystem::new_with_prefix(&objects_folder)
                .with_context(|| format!("open the objects in {}", objects_folder.display()))
        };
        let objects = Arc::new(local()?.with_automatic_cleanup(true));
        // Photographs can be sent again; an enrolment that was confirmed must outlive a power cut.
        let durable: Arc<dyn ObjectStore> = Arc::new(local()?.with_fsync(true));
        let database = folder.join("queue.db");
        let queues: Arc<dyn Queues> = Arc::new(
            SqliteQueues::open(&database)
                .with_context(|| format!("open the queue {}", database.display()))?,
        );
        let visibility_timeout = seconds(settings.visibility_timeout_s);
        let dead_letters = queues
            .queue(
                DEAD_LETTERS,
                &QueueOptions {
                    visibility_timeout,
                    redrive: None,
                    retention: 14 * RETENTION,
                },
            )
            .await
            .context("open the dead-letter queue")?;
        // Workers set failing requests aside themselves, so that the client is answered; the
        // queue's own redrive is for requests that even the setting aside fails on.
        let redrive = Redrive {
            dead_letter: DEAD_LETTERS.to_owned(),
            max_receives: settings.max_receives + 3,
        };
        let requests = queues
            .queue(
                REQUESTS,
                &QueueOptions {
                    visibility_timeout,
                    redrive: Some(redrive),
                    retention: RETENTION,
                },
            )
            .await
            .context("open the request queue")?;
        Ok(Self {
            objects,
            gallery: GalleryStore::new(durable, GALLERY_PREFIX),
            queues,
            requests,
            dead_letters,
            keys: settings.object_keys,
            visibility_timeout,
        })
    }

    /// Opens the queue that a web tier gets its replies on.
    ///
    /// # Errors
    /// When the queue can not be made.
    pub async fn replies(&self, name: &str) -> anyhow::Result<Arc<dyn Queue>> {
        let options = QueueOptions {
            visibility_timeout: self.visibility_timeout,
            redrive: None,
            retention: RETENTION,
        };
        self.queues
            .queue(name, &options)
            .await
            .context("open the reply queue")
    }

    /// Where a request's photograph is uploaded to.
    pub fn input(&self, id: RequestId, file: &FileName) -> Path {
        below(INPUT_PREFIX, self.keys.input(id, file))
    }

    /// Where a request's result is written to.
    pub fn output(&self, id: RequestId, file: &FileName) -> Path {
        below(OUTPUT_PREFIX, self.keys.output(id, file))
    }

    /// Below which a request's result is, whatever its file is called.
    pub fn outputs_of(&self, id: RequestId) -> Path {
        below(OUTPUT_PREFIX, vec![id.to_string()])
    }

    /// Below which a request's photograph is, whatever its file is called.
    pub fn inputs_of(&self, id: RequestId) -> Path {
        below(INPUT_PREFIX, vec![id.to_string()])
    }

    /// Where the controller keeps what it has learned.
    pub fn learned(&self) -> Path {
        below(STATUS_PREFIX, vec!["learned.json".to_owned()])
    }

    /// Where the controller says how the fleet fares.
    pub fn fleet_status(&self) -> Path {
        below(STATUS_PREFIX, vec!["fleet.json".to_owned()])
    }
}

fn below(prefix: &str, components: Vec<String>) -> Path {
    std::iter::once(prefix.to_owned())
        .chain(components)
        .collect()
}

/// Lets nobody but the owner into the data folder: it holds faces.
fn restrict(folder: &std::path::Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
        .with_context(|| format!("restrict the data folder {} to its owner", folder.display()))
}
