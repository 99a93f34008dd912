//! Seasonal forecast: the instances that the same minute of every half-hour, hour or day needs.
//!
//! People and their schedulers start things by the clock. What was needed at the same minute of the
//! last half-hours, hours and days makes a pattern, and what followed that pattern before is expected
//! to follow it again; but only for as long as that keeps coming true, and more often than by chance.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// The resolution of `cron`, and of this forecast.
const MINUTE_S: f64 = 60.0;
/// Periods that things are scheduled by, in minutes.
const PERIODS: [u64; 3] = [30, 60, 24 * 60];
/// Periods looked back.
const LOOK_BACK: u64 = 2;
/// Minutes remembered.
const MINUTES: usize = (LOOK_BACK * PERIODS[PERIODS.len() - 1]) as usize;
/// Nothing is forecast before so many minutes were seen.
const MIN_MINUTES: usize = (LOOK_BACK * PERIODS[0]) as usize;
/// The share of a minute's requests that may be late: a tenth of the 1 % that a p99 allows, since the
/// rest goes to what no forecast knows.
const LATE_SHARE: f64 = 0.001;
/// A forecast is acted on while at least this share of forecasts like it came true: one of five.
const MIN_HIT_SHARE: f64 = 0.2;
/// And while its odds are at least this many times those of any minute.
const MIN_ODDS_RATIO: f64 = 2.0;
/// Forecasts, or minutes, after which one counts for a third.
const MEMORY: f64 = 100.0;
/// How far a forecast looks ahead at most, in seconds.
const HORIZON_S: f64 = 3600.0;

/// How many instances each minute of late needed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Season {
    /// The minute that is not over, counted from the epoch of the observations; none before the first.
    minute: Option<u64>,
    /// Instances needed in each minute before it, the newest last.
    needed: VecDeque<u16>,
    /// How often each level of the fleet was needed after each pattern of [`PERIODS`] that needed
    /// it; the first, of none, stands for all of them together.
    after: Vec<Vec<Tally>>,
    /// How often each level was needed at all.
    at_any_time: Vec<Tally>,
    /// Requests of this minute so far.
    #[serde(skip)]
    requests: f64,
    /// Fleets of one, two … instances that always run, and how they would serve these requests.
    #[serde(skip)]
    fleets: Vec<SimulatedFleet>,
}

/// A fleet that always runs.
#[derive(Clone, Copy, Debug, Default)]
struct SimulatedFleet {
    /// Requests that wait for it.
    waiting: f64,
    /// Requests of this minute that it would serve too late, and leaves to larger fleets.
    late: f64,
}

/// How often something was the case, the latest times counting most.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Tally(
    /// Hits.
    f64,
    /// Of so many.
    f64,
);

impl Tally {
    fn record(&mut self, hit: bool) {
        let kept = 1.0 - 1.0 / MEMORY;
        self.0 = self.0 * kept + if hit { 1.0 } else { 0.0 };
        self.1 = self.1 * kept + 1.0;
    }

    /// The share of hits, as if two more had been seen before with a share of `prior`; with a half
    /// this is Laplace's rule of succession.
    fn share(self, prior: f64) -> f64 {
        (self.0 + 2.0 * prior) / (self.1 + 2.0)
    }
}

fn odds(share: f64) -> f64 {
    share / (1.0 - share)
}

/// What one instance can do, and what is asked of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServiceModel {
    /// Requests that one instance serves in a second.
    pub(crate) rate: f64,
    /// Seconds that a request may wait.
    pub(crate) objective_s: f64,
    /// Largest fleet.
    pub(crate) max_instances: u32,
}

impl Season {
    /// Takes in the requests of the `elapsed` seconds until `now_s`.
    pub(crate) fn observe(
        &mut self,
        now_s: f64,
        elapsed: f64,
        requests: f64,
        service: ServiceModel,
    ) {
        self.advance_to((now_s / MINUTE_S) as u64);
        self.requests += requests;
        self.fleets
            .resize(service.max_instances as usize, SimulatedFleet::default());
        for (instances, fleet) in (1..).zip(&mut self.fleets) {
            let rate = service.rate * f64::from(instances);
            fleet.waiting = (fleet.waiting + requests - rate * elapsed).max(0.0);
            let late = (fleet.waiting - rate * service.objective_s).max(0.0);
            fleet.late += late;
            fleet.waiting -= late;
        }
    }

    /// Seconds from a time, in seconds, until the forecast may be another.
    pub(crate) fn until_next_minute_s(at_s: f64) -> f64 {
        MINUTE_S - at_s % MINUTE_S
    }

