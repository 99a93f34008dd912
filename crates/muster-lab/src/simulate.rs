//! `muster simulate`: a trace replayed under Muster's planner, its peers and a clairvoyant.

mod chart;
mod trace;

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use muster_fleet::simulate::engine::{Autoscaler, Outcome, run as replay};
use muster_fleet::simulate::peers::{Fixed, Keda, Knative, TargetTracking};
use muster_fleet::simulate::{Scenario, oracle};
use muster_fleet::{KeepAlive, Learned, Policy as Plan};
use serde::Serialize;

use muster_api::progress;
use trace::{Columns, Trace};

/// The share of requests whose wait the objective bounds.
const QUANTILE: f64 = 0.99;
/// What Muster's planner expects before it has seen a boot or an answer, whatever the truth.
const EXPECTED_BOOT: Duration = Duration::from_secs(30);
const EXPECTED_SERVICE: Duration = Duration::from_millis(500);
/// Longest that Muster's planner keeps an instance without work.
const KEEP_ALIVE_AT_MOST: Duration = Duration::from_secs(3600);

/// Arguments of `muster simulate`.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// Trace of arrivals: a CSV file with one arrival a row, or counts per step
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,
    /// Policies, separated by commas or spaces: muster, oracle, fixed:N, and keda, knative,
    /// target-tracking at their defaults or with a setting (keda:QUEUE_LENGTH,
    /// knative:CONCURRENCY, target-tracking:BACKLOG)
    #[arg(
        long,
        value_name = "P",
        value_delimiter = ',',
        num_args = 1..,
        default_value = "muster,keda,knative,target-tracking,oracle"
    )]
    policy: Vec<Policy>,
    /// Median seconds from a launch until the instance takes work
    #[arg(long, default_value_t = 26.0, value_name = "S")]
    boot_s: f64,
    /// Milliseconds that one request occupies one slot
    #[arg(long, default_value_t = 200.0, value_name = "MS")]
    service_ms: f64,
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
    #[arg(long, default_value_t = 1, value_name = "S")]
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

/// A policy as it is named on the command line.
#[derive(Clone, Debug, PartialEq)]
enum Policy {
    Muster,
    Keda(Option<f64>),
    Knative(Option<f64>),
    TargetTracking(Option<f64>),
    Fixed(u32),
    Oracle,
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, setting) = match text.split_once(':') {
            Some((name, setting)) => (name, Some(setting)),
            None => (text, None),
        };
        let number = || -> Result<Option<f64>, String> {
            let Some(text) = setting else { return Ok(None) };
            let number = text.parse::<f64>().ok();
            let positive = number.filter(|n| n.is_finite() && *n > 0.0);
            let positive = positive.ok_or(format!("`{text}` is not a positive number"))?;
            Ok(Some(positive))
        };
        match (name, setting) {
            ("muster", None) => Ok(Self::Muster),
            ("oracle", None) => Ok(Self::Oracle),
            ("keda", _) => Ok(Self::Keda(number()?)),
            ("knative", _) => Ok(Self::Knative(number()?)),
            ("target-tracking", _) => Ok(Self::TargetTracking(number()?)),
            ("fixed", Some(setting)) => match setting.parse() {
                Ok(instances) if instances > 0 => Ok(Self::Fixed(instances)),
                _ => Err(format!("`{setting}` is not a number of instances above 0")),
            },
            ("fixed", None) => Err("say how many instances: fixed:N".to_owned()),
            _ => Err(
                "expected muster, keda[:queueLength], knative[:concurrency], \
                 target-tracking[:backlog], fixed:N or oracle"
                    .to_owned(),
            ),
        }
    }
}

/// How long Muster keeps an instance without work.
#[derive(Clone, Copy, Debug, PartialEq)]
struct KeepAliveArg(KeepAlive);

impl FromStr for KeepAliveArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time = match text {
            "learned" => {
                return Ok(Self(KeepAlive::Learned {
                    at_most: KEEP_ALIVE_AT_MOST,
                }));
            }
            "zero" => Some(Duration::ZERO),
            seconds => seconds
                .parse()
                .ok()
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        };
        let time = time.ok_or("expected learned, zero, or seconds".to_owned())?;
        Ok(Self(KeepAlive::Fixed(time)))
    }
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    trace: TraceFigures,
    boot_s: f64,
    service_ms: f64,
    slots: u32,
    max: u32,
    target_wait_s: f64,
    price_per_hour: f64,
    seed: u64,
    policies: Vec<Figures>,
}

