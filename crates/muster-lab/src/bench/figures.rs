//! The figures of a measurement, from zero instances to zero instances.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::arrivals::Sent;
use super::latency::LatencyMs;
use super::observers::Observed;
use super::spread::{Spread, round};
use super::upload::Answer;

/// From how long after it was due a request counts as sent late.
const LATE: Duration = Duration::from_millis(10);

/// Processor milliseconds a photograph outside the models: storage, queues, messages, HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct IoCpuMs {
    /// Of the web tier that was asked; `null` where the service was started for the measurement.
    pub web: Option<f64>,
    /// Of the workers, as far as their replies said.
    pub workers: Option<f64>,
    /// Of the web tier's, its HTTP alone: what an upload of the same size takes that is refused once
    /// it is read. The rest of all is storage, queues and messages.
    pub http: Option<f64>,
}

/// How well the load generator kept to a constant rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sending {
    /// Measured requests that were sent 10 ms after they were due, or later, in per cent.
    pub late_percent: f64,
    /// Longest time from when a measured request was due until it was sent, in milliseconds.
    pub worst_lag_ms: f64,
    /// Requests that were never sent, since too many were under way. They are errors as well.
    pub not_sent: usize,
}

/// What a measurement found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Photographs measured: those that were sent after the warm-up.
    pub requests: usize,
    /// Photographs that were not answered as the contract has it, of the warm-up also.
    pub errors: usize,
    /// Measured photographs answered, rightly or not, that no face was found.
    pub no_face: usize,
    /// Photographs answered a second, from the end of the warm-up (as many answers as it has requests)
    /// to the last answer.
    pub throughput_rps: f64,
    /// Latencies of the measured ones that were answered.
    pub latency_ms: LatencyMs,
    /// Milliseconds that detection and embedding took of a worker for one measured photograph, on average
    /// over those with faces: the models alone, as fast as they ran during this measurement.
    pub models_ms: f64,
    /// What everything around the models took, of the warm-up also.
    pub io_cpu_ms: IoCpuMs,
    /// Processor milliseconds a request, in programs and in the kernel, that the load generator itself
    /// took from the end of the warm-up to the last answer, polling and observers included.
    pub generator_cpu_ms: Option<f64>,
    /// At a constant rate, how well it was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sending: Option<Sending>,
    /// From the first submission to the first answer, with no instance running before; in seconds, as
    /// all that follow.
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
    /// Photographs measured.
    pub requests: usize,
    /// Photographs sent before them.
    pub warm_up: usize,
    /// All of them, in any order.
    pub sent: Vec<Sent>,
    /// Whether they were due at times of their own.
    pub constant_rate: bool,
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
    /// The load generator's processor time since the end of the warm-up.
    pub generator_cpu: Option<Duration>,
    /// With and without observers.
    pub observed: Option<Observed>,
}

impl Figures {
    /// Computes the figures.
    pub fn new(measured: &Measurements) -> Self {
        let mut ended: Vec<_> = measured.sent.iter().filter(|one| one.was_sent()).collect();
        ended.sort_unstable_by_key(|one| one.end);
        let answered = ended.iter().filter(|one| one.is_answered()).count();
        let last_answer = ended.last().map_or(Duration::ZERO, |one| one.end);
        let warm = match measured.warm_up.checked_sub(1) {
            None => Duration::ZERO,
            Some(last) => ended.get(last).map_or(last_answer, |one| one.end),
        };
        let after_warm_up = ended.get(measured.warm_up..).unwrap_or_default();
        let answered_warm = after_warm_up.iter().filter(|one| one.is_answered());

        let counted = || {
            let counts = |one: &&Sent| one.number >= measured.warm_up;
            measured.sent.iter().filter(counts)
        };
        let latencies: Vec<_> = counted()
            .filter(|one| one.is_answered())
            .map(|one| one.latency)
            .collect();
        let models_ms: Vec<_> = counted()
            .filter_map(|one| match one.answer {
                Answer::Faces(ms) => Some(ms),
                _ => None,
            })
            .collect();
        let each = |used: Duration, of: usize| round(millis(used) / of.max(1) as f64);
        Self {
            requests: measured.requests,
            errors: measured.sent.len() - answered,
            no_face: counted().filter(|one| one.answer == Answer::NoFace).count(),
            throughput_rps: match (last_answer - warm).as_secs_f64() {
                0.0 => 0.0,
                seconds => round(answered_warm.count() as f64 / seconds),
            },
            latency_ms: LatencyMs::of(&latencies),
            models_ms: round(models_ms.iter().sum::<f64>() / models_ms.len().max(1) as f64),
            io_cpu_ms: IoCpuMs {
                web: measured.web_cpu.map(|used| each(used, answered)),
                workers: measured.worker_cpu.map(|used| each(used, answered)),
                http: measured.http_cpu.map(|used| each(used, 1)),
            },
            generator_cpu_ms: measured
                .generator_cpu
                .map(|used| each(used, after_warm_up.len())),
            sending: measured.constant_rate.then(|| {
                let lags = || counted().filter(|one| one.was_sent()).map(|one| one.lag);
                Sending {
                    late_percent: round(
                        100.0 * lags().filter(|lag| *lag >= LATE).count() as f64
                            / lags().count().max(1) as f64,
                    ),
                    worst_lag_ms: round(millis(lags().max().unwrap_or_default())),
                    not_sent: measured.sent.len() - ended.len(),
                }
            }),
            first_answer_s: round(ended.first().map_or(0.0, |one| one.end.as_secs_f64())),
            scale_out_s: round(measured.scale_out.as_secs_f64()),
            peak_instances: measured.peak_instances,
            scale_in_s: round(measured.scale_in.as_secs_f64()),
            observed: measured.observed,
        }
    }

