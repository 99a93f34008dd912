mod tiers;

use std::time::Duration;

use InstanceState::{Draining, Pending, Running};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::policy::{Budget, KeepAlive, Scaling};

const POLICY: Policy = Policy {
    keep_alive: KeepAlive::Fixed(Duration::from_secs(30)),
    billing_minimum: Duration::ZERO,
    expected_boot: Duration::from_secs(10),
    ..Policy::on_ec2(20)
};

fn instance(id: u32, state: InstanceState, age_s: f64) -> Instance {
    Instance {
        id: InstanceId(id.to_string()),
        tier: Tier::Ec2,
        state,
        age: Duration::from_secs_f64(age_s),
        busy: Some(false),
        overdue: false,
        answered: None,
    }
}

fn members(states: &[(InstanceState, f64)]) -> Vec<Instance> {
    let numbered = (0..).zip(states);
    numbered
        .map(|(id, (state, age_s))| instance(id, *state, *age_s))
        .collect()
}

fn observed(backlog: u64, instances: Vec<Instance>) -> Observation {
    Observation {
        now: Duration::from_secs(1000),
        visible: backlog,
        in_flight: 0,
        totals: None,
        instances,
        available: TierCounts::UNLIMITED,
        throttled: false,
    }
}

/// The plan of a controller that sees this first of all.
fn first_plan(observed: &Observation, policy: &Policy) -> Plan {
    let mut learned = Learned::default();
    learned.observe(observed, policy);
    plan(observed, &learned, policy)
}

#[test]
fn the_fleet_is_sized_for_what_is_left_when_a_launch_would_be_ready() {
    // Boot 10 s, half a second a request, objective 1 s: an instance serves 20 requests in the
    // time of a boot, and a launch is to clear what is left in as long again.
    type Case<'a> = (u64, &'a [(InstanceState, f64)], u32, &'a str);
    let cases: [Case<'_>; 8] = [
        (
            0,
            &[],
            0,
            "backlog 0 needs 0, 0 running, 0 booting: nothing to do",
        ),
        (
            1,
            &[],
            1,
            "backlog 1 needs 1, 0 running, 0 booting: launch 1",
        ),
        (
            100,
            &[],
            5,
            "backlog 100 needs 5, 0 running, 0 booting: launch 5",
        ),
        // No overshoot while the first boot: they are counted as capacity to come.
        (100, &[(Pending, 0.0); 5], 0, "nothing to do"),
        // 100 - 2 x 20 are left; with one almost booted another 18 go.
        (
            100,
            &[(Running, 99.0); 2],
            1,
            "backlog 100 needs 3, 2 running, 0 booting: launch 1",
        ),
        (60, &[(Running, 99.0); 3], 0, "nothing to do"),
        // Nothing that would come too late to help: 20 go before it is ready.
        (20, &[(Running, 99.0)], 0, "nothing to do"),
        (
            1000,
            &[],
            20,
            "backlog 1000 needs 20, 0 running, 0 booting: launch 20",
        ),
    ];
    for (backlog, states, launch, reason) in cases {
        let made = first_plan(&observed(backlog, members(states)), &POLICY);
        assert_eq!(made.launch.total(), launch, "{}", made.reason);
        assert!(made.reason.ends_with(reason), "{}", made.reason);
    }
}

#[test]
fn the_bounds_hold_and_draining_instances_take_room() {
    let bounded = Policy {
        min_instances: 1,
        max_instances: 3,
        ..POLICY
    };
    assert_eq!(first_plan(&observed(0, vec![]), &bounded).launch.total(), 1);
    let draining = observed(500, members(&[(Draining, 50.0), (Running, 50.0)]));
    let made = first_plan(&draining, &bounded);
    assert_eq!(made.launch.total(), 1, "{}", made.reason);
    let mut full = observed(500, members(&[(Draining, 50.0); 3]));
    let made = first_plan(&full, &bounded);
    assert_eq!(made.launch.total(), 0);
    assert!(
        made.reason.ends_with("3 others leave no room for 3 more"),
        "{}",
        made.reason
    );
    full.instances.clear();
    full.available = TierCounts::default();
    let made = first_plan(&full, &bounded);
    assert_eq!(made.launch.total(), 0);
    assert!(
        made.reason.contains("held back after failed starts"),
        "{}",
        made.reason
    );
    full.available.ec2 = 1;
    let made = first_plan(&full, &bounded);
    assert_eq!(made.launch.total(), 1);
}

