//! The figures of a measurement, and the same figures of the system that Muster came from.

use std::time::Duration;

use muster_base::output::OutputError;
use muster_base::print_line;
use serde::Serialize;

use super::observers::Observed;

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

/// Processor milliseconds a photograph outside the models: storage, queues, messages, HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct IoCpuMs {
    /// Of the web tier that was asked; `null` where it runs in the load generator's own process.
    pub web: Option<f64>,
    /// Of the workers, as far as their replies said.
    pub workers: Option<f64>,
    /// Of the web tier's, its HTTP alone: what an upload of the same size takes that is refused once
    /// it is read. The rest of all is storage, queues and messages.
    pub http: Option<f64>,
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
    /// What everything around the models took.
    pub io_cpu_ms: IoCpuMs,
    /// From the first submission to the first answer, with no instance running before.
    pub first_answer_s: f64,
    /// From the first submission until as many instances ran as ever did.
    pub scale_out_s: f64,
    /// Most instances running at one time.
    pub peak_instances: u64,
    /// From the last answer until no instance was left.
    pub scale_in_s: f64,
    /// With and without observers, where there were any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
}

/// The measurements that the figures are made of.
#[derive(Clone, Debug, Default)]
pub struct Measurements {
    /// Photographs sent.
    pub requests: usize,
    /// Photographs that were not answered as the contract has it.
    pub errors: usize,
    /// Photographs answered that no face was found.
    pub no_face: usize,
    /// From sending each answered photograph to reading its answer.
    pub latencies: Vec<Duration>,
    /// Milliseconds of the models for each photograph with faces.
    pub models_ms: Vec<f64>,
    /// From the first submission to the first answer.
    pub first_answer: Duration,
    /// From the first submission to the last answer.
    pub last_answer: Duration,
    /// From the first submission until as many instances ran as ever did.
    pub scale_out: Duration,
    /// Most instances running at one time.
    pub peak_instances: u64,
    /// From the last answer until no instance was left.
    pub scale_in: Duration,
    /// The web tier's processor time, where it is known.
    pub web_cpu: Option<Duration>,
    /// The workers' processor time outside the models, where it is known.
    pub worker_cpu: Option<Duration>,
    /// The web tier's processor time for one upload that goes no further.
    pub http_cpu: Option<Duration>,
    /// With and without observers.
    pub observed: Option<Observed>,
}

impl Figures {
    pub(super) fn new(measured: Measurements) -> Self {
        let mut latencies = measured.latencies;
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
        let each = |used: Duration| round(used.as_secs_f64() * 1e3 / answered.max(1.0));
        Self {
            requests: measured.requests,
            errors: measured.errors,
            no_face: measured.no_face,
            throughput_rps: round(
                answered / measured.last_answer.as_secs_f64().max(f64::MIN_POSITIVE),
            ),
            latency_ms: LatencyMs {
                avg,
                p50: percentile(0.5),
                p95: percentile(0.95),
                p99: percentile(0.99),
                max: percentile(1.0),
            },
            models_ms: round(
                measured.models_ms.iter().sum::<f64>() / measured.models_ms.len().max(1) as f64,
            ),
            io_cpu_ms: IoCpuMs {
                web: measured.web_cpu.map(each),
                workers: measured.worker_cpu.map(each),
                http: measured
                    .http_cpu
                    .map(|used| round(used.as_secs_f64() * 1e3)),
            },
            first_answer_s: round(measured.first_answer.as_secs_f64()),
            scale_out_s: round(measured.scale_out.as_secs_f64()),
            peak_instances: measured.peak_instances,
            scale_in_s: round(measured.scale_in.as_secs_f64()),
            observed: measured.observed,
        }
    }
}

fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// Prints the five figures of the original's table beside the original's own claims.
///
/// # Errors
/// When nothing can be printed any more.
pub fn print(figures: &Figures) -> Result<(), OutputError> {
    let error_rate = 100.0 * figures.errors as f64 / figures.requests as f64;
    let latency = &figures.latency_ms;
    print_line!("{:<24}{:>16}   the original claims", "", "measured")?;
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
        print_line!("{figure:<24}{measured:>16}   {claimed}")?;
    }
    print_line!("")?;
    print_line!(
        "{} photographs, {} instances at most; first answer from zero after {:.2} s",
        figures.requests,
        figures.peak_instances,
        figures.first_answer_s
    )?;
    print_line!(
        "latency p50 {:.0} ms, p95 {:.0} ms, p99 {:.0} ms, longest {:.0} ms",
        latency.p50,
        latency.p95,
        latency.p99,
        latency.max
    )?;
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
            "storage, queues and HTTP took {:.2} ms of processor time a photograph: web {web:.2}, \
             workers {workers:.2}",
            web + workers
        )?;
        if let Some(http) = http {
            print_line!(
                "of which HTTP by itself {http:.2} ms, and storage and queues {:.2} ms",
                web + workers - http
            )?;
        }
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_computed_as_documented() {
        let ms = Duration::from_millis;
        let latencies = (1..=100).rev().map(ms).collect();
        let figures = Figures::new(Measurements {
            requests: 101,
            errors: 1,
            no_face: 0,
            latencies,
            models_ms: vec![10.0, 20.0],
            first_answer: ms(300),
            last_answer: ms(2000),
            scale_out: ms(400),
            peak_instances: 2,
            scale_in: ms(1100),
            web_cpu: None,
            worker_cpu: Some(ms(150)),
            http_cpu: Some(ms(1)),
            observed: None,
        });
        assert_eq!(
            figures.io_cpu_ms,
            IoCpuMs {
                web: None,
                workers: Some(1.5),
                http: Some(1.0)
            }
        );
        assert_eq!((figures.throughput_rps, figures.models_ms), (50.0, 15.0));
        let latency = figures.latency_ms;
        assert_eq!((latency.avg, latency.p50, latency.max), (50.5, 51.0, 100.0));
        assert_eq!((latency.p95, latency.p99), (95.0, 99.0));
        assert_eq!((figures.first_answer_s, figures.scale_in_s), (0.3, 1.1));
    }

    #[test]
    fn nothing_answered_is_zero_not_a_panic() {
        let figures = Figures::new(Measurements {
            requests: 5,
            errors: 5,
            ..Measurements::default()
        });
        assert_eq!((figures.throughput_rps, figures.latency_ms.max), (0.0, 0.0));
    }
}