    /// The medians of repetitions, figure by figure, whole numbers rounded down; errors and requests
    /// that were not sent are added up. `None` of none.
    pub fn medians(all: &[Self]) -> Option<Self> {
        let first = all.first()?;
        let known = |read: &dyn Fn(&Self) -> Option<f64>| {
            let spread = Spread::of(all.iter().filter_map(read));
            spread.map(|spread| round(spread.median))
        };
        let real = |read: fn(&Self) -> f64| known(&|one| Some(read(one))).unwrap_or_default();
        let whole = |read: fn(&Self) -> usize| whole_median(all.iter().map(read));
        Some(Self {
            requests: first.requests,
            errors: all.iter().map(|one| one.errors).sum(),
            no_face: whole(|one| one.no_face),
            throughput_rps: real(|one| one.throughput_rps),
            latency_ms: LatencyMs {
                avg: real(|one| one.latency_ms.avg),
                p50: real(|one| one.latency_ms.p50),
                p95: real(|one| one.latency_ms.p95),
                p99: real(|one| one.latency_ms.p99),
                max: real(|one| one.latency_ms.max),
            },
            models_ms: real(|one| one.models_ms),
            io_cpu_ms: IoCpuMs {
                web: known(&|one| one.io_cpu_ms.web),
                workers: known(&|one| one.io_cpu_ms.workers),
                http: known(&|one| one.io_cpu_ms.http),
            },
            generator_cpu_ms: known(&|one| one.generator_cpu_ms),
            sending: first.sending.map(|_| Sending {
                late_percent: known(&|one| Some(one.sending?.late_percent)).unwrap_or_default(),
                worst_lag_ms: known(&|one| Some(one.sending?.worst_lag_ms)).unwrap_or_default(),
                not_sent: all
                    .iter()
                    .filter_map(|one| Some(one.sending?.not_sent))
                    .sum(),
            }),
            first_answer_s: real(|one| one.first_answer_s),
            scale_out_s: real(|one| one.scale_out_s),
            peak_instances: whole_median(all.iter().map(|one| one.peak_instances as usize)) as u64,
            scale_in_s: real(|one| one.scale_in_s),
            observed: first.observed.map(|observed| {
                let seen = || all.iter().filter_map(|one| one.observed);
                Observed {
                    viewers: observed.viewers,
                    latency_ms: known(&|one| Some(one.observed?.latency_ms)).unwrap_or_default(),
                    alone_ms: known(&|one| Some(one.observed?.alone_ms)).unwrap_or_default(),
                    answers: (
                        whole_median(seen().map(|one| one.answers.0)),
                        whole_median(seen().map(|one| one.answers.1)),
                    ),
                }
            }),
        })
    }
}

