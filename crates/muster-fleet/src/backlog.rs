//! How many requests wait for an answer, from the web tiers' exact totals and the queue's
//! approximate counts.

use std::collections::VecDeque;
use std::time::Duration;

use crate::observation::{Observation, RequestTotals};

/// The queue's counts may exceed the truth by this many requests while requests come and go.
const COUNT_NOISE: u64 = 2;
/// Seconds, as the planner counts them.
type Seconds = f64;

/// Estimates the backlog from one observation after another.
#[derive(Clone, Debug, Default)]
pub(crate) struct BacklogEstimator {
    /// Since when the queue's counts are compared with the totals.
    compared_since: Option<Seconds>,
    /// `(second, requests on the queue that no web tier has counted)` within the time that counts
    /// may lag; each is less than the one after it, so the first is the least.
    uncounted: VecDeque<(Seconds, u64)>,
    /// The last totals, and since when they are so.
    quiet_since: Option<(Seconds, RequestTotals)>,
}

impl BacklogEstimator {
    /// Returns the requests submitted and not answered, as seen at `now`.
    ///
    /// That is what the web tiers' own totals say where there are any, and what the queue shows
    /// beyond them for longer than its counts may lag. One or two may be noise while requests come
    /// and go; once none has for that long the counts are exact. Without totals it is what the queue
    /// shows.
    pub(crate) fn estimate(
        &mut self,
        now: Seconds,
        observed: &Observation,
        count_lag: Duration,
    ) -> u64 {
        let counted = observed.visible + observed.in_flight;
        let Some(totals) = &observed.totals else {
            return counted;
        };
        let own = totals.submitted.saturating_sub(totals.answered);
        if count_lag.is_zero() {
            return own.max(counted);
        }
        let lag_s = count_lag.as_secs_f64();
        let begun = now - lag_s;
        let beyond = counted.saturating_sub(own);
        let (quiet_since, last) = *self.quiet_since.get_or_insert((now, *totals));
        if last != *totals {
            self.quiet_since = Some((now, *totals));
        }
        let is_exact = last == *totals && quiet_since <= begun;
        while self.uncounted.back().is_some_and(|(_, n)| *n >= beyond) {
            self.uncounted.pop_back();
        }
        self.uncounted.push_back((now, beyond));
        while self.uncounted.front().is_some_and(|(at, _)| *at < begun) {
            self.uncounted.pop_front();
        }
        let long_enough = *self.compared_since.get_or_insert(now) <= begun;
        let least = self.uncounted.front().map_or(0, |(_, n)| *n);
        if long_enough && (least > COUNT_NOISE || is_exact) {
            own + least
        } else {
            own
        }
    }
}
