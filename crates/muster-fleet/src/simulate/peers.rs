//! What today's autoscalers would do, from what their makers publish.
//!
//! Each is given more than it would have in life: instances are drained without ever killing a
//! request, and its metrics arrive at once unless its own documentation says how often it looks.

use std::collections::VecDeque;

use super::scaling_policy::{FleetMetrics, ScalingPolicy};
use super::scenario::Scenario;

/// A fleet that never changes, booted before the trace begins.
#[derive(Clone, Copy, Debug)]
pub struct Fixed(
    /// Instances.
    pub u32,
);

impl ScalingPolicy for Fixed {
    fn name(&self) -> String {
        format!("fixed:{}", self.0)
    }

    fn interval_s(&self) -> f64 {
        60.0
    }

    fn desired_instances(&mut self, _: &FleetMetrics, _: &Scenario) -> u32 {
        self.0
    }

    fn initial_instances(&self) -> u32 {
        self.0
    }
}

/// KEDA's SQS scaler and the Kubernetes Horizontal Pod Autoscaler that it feeds.
///
/// <https://keda.sh/docs/latest/scalers/aws-sqs/>: `queueLength` 5, visible and in-flight messages
/// counted. <https://keda.sh/docs/latest/reference/scaledobject-spec/>: `pollingInterval` 30 s,
/// `cooldownPeriod` 300 s before zero.
/// <https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/>: synced every 15 s,
/// tolerance 0.1, 300 s of stabilization before a scale-down, and a scale-up by 4 pods or 100 % in
/// 15 s, whichever is more.
#[derive(Clone, Debug)]
pub struct Keda {
    queue_length: f64,
    setting: Option<f64>,
    tick: u64,
    desired: u32,
    last_active_s: f64,
    /// `(second, recommendation)` within the stabilization window.
    recommended: VecDeque<(f64, u32)>,
}

impl Keda {
    const QUEUE_LENGTH: f64 = 5.0;
    const SYNC_S: f64 = 15.0;
    /// Polled at zero in every second sync: 30 s.
    const SYNCS_PER_POLL: u64 = 2;
    const COOLDOWN_S: f64 = 300.0;
    const STABILIZATION_S: f64 = 300.0;
    const TOLERANCE: f64 = 0.1;
    const PODS_PER_SYNC: u32 = 4;

    /// With its default `queueLength`, or another.
    pub fn new(queue_length: Option<f64>) -> Self {
        Self {
            queue_length: queue_length.unwrap_or(Self::QUEUE_LENGTH),
            setting: queue_length,
            tick: 0,
            desired: 0,
            last_active_s: f64::NEG_INFINITY,
            recommended: VecDeque::new(),
        }
    }
}

impl ScalingPolicy for Keda {
    fn name(&self) -> String {
        named("keda", self.setting)
    }

    fn interval_s(&self) -> f64 {
        Self::SYNC_S
    }

    fn desired_instances(&mut self, metrics: &FleetMetrics, _: &Scenario) -> u32 {
        let polled = self.tick.is_multiple_of(Self::SYNCS_PER_POLL);
        self.tick += 1;
        let messages = (metrics.visible + metrics.in_flight) as f64;
        if polled && messages > 0.0 {
            self.last_active_s = metrics.now_s;
        }
        if self.desired == 0 {
            // KEDA itself takes the deployment from zero to one; the autoscaler takes over there.
            if polled && messages > 0.0 {
                self.desired = 1;
            }
            return self.desired;
        }
        if polled && metrics.now_s - self.last_active_s >= Self::COOLDOWN_S {
            self.recommended.clear();
            self.desired = 0;
            return 0;
        }
        let current = f64::from(self.desired);
        let ratio = messages / self.queue_length / current;
        let recommendation = if (ratio - 1.0).abs() <= Self::TOLERANCE {
            self.desired
        } else {
            ((messages / self.queue_length).ceil() as u32).max(1)
        };
        self.recommended.push_back((metrics.now_s, recommendation));
        while self
            .recommended
            .front()
            .is_some_and(|(at, _)| *at <= metrics.now_s - Self::STABILIZATION_S)
        {
            self.recommended.pop_front();
        }
        let stable = self.recommended.iter().map(|(_, n)| *n).max().unwrap_or(1);
        let fastest = (self.desired + Self::PODS_PER_SYNC).max(2 * self.desired);
        self.desired = if recommendation > self.desired {
            recommendation.min(fastest)
        } else {
            stable.min(self.desired)
        };
        self.desired
    }
}

