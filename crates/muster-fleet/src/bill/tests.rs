use std::num::NonZeroU32;

use InstanceState::{Draining, Pending, Running};
use proptest::prelude::*;

use super::*;
use crate::learn::Learned;
use crate::observation::Observation;
use crate::plan::plan;
use crate::policy::{KeepAlive, Scaling};
use crate::tier::{Tier, TierCounts};

/// A dollar for a second of an instance.
const BUDGET: Budget = Budget {
    price_per_hour: 3600.0,
    max_dollars_per_hour: None,
    max_dollars_per_day: None,
    drain_time: Duration::ZERO,
    unattended: Duration::from_secs(900),
};

const POLICY: Policy = Policy {
    keep_alive: KeepAlive::Fixed(Duration::from_secs(10)),
    count_lag: Duration::ZERO,
    expected_boot: Duration::from_secs(10),
    budget: Some(BUDGET),
    ..Policy::on_ec2(10)
};

/// Midnight, some days after the epoch.
const MIDNIGHT_S: f64 = 20_000.0 * DAY_S;

fn instance(id: &str, state: InstanceState, age_s: f64) -> Instance {
    Instance {
        id: InstanceId(id.to_owned()),
        tier: Tier::Ec2,
        state,
        age: Duration::from_secs_f64(age_s),
        busy: None,
        overdue: false,
        answered: None,
    }
}

/// Seconds after midnight, and the fleet then.
fn observe(bill: &mut Bill, at_s: f64, instances: &[Instance]) {
    let now = Duration::from_secs_f64(MIDNIGHT_S + at_s);
    bill.observe(now, instances, &POLICY);
}

fn today(bill: &Bill) -> f64 {
    bill.cost(0, &POLICY).unwrap().dollars_today
}

#[test]
fn an_instance_is_paid_from_its_launch_for_a_minute_at_least() {
    let mut bill = Bill::default();
    observe(&mut bill, 1000.0, &[instance("a", Pending, 0.0)]);
    assert_eq!(today(&bill), 60.0, "what the launch commits to");
    observe(&mut bill, 1100.0, &[instance("a", Running, 100.0)]);
    assert_eq!(today(&bill), 100.0);
    // From when it drains, nothing more.
    observe(&mut bill, 1110.0, &[instance("a", Draining, 110.0)]);
    observe(&mut bill, 1140.0, &[instance("a", Draining, 140.0)]);
    assert_eq!(today(&bill), 110.0);
    observe(&mut bill, 1150.0, &[instance("b", Pending, 0.0)]);
    assert_eq!(today(&bill), 170.0);
    observe(&mut bill, 1160.0, &[]);
    assert_eq!(today(&bill), 170.0);
    assert!(bill.runs.is_empty());
}

#[test]
fn each_day_pays_for_its_own_hours() {
    let mut bill = Bill::default();
    observe(&mut bill, -40.0, &[instance("a", Running, 500.0)]);
    assert_eq!(today(&bill), 500.0);
    let both = |age_s: f64| {
        [
            instance("a", Running, 530.0 + age_s),
            instance("b", Pending, age_s),
        ]
    };
    observe(&mut bill, -10.0, &both(0.0));
    assert_eq!(today(&bill), 590.0);
    observe(&mut bill, 5.0, &both(15.0));
    assert_eq!(
        today(&bill),
        5.0 + 50.0,
        "of a minute, ten seconds were yesterday's"
    );
    observe(&mut bill, 20.0, &[]);
    // Until when the one stayed is not known.
    assert_eq!(today(&bill), 20.0 + 50.0);
}

#[test]
fn a_bill_outlives_the_controller() {
    let mut bill = Bill::default();
    let both = |age_s: f64| [instance("a", Running, age_s), instance("b", Running, age_s)];
    observe(&mut bill, 1000.0, &both(100.0));
    let kept = serde_json::to_string(&bill).unwrap();
    let restored = || -> Bill { serde_json::from_str(&kept).unwrap() };

    // The next controller does not know at first how long ago they were launched.
    let mut after = restored();
    observe(&mut after, 1100.0, &both(0.0));
    observe(&mut after, 1101.0, &both(201.0));
    assert_eq!(today(&after), 402.0);
    // One was gone meanwhile, and might have been there.
    let mut after = restored();
    observe(&mut after, 1100.0, &both(200.0)[..1]);
    assert_eq!(today(&after), 400.0);
    let mut after = restored();
    observe(&mut after, 5000.0, &[]);
    assert_eq!(today(&after), 2.0 * (100.0 + 900.0));
    // Others of the same names.
    let mut after = restored();
    observe(&mut after, 1100.0, &both(70.0));
    assert_eq!(today(&after), 200.0 + 140.0);
    // The day after, all that is over.
    let mut after = restored();
    observe(&mut after, DAY_S + 10.0, &[]);
    assert_eq!(today(&after), 0.0);
}

#[test]
fn a_clock_that_was_set_back_forgets_nothing() {
    let mut bill = Bill::default();
    observe(&mut bill, 1000.0, &[instance("a", Running, 100.0)]);
    observe(&mut bill, 1001.0, &[]);
    observe(&mut bill, -10.0, &[]);
    assert_eq!(today(&bill), 101.0);
    observe(&mut bill, 0.0, &[]);
    assert_eq!(today(&bill), 0.0, "a midnight is a midnight");
}

