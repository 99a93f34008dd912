use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::SeedableRng;

use super::*;
use crate::fleet::Instance;
use crate::simulate::random::unit;
use crate::tier::TierCounts;

const POLICY: Policy = Policy {
    expected_boot: Duration::from_secs(10),
    ..Policy::on_ec2(10)
};

/// What a controller observes, once a second.
struct World {
    learned: Learned,
    now_s: f64,
    totals: RequestTotals,
    service: Duration,
    instances: Vec<Instance>,
}

impl World {
    fn new(running: u32) -> Self {
        let mut world = Self {
            learned: Learned::default(),
            now_s: 1e9,
            totals: RequestTotals::default(),
            service: Duration::from_millis(200),
            instances: Vec::new(),
        };
        for n in 0..running {
            world.set(n, InstanceState::Running, 1000.0);
        }
        world
    }

    fn set(&mut self, n: u32, state: InstanceState, age_s: f64) {
        let id = InstanceId(n.to_string());
        self.instances.retain(|instance| instance.id != id);
        self.instances.push(Instance {
            id,
            tier: Tier::Ec2,
            state,
            age: Duration::from_secs_f64(age_s),
            busy: None,
            overdue: false,
            answered: None,
        });
    }

    /// A second later, with so many more submitted and answered, and the queue's count off by
    /// `noise`.
    fn observe(&mut self, submitted: u64, answered: u64, noise: i64) {
        self.now_s += 1.0;
        self.totals.submitted += submitted;
        self.totals.answered += answered;
        self.totals.timed += answered;
        self.totals.worked += self.service * answered as u32;
        self.look(noise, &POLICY);
    }

    /// The queue's count is off by `noise`.
    fn look(&mut self, noise: i64, policy: &Policy) {
        let own = self.totals.submitted - self.totals.answered;
        let observed = Observation {
            now: Duration::from_secs_f64(self.now_s),
            visible: own.saturating_add_signed(noise),
            in_flight: 0,
            totals: Some(self.totals),
            instances: self.instances.clone(),
            available: TierCounts::UNLIMITED,
            throttled: false,
        };
        self.learned.observe(&observed, policy);
    }
}

#[test]
fn a_step_of_the_service_time_is_learned_in_four_looks_and_an_outlier_changes_little() {
    let mut world = World::new(1);
    for _ in 0..20 {
        world.observe(5, 5, 0);
    }
    assert!((world.learned.service_s(&POLICY) - 0.2).abs() < 1e-9);
    world.service *= 3;
    for _ in 0..4 {
        world.observe(5, 5, 0);
    }
    let service_s = world.learned.service_s(&POLICY);
    assert!(service_s > 0.35, "a step: {service_s}");
    for _ in 0..40 {
        world.observe(5, 5, 0);
    }
    let service_s = world.learned.service_s(&POLICY);
    assert!((0.57..=0.6).contains(&service_s), "a step: {service_s}");
    // One look whose requests took ten times as long, as when a worker stalled.
    world.service *= 10;
    world.observe(5, 5, 0);
    let service_s = world.learned.service_s(&POLICY);
    assert!((0.57..0.75).contains(&service_s), "an outlier: {service_s}");
}

/// An arrival every other second, each of which takes six: by chance, eight at a time.
#[test]
fn a_load_that_goes_on_is_staffed_and_one_that_is_over_is_not() {
    let mut random = SplitMix64::seed_from_u64(1);
    let mut world = World::new(8);
    world.service = Duration::from_secs(6);
    let mut come = |world: &mut World, rate: f64, seconds: u32| {
        let mut floors = Vec::new();
        for _ in 0..seconds {
            let came = u64::from(unit(&mut random) < rate);
            world.observe(came, came, 0);
            floors.push(world.learned.floor());
        }
        floors
    };
    let floors = come(&mut world, 0.5, 3600);
    assert_eq!(floors[..23], [0; 23], "not known for four services");
    let steady = &floors[600..];
    let changes = steady.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(
        steady.iter().all(|floor| (7..=9).contains(floor)),
        "{steady:?}"
    );
    assert!(changes <= 6, "{changes} in an hour");
    let over = come(&mut world, 0.0, 60);
    assert_eq!(over[30..], [0; 30]);
    let sparse = come(&mut world, 0.005, 7200);
    assert_eq!(
        sparse.iter().max(),
        Some(&0),
        "one in 200 s is one from nothing"
    );
}