/// Knative's pod autoscaler on concurrency.
///
/// <https://knative.dev/docs/serving/autoscaling/> and its `config-autoscaler`: a tick of 2 s, a
/// stable window of 60 s, a panic window of a tenth, a panic threshold of 200 %, a target of 70 %
/// of 100 concurrent requests, a scale-up rate of 1,000, a scale-down rate of 2, and a grace of
/// 30 s before zero. Requests that wait in front of the pods count, as its activator counts them.
#[derive(Clone, Debug)]
pub struct Knative {
    target: f64,
    setting: Option<f64>,
    /// `(second, concurrency)` within the stable window.
    samples: VecDeque<(f64, f64)>,
    panic_since_s: Option<f64>,
    panic_size: u32,
    zero_since_s: Option<f64>,
}

impl Knative {
    const CONCURRENCY: f64 = 100.0;
    const UTILIZATION: f64 = 0.7;
    const TICK_S: f64 = 2.0;
    const STABLE_S: f64 = 60.0;
    const PANIC_S: f64 = 6.0;
    const PANIC_THRESHOLD: f64 = 2.0;
    const MAX_UP: f64 = 1000.0;
    const MAX_DOWN: f64 = 2.0;
    const GRACE_S: f64 = 30.0;

    /// With its default target, or another concurrency for one instance.
    pub fn new(concurrency: Option<f64>) -> Self {
        Self {
            target: concurrency.unwrap_or(Self::CONCURRENCY) * Self::UTILIZATION,
            setting: concurrency,
            samples: VecDeque::new(),
            panic_since_s: None,
            panic_size: 0,
            zero_since_s: None,
        }
    }

    fn average(&self, since_s: f64) -> f64 {
        let (mut sum, mut count) = (0.0, 0u32);
        for (at, concurrency) in self.samples.iter().rev() {
            if *at <= since_s {
                break;
            }
            sum += concurrency;
            count += 1;
        }
        sum / f64::from(count.max(1))
    }
}

impl ScalingPolicy for Knative {
    fn name(&self) -> String {
        named("knative", self.setting)
    }

    fn interval_s(&self) -> f64 {
        Self::TICK_S
    }

    fn desired_instances(&mut self, metrics: &FleetMetrics, _: &Scenario) -> u32 {
        let now = metrics.now_s;
        let concurrency = (metrics.visible + metrics.in_flight) as f64;
        self.samples.push_back((now, concurrency));
        while self
            .samples
            .front()
            .is_some_and(|(at, _)| *at <= now - Self::STABLE_S)
        {
            self.samples.pop_front();
        }
        let ready = f64::from(metrics.ready.max(1));
        let (least, most) = ((ready / Self::MAX_DOWN).floor(), Self::MAX_UP * ready);
        let wanted = |since_s: f64| (self.average(since_s) / self.target).ceil();
        let stable = wanted(now - Self::STABLE_S).clamp(least, most);
        let burst = wanted(now - Self::PANIC_S);
        let panics = burst / ready >= Self::PANIC_THRESHOLD;
        if panics {
            if self.panic_since_s.is_none() {
                self.panic_size = 0;
            }
            self.panic_since_s = Some(now);
        } else if self
            .panic_since_s
            .is_some_and(|at| now - at > Self::STABLE_S)
        {
            self.panic_since_s = None;
        }
        let desired = if self.panic_since_s.is_some() {
            let size = burst.clamp(least, most).max(stable) as u32;
            self.panic_size = self.panic_size.max(size).max(metrics.ready);
            self.panic_size
        } else {
            stable as u32
        };
        if desired > 0 {
            self.zero_since_s = None;
            return desired;
        }
        let since = *self.zero_since_s.get_or_insert(now);
        let members = metrics.ready + metrics.booting;
        if members > 0 && now - since < Self::GRACE_S {
            1
        } else {
            0
        }
    }
}

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
        let target = self.setting.unwrap_or(documented.max(1.0));
        let metric = metrics.visible as f64 / f64::from(metrics.ready.max(1));
        self.above = if metric > target { self.above + 1 } else { 0 };
        self.below = if metric < Self::LOW * target {
            self.below + 1
        } else {
            0
        };
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

fn named(policy: &str, setting: Option<f64>) -> String {
    setting.map_or(policy.to_owned(), |setting| format!("{policy}:{setting}"))
}
