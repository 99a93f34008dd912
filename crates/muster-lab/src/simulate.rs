//! `muster simulate`: a trace replayed under Muster's planner, other autoscalers and the best schedule
//! that is known.

mod arguments;
mod chart;
mod report;
mod trace;

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use muster_fleet::simulate::peers::{Fixed, Keda, Knative, TargetTracking};
use muster_fleet::simulate::{
    Autoscaler, Outcome, Scenario, best_known, lower_bound_hours, run as replay,
};
use muster_fleet::{Budget, KeepAlive, Learned, LocalTier, MOST_INSTANCES, Policy, Scaling, Tier};

use crate::random;
use arguments::{DAY_S, KeepAliveArg, PolicyArg, TierArg};
use muster_api::progress;
use muster_base::print_line;
use report::{Bound, Report, TierFigures, TraceFigures, figures, least_hours, print, round};
use trace::{Columns, Trace};

/// What Muster's planner expects before it has seen a boot or an answer, whatever the truth.
const EXPECTED_BOOT: Duration = Duration::from_secs(30);
/// Whose instances boot for longer would have said so (`ec2.expected_boot_s`, `ec2.boot_timeout_s`): the
/// first boot would be given up again and again.
const SLOW_BOOT_S: f64 = 120.0;
const EXPECTED_SERVICE: Duration = Duration::from_millis(500);
/// As the controller expects it of its machine's workers, and as long as it keeps them.
const EXPECTED_LOCAL_BOOT: Duration = Duration::from_millis(600);
const LOCAL_KEEP_ALIVE: Duration = Duration::from_secs(60);

/// How long any boot may take, as `ec2.boot_timeout_s` has it, or several slow ones.
const BOOT_TIMEOUT: Duration = Duration::from_secs(300);
const SLOW_BOOTS: u32 = 10;

/// How much longer than the trace its requests may take the whole fleet.
const BEYOND_TRACE_S: f64 = 30.0 * DAY_S;

/// Arguments of `muster simulate`.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// Trace of arrivals: a CSV file with one arrival a row, or counts per step
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,
    /// Policies, separated by commas or spaces: muster, requests-per-instance:N (Muster's with
    /// `scaling` set), best (the cheapest schedule that is known to one who knows the future, with a bound
    /// that nobody undercuts), fixed:N, and keda, knative, target-tracking at their defaults or with
    /// a setting (keda:QUEUE_LENGTH, knative:CONCURRENCY, target-tracking:BACKLOG)
    #[arg(
        long,
        value_name = "P",
        value_delimiter = ',',
        num_args = 1..,
        default_value = "muster,keda,knative,target-tracking,best"
    )]
    policy: Vec<PolicyArg>,
    /// A tier of instances, each with its number, boot and price: local:1:0.4:0 (workers of the
    /// controller's machine), stopped:1:21:0.0116 (instances that are stopped rather than terminated),
    /// ec2:15:26:0.0116 (in the place of --max, --boot-s and --price-per-hour). Only Muster's policies
    /// use the first two
    #[arg(long, value_name = "NAME:NUMBER:BOOT:PRICE")]
    tier: Vec<TierArg>,
    /// Median seconds from a launch until the instance takes work
    #[arg(long, default_value_t = 26.0, value_name = "S")]
    boot_s: f64,
    /// Milliseconds that one request occupies one slot, on average
    #[arg(long, default_value_t = 200.0, value_name = "MS")]
    service_ms: f64,
    /// Coefficient of variation of these times: 0 where all are the same, 1 where they are exponential
    #[arg(long, default_value_t = 0.0, value_name = "CV")]
    service_cv: f64,
    /// Requests that one instance works on at a time
    #[arg(long, default_value_t = 1, value_name = "N")]
    slots: u32,
    /// Instances never exceeded
    #[arg(long, default_value_t = 32, value_name = "N")]
    max: u32,
    /// The objective: 99 of 100 requests begin to be served within this many seconds
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    target_wait_s: f64,
    /// How long Muster keeps an instance without work: `learned`, `zero`, or seconds
    #[arg(long, default_value = "learned", value_name = "TIME")]
    keep_alive: KeepAliveArg,
    /// Price of an instance-hour
    #[arg(long, default_value_t = 0.0116, value_name = "P")]
    price_per_hour: f64,
    /// What a late request costs: Muster then has instances for what they save of it
    #[arg(long, value_name = "P")]
    dollars_per_late_request: Option<f64>,
    /// What Muster's instances may cost an hour at one time
    #[arg(long, value_name = "P")]
    max_dollars_per_hour: Option<f64>,
    /// What Muster's instances of a day may cost
    #[arg(long, value_name = "P")]
    max_dollars_per_day: Option<f64>,
    /// Seconds billed for an instance at least
    #[arg(long, default_value_t = 60.0, value_name = "S")]
    billing_minimum_s: f64,
    /// Seconds by which the queue's counts lag behind
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    count_lag_s: f64,
    /// The queue's counts are now and then wrong by up to this many
    #[arg(long, default_value_t = 2, value_name = "N")]
    count_noise: u32,
    /// Seed of everything random
    #[arg(long, default_value_t = 1, value_name = "S", value_parser = random::seed)]
    seed: u64,
    /// The trace's column of times
    #[arg(long, value_name = "NAME")]
    time_column: Option<String>,
    /// The trace's column of counts
    #[arg(long, value_name = "NAME")]
    count_column: Option<String>,
    /// Seconds that one count of the trace stands for
    #[arg(long, value_name = "S")]
    step_s: Option<f64>,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    /// Print what Muster did and why, as its controller would log it
    #[arg(long, conflicts_with = "json")]
    reasons: bool,
    /// Draw demand, fleet and wait into this SVG file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Replays the trace and prints the figures.
