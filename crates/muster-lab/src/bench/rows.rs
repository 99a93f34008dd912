//! The figures that are printed and compared, each with its unit.

use super::figures::Figures;
use super::spread::Spread;

/// A figure as it is shown.
pub struct Row {
    /// Its place in the JSON: names with dots between.
    pub key: &'static str,
    /// What it is.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Decimals that are shown.
    pub decimals: usize,
    /// What the system that Muster came from claims of it.
    pub claimed: &'static str,
    /// Reads it, where it is known.
    pub read: fn(&Figures) -> Option<f64>,
}

impl Row {
    /// Its spread over repetitions; `None` where none knows it.
    pub fn spread(&self, repetitions: &[Figures]) -> Option<Spread> {
        Spread::of(repetitions.iter().filter_map(self.read))
    }

    /// A value of it, without its unit.
    pub fn show(&self, value: f64) -> String {
        format!("{value:.*}", self.decimals)
    }
}

const fn row(
    key: &'static str,
    (name, unit, decimals): (&'static str, &'static str, usize),
    claimed: &'static str,
    read: fn(&Figures) -> Option<f64>,
) -> Row {
    Row {
        key,
        name,
        unit,
        decimals,
        claimed,
        read,
    }
}

/// All of them but the errors, which are added up over repetitions.
pub const ROWS: &[Row] = &[
    row(
        "throughput_rps",
        ("throughput", "req/s", 1),
        "100 req/s, 15 t2.micro",
        |of| Some(of.throughput_rps),
    ),
    row(
        "latency_ms.avg",
        ("average latency", "ms", 1),
        "960 ms",
        |of| Some(of.latency_ms.avg),
    ),
    row("latency_ms.p50", ("latency p50", "ms", 1), "", |of| {
        Some(of.latency_ms.p50)
    }),
    row("latency_ms.p95", ("latency p95", "ms", 1), "", |of| {
        Some(of.latency_ms.p95)
    }),
    row("latency_ms.p99", ("latency p99", "ms", 1), "", |of| {
        Some(of.latency_ms.p99)
    }),
    row("latency_ms.max", ("longest latency", "ms", 1), "", |of| {
        Some(of.latency_ms.max)
    }),
    row(
        "first_answer_s",
        ("first answer from zero", "s", 2),
        "",
        |of| Some(of.first_answer_s),
    ),
    row("scale_out_s", ("scale-out", "s", 2), "< 5 s", |of| {
        Some(of.scale_out_s)
    }),
    row(
        "peak_instances",
        ("most at one time", "instances", 0),
        "15 instances",
        |of| Some(of.peak_instances as f64),
    ),
    row("scale_in_s", ("scale-in", "s", 2), "< 2 s", |of| {
        Some(of.scale_in_s)
    }),
    row("models_ms", ("both models", "ms/request", 1), "", |of| {
        Some(of.models_ms)
    }),
    row(
        "io_cpu_ms.web",
        ("processor: web tier", "ms/request", 2),
        "",
        |of| of.io_cpu_ms.web,
    ),
    row(
        "io_cpu_ms.workers",
        ("processor: workers", "ms/request", 2),
        "",
        |of| of.io_cpu_ms.workers,
    ),
    row(
        "io_cpu_ms.http",
        ("processor: HTTP alone", "ms/request", 2),
        "",
        |of| of.io_cpu_ms.http,
    ),
    row(
        "generator_cpu_ms",
        ("processor: this bench", "ms/request", 2),
        "",
        |of| of.generator_cpu_ms,
    ),
    row(
        "sending.late_percent",
        ("sent 10 ms late or more", "%", 1),
        "",
        |of| Some(of.sending?.late_percent),
    ),
    row(
        "sending.worst_lag_ms",
        ("sent late by at most", "ms", 1),
        "",
        |of| Some(of.sending?.worst_lag_ms),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figures::{IoCpuMs, Measurements, Sending};

    #[test]
    fn a_row_reads_what_the_json_has_at_its_key() {
        let mut figures = Figures::new(&Measurements::default());
        figures.io_cpu_ms = IoCpuMs {
            web: Some(0.25),
            workers: Some(0.5),
            http: Some(0.75),
        };
        figures.generator_cpu_ms = Some(1.25);
        figures.sending = Some(Sending {
            late_percent: 12.5,
            worst_lag_ms: 7.5,
            not_sent: 0,
        });
        let latency = &mut figures.latency_ms;
        (latency.avg, latency.p50, latency.p95) = (1.0, 2.0, 3.0);
        (latency.p99, latency.max) = (4.0, 5.0);
        (figures.throughput_rps, figures.models_ms) = (6.0, 7.0);
        (figures.first_answer_s, figures.scale_out_s) = (8.0, 9.0);
        (figures.scale_in_s, figures.peak_instances) = (10.0, 11);
        let json = serde_json::to_value(figures).unwrap();
        for row in ROWS {
            let pointer = format!("/{}", row.key.replace('.', "/"));
            let value = json.pointer(&pointer).and_then(|value| value.as_f64());
            assert_eq!((row.read)(&figures), value, "{}", row.key);
            assert!(value.is_some() && !row.unit.is_empty(), "{}", row.key);
        }
    }
}