#[derive(Debug, Serialize)]
struct TraceFigures {
    file: PathBuf,
    arrivals: usize,
    length_s: f64,
}

/// The figures of one policy.
#[derive(Debug, Serialize)]
struct Figures {
    policy: String,
    cost: f64,
    instance_hours: f64,
    wait_s: Waits,
    cold_starts: u64,
    launches: u64,
    peak_instances: u32,
    share_over_objective: f64,
    /// Only where the oracle was asked for.
    cost_over_oracle: Option<f64>,
    /// Those that cost no more and waited no longer at the 99th percentile, one of them less; the
    /// oracle, which knows the future, does not count.
    dominated_by: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Waits {
    p50: f64,
    p99: f64,
    max: f64,
}

/// Replays the trace and prints the figures.
///
/// # Errors
/// When an argument is out of its bounds, or the trace can not be read.
pub fn run(args: SimulateArgs) -> anyhow::Result<()> {
    let scenario = args.scenario()?;
    let columns = Columns {
        time: args.time_column.clone(),
        count: args.count_column.clone(),
        step_s: args.step_s,
    };
    if let Some(step_s) = args.step_s {
        positive("--step-s", step_s)?;
    }
    let trace = trace::read(&args.trace, &columns, args.seed)?;
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
    let report = Report {
        trace: TraceFigures {
            file: args.trace,
            arrivals: trace.arrivals.len(),
            length_s: round(trace.length_s),
        },
        boot_s: args.boot_s,
        service_ms: args.service_ms,
        slots: args.slots,
        max: args.max,
        target_wait_s: args.target_wait_s,
        price_per_hour: args.price_per_hour,
        seed: args.seed,
        policies: figures(&outcomes, &scenario),
    };
    if args.json {
        let json = serde_json::to_string(&report).context("write the figures")?;
        println!("{json}");
    } else {
        print(&report);
    }
    Ok(())
}

impl SimulateArgs {
    fn scenario(&self) -> anyhow::Result<Scenario> {
        for (name, value) in [
            ("--service-ms", self.service_ms),
            ("--target-wait-s", self.target_wait_s),
        ] {
            positive(name, value)?;
        }
        for (name, value) in [
            ("--boot-s", self.boot_s),
            ("--price-per-hour", self.price_per_hour),
            ("--billing-minimum-s", self.billing_minimum_s),
            ("--count-lag-s", self.count_lag_s),
        ] {
            anyhow::ensure!(
                (0.0..=1e6).contains(&value),
                "{name} is {value}: it must be between 0 and 1e6"
            );
        }
        anyhow::ensure!(
            (1..=1000).contains(&self.slots),
            "--slots is {}: it must be between 1 and 1000",
            self.slots
        );
        anyhow::ensure!(
            (1..=10_000).contains(&self.max),
            "--max is {}: it must be between 1 and 10000",
            self.max
        );
        Ok(Scenario {
            boot_s: self.boot_s,
            service_s: self.service_ms / 1e3,
            slots: self.slots,
            max_instances: self.max,
            price_per_hour: self.price_per_hour,
            billing_minimum_s: self.billing_minimum_s,
            target_wait_s: self.target_wait_s,
            count_lag_s: self.count_lag_s,
            count_noise: self.count_noise,
            seed: self.seed,
        })
    }

    fn replay(&self, policy: &Policy, trace: &Trace, scenario: &Scenario) -> Outcome {
        let autoscaler = match policy {
            Policy::Oracle => return oracle::optimum(&trace.arrivals, trace.length_s, scenario),
            Policy::Muster => Autoscaler::Muster {
                policy: self.plan(),
                learned: Box::<Learned>::default(),
            },
            Policy::Keda(setting) => Autoscaler::Sized(Box::new(Keda::new(*setting))),
            Policy::Knative(setting) => Autoscaler::Sized(Box::new(Knative::new(*setting))),
            Policy::TargetTracking(setting) => {
                Autoscaler::Sized(Box::new(TargetTracking::new(*setting)))
            }
            Policy::Fixed(instances) => Autoscaler::Sized(Box::new(Fixed(*instances))),
        };
        replay(&trace.arrivals, trace.length_s, scenario, autoscaler)
    }

