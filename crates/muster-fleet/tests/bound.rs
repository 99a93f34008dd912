//! No policy that keeps the objective undercuts the bound, and none that is known the best schedule.

use std::num::NonZeroU32;
use std::time::Duration;

use muster_fleet::simulate::peers::{Fixed, Keda, Knative, TargetTracking};
use muster_fleet::simulate::{
    Autoscaler, Outcome, Run, Scenario, Schedule, best_known, lower_bound_hours, run,
};
use muster_fleet::{Learned, Policy, Scaling};
use proptest::prelude::*;

const MOST: u32 = 8;

prop_compose! {
    fn scenario()(
        boot_s in 0.0f64..150.0,
        service_s in prop_oneof![0.02f64..0.5, 0.5f64..4.0, 4.0f64..20.0],
        service_cv in prop_oneof![Just(0.0), Just(0.5), Just(1.0)],
        slots in 1u32..4,
        billing_minimum_s in prop_oneof![Just(0.0), Just(60.0), 0.0f64..200.0],
        target_wait_s in prop_oneof![Just(1.0), 0.05f64..10.0],
        seed in 0u64..1000,
    ) -> Scenario {
        Scenario {
            boot_s,
            service_s,
            service_cv,
            slots,
            billing_minimum_s,
            target_wait_s,
            seed,
            ..Scenario::on_ec2(MOST)
        }
    }
}

/// Bursts on a stream, so many that some may be late.
fn load() -> impl Strategy<Value = Vec<f64>> {
    let burst = (0.0f64..1500.0, 1usize..30, 0.01f64..3.0);
    let bursts = prop::collection::vec(burst, 0..8);
    let stream = prop::collection::vec(0.0f64..1500.0, 1..300);
    (bursts, stream).prop_map(|(bursts, mut arrivals)| {
        for (at, count, apart) in bursts {
            arrivals.extend((0..count).map(|n| at + n as f64 * apart));
        }
        arrivals.sort_unstable_by(f64::total_cmp);
        arrivals
    })
}

fn muster(scaling: Scaling, scenario: &Scenario) -> Autoscaler {
    Autoscaler::Muster {
        policy: Box::new(Policy {
            scaling,
            slots: scenario.slots,
            target_wait: Duration::from_secs_f64(scenario.target_wait_s),
            billing_minimum: Duration::from_secs_f64(scenario.billing_minimum_s),
            boot_timeout: Duration::from_secs(1000),
            ..Policy::on_ec2(scenario.max_instances)
        }),
        learned: Box::<Learned>::default(),
    }
}

fn policies(scenario: &Scenario) -> Vec<Autoscaler> {
    let two = NonZeroU32::MIN.saturating_add(1);
    let mut policies = vec![
        muster(Scaling::Objective, scenario),
        muster(Scaling::RequestsPerInstance(two), scenario),
        Autoscaler::Peer(Box::new(Keda::new(Some(1.0)))),
        Autoscaler::Peer(Box::new(Knative::new(Some(1.0)))),
        Autoscaler::Peer(Box::new(TargetTracking::new(Some(1.0)))),
    ];
    policies.extend((1..=MOST).map(|n| Autoscaler::Peer(Box::new(Fixed(n)))));
    policies
}