    /// Ends the minute, if another has begun. A clock that was set back lets it go on.
    fn advance_to(&mut self, minute: u64) {
        let over = *self.minute.get_or_insert(minute);
        if minute <= over {
            return;
        }
        let needed = self.needed_now();
        self.score(over, needed);
        self.push(needed);
        // Minutes that nobody saw needed nothing.
        for _ in (over + 1..minute).take(MINUTES) {
            self.push(0);
        }
        self.minute = Some(minute);
        self.requests = 0.0;
        for fleet in &mut self.fleets {
            fleet.late = 0.0;
        }
    }

    fn push(&mut self, needed: u16) {
        if self.needed.len() == MINUTES {
            self.needed.pop_front();
        }
        self.needed.push_back(needed);
    }

    /// The smallest fleet that would have kept the objective in the minute so far.
    fn needed_now(&self) -> u16 {
        if self.requests == 0.0 {
            return 0;
        }
        let enough = |fleet: &SimulatedFleet| fleet.late <= LATE_SHARE * self.requests;
        let smaller = self.fleets.iter().take_while(|fleet| !enough(fleet));
        let largest = self.fleets.len();
        (smaller.count() + 1).min(largest) as u16
    }

    /// Counts for each pattern whether the minute that ends needed what was forecast.
    fn score(&mut self, minute: u64, needed: u16) {
        let is_needed = |level: usize| level < usize::from(needed);
        let past = self.past(minute);
        let highest = usize::from(past.into_iter().max().unwrap_or(0).max(needed));
        if self.at_any_time.len() < highest {
            let never = Tally(0.0, self.at_any_time.first().map_or(0.0, |any| any.1));
            self.at_any_time.resize(highest, never);
            self.after.resize(highest, Vec::new());
        }
        for (level, tally) in self.at_any_time.iter_mut().enumerate() {
            tally.record(is_needed(level));
        }
        if self.needed.len() < MIN_MINUTES {
            return;
        }
        for (level, tallies) in self.after.iter_mut().enumerate() {
            let pattern = pattern(&past, level);
            if tallies.len() <= pattern {
                tallies.resize(pattern + 1, Tally::default());
            }
            if pattern != 0 {
                tallies[pattern].record(is_needed(level));
                tallies[0].record(is_needed(level));
            }
        }
    }

    /// Of each period, the most that the same minute of the last ones needed; nothing where nobody
    /// looked.
    fn past(&self, minute: u64) -> [u16; PERIODS.len()] {
        let at = |lag: u64| {
            let back = (self.minute? + lag).checked_sub(minute)?;
            let at = self.needed.len().checked_sub(usize::try_from(back).ok()?)?;
            self.needed.get(at).copied()
        };
        PERIODS.map(|period| {
            let lags = (1..=LOOK_BACK).map(|times| times * period);
            lags.filter_map(at).max().unwrap_or(0)
        })
    }

    /// Forecasts how many instances a time, in seconds, needs: the highest level whose forecast is
    /// credible, and half its square root more, in whole instances.
    ///
    /// A load that is the sum of many varies by the square root of its size (square-root staffing:
    /// Halfin and Whitt, "Heavy-traffic limits for queues with many exponential servers", 1981).
    pub(crate) fn forecast(&self, at_s: f64) -> u32 {
        if self.needed.len() < MIN_MINUTES {
            return 0;
        }
        let past = self.past((at_s / MINUTE_S) as u64);
        let highest = past.into_iter().max().unwrap_or(0);
        let credible = (0..usize::from(highest))
            .rev()
            .find(|level| self.is_credible(*level, pattern(&past, *level)));
        let level = credible.map_or(0, |level| level as u32 + 1);
        level + (f64::from(level).sqrt() / 2.0) as u32
    }

    fn is_credible(&self, level: usize, pattern: usize) -> bool {
        let tallies = self.after.get(level);
        let tally = |pattern| tallies.and_then(|t| t.get(pattern)).copied();
        // A pattern that was hardly seen is as good as all of them were.
        let any_pattern = tally(0).unwrap_or_default().share(0.5);
        let share = tally(pattern).unwrap_or_default().share(any_pattern);
        let any = self.at_any_time.get(level).copied().unwrap_or_default();
        share >= MIN_HIT_SHARE && odds(share) >= MIN_ODDS_RATIO * odds(any.share(0.5))
    }

    /// The most that any time from one to another, in seconds, is expected to need.
    pub(crate) fn max_forecast(&self, from_s: f64, to_s: f64) -> u32 {
        let to_s = to_s.min(from_s + HORIZON_S);
        let minutes = ((to_s - from_s) / MINUTE_S) as u32;
        (0..=minutes)
            .map(|n| self.forecast(from_s + f64::from(n) * MINUTE_S))
            .max()
            .unwrap_or(0)
            .max(self.forecast(to_s))
    }
}

