//! An hour of 10,000 requests a second on a fleet of up to 1,000 instances, request by request:
//! `cargo run --release -p muster-fleet --example scale`. docs/SCALE.md has what it prints.
//!
//! The fleet begins at zero under the whole load, which is the worst that can be asked of launches.

use std::time::{Duration, Instant};

use muster_fleet::simulate::{Autoscaler, Outcome, Scenario, run};
use muster_fleet::{
    Instance as Member, InstanceId, InstanceState, KeepAlive, Learned, Observation, Policy,
    RequestTotals, Scaling, Tier, TierCounts, plan,
};
use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

const REQUESTS_PER_S: f64 = 10_000.0;
const LENGTH_S: f64 = 3600.0;
const INSTANCES: u32 = 1000;
/// What a request takes of its instance, so that nine of ten are busy.
const SERVICE_S: f64 = 0.09;
/// What an instance takes to boot, as measured by others on m7i.large.
const BOOT_S: f64 = 26.0;
/// A c7i.large in us-east-1.
const PRICE_PER_HOUR: f64 = 0.089_25;
const TARGET_WAIT_S: f64 = 1.0;
/// EC2's resource tokens of RunInstances ("Request throttling for the Amazon EC2 API"): so many instances may be
/// launched at once, and so many a second after that.
const LAUNCH_TOKENS: f64 = 1000.0;
const LAUNCH_TOKENS_PER_S: f64 = 2.0;
/// Plans that are timed.
const PLANS: usize = 1000;

fn main() {
    let arrivals = arrivals();
    let scenario = Scenario {
        boot_s: BOOT_S,
        service_s: SERVICE_S,
        service_cv: 0.0,
        slots: 1,
        max_instances: INSTANCES,
        price_per_hour: PRICE_PER_HOUR,
        tiers: Vec::new(),
        billing_minimum_s: 60.0,
        target_wait_s: TARGET_WAIT_S,
        count_lag_s: 1.0,
        count_noise: 2,
        speeds: Vec::new(),
        closed_loop: false,
        seed: 1,
    };
    let begun = Instant::now();
    let autoscaler = Autoscaler::Muster {
        policy: Box::new(policy()),
        learned: Box::default(),
    };
    let mut outcome = run(&arrivals, LENGTH_S, &scenario, autoscaler);
    report(&mut outcome, begun.elapsed());
    println!(
        "a plan with {INSTANCES} instances: {:.1} us (median of {PLANS})",
        plan_time().as_secs_f64() * 1e6
    );
}

fn policy() -> Policy {
    Policy {
        tier: Tier::Ec2,
        local: None,
        min_instances: 0,
        max_instances: INSTANCES,
        scaling: Scaling::Objective,
        slots: 1,
        target_wait: Duration::from_secs_f64(TARGET_WAIT_S),
        keep_alive: KeepAlive::Learned {
            at_most: Duration::from_secs(3600),
        },
        late_request: None,
        billing_minimum: Duration::from_secs(60),
        count_lag: Duration::from_secs(60),
        expected_boot: Duration::from_secs(30),
        boot_timeout: Duration::from_secs(300),
        expected_service: Duration::from_millis(500),
        budget: None,
    }
}

/// Arrivals by chance (a Poisson process).
fn arrivals() -> Vec<f64> {
    let mut random = SplitMix64::seed_from_u64(1);
    let mut arrivals = Vec::with_capacity((REQUESTS_PER_S * LENGTH_S * 1.01) as usize);
    let mut at = 0.0;
    loop {
        // 53 random bits, as many as a float has, between 0 and 1.
        let share = ((random.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        at -= share.ln() / REQUESTS_PER_S;
        if at >= LENGTH_S {
            return arrivals;
        }
        arrivals.push(at);
    }
}

fn report(outcome: &mut Outcome, took: Duration) {
    let requests = outcome.waits.len();
    let late = outcome.waits.iter().filter(|wait| **wait > TARGET_WAIT_S);
    let late = late.count() as f64 / requests as f64;
    // In the order of service, which is that of arrival.
    let settled = requests / 10;
    let mut after: Vec<f64> = outcome.waits.split_off(settled);
    after.sort_unstable_by(f64::total_cmp);
    let share = |of_100: usize| after[after.len() * of_100 / 100];
    println!(
        "{requests} requests in an hour: {:.1} instance-hours, ${:.2}, ${:.3} a million; {} launches, peak {}",
        outcome.instance_hours,
        outcome.cost,
        outcome.cost * 1e6 / requests as f64,
        outcome.launches,
        outcome.peak,
    );
    println!(
        "late: {:.2} %; after the first tenth, wait p50 {:.2} s, p99 {:.2} s, longest {:.2} s",
        late * 100.0,
        share(50),
        share(99),
        after[after.len() - 1],
    );
    let (mut launched, mut short) = (0.0, 0.0_f64);
    for pair in outcome.fleet.windows(2) {
        let [(_, _, before), (at, _, booting)] = pair else {
            continue;
        };
        launched += f64::from(booting.saturating_sub(*before));
        short = short.max(launched - LAUNCH_TOKENS - LAUNCH_TOKENS_PER_S * at);
    }
    println!(
        "launches beyond EC2's tokens, at most: {:.0}",
        short.max(0.0)
    );
    println!(
        "simulated in {:.1} s, {:.2} us a request",
        took.as_secs_f64(),
        took.as_secs_f64() * 1e6 / requests as f64
    );
}

/// One plan of a fleet that is full and as busy as above.
fn plan_time() -> Duration {
    let member = |n: u32| Member {
        id: InstanceId(format!("i-{n:017x}")),
        tier: Tier::Ec2,
        state: InstanceState::Running,
        age: Duration::from_secs(600 + u64::from(n)),
        busy: Some(!n.is_multiple_of(10)),
        overdue: false,
        answered: None,
    };
    let mut observed = Observation {
        now: Duration::from_secs(1_000_000),
        visible: 0,
        in_flight: 900,
        totals: None,
        instances: (0..INSTANCES).map(member).collect(),
        available: TierCounts::UNLIMITED,
        throttled: false,
    };
    let policy = policy();
    let mut learned = Learned::default();
    let mut times = Vec::with_capacity(PLANS);
    let mut answered = 1_000_000;
    for _ in 0..PLANS {
        observed.now += Duration::from_millis(100);
        answered += 1000;
        observed.totals = Some(RequestTotals {
            submitted: answered + 900,
            answered,
            timed: answered,
            worked: Duration::from_secs_f64(answered as f64 * SERVICE_S),
            oldest: None,
        });
        let begun = Instant::now();
        learned.observe(&observed, &policy);
        let made = plan(&observed, &learned, &policy);
        times.push(begun.elapsed());
        assert_eq!(made.launch.total(), 0, "{}", made.reason);
    }
    times.sort_unstable();
    times[PLANS / 2]
}
