//! What an operator can set: `muster.toml`, then `MUSTER_*` variables, then flags.
//!
//! Read once, here; the roles get what they use as arguments. Unknown keys are errors.

mod origin;
mod places;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use muster_fleet::{KeepAlive, Policy};
use muster_gallery::calibration::DEFAULT_TARGET;
use muster_jobs::ObjectKeys;
use muster_recognize::decode::DecodeLimits;
use muster_recognize::models::{DEFAULT_PROFILE, Installation, Manifest, OWN_MANIFEST};
use serde::{Deserialize, Serialize};

pub use origin::Origin;
pub use places::{Ec2Settings, FleetKind, QueueKind, S3Url};

/// The file read where none is named.
pub const DEFAULT_FILE: &str = "muster.toml";
/// `MUSTER_*` variables that belong to the command line or the build, not to the settings.
const NOT_SETTINGS: &[&str] = &["api_key", "config", "log", "moto", "schemathesis"];

/// What is expected of this machine's workers until they were seen: they load their models in half
/// a second, and take 30 to 100 ms for a photograph with one face.
const EXPECTED_BOOT: Duration = Duration::from_millis(600);
/// How long a photograph is expected to take a worker, until some were seen.
pub const EXPECTED_SERVICE: Duration = Duration::from_millis(100);
/// Where a worker costs nothing, the machine is used rather than the wait that the objective allows:
/// a wait of no more than this, about a photograph's time, is aimed at.
const FREE_WAIT: Duration = Duration::from_millis(50);

/// The queue itself sets aside what was received three times more than `max_receives`, and SQS lets
/// it do so after 1,000 receives at most.
const MOST_RECEIVES: u32 = 997;

/// Instances never exceeded on EC2 where nothing else is set: as many as the system that Muster came
/// from has.
const EC2_INSTANCES: u32 = 15;
/// How long the counts of SQS may lag: they settle within a minute of the last change.
const SQS_COUNT_LAG: Duration = Duration::from_secs(60);