fn meets(outcome: &Outcome, scenario: &Scenario) -> bool {
    outcome.share_over(scenario.target_wait_s) <= 0.01
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn whoever_meets_the_objective_costs_no_less_than_the_bound(
        arrivals in load(),
        scenario in scenario(),
    ) {
        let length_s = 1600.0;
        let best = best_known(&arrivals, length_s, &scenario);
        prop_assert_eq!(best.waits.len(), arrivals.len());
        let best_meets = meets(&best, &scenario);
        let known_hours = if best_meets { best.instance_hours } else { f64::INFINITY };
        let bounds = [
            lower_bound_hours(&arrivals, &scenario, f64::INFINITY),
            lower_bound_hours(&arrivals, &scenario, known_hours),
        ];
        let mut outcomes = vec![best];
        for policy in policies(&scenario) {
            let fixed = policy.name().starts_with("fixed");
            let outcome = run(&arrivals, length_s, &scenario, policy);
            if fixed && meets(&outcome, &scenario) {
                prop_assert!(best_meets, "{} meets the objective", outcome.name);
                prop_assert!(
                    outcomes[0].instance_hours <= outcome.instance_hours,
                    "best {} h, {} {} h", outcomes[0].instance_hours, outcome.name, outcome.instance_hours
                );
            }
            outcomes.push(outcome);
        }
        for outcome in outcomes.iter().filter(|outcome| meets(outcome, &scenario)) {
            for bound in bounds {
                prop_assert!(
                    bound <= outcome.instance_hours + 1e-9,
                    "bound {bound} h, {} {} h", outcome.name, outcome.instance_hours
                );
            }
        }
    }
}

/// The cheapest there is, by trying every way to give the requests to instances.
///
/// All services take as long, so that no other order than that of arrival is better.
struct Exact<'a> {
    arrivals: &'a [f64],
    scenario: &'a Scenario,
    /// The requests of each instance so far.
    instances: Vec<Vec<f64>>,
    cheapest_s: f64,
}

impl Exact<'_> {
    fn solve(arrivals: &[f64], scenario: &Scenario) -> f64 {
        let mut exact = Exact {
            arrivals,
            scenario,
            instances: Vec::new(),
            cheapest_s: f64::INFINITY,
        };
        exact.give(0);
        exact.cheapest_s
    }

    fn give(&mut self, next: usize) {
        let costs = self.instances.iter().map(|requests| self.cost_s(requests));
        let cost_s: f64 = costs.sum();
        // More requests never cost less.
        if cost_s >= self.cheapest_s {
            return;
        }
        let Some(&arrival) = self.arrivals.get(next) else {
            self.cheapest_s = cost_s;
            return;
        };
        for at in 0..self.instances.len() {
            self.instances[at].push(arrival);
            self.give(next + 1);
            self.instances[at].pop();
        }
        self.instances.push(vec![arrival]);
        self.give(next + 1);
        self.instances.pop();
    }

    /// What one instance costs that serves these, each in time: launched as late as it can be, or there from
    /// the begin.
    fn cost_s(&self, requests: &[f64]) -> f64 {
        let latest_s = requests
            .iter()
            .enumerate()
            .map(|(n, arrival)| {
                arrival + self.scenario.target_wait_s - n as f64 * self.scenario.service_s
            })
            .fold(f64::INFINITY, f64::min);
        let launched_s = self.scenario.boot_s + self.end_s(requests, latest_s) - latest_s;
        let cheaper_s = launched_s.min(self.end_s(requests, 0.0));
        cheaper_s.max(self.scenario.billing_minimum_s)
    }

    /// When an instance that takes work from `ready_s` on has served these; never, if one would be late.
    fn end_s(&self, requests: &[f64], ready_s: f64) -> f64 {
        let mut end_s = ready_s;
        for arrival in requests {
            let begin_s = arrival.max(end_s);
            if begin_s > arrival + self.scenario.target_wait_s + 1e-9 {
                return f64::INFINITY;
            }
            end_s = begin_s + self.scenario.service_s;
        }
        end_s
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_cheapest_there_is_lies_between_the_bound_and_the_best(
        mut arrivals in prop::collection::vec(0.0f64..300.0, 1..8),
        apart in 0.02f64..1.0,
        boot_s in 0.0f64..80.0,
        service_s in 0.1f64..30.0,
        billing_minimum_s in prop_oneof![Just(0.0), Just(60.0)],
        target_wait_s in 0.5f64..20.0,
    ) {
        // Some close together, some far apart.
        for arrival in &mut arrivals {
            *arrival *= apart;
        }
        arrivals.sort_unstable_by(f64::total_cmp);
        let scenario = Scenario {
            boot_s,
            service_s,
            service_cv: 0.0,
            slots: 1,
            max_instances: MOST,
            launch_limit: None,
            price_per_hour: 1.0,
            tiers: Vec::new(),
            billing_minimum_s,
            target_wait_s,
            count_lag_s: 1.0,
            count_noise: 0,
            speeds: Vec::new(),
            closed_loop: false,
            seed: 1,
        };
        let exact_s = Exact::solve(&arrivals, &scenario);
        let best = best_known(&arrivals, 310.0, &scenario);
        prop_assert!(meets(&best, &scenario));
        let best_s = best.instance_hours * 3600.0;
        let bound_s = lower_bound_hours(&arrivals, &scenario, f64::INFINITY) * 3600.0;
        prop_assert!(bound_s <= exact_s + 1e-6, "bound {bound_s} s, exact {exact_s} s");
        prop_assert!(exact_s <= best_s + 1e-6, "exact {exact_s} s, best {best_s} s");
    }
}

