//! What `muster bench` reports: its settings, the medians and every repetition.

use muster_base::output::OutputError;
use muster_base::print_line;
use serde::{Deserialize, Serialize};

use super::figures::{Figures, IoCpuMs};
use super::rows::ROWS;

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadSettings {
    /// Width and height of the photographs, in pixels.
    pub size: u32,
    /// Photographs measured in each repetition.
    pub requests: usize,
    /// Photographs sent before them in each repetition.
    pub warm_up: usize,
    /// Photographs under way at one time; `null` at a constant rate.
    pub concurrency: Option<usize>,
    /// Photographs a second; `null` in a closed loop.
    pub rate_rps: Option<f64>,
    /// How often it is measured from zero to zero.
    pub repetitions: usize,
    /// Viewers that there are every other few seconds.
    pub observers: Option<usize>,
}

/// A measurement, of one or more repetitions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was asked for; builds before `--repetitions` did not say.
    pub settings: Option<LoadSettings>,
    /// Medians of the repetitions; errors are added up.
    #[serde(flatten)]
    pub medians: Figures,
    /// Each repetition; builds before `--repetitions` had one, which the medians are.
    #[serde(default)]
    pub repetitions: Vec<Figures>,
}

impl Report {
    /// A report of repetitions; `None` of none.
    pub fn new(settings: LoadSettings, repetitions: Vec<Figures>) -> Option<Self> {
        Some(Self {
            settings: Some(settings),
            medians: Figures::medians(&repetitions)?,
            repetitions,
        })
    }

    /// The repetitions; at least one.
    pub fn repetitions(&self) -> &[Figures] {
        match &self.repetitions[..] {
            [] => std::slice::from_ref(&self.medians),
            repetitions => repetitions,
        }
    }

    /// Photographs sent, or to be sent, in all repetitions, the warm-up included.
    fn sent(&self) -> usize {
        let warm_up = self.settings.as_ref().map_or(0, |all| all.warm_up);
        (self.medians.requests + warm_up) * self.repetitions().len()
    }

    /// Share of the photographs that were not answered as the contract has it, in per cent.
    pub fn errors_percent(&self) -> f64 {
        100.0 * self.medians.errors as f64 / self.sent().max(1) as f64
    }

    /// Prints the figures beside the claims of the system that Muster came from.
    ///
    /// # Errors
    /// When nothing can be printed any more.
    pub fn print(&self) -> Result<(), OutputError> {
        let repetitions = self.repetitions();
        let (measured, spread) = match repetitions.len() {
            1 => ("measured".to_owned(), ""),
            more => (format!("median of {more}"), "spread"),
        };
        print_columns("", &measured, "", spread, "the original claims")?;
        for row in ROWS {
            let Some(of) = row.spread(repetitions) else {
                continue;
            };
            let spread = match repetitions.len() {
                1 => String::new(),
                _ => format!("{} to {} {}", row.show(of.low), row.show(of.high), row.unit),
            };
            print_columns(
                row.name,
                &row.show(of.median),
                row.unit,
                &spread,
                row.claimed,
            )?;
        }
        let errors = format!("{:.2}", self.errors_percent());
        let counted = format!("{} of {} requests", self.medians.errors, self.sent());
        print_columns("errors", &errors, "%", &counted, "< 0.1 %")?;
        print_line!("")?;
        self.print_settings()?;
        self.print_details()
    }

    fn print_settings(&self) -> Result<(), OutputError> {
        let Some(settings) = &self.settings else {
            return Ok(());
        };
        let arrivals = match (settings.rate_rps, settings.concurrency) {
            (Some(rate), _) => format!("{rate} req/s, latencies from when each was due"),
            (None, concurrency) => format!("{} at a time", concurrency.unwrap_or_default()),
        };
        print_line!(
            "{} photographs of {size} x {size} pixels, {arrivals}; {} before them to warm up",
            settings.requests,
            settings.warm_up,
            size = settings.size
        )
    }

