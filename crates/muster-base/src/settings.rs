//! What an operator can set: `muster.toml`, then `MUSTER_*` variables, then flags.
//!
//! A struct for each concern has its keys, their defaults and their checks. They are read once, here,
//! and each role is handed those that it uses. Unknown keys of the file are errors. Unknown variables are
//! told and left out: others name theirs so too (Kubernetes makes MUSTER_PORT for a service called muster).

mod base_path;
mod decisions;
mod fleet;
mod listen;
mod models;
mod origin;
mod photographs;
mod places;
mod queues;
mod seconds;
mod storage;
mod traces;
mod web;
mod worker;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context;
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use figment::value::{Dict, Value};
use serde::Serialize;

pub use base_path::{BasePath, NoBasePath};
pub use decisions::DecisionSettings;
pub use fleet::{
    EXPECTED_SERVICE, Ec2Settings, FleetKind, FleetSettings, KeepAliveMode, ScalingSettings,
};
pub use listen::{NoAddress, listen_address};
pub use models::ModelSettings;
pub use origin::Origin;
pub use photographs::PhotographSettings;
pub use places::{AwsSettings, S3Url};
pub use queues::{QueueKind, QueueSettings, ReplyQueues};
pub use storage::StorageSettings;
pub use traces::TraceSettings;
pub use web::{KeyRule, WebSettings};
pub use worker::WorkerSettings;

/// The file read where none is named.
pub const DEFAULT_FILE: &str = "muster.toml";
/// `MUSTER_*` variables that belong to the command line or the build, not to the settings.
const NOT_SETTINGS: &[&str] = &[
    "api_key",
    "chromium",
    "config",
    "log",
    "faketime",
    "moto",
    "program",
    "proxies",
    "schemathesis",
    "url",
];

/// Settings that have another name now, each with that.
const FORMER_NAMES: &[(&str, &str)] = &[("response_queue", "reply_queue")];

/// Defines [`Settings`] with a member for each concern, all of whose keys stand at the top of the file.
macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $concern:ident: $kind:ty,)+) => {
        /// Every setting, by concern.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Settings {
            $($(#[doc = $doc])+ pub $concern: $kind,)+
        }

        impl Settings {
            /// The defaults, a layer of keys for each concern.
            fn defaults() -> Figment {
                Figment::new()$(.merge(Serialized::defaults(<$kind>::default())))+
            }

            /// Reads every concern, each by the keys that are its own.
            fn extract(figment: &Figment) -> anyhow::Result<Self> {
                Ok(Self { $($concern: figment.extract()?,)+ })
            }

            /// Checks every concern by itself.
            fn check_each(&self) -> anyhow::Result<()> {
                $(self.$concern.check()?;)+
                Ok(())
            }
        }
    };
}

settings! {
    /// Where everything is kept, and for how long.
    storage: StorageSettings,
    /// Where AWS is.
    aws: AwsSettings,
    /// The queues.
    queues: QueueSettings,
    /// The workers, and how many there may be.
    fleet: FleetSettings,
    /// The models.
    models: ModelSettings,
    /// What photographs are taken.
    photographs: PhotographSettings,
    /// Who is recognised as whom.
    decisions: DecisionSettings,
    /// The web tier.
    web: WebSettings,
    /// One worker.
    worker: WorkerSettings,
    /// Where traces go.
    traces: TraceSettings,
}

impl Settings {
    /// Resolves the settings: defaults, the file, `MUSTER_*`, then `overrides`.
    ///
    /// # Errors
    /// Names the key and where it was set. A file that is named must exist; the default one need
    /// not.
    pub fn resolve(file: Option<&Path>, overrides: &impl Serialize) -> anyhow::Result<Self> {
        Self::layer(file, environment(), overrides)
    }

    /// Says which `MUSTER_*` variables are no settings and are left out, and what they may have meant.
    pub fn warn_of_unknown_variables() {
        let known = names(&Self::defaults());
        for (key, _) in environment().iter() {
            let key = key.as_str();
            if known.contains(key) {
                continue;
            }
            let distance = |name: &&String| strsim::damerau_levenshtein(name, key);
            let nearest = known.iter().min_by_key(distance);
            tracing::warn!(
                "{} is no setting and is left out; the nearest is {}",
                variable(key),
                nearest.map_or_else(String::new, |name| variable(name))
            );
        }
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
        let defaults = Self::defaults();
        let mut set = Figment::new();
        let default = Path::new(DEFAULT_FILE);
        if let Some(file) = file.or(default.is_file().then_some(default)) {
            set = set.merge(Toml::file_exact(file));
        }
        let known = names(&defaults);
        let environment =
            environment.filter(move |key| known.contains(&key.as_str().to_lowercase()));
        set = set.merge(&environment);
        for (key, text) in texts(&defaults, environment.iter()) {
            set = set.merge(Serialized::default(&key, text));
        }
        let set = set.merge(Serialized::globals(overrides));
        let read = || {
            let set = renamed(set)?;
            let figment = defaults.clone().merge(&set);
            refuse_unknown(&figment, &defaults)?;
            Self::extract(&figment)
        };
        let settings = read().context("read the configuration")?;
        settings.check()?;
        Ok(settings)
    }

