//! The planner's promises, over random arrivals, boots, failures and crashes of the controller.

use std::num::NonZeroU32;
use std::time::Duration;

use muster_fleet::simulate::peers::Fixed;
use muster_fleet::simulate::{
    Autoscaler, Outcome, Scenario, TierScenario, best_known, run, spread,
};
use muster_fleet::{
    Budget, Instance, InstanceId, InstanceState, KeepAlive, Learned, LocalTier, Observation,
    Policy, RequestTotals, Scaling, Tier, TierCounts, plan,
};
use proptest::prelude::*;

/// A fleet in which anything may go wrong, in steps of a second.
#[derive(Clone, Debug)]
struct Faults {
    /// Requests that come in each second.
    arrivals: Vec<u8>,
    /// For each launch in turn: seconds until it takes work; `None` dies booting, until the faults
    /// are over.
    boots: Vec<Option<u8>>,
    /// Seconds in which the controller is replaced; whether it remembers what it had learned.
    crashes: Vec<(u16, bool)>,
    /// What is told of the queue, beyond the truth, in turn.
    count_noise: Vec<i8>,
    min: u32,
    max: u32,
    with_totals: bool,
    /// The fixed keep-alive, or the learned one.
    keep_alive_s: Option<u8>,
}

prop_compose! {
    fn faults()(
        arrivals in prop::collection::vec(prop_oneof![4 => Just(0u8), 1 => 0u8..40], 50..300),
        boots in prop::collection::vec(prop::option::weighted(0.8, 1u8..90), 1..20),
        crashes in prop::collection::vec((0u16..400, any::<bool>()), 0..4),
        count_noise in prop::collection::vec(-2i8..=2, 1..10),
        min in 0u32..3,
        more in 1u32..10,
        with_totals: bool,
        keep_alive_s in prop::option::of(0u8..20),
    ) -> Faults {
        Faults {
            keep_alive_s, arrivals, boots, crashes, count_noise, min, max: min + more, with_totals }
    }
}

struct Member {
    id: u32,
    state: InstanceState,
    launched: u32,
    /// When it takes work, or dies.
    boots_at: (u32, bool),
}

/// Requests that one instance answers in a second.
const RATE: u64 = 4;
/// Longest that a fleet may take after the last arrival: all faults over, the longest boot given
/// up and replaced several times, the backlog worked off, and the longest keep-alive.
const SETTLE: u32 = 6000;

