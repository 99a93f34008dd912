//! What every policy is measured under.

/// A fleet and its queue: times, prices, limits and the seed, the same for every policy.
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