/// Every setting, with its unit in its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where the queue, the photographs, the results and the gallery are kept, as far as no other
    /// place is set for them.
    pub data_dir: PathBuf,
    /// Where photographs are uploaded to; below the data folder when unset.
    pub input_store: Option<S3Url>,
    /// Where results are written to; below the data folder when unset.
    pub output_store: Option<S3Url>,
    /// Where the gallery and what the controller knows are kept; below the data folder when unset.
    pub state_store: Option<S3Url>,
    /// Which queues are used.
    pub queues: QueueKind,
    /// What every queue's name begins with.
    pub queue_prefix: String,
    /// The queue on which requests wait.
    pub request_queue: String,
    /// What the names of the web replicas' reply queues begin with.
    pub response_queue: String,
    /// The queue for requests that workers failed on too often.
    pub dead_letter_queue: String,
    /// The queue on which workers and web replicas tell the controller how they fare.
    pub report_queue: String,
    /// What the controller's workers are.
    pub fleet: FleetKind,
    /// AWS's region, for S3, SQS and EC2; as AWS's own tools find it when unset.
    pub region: Option<String>,
    /// A server that speaks the protocols of S3, SQS and EC2 in AWS's place.
    pub endpoint: Option<String>,
    /// How instances are launched where `fleet` is `ec2`.
    pub ec2: Ec2Settings,
    /// Where `muster models install` put the models; its own default when unset.
    pub models_dir: Option<PathBuf>,
    /// A manifest of the operator's own models; `models.toml` in the folder of the models, where
    /// there is one, when unset.
    pub models_manifest: Option<PathBuf>,
    /// Which of the manifest's profiles runs: the detector and the embedder. Each of the operator's
    /// own embedders is one.
    pub profile: String,
    /// Address that the web tier listens on.
    pub listen: SocketAddr,
    /// Whether every call wants an API key; unset, unless the web tier listens on loopback.
    pub require_keys: Option<bool>,
    /// Origins, as `https://app.example.org`, whose pages may call the web tier; none by default.
    pub cors_origins: Vec<Origin>,
    /// Instances kept even without work.
    pub min_instances: u32,
    /// Instances never exceeded; the number of cores, or 15 on EC2, when unset.
    pub max_instances: Option<u32>,
    /// The objective: 99 of 100 requests begin to be worked on within this time. Workers on this
    /// machine cost nothing, and are started for less.
    pub target_wait_s: f64,
    /// Whether the idle time before the fleet shrinks is fixed or learned; fixed on this machine
    /// and learned on EC2 when unset.
    pub keep_alive: Option<KeepAliveMode>,
    /// The fixed idle time before the fleet shrinks.
    pub idle_grace_s: f64,
    /// The longest learned idle time before the fleet shrinks.
    pub keep_alive_max_s: f64,
    /// How long a draining worker may take before it is killed.
    pub drain_timeout_s: f64,
    /// How long a client waits for its answer at most.
    pub request_timeout_s: f64,
    /// How long a request that a worker holds stays invisible to the others.
    pub visibility_timeout_s: f64,
    /// How long a worker may work on one photograph before it gives up and restarts.
    pub processing_timeout_s: f64,
    /// Receives after which a request goes to the dead-letter queue.
    pub max_receives: u32,
    /// Connections to the web tier at one time; more wait until one ends.
    pub max_connections: usize,
    /// How long a connection may take from one answer, or its beginning, to the end of the next
    /// request's headers.
    pub header_timeout_s: f64,
    /// Longest line and headers of a request; longer ones are answered 431.
    pub max_header_bytes: usize,
    /// Requests that may wait for their answer at one time; more are answered 429.
    pub max_waiting: usize,
    /// Requests on the queue from which on no further job is taken; more are answered 429.
    pub max_jobs: usize,
    /// Memory that uploads may take at one time; more are answered 429.
    pub max_upload_memory_bytes: usize,
    /// Largest photograph taken.
    pub max_image_bytes: usize,
    /// Most pixels taken, width times height.
    pub max_image_pixels: u64,
    /// Most photographs taken in one request.
    pub max_images: usize,
    /// The share of strangers that may be taken for somebody: the cutoff follows from it, from the
    /// gallery's size and from how alike the people in it are.
    pub target_fpir: f64,
    /// Cosine similarity from which on a face is a person's, in place of what `target_fpir` gives.
    pub cutoff: Option<f32>,
    /// Whether a person is given to one face of a photograph at most.
    pub one_person_once: bool,
    /// How long photographs and results are kept on this machine. A bucket has lifecycle rules of
    /// its own.
    pub retention_s: f64,
    /// How objects are named: `request` or `filename`.
    pub object_keys: ObjectKeys,
    /// Where traces are exported to by OTLP; where OpenTelemetry's own variables say when unset, and
    /// nowhere if they do not.
    pub otlp_endpoint: Option<String>,
    /// What an instance costs an hour, in US dollars; its cost is not told when unset.
    pub price_per_hour: Option<f64>,
}

/// How the idle time before the fleet shrinks is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeepAliveMode {
    /// `idle_grace_s`.
    Fixed,
    /// As long as an idle worker is worth it, by the gaps seen in the load; what comes regularly is
    /// awaited.
    Learned,
}

