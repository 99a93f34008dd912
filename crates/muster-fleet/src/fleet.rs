//! What every fleet can do, whatever its instances are.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::tier::Tier;

/// One instance's name, unique within its fleet for as long as the fleet's owner lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(pub String);

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where an instance is in its life. A terminated instance is no longer listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Launched, not yet taking work: capacity to come.
    Pending,
    /// Taking work.
    Running,
    /// Told to stop: takes no new work, finishes what it has.
    Draining,
}

/// One instance as the fleet last saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its name.
    pub id: InstanceId,
    /// Its state.
    pub state: InstanceState,
    /// Where it came from.
    #[serde(default)]
    pub tier: Tier,
    /// Time since its launch.
    #[serde(rename = "age_s", with = "seconds")]
    pub age: Duration,
    /// Whether it works on a request, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy: Option<bool>,
    /// Whether it takes work and its sign of life is late: where one has to go, it goes first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overdue: bool,
    /// What it last said of its answers; for the planner, and not published.
    #[serde(skip)]
    pub answered: Option<Answers>,
}

/// What an instance said of its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answers {
    /// Requests that it had answered since it took work first.
    pub count: u64,
    /// How long ago it said so.
    pub age: Duration,
}

mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_f64((value.as_secs_f64() * 1e3).round() / 1e3)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// The failure underneath, kept as it came.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Why a fleet could not be listed or changed, one variant for each decision a caller makes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FleetError {
    /// The instance could not be started.
    #[error("could not launch a worker ({program})")]
    Launch {
        /// What was to be run.
        program: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Every place to launch in has said no, and none is asked again before `retry_after`.
    #[error("no capacity for {missing} more, asked again in {} s: {last}", retry_after.as_secs())]
    NoCapacity {
        /// Instances that were asked for and not launched.
        missing: u32,
        /// How long until the first place is asked again.
        retry_after: Duration,
        /// The place asked last and what it said.
        last: String,
    },
    /// The credentials do not allow it: an operator has to act.
    #[error("not permitted to {action}")]
    NotPermitted {
        /// What was attempted.
        action: String,
        /// What the service said.
        #[source]
        source: SourceError,
    },
    /// Something that the settings name does not exist: an operator has to act.
    #[error("{what} does not exist")]
    NotFound {
        /// What was named.
        what: String,
        /// What the service said.
        #[source]
        source: SourceError,
    },
    /// The service asks for fewer calls: retry with back-off.
    #[error("the service is throttling")]
    Throttled {
        /// What the service said.
        #[source]
        source: SourceError,
    },
    /// The service could not be reached or failed: retry with back-off. The call may have happened.
    #[error("could not {action}: the service is unavailable")]
    Unavailable {
        /// What was attempted.
        action: String,
        /// What happened.
        #[source]
        source: SourceError,
    },
    /// The service refuses the call as it is, and will refuse it again.
    #[error("the service refuses to {action}")]
    Refused {
        /// What was attempted.
        action: String,
        /// What the service said.
        #[source]
        source: SourceError,
    },
    /// The fleet's own record could not be read or written; nothing was launched.
    #[error("could not use the launch record {path}")]
    Record {
        /// Where it is kept.
        path: String,
        /// Why not.
        #[source]
        source: SourceError,
    },
    /// Another controller acts on this fleet: this one must stop.
    #[error("another controller holds the lease")]
    LeaseLost,
}

impl FleetError {
    /// How long the same call is sure to fail, where that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NoCapacity { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }
}

/// A set of instances that can be launched, listed and told to stop.
#[async_trait]
pub trait Fleet: Send + Sync + 'static {
    /// Every instance that is not terminated, oldest first.
    ///
    /// # Errors
    /// When the fleet could not be listed. It never looks empty for that.
    async fn instances(&self) -> Result<Vec<Instance>, FleetError>;

    /// Launches `count` instances of a tier; those of [`Tier::Stopped`] that can not be started are
    /// launched. They are listed as pending from the moment this returns.
    ///
    /// # Errors
    /// When fewer were launched, possibly none; those that were are listed. The caller backs off
    /// before it tries again.
    async fn launch(&self, tier: Tier, count: u32) -> Result<(), FleetError>;

    /// How many stopped instances the next launch would start rather than launch others; none
    /// unless the fleet keeps some.
    async fn stopped(&self) -> u32 {
        0
    }

    /// Whether the controller's machine gets less of its processors than it asks for.
    fn is_throttled(&self) -> bool {
        false
    }

    /// Tells instances to drain. Unknown and already draining ones are left as they are.
    ///
    /// # Errors
    /// When some could not be told; they are still listed as they were, and may be told again.
    async fn drain(&self, ids: &[InstanceId]) -> Result<(), FleetError>;

    /// Returns when an instance may have changed state since this was last awaited.
    async fn changed(&self);

    /// How many instances of a tier ended without ever having been running, since the fleet was made;
    /// of EC2's tiers, together.
    ///
    /// A launch that succeeds and dies at once is a failed launch too.
    fn failed_starts(&self, tier: Tier) -> u64;
}
