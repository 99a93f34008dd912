//! Muster's planner on a grid of loads made by seed, beside the cheapest fixed fleet that keeps the objective
//! (steady loads) or the best schedule that is known (the others).
//!
//! The best schedule knows every request, which nobody does. Beside it stands a fleet that knows the rate
//! of every moment, and nothing of chance: where it too is dearer than the best allows, DEAR becomes
//! CHANCE. Requests are cold that come within a boot after a rise, or after nothing for as long as an idle
//! instance is kept: where no more are late than these and one of a hundred others, LATE becomes COLD.
//!
//! `cargo run --release -p muster-fleet --example grid -- [NAME=VALUE …]`, with `seeds` (1), with `best` for
//! the seeds that the best schedule is sought for, which takes most of the time (all of them), and with
//! `kind`, `rate`, `service`, `cv` and `boot` for a part of the grid only: `kind=steady rate=0.5`.
//! The first hour is apart, and of daily and weekly loads the first period: what comes then has to
//! be learned. All costs are over the time after it, with the billing minimum.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use muster_fleet::simulate::{
    Autoscaler, Outcome, Run, Scenario, Schedule, best_known, cheapest_fixed, lower_bound_hours,
    run,
};
use muster_fleet::{Learned, Policy};
use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// Requests a second where the load is, or on average where it swings.
const RATES: [f64; 4] = [0.05, 0.5, 5.0, 50.0];
const SERVICES_S: [f64; 4] = [0.05, 0.5, 6.0, 20.0];
const SERVICE_CVS: [f64; 3] = [0.0, 0.5, 1.0];
const BOOTS_S: [f64; 3] = [2.0, 26.0, 120.0];
const TARGET_WAIT_S: f64 = 1.0;
const MAX_INSTANCES: u32 = 256;
const MOST_ARRIVALS: f64 = 1e6;
/// Instances that are busy at the peak, at most; with more, the grid's fleets are too small.
const MOST_BUSY: f64 = 0.75 * MAX_INSTANCES as f64;
const BILLED_S: f64 = 60.0;
/// For who knows the rates: how long a moment is, how many rates are told apart, and how many requests tell
/// how large a fleet one of them needs.
const MOMENT_S: f64 = 20.0;
const RATES_TOLD_APART: f64 = 20.0;
const STEADY_ARRIVALS: f64 = 50_000.0;
const HOUR_S: f64 = 3600.0;
const DAY_S: f64 = 24.0 * HOUR_S;
const WEEK_S: f64 = 7.0 * DAY_S;

const LATE: f64 = 0.01;
const DEAR_STEADY: f64 = 1.15;
const DEAR: f64 = 1.3;
/// Launches an instance-hour on a steady load.
const CHURN: f64 = 1.0;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Steady,
    Daily,
    Weekly,
    Step,
    Spikes,
    OnOff,
}

impl Kind {
    const ALL: [(Self, &str); 6] = [
        (Self::Steady, "steady"),
        (Self::Daily, "daily"),
        (Self::Weekly, "weekly"),
        (Self::Step, "step"),
        (Self::Spikes, "spikes"),
        (Self::OnOff, "onoff"),
    ];

    /// The load at a time, as a factor of the rate.
    fn factor(self, at_s: f64) -> f64 {
        let swing = |period_s: f64| 1.0 - (std::f64::consts::TAU * at_s / period_s).cos();
        let working_day = |at_s: f64| {
            if at_s % WEEK_S < 5.0 * DAY_S {
                1.0
            } else {
                0.2
            }
        };
        match self {
            Self::Steady => 1.0,
            Self::Daily => swing(DAY_S),
            Self::Weekly => swing(DAY_S) * working_day(at_s),
            Self::Step if at_s % (3.0 * HOUR_S) < 1.5 * HOUR_S => 0.1,
            Self::Step => 1.0,
            // Twenty seconds every ten minutes.
            Self::Spikes if at_s % 600.0 < 20.0 => 10.0,
            Self::Spikes => 0.1,
            Self::OnOff if at_s % (2.0 * HOUR_S) < HOUR_S => 1.0,
            Self::OnOff => 0.0,
        }
    }

    fn peak(self) -> f64 {
        match self {
            Self::Steady | Self::Step | Self::OnOff => 1.0,
            Self::Daily | Self::Weekly => 2.0,
            Self::Spikes => 10.0,
        }
    }