/// The median of whole numbers, rounded down; 0 of none.
fn whole_median(values: impl Iterator<Item = usize>) -> usize {
    Spread::of(values.map(|value| value as f64)).map_or(0, |spread| spread.median as usize)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn sent(number: usize, latency: u64, end: u64, answer: Answer) -> Sent {
        Sent {
            number,
            latency: MS(latency),
            lag: Duration::ZERO,
            end: MS(end),
            answer,
        }
    }

    fn measurements(sent: Vec<Sent>) -> Measurements {
        Measurements {
            requests: sent.len(),
            sent,
            scale_out: MS(400),
            peak_instances: 2,
            scale_in: MS(1100),
            worker_cpu: Some(MS(150)),
            http_cpu: Some(MS(1)),
            generator_cpu: Some(MS(202)),
            ..Measurements::default()
        }
    }

    #[test]
    fn the_figures_are_computed_as_documented() {
        let mut all: Vec<_> = (0..98)
            .map(|n| sent(n, n as u64 + 1, 300 + 10 * n as u64, Answer::NoFace))
            .collect();
        all.push(sent(98, 99, 1900, Answer::Faces(10.0)));
        all.push(sent(99, 100, 2000, Answer::Faces(20.0)));
        all.push(sent(100, 1, 1500, Answer::Error("503".to_owned())));
        let figures = Figures::new(&measurements(all));
        let io = IoCpuMs {
            web: None,
            workers: Some(1.5),
            http: Some(1.0),
        };
        assert_eq!(
            (figures.io_cpu_ms, figures.generator_cpu_ms),
            (io, Some(2.0))
        );
        assert_eq!((figures.requests, figures.errors), (101, 1));
        assert_eq!((figures.throughput_rps, figures.models_ms), (50.0, 15.0));
        let latency = figures.latency_ms;
        assert_eq!((latency.avg, latency.max), (50.5, 100.0));
        assert_eq!((figures.first_answer_s, figures.scale_in_s), (0.3, 1.1));
        assert_eq!((figures.no_face, figures.sending), (98, None));
    }

    #[test]
    fn the_warm_up_counts_for_errors_and_elasticity_alone() {
        let error = || Answer::Error("429".to_owned());
        let all = vec![
            sent(0, 900, 900, Answer::Faces(90.0)),
            sent(1, 1000, 1000, error()),
            // Sent within the warm-up, answered after it.
            sent(2, 1100, 1100, Answer::NoFace),
            // The other way round.
            sent(3, 50, 950, Answer::Faces(10.0)),
            sent(4, 60, 1500, Answer::Faces(20.0)),
            sent(5, 70, 2000, error()),
        ];
        let figures = Figures::new(&Measurements {
            requests: 3,
            warm_up: 3,
            generator_cpu: Some(MS(9)),
            ..measurements(all)
        });
        assert_eq!((figures.requests, figures.errors), (3, 2));
        assert_eq!(
            (figures.latency_ms.avg, figures.latency_ms.max),
            (55.0, 60.0)
        );
        assert_eq!((figures.models_ms, figures.no_face), (15.0, 0));
        // The warm-up ends with the third answer, at 1.0 s; two of three answers after it are right.
        assert_eq!(
            (figures.throughput_rps, figures.generator_cpu_ms),
            (2.0, Some(3.0))
        );
        assert_eq!((figures.first_answer_s, figures.scale_out_s), (0.9, 0.4));
    }

    #[test]
    fn what_was_sent_late_or_never_is_said() {
        let late = |number, lag| Sent {
            lag: MS(lag),
            ..sent(number, lag + 5, 100, Answer::NoFace)
        };
        let mut all = vec![
            late(0, 500),
            late(1, 9),
            late(2, 10),
            late(3, 40),
            late(4, 0),
        ];
        all.push(sent(5, 0, 0, Answer::NotSent(7)));
        let figures = Figures::new(&Measurements {
            requests: 5,
            warm_up: 1,
            constant_rate: true,
            ..measurements(all)
        });
        let sending = Sending {
            late_percent: 50.0,
            worst_lag_ms: 40.0,
            not_sent: 1,
        };
        assert_eq!((figures.sending, figures.errors), (Some(sending), 1));
        assert_eq!(
            figures.first_answer_s, 0.1,
            "what was not sent was not answered"
        );
    }

    #[test]
    fn nothing_answered_is_zero_not_a_panic() {
        let none = Figures::new(&Measurements::default());
        assert_eq!((none.throughput_rps, none.latency_ms.max), (0.0, 0.0));
        let refused = (0..5).map(|n| sent(n, 1, 1, Answer::NotSent(1))).collect();
        let refused = Figures::new(&Measurements {
            warm_up: 2,
            ..measurements(refused)
        });
        assert_eq!((refused.throughput_rps, refused.errors), (0.0, 5));
    }

    #[test]
    fn medians_are_of_each_figure_and_errors_are_added_up() {
        let one = |throughput, p99, workers, errors, peak| {
            let figures = Figures::new(&measurements(Vec::new()));
            Figures {
                requests: 10,
                errors,
                throughput_rps: throughput,
                latency_ms: LatencyMs {
                    p99,
                    ..LatencyMs::default()
                },
                io_cpu_ms: IoCpuMs {
                    workers,
                    ..figures.io_cpu_ms
                },
                peak_instances: peak,
                ..figures
            }
        };
        let all = [
            one(60.0, 3.0, Some(1.0), 1, 2),
            one(70.0, 1.0, None, 0, 3),
            one(50.0, 2.0, Some(2.0), 4, 2),
        ];
        let medians = Figures::medians(&all).unwrap();
        assert_eq!(
            (medians.throughput_rps, medians.latency_ms.p99),
            (60.0, 2.0)
        );
        assert_eq!((medians.errors, medians.requests), (5, 10));
        assert_eq!(medians.io_cpu_ms.workers, Some(1.5));
        assert_eq!(Figures::medians(&all[..2]).unwrap().peak_instances, 2);
        assert_eq!(Figures::medians(&all[..1]), Some(all[0]));
        assert_eq!(Figures::medians(&[]), None);
    }
}