/// One request at a time for 0.2 s, and boots of 26 s.
fn without_chance() -> Scenario {
    Scenario {
        seed: 1,
        ..Scenario::on_ec2(MOST)
    }
}

/// A stream that one instance serves, and as many lone requests as may be late: nobody has to pay for these
/// more than one launch, after the last of them.
#[test]
fn the_requests_that_may_be_late_are_not_paid_for() {
    let scenario = without_chance();
    let stream = (0..1000).map(|n| 20.0 * f64::from(n));
    let lone = (0..10).map(|n| 21_000.0 + 1000.0 * f64::from(n));
    let arrivals: Vec<f64> = stream.chain(lone).collect();
    let runs = [(0.0, 19_981.0), (30_002.0, 30_005.0)];
    let runs = runs.map(|(ready_s, end_s)| Run { ready_s, end_s });
    let schedule = Autoscaler::Scheduled(Schedule::new(&runs, scenario.boot_s));
    let outcome = run(&arrivals, 30_100.0, &scenario, schedule);
    assert!(meets(&outcome, &scenario));
    let cost_s = outcome.instance_hours * 3600.0;
    assert!((cost_s - 20_041.0).abs() < 1e-6, "{cost_s}");
    let bound_s = lower_bound_hours(&arrivals, &scenario, outcome.instance_hours) * 3600.0;
    assert!(bound_s <= cost_s, "bound {bound_s} s");
    assert!(bound_s >= 0.95 * cost_s, "bound {bound_s} s");
    let best = best_known(&arrivals, 30_100.0, &scenario);
    let best_s = best.instance_hours * 3600.0;
    assert!(best_s <= 1.03 * cost_s, "best {best_s} s");
}

/// Two bursts of requests of a minute each, in hours of what is known best and of the bound, for each instance of
/// the fewest that serve a burst.
fn hours_of_bursts(requests: usize) -> [f64; 2] {
    let scenario = Scenario {
        service_s: 60.0,
        max_instances: 10_000,
        ..without_chance()
    };
    let arrivals = [vec![100.0; requests], vec![3000.0; requests]].concat();
    let best = best_known(&arrivals, 3200.0, &scenario);
    assert!(meets(&best, &scenario));
    let bound = lower_bound_hours(&arrivals, &scenario, best.instance_hours);
    // One of a hundred may be late.
    let launched = 0.99 * requests as f64;
    [best.instance_hours, bound].map(|hours| hours / launched)
}

/// Of 250 instances each is a level; of 1,000, four are.
#[test]
fn a_fleet_of_a_thousand_is_known_as_well_as_one_of_a_quarter() {
    let (quarter, whole) = (hours_of_bursts(250), hours_of_bursts(1000));
    // Two launches, and as many minutes as there are requests.
    let least = 2.0 * (26.0 + 60.0 / 0.99) / 3600.0;
    assert!(
        (least - 1e-9..1.03 * least).contains(&whole[0]),
        "{whole:?}"
    );
    for (quarter, whole) in quarter.into_iter().zip(whole) {
        assert!(
            (whole / quarter - 1.0).abs() < 0.02,
            "{quarter} h and {whole} h"
        );
    }
}
