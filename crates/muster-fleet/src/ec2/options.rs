//! How an installation's instances are launched and kept.

use std::time::Duration;

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

/// How the instances of one installation are launched.
#[derive(Clone, Debug)]
pub struct Ec2FleetOptions {
    /// Tells this installation's instances from others': the tag `muster:deployment`.
    pub deployment: String,
    /// Name or id (`lt-…`) of the launch template.
    pub launch_template: String,
    /// Its version: a number, `$Default` or `$Latest`.
    pub launch_template_version: String,
    /// What the instances' `Name` tags begin with; the slot's number follows.
    pub name_prefix: String,
    /// Instance types, tried in this order; the template's own when empty.
    pub instance_types: Vec<String>,
    /// Subnets, tried in this order; the template's own when empty.
    pub subnets: Vec<String>,
    /// Whether Spot capacity is used.
    pub capacity: Capacity,
    /// Drained on-demand instances that are stopped rather than terminated.
    pub stopped_instances: u32,
    /// An instance that was not heard from for this long after its start is given up.
    pub boot_timeout: Duration,
    /// One that takes work and was not heard from for this long, while others could have been, is
    /// hung and terminated.
    pub hung_timeout: Duration,
    /// Instances never exceeded: the number of slots.
    pub max_instances: u32,
}
