//! How long one observation of the controller takes, a million arrivals of the simulator, and 55 days.

use std::time::Duration;

use divan::Bencher;
use muster_fleet::simulate::peers::{Keda, Knative, TargetTracking};
use muster_fleet::simulate::{Autoscaler, Scenario, run, spread};
use muster_fleet::{
    Instance, InstanceId, InstanceState, Learned, Observation, Policy, RequestTotals, Tier,
    TierCounts, plan,
};

fn main() {
    divan::main();
}

const POLICY: Policy = Policy {
    expected_service: Duration::from_millis(200),
    ..Policy::on_ec2(2000)
};

/// A fleet of which every tenth boots, under a backlog of which the idle ones are too many.
fn observation(instances: usize, backlog: u64) -> Observation {
    let instance = |n: usize| Instance {
        id: InstanceId(format!("i-{n:017x}")),
        tier: Tier::Ec2,
        state: match n % 10 {
            0 => InstanceState::Pending,
            _ => InstanceState::Running,
        },
        age: Duration::from_secs(if n.is_multiple_of(10) {
            10
        } else {
            100 + n as u64
        }),
        busy: Some(n.is_multiple_of(2)),
        overdue: false,
        answered: None,
    };
    Observation {
        now: Duration::from_secs(1_000_000),
        visible: backlog,
        in_flight: 0,
        totals: Some(RequestTotals {
            submitted: 10_000 + backlog,
            answered: 10_000,
            ..RequestTotals::default()
        }),
        instances: (0..instances).map(instance).collect(),
        available: TierCounts::UNLIMITED,
        throttled: false,
    }
}

#[divan::bench(args = [0, 500, 100_000])]
fn plan_with_1000_instances(bencher: Bencher<'_, '_>, backlog: u64) {
    let observed = observation(1000, backlog);
    let mut learned = Learned::default();
    learned.observe(&observed, &POLICY);
    bencher.bench(|| plan(&observed, &learned, &POLICY));
}

#[divan::bench(args = [0, 500, 100_000])]
fn observe_1000_instances(bencher: Bencher<'_, '_>, backlog: u64) {
    let mut observed = observation(1000, backlog);
    let mut learned = Learned::default();
    learned.observe(&observed, &POLICY);
    bencher.bench_local(|| {
        observed.now += Duration::from_secs(1);
        learned.observe(&observed, &POLICY);
    });
}

/// A day with a swell and a lull in every hour.
#[divan::bench(args = [2.0, 26.0, 60.0], sample_count = 3, sample_size = 1)]
fn simulate_1000000_arrivals(bencher: Bencher<'_, '_>, boot_s: f64) {
    let minutes =
        (0..1440).map(|minute: u32| (f64::from(minute) * 60.0, 10 + (minute * 37) % 1370));
    let counts: Vec<(f64, u64)> = minutes.map(|(at, count)| (at, u64::from(count))).collect();
    let mut arrivals = spread(&counts, 60.0, 1);
    arrivals.extend_from_within(
        ..1_000_000usize
            .saturating_sub(arrivals.len())
            .min(arrivals.len()),
    );
    arrivals.sort_unstable_by(f64::total_cmp);
    arrivals.truncate(1_000_000);
    assert_eq!(arrivals.len(), 1_000_000);
    let scenario = scenario(boot_s);
    bencher.bench(|| run(&arrivals, 86_400.0, &scenario, muster()));
}

/// 1.4 million arrivals in counts of five minutes, with a swing of the day and of the week, and a
/// burst of 10 to 100 times as many every 21 hours.
#[divan::bench(
    args = ["muster", "keda", "knative", "target-tracking"],
    sample_count = 1,
    sample_size = 1
)]
fn simulate_55_days(bencher: Bencher<'_, '_>, policy: &str) {
    let count = |step: u32| {
        let (day, time) = (step / 288, f64::from(step % 288) / 288.0);
        let weekend = if day % 7 < 5 { 1.15 } else { 0.6 };
        let swing = 1.0 - 0.6 * (std::f64::consts::TAU * time).cos();
        let burst = if step % 251 == 250 {
            f64::from(10 + step % 90)
        } else {
            1.0
        };
        (
            f64::from(step) * 300.0,
            (74.0 * weekend * swing * burst) as u64,
        )
    };
    let counts: Vec<(f64, u64)> = (0..55 * 288).map(count).collect();
    let arrivals = spread(&counts, 300.0, 1);
    let scenario = scenario(60.0);
    bencher.bench_local(|| {
        let autoscaler = match policy {
            "keda" => Autoscaler::Peer(Box::new(Keda::new(None))),
            "knative" => Autoscaler::Peer(Box::new(Knative::new(None))),
            "target-tracking" => Autoscaler::Peer(Box::new(TargetTracking::new(None))),
            _ => muster(),
        };
        run(&arrivals, 55.0 * 86_400.0, &scenario, autoscaler)
    });
}

fn scenario(boot_s: f64) -> Scenario {
    Scenario {
        boot_s,
        price_per_hour: 0.0116,
        count_noise: 2,
        seed: 1,
        ..Scenario::on_ec2(32)
    }
}

fn muster() -> Autoscaler {
    let policy = Policy {
        max_instances: 32,
        ..POLICY
    };
    Autoscaler::Muster {
        policy: Box::new(policy),
        learned: Box::default(),
    }
}
