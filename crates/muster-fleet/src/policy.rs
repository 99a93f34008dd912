//! What the operator asks of the fleet: bounds, the rule it is sized by, and how long idle instances
//! stay.

use std::num::NonZeroU32;
use std::time::Duration;

/// Bounds and objective of a fleet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// Instances kept even without work.
    pub min_instances: u32,
    /// Instances never exceeded.
    pub max_instances: u32,
    /// The rule that says how many there are to be within these bounds.
    pub scaling: Scaling,
    /// Requests that one instance works on at a time.
    pub slots: u32,
    /// The objective: 99 of 100 requests begin to be served within this time.
    pub target_wait: Duration,
    /// How long an idle instance is kept.
    pub keep_alive: KeepAlive,
    /// Time that is billed for an instance at least; zero where nothing is billed.
    pub billing_minimum: Duration,
    /// How long the queue's counts may lag behind; zero where they are exact.
    pub count_lag: Duration,
    /// How long a boot takes, until boots were seen.
    pub expected_boot: Duration,
    /// How long a boot may take where it is not judged by others.
    pub boot_timeout: Duration,
    /// How long one request takes of one slot, until requests were seen.
    pub expected_service: Duration,
}

/// The rule that a fleet is sized by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scaling {
    /// For the objective: by the backlog, and by what was learned of boots, requests and the load.
    Objective,
    /// One instance for so many unanswered requests, and nothing else: what was learned has no part
    /// in it.
    RequestsPerInstance(NonZeroU32),
}

/// The instances for so many unanswered requests, at so many for each.
pub(crate) fn instances_for(backlog: u64, requests: NonZeroU32) -> u32 {
    let instances = backlog.div_ceil(requests.get().into());
    instances.try_into().unwrap_or(u32::MAX)
}

/// How long an idle instance is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// As long as it is worth its price, by what was learned of the gaps in the load; what comes
    /// regularly has its instances launched ahead.
    Learned {
        /// But never longer.
        at_most: Duration,
    },
    /// This long; zero sends an idle instance away at once.
    Fixed(Duration),
}