    /// How long the load lasts at best and at least, and how much of it is apart, in seconds.
    fn lengths_s(self) -> (f64, f64, f64) {
        match self {
            Self::Steady | Self::Spikes => (6.0 * HOUR_S, 2.0 * HOUR_S, HOUR_S),
            Self::Step | Self::OnOff => (9.0 * HOUR_S, 4.0 * HOUR_S, HOUR_S),
            Self::Daily => (3.0 * DAY_S, 2.0 * DAY_S, DAY_S),
            Self::Weekly => (3.0 * WEEK_S, 2.0 * WEEK_S, WEEK_S),
        }
    }
}

struct Cell {
    kind: Kind,
    rate: f64,
    service_s: f64,
    cv: f64,
    boot_s: f64,
}

impl Cell {
    /// How long it lasts: as long as it has no more than [`MOST_ARRIVALS`]. Nothing where that is too short,
    /// or the load too large.
    fn length_s(&self) -> Option<f64> {
        let (most_s, least_s, _) = self.kind.lengths_s();
        let length_s = most_s.min(0.98 * MOST_ARRIVALS / self.rate);
        let busy = self.rate * self.kind.peak() * self.service_s;
        (length_s >= least_s && busy <= MOST_BUSY).then_some(length_s)
    }

    fn arrivals(&self, length_s: f64, seed: u64) -> Vec<f64> {
        let mut random = SplitMix64::seed_from_u64(seed);
        let mut unit = move || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut arrivals = Vec::new();
        let mut at_s = 0.0;
        loop {
            at_s -= (1.0 - unit()).ln() / (self.rate * self.kind.peak());
            if at_s >= length_s {
                return arrivals;
            }
            if unit() * self.kind.peak() < self.kind.factor(at_s) {
                arrivals.push(at_s);
            }
        }
    }

    fn scenario(&self, seed: u64) -> Scenario {
        Scenario {
            boot_s: self.boot_s,
            service_s: self.service_s,
            service_cv: self.cv,
            price_per_hour: 0.0116,
            target_wait_s: TARGET_WAIT_S,
            count_noise: 2,
            seed,
            ..Scenario::on_ec2(MAX_INSTANCES)
        }
    }

    /// When instances are to be ready for who knows the rate of every moment after the time that is apart:
    /// as many as the cheapest fixed fleet for a load that always has it.
    fn by_rate(&self, length_s: f64) -> Vec<Run> {
        let (_, _, from_s) = self.kind.lengths_s();
        let mut fleets = BTreeMap::from([(0, 0)]);
        let mut levels: Vec<Vec<Run>> = Vec::new();
        let moments = ((length_s - from_s) / MOMENT_S) as u32;
        for at_s in (0..moments).map(|moment| f64::from(moment) * MOMENT_S) {
            let share = self.kind.factor(from_s + at_s) / self.kind.peak();
            // Of a swing's rates, so many are told apart.
            let part = (share * RATES_TOLD_APART).ceil() as u32;
            let share = share.max(f64::from(part - u32::from(part > 0)) / RATES_TOLD_APART);
            let fleet = *fleets.entry(part).or_insert_with(|| self.fixed(share));
            let until_s = at_s + MOMENT_S;
            for level in 0..fleet as usize {
                if levels.len() == level {
                    levels.push(Vec::new());
                }
                let runs = &mut levels[level];
                match runs.last_mut() {
                    Some(run) if at_s - run.end_s <= self.kept_s() => run.end_s = until_s,
                    _ => runs.push(Run {
                        ready_s: at_s,
                        end_s: until_s,
                    }),
                }
            }
        }
        levels.into_iter().flatten().collect()
    }

    /// The cheapest fixed fleet for a load that always has a share of the peak's rate.
    fn fixed(&self, share: f64) -> u32 {
        let steady = Self {
            kind: Kind::Steady,
            rate: self.rate * self.kind.peak() * share,
            ..*self
        };
        let length_s = (STEADY_ARRIVALS / steady.rate).max(HOUR_S);
        let arrivals = steady.arrivals(length_s, 0);
        cheapest_fixed(&arrivals, &steady.scenario(0)).unwrap_or(MAX_INSTANCES)
    }

    /// How long it is cheaper to keep an idle instance than to launch it again.
    fn kept_s(&self) -> f64 {
        self.boot_s.max(BILLED_S)
    }

