//! The queue's counts as they were: what is told of them lags behind.

use std::collections::VecDeque;

/// How many counts of the time that they lag are kept; those in between are told a little too early.
const KEPT: f64 = 10_000.0;

/// How many requests there were at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counts {
    /// Requests that wait.
    pub visible: u64,
    /// Requests in service.
    pub in_flight: u64,
    /// Seconds that requests had waited and been served until then, all together.
    pub request_s: f64,
}

impl Counts {
    /// What they become in `elapsed_s` seconds without a change.
    fn after(self, elapsed_s: f64) -> Self {
        let requests = (self.visible + self.in_flight) as f64;
        Self {
            request_s: self.request_s + requests * elapsed_s,
            ..self
        }
    }
}

/// Every change of the counts within the time that they lag behind.
#[derive(Clone, Debug)]
pub(super) struct CountHistory {
    lag_s: f64,
    /// `(second, counts from then on)`; the first is the last one that whoever looks may be told.
    changes: VecDeque<(f64, Counts)>,
}

impl CountHistory {
    pub fn new(lag_s: f64) -> Self {
        Self {
            lag_s,
            changes: VecDeque::from([(0.0, Counts::default())]),
        }
    }

    /// Takes down that the counts have changed.
    pub fn record(&mut self, now_s: f64, visible: u64, in_flight: u64) {
        let Some((last_s, last)) = self.changes.back_mut() else {
            return;
        };
        if (last.visible, last.in_flight) == (visible, in_flight) {
            return;
        }
        if now_s - *last_s <= self.lag_s / KEPT && *last_s > 0.0 {
            (last.visible, last.in_flight) = (visible, in_flight);
            return;
        }
        let counts = Counts {
            visible,
            in_flight,
            ..last.after(now_s - *last_s)
        };
        self.changes.push_back((now_s, counts));
        self.forget(now_s);
    }

    /// Returns the counts as they were so long ago.
    pub fn told(&mut self, now_s: f64) -> Counts {
        self.forget(now_s);
        let as_of = now_s - self.lag_s;
        self.changes
            .front()
            .map_or(Counts::default(), |(at, counts)| {
                counts.after((as_of - at).max(0.0))
            })
    }

    fn forget(&mut self, now_s: f64) {
        let as_of = now_s - self.lag_s;
        while self.changes.get(1).is_some_and(|(at, _)| *at <= as_of) {
            self.changes.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_was_and_the_time_that_requests_took() {
        let mut history = CountHistory::new(10.0);
        history.record(100.0, 4, 0);
        history.record(103.0, 2, 2);
        history.record(106.0, 0, 1);
        for (now, visible, in_flight, request_s) in [
            (0.0, 0, 0, 0.0),
            (109.9, 0, 0, 0.0),
            // As of 100 s, 102 s, 105 s (4 requests for 5 s), 106 s and 116 s.
            (110.0, 4, 0, 0.0),
            (112.0, 4, 0, 8.0),
            (115.0, 2, 2, 20.0),
            (116.0, 0, 1, 24.0),
            (126.0, 0, 1, 34.0),
        ] {
            let told = history.told(now);
            assert_eq!(
                (told.visible, told.in_flight),
                (visible, in_flight),
                "{now}"
            );
            assert!((told.request_s - request_s).abs() < 1e-9, "{now}: {told:?}");
        }
    }

    #[test]
    fn a_million_changes_within_the_lag_take_bounded_memory() {
        let mut history = CountHistory::new(60.0);
        for change in 0..1_000_000u64 {
            history.record(change as f64 * 1e-4, change, 0);
            assert!(history.changes.len() as f64 <= KEPT + 2.0);
        }
        // As of 39.9999 s, to within 6 ms.
        let told = history.told(99.9999).visible;
        assert!((399_999..399_999 + 61).contains(&told), "{told}");
    }

    #[test]
    fn without_a_lag_the_counts_are_those_of_now() {
        let mut history = CountHistory::new(0.0);
        history.record(1.0, 1, 0);
        history.record(1.0, 0, 1);
        assert_eq!(history.told(1.0).in_flight, 1);
        assert_eq!(history.told(3.0).request_s, 2.0);
    }
}