#[test]
fn boots_are_learned_and_hopeless_ones_stand_out() {
    let mut world = World::new(0);
    assert_eq!(world.learned.boot_s(&POLICY), 10.0);
    assert_eq!(world.learned.hung_s(Tier::Ec2, &POLICY), 30.0);
    for (n, boot_s) in (0..).zip([24.0, 26.0, 28.0]) {
        world.set(n, InstanceState::Pending, 0.0);
        world.observe(0, 0, 0);
        world.set(n, InstanceState::Running, boot_s);
        world.observe(0, 0, 0);
        world.observe(0, 0, 0);
    }
    assert_eq!(world.learned.boot_s(&POLICY), 26.0);
    assert_eq!(world.learned.hung_s(Tier::Ec2, &POLICY), 42.0);
    // One that is given up at 90 s says that boots may take that long.
    world.set(9, InstanceState::Pending, 85.0);
    world.observe(0, 0, 0);
    world.set(9, InstanceState::Draining, 90.0);
    world.observe(0, 0, 0);
    assert_eq!(world.learned.hung_s(Tier::Ec2, &POLICY), 135.0);
}

#[test]
fn noise_of_the_counts_moves_nothing_and_work_of_others_is_believed_in_the_end() {
    let mut world = World::new(0);
    for noise in [2, -2, 1, 2, 2, 0].into_iter().cycle().take(200) {
        world.observe(0, 0, noise);
        assert_eq!(world.learned.backlog(), 0);
    }
    world.observe(3, 0, -2);
    assert_eq!(
        world.learned.backlog(),
        3,
        "the totals are believed at once"
    );
    for _ in 0..59 {
        world.observe(0, 0, 50);
        assert_eq!(world.learned.backlog(), 3, "counts may lag");
    }
    for _ in 0..2 {
        world.observe(0, 0, 50);
    }
    assert_eq!(world.learned.backlog(), 53);
    let exact = Policy {
        count_lag: Duration::ZERO,
        ..POLICY
    };
    let observed = Observation {
        now: Duration::from_secs_f64(world.now_s),
        visible: 7,
        in_flight: 1,
        totals: Some(world.totals),
        instances: Vec::new(),
        available: TierCounts::UNLIMITED,
        throttled: false,
    };
    world.learned.observe(&observed, &exact);
    assert_eq!(
        world.learned.backlog(),
        8,
        "exact counts are believed at once"
    );
}

#[test]
fn one_request_of_others_is_believed_as_soon_as_counts_are_exact() {
    let mut world = World::new(0);
    let lag = 60;
    for n in 0..10 {
        // Requests come and go, or the count goes back: it is noise.
        for _ in 0..lag {
            world.observe(n, n, 1);
            assert_eq!(world.learned.backlog(), 0);
        }
        world.observe(n, n, i64::from(n % 2 == 1));
    }
    for _ in 1..lag {
        world.observe(0, 0, 1);
        assert_eq!(world.learned.backlog(), 0);
    }
    world.observe(0, 0, 2);
    assert_eq!(world.learned.backlog(), 1);
    world.observe(0, 0, 0);
    assert_eq!(world.learned.backlog(), 0, "somebody has answered it");
}

#[test]
fn a_clock_that_is_set_back_keeps_no_idle_instance() {
    let mut world = World::new(6);
    world.observe(30, 0, 0);
    for _ in 0..20 {
        world.observe(30, 30, 0);
    }
    world.observe(0, 30, 0);
    assert!(world.learned.worth_keeping(&POLICY) > 1);
    let kept = serde_json::to_string(&world.learned).unwrap();
    let restarted: Learned = serde_json::from_str(&kept).unwrap();
    for learned in [world.learned.clone(), restarted] {
        world.learned = learned;
        world.now_s -= 3600.0;
        world.observe(1, 0, 0);
        assert_eq!(world.learned.in_use(&POLICY), 1, "those from before");
        world.observe(0, 1, 0);
        for _ in 0..66 {
            world.observe(0, 0, 0);
        }
        assert_eq!(world.learned.worth_keeping(&POLICY), 0);
    }
}

#[test]
fn a_clock_that_is_set_back_hides_no_backlog() {
    let mut world = World::new(0);
    for _ in 0..70 {
        world.observe(0, 0, 0);
    }
    world.now_s -= 3600.0;
    for _ in 0..60 {
        world.observe(0, 0, 50);
        assert_eq!(world.learned.backlog(), 0, "counts may lag");
    }
    world.observe(0, 0, 50);
    assert_eq!(world.learned.backlog(), 50);
}

/// Bursts of a second, then gaps; answers how long an idle instance is kept after the last.
fn kept_after(gaps_s: &[u32]) -> f64 {
    let mut world = World::new(1);
    for gap_s in gaps_s {
        world.observe(1, 0, 0);
        world.observe(0, 1, 0);
        for _ in 0..*gap_s {
            world.observe(0, 0, 0);
        }
    }
    world.observe(1, 0, 0);
    world.observe(0, 1, 0);
    let mut kept_s = 0.0;
    while world.learned.worth_keeping(&POLICY) > 0 {
        kept_s += 1.0;
        world.observe(0, 0, 0);
    }
    kept_s
}

