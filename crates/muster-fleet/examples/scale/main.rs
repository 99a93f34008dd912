//! Simulates 10,000 requests a second for an hour, request by request, with what that asks of AWS:
//! `cargo run --release -p muster-fleet --example scale`. docs/SCALE.md has what it prints.
//!
//! Three loads: an hour of 10,000 requests a second, on at most 1,000 instances; a load that rises, to see
//! which of AWS's limits is met at which rate; and half as much again as the first, which takes more instances than
//! EC2 launches at one time.

mod bill;
mod calls;
mod limits;
mod seconds;

use std::time::{Duration, Instant};

use bill::{INSTANCE_HOUR, bill};
use calls::calls;
use limits::{replicas, uses};
use muster_fleet::simulate::{
    Autoscaler, LaunchLimit, Outcome, Run, Scenario, Schedule, TokenBucket, run,
};
use muster_fleet::{
    Instance as Member, InstanceId, InstanceState, Learned, Observation, Policy, RequestTotals,
    Tier, TierCounts, plan,
};
use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use seconds::{Second, seconds};

/// What a request takes of its instance, so that nine of ten are busy with the first load.
const SERVICE_S: f64 = 0.09;
const BUSY: f64 = 0.9;
/// What an instance takes to boot, as measured by others on m7i.large.
const BOOT_S: f64 = 26.0;
const TARGET_WAIT_S: f64 = 1.0;
/// EC2's tokens of RunInstances ("Request throttling for the Amazon EC2 API").
const EC2_LAUNCHES: LaunchLimit = LaunchLimit {
    calls: TokenBucket {
        size: 5.0,
        per_s: 2.0,
    },
    instances: TokenBucket {
        size: 1000.0,
        per_s: 2.0,
    },
};
/// Plans that are timed.
const PLANS: usize = 1000;

/// Requests a second that change evenly, and the most instances that serve them.
struct Load {
    from_per_s: f64,
    to_per_s: f64,
    length_s: f64,
    instances: u32,
}

const HOUR: Load = Load {
    from_per_s: 10_000.0,
    to_per_s: 10_000.0,
    length_s: 3600.0,
    instances: 1000,
};
/// Its instances are launched one by one, ahead of it: 1.9 a second, which EC2 allows.
const RISING: Load = Load {
    from_per_s: 100.0,
    to_per_s: 30_000.0,
    length_s: 1600.0,
    instances: 4000,
};
const AT_ONCE: Load = Load {
    from_per_s: 15_000.0,
    to_per_s: 15_000.0,
    length_s: 700.0,
    instances: 1500,
};

fn main() {
    let begun = Instant::now();
    hour();
    rising();
    at_once();
    println!("simulated in {:.0} s", begun.elapsed().as_secs_f64());
    let instances = HOUR.instances;
    println!(
        "a plan with {instances} instances: {:.1} us (median of {PLANS})",
        plan_time().as_secs_f64() * 1e6
    );
}

impl Load {
    fn rate(&self, at_s: f64) -> f64 {
        self.from_per_s + (self.to_per_s - self.from_per_s) * at_s / self.length_s
    }

