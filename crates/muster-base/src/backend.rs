//! The stores and the queues that a role works on, opened from the settings.

pub mod data_folder;
mod folder_store;
mod queues;
mod stores;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aws_config::SdkConfig;
use futures::TryStreamExt;
use muster_gallery::{GalleryStore, Source};
use muster_jobs::keys::{
    self, ENROLLED_PREFIX, GALLERY_PREFIX, INPUT_PREFIX, JOBS_PREFIX, OUTPUT_PREFIX, ObjectKeys,
};
use muster_jobs::{FileName, Purpose, RequestId};
use muster_queue::{OutboxOptions, Queue, QueueOptions, Queues};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload};
use percent_encoding::percent_decode_str;

use crate::aws;
use crate::settings::{FleetKind, QueueKind, QueueSettings, ReplyQueues, S3Url, Settings};
pub use folder_store::FolderGone;
pub use stores::{existing_state_store, local_folder, state_store};

/// How long a message waits for others to share a call of SQS with: a tenth of what the call takes.
const LINGER: Duration = Duration::from_millis(3);
/// How long a deletion waits for others: nobody waits for it, and it only has to come well before the
/// visibility timeout, a second at least.
const DELETE_LINGER: Duration = Duration::from_millis(100);
/// Calls under way at one time for the batches of one queue.
const CALLS_IN_FLIGHT: usize = 4;

/// What is written to see that there is space: about a photograph.
const SPACE_PROBE_BYTES: usize = 256 << 10;

/// Who opens stores and queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The web tier.
    Web,
    /// The controller.
    Controller,
    /// A worker, which makes no queues.
    Worker,
}

/// Everything that the roles share, whichever machine they run on.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Photographs.
    pub input: Arc<dyn ObjectStore>,
    /// Results.
    pub output: Arc<dyn ObjectStore>,
    /// What the controller knows.
    pub state: Arc<dyn ObjectStore>,
    /// The enrolled people.
    pub gallery: GalleryStore,
    /// The photographs of enrolled faces, kept for a change of the model.
    pub enrolled: Arc<dyn ObjectStore>,
    /// All queues, to open a web replica's reply queue.
    pub queues: Arc<dyn Queues>,
    /// Where requests wait.
    pub requests: Arc<dyn Queue>,
    /// How long a request waits there at most.
    pub requests_kept: Duration,
    /// Where requests end that no worker can do.
    pub dead_letters: Arc<dyn Queue>,
    /// Where workers and web replicas tell the controller how they fare.
    pub reports: Arc<dyn Queue>,
    /// How the objects of new requests are named.
    pub keys: ObjectKeys,
    /// AWS's configuration, where any of it is used.
    pub sdk: Option<SdkConfig>,
    /// Objects on this machine, where any store is.
    local: Option<Arc<dyn ObjectStore>>,
    queue_settings: Arc<QueueSettings>,
    /// Whether a queue that is missing on SQS is made, other than a replica's own.
    may_make: bool,
}

