use std::cell::RefCell;
use std::num::NonZeroU32;
use std::rc::Rc;

use super::*;
use crate::policy::{LocalTier, Scaling};
use crate::simulate::arrivals::spread;
use crate::simulate::launch_limit::{LaunchLimit, TokenBucket};
use crate::simulate::peers::{Fixed, Knative};
use crate::simulate::scenario::TierScenario;

fn scenario(service_s: f64, service_cv: f64) -> Scenario {
    Scenario {
        service_s,
        service_cv,
        ..Scenario::on_ec2(32)
    }
}

fn muster(policy: Policy) -> Autoscaler {
    Autoscaler::Muster {
        policy: Box::new(policy),
        learned: Box::default(),
    }
}

/// Muster's planner, with such a tier besides the instances that are launched.
fn with_tier(tier: Tier, boot_s: f64, price_per_hour: f64) -> (Scenario, Autoscaler) {
    let scenario = Scenario {
        tiers: vec![TierScenario {
            tier,
            number: 1,
            boot_s,
            price_per_hour,
        }],
        ..Scenario::on_ec2(32)
    };
    let local = LocalTier {
        workers: 1,
        idle_grace: Duration::from_secs(60),
        expected_boot: Duration::from_millis(600),
    };
    let policy = Policy {
        local: (tier == Tier::Local).then_some(local),
        ..Policy::on_ec2(scenario.max_instances)
    };
    (scenario, muster(policy))
}

#[test]
fn what_the_controllers_machine_clears_costs_nothing_and_waits_for_no_instance() {
    let (scenario, muster) = with_tier(Tier::Local, 0.4, 0.0);
    let arrivals: Vec<f64> = (0..20).map(|n| 100.0 * f64::from(n)).collect();
    let outcome = run(&arrivals, 2000.0, &scenario, muster);
    assert_eq!((outcome.cost, outcome.instance_hours), (0.0, 0.0));
    assert!(outcome.wait_quantile(1.0) < 2.0, "{:?}", outcome.waits);

    // A bigger burst is begun here, and instances help from when they have booted.
    let (scenario, muster) = with_tier(Tier::Local, 0.4, 0.0);
    let outcome = run(&vec![0.0; 1000], 100.0, &scenario, muster);
    assert!(outcome.cost > 0.0);
    assert!(
        outcome.wait_quantile(0.1) < 25.0,
        "{}",
        outcome.wait_quantile(0.1)
    );
    assert!(
        outcome.wait_quantile(1.0) < 90.0,
        "{}",
        outcome.wait_quantile(1.0)
    );
}

#[test]
fn a_stopped_instance_starts_in_its_own_time() {
    let (scenario, muster) = with_tier(Tier::Stopped, 5.0, 1.0);
    // So far apart that nothing is kept for the next.
    let arrivals: Vec<f64> = (0..10).map(|n| 20_000.0 * f64::from(n)).collect();
    let outcome = run(&arrivals, 200_000.0, &scenario, muster);
    let slow = outcome.waits.iter().filter(|wait| **wait > 20.0).count();
    assert_eq!(slow, 1, "the first alone is launched: {:?}", outcome.waits);
    let hours = outcome.instance_hours;
    assert!(outcome.launches >= 10 && (outcome.cost - hours).abs() < 1e-9);
}

/// A policy that wants eight instances, each second.
struct Eight;

impl ScalingPolicy for Eight {
    fn name(&self) -> String {
        "eight".to_owned()
    }

    fn interval_s(&self) -> f64 {
        1.0
    }

    fn desired_instances(&mut self, _: &FleetMetrics, _: &Scenario) -> u32 {
        8
    }
}

#[test]
fn launches_beyond_the_limit_come_when_the_service_lets_them() {
    let (scenario, muster) = with_tier(Tier::Stopped, 26.0, 1.0);
    let bucket = |size, per_s| TokenBucket { size, per_s };
    let scenario = Scenario {
        max_instances: 8,
        service_s: 600.0,
        launch_limit: Some(LaunchLimit {
            calls: bucket(5.0, 2.0),
            instances: bucket(3.0, 0.5),
        }),
        ..scenario
    };
    let Autoscaler::Muster { policy, learned } = muster else {
        panic!("{}", muster.name());
    };
    let eight = Box::new(Policy {
        max_instances: 8,
        scaling: Scaling::RequestsPerInstance(NonZeroU32::MIN),
        ..*policy
    });
    let muster = Autoscaler::Muster {
        policy: eight,
        learned,
    };
    let outcome = run(&[0.0; 8], 600.0, &scenario, muster);
    let mut launched_s: Vec<f64> = outcome.bills.iter().map(|bill| bill.0).collect();
    launched_s.sort_unstable_by(f64::total_cmp);
    // It looks a moment after the first request and each second: three are launched at once, and then one
    // each two seconds.
    assert_eq!(launched_s, [0.05, 0.05, 0.05, 3.0, 5.0, 7.0, 9.0, 11.0]);
    assert_eq!(outcome.refused_launches[0], (0.05, 5));

    let eight = Autoscaler::Peer(Box::new(Eight));
    let outcome = run(&[0.0; 8], 600.0, &scenario, eight);
    let mut launched_s: Vec<f64> = outcome.bills.iter().map(|bill| bill.0).collect();
    launched_s.sort_unstable_by(f64::total_cmp);
    assert_eq!(launched_s, [0.0, 0.0, 0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
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
    let outcome = run(&[10.5], 60.0, &Scenario::on_ec2(32), knative);
    let launched = outcome.fleet.iter().find(|(_, _, booting)| *booting > 0);
    assert_eq!(launched, Some(&(10.5, 0, 1)));
}

/// Of requests that come together, the first alone finds the policy at leisure.
#[test]
fn a_burst_is_seen_as_a_whole_a_moment_after_its_first_request() {
    let scenario = Scenario::on_ec2(32);
    let outcome = run(&[10.5; 1000], 60.0, &scenario, muster(Policy::on_ec2(32)));
    let booting_at = |at_s: f64| {
        let before = outcome.fleet.partition_point(|(at, ..)| *at <= at_s);
        outcome.fleet[before - 1].2
    };
    assert_eq!((booting_at(10.4), booting_at(10.5)), (0, 1));
    assert!(booting_at(10.6) > 10, "{:?}", outcome.reasons);
}

/// A fleet that is staffed well is busy now and then, for longer where few requests are answered. What it
/// is believed to drain is what it does all the same, whenever one asks.
#[test]
fn a_steady_load_on_instances_of_the_speed_they_say_teaches_nothing_else() {
    for (rate, service_s, boot_s) in [(5.0, 6.0, 26.0), (50.0, 0.5, 2.0)] {
        let scenario = Scenario {
            boot_s,
            max_instances: 256,
            count_noise: 2,
            ..scenario(service_s, 1.0)
        };
        for minutes in [20.0, 40.0, 60.0] {
            let length_s = 60.0 * minutes;
            let arrivals = spread(&[(0.0, (rate * length_s) as u64)], length_s, 1);
            let mut sim = Simulation::new(&scenario, arrivals.len());
            let mut muster = muster(Policy::on_ec2(256));
            sim.replay(&arrivals, length_s, &mut muster);
            let Autoscaler::Muster { policy, learned } = muster else {
                unreachable!("it is Muster's");
            };
            let believed = learned.service_s(&policy) * sim.answered as f64;
            let off = believed / sim.worked.as_secs_f64() - 1.0;
            assert!(
                off.abs() < 0.04,
                "{rate} a second of {service_s} s, {minutes} min: {off}"
            );
        }
    }
}