#[test]
fn idle_ones_go_first_and_none_within_what_is_paid_for() {
    let policy = Policy {
        keep_alive: KeepAlive::Fixed(Duration::ZERO),
        billing_minimum: Duration::from_secs(60),
        ..POLICY
    };
    let mut instances = members(&[
        (Running, 300.0),
        (Running, 200.0),
        (Running, 100.0),
        (Pending, 70.0),
        (Running, 30.0),
    ]);
    instances[2].busy = Some(true);
    let made = first_plan(&observed(0, instances), &policy);
    let drained: Vec<_> = made.drain.iter().map(|id| id.0.as_str()).collect();
    // First the one that will never boot; then the youngest idle one that is paid up, the
    // other, the busy one; the fifth has half a minute left that is paid for.
    assert_eq!(drained, ["3", "1", "0", "2"], "{}", made.reason);
}

/// Those that boot were launched for a moment that has passed, and are paid for. They do nothing yet.
#[test]
fn none_that_runs_goes_because_others_boot() {
    let policy = Policy {
        min_instances: 3,
        billing_minimum: Duration::from_secs(60),
        keep_alive: KeepAlive::Fixed(Duration::ZERO),
        ..POLICY
    };
    let mut fleet = members(&[(Running, 1000.0); 4]);
    fleet.extend((4..8).map(|id| instance(id, Pending, 2.0)));
    let drained = |fleet: Vec<Instance>| {
        let made = first_plan(&observed(0, fleet), &policy);
        made.drain.into_iter().map(|id| id.0).collect::<Vec<_>>()
    };
    assert_eq!(drained(fleet.clone()), ["0"], "three are to be kept");
    for pending in &mut fleet[4..] {
        pending.age = Duration::from_secs(70);
    }
    assert_eq!(drained(fleet.clone()), ["4", "5", "6", "7", "0"]);
    // One whose sign of life is late goes first, and then no other that runs.
    fleet[2].overdue = true;
    for pending in &mut fleet[4..] {
        pending.age = Duration::from_secs(2);
    }
    assert_eq!(drained(fleet), ["2"]);
}

#[test]
fn one_whose_sign_of_life_is_late_goes_first_although_it_holds_requests() {
    let policy = Policy {
        keep_alive: KeepAlive::Fixed(Duration::ZERO),
        ..POLICY
    };
    let mut instances = members(&[(Running, 300.0), (Running, 200.0), (Running, 100.0)]);
    (instances[0].overdue, instances[0].busy) = (true, Some(true));
    let made = first_plan(&observed(0, instances), &policy);
    assert_eq!(made.drain[0].0, "0", "{}", made.reason);
}

/// One instance for so many requests, and none a moment longer than that.
fn by_requests(requests: u32, max_instances: u32) -> Policy {
    Policy {
        max_instances,
        scaling: Scaling::RequestsPerInstance(requests.try_into().unwrap()),
        keep_alive: KeepAlive::Fixed(Duration::ZERO),
        boot_timeout: Duration::from_secs(300),
        ..POLICY
    }
}

/// What a controller before this one may have learned.
fn learned_from(boots_s: &[f64], services_s: &[f64], levels: usize) -> Learned {
    let level = json!({
        "first_used": 10.0, "last_used": 900.0, "uses": [5.0, 3.0], "gaps": [1.0, 2.0, 3.0, 4.0],
        "paid": 9.0, "clairvoyant": 4.0,
    });
    let services = json!({
        "length": services_s.len(), "total": services_s.iter().sum::<f64>(),
        "differences": 0.0, "pairs": 0.0,
    });
    let service = json!({ "quantity": "Mean", "buckets": [services] });
    serde_json::from_value(json!({
        "boots": boots_s, "service": service, "levels": vec![level; levels],
    }))
    .unwrap()
}

fn next_plan(mut learned: Learned, observed: &Observation, policy: &Policy) -> Plan {
    learned.observe(observed, policy);
    plan(observed, &learned, policy)
}

#[test]
fn by_requests_no_boot_is_judged_by_others() {
    let policy = by_requests(1, 15);
    // All boot for 25 s, and those before took half a second; so they are what was asked for.
    let quick = learned_from(&[0.5; 20], &[0.05; 3], 15);
    let booting = members(&[(Pending, 25.0); 15]);
    let made = next_plan(quick.clone(), &observed(100, booting.clone()), &policy);
    assert_eq!(
        (made.launch.total(), made.drain.len()),
        (0, 0),
        "{}",
        made.reason
    );
    let made = next_plan(quick, &observed(0, booting), &policy);
    assert_eq!(made.drain.len(), 15, "straight to zero: {}", made.reason);
    // The other way round.
    let slow = learned_from(&[20.0; 20], &[5.0; 3], 15);
    let made = next_plan(slow, &observed(100, members(&[])), &policy);
    assert_eq!(made.launch.total(), 15, "{}", made.reason);
    // One that never comes is replaced all the same, and ended.
    let lost = |age_s| observed(2, members(&[(Pending, age_s), (Running, 9.0)]));
    let made = first_plan(&lost(301.0), &policy);
    assert_eq!(
        (made.launch.total(), made.drain.len()),
        (1, 0),
        "{}",
        made.reason
    );
    let made = first_plan(&lost(601.0), &policy);
    assert_eq!(
        (made.launch.total(), &*made.drain[0].0),
        (1, "0"),
        "{}",
        made.reason
    );
}

