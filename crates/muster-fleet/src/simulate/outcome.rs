//! What a simulation measures.

/// Cost and waits of one policy over one trace.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The policy.
    pub name: String,
    /// Money.
    pub cost: f64,
    /// Hours billed.
    pub instance_hours: f64,
    /// Seconds from arrival until its service began, for each arrival in order.
    pub waits: Vec<f64>,
    /// `(second of its launch, second until which it is billed)` of each instance, as they ended.
    pub bills: Vec<(f64, f64)>,
    /// Launches.
    pub launches: u64,
    /// `(second, instances)` of each launch beyond the scenario's limit: what there was no token for, and 0
    /// where there was none for the call.
    pub refused_launches: Vec<(f64, u32)>,
    /// Launches while no instance was running or booting.
    pub cold_starts: u64,
    /// Most instances that were billed at one time.
    pub peak: u32,
    /// `(second, ready, booting)` at each change.
    pub fleet: Vec<(f64, u32, u32)>,
    /// The last plan's reasons, where the policy gives any: `(second, reason)` of each change.
    pub reasons: Vec<(f64, String)>,
}

impl Outcome {
    /// Returns the wait, in seconds, that a share `q` (0 to 1) of the requests did not exceed.
    pub fn wait_quantile(&self, q: f64) -> f64 {
        let mut sorted = self.waits.clone();
        let Some(last) = sorted.len().checked_sub(1) else {
            return 0.0;
        };
        let at = ((sorted.len() as f64 * q).ceil() as usize).clamp(1, last + 1) - 1;
        let (_, value, _) = sorted.select_nth_unstable_by(at, f64::total_cmp);
        *value
    }

    /// Returns the share of requests, 0 to 1, that waited longer than `limit_s`.
    pub fn share_over(&self, limit_s: f64) -> f64 {
        let over = self.waits.iter().filter(|&&wait| wait > limit_s).count();
        over as f64 / self.waits.len().max(1) as f64
    }
}
