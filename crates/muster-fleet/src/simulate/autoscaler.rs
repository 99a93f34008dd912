//! What sizes the simulated fleet.

use super::scaling_policy::ScalingPolicy;
use crate::learn::Learned;
use crate::policy::{Policy, Scaling};

/// What the tables call the schedule of one who knows the future.
pub const ORACLE: &str = "oracle";

/// A policy in the simulation.
pub enum Autoscaler {
    /// Muster's own, with what it has learned.
    Muster {
        /// The operator's bounds.
        policy: Policy,
        /// What was learned so far; a new controller starts with the default.
        learned: Box<Learned>,
    },
    /// One that answers how many instances there should be.
    Peer(Box<dyn ScalingPolicy>),
    /// A schedule made by one who knows the future: how many instances are to be ready in each step.
    Scheduled {
        /// Seconds of one step.
        step_s: f64,
        /// Instances ready in each step.
        ready: Vec<u32>,
    },
}

impl Autoscaler {
    /// Returns what the tables call it.
    pub fn name(&self) -> String {
        match self {
            Self::Muster { policy, .. } => match policy.scaling {
                Scaling::Objective => "muster".to_owned(),
                Scaling::RequestsPerInstance(n) => format!("requests-per-instance:{n}"),
            },
            Self::Peer(peer) => peer.name(),
            Self::Scheduled { .. } => ORACLE.to_owned(),
        }
    }
}