///
/// # Errors
/// When an argument is out of its bounds, or the trace can not be read.
pub fn run(mut args: SimulateArgs) -> anyhow::Result<()> {
    args.take_tiers()?;
    let scenario = args.scenario()?;
    let columns = Columns {
        time: args.time_column.clone(),
        count: args.count_column.clone(),
        step_s: args.step_s,
    };
    let trace = trace::read(&args.trace, &columns, args.seed)?;
    args.check_work(&trace)?;
    let bar = progress::bar(args.policy.len(), "replaying");
    let outcomes: Vec<Outcome> = args
        .policy
        .iter()
        .map(|policy| {
            let outcome = args.replay(policy, &trace, &scenario);
            bar.inc(1);
            outcome
        })
        .collect();
    bar.finish_and_clear();
    if let Some(path) = &args.svg {
        chart::draw(path, &trace, &outcomes)?;
    }
    if args.reasons {
        print_reasons(&outcomes)?;
    }
    let bound = args.bound(&outcomes, &trace, &scenario);
    let report = Report {
        trace: TraceFigures {
            file: args.trace,
            arrivals: trace.arrivals.len(),
            length_s: round(trace.length_s),
        },
        boot_s: args.boot_s,
        service_ms: args.service_ms,
        service_cv: args.service_cv,
        slots: args.slots,
        max: args.max,
        target_wait_s: args.target_wait_s,
        price_per_hour: args.price_per_hour,
        seed: args.seed,
        tiers: scenario.tiers.iter().map(TierFigures::from).collect(),
        bound,
        policies: figures(&outcomes, &scenario),
    };
    if args.json {
        let json = serde_json::to_string(&report).context("write the figures")?;
        print_line!("{json}")?;
    } else {
        print(&report)?;
    }
    Ok(())
}

impl SimulateArgs {
    /// Takes the numbers of `--tier ec2` in the place of the other arguments'.
    fn take_tiers(&mut self) -> anyhow::Result<()> {
        for (at, TierArg(tier)) in self.tier.iter().enumerate() {
            let twice = self.tier[..at]
                .iter()
                .any(|TierArg(other)| other.tier == tier.tier);
            anyhow::ensure!(!twice, "--tier names one tier twice: name each once");
        }
        let launched = |TierArg(tier): &TierArg| tier.tier == Tier::Ec2;
        if let Some(TierArg(ec2)) = self.tier.iter().find(|tier| launched(tier)) {
            self.max = ec2.number;
            self.boot_s = ec2.boot_s;
            self.price_per_hour = ec2.price_per_hour;
        }
        self.tier.retain(|tier| !launched(tier));
        Ok(())
    }

