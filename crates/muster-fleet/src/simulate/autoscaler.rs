//! What sizes the simulated fleet.

use super::scaling_policy::ScalingPolicy;
use super::schedule::Schedule;
use crate::learn::Learned;
use crate::policy::{Policy, Scaling};

/// What the tables call the cheapest schedule that is known to meet the objective.
pub const BEST_KNOWN: &str = "best known";

/// A policy in the simulation.
pub enum Autoscaler {
    /// Muster's own, with what it has learned.
    Muster {
        /// The operator's bounds.
        policy: Box<Policy>,
        /// What was learned so far; a new controller starts with the default.
        learned: Box<Learned>,
    },
    /// One that answers how many instances there should be.
    Peer(Box<dyn ScalingPolicy>),
    /// A schedule made by one who knows the future.
    Scheduled(Schedule),
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
            Self::Scheduled(_) => BEST_KNOWN.to_owned(),
        }
    }
}