    /// The share of requests that come within a boot after a rise, or after nothing.
    fn cold_share(&self, arrivals: &[f64], from_s: f64) -> f64 {
        let (mut cold, mut last_s, mut cold_until_s) = (0, f64::NEG_INFINITY, f64::NEG_INFINITY);
        for &at_s in arrivals {
            let before_s = (at_s - self.boot_s).max(0.0);
            let has_risen = self.kind.factor(at_s) > 2.0 * self.kind.factor(before_s);
            if at_s - last_s > self.kept_s() + self.service_s {
                cold_until_s = at_s + self.boot_s;
            }
            last_s = at_s;
            cold += usize::from(at_s >= from_s && (has_risen || at_s <= cold_until_s));
        }
        let counted = arrivals.iter().filter(|at_s| **at_s >= from_s).count();
        cold as f64 / counted.max(1) as f64
    }

    /// Measures the cell with one seed; nothing where hardly any request comes.
    fn measure(
        &self,
        length_s: f64,
        by_rate: &[Run],
        seed: u64,
        with_best: bool,
    ) -> Option<Figures> {
        let (_, _, from_s) = self.kind.lengths_s();
        let arrivals = self.arrivals(length_s, seed);
        let scenario = self.scenario(seed);
        let first = arrivals.partition_point(|arrival| *arrival < from_s);
        // What comes after the time that is apart, for those who have nothing to learn.
        let after: Vec<f64> = arrivals[first..]
            .iter()
            .map(|arrival| arrival - from_s)
            .collect();
        if after.len() < 100 {
            return None;
        }
        let span_s = length_s - from_s;
        let reference = if self.kind == Kind::Steady {
            let fleet = cheapest_fixed(&after, &scenario)?;
            Some((f64::from(fleet) * span_s / HOUR_S, format!("fixed:{fleet}")))
        } else {
            None
        };
        let by_rate_hours = (self.kind != Kind::Steady && with_best).then(|| {
            let schedule = Schedule::new(by_rate, self.boot_s);
            let outcome = run(&after, span_s, &scenario, Autoscaler::Scheduled(schedule));
            billed_hours(&outcome, 0.0, span_s)
        });
        let best = by_rate_hours.map(|_| best_known(&after, span_s, &scenario));
        let bound_hours = best
            .as_ref()
            .map(|best| lower_bound_hours(&after, &scenario, best.instance_hours));
        let best = best.map(|best| (billed_hours(&best, 0.0, span_s), "best".to_owned()));
        let reference = reference.or(best);
        let muster = run(&arrivals, length_s, &scenario, muster());
        let mut waits = muster.waits[first..].to_vec();
        let late = waits.iter().filter(|wait| **wait > TARGET_WAIT_S).count();
        let late = late as f64 / waits.len() as f64;
        let at = (waits.len() as f64 * (1.0 - LATE)).ceil() as usize - 1;
        let (_, p99_s, _) = waits.select_nth_unstable_by(at, f64::total_cmp);
        let p99_s = *p99_s;
        let hours = billed_hours(&muster, from_s, length_s);
        let launches = muster
            .bills
            .iter()
            .filter(|bill| bill.0 >= from_s && bill.0 < length_s);
        let launches_per_hour = launches.count() as f64 / hours.max(1e-9);
        let one_more = if self.kind == Kind::Steady {
            span_s / HOUR_S
        } else {
            0.0
        };
        let dear = if self.kind == Kind::Steady {
            DEAR_STEADY
        } else {
            DEAR
        };
        let mut marks = Vec::new();
        let cold = self.cold_share(&arrivals, from_s);
        if late > LATE {
            let is_cold = self.kind != Kind::Steady && late <= LATE + cold;
            marks.push(if is_cold { "COLD" } else { "LATE" });
        }
        let reference_hours = reference.as_ref().map(|reference| reference.0);
        if let Some(reference) = reference_hours
            && hours > (dear * reference).max(reference + one_more)
        {
            let allowed = dear * reference;
            let is_chance = by_rate_hours.is_some_and(|by_rate| by_rate > allowed);
            marks.push(if is_chance { "CHANCE" } else { "DEAR" });
        }
        if self.kind == Kind::Steady && launches_per_hour > CHURN {
            marks.push("CHURN");
        }
        Some(Figures {
            fleet: reference.map(|reference| reference.1),
            reference_hours,
            bound_hours,
            by_rate_hours,
            late,
            cold,
            p99_s,
            hours,
            launches_per_hour,
            marks,
        })
    }
}