/// Which of the past minutes needed a level, one bit for each.
fn pattern(past: &[u16; PERIODS.len()], level: usize) -> usize {
    let bits = past.iter().enumerate();
    bits.map(|(bit, needed)| usize::from(usize::from(*needed) > level) << bit)
        .sum()
}

#[cfg(test)]
mod tests {
    use rand_xoshiro::SplitMix64;
    use rand_xoshiro::rand_core::SeedableRng;

    use super::*;
    use crate::simulate::random::unit;

    const SERVICE: ServiceModel = ServiceModel {
        rate: 5.0,
        objective_s: 1.0,
        max_instances: 10,
    };

    /// Plays minutes of so many requests a second, evenly spread, from a minute on.
    fn play(season: &mut Season, from: u64, minutes: impl IntoIterator<Item = u32>) {
        for (minute, rate) in (from..).zip(minutes) {
            for second in 0..60 {
                let now_s = (minute * 60 + second) as f64;
                season.observe(now_s, 1.0, f64::from(rate), SERVICE);
            }
        }
    }

    /// So many hours, in each of which the 20th minute has the load given and the others none.
    fn after_hours(rates: &[u32]) -> Season {
        let mut season = Season::default();
        for (hour, rate) in (0..).zip(rates) {
            let minutes = (0..60).map(|minute| if minute == 20 { *rate } else { 0 });
            play(&mut season, 60 * hour, minutes);
        }
        season
    }

    fn in_the_next_hour(season: &Season, hours: u64) -> Vec<u32> {
        (60 * hours + 1..60 * (hours + 1))
            .map(|minute| season.forecast((minute * 60) as f64))
            .collect()
    }

    #[test]
    fn a_minute_needs_the_smallest_fleet_that_keeps_the_objective() {
        let mut season = Season::default();
        play(&mut season, 0, [0, 4, 6, 12, 1000, 0]);
        assert_eq!(season.needed, [0, 1, 2, 3, 10]);
        // A burst that one instance serves within the objective, and one that takes five.
        let mut season = Season::default();
        season.observe(1.0, 1.0, 8.0, SERVICE);
        season.observe(61.0, 60.0, 25.0, SERVICE);
        season.observe(121.0, 60.0, 0.0, SERVICE);
        assert_eq!(season.needed[0], 1);
    }

    #[test]
    fn what_came_at_the_same_minute_is_expected_again() {
        let regular = after_hours(&[12, 12]);
        let expected = in_the_next_hour(&regular, 2);
        assert_eq!(expected.iter().position(|n| *n > 0), Some(19));
        assert_eq!(expected[19], 3);
        assert!(expected[20..].iter().all(|n| *n == 0));
        let kept = serde_json::to_string(&regular).unwrap();
        let restarted: Season = serde_json::from_str(&kept).unwrap();
        assert_eq!(in_the_next_hour(&restarted, 2), expected);
    }

    #[test]
    fn what_stops_is_soon_no_longer_expected() {
        let stopped = after_hours(&[12, 12, 12, 0, 0]);
        assert!(in_the_next_hour(&stopped, 5).iter().all(|n| *n == 0));
    }

    #[test]
    fn a_large_burst_is_expected_a_little_larger() {
        let regular = after_hours(&[33, 33]);
        assert_eq!(in_the_next_hour(&regular, 2)[19], 7 + 1);
    }

    #[test]
    fn a_load_without_a_pattern_is_not_expected() {
        let mut random = SplitMix64::seed_from_u64(3);
        let mut season = Season::default();
        let minutes = (0..50 * 60).map(|_| if unit(&mut random) < 0.2 { 12 } else { 0 });
        play(&mut season, 0, minutes);
        let expected = in_the_next_hour(&season, 50);
        let launches = expected.iter().filter(|n| **n > 0).count();
        assert!(launches <= 6, "{launches} of 60 minutes");
    }

    #[test]
    fn a_clock_that_begins_late_or_is_set_harms_nothing() {
        let mut season = Season::default();
        season.observe(1e9, 1.0, 5.0, SERVICE);
        season.observe(1e9 + 60.0, 1.0, 5.0, SERVICE);
        assert_eq!(season.needed, [1], "nobody looked before");
        let mut season = after_hours(&[12, 12]);
        season.observe(60.0, 1.0, 5.0, SERVICE);
        assert_eq!(in_the_next_hour(&season, 2)[19], 3, "set back");
        season.observe(1e9, 1.0, 5.0, SERVICE);
        assert!(season.needed.len() <= MINUTES);
        assert_eq!(season.forecast(1e9 + 60.0), 0);
    }
}
