//! Knative's pod autoscaler on concurrency.

use std::collections::VecDeque;

use crate::simulate::scaling_policy::{FleetMetrics, ScalingPolicy, named};
use crate::simulate::scenario::Scenario;

/// Knative's pod autoscaler on concurrency.
///
/// <https://knative.dev/docs/serving/autoscaling/> and its `config-autoscaler`: a tick of 2 s, a
/// stable window of 60 s, a panic window of a tenth, a panic threshold of 200 %, a target of 70 %
/// of 100 concurrent requests, a scale-up rate of 1,000, a scale-down rate of 2, a target burst
/// capacity of 211, and a grace of 30 s before zero. Requests that wait in front of the pods count, as
/// its activator counts them.
///
/// The decision is that of knative/serving, `pkg/autoscaler/scaling/autoscaler.go`, the averages those
/// of `pkg/autoscaler/aggregation/bucketing.go`, the way from zero (the activator reports the first
/// request at once) that of `pkg/autoscaler/scaling/multiscaler.go`, and the way to zero that of
/// `pkg/reconciler/autoscaling/kpa/scaler.go`.
#[derive(Clone, Debug)]
pub struct Knative {
    /// The concurrency that it is set to, of which it aims at a part.
    total: f64,
    setting: Option<f64>,
    stable: Window,
    panic: Window,
    /// `(second, seconds that requests had taken)` within the stable window.
    reported: VecDeque<(f64, f64)>,
    /// The seconds that requests had taken at the last look, and those of the reports from zero.
    request_s: f64,
    poked_s: f64,
    panic_since_s: Option<f64>,
    panic_size: u32,
    /// What it decided last.
    desired: u32,
    /// Since when pods are ready and no decision for zero has been acted on.
    active_since_s: Option<f64>,
    /// Since when the activator is in the path of requests.
    proxied_since_s: Option<f64>,
}

/// A time over which the concurrency is averaged, from its first report on.
#[derive(Clone, Copy, Debug)]
struct Window {
    length_s: f64,
    first_s: f64,
    last_s: f64,
}

impl Window {
    fn new(length_s: f64) -> Self {
        Self {
            length_s,
            first_s: f64::NEG_INFINITY,
            last_s: f64::NEG_INFINITY,
        }
    }

    /// Takes a report; after none for as long as the window, it begins anew.
    fn report(&mut self, at_s: f64) {
        if at_s - self.last_s >= self.length_s {
            self.first_s = at_s;
        }
        self.last_s = at_s;
    }
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
    const BURST_CAPACITY: f64 = 211.0;
    const GRACE_S: f64 = 30.0;

    /// With its default target, or another concurrency for one instance.
    pub fn new(concurrency: Option<f64>) -> Self {
        Self {
            total: concurrency.unwrap_or(Self::CONCURRENCY),
            setting: concurrency,
            stable: Window::new(Self::STABLE_S),
            panic: Window::new(Self::PANIC_S),
            reported: VecDeque::new(),
            request_s: 0.0,
            poked_s: 0.0,
            panic_since_s: None,
            panic_size: 0,
            desired: 0,
            active_since_s: None,
            proxied_since_s: None,
        }
    }

    /// Takes in what pods and activator report: nothing while there is neither a pod nor a request. The
    /// first request from zero is reported when it comes, as a concurrency of one for a second.
    fn report(&mut self, as_of_s: f64, metrics: &FleetMetrics) {
        let has_requests = metrics.request_s > self.request_s;
        self.request_s = metrics.request_s;
        if metrics.arrival {
            self.add(metrics.now_s);
            self.poked_s += 1.0;
            self.add(metrics.now_s);
        } else if (metrics.ready > 0 || has_requests) && as_of_s >= self.stable.last_s {
            self.add(as_of_s);
        }
    }

    fn add(&mut self, at_s: f64) {
        self.stable.report(at_s);
        self.panic.report(at_s);
        self.reported
            .push_back((at_s, self.request_s + self.poked_s));
        let begin_s = at_s - Self::STABLE_S;
        while self.reported.get(1).is_some_and(|(at, _)| *at <= begin_s) {
            self.reported.pop_front();
        }
    }

