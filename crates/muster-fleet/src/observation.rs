//! What the controller sees when it observes, and all that a plan is made from.

use std::time::Duration;

use crate::fleet::{Instance, InstanceState};
use crate::tier::TierCounts;

/// What the web tiers counted of their own requests, since they began; exact, where the queue's
/// counts are approximate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestTotals {
    /// Requests submitted so far.
    pub submitted: u64,
    /// Requests answered so far.
    pub answered: u64,
    /// Requests answered so far whose worker reported the service time: how long the request
    /// occupied its slot.
    pub timed: u64,
    /// The service times of these, summed.
    pub worked: Duration,
    /// When the oldest request was submitted that is not answered, since the Unix epoch by the web
    /// tier's clock.
    pub oldest: Option<Duration>,
}

/// Backlog and fleet as the controller saw them at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// The time, from an epoch that stays the same for as long as what was learned is kept.
    pub now: Duration,
    /// Requests visible on the queue, approximately.
    pub visible: u64,
    /// Requests in flight at a worker, approximately.
    pub in_flight: u64,
    /// What the web tiers counted themselves, where it is known.
    pub totals: Option<RequestTotals>,
    /// Every instance that is not terminated, oldest first.
    pub instances: Vec<Instance>,
    /// Most launches of each tier: none where they are held back after failed ones, and as many of the
    /// stopped as there are.
    pub available: TierCounts,
    /// Whether this machine gets less of its processors than it asks for.
    pub throttled: bool,
}

impl Observation {
    /// Counts the instances in a state.
    pub fn count(&self, state: InstanceState) -> u32 {
        self.instances.iter().filter(|i| i.state == state).count() as u32
    }
}