    fn scenario(&self) -> anyhow::Result<Scenario> {
        time("--service-ms", self.service_ms, "ms", DAY_S * 1e3, false)?;
        time("--target-wait-s", self.target_wait_s, "s", DAY_S, false)?;
        if let Some(step_s) = self.step_s {
            time("--step-s", step_s, "s", DAY_S, false)?;
        }
        time("--boot-s", self.boot_s, "s", DAY_S, true)?;
        time(
            "--billing-minimum-s",
            self.billing_minimum_s,
            "s",
            DAY_S,
            true,
        )?;
        time("--count-lag-s", self.count_lag_s, "s", DAY_S, true)?;
        anyhow::ensure!(
            (0.0..=1e6).contains(&self.price_per_hour),
            "--price-per-hour is {}: it must be between 0 and 1e6",
            self.price_per_hour
        );
        anyhow::ensure!(
            self.count_noise <= 1_000_000,
            "--count-noise is {}: it must be at most 1000000",
            self.count_noise
        );
        anyhow::ensure!(
            (0.0..=10.0).contains(&self.service_cv),
            "--service-cv is {}: it must be between 0 and 10",
            self.service_cv
        );
        anyhow::ensure!(
            (1..=1000).contains(&self.slots),
            "--slots is {}: it must be between 1 and 1000",
            self.slots
        );
        anyhow::ensure!(
            (1..=MOST_INSTANCES).contains(&self.max),
            "--max is {}: it must be between 1 and {MOST_INSTANCES}",
            self.max
        );
        if let Some(dollars) = self.dollars_per_late_request {
            anyhow::ensure!(
                dollars > 0.0 && dollars <= 1e6 && self.price_per_hour >= 1e-6,
                "--dollars-per-late-request is {dollars}: it must be more than 0 and at most 1e6, and \
                 --price-per-hour at least 1e-6"
            );
            anyhow::ensure!(
                matches!(self.keep_alive.0, KeepAlive::Learned { .. }),
                "--dollars-per-late-request needs --keep-alive learned: a fixed time is not weighed"
            );
        }
        self.check_budget()?;
        Ok(Scenario {
            boot_s: self.boot_s,
            service_s: self.service_ms / 1e3,
            service_cv: self.service_cv,
            slots: self.slots,
            max_instances: self.max,
            launch_limit: None,
            price_per_hour: self.price_per_hour,
            tiers: self.tier.iter().map(|TierArg(tier)| *tier).collect(),
            billing_minimum_s: self.billing_minimum_s,
            target_wait_s: self.target_wait_s,
            count_lag_s: self.count_lag_s,
            count_noise: self.count_noise,
            speeds: Vec::new(),
            closed_loop: false,
            seed: self.seed,
        })
    }

    fn replay(&self, policy: &PolicyArg, trace: &Trace, scenario: &Scenario) -> Outcome {
        let muster = |scaling| Autoscaler::Muster {
            policy: Box::new(self.planner_policy(scaling)),
            learned: Box::<Learned>::default(),
        };
        let autoscaler = match policy {
            PolicyArg::BestKnown => return best_known(&trace.arrivals, trace.length_s, scenario),
            PolicyArg::Muster => muster(Scaling::Objective),
            PolicyArg::RequestsPerInstance(requests) => {
                muster(Scaling::RequestsPerInstance(*requests))
            }
            PolicyArg::Keda(setting) => Autoscaler::Peer(Box::new(Keda::new(*setting))),
            PolicyArg::Knative(setting) => Autoscaler::Peer(Box::new(Knative::new(*setting))),
            PolicyArg::TargetTracking(setting) => {
                Autoscaler::Peer(Box::new(TargetTracking::new(*setting)))
            }
            PolicyArg::Fixed(instances) => Autoscaler::Peer(Box::new(Fixed(*instances))),
        };
        replay(&trace.arrivals, trace.length_s, scenario, autoscaler)
    }

    /// What nobody undercuts; nothing unless the best known was asked for.
    fn bound(&self, outcomes: &[Outcome], trace: &Trace, scenario: &Scenario) -> Option<Bound> {
        if !self.policy.contains(&PolicyArg::BestKnown) {
            return None;
        }
        // What other tiers took over is in nobody's hours.
        let launched_alone = (self.policy.iter().zip(outcomes))
            .filter(|(policy, _)| scenario.tiers.is_empty() || !policy.is_musters())
            .map(|(_, outcome)| outcome);
        let known_hours = least_hours(launched_alone, scenario);
        let hours = lower_bound_hours(&trace.arrivals, scenario, known_hours);
        Some(Bound {
            cost: round(hours * scenario.price_per_hour),
            instance_hours: round(hours),
        })
    }