/// Runs the controller's loop and checks every plan, and what is left in the end.
fn run_with_faults(faults: &Faults) -> Result<(), TestCaseError> {
    let mut policy = Policy {
        min_instances: faults.min,
        ..Policy::on_ec2(faults.max)
    };
    if let Some(seconds) = faults.keep_alive_s {
        policy.keep_alive = KeepAlive::Fixed(Duration::from_secs(seconds.into()));
    }
    let mut learned = Learned::default();
    let mut members: Vec<Member> = Vec::new();
    let mut totals = RequestTotals::default();
    let mut launches = 0u32;
    let mut calls: Vec<u32> = Vec::new();
    for now in 0..faults.arrivals.len() as u32 + SETTLE {
        let came = faults.arrivals.get(now as usize).copied().unwrap_or(0);
        totals.submitted += u64::from(came);
        members.retain_mut(|member| {
            let (at, survives) = member.boots_at;
            if member.state == InstanceState::Pending && now >= at {
                member.state = InstanceState::Running;
                return survives;
            }
            member.state != InstanceState::Draining
        });
        let running = members.iter().filter(|m| m.state == InstanceState::Running);
        let done = RATE * running.count() as u64;
        totals.answered = (totals.answered + done).min(totals.submitted);
        totals.timed = totals.answered;
        totals.worked = Duration::from_secs(totals.answered) / RATE as u32;

        if let Some((_, remembers)) = faults.crashes.iter().find(|(at, _)| u32::from(*at) == now) {
            let kept = serde_json::to_string(&learned).expect("it can be kept");
            learned = if *remembers {
                serde_json::from_str(&kept).expect("it can be read back")
            } else {
                Learned::default()
            };
        }
        let own = totals.submitted - totals.answered;
        // What lasts for as long as counts may lag is no noise.
        let noise = match now as usize % 60 {
            0 => 0,
            _ => faults.count_noise[now as usize % faults.count_noise.len()],
        };
        let noisy = own.saturating_add_signed(i64::from(noise));
        let observed = Observation {
            now: Duration::from_secs(u64::from(now)),
            visible: if faults.with_totals { noisy } else { own },
            in_flight: 0,
            totals: faults.with_totals.then_some(totals),
            instances: members
                .iter()
                .map(|member| Instance {
                    id: InstanceId(member.id.to_string()),
                    tier: Tier::Ec2,
                    state: member.state,
                    age: Duration::from_secs(u64::from(now - member.launched)),
                    busy: None,
                    overdue: false,
                    answered: None,
                })
                .collect(),
            available: TierCounts::UNLIMITED,
            throttled: false,
        };
        learned.observe(&observed, &policy);
        let made = plan(&observed, &learned, &policy);
        prop_assert_eq!(
            &made,
            &plan(&observed, &learned, &policy),
            "the same input, the same plan"
        );
        let coming = members.len() as u32 - observed.count(InstanceState::Draining);
        prop_assert!(
            made.launch.total() == 0
                || members.len() as u32 + made.launch.total() <= policy.max_instances
        );
        prop_assert!(made.drain.len() as u32 <= coming);
        if own == 0 && coming >= policy.min_instances && faults.with_totals {
            // Noise, and a backlog that is gone, launch nothing; only what hangs is replaced, and
            // what goes on to come, or comes regularly, is awaited: of a rate, what comes in a boot is cleared
            // in as long, while as much comes again.
            let booting = observed.count(InstanceState::Pending);
            let busy = learned.expected_rate(&policy) * learned.service_s(&policy);
            let awaited = learned
                .expected_at_ready(&policy)
                .max(learned.in_use(&policy))
                .max((2.0 * busy).ceil() as u32);
            prop_assert!(
                made.launch.total() <= booting.max(awaited),
                "{}",
                made.reason
            );
        }
        for id in &made.drain {
            let member = members.iter_mut().find(|m| m.id.to_string() == id.0);
            let member = member.expect("only what is there is drained");
            prop_assert!(member.state != InstanceState::Draining, "drained once");
            member.state = InstanceState::Draining;
        }
        for _ in 0..made.launch.total() {
            // Faults end some time after the arrivals do.
            let faulty = (now as usize) < faults.arrivals.len() + 300;
            let boot = faults.boots[launches as usize % faults.boots.len()];
            let boot = if faulty { boot } else { boot.or(Some(20)) };
            members.push(Member {
                id: launches,
                state: InstanceState::Pending,
                launched: now,
                boots_at: (now + u32::from(boot.unwrap_or(5)), boot.is_some()),
            });
            launches += 1;
        }
        calls.push(made.launch.total() + made.drain.len() as u32);
    }
    prop_assert_eq!(
        totals.answered,
        totals.submitted,
        "everything is answered in the end"
    );
    prop_assert_eq!(
        members.len() as u32,
        policy.min_instances,
        "back to the least"
    );
    for minute in calls.windows(60) {
        let calls: u32 = minute.iter().sum();
        // Boots that die at once are replaced as often as they die here: the controller's back-off
        // after failed starts, which bounds it, is not the plan's.
        prop_assert!(calls <= 60 * policy.max_instances / 5 + 2 * policy.max_instances);
    }
    Ok(())
}

/// One request a second more each second, a quarter of an hour long. Who follows what came is behind for good.
#[test]
fn a_load_that_grows_without_end_is_caught_up_with() {
    let scenario = Scenario {
        service_s: 0.09,
        ..scenario(26.0, 256)
    };
    let seconds: Vec<_> = (0..900).map(|second| (second as f64, second)).collect();
    let arrivals = spread(&seconds, 1.0, 7);
    let outcome = as_muster(&arrivals, 900.0, &scenario);
    let later = arrivals.partition_point(|at_s| *at_s < 300.0);
    let waits = &outcome.waits[later..];
    let late = waits.iter().filter(|wait| **wait > 1.0).count() as f64 / waits.len() as f64;
    assert!(late < 0.4, "{late} are late");
    let busy_hours = arrivals.len() as f64 * scenario.service_s / 3600.0;
    assert!(outcome.instance_hours < 1.5 * busy_hours, "{outcome:?}");
}

