//! Seasonal forecast: the instances that the same minute of every half-hour, hour, day or week needs.
//!
//! People and their schedulers start things by the clock. What was needed at the same minute of the
//! last half-hours, hours, days and weeks makes a pattern, and what followed that pattern before is expected
//! to follow it again; but only for as long as that keeps coming true, and more often than by chance.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// The resolution of `cron`, and of this forecast.
const MINUTE_S: f64 = 60.0;
/// Periods that things are scheduled by, in minutes. Each has its bit of a pattern, which is stored: a
/// new one goes to the end.
const PERIODS: [u64; 4] = [30, 60, 24 * 60, 7 * 24 * 60];
/// Periods looked back.
const LOOK_BACK: u64 = 2;
/// Minutes remembered: two weeks, of two bytes each.
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
/// Minutes within which nearly every launch is ready, and what is billed at least is over.
const KEPT_AHEAD: u64 = 5;

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
    /// Fleets of one, two … instances that always run, and how they would serve these requests; those
    /// that are larger have nothing waiting and nothing late.
    #[serde(skip)]
    fleets: Vec<SimulatedFleet>,
    /// The largest fleet.
    #[serde(skip)]
    max_instances: usize,
    /// The forecasts for the minute that is not over and for [`KEPT_AHEAD`] more: what they follow from
    /// changes once a minute, and plans ask for them many times a second.
    #[serde(skip)]
    ahead: Vec<u32>,
}

/// A fleet that always runs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SimulatedFleet {
    /// Requests that wait for it.
    waiting: f64,
    /// Requests of this minute that it would serve too late, and leaves to larger fleets.
    late: f64,
}

impl SimulatedFleet {
    /// Serves the requests of so many seconds with so many instances; answers how many of them it serves
    /// too late, which it leaves to larger fleets.
    pub(crate) fn serve(
        &mut self,
        instances: f64,
        requests: f64,
        elapsed: f64,
        in_service: f64,
        service: &ServiceModel,
    ) -> f64 {
        let rate = instances * service.slots / service.service_s;
        self.waiting = (self.waiting + requests - rate * elapsed).max(0.0);
        // Free slots begin as many at once as they serve in a service time; until they are free again,
        // no more.
        let by_rate = self.waiting - rate * service.objective_s.max(service.service_s);
        let at_once = (in_service - instances * service.begun_in_time()).min(requests);
        let late = by_rate.max(at_once).max(0.0).min(self.waiting);
        self.waiting -= late;
        late
    }
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
    /// Seconds that a request takes of one slot, and how many slots an instance has.
    pub(crate) service_s: f64,
    pub(crate) slots: f64,
    /// Seconds that a request may wait.
    pub(crate) objective_s: f64,
    /// Largest fleet.
    pub(crate) max_instances: u32,
}

impl ServiceModel {
    /// Requests that one instance begins within the objective: one a slot at once, and one each service
    /// time.
    fn begun_in_time(&self) -> f64 {
        self.slots * (1.0 + self.objective_s / self.service_s)
    }
}