#[test]
fn by_requests_those_without_one_go_first() {
    let mut instances = members(&[(Running, 9.0), (Running, 8.0), (Running, 7.0)]);
    (instances[1].busy, instances[2].busy) = (Some(true), Some(true));
    let made = first_plan(&observed(2, instances), &by_requests(1, 15));
    assert_eq!(made.drain, [InstanceId("0".to_owned())], "{}", made.reason);
    assert!(
        made.reason.starts_with("backlog 2 needs 2"),
        "{}",
        made.reason
    );
}

/// A dollar for a second of an instance.
const BUDGET: Budget = Budget {
    price_per_hour: 3600.0,
    max_dollars_per_hour: None,
    max_dollars_per_day: None,
    drain_time: Duration::ZERO,
    unattended: Duration::ZERO,
};

#[test]
fn the_limit_of_an_hour_bounds_what_is_there_at_a_time() {
    let limited = |dollars| Policy {
        budget: Some(Budget {
            max_dollars_per_hour: Some(dollars),
            ..BUDGET
        }),
        ..by_requests(1, 15)
    };
    let made = first_plan(&observed(100, vec![]), &limited(12.0 * 3600.0));
    assert_eq!(made.launch.total(), 12);
    let said = "backlog 100 needs 15, 0 running, 0 booting: launch 12; \
                the limit of $43200.00 an hour allows 12";
    assert_eq!(made.reason, said);
    let some = [(Draining, 9.0), (Running, 9.0), (Running, 9.0)];
    let made = first_plan(&observed(100, members(&some)), &limited(4.5 * 3600.0));
    assert_eq!(
        made.launch.total(),
        1,
        "what drains is paid for: {}",
        made.reason
    );
    // The limit was lowered.
    let made = first_plan(
        &observed(100, members(&[(Running, 9.0); 5])),
        &limited(2.0 * 3600.0),
    );
    assert_eq!(
        (made.launch.total(), made.drain.len()),
        (0, 3),
        "{}",
        made.reason
    );
    let cheap = observed(2, vec![]);
    let made = first_plan(&cheap, &limited(4.0 * 3600.0));
    assert!(
        made.reason.ends_with(": launch 2"),
        "it says nothing: {}",
        made.reason
    );
}

#[test]
fn the_limit_of_a_day_ends_the_fleet_before_more_is_spent() {
    let policy = Policy {
        budget: Some(Budget {
            max_dollars_per_day: Some(1000.0),
            ..BUDGET
        }),
        ..by_requests(1, 15)
    };
    // A boot of 10 s, as long again, and two seconds until all is done: 22 of 1000 for each.
    let made = first_plan(&observed(100, vec![]), &policy);
    assert_eq!(made.launch.total(), 15, "{}", made.reason);
    let made = first_plan(&observed(100, members(&[(Running, 90.0); 10])), &policy);
    assert_eq!(
        made.launch.total(),
        3,
        "100 are left, 20 of them for the ten: {}",
        made.reason
    );
    let said = "launch 3; the limit of $1000.00 a day allows 13 ($900.00 spent)";
    assert!(made.reason.ends_with(said), "{}", made.reason);
    let made = first_plan(&observed(100, members(&[(Running, 99.5); 10])), &policy);
    assert_eq!(
        (made.launch.total(), made.drain.len()),
        (0, 8),
        "{}",
        made.reason
    );
    let made = first_plan(&observed(100, members(&[(Running, 100.0); 10])), &policy);
    assert_eq!(
        (made.launch.total(), made.drain.len()),
        (0, 10),
        "{}",
        made.reason
    );
    let said = "drain 10; the limit of $1000.00 a day allows 0 ($1000.00 spent)";
    assert!(made.reason.ends_with(said), "{}", made.reason);
    // A minute that is paid for is used.
    let by_the_minute = Policy {
        billing_minimum: Duration::from_secs(60),
        ..policy
    };
    let young = members(&[
        (Running, 80.0),
        (Running, 30.0),
        (Running, 57.0),
        (Running, 59.0),
    ]);
    let mut spent = observed(100, young);
    spent
        .instances
        .extend(members(&[(Running, 739.5)]).into_iter().map(|mut old| {
            old.id = InstanceId("old".to_owned());
            old
        }));
    let made = first_plan(&spent, &by_the_minute);
    let drained: Vec<_> = made.drain.iter().map(|id| &*id.0).collect();
    assert_eq!(drained, ["3", "0", "old"], "{}", made.reason);
}

