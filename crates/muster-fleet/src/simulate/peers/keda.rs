//! KEDA's SQS scaler and the Kubernetes Horizontal Pod Autoscaler that it feeds.

use std::collections::VecDeque;

use crate::simulate::scaling_policy::{FleetMetrics, ScalingPolicy, named};
use crate::simulate::scenario::Scenario;

/// KEDA's SQS scaler and the Kubernetes Horizontal Pod Autoscaler that it feeds.
///
/// <https://keda.sh/docs/latest/scalers/aws-sqs/>: `queueLength` 5, visible and in-flight messages
/// counted, active above 0. <https://keda.sh/docs/latest/reference/scaledobject-spec/>:
/// `pollingInterval` 30 s, `cooldownPeriod` 300 s before zero; from zero it makes one replica.
///
/// The autoscaler, for one replica and more, is that of kubernetes/kubernetes,
/// `pkg/controller/podautoscaler/horizontal.go`, for an object without `behavior`, as KEDA makes it:
/// synced every 15 s, a tolerance of 0.1, the highest recommendation of the last 300 s, and at most
/// twice as many replicas as there are, or 4.
#[derive(Clone, Debug)]
pub struct Keda {
    queue_length: f64,
    setting: Option<f64>,
    tick: u64,
    replicas: u32,
    last_active_s: f64,
    /// `(second, recommendation)` within the stabilization window, before any bound.
    recommended: VecDeque<(f64, u32)>,
}

impl Keda {
    const QUEUE_LENGTH: f64 = 5.0;
    const SYNC_S: f64 = 15.0;
    /// Polled in every second sync: 30 s.
    const SYNCS_PER_POLL: u64 = 2;
    const COOLDOWN_S: f64 = 300.0;
    const STABILIZATION_S: f64 = 300.0;
    const TOLERANCE: f64 = 0.1;
    const SCALE_UP_FACTOR: u32 = 2;
    const SCALE_UP_MINIMUM: u32 = 4;

    /// With its default `queueLength`, or another.
    pub fn new(queue_length: Option<f64>) -> Self {
        Self {
            queue_length: queue_length.unwrap_or(Self::QUEUE_LENGTH),
            setting: queue_length,
            tick: 0,
            replicas: 0,
            last_active_s: f64::NEG_INFINITY,
            recommended: VecDeque::new(),
        }
    }

    /// One sync of the Horizontal Pod Autoscaler.
    fn sync(&mut self, now_s: f64, messages: f64, max_replicas: u32) -> u32 {
        let wanted = messages / self.queue_length;
        let ratio = wanted / f64::from(self.replicas);
        let recommendation = if (1.0 - ratio).abs() > Self::TOLERANCE {
            wanted.ceil() as u32
        } else {
            self.replicas
        };
        self.recommended.push_back((now_s, recommendation));
        while self
            .recommended
            .front()
            .is_some_and(|(at, _)| *at < now_s - Self::STABILIZATION_S)
        {
            self.recommended.pop_front();
        }
        let stable = self.recommended.iter().map(|(_, n)| *n).max().unwrap_or(0);
        let fastest = (Self::SCALE_UP_FACTOR * self.replicas).max(Self::SCALE_UP_MINIMUM);
        stable.min(fastest).min(max_replicas).max(1)
    }
}

impl ScalingPolicy for Keda {
    fn name(&self) -> String {
        named("keda", self.setting)
    }

    fn interval_s(&self) -> f64 {
        Self::SYNC_S
    }

    fn desired_instances(&mut self, metrics: &FleetMetrics, scenario: &Scenario) -> u32 {
        let polled = self.tick.is_multiple_of(Self::SYNCS_PER_POLL);
        self.tick += 1;
        let messages = metrics.visible + metrics.in_flight;
        if polled && messages > 0 {
            self.last_active_s = metrics.now_s;
        }
        let cool = metrics.now_s - self.last_active_s >= Self::COOLDOWN_S;
        self.replicas = match self.replicas {
            0 => u32::from(polled && messages > 0),
            _ if polled && cool => 0,
            _ => self.sync(metrics.now_s, messages as f64, scenario.max_instances),
        };
        self.replicas
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What it wants at each sync, of so many messages each.
    fn replay(max_instances: u32, messages: impl IntoIterator<Item = u64>) -> Vec<u32> {
        let scenario = Scenario {
            max_instances,
            ..Scenario::on_ec2(32)
        };
        let mut keda = Keda::new(None);
        (0..)
            .zip(messages)
            .map(|(sync, visible)| {
                let metrics = FleetMetrics {
                    now_s: f64::from(sync) * 15.0,
                    visible,
                    ..FleetMetrics::default()
                };
                keda.desired_instances(&metrics, &scenario)
            })
            .collect()
    }

    /// 100 messages from 15 s to 60 s, 42 at 75 s, none from 90 s on.
    ///
    /// | s | messages | by the formula | highest of 300 s | at most | replicas |
    /// |---|---|---|---|---|---|
    /// | 0 | 0 | | | | 0 |
    /// | 15 | 100 | | | | 0: polled each 30 s |
    /// | 30 | 100 | | | | 1: active |
    /// | 45 | 100 | ceil(100 / 5) = 20 | 20 | max(2 * 1, 4) = 4 | 4 |
    /// | 60 | 100 | 20 | 20 | 8 | 8 |
    /// | 75 | 42 | 42 / (5 * 8) = 1.05, within 0.1: 8 | 20 | 16 | 16 |
    /// | 90 | 0 | 0 | 20 | 32 | 20 |
    /// | 345 | 0 | 0 | 20, of 45 s | 40 | 20 |
    /// | 360 | 0 | | | | 0: 300 s since it was polled active at 60 s |
    #[test]
    fn a_burst_is_followed_by_syncs_that_double_and_held_for_five_minutes() {
        let mut messages = vec![0, 100, 100, 100, 100, 42];
        messages.resize(26, 0);
        let replicas = replay(32, messages.clone());
        assert_eq!(replicas[..7], [0, 0, 1, 4, 8, 16, 20]);
        assert!(replicas[7..24].iter().all(|n| *n == 20), "{replicas:?}");
        assert_eq!(replicas[24..], [0, 0]);
        // `maxReplicaCount` bounds each step, and what the next one doubles.
        assert_eq!(replay(6, messages)[..7], [0, 0, 1, 4, 6, 6, 6]);
    }

    /// 23 messages need `ceil(23 / 5) = 5` replicas, and 21 no other: `21 / (5 * 5) = 0.84` would make
    /// `ceil(4.2) = 5`. 20 make `ceil(20 / 5) = 4`, which counts once the 5 are more than 300 s old: the
    /// last was recommended at 90 s (sync 6), and is older from 405 s (sync 27) on.
    #[test]
    fn a_scale_down_waits_until_no_recommendation_of_the_window_is_higher() {
        let mut messages = vec![23, 23, 23, 23, 21, 21, 21];
        messages.resize(28, 20);
        let replicas = replay(32, messages);
        assert_eq!(replicas[..4], [1, 4, 5, 5]);
        assert!(replicas[4..27].iter().all(|n| *n == 5), "{replicas:?}");
        assert_eq!(replicas[27], 4);
    }
}
