//! Workers of the controller's machine before the fleet, and stopped instances.

use super::*;
use crate::policy::LocalTier;

const LOCAL: LocalTier = LocalTier {
    workers: 1,
    idle_grace: Duration::from_secs(1),
    expected_boot: Duration::from_millis(400),
};
/// A boot takes 10 s, a request half a second, the objective is 1 s.
const TIERED: Policy = Policy {
    local: Some(LOCAL),
    ..POLICY
};

/// Instances of this machine, in this state for so long.
fn here(states: &[(InstanceState, f64)]) -> Vec<Instance> {
    (0..)
        .zip(states)
        .map(|(n, (state, age_s))| Instance {
            id: InstanceId(format!("worker-{n}")),
            tier: Tier::Local,
            busy: None,
            ..instance(0, *state, *age_s)
        })
        .collect()
}

fn counts(local: u32, stopped: u32, ec2: u32) -> TierCounts {
    TierCounts {
        local,
        stopped,
        ec2,
    }
}

#[test]
fn what_this_machine_clears_is_left_to_it_and_a_bigger_burst_is_begun_by_it() {
    type Case<'a> = (
        u64,
        &'a [(InstanceState, f64)],
        &'a [(InstanceState, f64)],
        TierCounts,
    );
    let cases: [Case<'_>; 9] = [
        (0, &[], &[], counts(0, 0, 0)),
        (1, &[], &[], counts(1, 0, 0)),
        // It has begun with 19 before an instance would be ready, and clears the last in its objective.
        (20, &[], &[], counts(1, 0, 0)),
        (20, &[(Pending, 0.1)], &[], counts(0, 0, 0)),
        // 80 are left then, which four clear in as long again: it, and three others.
        (100, &[], &[], counts(1, 0, 3)),
        (
            100,
            &[(Running, 5.0)],
            &[(Pending, 0.1); 3],
            counts(0, 0, 0),
        ),
        // One for each request at work is there.
        (3, &[], &[(Running, 99.0); 3], counts(0, 0, 0)),
        (4, &[], &[(Running, 99.0); 3], counts(1, 0, 0)),
        (1000, &[], &[], counts(1, 0, 20)),
    ];
    for (backlog, local, own, launch) in cases {
        let instances = [here(local), members(own)].concat();
        let made = first_plan(&observed(backlog, instances), &TIERED);
        assert_eq!(made.launch, launch, "{}", made.reason);
    }
    let made = first_plan(&observed(100, vec![]), &TIERED);
    assert!(
        made.reason
            .ends_with("0 booting, 0 here: launch 3, and 1 here"),
        "{}",
        made.reason
    );
}

#[test]
fn an_idle_worker_of_this_machine_goes_after_its_grace() {
    let mut learned = Learned::default();
    let mut at = |now_s: f64, backlog| {
        let mut observed = observed(backlog, here(&[(Running, 5.0)]));
        observed.now = Duration::from_secs_f64(now_s);
        learned.observe(&observed, &TIERED);
        plan(&observed, &learned, &TIERED).drain.len()
    };
    assert_eq!(at(1000.0, 2), 0);
    assert_eq!(at(1000.9, 0), 0);
    assert_eq!(at(1001.1, 0), 1);
}

#[test]
fn a_throttled_machine_works_on_nothing() {
    let mut throttled = observed(100, here(&[(Running, 5.0)]));
    throttled.throttled = true;
    let made = first_plan(&throttled, &TIERED);
    assert_eq!(made.launch, counts(0, 0, 5), "{}", made.reason);
    assert_eq!(made.drain, [InstanceId("worker-0".to_owned())]);
    assert!(
        made.reason.contains("this machine is throttled"),
        "{}",
        made.reason
    );
}

/// Its failed starts are no reason to wait for a fleet that could be launched.
#[test]
fn a_worker_that_does_not_start_is_not_counted_on() {
    let mut failing = observed(1, vec![]);
    failing.available.local = 0;
    let made = first_plan(&failing, &TIERED);
    assert_eq!(made.launch, counts(0, 0, 1), "{}", made.reason);
}

#[test]
fn this_machines_work_is_in_no_limit_of_what_the_fleet_may_cost() {
    let limited = Policy {
        budget: Some(Budget {
            price_per_hour: 0.1,
            max_dollars_per_hour: Some(0.2),
            max_dollars_per_day: Some(0.001),
            drain_time: Duration::ZERO,
            unattended: Duration::ZERO,
        }),
        ..TIERED
    };
    // 60 instance-seconds are spent, of the 36 that a tenth of a cent pays for.
    let spent = [here(&[(Running, 3600.0)]), members(&[(Running, 60.0)])].concat();
    let made = first_plan(&observed(100, spent), &limited);
    assert_eq!(made.drain, [InstanceId("0".to_owned())], "{}", made.reason);
    let begun = observed(100, vec![]);
    let mut learned = Learned::default();
    learned.observe(&begun, &limited);
    let made = plan(&begun, &learned, &limited);
    assert_eq!(made.launch, counts(1, 0, 1), "{}", made.reason);
    let there = observed(100, here(&[(Running, 3600.0)]));
    learned.observe(&there, &limited);
    let cost = learned.bill.cost(0, &limited).unwrap();
    assert_eq!(cost.dollars_today, 0.0);
}

#[test]
fn the_stopped_come_before_the_fresh() {
    let mut two = observed(100, vec![]);
    two.available.stopped = 2;
    let made = first_plan(&two, &POLICY);
    assert_eq!(made.launch, counts(0, 2, 3), "{}", made.reason);
    // While no other is to be launched they are started nevertheless.
    two.available.ec2 = 0;
    let made = first_plan(&two, &POLICY);
    assert_eq!(made.launch, counts(0, 2, 0), "{}", made.reason);
}

