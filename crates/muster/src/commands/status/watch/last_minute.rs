//! The last minute of a service, as charts show it.

use std::collections::VecDeque;

use muster_api::events::{History, Sample};

/// Milliseconds that one column of a chart stands for.
const COLUMN_MS: u64 = 2000;
/// Columns of a chart.
const COLUMNS: usize = 30;

/// One moment, as far as charts show it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Point {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Requests that wait or are worked on.
    pub backlog: u64,
    /// Instances of any state.
    pub instances: u64,
    /// Answers until then.
    pub answered: u64,
    /// 99th percentile of the latency, in milliseconds.
    pub p99: f64,
}

impl From<&Sample> for Point {
    fn from(sample: &Sample) -> Self {
        let fleet = &sample.fleet;
        Self {
            at_ms: sample.at_ms,
            backlog: sample.queue.visible + sample.queue.in_flight,
            instances: u64::from(fleet.pending + fleet.running + fleet.draining),
            answered: sample.requests.answered,
            p99: sample.latency_ms.p99.unwrap_or(0.0),
        }
    }
}

/// The points of a history.
pub fn points(history: &History) -> impl Iterator<Item = Point> {
    fn at<T: Copy + Into<u64>>(column: &VecDeque<T>, n: usize) -> u64 {
        column.get(n).map_or(0, |value| (*value).into())
    }
    history
        .at_ms
        .iter()
        .enumerate()
        .map(move |(n, at_ms)| Point {
            at_ms: *at_ms,
            backlog: at(&history.visible, n) + at(&history.in_flight, n),
            instances: at(&history.pending, n) + at(&history.running, n) + at(&history.draining, n),
            answered: at(&history.answered, n),
            p99: history.p99.get(n).copied().flatten().unwrap_or(0.0),
        })
}

/// The last minute.
#[derive(Debug, Default)]
pub struct LastMinute(VecDeque<Point>);

impl LastMinute {
    /// Adds a point, and forgets what is older than a chart.
    pub fn push(&mut self, point: Point) {
        // One more column, to count the first one's answers from.
        let oldest = point.at_ms.saturating_sub((COLUMNS as u64 + 1) * COLUMN_MS);
        while self.0.front().is_some_and(|first| first.at_ms < oldest) {
            self.0.pop_front();
        }
        self.0.push_back(point);
    }

    /// The greatest value of each column, oldest first.
    pub fn columns(&self, of: impl Fn(&Point) -> f64) -> Vec<f64> {
        let mut columns = vec![0.0; COLUMNS];
        let now = self.0.back().map_or(0, |last| last.at_ms);
        for point in &self.0 {
            let ago = (now.saturating_sub(point.at_ms) / COLUMN_MS) as usize;
            if let Some(place) = columns.len().checked_sub(ago + 1) {
                columns[place] = of(point).max(columns[place]);
            }
        }
        columns
    }

    /// Answers a second in each column.
    pub fn rates(&self) -> Vec<f64> {
        let mut rates = vec![0.0; COLUMNS];
        let now = self.0.back().map_or(0, |last| last.at_ms);
        for (before, point) in self.0.iter().zip(self.0.iter().skip(1)) {
            let ago = (now.saturating_sub(point.at_ms) / COLUMN_MS) as usize;
            if let Some(place) = rates.len().checked_sub(ago + 1) {
                let came = point.answered.saturating_sub(before.answered);
                rates[place] += came as f64 * 1e3 / COLUMN_MS as f64;
            }
        }
        rates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_minute_is_drawn_column_by_column() {
        let mut minute = LastMinute::default();
        // Ten answers a second, a backlog that grows and is gone after a minute and a half.
        for at in (0..120_000u64).step_by(250) {
            let backlog = if at < 90_000 { at / 1000 } else { 0 };
            minute.push(Point {
                at_ms: at,
                backlog,
                answered: at / 100,
                ..Point::default()
            });
        }
        let backlog = minute.columns(|point| point.backlog as f64);
        assert_eq!(backlog.len(), COLUMNS);
        assert_eq!((backlog[0], backlog[14], backlog[29]), (61.0, 89.0, 0.0));
        let rates = minute.rates();
        assert!(
            rates.iter().all(|rate| (9.0..=11.0).contains(rate)),
            "{rates:?}"
        );
    }
}
