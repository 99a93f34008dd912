//! The kind of policy that sets a number of instances from metrics.

use super::scenario::Scenario;

/// Metrics of the queue and the fleet, as a scaling policy sees them at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FleetMetrics {
    /// Seconds since the trace began.
    pub now_s: f64,
    /// Requests visible on the queue: approximate, and lagging.
    pub visible: u64,
    /// Requests in flight at an instance: approximate, and lagging.
    pub in_flight: u64,
    /// Seconds that requests had waited and been served, all together, as of these counts: exact.
    pub request_s: f64,
    /// Whether a request that came just now, which the counts do not have yet, is why it decides.
    pub arrival: bool,
    /// Instances that take work.
    pub ready: u32,
    /// Instances that boot.
    pub booting: u32,
}

/// A policy that answers how many instances there should be, as autoscaling groups and
/// deployments take it.
pub trait ScalingPolicy {
    /// Returns what the tables call it.
    fn name(&self) -> String;
    /// Returns the seconds between two evaluations.
    fn interval_s(&self) -> f64;
    /// Returns how many instances, booting ones included, there should be from now on.
    ///
    /// The engine launches or drains the difference at once, draining booting ones first, then idle
    /// ones, then busy ones (which finish their request).
    fn desired_instances(&mut self, metrics: &FleetMetrics, scenario: &Scenario) -> u32;
    /// Says whether the next request that comes makes it decide at once, besides its interval.
    fn wakes_at_arrival(&self) -> bool {
        false
    }
    /// Returns how many instances run, booted, before the trace begins.
    fn initial_instances(&self) -> u32 {
        0
    }
}

/// Names a policy with its setting, where it has one.
pub(super) fn named(policy: &str, setting: Option<f64>) -> String {
    setting.map_or(policy.to_owned(), |setting| format!("{policy}:{setting}"))
}