    /// Arrivals by chance (a Poisson process): between two of them the expected number grows by an
    /// exponential, and `from t + rise t^2 / 2` are expected until `t`.
    fn arrivals(&self) -> Vec<f64> {
        let mut random = SplitMix64::seed_from_u64(1);
        let rise = (self.to_per_s - self.from_per_s) / self.length_s;
        let expected = (self.from_per_s + self.to_per_s) / 2.0 * self.length_s;
        let mut arrivals = Vec::with_capacity((expected * 1.01) as usize);
        let mut sum = 0.0;
        loop {
            // 53 random bits, as many as a float has, between 0 and 1.
            let share = ((random.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
            sum -= share.ln();
            let root = (self.from_per_s.powi(2) + 2.0 * rise * sum).sqrt();
            let at = 2.0 * sum / (self.from_per_s + root);
            if at >= self.length_s {
                return arrivals;
            }
            arrivals.push(at);
        }
    }

    /// The load on the fleet that the controller sizes, from no instance on.
    fn run(&self, launch_limit: Option<LaunchLimit>) -> (Outcome, Vec<Second>) {
        let muster = Autoscaler::Muster {
            policy: Box::new(policy(self.instances)),
            learned: Box::default(),
        };
        self.run_with(muster, launch_limit)
    }

    /// The load on a fleet of which always nine of ten are busy.
    fn run_as_needed(&self) -> (Outcome, Vec<Second>) {
        let rise = (self.to_per_s - self.from_per_s) / self.length_s;
        let needed = |n: u32| f64::from(n) * BUSY / SERVICE_S;
        let runs: Vec<Run> = (0..self.instances)
            .map(|before| (needed(before) - self.from_per_s) / rise)
            .take_while(|ready_s| *ready_s < self.length_s)
            .map(|ready_s| Run {
                ready_s: ready_s.max(0.0),
                end_s: self.length_s,
            })
            .collect();
        let schedule = Schedule::new(&runs, BOOT_S);
        self.run_with(Autoscaler::Scheduled(schedule), None)
    }

    fn run_with(
        &self,
        autoscaler: Autoscaler,
        launch_limit: Option<LaunchLimit>,
    ) -> (Outcome, Vec<Second>) {
        let arrivals = self.arrivals();
        let scenario = Scenario {
            boot_s: BOOT_S,
            service_s: SERVICE_S,
            launch_limit,
            price_per_hour: INSTANCE_HOUR,
            target_wait_s: TARGET_WAIT_S,
            count_noise: 2,
            seed: 1,
            ..Scenario::on_ec2(self.instances)
        };
        let outcome = run(&arrivals, self.length_s, &scenario, autoscaler);
        let seconds = seconds(&arrivals, self.length_s, SERVICE_S, &outcome);
        (outcome, seconds)
    }
}

fn policy(max_instances: u32) -> Policy {
    Policy {
        target_wait: Duration::from_secs_f64(TARGET_WAIT_S),
        ..Policy::on_ec2(max_instances)
    }
}

/// Prints the figures of the hour, what it uses of AWS's limits and what it costs.
fn hour() {
    let (mut outcome, seconds) = HOUR.run(Some(EC2_LAUNCHES));
    let requests = outcome.waits.len();
    println!(
        "| an hour of {} requests a second | |\n|---|---|",
        HOUR.from_per_s
    );
    println!("| requests | {requests} |");
    println!(
        "| instance-hours; launches; most instances at one time | {:.1}; {}; {} |",
        outcome.instance_hours, outcome.launches, outcome.peak
    );
    println!(
        "| requests later than {TARGET_WAIT_S} s | {:.1} % |",
        outcome.share_over(TARGET_WAIT_S) * 100.0
    );
    // In the order of service, which is that of arrival.
    outcome.waits.drain(..requests / 10);
    let quantile = |of_100: f64| outcome.wait_quantile(of_100 / 100.0);
    println!(
        "| wait after the first tenth of the requests, p50 / p99 / longest | {:.2} / {:.2} / {:.2} s |",
        quantile(50.0),
        quantile(99.0),
        quantile(100.0)
    );
    let replicas = f64::from(replicas(&seconds));
    println!("| web replicas needed | {replicas} |\n");
    let calls = calls(&seconds, replicas);
    let mut used = uses(&seconds, &calls, replicas);
    used.sort_by(|a, b| b.peak.total_cmp(&a.peak));
    println!("| limit | used, at most | in second | exceeded from second |\n|---|---|---|---|");
    for used in used {
        println!(
            "| {} | {} | {} | {} |",
            used.name,
            percent(used.peak),
            used.peak_second,
            used.exceeded
                .map_or("-".to_owned(), |second| second.to_string())
        );
    }
    let hours = HOUR.length_s / 3600.0;
    let mut items = bill(&calls, outcome.instance_hours, replicas, hours);
    items.sort_by(|a, b| b.1.total_cmp(&a.1));
    let millions = requests as f64 / 1e6;
    println!("\n| a million of these requests | $ |\n|---|---|");
    for (item, dollars) in &items {
        println!("| {item} | {:.2} |", dollars / millions);
    }
    let sum: f64 = items.iter().map(|item| item.1).sum();
    println!("| together | {:.2} |\n", sum / millions);
}

/// Prints at which rate a load that rises meets each limit, with one web replica.
fn rising() {
    let (outcome, seconds) = RISING.run_as_needed();
    let calls = calls(&seconds, 1.0);
    let mut used = uses(&seconds, &calls, 1.0);
    // What is not met comes last, the most used first.
    used.sort_by(|a, b| {
        let key = |exceeded: Option<usize>| exceeded.unwrap_or(usize::MAX);
        key(a.exceeded)
            .cmp(&key(b.exceeded))
            .then(b.peak.total_cmp(&a.peak))
    });
    println!(
        "from {} to {} requests a second in {} s, on 1 to {} instances: {:.1} % later than {TARGET_WAIT_S} s\n",
        RISING.from_per_s,
        RISING.to_per_s,
        RISING.length_s,
        outcome.peak,
        outcome.share_over(TARGET_WAIT_S) * 100.0,
    );
    println!("| limit | is met at, requests a second | used, at most |\n|---|---|---|");
    for used in used {
        let met = used.exceeded.map(|second| RISING.rate(second as f64 + 0.5));
        println!(
            "| {} | {} | {} |",
            used.name,
            met.map_or("-".to_owned(), |rate| format!("{:.0}", rate)),
            percent(used.peak)
        );
    }
    println!();
}

/// Prints how EC2's limit of launches delays a fleet that is bigger than what it launches at one time.
fn at_once() {
    println!(
        "| {} requests a second at once, for {} s | without a limit of launches | with EC2's |\n|---|---|---|",
        AT_ONCE.from_per_s, AT_ONCE.length_s
    );
    let of = |limit| {
        let (outcome, seconds) = AT_ONCE.run(limit);
        let working = AT_ONCE.from_per_s * SERVICE_S;
        let stands = seconds
            .iter()
            .position(|second| f64::from(second.ready) >= working);
        let answers = seconds.iter().rposition(|second| {
            f64::from(second.unanswered) > AT_ONCE.from_per_s * (TARGET_WAIT_S + SERVICE_S)
        });
        let second = |at: Option<usize>| at.map_or("-".to_owned(), |at| format!("{at} s"));
        let late = outcome.share_over(TARGET_WAIT_S) * 100.0;
        [second(stands), second(answers), format!("{late:.1} %")]
    };
    let (without, with) = (of(None), of(Some(EC2_LAUNCHES)));
    let rows = [
        "as many instances as are busy",
        "backlog cleared",
        "requests later than the objective",
    ];
    for ((row, without), with) in rows.iter().zip(without).zip(with) {
        println!("| {row} | {without} | {with} |");
    }
    println!();
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent < 10.0 {
        format!("{percent:.1} %")
    } else {
        format!("{percent:.0} %")
    }
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
        instances: (0..HOUR.instances).map(member).collect(),
        available: TierCounts::UNLIMITED,
        throttled: false,
    };
    let policy = policy(HOUR.instances);
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