#[test]
fn an_instance_is_kept_as_long_as_the_gaps_of_late_say() {
    let unknown = kept_after(&[]);
    assert!(
        (50.0..=66.0).contains(&unknown),
        "break-even: a minute is billed anyway: {unknown}"
    );
    let long = kept_after(&[600; 8]);
    assert!(long < 8.0, "no gap is ever short: {long}");
    let short = kept_after(&[20; 8]);
    assert!(
        (20.0..=240.0).contains(&short),
        "no gap is worth a launch, and seven make an end: {short}"
    );
}

#[test]
fn a_fixed_time_begins_when_the_last_request_is_answered() {
    for seconds in [0, 1, 5] {
        let policy = Policy {
            keep_alive: KeepAlive::Fixed(Duration::from_secs(seconds)),
            ..POLICY
        };
        let mut world = World::new(3);
        let mut observe = |submitted, answered| {
            world.totals.submitted += submitted;
            world.totals.answered += answered;
            world.now_s += 0.5;
            world.look(0, &policy);
            world
                .learned
                .in_use(&policy)
                .max(world.learned.worth_keeping(&policy))
        };
        observe(30, 0);
        for _ in 0..10 {
            assert!(observe(5, 5) > 0);
        }
        assert!(observe(0, 30) > 0 || seconds == 0);
        let looks = (0..100).take_while(|_| observe(0, 0) > 0).count();
        assert!(
            looks.abs_diff(2 * seconds as usize) <= 1,
            "{looks} for {seconds} s"
        );
    }
}

#[test]
fn what_was_learned_survives_a_restart() {
    let mut world = World::new(1);
    world.observe(100, 0, 0);
    for _ in 0..10 {
        world.observe(0, 5, 0);
    }
    let kept = serde_json::to_string(&world.learned).unwrap();
    let mut restarted: Learned = serde_json::from_str(&kept).unwrap();
    let observed = Observation {
        now: Duration::from_secs_f64(world.now_s + 30.0),
        visible: 0,
        in_flight: 0,
        totals: Some(RequestTotals::default()),
        instances: Vec::new(),
        available: TierCounts::UNLIMITED,
        throttled: false,
    };
    restarted.observe(&observed, &POLICY);
    assert!((restarted.service_s(&POLICY) - 0.2).abs() < 1e-9);
    assert_eq!(
        restarted.worth_keeping(&POLICY),
        world.learned.worth_keeping(&POLICY)
    );
    assert!(
        serde_json::from_str::<Learned>("{}").is_ok(),
        "of an older version"
    );
}

/// What no run of the service writes: a service time of nothing would make every backlog one of no work.
#[test]
fn damaged_service_times_are_learned_again() {
    let bucket = |length: f64, total: f64| serde_json::json!({ "length": length, "total": total, "differences": -1.0, "pairs": -2.0 });
    for buckets in [
        vec![bucket(-5.0, -3.0), bucket(0.0, 5.0)],
        vec![bucket(4.0, -1.0)],
        vec![bucket(1e-300, 1e300)],
    ] {
        let stored = serde_json::json!({ "service": { "quantity": "Mean", "buckets": buckets } });
        let mut world = World::new(1);
        world.learned = serde_json::from_value(stored).unwrap();
        world.observe(3, 0, 0);
        assert_eq!(world.learned.service_s(&POLICY), 0.5, "as nothing was seen");
        assert_eq!(world.learned.in_use(&POLICY), 2);
        world.observe(20, 5, 0);
        assert_eq!(world.learned.service_s(&POLICY), 0.2);
    }
}

/// A request every third of a second, after gaps that taught to let go at once.
#[test]
fn what_is_no_gap_ends_no_use() {
    let free = Policy {
        billing_minimum: Duration::ZERO,
        expected_boot: Duration::from_secs(1),
        ..POLICY
    };
    let mut world = World::new(1);
    let look = |world: &mut World, submitted: u64, answered: u64, after_s: f64| {
        world.now_s += after_s;
        world.totals.submitted += submitted;
        world.totals.answered += answered;
        world.look(0, &free);
        world.learned.worth_keeping(&free)
    };
    for _ in 0..8 {
        look(&mut world, 1, 0, 30.0);
        look(&mut world, 0, 1, 0.1);
    }
    for _ in 0..20 {
        assert_eq!(look(&mut world, 0, 0, 0.2), 1, "between two requests");
        look(&mut world, 1, 0, 0.1);
        look(&mut world, 0, 1, 0.1);
    }
    assert_eq!(look(&mut world, 0, 0, 60.0), 0, "no request comes any more");
}