/// What a controller has learned that saw so many instances of a tier boot.
fn after_boots(tier: Tier, boots: u32, boot_s: f64) -> Learned {
    let mut learned = Learned::default();
    for n in 0..boots {
        for (step, state, age_s) in [(1, Pending, 0.0), (2, Pending, 1.0), (3, Running, boot_s)] {
            let booted = Instance {
                tier,
                ..instance(n, state, age_s)
            };
            let mut observed = observed(0, vec![booted]);
            observed.now = Duration::from_secs(u64::from(4 * n + step));
            learned.observe(&observed, &POLICY);
        }
    }
    learned
}

/// By the starts of stopped instances it would be hung after 18 s, and given up after 36.
#[test]
fn a_cold_boot_is_not_judged_by_warm_starts() {
    let policy = Policy {
        expected_boot: Duration::from_secs(30),
        ..POLICY
    };
    let booting = |tier, age_s| {
        let mut learned = after_boots(Tier::Stopped, 64, 12.0);
        let cold = Instance {
            tier,
            ..instance(1000, Pending, age_s)
        };
        let mut observed = observed(1, vec![cold]);
        observed.now = Duration::from_secs(2000);
        learned.observe(&observed, &policy);
        let made = plan(&observed, &learned, &policy);
        (made.launch.total(), made.drain.len())
    };
    assert_eq!(booting(Tier::Ec2, 19.0), (0, 0), "it is counted on");
    assert_eq!(booting(Tier::Ec2, 37.0), (0, 0), "it is waited for");
    assert_eq!(booting(Tier::Ec2, 91.0), (1, 0));
    assert_eq!(booting(Tier::Stopped, 17.0), (0, 0));
    assert_eq!(
        booting(Tier::Stopped, 19.0),
        (1, 0),
        "another takes its place"
    );
    assert_eq!(booting(Tier::Stopped, 37.0), (1, 1), "it is given up");
}

#[test]
fn each_tier_has_its_own_boots_and_those_of_before_are_the_fleets() {
    let warm = after_boots(Tier::Stopped, 3, 12.0);
    assert_eq!(warm.boot_s_of(Tier::Stopped, &POLICY), 12.0);
    assert_eq!(warm.boot_s_of(Tier::Ec2, &POLICY), 10.0, "as expected");
    let kept = serde_json::to_string(&warm).unwrap();
    let read: Learned = serde_json::from_str(&kept).unwrap();
    assert_eq!(read.boot_s_of(Tier::Stopped, &POLICY), 12.0);

    let before: Learned = serde_json::from_value(json!({ "boots": [7.0, 8.0, 9.0] })).unwrap();
    for tier in [Tier::Ec2, Tier::Stopped] {
        assert_eq!(before.boot_s_of(tier, &TIERED), 8.0);
    }
    assert_eq!(before.boot_s_of(Tier::Local, &TIERED), 0.4);
    let on_this_machine = Policy {
        tier: Tier::Local,
        ..POLICY
    };
    assert_eq!(before.boot_s(&on_this_machine), 8.0);
}

fn state() -> impl Strategy<Value = InstanceState> {
    prop_oneof![Just(Pending), Just(Running), Just(Draining)]
}

proptest! {
    #[test]
    fn the_bounds_of_every_tier_hold(
        local in prop::collection::vec((state(), 0.0..100.0), 0..4),
        own in prop::collection::vec((state(), 0.0..200.0, any::<bool>()), 0..25),
        backlog in 0u64..500,
        workers in 1u32..4,
        (stopped, ec2, here_held) in (0u32..4, prop_oneof![Just(0), Just(u32::MAX)], any::<bool>()),
        throttled: bool,
    ) {
        let policy = Policy {
            local: Some(LocalTier { workers, ..LOCAL }),
            ..POLICY
        };
        let own: Vec<_> = (0..)
            .zip(own)
            .map(|(n, (state, age_s, warm))| Instance {
                tier: if warm { Tier::Stopped } else { Tier::Ec2 },
                ..instance(n, state, age_s)
            })
            .collect();
        let local = here(&local);
        let mut seen = observed(backlog, [local.clone(), own.clone()].concat());
        seen.available = counts(if here_held { 0 } else { u32::MAX }, stopped, ec2);
        seen.throttled = throttled;
        let made = first_plan(&seen, &policy);
        let launch = made.launch;
        prop_assert!(launch.local == 0 || local.len() as u32 + launch.local <= workers);
        prop_assert!(!(throttled || here_held) || launch.local == 0);
        prop_assert!(launch.stopped <= stopped && (ec2 > 0 || launch.ec2 == 0));
        let fleet = launch.stopped + launch.ec2;
        prop_assert!(fleet == 0 || own.len() as u32 + fleet <= policy.max_instances);
        // It works on two in the objective.
        let ready = local.iter().filter(|i| i.state == Running).count() as u64;
        if !throttled && backlog <= 2 * ready {
            prop_assert_eq!(fleet, 0, "{}", made.reason);
        }
        let unique: std::collections::BTreeSet<_> = made.drain.iter().collect();
        prop_assert_eq!(unique.len(), made.drain.len());
        if throttled {
            let stay = local.iter().filter(|i| i.state != Draining && !made.drain.contains(&i.id));
            prop_assert_eq!(stay.count(), 0);
        }
    }
}