    /// The average concurrency of the seconds of a window for which there is a report.
    fn average(&self, window: Window) -> f64 {
        // What is a hair before the window is rounding.
        let begin_s = window.first_s.max(window.last_s - window.length_s) - 1e-6;
        let first = self.reported.iter().find(|(at, _)| *at >= begin_s);
        match (first, self.reported.back()) {
            (Some((from_s, from)), Some((to_s, to))) => {
                (to - from) / (to_s - from_s + 1.0).min(window.length_s)
            }
            _ => 0.0,
        }
    }

    /// The number of pods that the concurrency asks for.
    fn decide(&mut self, now: f64, ready: u32, stable: f64, panic: f64) -> u32 {
        let target = self.total * Self::UTILIZATION;
        let ready = f64::from(ready.max(1));
        let least = (ready / Self::MAX_DOWN).floor();
        let most = (Self::MAX_UP * ready).ceil();
        let (stable, panic) = ((stable / target).ceil(), (panic / target).ceil());
        if panic / ready >= Self::PANIC_THRESHOLD {
            self.panic_since_s = Some(now);
        } else if self
            .panic_since_s
            .is_some_and(|since| now - since > Self::STABLE_S)
        {
            self.panic_since_s = None;
            self.panic_size = 0;
        }
        let bounded = |pods: f64| pods.max(least).min(most) as u32;
        if self.panic_since_s.is_some() {
            self.panic_size = self.panic_size.max(bounded(stable)).max(bounded(panic));
            self.panic_size
        } else {
            bounded(stable)
        }
    }

    /// What becomes of a decision for zero: one more pod, or as many as there are, until the revision was
    /// active for the stable window and the activator is in the path for the grace period.
    fn scale_to_zero(&mut self, metrics: &FleetMetrics) -> u32 {
        let members = metrics.ready + metrics.booting;
        if members == 0 || metrics.ready == 0 {
            return members;
        }
        if let Some(since) = self.active_since_s {
            if metrics.now_s - since < Self::STABLE_S {
                return 1;
            }
            self.active_since_s = None;
        }
        let proxied_since_s = *self.proxied_since_s.get_or_insert(metrics.now_s);
        if metrics.now_s - proxied_since_s >= Self::GRACE_S {
            0
        } else {
            members
        }
    }
}

impl ScalingPolicy for Knative {
    fn name(&self) -> String {
        named("knative", self.setting)
    }

    fn interval_s(&self) -> f64 {
        Self::TICK_S
    }

    fn wakes_at_arrival(&self) -> bool {
        self.desired == 0
    }

