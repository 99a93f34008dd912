//! AWS target tracking on the backlog of one instance.

use crate::simulate::scaling_policy::{FleetMetrics, ScalingPolicy, named};
use crate::simulate::scenario::Scenario;

/// AWS target tracking on the backlog of one instance.
///
/// <https://docs.aws.amazon.com/autoscaling/ec2/userguide/as-using-sqs-queue.html>: visible
/// messages divided by the instances in service, against the acceptable latency divided by the
/// time of one message; the metric each minute, three of them above the target to scale out,
/// fifteen below nine tenths of it to scale in. The metric is undefined without an instance, so one
/// is kept.
#[derive(Clone, Debug)]
pub struct TargetTracking {
    setting: Option<f64>,
    above: u32,
    below: u32,
    desired: u32,
}

impl TargetTracking {
    const PERIOD_S: f64 = 60.0;
    const PERIODS_OUT: u32 = 3;
    const PERIODS_IN: u32 = 15;
    const LOW: f64 = 0.9;

    /// With the documented target, or another backlog for one instance.
    pub fn new(backlog: Option<f64>) -> Self {
        Self {
            setting: backlog,
            above: 0,
            below: 0,
            desired: 1,
        }
    }
}

impl ScalingPolicy for TargetTracking {
    fn name(&self) -> String {
        named("target-tracking", self.setting)
    }

    fn interval_s(&self) -> f64 {
        Self::PERIOD_S
    }

    fn initial_instances(&self) -> u32 {
        1
    }

    fn desired_instances(&mut self, metrics: &FleetMetrics, scenario: &Scenario) -> u32 {
        let documented = scenario.target_wait_s / scenario.service_s * f64::from(scenario.slots);
        let target = self.setting.unwrap_or(documented);
        let metric = metrics.visible as f64 / f64::from(metrics.ready.max(1));
        self.above = if metric > target { self.above + 1 } else { 0 };
        self.below = if metric < Self::LOW * target {
            self.below + 1
        } else {
            0
        };
        // In proportion to the metric, and to the instances that it stands for: those in service.
        let proportional = ((metrics.visible as f64 / target).ceil() as u32).max(1);
        if self.above >= Self::PERIODS_OUT {
            self.desired = self.desired.max(proportional);
        } else if self.below >= Self::PERIODS_IN {
            self.desired = self.desired.min(proportional);
        }
        self.desired = self.desired.min(scenario.max_instances);
        self.desired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The documented target is `1 s / 0.2 s = 5` messages an instance. 24 messages for the one instance
    /// are above it; the third minute makes `ceil(24 / 5) = 5`. With these in service, 23 messages are 4.6
    /// each, which is not below `0.9 * 5 = 4.5`, and 20 are 4 each: the fifteenth such minute makes
    /// `ceil(20 / 5) = 4`. An empty queue leaves one.
    #[test]
    fn three_minutes_scale_out_and_fifteen_scale_in() {
        let scenario = Scenario {
            target_wait_s: 1.0,
            service_s: 0.2,
            ..Scenario::on_ec2(32)
        };
        let mut tracking = TargetTracking::new(None);
        let mut ready = tracking.initial_instances();
        let mut minutes = |visible: u64, times: usize| -> Vec<u32> {
            let minute = |_| {
                let metrics = FleetMetrics {
                    visible,
                    ready,
                    ..FleetMetrics::default()
                };
                ready = tracking.desired_instances(&metrics, &scenario);
                ready
            };
            (0..times).map(minute).collect()
        };
        assert_eq!(minutes(24, 3), [1, 1, 5]);
        assert_eq!(minutes(23, 20), [5; 20]);
        assert_eq!(minutes(20, 14), [5; 14]);
        assert_eq!(minutes(20, 1), [4]);
        assert_eq!(minutes(0, 15)[14], 1);
    }

    /// `1 s / 6 s`: a sixth of a message an instance, so that 2 messages need 12 instances.
    #[test]
    fn a_latency_below_the_time_of_a_message_makes_a_target_below_one() {
        let scenario = Scenario {
            target_wait_s: 1.0,
            service_s: 6.0,
            ..Scenario::on_ec2(32)
        };
        let mut tracking = TargetTracking::new(None);
        let metrics = FleetMetrics {
            visible: 2,
            ready: 1,
            ..FleetMetrics::default()
        };
        let desired = (0..3).map(|_| tracking.desired_instances(&metrics, &scenario));
        assert_eq!(desired.last(), Some(12));
    }
}