impl Default for Settings {
    fn default() -> Self {
        let limits = DecodeLimits::default();
        Self {
            data_dir: "muster-data".into(),
            input_store: None,
            output_store: None,
            state_store: None,
            queues: QueueKind::Local,
            queue_prefix: String::new(),
            request_queue: "req-queue".to_owned(),
            response_queue: "resp-queue".to_owned(),
            dead_letter_queue: "dead-letter-queue".to_owned(),
            report_queue: "report-queue".to_owned(),
            fleet: FleetKind::Local,
            region: None,
            endpoint: None,
            ec2: Ec2Settings::default(),
            models_dir: None,
            models_manifest: None,
            profile: DEFAULT_PROFILE.to_owned(),
            listen: ([127, 0, 0, 1], 8000).into(),
            require_keys: None,
            cors_origins: Vec::new(),
            min_instances: 0,
            max_instances: None,
            target_wait_s: 1.0,
            keep_alive: None,
            idle_grace_s: 1.0,
            keep_alive_max_s: 3600.0,
            drain_timeout_s: 10.0,
            request_timeout_s: 60.0,
            visibility_timeout_s: 10.0,
            processing_timeout_s: 30.0,
            max_receives: 4,
            max_connections: 4000,
            header_timeout_s: 75.0,
            max_header_bytes: 32 << 10,
            max_waiting: 2000,
            max_jobs: 10_000,
            max_upload_memory_bytes: 256 << 20,
            max_image_bytes: limits.max_bytes,
            max_image_pixels: limits.max_pixels,
            max_images: 50,
            target_fpir: DEFAULT_TARGET,
            cutoff: None,
            one_person_once: true,
            retention_s: 3600.0,
            object_keys: ObjectKeys::Request,
            otlp_endpoint: None,
            price_per_hour: None,
        }
    }
}

impl Settings {
    /// Resolves the settings: defaults, the file, `MUSTER_*`, then `overrides`.
    ///
    /// # Errors
    /// Names the key and where it was set. A file that is named must exist; the default one need
    /// not.
    pub fn resolve(file: Option<&Path>, overrides: &impl Serialize) -> anyhow::Result<Self> {
        Self::layer(
            file,
            // Two underscores lead into a table: MUSTER_EC2__LAUNCH_TEMPLATE.
            Env::prefixed("MUSTER_").ignore(NOT_SETTINGS).split("__"),
            overrides,
        )
    }