    /// What the figures mean together.
    fn print_details(&self) -> Result<(), OutputError> {
        let figures = &self.medians;
        print_line!(
            "the models took {:.1} ms a photograph: {:.2} instances' worth of the throughput",
            figures.models_ms,
            figures.throughput_rps * figures.models_ms / 1e3
        )?;
        if let IoCpuMs {
            web: Some(web),
            workers: Some(workers),
            http,
        } = figures.io_cpu_ms
        {
            print_line!(
                "storage, queues and HTTP took {:.2} ms of processor time a photograph",
                web + workers
            )?;
            if let Some(http) = http {
                print_line!("without HTTP by itself {:.2} ms", web + workers - http)?;
            }
        }
        if let Some(generator) = figures.generator_cpu_ms {
            print_line!(
                "the load generator took {generator:.2} ms of processor time a request: {:.2} processors' \
                 worth of the throughput",
                figures.throughput_rps * generator / 1e3
            )?;
        }
        if let Some(observed) = figures.observed {
            let (watched, alone) = observed.answers;
            print_line!(
                "average latency {:.1} ms with {} viewers and a scraper, {:.1} ms without: {:+.2} % \
                 ({watched} and {alone} answers)",
                observed.latency_ms,
                observed.viewers,
                observed.alone_ms,
                100.0 * (observed.latency_ms / observed.alone_ms - 1.0)
            )?;
        }
        if figures.no_face > 0 {
            print_line!(
                "{} photographs were answered that they show no face",
                figures.no_face
            )?;
        }
        match figures.sending {
            Some(sending) if sending.not_sent > 0 => print_line!(
                "{} photographs were not sent, since too many were under way: choose a lower --rate",
                sending.not_sent
            ),
            _ => Ok(()),
        }
    }
}

fn print_columns(
    name: &str,
    value: &str,
    unit: &str,
    spread: &str,
    claimed: &str,
) -> Result<(), OutputError> {
    let line = format!("{name:<25}{value:>11} {unit:<12}{spread:<28}{claimed}");
    print_line!("{}", line.trim_end())
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::bench::figures::Measurements;

    pub fn settings() -> LoadSettings {
        LoadSettings {
            size: 512,
            requests: 40,
            warm_up: 10,
            concurrency: Some(4),
            rate_rps: None,
            repetitions: 3,
            observers: None,
        }
    }

    /// A report of repetitions of these throughputs.
    pub fn report(throughputs: &[f64]) -> Report {
        let repetitions = throughputs.iter().map(|throughput_rps| Figures {
            requests: 40,
            errors: 1,
            throughput_rps: *throughput_rps,
            ..Figures::new(&Measurements::default())
        });
        Report::new(settings(), repetitions.collect()).unwrap()
    }

    /// What builds before `--repetitions` printed.
    pub fn older() -> Value {
        json!({
            "requests": 40, "errors": 2, "no_face": 0, "throughput_rps": 50.0,
            "latency_ms": {"avg": 1.0, "p50": 1.0, "p95": 2.0, "p99": 2.0, "max": 3.0},
            "models_ms": 10.0, "io_cpu_ms": {"web": null, "workers": 1.5, "http": null},
            "first_answer_s": 0.5, "scale_out_s": 0.5, "peak_instances": 2, "scale_in_s": 1.0,
        })
    }

    #[test]
    fn medians_stand_where_a_single_measurements_figures_stood() {
        let json = serde_json::to_value(report(&[60.0, 50.0, 70.0])).unwrap();
        for (key, value) in older().as_object().unwrap() {
            let kind = |value: &Value| std::mem::discriminant(value);
            let now = &json[key];
            assert!(kind(now) == kind(value), "{key}: {now} {value}");
        }
        assert_eq!(
            (&json["throughput_rps"], &json["requests"]),
            (&json!(60.0), &json!(40))
        );
        assert_eq!(
            (&json["errors"], &json["settings"]["warm_up"]),
            (&json!(3), &json!(10))
        );
        let each: Vec<_> = json["repetitions"].as_array().unwrap().iter().collect();
        assert_eq!(
            each.iter()
                .map(|one| &one["throughput_rps"])
                .collect::<Vec<_>>(),
            [60.0, 50.0, 70.0]
        );
        assert_eq!(
            serde_json::from_value::<Report>(json.clone()).unwrap(),
            report(&[60.0, 50.0, 70.0])
        );
    }

    #[test]
    fn errors_are_a_share_of_all_that_was_sent() {
        assert_eq!(report(&[1.0, 2.0, 3.0]).errors_percent(), 2.0);
        let older: Report = serde_json::from_value(older()).unwrap();
        assert_eq!(
            (older.errors_percent(), older.repetitions().len()),
            (5.0, 1)
        );
    }
}
