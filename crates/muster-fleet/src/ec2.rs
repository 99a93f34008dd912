//! A fleet of EC2 instances.

use serde::{Deserialize, Serialize};

/// Whether Spot capacity is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capacity {
    /// Never.
    #[default]
    OnDemand,
    /// Nothing else.
    Spot,
    /// Where there is some, else on-demand.
    SpotFirst,
}