/// A load that rises to ten times as much for twenty minutes, again and again.
#[test]
fn a_load_that_rises_again_has_its_instances_a_boot_later() {
    let scenario = Scenario {
        service_s: 0.5,
        ..scenario(120.0, 64)
    };
    // 30 requests a second need 15 instances at least.
    let rate = |minute: u64| if minute % 50 < 30 { 3 } else { 30 };
    let minutes: Vec<_> = (0..200)
        .map(|minute| (60.0 * minute as f64, 60 * rate(minute)))
        .collect();
    let arrivals = spread(&minutes, 60.0, 7);
    let outcome = as_muster(&arrivals, 12_000.0, &scenario);
    let risen_s = |rise: f64| 60.0 * (30.0 + 50.0 * rise);
    let coming = |at_s: f64| {
        let (ready, booting) = fleet_at(&outcome, at_s);
        ready + booting
    };
    assert!(
        coming(risen_s(0.0) + 20.0) < 15,
        "that it lasts is not known"
    );
    for rise in [1.0, 2.0, 3.0] {
        let coming = coming(risen_s(rise) + 20.0);
        assert!(coming >= 15, "{coming} at rise {rise}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_fleet_stays_within_its_bounds_whatever_happens_and_returns_to_them(faults in faults()) {
        run_with_faults(&faults)?;
    }
}

fn scenario(boot_s: f64, max_instances: u32) -> Scenario {
    Scenario {
        boot_s,
        ..Scenario::on_ec2(max_instances)
    }
}

fn as_muster(arrivals: &[f64], length_s: f64, scenario: &Scenario) -> Outcome {
    let autoscaler = Autoscaler::Muster {
        policy: Box::new(Policy::on_ec2(scenario.max_instances)),
        learned: Box::default(),
    };
    run(arrivals, length_s, scenario, autoscaler)
}

/// A hundred clients, each of which sends the next request when it has its answer, on instances with these
/// shares of the speed that their workers say.
fn closed_loop(scenario: &Scenario, length_s: f64) -> Outcome {
    let outcome = as_muster(&[0.0; 100], length_s, scenario);
    assert!(outcome.peak <= scenario.max_instances);
    outcome
}

/// The instances that were ready, and those that booted, at a time.
fn fleet_at(outcome: &Outcome, at_s: f64) -> (u32, u32) {
    let before = outcome.fleet.partition_point(|(at, ..)| *at <= at_s);
    let (_, ready, booting) = outcome.fleet[before - 1];
    (ready, booting)
}

/// The instances of such a speed that a hundred clients need, each of which is served once in its wait and its
/// service.
fn needed_for_a_hundred(scenario: &Scenario, speed: f64) -> f64 {
    let service_s = scenario.service_s / speed;
    100.0 * service_s / (scenario.target_wait_s + service_s)
}

/// Speeds of the instances, in turn; and their average.
const SPEEDS: [(&[f64], f64); 5] = [
    (&[1.0], 1.0),
    (&[0.5], 0.5),
    (&[0.2], 0.2),
    (&[0.1], 0.1),
    (&[1.0, 0.5, 0.2, 0.1], 0.45),
];

/// Counted from the first request. One boot of a hundred takes four times as long.
#[test]
fn a_closed_loop_has_its_instances_in_three_boots_whatever_their_speed_is() {
    for (speeds, average) in SPEEDS {
        for (boot_s, max) in [(2.0, 15), (26.0, 15), (120.0, 15), (26.0, 64), (60.0, 64)] {
            for service_s in [0.1, 0.5] {
                let scenario = Scenario {
                    speeds: speeds.to_vec(),
                    service_s,
                    closed_loop: true,
                    ..scenario(boot_s, max)
                };
                let outcome = closed_loop(&scenario, 4.0 * boot_s);
                let needed = needed_for_a_hundred(&scenario, average).min(max.into());
                let (ready, booting) = fleet_at(&outcome, 3.0 * boot_s);
                assert!(
                    f64::from(ready) >= (0.95 * needed).floor(),
                    "{speeds:?}, {service_s} s, boots of {boot_s} s: {ready} ready and {booting} to come of {needed}"
                );
            }
        }
    }
}

#[test]
fn a_closed_loop_gets_the_instances_that_its_objective_needs_whatever_their_speed_is() {
    for (speeds, average) in SPEEDS {
        let scenario = Scenario {
            speeds: speeds.to_vec(),
            closed_loop: true,
            ..scenario(26.0, 100)
        };
        let outcome = closed_loop(&scenario, 600.0);
        let needed = needed_for_a_hundred(&scenario, average);
        let settled = Outcome {
            waits: outcome.waits[outcome.waits.len() / 2..].to_vec(),
            ..outcome
        };
        let late = settled.share_over(scenario.target_wait_s);
        assert!(late <= 0.01, "{speeds:?}: {late} are late");
        assert!(
            f64::from(settled.peak) <= 2.2 * needed,
            "{speeds:?}: {} of {needed}",
            settled.peak
        );
    }
}

/// Where instances have the speed that their workers say, nothing is to be corrected: the launches are those
/// that there are without.
#[test]
fn a_steady_load_on_instances_of_the_speed_they_say_is_not_disturbed() {
    for (boot_s, service_cv, launches) in [
        (2.0, 0.0, 7),
        (26.0, 0.0, 6),
        (26.0, 1.0, 10),
        (60.0, 1.0, 10),
    ] {
        let scenario = Scenario {
            service_s: 0.5,
            service_cv,
            count_noise: 2,
            ..scenario(boot_s, 64)
        };
        let arrivals = spread(&[(0.0, 18_000)], 3600.0, 7);
        let outcome = as_muster(&arrivals, 3600.0, &scenario);
        assert!(
            outcome.launches <= launches,
            "{} launches, boots of {boot_s} s, {service_cv}",
            outcome.launches
        );
    }
}

prop_compose! {
    fn load()(
        bursts in prop::collection::vec((0.0f64..2000.0, 1usize..40, 0.0f64..3.0), 1..12),
    ) -> Vec<f64> {
        let of = |(at, count, spread): (f64, usize, f64)| (0..count).map(move |n| at + n as f64 * spread);
        let mut arrivals: Vec<f64> = bursts.into_iter().flat_map(of).collect();
        arrivals.sort_unstable_by(f64::total_cmp);
        arrivals
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The adversary of every keep-alive: bursts that come back after a gap of its choice.
    #[test]
    fn idling_and_switching_cost_no_more_than_twice_the_best_known(
        gap_s in 1.0f64..400.0,
        bursts in 2usize..60,
        size in 1usize..4,
        boot_s in prop_oneof![Just(2.0), Just(26.0), Just(60.0)],
    ) {
        let at = |n: usize| n as f64 * gap_s;
        let arrivals: Vec<f64> = (0..bursts).flat_map(|n| vec![at(n); size]).collect();
        let length_s = at(bursts);
        let scenario = scenario(boot_s, 4);
        let muster = as_muster(&arrivals, length_s, &scenario);
        let best = best_known(&arrivals, length_s, &scenario);
        let (ours, theirs) = (muster.instance_hours * 3600.0, best.instance_hours * 3600.0);
        // What is not known at the start: a launch or two, and what they are kept.
        let constant = 4.0 * (boot_s + 60.0);
        prop_assert!(ours <= 2.0 * theirs + constant, "{ours:.0} s, and {theirs:.0} s");
    }

    #[test]
    fn every_request_is_served_once_and_the_seed_decides_alone(arrivals in load(), boot_s in 0.5f64..80.0) {
        let scenario = scenario(boot_s, 6);
        let length_s = 2200.0;
        let muster = as_muster(&arrivals, length_s, &scenario);
        prop_assert_eq!(muster.waits.len(), arrivals.len());
        prop_assert!(muster.waits.iter().all(|wait| *wait >= 0.0));
        prop_assert!(muster.peak <= 6);
        let again = as_muster(&arrivals, length_s, &scenario);
        prop_assert_eq!(&again.waits, &muster.waits);
        prop_assert_eq!(again.instance_hours, muster.instance_hours);
    }

    /// Whatever comes, a simulated day costs no more than its limit, by the simulator's own bill: with
    /// instances of any speed, and with those of other tiers.
    #[test]
    fn a_day_never_costs_more_than_its_limit(
        arrivals in load(),
        boot_s in 0.5f64..80.0,
        speeds in prop::collection::vec(prop_oneof![Just(1.0), Just(0.5), Just(0.2), Just(0.1)], 0..4),
        local in 0u32..3,
        stopped in 0u32..4,
        late_request_s in prop::option::of(1.0f64..1e5),
        dollars in 0.3f64..3.0,
        requests in prop::option::of(1u32..4),
        billing_minimum_s in prop_oneof![Just(0.0), Just(60.0)],
    ) {
        let tier = |tier, number, boot_s, price_per_hour| {
            (number > 0).then_some(TierScenario { tier, number, boot_s, price_per_hour })
        };
        let tiers = [
            tier(Tier::Local, local, 0.4, 0.0),
            tier(Tier::Stopped, stopped, 0.7 * boot_s, 1.0),
        ];
        let tiers = tiers.into_iter().flatten().collect();
        let scenario = Scenario { billing_minimum_s, speeds, tiers, ..scenario(boot_s, 8) };
        let local_workers = local;
        let local = (local > 0).then_some(LocalTier {
            workers: local,
            idle_grace: Duration::from_secs(60),
            expected_boot: Duration::from_millis(600),
        });
        let policy = Policy {
            local,
            late_request: late_request_s.map(Duration::from_secs_f64),
            scaling: requests.and_then(NonZeroU32::new).map_or(Scaling::Objective, Scaling::RequestsPerInstance),
            billing_minimum: Duration::from_secs_f64(billing_minimum_s),
            budget: Some(Budget {
                price_per_hour: scenario.price_per_hour,
                max_dollars_per_hour: Some(5.0 * scenario.price_per_hour),
                max_dollars_per_day: Some(dollars),
                drain_time: Duration::from_secs_f64(scenario.service_s),
                unattended: Duration::ZERO,
            }),
            ..Policy::on_ec2(scenario.max_instances)
        };
        let autoscaler = Autoscaler::Muster { policy: Box::new(policy), learned: Box::default() };
        let outcome = run(&arrivals, 2200.0, &scenario, autoscaler);
        prop_assert_eq!(outcome.waits.len(), arrivals.len(), "the next day answers the rest");
        let (end_s, ..) = outcome.fleet[outcome.fleet.len() - 1];
        let days = 1.0 + (end_s / 86_400.0).floor();
        prop_assert!(outcome.cost <= days * dollars + 1e-9, "{} on {days} days of {dollars}", outcome.cost);
        prop_assert!(outcome.peak <= 5 + local_workers, "{}", outcome.peak);
    }
}

/// Half a minute of load in each hour: once the rhythm has been found, its instances are ready for it,
/// unless the operator asked for a fixed time.
#[test]
fn what_comes_every_hour_is_expected() {
    let scenario = scenario(26.0, 6);
    let burst =
        |hour: usize| (0..300).map(move |n| (hour * 3600 + 1200) as f64 + f64::from(n) * 0.1);
    let arrivals: Vec<f64> = (0..10).flat_map(burst).collect();
    let late_after = |keep_alive, hours: usize| {
        let policy = Policy {
            keep_alive,
            ..Policy::on_ec2(scenario.max_instances)
        };
        let autoscaler = Autoscaler::Muster {
            policy: Box::new(policy),
            learned: Box::default(),
        };
        let waits = run(&arrivals, 10.0 * 3600.0, &scenario, autoscaler).waits;
        let late = waits[300 * hours..].iter().filter(|wait| **wait > 1.0);
        late.count()
    };
    let at_most = Duration::from_secs(3600);
    assert!(late_after(KeepAlive::Learned { at_most }, 0) > 200);
    assert_eq!(late_after(KeepAlive::Learned { at_most }, 6), 0);
    assert!(late_after(KeepAlive::Fixed(Duration::from_secs(30)), 6) > 200);
}

/// What an hour of one instance costs, by hand: launched 100 s before the first arrival that it is
/// ready for, and billed for a minute at least.
/// Five requests a second for twenty seconds, every ten minutes, each of which takes twenty seconds: a hundred
/// instances are needed at once. What comes within a boot tells of what comes in the next, however
/// long requests take, and the rhythm has them ready.
#[test]
fn spikes_of_long_services_are_met_and_foreseen() {
    let spike = |n: usize| (0..100).map(move |request| (n * 600) as f64 + f64::from(request) / 5.0);
    let arrivals: Vec<f64> = (0..24).flat_map(spike).collect();
    for (boot_s, most_late, most_hours) in [(2.0, 0.01, 50.0), (26.0, 0.05, 70.0)] {
        let scenario = Scenario {
            service_s: 20.0,
            ..scenario(boot_s, 256)
        };
        let outcome = as_muster(&arrivals, 4.0 * 3600.0, &scenario);
        let learned = &outcome.waits[12 * 100..];
        let late = learned.iter().filter(|wait| **wait > 1.0).count();
        let share = late as f64 / learned.len() as f64;
        assert!(share <= most_late, "{boot_s} s: {share} late");
        assert!(
            outcome.instance_hours <= most_hours,
            "{boot_s} s: {} hours",
            outcome.instance_hours
        );
    }
}

/// Bursts of thirty at times that nobody can know.
fn unannounced_bursts(hours: u64) -> Vec<f64> {
    let mut state = 7u64;
    let mut at_s = 0.0;
    let mut arrivals = Vec::new();
    while at_s < hours as f64 * 3600.0 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        at_s += 300.0 + (state >> 33) as f64 / f64::from(1u32 << 31) * 3000.0;
        arrivals.extend([at_s; 30]);
    }
    arrivals
}

/// What a late request costs decides, whatever the load: where it is dear, what a burst needs stands, and
/// where it is cheap nothing does.
#[test]
fn a_price_of_late_requests_buys_the_instances_that_it_pays_for() {
    let arrivals = unannounced_bursts(24);
    let scenario = scenario(60.0, 64);
    let at_price = |late_request: Option<Duration>| {
        let mut policy = Policy::on_ec2(scenario.max_instances);
        policy.late_request = late_request;
        let autoscaler = Autoscaler::Muster {
            policy: Box::new(policy),
            learned: Box::default(),
        };
        let outcome = run(&arrivals, 24.0 * 3600.0, &scenario, autoscaler);
        let late = outcome.waits.iter().filter(|wait| **wait > 1.0).count();
        (outcome.instance_hours * 3600.0, late as f64)
    };
    let (unpriced_s, unpriced) = at_price(None);
    for (price_s, most) in [(1.0, 1.1), (3600.0, 0.2), (86_400.0, 0.05)] {
        let (paid_s, late) = at_price(Some(Duration::from_secs_f64(price_s)));
        let (with, without) = (paid_s + price_s * late, unpriced_s + price_s * unpriced);
        assert!(with <= most * without, "{price_s} s: {with} of {without}");
    }
}

#[test]
fn the_bill_is_by_the_second_with_a_minimum() {
    let scenario = scenario(10.0, 4);
    let fixed = |n, length_s| {
        let autoscaler = Autoscaler::Peer(Box::new(Fixed(n)));
        run(&[1.0, 2.0], length_s, &scenario, autoscaler)
    };
    let long = fixed(2, 3600.0);
    assert!(
        (long.instance_hours - 2.0).abs() < 1e-9,
        "{}",
        long.instance_hours
    );
    assert!((long.cost - 2.0).abs() < 1e-9);
    let short = fixed(2, 5.0);
    assert!(
        (short.instance_hours - 120.0 / 3600.0).abs() < 1e-9,
        "a minute each"
    );
    // The best is there when the trace begins, and stops within its minute.
    let best = best_known(&[1.0, 2.0], 3600.0, &scenario);
    assert!(
        (best.instance_hours - 60.0 / 3600.0).abs() < 1e-9,
        "{}",
        best.instance_hours
    );
    assert!(best.wait_quantile(1.0) <= 1.0);
}

/// Two bursts are bridged where the gap is cheaper than a launch, and only there.
#[test]
fn the_best_known_bridges_a_gap_that_is_cheaper_than_a_launch() {
    let scenario = scenario(100.0, 4);
    let hours = |gap_s: f64| {
        let arrivals = [1000.0, 1000.0 + gap_s];
        best_known(&arrivals, 1000.0 + gap_s + 10.0, &scenario).instance_hours * 3600.0
    };
    // One boot and the time between; two boots.
    assert!((hours(60.0) - 160.0).abs() < 3.0, "{}", hours(60.0));
    assert!((hours(500.0) - 200.0).abs() < 3.0, "{}", hours(500.0));
}