    /// Checks each concern, and those that have to fit each other.
    fn check(&self) -> anyhow::Result<()> {
        self.check_each()?;
        anyhow::ensure!(
            self.storage.retention >= self.web.request_timeout,
            "retention_s ({}) must be at least request_timeout_s ({}): photographs must not be deleted while \
             clients wait for their answers",
            self.storage.retention.as_secs_f64(),
            self.web.request_timeout.as_secs_f64()
        );
        if self.fleet.kind == FleetKind::Ec2 {
            for (store, name) in self.storage.places() {
                anyhow::ensure!(
                    store.is_some(),
                    "fleet is \"ec2\" and {name} is not set: its instances share no folder with \
                     this machine; set it to s3://bucket"
                );
            }
            anyhow::ensure!(
                self.queues.kind == QueueKind::Sqs,
                "fleet is \"ec2\" and queues is \"local\": its instances share no folder with \
                 this machine; set queues = \"sqs\""
            );
        }
        Ok(())
    }

    /// Whether anything is kept or launched elsewhere than on this machine.
    pub fn remote(&self) -> bool {
        self.storage.remote()
            || self.queues.kind == QueueKind::Sqs
            || self.fleet.kind == FleetKind::Ec2
    }
}

/// The variables that may be settings.
fn environment() -> Env {
    // Two underscores lead into a table: MUSTER_EC2__LAUNCH_TEMPLATE.
    Env::prefixed("MUSTER_").ignore(NOT_SETTINGS).split("__")
}

/// The name of a variable, by the name of a setting.
fn variable(name: &str) -> String {
    format!("MUSTER_{}", name.replace('.', "__").to_uppercase())
}

/// Those of the variables that look like something else and are text by the setting's default: a name
/// may be `1229`.
fn texts(
    defaults: &Figment,
    variables: impl Iterator<Item = (impl ToString, String)>,
) -> Vec<(String, String)> {
    let is_text = |value: &Value| matches!(value, Value::String(..));
    let texts = variables.map(|(key, text)| (key.to_string(), text));
    texts
        .filter(|(key, text)| {
            let parsed: Result<Value, _> = text.parse();
            let wanted = defaults.find_value(key);
            wanted.is_ok_and(|value| is_text(&value)) && !parsed.is_ok_and(|value| is_text(&value))
        })
        .collect()
}

/// What was set, by the names that settings have now.
fn renamed(mut set: Figment) -> anyhow::Result<Figment> {
    for (former, name) in FORMER_NAMES {
        let Ok(value) = set.find_value(former) else {
            continue;
        };
        anyhow::ensure!(
            set.find_value(name).is_err(),
            "{name} and {former} are both set, and {former} is its former name: leave {former} out"
        );
        set = set.merge(Serialized::default(name, value));
    }
    Ok(set)
}

/// The names of all settings, former ones too; of those in a table `table.name`.
fn names(defaults: &Figment) -> BTreeSet<String> {
    let known: Dict = defaults.extract().expect("defaults are a table");
    let mut names: BTreeSet<String> = FORMER_NAMES
        .iter()
        .map(|(former, _)| (*former).to_owned())
        .collect();
    add_names("", &known, &mut names);
    names
}

/// Adds the names in a table, and in the tables within it.
fn add_names(within: &str, table: &Dict, names: &mut BTreeSet<String>) {
    for (name, value) in table {
        match value {
            Value::Dict(_, inner) => add_names(&format!("{within}{name}."), inner, names),
            _ => {
                names.insert(format!("{within}{name}"));
            }
        }
    }
}

/// Refuses keys that no concern has, with where they were set.
fn refuse_unknown(figment: &Figment, defaults: &Figment) -> anyhow::Result<()> {
    let known: Dict = defaults.extract()?;
    let set: Dict = figment.extract()?;
    let former = |key: &str| FORMER_NAMES.iter().any(|(former, _)| *former == key);
    let unknown = |key: &&String| !known.contains_key(*key) && !former(key);
    let Some(key) = set.keys().find(unknown) else {
        return Ok(());
    };
    let place = match figment.find_metadata(key) {
        Some(metadata) => match &metadata.source {
            Some(source) => format!("{} ({source})", metadata.name),
            None => metadata.name.to_string(),
        },
        None => "the configuration".to_owned(),
    };
    anyhow::bail!("{key}, in {place}, is no setting: muster.example.toml lists all that there are")
}

#[cfg(test)]
mod tests;