impl Season {
    /// Takes in the requests of the `elapsed` seconds until `now_s`, and how many came within the last
    /// service time: so many are in service if none waits.
    pub(crate) fn observe(
        &mut self,
        now_s: f64,
        elapsed: f64,
        requests: f64,
        in_service: f64,
        service: ServiceModel,
    ) {
        self.advance_to((now_s / MINUTE_S) as u64);
        self.requests += requests;
        self.max_instances = service.max_instances as usize;
        let ServiceModel {
            service_s, slots, ..
        } = service;
        let begun_in_time = service.begun_in_time();
        // A fleet that is larger than this, or than any that has something waiting, serves it at once.
        let by_rate = requests * service_s / (slots * elapsed);
        let at_once = by_rate.max(in_service / begun_in_time).ceil() as usize;
        let some_wait = if requests > 0.0 { at_once } else { 0 };
        let fleets = self.fleets.len().max(some_wait).min(self.max_instances);
        self.fleets.resize(fleets, SimulatedFleet::default());
        for (instances, fleet) in (1..).map(f64::from).zip(&mut self.fleets) {
            fleet.late += fleet.serve(instances, requests, elapsed, in_service, &service);
        }
        let is_idle = |fleet: &SimulatedFleet| fleet.waiting == 0.0 && fleet.late == 0.0;
        while self.fleets.last().is_some_and(is_idle) {
            self.fleets.pop();
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
            if self.ahead.is_empty() {
                self.look_ahead();
            }
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
        self.look_ahead();
    }

    fn look_ahead(&mut self) {
        let first = self.minute.unwrap_or(0);
        self.ahead = (first..=first + KEPT_AHEAD)
            .map(|minute| self.forecast_of(minute))
            .collect();
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
        (smaller.count() + 1).min(self.max_instances) as u16
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
        let minute = (at_s / MINUTE_S) as u64;
        let ahead = self.minute.and_then(|first| minute.checked_sub(first));
        let known = ahead.and_then(|ahead| self.ahead.get(usize::try_from(ahead).ok()?));
        known.copied().unwrap_or_else(|| self.forecast_of(minute))
    }

    fn forecast_of(&self, minute: u64) -> u32 {
        if self.needed.len() < MIN_MINUTES {
            return 0;
        }
        let past = self.past(minute);
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
        service_s: 0.2,
        slots: 1.0,
        objective_s: 1.0,
        max_instances: 10,
    };

    /// Requests that come evenly.
    fn observe(
        season: &mut Season,
        now_s: f64,
        elapsed: f64,
        requests: f64,
        service: ServiceModel,
    ) {
        let in_service = requests * (service.service_s / elapsed).min(1.0);
        season.observe(now_s, elapsed, requests, in_service, service);
    }

    /// Plays minutes of so many requests a second, evenly spread, from a minute on.
    fn play(season: &mut Season, from: u64, minutes: impl IntoIterator<Item = u32>) {
        for (minute, rate) in (from..).zip(minutes) {
            for second in 0..60 {
                let now_s = (minute * 60 + second) as f64;
                observe(season, now_s, 1.0, f64::from(rate), SERVICE);
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
        observe(&mut season, 1.0, 1.0, 8.0, SERVICE);
        observe(&mut season, 61.0, 60.0, 25.0, SERVICE);
        observe(&mut season, 121.0, 60.0, 0.0, SERVICE);
        assert_eq!(season.needed[0], 1);
    }

    /// Five a second for twenty seconds, each of which takes six: thirty are in service at one time, and
    /// within the second that one may wait an instance begins a sixth of another.
    #[test]
    fn where_none_may_wait_for_as_long_as_a_service_all_need_a_slot_at_one_time() {
        let service = ServiceModel {
            service_s: 6.0,
            max_instances: 100,
            ..SERVICE
        };
        let mut season = Season::default();
        for second in 0..80 {
            let came = |second: i32| if (0..20).contains(&second) { 5.0 } else { 0.0 };
            let in_service = (second - 5..=second).map(came).sum();
            let now_s = f64::from(second) + 1.0;
            season.observe(now_s, 1.0, came(second), in_service, service);
        }
        assert_eq!(season.needed[0], 26, "of 30, at 7/6 each");
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

    const DAY: u64 = 24 * 60;

    /// A day with a load of 12 requests a second from 9 to 17 o'clock, or without.
    fn play_day(season: &mut Season, day: u64, has_load: bool) {
        for minute in 0..DAY {
            let is_open = has_load && (9 * 60..17 * 60).contains(&minute);
            let requests = if is_open { 60.0 * 12.0 } else { 0.0 };
            let now_s = ((day * DAY + minute) * 60) as f64;
            observe(season, now_s, 60.0, requests, SERVICE);
        }
    }

    /// What is expected of each minute of a day.
    fn of_day(season: &Season, day: u64) -> Vec<u32> {
        let minutes = day * DAY..(day + 1) * DAY;
        minutes
            .map(|minute| season.forecast((minute * 60) as f64))
            .collect()
    }

    /// The first day is a Monday. 12 requests a second need 3 instances of 5.
    #[test]
    fn a_monday_is_expected_by_mondays_and_a_saturday_by_saturdays() {
        let mut season = Season::default();
        for day in 0..14 {
            play_day(&mut season, day, day % 7 < 5);
        }
        let monday = of_day(&season, 14);
        assert_eq!(monday.iter().position(|n| *n > 0), Some(9 * 60));
        assert_eq!(monday[9 * 60], 3);
        for day in 14..19 {
            play_day(&mut season, day, true);
        }
        assert_eq!(of_day(&season, 19).iter().max(), Some(&0), "Saturday");
        play_day(&mut season, 19, false);
        assert_eq!(of_day(&season, 20).iter().max(), Some(&0), "Sunday");
        play_day(&mut season, 20, false);
        assert_eq!(of_day(&season, 21)[9 * 60], 3, "Monday");
        assert_eq!(season.needed.len(), MINUTES, "no more is remembered");
    }

    /// As it was stored when the longest period was a day: two days in which each 20th minute of an hour
    /// needed 3, and for each of these levels the tallies of 8 patterns.
    #[test]
    fn what_was_stored_without_weeks_is_read() {
        let needed: Vec<u16> = (0..2 * DAY)
            .map(|n| if n % 60 == 20 { 3 } else { 0 })
            .collect();
        let mut patterns = vec![(0.0, 0.0); 8];
        (patterns[0], patterns[7]) = ((20.0, 20.0), (20.0, 20.0));
        let stored = serde_json::json!({
            "minute": 2 * DAY,
            "needed": needed,
            "after": vec![patterns; 3],
            "at_any_time": vec![(1.7, 100.0); 3],
        });
        let season: Season = serde_json::from_value(stored).unwrap();
        let expected = in_the_next_hour(&season, 48);
        assert_eq!(expected.iter().position(|n| *n > 0), Some(19));
        assert_eq!(expected[19], 3);
    }

    /// A thousand instances that are allowed cost nothing while three are needed.
    #[test]
    fn only_fleets_in_which_something_waits_are_simulated() {
        let mut season = Season::default();
        let service = ServiceModel {
            max_instances: 1000,
            ..SERVICE
        };
        observe(&mut season, 1.0, 1.0, 12.0, service);
        assert!(season.fleets.len() <= 3, "{}", season.fleets.len());
        observe(&mut season, 2.0, 1.0, 100_000.0, service);
        assert_eq!(season.fleets.len(), 1000);
        observe(&mut season, 61.0, 1.0, 0.0, service);
        assert_eq!(season.needed, [1000]);
        observe(&mut season, 62.0, 1.0, 0.0, service);
        observe(&mut season, 1000.0, 900.0, 0.0, service);
        assert_eq!(season.fleets.len(), 0);
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
        observe(&mut season, 1e9, 1.0, 5.0, SERVICE);
        observe(&mut season, 1e9 + 60.0, 1.0, 5.0, SERVICE);
        assert_eq!(season.needed, [1], "nobody looked before");
        let mut season = after_hours(&[12, 12]);
        observe(&mut season, 60.0, 1.0, 5.0, SERVICE);
        assert_eq!(in_the_next_hour(&season, 2)[19], 3, "set back");
        observe(&mut season, 1e9, 1.0, 5.0, SERVICE);
        assert!(season.needed.len() <= MINUTES);
        assert_eq!(season.forecast(1e9 + 60.0), 0);
    }
}