impl Backend {
    /// Opens what the settings name, for a role. What is absent on this machine is made, and so are
    /// queues on SQS for a local fleet; buckets must exist, and on AWS so must queues.
    ///
    /// # Errors
    /// Names the folder, bucket or queue that can not be used.
    pub async fn open(settings: &Settings, role: Role) -> anyhow::Result<Self> {
        let places = [
            &settings.storage.input_store,
            &settings.storage.output_store,
            &settings.storage.state_store,
        ];
        let remote = settings.queues.kind == QueueKind::Sqs || places.iter().any(|p| p.is_some());
        let sdk = if remote {
            Some(aws::sdk_config(&settings.aws).await?)
        } else {
            None
        };
        let open = |place, part| stores::store(&settings.storage, sdk.as_ref(), place, part);
        let input = open(places[0], INPUT_PREFIX)?;
        let output = open(places[1], OUTPUT_PREFIX)?;
        let state = open(places[2], "")?;
        let here = places.iter().rposition(|place| place.is_none());
        let local = here.map(|at| Arc::clone([&input, &output, &state][at]));
        let look =
            async |place: &Option<S3Url>, store: &Arc<dyn ObjectStore>, reads: bool| match place {
                Some(place) if reads => stores::look_into(&**store, place).await,
                _ => Ok(()),
            };
        // A role may list what it reads from, and need not be allowed more.
        tokio::try_join!(
            look(places[0], &input, role != Role::Controller),
            look(places[1], &output, role == Role::Web),
            look(places[2], &state, true),
        )?;
        let gallery: Arc<dyn ObjectStore> = match places[2] {
            Some(_) => Arc::clone(&state),
            // Photographs can be sent again; an enrolment that was confirmed must outlive a power
            // cut.
            None => Arc::new(stores::local(&settings.storage, |objects| {
                objects.with_fsync(true)
            })?),
        };
        let segments = stores::segment_cache(&settings.storage)?;
        let queues = queues::service(&settings.queues, &settings.storage.data_dir, sdk.as_ref())?;
        // On AWS a role need not be allowed to make one, and one that is missing there has another name.
        let may_make = role != Role::Worker && settings.fleet.kind == FleetKind::Local;
        let opened = queues::open(&*queues, &settings.queues, may_make).await?;
        Ok(Self {
            input,
            output,
            state,
            gallery: GalleryStore::new(Arc::clone(&gallery), GALLERY_PREFIX).cached(segments),
            enrolled: Arc::new(PrefixStore::new(gallery, ENROLLED_PREFIX)),
            queues,
            requests: opened.requests,
            requests_kept: queues::requests_kept(settings.queues.kind),
            dead_letters: opened.dead_letters,
            reports: opened.reports,
            keys: settings.storage.object_keys,
            sdk,
            local,
            queue_settings: Arc::new(settings.queues.clone()),
            may_make,
        })
    }

    /// Overwrites what was deleted from the queues, at the end of a role.
    pub async fn close(&self) {
        if let Err(error) = self.queues.erase_deleted().await {
            tracing::warn!(
                error = %crate::ErrorChain(&error),
                "messages that were deleted are still in the queue's file, until the next start"
            );
        }
    }

    /// How sends are gathered into batches.
    pub fn sends(&self) -> OutboxOptions {
        self.batching(LINGER)
    }

    /// How deletions are gathered into batches.
    pub fn deletions(&self) -> OutboxOptions {
        self.batching(DELETE_LINGER)
    }

    /// Waiting for others saves calls of SQS, and nothing on this machine.
    fn batching(&self, linger: Duration) -> OutboxOptions {
        OutboxOptions {
            linger: match self.sdk {
                Some(_) => linger,
                None => Duration::ZERO,
            },
            in_flight: CALLS_IN_FLIGHT,
        }
    }

    /// How many receives of a full queue there are at one time: as many as calls that send to it. On this
    /// machine one takes no time.
    pub fn receives_at_once(&self) -> usize {
        match self.sdk {
            Some(_) => CALLS_IN_FLIGHT,
            None => 1,
        }
    }

    /// Whether the reply queue is one that stays, and not a replica's own.
    pub fn shares_replies(&self) -> bool {
        self.queue_settings.reply_queues == ReplyQueues::Shared
    }

    /// What the names of all replicas' own reply queues begin with.
    pub fn reply_queues(&self) -> String {
        format!("{}-", self.queue_settings.replies)
    }

    /// Opens the queue that a web replica gets its replies on; one of its own is made.
    ///
    /// # Errors
    /// When the queue can not be used.
    pub async fn replies(&self, replica: &str) -> anyhow::Result<Arc<dyn Queue>> {
        if self.shares_replies() {
            self.replies_on(&self.queue_settings.replies).await
        } else {
            let own = format!("{}{replica}", self.reply_queues());
            self.replies_on(&own).await
        }
    }

    /// Opens the reply queue of that whole name, and makes it where it is a replica's own.
    ///
    /// # Errors
    /// When the queue can not be used.
    pub async fn replies_on(&self, name: &str) -> anyhow::Result<Arc<dyn Queue>> {
        let Self {
            queues,
            queue_settings: settings,
            may_make,
            ..
        } = self;
        let options = QueueOptions {
            visibility_timeout: settings.visibility_timeout,
            redrive: None,
            retention: queues::RETENTION,
        };
        if self.shares_replies() {
            return queues::open_one(&**queues, settings, *may_make, name, &options).await;
        }
        let made = queues.queue(name, &options).await;
        made.context("open the reply queue")
    }