    fn desired_instances(&mut self, metrics: &FleetMetrics, scenario: &Scenario) -> u32 {
        let now = metrics.now_s;
        let as_of_s = now - scenario.count_lag_s;
        self.report(as_of_s, metrics);
        let panic = self.average(self.panic);
        if now - self.stable.last_s <= Self::STABLE_S + scenario.count_lag_s {
            let stable = self.average(self.stable);
            self.desired = self.decide(now, metrics.ready, stable, panic);
        }
        let spare = f64::from(metrics.ready) * self.total - Self::BURST_CAPACITY - panic;
        if spare.floor() >= 0.0 && self.desired > 0 {
            self.proxied_since_s = None;
        } else if spare.floor() < 0.0 {
            self.proxied_since_s.get_or_insert(now);
        }
        if self.desired == 0 {
            return self.scale_to_zero(metrics);
        }
        if metrics.ready > 0 {
            self.active_since_s.get_or_insert(now);
        }
        self.desired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decides at a time, with so many pods ready and so many seconds that requests had taken a second
    /// before.
    fn look(knative: &mut Knative, now_s: f64, ready: u32, request_s: f64) -> u32 {
        let metrics = FleetMetrics {
            now_s,
            ready,
            request_s,
            ..FleetMetrics::default()
        };
        knative.desired_instances(&metrics, &Scenario::on_ec2(32))
    }

    fn poke(knative: &mut Knative, now_s: f64) -> u32 {
        assert!(knative.wakes_at_arrival());
        let metrics = FleetMetrics {
            now_s,
            arrival: true,
            ..FleetMetrics::default()
        };
        knative.desired_instances(&metrics, &Scenario::on_ec2(32))
    }

    /// A concurrency of 1 for the second in which the first request comes: `ceil(1 / 70) = 1` pod by
    /// default, and `ceil(1 / 0.7) = 2` where one pod is to have one request, which is twice the one that is
    /// counted where there is none: panic.
    #[test]
    fn the_first_request_from_zero_is_decided_upon_at_once() {
        let mut knative = Knative::new(None);
        assert_eq!(look(&mut knative, 0.0, 0, 0.0), 0);
        assert_eq!(poke(&mut knative, 10.5), 1);
        assert!(!knative.wakes_at_arrival());
        assert_eq!(knative.panic_since_s, None);
        let mut single = Knative::new(Some(1.0));
        assert_eq!(poke(&mut single, 10.5), 2);
        assert_eq!(single.panic_since_s, Some(10.5));
    }

    /// 140 requests at once from zero at 10 s. At 12 s the reports reach to 11 s: `(1 + 140) / 2 = 70.5`,
    /// which is 2 pods of 70 and, to the one that is counted, panic. At 14 s it is
    /// `(1 + 3 * 140) / 4 = 105.25`, at 16 s `(1 + 5 * 140) / 6 = 116.8`: 2. At 18 s the six seconds from
    /// 11 s to 17 s have 140 each, which are 2, and are no panic with 2 ready.
    #[test]
    fn averages_begin_with_the_first_report() {
        let mut knative = Knative::new(None);
        poke(&mut knative, 10.0);
        for (now_s, concurrency) in [(12.0, 70.5), (14.0, 105.25), (16.0, 701.0 / 6.0)] {
            let request_s = 140.0 * (now_s - 11.0);
            assert_eq!(look(&mut knative, now_s, 0, request_s), 2);
            assert_eq!(knative.average(knative.stable), concurrency, "{now_s}");
            assert_eq!(knative.average(knative.panic), concurrency, "{now_s}");
        }
        assert_eq!(knative.panic_since_s, Some(16.0));
        assert_eq!(look(&mut knative, 18.0, 2, 140.0 * 7.0), 2);
        assert_eq!(knative.average(knative.panic), 140.0);
        assert_eq!(knative.average(knative.stable), 981.0 / 8.0);
        assert_eq!(knative.panic_since_s, Some(16.0), "calm since then");
    }

    /// With 10 ready, 140 in the stable window are `140 / 70 = 2`, but no fewer than `floor(10 / 2) = 5`.
    /// 1,400 in the panic window are 20, twice the 10: panic, which holds the 20 until it is more than 60 s
    /// since that was so. Then it is half of them.
    #[test]
    fn panic_holds_what_it_asked_for_until_a_minute_of_calm() {
        let mut knative = Knative::new(None);
        assert_eq!(knative.decide(0.0, 10, 140.0, 140.0), 5);
        assert_eq!(knative.decide(2.0, 10, 140.0, 1400.0), 20);
        assert_eq!(knative.decide(4.0, 20, 140.0, 70.0), 20);
        assert_eq!(knative.decide(62.0, 20, 140.0, 70.0), 20);
        assert_eq!(knative.decide(64.0, 20, 140.0, 70.0), 10);
    }

    /// With 1 ready, 140 in the panic window are 2: panic. Pods that become ready while it lasts are no
    /// reason to keep them: with 5 ready it is still the larger of 2 and `floor(5 / 2) = 2`.
    #[test]
    fn panic_does_not_hold_what_it_never_asked_for() {
        let mut knative = Knative::new(None);
        assert_eq!(knative.decide(0.0, 1, 70.0, 140.0), 2);
        assert_eq!(knative.decide(2.0, 5, 70.0, 140.0), 2);
    }

    /// One request from 10 s to 11 s. The minute from 11 s to 71 s, which is known at 72 s, has none; the
    /// revision was active since 12 s. With 100 requests to a pod the activator has been in the path all
    /// the time (`100 - 211 < 0`), so the pod goes at once; with 300 (`300 - 211 >= 0`) only from then on,
    /// and the pod goes 30 s later.
    #[test]
    fn the_last_pod_goes_after_the_stable_window_and_the_grace_period() {
        for (concurrency, gone_s) in [(100.0, 72.0), (300.0, 102.0)] {
            let mut knative = Knative::new(Some(concurrency));
            poke(&mut knative, 10.0);
            let mut now_s = 12.0;
            while look(&mut knative, now_s, 1, 1.0) > 0 {
                assert!(now_s < 200.0);
                now_s += 2.0;
            }
            assert_eq!(now_s, gone_s);
        }
    }
}