proptest! {
    /// Whatever was learned, whatever is there: the fleet is on its way to one instance for so many
    /// requests.
    #[test]
    fn by_requests_the_count_is_exact(
        backlog in 0u64..300,
        requests in 1u32..30,
        max in 1u32..20,
        states in prop::collection::vec((0u8..3, 0.0f64..290.0, any::<Option<bool>>()), 0..20),
        boots_s in prop::collection::vec(0.1f64..100.0, 0..20),
        services_s in prop::collection::vec(0.01f64..10.0, 0..3),
        levels in 0usize..20,
    ) {
        let mut instances = Vec::new();
        for (id, (state, age_s, busy)) in (0..).zip(states) {
            let state = [Pending, Running, Draining][state as usize];
            instances.push(Instance { busy, ..instance(id, state, age_s) });
        }
        let observed = observed(backlog, instances);
        let policy = by_requests(requests, max);
        let learned = learned_from(&boots_s, &services_s, levels);
        let made = next_plan(learned, &observed, &policy);

        let target = backlog.div_ceil(requests.into()).min(max.into()) as u32;
        let draining = observed.count(Draining);
        let coming = observed.instances.len() as u32 - draining;
        let room = max.saturating_sub(coming + draining);
        let next = coming + made.launch.total() - made.drain.len() as u32;
        if coming >= target {
            prop_assert_eq!(next, target, "{}", made.reason);
        } else {
            prop_assert_eq!(next, target.min(coming + room), "{}", made.reason);
        }
        prop_assert!(made.launch.total() == 0 || made.drain.is_empty());
        let stays_idle = observed.instances.iter().any(|i| {
            i.state == Running && i.busy == Some(false) && !made.drain.contains(&i.id)
        });
        let busy_goes = observed.instances.iter().any(|i| {
            i.state == Running && i.busy == Some(true) && made.drain.contains(&i.id)
        });
        prop_assert!(!(stays_idle && busy_goes), "an idle one stays, a busy one goes");
    }

    /// More requests never ask for fewer instances.
    #[test]
    fn by_requests_more_ask_for_more(
        backlog in 0u64..300, more in 1u64..300, requests in 1u32..30, running in 0usize..20,
    ) {
        let policy = by_requests(requests, 20);
        let after = |backlog| {
            let made = first_plan(&observed(backlog, members(&vec![(Running, 9.0); running])), &policy);
            running + made.launch.total() as usize - made.drain.len()
        };
        prop_assert!(after(backlog + more) >= after(backlog));
    }

    #[test]
    fn bounds_hold_and_the_same_input_gives_the_same_plan(
        backlog in 0u64..5000,
        states in prop::collection::vec((0u8..3, 0.0f64..500.0), 0..40),
        min in 0u32..10,
        more in 0u32..20,
        limit: Option<u32>,
        slots in 1u32..4,
    ) {
        let state = |n| [Pending, Running, Draining][n as usize];
        let states: Vec<_> = states.into_iter().map(|(n, age)| (state(n), age)).collect();
        let mut observed = observed(backlog, members(&states));
        observed.available.ec2 = limit.unwrap_or(u32::MAX);
        let policy = Policy { min_instances: min, max_instances: (min + more).max(1), slots, ..POLICY };
        let made = first_plan(&observed, &policy);
        prop_assert_eq!(&made, &first_plan(&observed, &policy));
        let members = observed.instances.len() as u32;
        prop_assert!(made.launch.total() == 0 || members + made.launch.total() <= policy.max_instances);
        prop_assert!(limit.is_none_or(|limit| made.launch.total() <= limit));
        // Those that take as long as this to boot are not counted on.
        let counted = |i: &&Instance| match i.state {
            Draining => false,
            Pending => i.age.as_secs_f64() <= 30.0,
            Running => true,
        };
        let before = observed.instances.iter().filter(counted).count() as u32;
        let left = observed.instances.iter().filter(counted);
        let left = left.filter(|i| !made.drain.contains(&i.id)).count() as u32;
        prop_assert!(left + made.launch.total() >= min.min(before));
        let mut drained = made.drain.clone();
        drained.sort();
        drained.dedup();
        prop_assert_eq!(drained.len(), made.drain.len(), "none is drained twice");
        for id in &made.drain {
            let instance = observed.instances.iter().find(|i| i.id == *id);
            prop_assert!(instance.is_some_and(|i| i.state != Draining));
        }
    }

    /// More work never asks for fewer instances.
    #[test]
    fn what_is_needed_grows_with_the_backlog(backlog in 0u64..2000, more in 1u64..500, running in 0usize..10) {
        let plan_for = |backlog| {
            let states = vec![(Running, 100.0); running];
            first_plan(&observed(backlog, members(&states)), &POLICY).launch.total()
        };
        prop_assert!(plan_for(backlog + more) >= plan_for(backlog));
    }
}
