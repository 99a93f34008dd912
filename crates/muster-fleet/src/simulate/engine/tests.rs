use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use crate::simulate::arrivals::spread;
use crate::simulate::peers::{Fixed, Knative};
use crate::simulate::scenario::example;

fn scenario(service_s: f64, service_cv: f64) -> Scenario {
    Scenario {
        service_s,
        service_cv,
        ..example()
    }
}

#[test]
fn the_totals_have_what_the_answered_requests_took() {
    let scenario = scenario(2.0, 0.5);
    let arrivals = spread(&[(0.0, 50)], 100.0, 1);
    let mut sim = Simulation::new(&scenario, arrivals.len());
    sim.replay(&arrivals, 100.0, &mut Autoscaler::Peer(Box::new(Fixed(2))));
    let took_s: f64 = (0..50).map(|n| scenario.service_time_s(n)).sum();
    assert_eq!(sim.answered, 50);
    let off_s = sim.worked.as_secs_f64() - took_s;
    assert!(off_s.abs() < 1e-6, "{:?}, and {took_s}", sim.worked);
}

/// With Poisson arrivals and exponential times Erlang's C has the waits: an offered load of `a = 2` at
/// `k = 4` instances waits with a probability of `C = X / (1 + 2 + 2 + 4/3 + X)`, where
/// `X = 2^4 / 4! * 4 / (4 - 2) = 4/3`: 0.1739; and longer than a service time with `C e^-2`: 0.0235.
#[test]
fn exponential_times_wait_as_erlang_has_it() {
    let scenario = scenario(1.0, 1.0);
    let length_s = 100_000.0;
    let arrivals = spread(&[(0.0, 200_000)], length_s, 1);
    let fixed = Autoscaler::Peer(Box::new(Fixed(4)));
    let outcome = run(&arrivals, length_s, &scenario, fixed);
    let (waits, long) = (outcome.share_over(0.0), outcome.share_over(1.0));
    assert!((waits - 0.1739).abs() < 0.01, "{waits}");
    assert!((long - 0.0235).abs() < 0.003, "{long}");
}

/// A policy that notes what it sees of the queue, each so many seconds.
struct Observer {
    interval_s: f64,
    seen: Rc<RefCell<Vec<(u64, u64)>>>,
}

impl ScalingPolicy for Observer {
    fn name(&self) -> String {
        "observer".to_owned()
    }

    fn interval_s(&self) -> f64 {
        self.interval_s
    }

    fn initial_instances(&self) -> u32 {
        1
    }

    fn desired_instances(&mut self, metrics: &FleetMetrics, _: &Scenario) -> u32 {
        let seen = (metrics.visible, metrics.in_flight);
        self.seen.borrow_mut().push(seen);
        1
    }
}

/// One instance, 40 s a request, and requests at 10, 14.5 and 59.5 s: visible and in flight are (0, 1)
/// from 10 s, (1, 1) from 14.5 s, (0, 1) from 50 s, (1, 1) from 59.5 s, (0, 1) from 90 s and (0, 0) from
/// 130 s on.
#[test]
fn every_policy_sees_counts_of_the_stated_lag_whatever_its_interval() {
    let seen_each = |interval_s: f64, count_lag_s: f64| {
        let scenario = Scenario {
            count_lag_s,
            ..scenario(40.0, 0.0)
        };
        let seen = Rc::new(RefCell::new(Vec::new()));
        let observer = Observer {
            interval_s,
            seen: Rc::clone(&seen),
        };
        let observer = Autoscaler::Peer(Box::new(observer));
        run(&[10.0, 14.5, 59.5], 151.0, &scenario, observer);
        seen.take()
    };
    // As of 1 s before, 14 s, 29 s … 149 s.
    let each_15_s = [
        (0, 0),
        (0, 1),
        (1, 1),
        (1, 1),
        (0, 1),
        (1, 1),
        (1, 1),
        (0, 1),
        (0, 1),
        (0, 0),
        (0, 0),
    ];
    assert_eq!(seen_each(15.0, 1.0), each_15_s);
    // As of 1 s before, 59 s and 119 s; of 30 s before, 30 s and 90 s; of 0 s, 60 s and 120 s.
    assert_eq!(seen_each(60.0, 1.0), [(0, 0), (0, 1), (0, 1)]);
    assert_eq!(seen_each(60.0, 30.0), [(0, 0), (1, 1), (0, 1)]);
    assert_eq!(seen_each(60.0, 0.0), [(0, 0), (1, 1), (0, 1)]);
}

#[test]
fn a_request_from_zero_makes_knative_launch_when_it_comes() {
    let knative = Autoscaler::Peer(Box::new(Knative::new(None)));
    let outcome = run(&[10.5], 60.0, &example(), knative);
    let launched = outcome.fleet.iter().find(|(_, _, booting)| *booting > 0);
    assert_eq!(launched, Some(&(10.5, 0, 1)));
}