    fn planner_policy(&self, scaling: Scaling) -> Policy {
        let keep_alive = match (scaling, self.keep_alive.0) {
            // This rule knows no other time than one that was asked for.
            (Scaling::RequestsPerInstance(_), KeepAlive::Learned { .. }) => {
                KeepAlive::Fixed(Duration::ZERO)
            }
            (_, keep_alive) => keep_alive,
        };
        let local = self
            .tier
            .iter()
            .find(|TierArg(tier)| tier.tier == Tier::Local);
        let local = local.map(|TierArg(tier)| LocalTier {
            workers: tier.number,
            idle_grace: LOCAL_KEEP_ALIVE,
            expected_boot: EXPECTED_LOCAL_BOOT,
        });
        let boots = self.tier.iter().map(|TierArg(tier)| tier);
        let boots = boots.filter(|tier| tier.tier != Tier::Local);
        let slowest_s = boots.map(|tier| tier.boot_s).fold(self.boot_s, f64::max);
        let expected_boot = if slowest_s > SLOW_BOOT_S {
            Duration::from_secs_f64(slowest_s)
        } else {
            EXPECTED_BOOT
        };
        let limited = self.max_dollars_per_hour.is_some() || self.max_dollars_per_day.is_some();
        Policy {
            tier: Tier::Ec2,
            local: local.filter(|_| scaling == Scaling::Objective),
            min_instances: 0,
            max_instances: self.max,
            scaling,
            slots: self.slots,
            target_wait: Duration::from_secs_f64(self.target_wait_s),
            keep_alive,
            late_request: self
                .dollars_per_late_request
                .map(|dollars| Duration::from_secs_f64(dollars / self.price_per_hour * 3600.0)),
            billing_minimum: Duration::from_secs_f64(self.billing_minimum_s),
            count_lag: Duration::from_secs(60),
            expected_boot,
            boot_timeout: BOOT_TIMEOUT.max(expected_boot * SLOW_BOOTS),
            expected_service: EXPECTED_SERVICE,
            budget: limited.then(|| Budget {
                price_per_hour: self.price_per_hour,
                max_dollars_per_hour: self.max_dollars_per_hour,
                max_dollars_per_day: self.max_dollars_per_day,
                // A simulated instance is billed until it has finished what it has: hardly any request
                // takes ten standard deviations longer than the mean.
                drain_time: Duration::from_secs_f64(
                    self.service_ms / 1e3 * (1.0 + 10.0 * self.service_cv),
                ),
                unattended: Duration::ZERO,
            }),
        }
    }

    /// Refuses a fleet that would be at work for long after the trace is over.
    fn check_work(&self, trace: &Trace) -> anyhow::Result<()> {
        let slots = f64::from(self.max) * f64::from(self.slots);
        let work_s = trace.arrivals.len() as f64 * self.service_ms / 1e3 / slots;
        anyhow::ensure!(
            work_s <= trace.length_s + BEYOND_TRACE_S,
            "{} requests of {} ms are {:.0} days of work for {} instances, and the trace has {:.1}: raise --max or \
             --slots, or lower --service-ms",
            trace.arrivals.len(),
            self.service_ms,
            work_s / DAY_S,
            self.max,
            trace.length_s / DAY_S
        );
        if let Some(limit) = self.max_dollars_per_day {
            let hours = trace.arrivals.len() as f64 * self.service_ms / 3.6e6;
            let dollars = hours / f64::from(self.slots) * self.price_per_hour;
            let days = dollars / limit;
            anyhow::ensure!(
                days * DAY_S <= trace.length_s + BEYOND_TRACE_S,
                "the trace is work for {dollars:.2} dollars, that is {days:.0} days at --max-dollars-per-day {limit}, \
                 and it has {:.1}: raise the limit",
                trace.length_s / DAY_S
            );
        }
        Ok(())
    }

    /// Refuses limits within which nothing would ever be launched: the replay would have no end.
    fn check_budget(&self) -> anyhow::Result<()> {
        let day_h = self
            .planner_policy(Scaling::Objective)
            .least_hours_per_day();
        // The boots that are learned are longer, and one of 100 is much longer.
        let day_h = day_h.max(self.boot_s * 10.0 / 3600.0);
        for (name, limit, least_h) in [
            ("--max-dollars-per-hour", self.max_dollars_per_hour, 1.0),
            ("--max-dollars-per-day", self.max_dollars_per_day, day_h),
        ] {
            let least = self.price_per_hour * least_h;
            if let Some(limit) = limit {
                anyhow::ensure!(
                    limit >= least && limit > 0.0,
                    "{name} is {limit}: it must be at least {least:.4}, or nothing would be launched"
                );
            }
        }
        Ok(())
    }
}

/// Prints every plan that did something; a reader that has seen enough ends it.
fn print_reasons(outcomes: &[Outcome]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for (at, reason) in outcomes.iter().flat_map(|outcome| &outcome.reasons) {
        match writeln!(out, "{at:>10.2} s  {reason}") {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
            written => written.context("print the reasons")?,
        }
    }
    Ok(())
}