/// Muster's planner, as a new controller on EC2 has it.
fn muster() -> Autoscaler {
    Autoscaler::Muster {
        policy: Box::new(Policy {
            target_wait: Duration::from_secs_f64(TARGET_WAIT_S),
            boot_timeout: Duration::from_secs(600),
            ..Policy::on_ec2(MAX_INSTANCES)
        }),
        learned: Box::<Learned>::default(),
    }
}

/// Instance-hours that are billed for a part of the trace.
fn billed_hours(outcome: &Outcome, from_s: f64, to_s: f64) -> f64 {
    let of = |bill: &(f64, f64)| (bill.1.min(to_s) - bill.0.max(from_s)).max(0.0);
    outcome.bills.iter().map(of).sum::<f64>() / HOUR_S
}

/// What one seed gave.
struct Figures {
    fleet: Option<String>,
    /// Where the best is sought for this seed.
    reference_hours: Option<f64>,
    bound_hours: Option<f64>,
    by_rate_hours: Option<f64>,
    late: f64,
    cold: f64,
    p99_s: f64,
    hours: f64,
    launches_per_hour: f64,
    marks: Vec<&'static str>,
}

impl Figures {
    fn ratio(&self) -> f64 {
        self.reference_hours
            .map_or(0.0, |reference| self.hours / reference.max(1e-9))
    }
}

/// One cell of the table: what its seeds gave, on average or at worst.
struct Row {
    line: String,
    name: String,
    late: f64,
    ratio: f64,
    marks: Vec<&'static str>,
}

impl Row {
    fn new(cell: &Cell, seeds: &[Figures]) -> Option<Self> {
        let first = seeds.first()?;
        let mean = |of: fn(&Figures) -> f64| seeds.iter().map(of).sum::<f64>() / seeds.len() as f64;
        let worst = |of: fn(&Figures) -> f64| seeds.iter().map(of).fold(0.0, f64::max);
        let mut marks: Vec<&str> = seeds.iter().flat_map(|seed| seed.marks.clone()).collect();
        marks.sort_unstable();
        let counted: Vec<String> = marks
            .chunk_by(|a, b| a == b)
            .map(|mark| match seeds.len() {
                1 => mark[0].to_owned(),
                of => format!("{} {}/{of}", mark[0], mark.len()),
            })
            .collect();
        marks.dedup();
        let name = format!(
            "rate {} service {} cv {} boot {}",
            cell.rate, cell.service_s, cell.cv, cell.boot_s
        );
        let (late, ratio) = (worst(|seed| seed.late), worst(Figures::ratio));
        let of_best = |of: fn(&Figures) -> Option<f64>| {
            let known: Vec<f64> = seeds.iter().filter_map(of).collect();
            match known.len() {
                0 => "-".to_owned(),
                count => format!("{:.2}", known.iter().sum::<f64>() / count as f64),
            }
        };
        let line = format!(
            "{:>5} {:>7} {:>4} {:>5} | {:>9} {:>9} {:>9} {:>9} | {:>6.2} {:>6.2} {:>8.2} {:>9.2} {:>6.2} {:>7.2}  {}",
            cell.rate,
            cell.service_s,
            cell.cv,
            cell.boot_s,
            first.fleet.as_deref().unwrap_or("-"),
            of_best(|seed| seed.reference_hours),
            of_best(|seed| seed.bound_hours),
            of_best(|seed| seed.by_rate_hours),
            100.0 * late,
            100.0 * mean(|seed| seed.cold),
            worst(|seed| seed.p99_s),
            mean(|seed| seed.hours),
            ratio,
            worst(|seed| seed.launches_per_hour),
            counted.join(" "),
        );
        Some(Self {
            line,
            name,
            late,
            ratio,
            marks,
        })
    }
}

