//! The figures of a measurement, and the same figures of the system that Muster came from.

use std::time::Duration;

use serde::Serialize;

/// Milliseconds from sending a photograph to reading its answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LatencyMs {
    /// Arithmetic mean.
    pub avg: f64,
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Longest.
    pub max: f64,
}

/// What a measurement found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Photographs sent.
    pub requests: usize,
    /// Photographs that were not answered as the contract has it.
    pub errors: usize,
    /// Photographs answered, rightly or not, that no face was found.
    pub no_face: usize,
    /// Photographs answered a second, from the first submission to the last answer.
    pub throughput_rps: f64,
    /// Latencies of the answered ones.
    pub latency_ms: LatencyMs,
    /// Milliseconds that detection and embedding took of a worker for one photograph, on average
    /// over those with faces: the models alone, as fast as they ran during this measurement.
    pub models_ms: f64,
    /// From the first submission to the first answer, with no instance running before.
    pub first_answer_s: f64,
    /// From the first submission until as many instances ran as ever did.
    pub scale_out_s: f64,
    /// Most instances running at one time.
    pub peak_instances: u64,
    /// From the last answer until no instance was left.
    pub scale_in_s: f64,
}

impl Figures {
    #[expect(clippy::too_many_arguments, reason = "each is one measured figure")]
    pub(super) fn new(
        requests: usize,
        errors: usize,
        no_face: usize,
        mut latencies: Vec<Duration>,
        models_ms: Vec<f64>,
        first_answer: Duration,
        last_answer: Duration,
        scale_out: Duration,
        peak_instances: u64,
        scale_in: Duration,
    ) -> Self {
        latencies.sort_unstable();
        let ms = |duration: Duration| round(duration.as_secs_f64() * 1e3);
        let percentile = |p: f64| match latencies.len().checked_sub(1) {
            Some(last) => ms(latencies[(p * last as f64).round() as usize]),
            None => 0.0,
        };
        let sum: Duration = latencies.iter().sum();
        let avg = match u32::try_from(latencies.len()) {
            Ok(count @ 1..) => ms(sum / count),
            _ => 0.0,
        };
        let answered = latencies.len() as f64;
        Self {
            requests,
            errors,
            no_face,
            throughput_rps: round(answered / last_answer.as_secs_f64().max(f64::MIN_POSITIVE)),
            latency_ms: LatencyMs {
                avg,
                p50: percentile(0.5),
                p95: percentile(0.95),
                p99: percentile(0.99),
                max: percentile(1.0),
            },
            models_ms: round(models_ms.iter().sum::<f64>() / models_ms.len().max(1) as f64),
            first_answer_s: round(first_answer.as_secs_f64()),
            scale_out_s: round(scale_out.as_secs_f64()),
            peak_instances,
            scale_in_s: round(scale_in.as_secs_f64()),
        }
    }
}

fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// Prints the five figures of the original's table beside the original's own claims.
pub fn print(figures: &Figures) {
    let error_rate = 100.0 * figures.errors as f64 / figures.requests as f64;
    let latency = &figures.latency_ms;
    println!("{:<24}{:>16}   the original claims", "", "measured");
    for (figure, measured, claimed) in [
        (
            "throughput",
            format!("{:.1} req/s", figures.throughput_rps),
            "100 req/s, 15 t2.micro",
        ),
        (
            "average latency",
            format!("{:.2} s", latency.avg / 1e3),
            "0.96 s",
        ),
        (
            "scale-out",
            format!("{:.2} s", figures.scale_out_s),
            "< 5 s",
        ),
        ("scale-in", format!("{:.2} s", figures.scale_in_s), "< 2 s"),
        ("errors", format!("{error_rate:.2} %"), "< 0.1 %"),
    ] {
        println!("{figure:<24}{measured:>16}   {claimed}");
    }
    println!(
        "\n{} photographs, {} instances at most; first answer from zero after {:.2} s",
        figures.requests, figures.peak_instances, figures.first_answer_s
    );
    println!(
        "latency p50 {:.0} ms, p95 {:.0} ms, p99 {:.0} ms, longest {:.0} ms",
        latency.p50, latency.p95, latency.p99, latency.max
    );
    println!(
        "the models took {:.1} ms a photograph: {:.2} instances' worth of the throughput",
        figures.models_ms,
        figures.throughput_rps * figures.models_ms / 1e3
    );
    if figures.no_face > 0 {
        println!(
            "{} photographs were answered that they show no face",
            figures.no_face
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_computed_as_documented() {
        let ms = Duration::from_millis;
        let latencies = (1..=100).rev().map(ms).collect();
        let figures = Figures::new(
            101,
            1,
            0,
            latencies,
            vec![10.0, 20.0],
            ms(300),
            ms(2000),
            ms(400),
            2,
            ms(1100),
        );
        assert_eq!((figures.throughput_rps, figures.models_ms), (50.0, 15.0));
        let latency = figures.latency_ms;
        assert_eq!((latency.avg, latency.p50, latency.max), (50.5, 51.0, 100.0));
        assert_eq!((latency.p95, latency.p99), (95.0, 99.0));
        assert_eq!((figures.first_answer_s, figures.scale_in_s), (0.3, 1.1));
    }

    #[test]
    fn nothing_answered_is_zero_not_a_panic() {
        let zero = Duration::ZERO;
        let figures = Figures::new(5, 5, 0, vec![], vec![], zero, zero, zero, 0, zero);
        assert_eq!((figures.throughput_rps, figures.latency_ms.max), (0.0, 0.0));
    }
}