/// Refuses a time that is longer than a day, in its unit, or none where it has to be some.
fn time(name: &str, value: f64, unit: &str, day: f64, may_be_none: bool) -> anyhow::Result<()> {
    anyhow::ensure!(
        value > 0.0 && value <= day || may_be_none && value == 0.0,
        "{name} is {value}: it must be {} and at most {day} {unit}, a day",
        if may_be_none { "0 or more" } else { "above 0" }
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        simulate: SimulateArgs,
    }

    fn args(more: &str) -> SimulateArgs {
        let words = ["simulate", "--trace", "trace.csv"];
        let words = words.into_iter().chain(more.split_whitespace());
        Cli::try_parse_from(words).expect(more).simulate
    }

    /// A request each ten seconds.
    fn trace() -> Trace {
        Trace {
            arrivals: (0..30).map(|n| 10.0 * f64::from(n)).collect(),
            length_s: 300.0,
        }
    }

    #[test]
    fn no_time_is_longer_than_a_day() {
        for (argument, most) in [
            ("--service-ms", 86_400_000),
            ("--target-wait-s", 86_400),
            ("--step-s", 86_400),
            ("--boot-s", 86_400),
            ("--billing-minimum-s", 86_400),
            ("--count-lag-s", 86_400),
        ] {
            let scenario = |value| args(&format!("{argument} {value}")).scenario();
            assert!(scenario(most).is_ok(), "{argument}");
            let said = scenario(most + 1).expect_err(argument).to_string();
            assert!(said.contains(argument) && said.contains("a day"), "{said}");
        }
        let long = args("--service-ms 86400000 --max 1").check_work(&trace());
        assert!(long.is_ok(), "a day each is a month's work, and no more");
        let long = args("--service-ms 86400000 --max 1").check_work(&Trace {
            arrivals: vec![0.0; 31],
            ..trace()
        });
        let said = long.expect_err("31 days").to_string();
        assert!(said.contains("31 days of work for 1 instances"), "{said}");
        // 30 hours of work at $1 an hour.
        let limited = |limit: f64| {
            args(&format!(
                "--service-ms 3600000 --price-per-hour 1 --max-dollars-per-day {limit}"
            ))
            .check_work(&trace())
        };
        assert!(limited(1.0).is_ok());
        let said = limited(0.5).expect_err("60 days").to_string();
        assert!(
            said.contains("60 days at --max-dollars-per-day 0.5"),
            "{said}"
        );
    }

    #[test]
    fn best_and_bound_are_of_launched_instances_alone() {
        let figures_of = |more: &str| {
            let args = args(&format!("--policy muster,best,fixed:1 {more}"));
            let scenario = args.scenario().expect(more);
            let policies = args.policy.iter();
            let outcomes: Vec<Outcome> = policies
                .map(|policy| args.replay(policy, &trace(), &scenario))
                .collect();
            let bound = args.bound(&outcomes, &trace(), &scenario).expect("best");
            (bound, figures(&outcomes, &scenario))
        };
        let (alone, _) = figures_of("");
        assert!(alone.cost > 0.0);
        // The local worker does it all, without an instance.
        for (tier, over_best) in [("local:1:0.4:0", 0.0..1e-9), ("local:1:0.4:5", 10.0..1e4)] {
            let (bound, rows) = figures_of(&format!("--tier {tier}"));
            assert_eq!(bound.cost, alone.cost, "{tier}");
            assert_eq!(rows[0].instance_hours.to_bits(), 0.0f64.to_bits(), "{tier}");
            let ratio = rows[0].cost_over_best.expect("best");
            assert!(over_best.contains(&ratio), "{tier}: {ratio}");
        }
        let (_, rows) = figures_of("--tier local:1:0.4:5");
        assert!(
            rows[2].dominated_by.is_empty(),
            "it costs less than Muster's worker"
        );
    }

    #[test]
    fn a_fleet_that_boots_slowly_answers_all_the_same() {
        for more in [
            "--boot-s 400",
            "--boot-s 3000",
            "--tier stopped:1:500:0.01",
            "--tier local:1:3000:0",
        ] {
            for policy in ["muster", "requests-per-instance:2"] {
                let args = args(&format!("{more} --policy {policy}"));
                let scenario = args.scenario().expect(more);
                let outcome = args.replay(&args.policy[0], &trace(), &scenario);
                assert_eq!(outcome.waits.len(), 30, "{more} {policy}");
                assert!(
                    outcome.launches < 60,
                    "{more}: {} launches",
                    outcome.launches
                );
            }
        }
    }
}
