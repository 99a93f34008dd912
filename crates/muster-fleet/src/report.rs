//! What the controller publishes of the fleet.

use serde::{Deserialize, Serialize};

use crate::activity::Activity;
use crate::bill::Cost;
use crate::fleet::Instance;

/// What the controller last saw and decided; published whenever it changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FleetReport {
    /// Instances that are booting.
    pub pending: u32,
    /// Instances that take work.
    pub running: u32,
    /// Instances that finish what they have.
    pub draining: u32,
    /// The policy's lower bound.
    pub min: u32,
    /// The policy's upper bound.
    pub max: u32,
    /// The last plan's reason.
    pub reason: String,
    /// Every instance.
    pub instances: Vec<Instance>,
    /// What was done since the controller began.
    #[serde(default)]
    pub activity: Activity,
    /// What the fleet costs, where a price is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
}

impl FleetReport {
    /// Says whether two reports differ in more than the instances' ages and the backlog in the reason.
    pub(crate) fn differs_from(&self, other: &Self) -> bool {
        let instances = |report: &Self| -> Vec<_> {
            let instances = report.instances.iter();
            instances.map(|i| (i.id.clone(), i.state)).collect()
        };
        (self.min, self.max) != (other.min, other.max) || instances(self) != instances(other)
    }
}

/// A report with its time, as it is stored for the web tiers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FleetStatus {
    /// When the controller saw this, in milliseconds since the Unix epoch; 0 when there was none.
    pub observed_at_ms: u64,
    /// What it saw and decided.
    pub report: FleetReport,
}
