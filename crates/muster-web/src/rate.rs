//! How fast things come and go: token buckets, and the time until a backlog is gone.

use std::time::{Duration, Instant};

/// A token bucket: it holds `burst` tokens at most, is full at first and gains `rate` tokens a
/// second; each request takes one.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// A full one. `rate` is more than 0, `burst` at least 1.
    pub fn new(rate: f64, burst: f64, now: Instant) -> Self {
        Self {
            rate,
            burst,
            tokens: burst,
            at: now,
        }
    }

    /// Whether it has that rate and burst.
    pub fn is_of(&self, rate: f64, burst: f64) -> bool {
        (self.rate, self.burst) == (rate, burst)
    }

    /// Takes a token.
    ///
    /// # Errors
    /// With the time until there is one.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.rate;
        self.tokens = (self.tokens + gained).min(self.burst);
        self.at = self.at.max(now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        let wait = (1.0 - self.tokens) / self.rate;
        Err(Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX))
    }
}

/// Time of work after which it counts half in [`Drain`]'s throughput.
const HALF_LIFE: Duration = Duration::from_secs(10);

/// The throughput at which a backlog is worked off, over the time in which there was one.
///
/// Answers and busy time both fade with a half-life of busy time, so that the quotient follows a
/// fleet that grows, and a pause without work changes nothing.
#[derive(Debug)]
pub struct Drain {
    answers: f64,
    busy_s: f64,
    waiting: usize,
    at: Instant,
}

impl Drain {
    /// Nothing waits, and nothing was seen.
    pub fn new(now: Instant) -> Self {
        Self {
            answers: 0.0,
            busy_s: 0.0,
            waiting: 0,
            at: now,
        }
    }

    /// Notes that one more waits.
    pub fn begun(&mut self, now: Instant) {
        self.advance(now);
        self.waiting += 1;
    }

    /// Notes that one waits no more, whether it was answered or gave up.
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
            let kept = 0.5_f64.powf(passed / HALF_LIFE.as_secs_f64());
            self.answers *= kept;
            self.busy_s = self.busy_s * kept + passed;
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

/// Whole seconds to wait for, as `Retry-After` has them: at least one.
pub fn whole_seconds(wait: Duration) -> u64 {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    seconds.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(s: f64) -> Duration {
        Duration::from_secs_f64(s)
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let begin = Instant::now();
        let mut bucket = Bucket::new(2.0, 3.0, begin);
        for _ in 0..3 {
            assert_eq!(bucket.take(begin), Ok(()));
        }
        assert_eq!(bucket.take(begin), Err(seconds(0.5)));
        assert_eq!(bucket.take(begin + seconds(0.25)), Err(seconds(0.25)));
        assert_eq!(bucket.take(begin + seconds(0.5)), Ok(()));
        // However long nothing comes, no more than the burst is saved up.
        let later = begin + seconds(3600.0);
        let taken = (0..10).filter(|_| bucket.take(later).is_ok()).count();
        assert_eq!(taken, 3);
        assert_eq!(whole_seconds(seconds(0.2)), 1);
        assert_eq!(whole_seconds(seconds(2.0)), 2);
        assert_eq!(whole_seconds(seconds(2.1)), 3);
    }

    #[test]
    fn a_backlog_takes_as_long_as_its_throughput_says() {
        let begin = Instant::now();
        let mut drain = Drain::new(begin);
        for _ in 0..200 {
            drain.begun(begin);
        }
        assert_eq!(
            drain.time(begin + seconds(1.0)),
            None,
            "nothing was seen yet"
        );
        // Ten a second for ten seconds: a hundred are left, for ten seconds more.
        for n in 1..=100 {
            drain.ended(true, begin + seconds(f64::from(n) / 10.0));
        }
        let left = drain.time(begin + seconds(10.0)).unwrap().as_secs_f64();
        assert!((9.0..=11.5).contains(&left), "{left}");
        // Those that give up leave the backlog, and are no throughput.
        for _ in 0..50 {
            drain.ended(false, begin + seconds(10.0));
        }
        let half = drain.time(begin + seconds(10.0)).unwrap().as_secs_f64();
        assert!((half - left / 2.0).abs() < 0.01, "{half} of {left}");
    }

    #[test]
    fn a_pause_is_no_slowness_and_a_faster_fleet_is_noticed() {
        let begin = Instant::now();
        let mut drain = Drain::new(begin);
        let work = |drain: &mut Drain, from: f64, count: u32, each: f64| {
            for _ in 0..count {
                drain.begun(begin + seconds(from));
            }
            for n in 1..=count {
                drain.ended(true, begin + seconds(from + f64::from(n) * each));
            }
        };
        work(&mut drain, 0.0, 50, 0.1);
        let of_hundred = |drain: &mut Drain, at: f64| {
            let now = begin + seconds(at);
            for _ in 0..100 {
                drain.begun(now);
            }
            let time = drain.time(now).unwrap().as_secs_f64();
            for _ in 0..100 {
                drain.ended(false, now);
            }
            time
        };
        let before = of_hundred(&mut drain, 5.0);
        let after_an_hour = of_hundred(&mut drain, 3605.0);
        assert!((before - after_an_hour).abs() < 0.01);
        assert!((before - 10.0).abs() < 1.0, "{before}");
        // Five times as fast for half a minute.
        work(&mut drain, 4000.0, 1500, 0.02);
        let faster = of_hundred(&mut drain, 4030.0);
        assert!((1.8..=3.0).contains(&faster), "{faster}");
    }
}
