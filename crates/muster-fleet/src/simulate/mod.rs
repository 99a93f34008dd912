//! A discrete-event simulation of a fleet under a trace of arrivals.
//!
//! The very [`plan()`](crate::plan()) that the controller calls is replayed against what today's
//! autoscalers would have done, from their published formulas, and against a clairvoyant optimum.

pub mod engine;
pub mod oracle;
pub mod peers;
mod random;

pub(crate) use random::Random;

/// What every policy is measured under.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Median seconds from a launch until the instance takes work.
    pub boot_s: f64,
    /// Seconds that one request occupies one slot.
    pub service_s: f64,
    /// Requests that one instance works on at a time.
    pub slots: u32,
    /// Instances never exceeded, by any policy.
    pub max_instances: u32,
    /// Price of an instance-hour; billed by the second, from launch to termination.
    pub price_per_hour: f64,
    /// Seconds billed for an instance at least; Amazon EC2 has 60.
    pub billing_minimum_s: f64,
    /// A request should begin to be served within this many seconds.
    pub target_wait_s: f64,
    /// Seconds by which the queue's counts lag behind.
    pub count_lag_s: f64,
    /// The queue's counts are wrong by up to this many requests either way, now and then.
    pub count_noise: u32,
    /// Seed of everything random.
    pub seed: u64,
}

/// What a policy of the peers' kind sees when it looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// Seconds since the trace began.
    pub now_s: f64,
    /// Requests visible on the queue: approximate, and lagging.
    pub visible: u64,
    /// Requests in flight at an instance: approximate, and lagging.
    pub in_flight: u64,
    /// Instances that take work.
    pub ready: u32,
    /// Instances that boot.
    pub booting: u32,
}

/// A policy that answers how many instances there should be.
pub trait Sizer {
    /// What the tables call it.
    fn name(&self) -> String;
    /// Seconds between two looks.
    fn interval_s(&self) -> f64;
    /// How many instances, booting ones included, there should be from now on; the engine launches
    /// or drains the difference at once, draining booting ones first, then idle ones, then busy
    /// ones (which finish their request).
    fn desired(&mut self, seen: &Seen, scenario: &Scenario) -> u32;
    /// How many instances run, booted, before the trace begins.
    fn at_start(&self) -> u32 {
        0
    }
}

/// Turns counts, each `(second, arrivals)` of a step of `step_s` seconds, into arrivals in order,
/// uniformly at random within their step.
pub fn spread(counts: &[(f64, u64)], step_s: f64, seed: u64) -> Vec<f64> {
    let mut random = Random::new(seed);
    let mut arrivals: Vec<f64> = counts
        .iter()
        .flat_map(|(at, count)| (0..*count).map(move |_| *at))
        .map(|at| at + random.unit() * step_s)
        .collect();
    arrivals.sort_unstable_by(f64::total_cmp);
    arrivals
}
