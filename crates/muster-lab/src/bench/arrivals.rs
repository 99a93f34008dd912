//! When requests are sent: so many at one time, or so many a second whatever is answered.
//!
//! At a constant rate a request is due at its own time, and its latency counts from then. A service that
//! stalls, or a load generator that is late, makes every request late that was due meanwhile. In a closed
//! loop the same stall is seen by no more requests than are under way.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::ProgressBar;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::upload::Answer;
use muster_base::cpu;

/// How requests arrive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrivals {
    /// A closed loop: each is sent once another is answered.
    Closed {
        /// Requests under way at one time.
        concurrency: usize,
    },
    /// An open loop: each is sent when it is due.
    Constant {
        /// Requests a second.
        rate: f64,
        /// Most requests under way at one time; what is due beyond them is not sent.
        most: usize,
    },
}

/// A request and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    /// Its place in the order of sending, from 0.
    pub number: usize,
    /// From when it was due to its answer; in a closed loop it is due when it is sent.
    pub latency: Duration,
    /// From when it was due until it was sent.
    pub lag: Duration,
    /// When it was answered, from the beginning on.
    pub end: Duration,
    /// What came of it.
    pub answer: Answer,
}

impl Sent {
    /// Whether it was sent at all.
    pub fn was_sent(&self) -> bool {
        !matches!(self.answer, Answer::NotSent(_))
    }

    /// Whether it was answered as the contract has it.
    pub fn is_answered(&self) -> bool {
        matches!(self.answer, Answer::Faces(_) | Answer::NoFace)
    }
}

/// Counts what is answered, and reads this process's processor time where the warm-up ends.
#[derive(Debug)]
pub struct Meter {
    warm_up: usize,
    answered: AtomicUsize,
    bar: ProgressBar,
    /// The processor time at the end of the warm-up.
    warm: OnceLock<Option<Duration>>,
}

impl Meter {
    /// A meter of which the warm-up ends with the answers to so many requests.
    pub fn new(warm_up: usize, bar: ProgressBar) -> Self {
        let meter = Self {
            warm_up,
            answered: AtomicUsize::new(0),
            bar,
            warm: OnceLock::new(),
        };
        if warm_up == 0 {
            meter.warm.get_or_init(cpu::of_process);
        }
        meter
    }

    /// The processor time of this process since the end of the warm-up.
    pub fn cpu_since_warm_up(&self) -> Option<Duration> {
        cpu::of_process()?.checked_sub((*self.warm.get()?)?)
    }

    fn answered(&self) {
        self.bar.inc(1);
        if self.answered.fetch_add(1, Ordering::Relaxed) + 1 == self.warm_up {
            self.warm.get_or_init(cpu::of_process);
        }
    }
}

/// Sends so many requests, numbered from 0, as they arrive from `begun` on; returns once each has its
/// answer.
///
/// # Errors
/// When sending panics.
pub async fn send_all<S, F>(
    arrivals: Arrivals,
    requests: usize,
    begun: Instant,
    meter: &Arc<Meter>,
    send: S,
) -> anyhow::Result<Vec<Sent>>
where
    S: Fn(usize) -> F + Clone + Send + 'static,
    F: Future<Output = Answer> + Send,
{
    match arrivals {
        Arrivals::Closed { concurrency } => {
            Ok(closed(concurrency, requests, begun, meter, send).await)
        }
        Arrivals::Constant { rate, most } => {
            constant(rate, most, requests, begun, meter, send).await
        }
    }
}

async fn closed<S, F>(
    concurrency: usize,
    requests: usize,
    begun: Instant,
    meter: &Arc<Meter>,
    send: S,
) -> Vec<Sent>
where
    S: Fn(usize) -> F + Clone + Send + 'static,
    F: Future<Output = Answer> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut senders = JoinSet::new();
    for _ in 0..concurrency.min(requests) {
        let (next, meter, send) = (Arc::clone(&next), Arc::clone(meter), send.clone());
        senders.spawn(async move {
            let mut all = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= requests {
                    return all;
                }
                let sent = Instant::now();
                let answer = send(number).await;
                all.push(Sent {
                    number,
                    latency: sent.elapsed(),
                    lag: Duration::ZERO,
                    end: begun.elapsed(),
                    answer,
                });
                meter.answered();
            }
        });
    }
    senders.join_all().await.into_iter().flatten().collect()
}

async fn constant<S, F>(
    rate: f64,
    most: usize,
    requests: usize,
    begun: Instant,
    meter: &Arc<Meter>,
    send: S,
) -> anyhow::Result<Vec<Sent>>
where
    S: Fn(usize) -> F + Clone + Send + 'static,
    F: Future<Output = Answer> + Send,
{
    let room = Arc::new(Semaphore::new(most));
    let mut under_way = JoinSet::new();
    let mut all = Vec::with_capacity(requests);
    for number in 0..requests {
        let due = begun + due(rate, number);
        tokio::time::sleep_until(due.into()).await;
        while let Some(sent) = under_way.try_join_next() {
            all.push(sent.context("send a photograph")?);
        }
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            all.push(Sent {
                number,
                latency: Duration::ZERO,
                lag: due.elapsed(),
                end: begun.elapsed(),
                answer: Answer::NotSent(most),
            });
            meter.bar.inc(1);
            continue;
        };
        let (meter, send) = (Arc::clone(meter), send.clone());
        under_way.spawn(async move {
            let lag = due.elapsed();
            let answer = send(number).await;
            let sent = Sent {
                number,
                latency: due.elapsed(),
                lag,
                end: begun.elapsed(),
                answer,
            };
            meter.answered();
            drop(place);
            sent
        });
    }
    while let Some(sent) = under_way.join_next().await {
        all.push(sent.context("send a photograph")?);
    }
    Ok(all)
}

