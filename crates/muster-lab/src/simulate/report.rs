//! The figures of a simulation.

use std::path::PathBuf;

use muster_base::output::OutputError;
use muster_base::print_line;
use muster_fleet::Tier;
use muster_fleet::simulate::{BEST_KNOWN, Outcome, Scenario, TierScenario};
use serde::Serialize;

/// The share of requests whose wait the objective bounds.
const QUANTILE: f64 = 0.99;
/// The share of them that may be late.
const LATE_SHARE: f64 = 0.01;

/// The figures of a simulation, as they are printed.
#[derive(Debug, Serialize)]
pub struct Report {
    pub trace: TraceFigures,
    pub boot_s: f64,
    pub service_ms: f64,
    pub service_cv: f64,
    pub slots: u32,
    pub max: u32,
    pub target_wait_s: f64,
    pub price_per_hour: f64,
    pub seed: u64,
    /// Only where the best known was asked for.
    pub bound: Option<Bound>,
    /// Besides the instances that are launched.
    pub tiers: Vec<TierFigures>,
    pub policies: Vec<Figures>,
}

/// A tier besides the instances that are launched.
#[derive(Debug, Serialize)]
pub struct TierFigures {
    pub tier: Tier,
    pub number: u32,
    pub boot_s: f64,
    pub price_per_hour: f64,
}

impl From<&TierScenario> for TierFigures {
    fn from(tier: &TierScenario) -> Self {
        Self {
            tier: tier.tier,
            number: tier.number,
            boot_s: tier.boot_s,
            price_per_hour: tier.price_per_hour,
        }
    }
}

/// What was replayed.
#[derive(Debug, Serialize)]
pub struct TraceFigures {
    pub file: PathBuf,
    pub arrivals: usize,
    pub length_s: f64,
}

/// What no policy that meets the objective undercuts, of those that have nothing but instances that are
/// launched.
#[derive(Debug, Serialize)]
pub struct Bound {
    pub cost: f64,
    pub instance_hours: f64,
}

/// The figures of one policy.
#[derive(Debug, Serialize)]
pub struct Figures {
    pub policy: String,
    pub cost: f64,
    pub instance_hours: f64,
    pub wait_s: Waits,
    pub cold_starts: u64,
    pub launches: u64,
    pub peak_instances: u32,
    pub share_over_objective: f64,
    /// Only where the best known was asked for.
    pub cost_over_best: Option<f64>,
    /// Those that cost no more and waited no longer at the 99th percentile, one of them less; the
    /// best known, which knows the future, does not count.
    pub dominated_by: Vec<String>,
}

/// Quantiles of the waits, in seconds.
#[derive(Debug, Serialize)]
pub struct Waits {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

/// Rounds to four decimals; what rounds to nothing has no sign.
pub fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4 + 0.0
}

/// The fewest instance-hours of those that meet the objective; infinite where none does.
pub fn least_hours<'a>(
    outcomes: impl IntoIterator<Item = &'a Outcome>,
    scenario: &Scenario,
) -> f64 {
    let meets = |outcome: &&Outcome| outcome.share_over(scenario.target_wait_s) <= LATE_SHARE;
    let hours = outcomes
        .into_iter()
        .filter(meets)
        .map(|outcome| outcome.instance_hours);
    hours.fold(f64::INFINITY, f64::min)
}

/// What a policy cost; where instances are for nothing, their hours.
fn spent(outcome: &Outcome, scenario: &Scenario) -> f64 {
    if scenario.price_per_hour > 0.0 {
        outcome.cost
    } else {
        outcome.instance_hours
    }
}

/// The figures of every policy.
pub fn figures(outcomes: &[Outcome], scenario: &Scenario) -> Vec<Figures> {
    let best_cost = outcomes
        .iter()
        .find(|outcome| outcome.name == BEST_KNOWN)
        .map(|outcome| spent(outcome, scenario));
    let points: Vec<(f64, f64)> = outcomes
        .iter()
        .map(|outcome| (spent(outcome, scenario), outcome.wait_quantile(QUANTILE)))
        .collect();
    let dominated_by = |(cost, wait): (f64, f64)| {
        let others = outcomes.iter().zip(&points);
        others
            .filter(|(other, _)| other.name != BEST_KNOWN)
            .filter(|(_, (c, w))| *c <= cost && *w <= wait && (*c < cost || *w < wait))
            .map(|(other, _)| other.name.clone())
            .collect()
    };
    outcomes
        .iter()
        .zip(&points)
        .map(|(outcome, &(spent, p99))| Figures {
            policy: outcome.name.clone(),
            cost: round(outcome.cost),
            instance_hours: round(outcome.instance_hours),
            wait_s: Waits {
                p50: round(outcome.wait_quantile(0.5)),
                p99: round(p99),
                max: round(outcome.wait_quantile(1.0)),
            },
            cold_starts: outcome.cold_starts,
            launches: outcome.launches,
            peak_instances: outcome.peak,
            share_over_objective: round(outcome.share_over(scenario.target_wait_s)),
            cost_over_best: best_cost.map(|best| round(spent / best)),
            dominated_by: dominated_by((spent, p99)),
        })
        .collect()
}

/// Prints a table, a line a policy.
///
/// # Errors
/// When nothing can be printed any more.
pub fn print(report: &Report) -> Result<(), OutputError> {
    print_line!(
        "{} arrivals in {:.1} h; boot {} s, service {} ms (cv {}), {} slots, at most {} instances, \
         objective {} s",
        report.trace.arrivals,
        report.trace.length_s / 3600.0,
        report.boot_s,
        report.service_ms,
        report.service_cv,
        report.slots,
        report.max,
        report.target_wait_s,
    )?;
    for tier in &report.tiers {
        let name = match tier.tier {
            Tier::Local => "on the controller's machine",
            Tier::Stopped => "stopped rather than terminated",
            Tier::Ec2 => "launched",
        };
        print_line!(
            "at most {} {name}: boot {} s, {} an hour",
            tier.number,
            tier.boot_s,
            tier.price_per_hour,
        )?;
    }
    print_line!("")?;
    print_line!(
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
        "x best"
    )?;
    for row in &report.policies {
        let over_best = row
            .cost_over_best
            .map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        print_line!(
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
            over_best,
        )?;
    }
    if let Some(bound) = &report.bound {
        let of = if report.tiers.is_empty() {
            "no policy that meets the objective costs less"
        } else {
            "no policy with launched instances alone that meets the objective costs less"
        };
        print_line!(
            "{:<22} {:>9.4} {:>9.2}   {of}",
            "bound",
            bound.cost,
            bound.instance_hours,
        )?;
    }
    if report.bound.is_some() && !report.tiers.is_empty() {
        print_line!("best and bound are of launched instances alone, without the tiers above")?;
    }
    for row in &report.policies {
        if !row.dominated_by.is_empty() {
            let by = row.dominated_by.join(", ");
            print_line!("{} costs and waits no less than {by}", row.policy)?;
        }
    }
    Ok(())
}
