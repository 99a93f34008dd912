//! What every policy is measured under.

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::SeedableRng;

use super::launch_limit::LaunchLimit;
use super::random::{standard_normal, unit};
use crate::tier::Tier;

/// A fleet and its queue: times, prices, limits and the seed, the same for every policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Median seconds from a launch until the instance takes work.
    pub boot_s: f64,
    /// Seconds that one request occupies one slot, on average.
    pub service_s: f64,
    /// Their coefficient of variation (standard deviation divided by mean); 0 where all take as long.
    pub service_cv: f64,
    /// Requests that one instance works on at a time.
    pub slots: u32,
    /// Instances never exceeded, by any policy.
    pub max_instances: u32,
    /// How many of them the service lets a policy launch: all where there is none. The best schedule
    /// that is known, and the bound, know of no such limit.
    pub launch_limit: Option<LaunchLimit>,
    /// Price of an instance-hour; billed by the second, from launch to termination.
    pub price_per_hour: f64,
    /// What there is besides instances that are launched. Only Muster's policies know of it.
    pub tiers: Vec<TierScenario>,
    /// Seconds billed for an instance at least; Amazon EC2 has 60.
    pub billing_minimum_s: f64,
    /// A request should begin to be served within this many seconds.
    pub target_wait_s: f64,
    /// Seconds by which the queue's counts lag behind.
    pub count_lag_s: f64,
    /// The queue's counts are wrong by up to this many requests either way, now and then.
    pub count_noise: u32,
    /// The share of the service that workers report which an instance gives, the first launched first and
    /// then again from the beginning; none where all give what they report.
    pub speeds: Vec<f64>,
    /// Whether each answer brings the next request at once, until the trace is over: as many clients as
    /// arrivals wait for each other's instances.
    pub closed_loop: bool,
    /// Seed of everything random.
    pub seed: u64,
}

/// Instances of one tier besides [`Tier::Ec2`]: workers of the controller's machine, or instances that are
/// stopped rather than terminated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TierScenario {
    /// Which.
    pub tier: Tier,
    /// How many at most: of the local ones at one time, of the stopped while they are stopped.
    pub number: u32,
    /// Median seconds from a start until it takes work.
    pub boot_s: f64,
    /// Price of an hour. What is local has no minimum.
    pub price_per_hour: f64,
}

impl Scenario {
    /// Up to so many instances as those of the published figures, at a dollar an hour: they boot in 26 s and
    /// answer a request in 0.2 s. Counts are a second old, and right.
    #[must_use]
    pub fn on_ec2(max_instances: u32) -> Self {
        Self {
            boot_s: 26.0,
            service_s: 0.2,
            service_cv: 0.0,
            slots: 1,
            max_instances,
            launch_limit: None,
            price_per_hour: 1.0,
            tiers: Vec::new(),
            billing_minimum_s: 60.0,
            target_wait_s: 1.0,
            count_lag_s: 1.0,
            count_noise: 0,
            speeds: Vec::new(),
            closed_loop: false,
            seed: 7,
        }
    }

    /// What is known of a tier besides the launched instances, where there is any.
    pub fn tier(&self, tier: Tier) -> Option<TierScenario> {
        self.tiers.iter().find(|known| known.tier == tier).copied()
    }

    /// Median seconds that an instance of a tier boots.
    pub(super) fn boot_s_of(&self, tier: Tier) -> f64 {
        self.tier(tier).map_or(self.boot_s, |known| known.boot_s)
    }

    /// What an instance of a tier costs that was there for so many seconds.
    pub(super) fn cost(&self, tier: Tier, held_s: f64) -> f64 {
        let known = self.tier(tier);
        let price = known.map_or(self.price_per_hour, |known| known.price_per_hour);
        self.billed_s(tier, held_s) / 3600.0 * price
    }

    /// The seconds that are billed of them.
    pub(super) fn billed_s(&self, tier: Tier, held_s: f64) -> f64 {
        match tier {
            Tier::Local => held_s,
            Tier::Stopped | Tier::Ec2 => held_s.max(self.billing_minimum_s),
        }
    }

    /// Returns the seconds that one request, counted from the first arrival, occupies a slot: by the
    /// seed and the request alone, so that every policy has the same work to do.
    ///
    /// The times are log-normal, as those of services mostly are (Brown et al., "Statistical Analysis
    /// of a Telephone Call Center", 2005), and exponential where their coefficient of variation is 1,
    /// so that Erlang's formulas hold there.
    pub fn service_time_s(&self, request: u64) -> f64 {
        if self.service_cv == 0.0 {
            return self.service_s;
        }
        // Neighbouring seeds of SplitMix64 give numbers that are as good as independent.
        let mut random = SplitMix64::seed_from_u64(self.seed.rotate_left(32) ^ request);
        let of_mean = if self.service_cv == 1.0 {
            -(1.0 - unit(&mut random)).ln()
        } else {
            let variance = (1.0 + self.service_cv * self.service_cv).ln();
            (variance.sqrt() * standard_normal(&mut random) - variance / 2.0).exp()
        };
        self.service_s * of_mean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_times_have_their_mean_and_spread_whatever_the_order_they_are_asked_in() {
        for cv in [0.0, 0.5, 1.0, 2.0] {
            let scenario = Scenario {
                service_s: 6.0,
                service_cv: cv,
                ..Scenario::on_ec2(32)
            };
            let requests = 100_000;
            let times: Vec<f64> = (0..requests).map(|n| scenario.service_time_s(n)).collect();
            let mean = times.iter().sum::<f64>() / requests as f64;
            let squares = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>();
            let deviation = (squares / requests as f64).sqrt();
            assert!((mean / 6.0 - 1.0).abs() < 0.02, "{cv}: {mean}");
            assert!(
                (deviation / 6.0 - cv).abs() < 0.1 * cv + 1e-9,
                "{cv}: {deviation}"
            );
            assert_eq!(scenario.service_time_s(9), times[9]);
            let other = Scenario {
                seed: 8,
                ..scenario
            };
            assert_eq!(other.service_time_s(9) == times[9], cv == 0.0);
        }
    }
}