/// When a request is due at so many a second, from the beginning on.
fn due(rate: f64, number: usize) -> Duration {
    Duration::from_secs_f64(number as f64 / rate)
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;

    const RATE: f64 = 1000.0;

    fn meter(warm_up: usize) -> Arc<Meter> {
        Arc::new(Meter::new(warm_up, ProgressBar::hidden()))
    }

    /// Waits until so many are counted, then opens the gate and says when.
    async fn open_after(
        count: Arc<AtomicUsize>,
        enough: usize,
        gate: CancellationToken,
    ) -> Instant {
        while count.load(Ordering::SeqCst) < enough {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let opened = Instant::now();
        gate.cancel();
        opened
    }

    #[test]
    fn requests_are_due_at_equal_distances() {
        let times = [0, 1, 2, 40].map(|number| due(4.0, number).as_millis());
        assert_eq!(times, [0, 250, 500, 10_000]);
        assert_eq!(due(0.5, 3), Duration::from_secs(6));
    }

    #[tokio::test]
    async fn a_stall_makes_every_request_late_that_was_due_meanwhile() {
        // The service answers nothing from the twentieth request until the hundred after it are there:
        // they are sent although nothing is answered.
        const STALL: std::ops::Range<usize> = 20..120;
        let (gate, arrived) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
        let opened = tokio::spawn(open_after(Arc::clone(&arrived), STALL.len(), gate.clone()));
        let send = move |number: usize| {
            let (gate, arrived) = (gate.clone(), Arc::clone(&arrived));
            async move {
                if STALL.contains(&number) {
                    arrived.fetch_add(1, Ordering::SeqCst);
                    gate.cancelled().await;
                }
                Answer::NoFace
            }
        };
        let arrivals = Arrivals::Constant {
            rate: RATE,
            most: 1000,
        };
        let begun = Instant::now();
        let meter = meter(0);
        let sent = send_all(arrivals, 150, begun, &meter, send);
        let sent = tokio::time::timeout(Duration::from_secs(60), sent);
        let sent = sent.await.unwrap().unwrap();
        let opened = opened.await.unwrap();
        assert_eq!(sent.len(), 150);
        for one in sent.iter().filter(|one| STALL.contains(&one.number)) {
            let due = begun + due(RATE, one.number);
            assert!(one.latency >= opened.duration_since(due), "{one:?}");
        }
    }

    #[tokio::test]
    async fn a_late_load_generator_counts_from_when_the_request_was_due() {
        let late = Duration::from_secs(100);
        let begun = Instant::now().checked_sub(late).unwrap();
        let arrivals = Arrivals::Constant {
            rate: RATE,
            most: 1000,
        };
        let meter = meter(0);
        let sent = send_all(arrivals, 50, begun, &meter, async |_| Answer::NoFace);
        for one in sent.await.unwrap() {
            let behind = late - due(RATE, one.number);
            assert!(one.lag >= behind, "{one:?}");
            assert!(one.latency >= one.lag && one.end >= late, "{one:?}");
        }
    }

    #[tokio::test]
    async fn what_is_due_beyond_the_most_under_way_is_not_sent_and_said() {
        let (gate, meter) = (CancellationToken::new(), meter(0));
        let (open, bar) = (gate.clone(), meter.bar.clone());
        // The first three are answered once seven were not sent.
        let opening = tokio::spawn(async move {
            while bar.position() < 7 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            open.cancel();
        });
        let send = move |_| {
            let gate = gate.clone();
            async move {
                gate.cancelled().await;
                Answer::NoFace
            }
        };
        let arrivals = Arrivals::Constant {
            rate: RATE,
            most: 3,
        };
        let sent = send_all(arrivals, 10, Instant::now(), &meter, send);
        let sent = tokio::time::timeout(Duration::from_secs(60), sent);
        let sent = sent.await.unwrap().unwrap();
        opening.await.unwrap();
        let of = |answer: Answer| {
            let mut numbers: Vec<_> = sent.iter().filter(|one| one.answer == answer).collect();
            numbers.sort_unstable_by_key(|one| one.number);
            numbers.iter().map(|one| one.number).collect::<Vec<_>>()
        };
        assert_eq!(of(Answer::NoFace), [0, 1, 2]);
        assert_eq!(of(Answer::NotSent(3)), (3..10).collect::<Vec<_>>());
        assert_eq!(meter.answered.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_closed_loop_has_no_more_under_way_than_it_may() {
        let (now, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let seen = Arc::clone(&peak);
        let send = move |_| {
            let (now, peak) = (Arc::clone(&now), Arc::clone(&peak));
            async move {
                peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                now.fetch_sub(1, Ordering::SeqCst);
                Answer::NoFace
            }
        };
        let arrivals = Arrivals::Closed { concurrency: 4 };
        let sent = send_all(arrivals, 30, Instant::now(), &meter(0), send).await;
        let mut numbers: Vec<_> = sent.unwrap().iter().map(|one| one.number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..30).collect::<Vec<_>>());
        assert_eq!(seen.load(Ordering::SeqCst), 4);
    }

    #[test]
    fn processor_time_counts_from_the_end_of_the_warm_up() {
        let meter = meter(2);
        assert_eq!(meter.cpu_since_warm_up(), None);
        meter.answered();
        assert_eq!(meter.cpu_since_warm_up(), None);
        let before = cpu::of_process().unwrap();
        meter.answered();
        meter.answered();
        let warm = meter.warm.get().copied().flatten().unwrap();
        assert!(warm >= before, "{warm:?} {before:?}");
        assert!(meter.cpu_since_warm_up().is_some());
        assert!(self::meter(0).cpu_since_warm_up().is_some());
    }
}