/// Measures cells on every core, and prints their rows in order as soon as they are there.
fn table(cells: &[Cell], seeds: u64, best: u64) -> Vec<Row> {
    let next = AtomicUsize::new(0);
    let printed: Mutex<(usize, Vec<Option<Option<Row>>>)> =
        Mutex::new((0, cells.iter().map(|_| None).collect()));
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(cell) = cells.get(at) else {
                return;
            };
            let row = cell.length_s().and_then(|length_s| {
                let by_rate = if cell.kind == Kind::Steady {
                    Vec::new()
                } else {
                    cell.by_rate(length_s)
                };
                let measured: Vec<Figures> = (1..=seeds)
                    .filter_map(|seed| cell.measure(length_s, &by_rate, seed, seed <= best))
                    .collect();
                Row::new(cell, &measured)
            });
            let Ok(mut printed) = printed.lock() else {
                return;
            };
            let (from, rows) = &mut *printed;
            rows[at] = Some(row);
            while let Some(Some(row)) = rows.get(*from) {
                if let Some(row) = row {
                    println!("{}", row.line);
                }
                *from += 1;
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let (_, rows) = printed.into_inner().unwrap_or_default();
    rows.into_iter().flatten().flatten().collect()
}

fn summary(name: &str, mut rows: Vec<Row>, left_out: usize) {
    let met = rows.iter().filter(|row| row.marks.is_empty()).count();
    println!("\n{name}: {met} of {} cells meet everything", rows.len());
    for mark in ["LATE", "COLD", "DEAR", "CHANCE", "CHURN"] {
        let marked = rows.iter().filter(|row| row.marks.contains(&mark)).count();
        if marked > 0 {
            println!("  {mark}: {marked}");
        }
    }
    if left_out > 0 {
        println!("  left out, too large a load, too short, or too few requests: {left_out}");
    }
    rows.sort_by(|a, b| b.late.total_cmp(&a.late));
    let latest = rows.iter().filter(|row| row.marks.contains(&"LATE"));
    for row in latest.take(3) {
        println!("  latest: {} ({:.2} % late)", row.name, 100.0 * row.late);
    }
    rows.sort_by(|a, b| b.ratio.total_cmp(&a.ratio));
    for row in rows
        .iter()
        .filter(|row| row.marks.contains(&"DEAR"))
        .take(3)
    {
        println!("  dearest: {} ({:.2} times)", row.name, row.ratio);
    }
    println!();
}

fn main() -> ExitCode {
    let (mut seeds, mut best) = (1, u64::MAX);
    let mut only: Vec<(String, String)> = Vec::new();
    for argument in std::env::args().skip(1) {
        let known = ["kind", "rate", "service", "cv", "boot"];
        match argument.split_once('=') {
            Some(("seeds", count)) if count.parse().is_ok_and(|count: u64| count > 0) => {
                seeds = count.parse().unwrap_or(1);
            }
            Some(("best", count)) if count.parse::<u64>().is_ok() => {
                best = count.parse().unwrap_or(best);
            }
            Some((name, value)) if known.contains(&name) => {
                only.push((name.to_owned(), value.to_owned()));
            }
            _ => {
                eprintln!(
                    "grid: {argument} is not seeds=N, best=N, or one of {known:?} with a value of the grid"
                );
                return ExitCode::FAILURE;
            }
        }
    }
    let wanted = |name: &str, value: &str| {
        only.iter()
            .all(|(only, wanted)| only != name || wanted == value)
    };
    for (kind, name) in Kind::ALL {
        if !wanted("kind", name) {
            continue;
        }
        let mut cells = Vec::new();
        for rate in RATES {
            for service_s in SERVICES_S {
                for cv in SERVICE_CVS {
                    for boot_s in BOOTS_S {
                        let values = [
                            ("rate", rate),
                            ("service", service_s),
                            ("cv", cv),
                            ("boot", boot_s),
                        ];
                        if values
                            .iter()
                            .all(|(name, value)| wanted(name, &value.to_string()))
                        {
                            cells.push(Cell {
                                kind,
                                rate,
                                service_s,
                                cv,
                                boot_s,
                            });
                        }
                    }
                }
            }
        }
        println!(
            "## {name}\n\n{:>5} {:>7} {:>4} {:>5} | {:>9} {:>9} {:>9} {:>9} | {:>6} {:>6} {:>8} {:>9} {:>6} {:>7}",
            "rate",
            "service",
            "cv",
            "boot",
            "against",
            "hours",
            "bound",
            "by rate",
            "late %",
            "cold %",
            "p99 s",
            "hours",
            "ratio",
            "l/inst-h"
        );
        let rows = table(&cells, seeds, best);
        let left_out = cells.len() - rows.len();
        summary(name, rows, left_out);
    }
    ExitCode::SUCCESS
}
