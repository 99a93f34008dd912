//! The throughput at which the waiting photographs are answered.

use std::time::{Duration, Instant};

/// Time of work after which it counts half in [`Throughput`]'s throughput.
const HALF_LIFE: Duration = Duration::from_secs(10);

/// The throughput at which a backlog is worked off, over the time in which there was one.
///
/// Answers and busy time both fade with a half-life of busy time, so that the quotient follows a
/// fleet that grows, and a pause without work changes nothing.
#[derive(Debug)]
pub struct Throughput {
    answers: f64,
    busy_s: f64,
    waiting: usize,
    at: Instant,
}

impl Throughput {
    /// A throughput of which nothing was measured yet.
    pub fn new(now: Instant) -> Self {
        Self {
            answers: 0.0,
            busy_s: 0.0,
            waiting: 0,
            at: now,
        }
    }

    /// Records that one more waits.
    pub fn begun(&mut self, now: Instant) {
        self.advance(now);
        self.waiting += 1;
    }

    /// Records that one waits no more, whether it was answered or gave up.
    pub fn ended(&mut self, answered: bool, now: Instant) {
        self.advance(now);
        self.waiting = self.waiting.saturating_sub(1);
        if answered {
            self.answers += 1.0;
        }
    }

    fn advance(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        if self.waiting > 0 {
            let weight = 0.5_f64.powf(passed / HALF_LIFE.as_secs_f64());
            self.answers *= weight;
            self.busy_s = self.busy_s * weight + passed;
        }
    }

    /// How long what waits now will take at the throughput seen; `None` where no answer was seen
    /// yet.
    pub fn time(&mut self, now: Instant) -> Option<Duration> {
        self.advance(now);
        if self.answers < 0.5 || self.busy_s <= 0.0 {
            return None;
        }
        let seconds = self.waiting as f64 * self.busy_s / self.answers;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(s: f64) -> Duration {
        Duration::from_secs_f64(s)
    }

    #[test]
    fn a_backlog_takes_as_long_as_its_throughput_says() {
        let begin = Instant::now();
        let mut throughput = Throughput::new(begin);
        for _ in 0..200 {
            throughput.begun(begin);
        }
        assert_eq!(
            throughput.time(begin + seconds(1.0)),
            None,
            "nothing was seen yet"
        );
        // Ten a second for ten seconds: a hundred are left, for ten seconds more.
        for n in 1..=100 {
            throughput.ended(true, begin + seconds(f64::from(n) / 10.0));
        }
        let left = throughput
            .time(begin + seconds(10.0))
            .unwrap()
            .as_secs_f64();
        assert!((9.0..=11.5).contains(&left), "{left}");
        // Those that give up leave the backlog, and are no throughput.
        for _ in 0..50 {
            throughput.ended(false, begin + seconds(10.0));
        }
        let half = throughput
            .time(begin + seconds(10.0))
            .unwrap()
            .as_secs_f64();
        assert!((half - left / 2.0).abs() < 0.01, "{half} of {left}");
    }

    #[test]
    fn a_pause_is_no_slowness_and_a_faster_fleet_is_noticed() {
        let begin = Instant::now();
        let mut throughput = Throughput::new(begin);
        let work = |throughput: &mut Throughput, from: f64, count: u32, each: f64| {
            for _ in 0..count {
                throughput.begun(begin + seconds(from));
            }
            for n in 1..=count {
                throughput.ended(true, begin + seconds(from + f64::from(n) * each));
            }
        };
        work(&mut throughput, 0.0, 50, 0.1);
        let of_hundred = |throughput: &mut Throughput, at: f64| {
            let now = begin + seconds(at);
            for _ in 0..100 {
                throughput.begun(now);
            }
            let time = throughput.time(now).unwrap().as_secs_f64();
            for _ in 0..100 {
                throughput.ended(false, now);
            }
            time
        };
        let before = of_hundred(&mut throughput, 5.0);
        let after_an_hour = of_hundred(&mut throughput, 3605.0);
        assert!((before - after_an_hour).abs() < 0.01);
        assert!((before - 10.0).abs() < 1.0, "{before}");
        // Five times as fast for half a minute.
        work(&mut throughput, 4000.0, 1500, 0.02);
        let faster = of_hundred(&mut throughput, 4030.0);
        assert!((1.8..=3.0).contains(&faster), "{faster}");
    }
}