    fn plan(&self) -> Plan {
        Plan {
            min_instances: 0,
            max_instances: self.max,
            slots: self.slots,
            target_wait: Duration::from_secs_f64(self.target_wait_s),
            keep_alive: self.keep_alive.0,
            billing_minimum: Duration::from_secs_f64(self.billing_minimum_s),
            count_lag: Duration::from_secs(60),
            expected_boot: EXPECTED_BOOT,
            expected_service: EXPECTED_SERVICE,
        }
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

fn positive(name: &str, value: f64) -> anyhow::Result<()> {
    anyhow::ensure!(
        value > 0.0 && value <= 1e6,
        "{name} is {value}: it must be above 0, and 1e6 at most"
    );
    Ok(())
}

fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

fn figures(outcomes: &[Outcome], scenario: &Scenario) -> Vec<Figures> {
    let oracle_cost = outcomes
        .iter()
        .find(|outcome| outcome.name == oracle::NAME)
        .map(|outcome| outcome.instance_hours);
    let points: Vec<(f64, f64)> = outcomes
        .iter()
        .map(|outcome| (outcome.instance_hours, outcome.wait_quantile(QUANTILE)))
        .collect();
    let dominated_by = |(cost, wait): (f64, f64)| {
        let others = outcomes.iter().zip(&points);
        others
            .filter(|(other, _)| other.name != oracle::NAME)
            .filter(|(_, (c, w))| *c <= cost && *w <= wait && (*c < cost || *w < wait))
            .map(|(other, _)| other.name.clone())
            .collect()
    };
    outcomes
        .iter()
        .zip(&points)
        .map(|(outcome, &(hours, p99))| Figures {
            policy: outcome.name.clone(),
            cost: round(outcome.cost),
            instance_hours: round(hours),
            wait_s: Waits {
                p50: round(outcome.wait_quantile(0.5)),
                p99: round(p99),
                max: round(outcome.wait_quantile(1.0)),
            },
            cold_starts: outcome.cold_starts,
            launches: outcome.launches,
            peak_instances: outcome.peak,
            share_over_objective: round(outcome.share_over(scenario.target_wait_s)),
            cost_over_oracle: oracle_cost.map(|oracle| round(hours / oracle)),
            dominated_by: dominated_by((hours, p99)),
        })
        .collect()
}

fn print(report: &Report) {
    println!(
        "{} arrivals in {:.1} h; boot {} s, service {} ms, {} slots, at most {} instances, \
         objective {} s\n",
        report.trace.arrivals,
        report.trace.length_s / 3600.0,
        report.boot_s,
        report.service_ms,
        report.slots,
        report.max,
        report.target_wait_s,
    );
    println!(
        "{:<22} {:>9} {:>9} {:>8} {:>8} {:>8} {:>7} {:>6} {:>9} {:>9}",
        "policy",
        "cost",
        "hours",
        "p50 s",
        "p99 s",
        "max s",
        "over",
        "cold",
        "launches",
        "x oracle"
    );
    for row in &report.policies {
        let over_oracle = row
            .cost_over_oracle
            .map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        println!(
            "{:<22} {:>9.4} {:>9.2} {:>8.2} {:>8.2} {:>8.2} {:>6.2}% {:>6} {:>9} {:>9}",
            row.policy,
            row.cost,
            row.instance_hours,
            row.wait_s.p50,
            row.wait_s.p99,
            row.wait_s.max,
            100.0 * row.share_over_objective,
            row.cold_starts,
            row.launches,
            over_oracle,
        );
    }
    for row in &report.policies {
        if !row.dominated_by.is_empty() {
            let by = row.dominated_by.join(", ");
            println!("{} costs and waits no less than {by}", row.policy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_named_with_their_setting() {
        for (text, policy) in [
            ("muster", Policy::Muster),
            ("keda", Policy::Keda(None)),
            ("keda:1", Policy::Keda(Some(1.0))),
            ("knative:0.5", Policy::Knative(Some(0.5))),
            ("target-tracking", Policy::TargetTracking(None)),
            ("fixed:3", Policy::Fixed(3)),
            ("oracle", Policy::Oracle),
        ] {
            assert_eq!(text.parse(), Ok(policy), "{text}");
        }
        for text in [
            "",
            "fixed",
            "fixed:0",
            "keda:-1",
            "keda:x",
            "muster:2",
            "kubernetes",
        ] {
            assert!(text.parse::<Policy>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_keep_alive_is_learned_or_a_time() {
        let fixed = |seconds| Ok(KeepAliveArg(KeepAlive::Fixed(Duration::from_secs(seconds))));
        assert_eq!("zero".parse(), fixed(0));
        assert_eq!("90".parse(), fixed(90));
        assert!("learned".parse::<KeepAliveArg>().is_ok());
        for text in ["-1", "NaN", "never"] {
            assert!(text.parse::<KeepAliveArg>().is_err(), "{text}");
        }
    }
}