#[derive(Clone, Debug)]
struct Days {
    /// Requests that come in each second.
    arrivals: Vec<u8>,
    /// Seconds of each boot in turn; `None` dies.
    boots: Vec<Option<u8>>,
    /// Seconds in which the controller is replaced.
    crashes: Vec<u16>,
    /// Seconds before midnight when it begins.
    before_midnight: u16,
    per_hour: Option<u32>,
    per_day: Option<u32>,
    min: u32,
    drain_s: u8,
    billing_s: u8,
    requests: Option<NonZeroU32>,
}

prop_compose! {
    fn days()(
        arrivals in prop::collection::vec(prop_oneof![2 => Just(0u8), 1 => 0u8..40], 50..400),
        boots in prop::collection::vec(prop::option::weighted(0.8, 1u8..60), 1..20),
        crashes in prop::collection::vec(0u16..600, 0..4),
        before_midnight in 0u16..600,
        per_hour in prop::option::of(1u32..12),
        per_day in prop::option::weighted(0.9, 30u32..3000),
        min in 0u32..3,
        drain_s in 0u8..10,
        billing_s in prop_oneof![Just(0u8), Just(60u8)],
        requests in prop::option::of((1u32..5).prop_map(|n| NonZeroU32::new(n).unwrap())),
    ) -> Days {
        Days { arrivals, boots, crashes, before_midnight, per_hour, per_day, min, drain_s, billing_s, requests }
    }
}

struct Member {
    instance: Instance,
    launched: f64,
    boots_at: (f64, bool),
    ends: Option<f64>,
}

/// Requests that one instance answers in a second.
const RATE: u64 = 2;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// What is really paid, by another count than the bill's, is never more than the limits.
    #[test]
    fn no_plan_exceeds_a_limit(days in days()) {
        check(&days)?;
    }
}

fn check(days: &Days) -> Result<(), TestCaseError> {
    let minimum = f64::from(days.billing_s);
    let budget = Budget {
        max_dollars_per_hour: days.per_hour.map(|n| f64::from(n) * 3600.0),
        max_dollars_per_day: days.per_day.map(f64::from),
        drain_time: Duration::from_secs(days.drain_s.into()),
        ..BUDGET
    };
    let policy = Policy {
        min_instances: days.min,
        scaling: days
            .requests
            .map_or(Scaling::Objective, Scaling::RequestsPerInstance),
        billing_minimum: Duration::from_secs(days.billing_s.into()),
        budget: Some(budget),
        ..POLICY
    };
    let mut learned = Learned::default();
    let mut kept = serde_json::to_string(&learned).unwrap();
    let mut members: Vec<Member> = Vec::new();
    let (mut backlog, mut launches) = (0u64, 0usize);
    let mut paid: std::collections::BTreeMap<u64, f64> = Default::default();
    // What is billed for it at least is of the day on which it ends.
    let mut pay = |launched: f64, ended: f64| {
        let day = |at: f64| (at / DAY_S) as u64;
        let midnight = (day(ended) as f64 * DAY_S).max(launched);
        *paid.entry(day(launched)).or_default() += midnight - launched;
        *paid.entry(day(ended)).or_default() += ended.max(launched + minimum) - midnight;
    };
    let begin = MIDNIGHT_S - f64::from(days.before_midnight);
    for second in 0..days.arrivals.len() + 400 {
        let now = begin + second as f64;
        backlog += u64::from(days.arrivals.get(second).copied().unwrap_or(0));
        members.retain_mut(|member| {
            member.instance.age = Duration::from_secs_f64(now - member.launched);
            let (at, survives) = member.boots_at;
            if member.instance.state == Pending && now >= at {
                member.instance.state = Running;
                if !survives {
                    member.ends = Some(now);
                }
            }
            let ended = member.ends.filter(|at| *at <= now);
            if let Some(at) = ended {
                pay(member.launched, at);
            }
            ended.is_none()
        });
        let running = members
            .iter()
            .filter(|m| m.instance.state == Running)
            .count() as u64;
        backlog = backlog.saturating_sub(RATE * running);
        if days.crashes.contains(&(second as u16)) {
            learned = serde_json::from_str(&kept).unwrap();
        }
        let observed = Observation {
            now: Duration::from_secs_f64(now),
            visible: backlog,
            in_flight: 0,
            totals: None,
            instances: members
                .iter()
                .map(|member| member.instance.clone())
                .collect(),
            available: TierCounts::UNLIMITED,
            throttled: false,
        };
        learned.observe(&observed, &policy);
        if learned.bill.take_changed(&policy) {
            kept = serde_json::to_string(&learned).unwrap();
        }
        let made = plan(&observed, &learned, &policy);
        for member in members
            .iter_mut()
            .filter(|m| made.drain.contains(&m.instance.id))
        {
            member.instance.state = Draining;
            let drain_s = f64::from(launches as u8 % (days.drain_s + 1));
            member.ends = Some(now + drain_s);
        }
        for _ in 0..made.launch.total() {
            let boot = days.boots[launches % days.boots.len()];
            members.push(Member {
                instance: instance(&launches.to_string(), Pending, 0.0),
                launched: now,
                boots_at: (now + f64::from(boot.unwrap_or(5)), boot.is_some()),
                ends: None,
            });
            launches += 1;
        }
        if let (Some(most), true) = (days.per_hour, made.launch.total() > 0) {
            prop_assert!(members.len() <= most as usize, "{}", made.reason);
        }
    }
    let end = begin + days.arrivals.len() as f64 + 400.0;
    for member in &members {
        pay(member.launched, end);
    }
    for (day, paid) in paid {
        let limit = days.per_day.map_or(f64::INFINITY, f64::from);
        prop_assert!(paid <= limit + 1e-3, "{paid} of {limit} on day {day}");
    }
    Ok(())
}