    fn layer(
        file: Option<&Path>,
        environment: Env,
        overrides: &impl Serialize,
    ) -> anyhow::Result<Self> {
        if let Some(file) = file {
            anyhow::ensure!(
                file.is_file(),
                "the configuration file {} is not there: create it, or leave --config out",
                file.display()
            );
        }
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        let default = Path::new(DEFAULT_FILE);
        if let Some(file) = file.or(default.is_file().then_some(default)) {
            figment = figment.merge(Toml::file_exact(file));
        }
        let settings: Self = figment
            .merge(environment)
            .merge(Serialized::globals(overrides))
            .extract()
            .context("read the configuration")?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> anyhow::Result<()> {
        for (name, value) in [
            ("target_wait_s", self.target_wait_s),
            ("idle_grace_s", self.idle_grace_s),
            ("keep_alive_max_s", self.keep_alive_max_s),
            ("drain_timeout_s", self.drain_timeout_s),
            ("request_timeout_s", self.request_timeout_s),
            ("header_timeout_s", self.header_timeout_s),
            ("visibility_timeout_s", self.visibility_timeout_s),
            ("processing_timeout_s", self.processing_timeout_s),
            ("retention_s", self.retention_s),
            ("ec2.boot_timeout_s", self.ec2.boot_timeout_s),
            ("ec2.expected_boot_s", self.ec2.expected_boot_s),
            ("ec2.billing_minimum_s", self.ec2.billing_minimum_s),
        ] {
            anyhow::ensure!(
                (0.0..=1e9).contains(&value),
                "{name} is {value}: it must be between 0 and 1e9 seconds"
            );
        }
        for (name, value, harm) in [
            (
                "processing_timeout_s",
                self.processing_timeout_s,
                "every photograph would end its worker",
            ),
            (
                "ec2.boot_timeout_s",
                self.ec2.boot_timeout_s,
                "no instance would have the time to boot",
            ),
            (
                "ec2.expected_boot_s",
                self.ec2.expected_boot_s,
                "every instance that boots would count as hung",
            ),
        ] {
            anyhow::ensure!(
                !seconds(value).is_zero(),
                "{name} is {value}: {harm}; set it to more than 0, or leave it out"
            );
        }
        if let Some(price) = self.price_per_hour {
            anyhow::ensure!(
                (0.0..=1e6).contains(&price),
                "price_per_hour is {price}: it must be between 0 and 1e6 dollars"
            );
        }
        anyhow::ensure!(
            self.visibility_timeout_s >= 1.0,
            "visibility_timeout_s is {}: it must be at least 1",
            self.visibility_timeout_s
        );
        anyhow::ensure!(
            self.retention_s >= self.request_timeout_s,
            "retention_s is {} and request_timeout_s {}: what is waited for must be kept",
            self.retention_s,
            self.request_timeout_s
        );
        for (name, value) in [
            ("max_instances", self.max_instances() as usize),
            ("max_receives", self.max_receives as usize),
            ("max_waiting", self.max_waiting),
            ("max_connections", self.max_connections),
            ("max_jobs", self.max_jobs),
            ("max_images", self.max_images),
            ("max_image_bytes", self.max_image_bytes),
            ("max_upload_memory_bytes", self.max_upload_memory_bytes),
        ] {
            anyhow::ensure!(value >= 1, "{name} is 0: it must be at least 1");
        }
        anyhow::ensure!(
            self.max_receives <= MOST_RECEIVES,
            "max_receives is {}: it must be at most {MOST_RECEIVES}",
            self.max_receives
        );
        anyhow::ensure!(
            (4096..=1 << 20).contains(&self.max_header_bytes),
            "max_header_bytes is {}: it must be between 4096 and 1048576",
            self.max_header_bytes
        );
        anyhow::ensure!(
            self.header_timeout_s >= 1.0,
            "header_timeout_s is {}: it must be at least 1",
            self.header_timeout_s
        );
        anyhow::ensure!(
            self.min_instances <= self.max_instances(),
            "min_instances is {} and max_instances {}: the least can not be more than the most",
            self.min_instances,
            self.max_instances()
        );
        let queues = [
            (&self.request_queue, "request_queue"),
            (&self.dead_letter_queue, "dead_letter_queue"),
            (&self.report_queue, "report_queue"),
        ];
        for (n, (queue, name)) in queues.iter().enumerate() {
            for (other, other_name) in &queues[..n] {
                anyhow::ensure!(
                    queue != other,
                    "{other_name} and {name} are both {queue:?}: give each a queue of its own"
                );
            }
        }
        let places = [
            (&self.input_store, "input_store"),
            (&self.output_store, "output_store"),
            (&self.state_store, "state_store"),
        ];
        for (n, (store, name)) in places.iter().enumerate() {
            for (other, other_name) in &places[..n] {
                if let (Some(store), Some(other)) = (store, other) {
                    anyhow::ensure!(
                        !store.overlaps(other),
                        "{name} is {store} and {other_name} {other}: one must not lie in the other"
                    );
                }
            }
        }
        if self.fleet == FleetKind::Ec2 {
            for (store, name) in [
                (&self.input_store, "input_store"),
                (&self.output_store, "output_store"),
                (&self.state_store, "state_store"),
            ] {
                anyhow::ensure!(
                    store.is_some(),
                    "fleet is \"ec2\" and {name} is not set: its instances share no folder with \
                     this machine; set it to s3://bucket"
                );
            }
            anyhow::ensure!(
                self.queues == QueueKind::Sqs,
                "fleet is \"ec2\" and queues is \"local\": its instances share no folder with \
                 this machine; set queues = \"sqs\""
            );
        }
        anyhow::ensure!(
            (1e-9..=0.5).contains(&self.target_fpir),
            "target_fpir is {}: it must be between 1e-9 and 0.5, where 0.001 is one stranger in a \
             thousand",
            self.target_fpir
        );
        if let Some(cutoff) = self.cutoff {
            anyhow::ensure!(
                (-1.0..=1.0).contains(&cutoff),
                "cutoff is {cutoff}: a cosine similarity is between -1 and 1"
            );
        }
        Ok(())
    }

    /// Whether every call wants an API key.
    pub fn require_keys(&self) -> bool {
        self.require_keys
            .unwrap_or_else(|| !self.listen.ip().is_loopback())
    }

    /// Whether anything is kept or launched elsewhere than on this machine.
    pub fn remote(&self) -> bool {
        let stores = [&self.input_store, &self.output_store, &self.state_store];
        stores.iter().any(|store| store.is_some())
            || self.queues == QueueKind::Sqs
            || self.fleet == FleetKind::Ec2
    }

    /// What photographs are taken.
    pub fn decode_limits(&self) -> DecodeLimits {
        DecodeLimits {
            max_bytes: self.max_image_bytes,
            max_pixels: self.max_image_pixels,
        }
    }

    /// Instances never exceeded.
    pub fn max_instances(&self) -> u32 {
        self.max_instances.unwrap_or_else(|| match self.fleet {
            FleetKind::Local => std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            FleetKind::Ec2 => EC2_INSTANCES,
        })
    }

    /// What the controller is to do.
    pub fn policy(&self) -> Policy {
        let by_default = match self.fleet {
            FleetKind::Local => KeepAliveMode::Fixed,
            FleetKind::Ec2 => KeepAliveMode::Learned,
        };
        let target_wait = seconds(self.target_wait_s);
        // Processes cost nothing by the minute.
        let (target_wait, billing_minimum, expected_boot) = match self.fleet {
            FleetKind::Local => (target_wait.min(FREE_WAIT), Duration::ZERO, EXPECTED_BOOT),
            FleetKind::Ec2 => (
                target_wait,
                seconds(self.ec2.billing_minimum_s),
                seconds(self.ec2.expected_boot_s),
            ),
        };
        Policy {
            min_instances: self.min_instances,
            max_instances: self.max_instances(),
            slots: 1,
            target_wait,
            keep_alive: match self.keep_alive.unwrap_or(by_default) {
                KeepAliveMode::Fixed => KeepAlive::Fixed(seconds(self.idle_grace_s)),
                KeepAliveMode::Learned => KeepAlive::Learned {
                    at_most: seconds(self.keep_alive_max_s),
                },
            },
            billing_minimum,
            count_lag: match self.queues {
                QueueKind::Local => Duration::ZERO,
                QueueKind::Sqs => SQS_COUNT_LAG,
            },
            expected_boot,
            expected_service: EXPECTED_SERVICE,
        }
    }

    /// Where the models are.
    ///
    /// # Errors
    /// When no folder is set and there is no home to put them in.
    pub fn models_dir(&self) -> anyhow::Result<PathBuf> {
        self.models_dir
            .clone()
            .or_else(muster_recognize::models::default_root)
            .context("there is no home folder for the models: set models_dir, or MUSTER_MODELS_DIR")
    }

    /// Opens the installed models with the profile that is set.
    ///
    /// # Errors
    /// When they are not installed, or there is no such profile.
    pub fn installation(&self) -> anyhow::Result<Installation> {
        let installation = Installation::open_with(self.manifest()?, &self.models_dir()?)?;
        Ok(installation.with_profile(&self.profile)?)
    }

    /// Reads the models' manifest, and the operator's own where there is one.
    ///
    /// # Errors
    /// When the operator's is wrong.
    pub fn manifest(&self) -> anyhow::Result<Manifest> {
        let shipped = Manifest::embedded()?;
        let own = match &self.models_manifest {
            Some(path) => Some(path.clone()),
            // A web tier on its own needs no folder for models.
            None => self.models_dir().ok().map(|root| root.join(OWN_MANIFEST)),
        };
        Ok(match own {
            Some(path) if self.models_manifest.is_some() || path.is_file() => {
                shipped.with_own(&path)?
            }
            _ => shipped,
        })
    }
}

/// Seconds that [`Settings::resolve`] has checked to be a duration.
pub fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or_default()
}

#[cfg(test)]
mod tests;