    /// How the objects of a new request are named: only recognition knows the layout by file name.
    pub fn layout(&self, purpose: Purpose) -> ObjectKeys {
        match (self.keys, purpose) {
            (ObjectKeys::Filename, Purpose::Embed { .. }) => ObjectKeys::Request,
            (keys, _) => keys,
        }
    }

    /// The layouts in which a request that is known by its id may have objects, that of new ones first.
    pub fn layouts(&self) -> [ObjectKeys; 2] {
        match self.keys {
            ObjectKeys::PrefixHashed => [ObjectKeys::PrefixHashed, ObjectKeys::Request],
            ObjectKeys::Request | ObjectKeys::Filename => {
                [ObjectKeys::Request, ObjectKeys::PrefixHashed]
            }
        }
    }

    /// Where the photograph of an enrolled or denied face is kept, in the store for them.
    pub fn kept(source: Source) -> Path {
        Path::from(source.photograph_key())
    }

    /// Whether the output store has the whole outcome of such a request, in that layout.
    ///
    /// By file name it has no more than a name, and of an embedding nothing.
    pub fn stores_outcome(layout: ObjectKeys, purpose: Purpose) -> bool {
        purpose == Purpose::Recognize && layout != ObjectKeys::Filename
    }

    /// Where an outcome that is too large for a queue is put for its web tier, which deletes it, in the
    /// output store. It is used where [`Backend::stores_outcome`] says no.
    pub fn carried_key(id: RequestId) -> Path {
        Path::from(keys::carried(id))
    }

    /// What a store has of a request, the photograph or the result: in either layout by id, whatever its file is
    /// called.
    ///
    /// # Errors
    /// When the store can not be listed.
    pub async fn of_request(
        store: &dyn ObjectStore,
        id: RequestId,
    ) -> Result<Vec<ObjectMeta>, object_store::Error> {
        let [plain, hashed] = keys::request_prefixes(id).map(Path::from);
        let below = async |prefix: Path| store.list(Some(&prefix)).try_collect::<Vec<_>>().await;
        let (mut found, hashed) = tokio::try_join!(below(plain), below(hashed))?;
        found.extend(hashed);
        Ok(found)
    }

    /// The client's file name at the end of a request's key, where it is percent-encoded.
    pub fn file_of(key: &Path) -> Option<FileName> {
        let name = percent_decode_str(key.filename()?).decode_utf8().ok()?;
        Some(FileName::from_client(&name))
    }

    /// Where it is said that a request is a job of that owner, in the input store.
    pub fn job_key(id: RequestId, owner: &str, file: &FileName) -> Path {
        Path::from(keys::job(id, owner, file))
    }

    /// Below which it is said that a request is a job, whatever its file is called.
    pub fn of_job(id: RequestId) -> Path {
        Path::from(keys::job_prefix(id))
    }

    /// Below which all jobs are.
    pub fn jobs() -> Path {
        Path::from(JOBS_PREFIX)
    }

    /// What sorts after everything of this job, and before everything of the next.
    pub fn after_job(id: RequestId) -> Path {
        Path::from(keys::after_job(id))
    }

    /// Fails where this machine has no space for a photograph; buckets are not asked.
    ///
    /// # Errors
    /// When it can not be written.
    pub async fn check_space(&self) -> Result<(), object_store::Error> {
        let Some(local) = &self.local else {
            return Ok(());
        };
        let probe = PutPayload::from(vec![0; SPACE_PROBE_BYTES]);
        let key = Path::from(keys::SPACE_PROBE);
        local.put(&key, probe).await?;
        match local.delete(&key).await {
            // By another probe at the same time.
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Where the controller keeps what it has learned, in the state store.
    pub fn learned() -> Path {
        Path::from(keys::LEARNED)
    }

    /// Where it is said which model the gallery is being changed to, in the state store.
    pub fn model_change() -> Path {
        Path::from(keys::MODEL_CHANGE)
    }

    /// Below which it is said what the next model made no embedding of, in the state store.
    pub fn not_embedded() -> Path {
        Path::from(keys::NOT_EMBEDDED_PREFIX)
    }

    /// Where the controller says how the fleet fares, in the state store.
    pub fn fleet_status() -> Path {
        Path::from(keys::FLEET_STATUS)
    }
}
