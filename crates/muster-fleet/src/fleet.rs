//! What every fleet can do, whatever its instances are.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

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
    /// Time since its launch.
    #[serde(rename = "age_s", with = "seconds")]
    pub age: Duration,
    /// Whether it works on a request, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy: Option<bool>,
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

/// Why an instance could not be launched or told to stop.
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
}

/// A set of instances that can be launched, listed and told to stop.
#[async_trait]
pub trait Fleet: Send + Sync + 'static {
    /// Every instance that is not terminated, oldest first.
    async fn instances(&self) -> Result<Vec<Instance>, FleetError>;

    /// Launches one instance. It is listed as pending from the moment this returns.
    ///
    /// # Errors
    /// [`FleetError::Launch`]; the caller backs off before it tries again.
    async fn launch(&self) -> Result<InstanceId, FleetError>;

    /// Tells an instance to drain. Unknown and already draining instances are left as they are.
    async fn drain(&self, id: &InstanceId) -> Result<(), FleetError>;

    /// Returns when an instance may have changed state since this was last awaited.
    async fn changed(&self);

    /// How many instances ended without ever having been running, since the fleet was made.
    ///
    /// A launch that succeeds and dies at once is a failed launch too.
    fn failed_starts(&self) -> u64;
}
