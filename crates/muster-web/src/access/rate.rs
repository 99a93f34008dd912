//! Token buckets.
//!
//! Not `governor`: here a rate is any number of a key, the time until the next token is answered, and a
//! test says what time it is; its keyed store and clocks would be four more crates.

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
    /// A full bucket. `rate` is more than 0, `burst` at least 1.
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
    }
}
