//! The load that goes on: how many requests come for as long as they have been coming like this, and
//! the instances that this needs.

use std::collections::VecDeque;

use super::window::{Change, Estimate, Quantity, Window};
use crate::staffing::Load;

/// The share of requests that the fleet is staffed to be late with; the objective allows 0.01, and what
/// is known of the load is not exact.
const LATE_SHARE: f64 = 0.006;
/// Deviations that are added to a rate that was counted, for the instances that it needs at least, and at
/// most: in between the fleet stays as it is.
const RATE_DEVIATIONS: (f64, f64) = (0.5, 1.5);
/// Requests come in bursts where their number varies by more than this times what chance makes of it, and
/// so many at least were counted.
const BURSTY: f64 = 1.5;
const ENOUGH_TO_BE_BURSTY: f64 = 20.0;
/// How much of that variation is one of the requests in service, which a burst leaves one after another.
const PEAKEDNESS: f64 = 0.75;
/// The coefficient of variation of service times, squared, that is believed at most.
const MAX_SERVICE_CV2: f64 = 4.0;
/// A load is over once none came for as long as this and the logarithm of their number take on average: that
/// happens by chance in one of 150 loads, however many come.
const OVER: f64 = 5.0;
/// A load that has been the same for longer than the shortest period of the rhythm, half an hour, has
/// none at it.
const STEADY_S: f64 = 1800.0;
/// Deviations of the instances that such a load needs that are chance.
const CHANCE_DEVIATIONS: f64 = 2.0;

/// So many rises are remembered.
const RISES: usize = 4;

/// What instances there are to be for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// How long a request may wait.
    pub objective_s: f64,
    /// How long a load has to go on before a launch for it is one for more than chance.
    pub known_s: f64,
    /// How long an idle instance is kept: where the next request is further away, there is no load that
    /// goes on, and each is one from nothing; unless what a late request is worth alone decides.
    pub kept_s: f64,
    /// Seconds that a request takes of one slot, and the square of their coefficient of variation.
    pub service_s: f64,
    pub service_cv2: f64,
    /// Requests that one instance works on at a time.
    pub slots: u32,
    /// Largest fleet.
    pub max_instances: u32,
    /// What a late request is worth, in seconds of an instance.
    pub worth_s: f64,
    /// Whether that alone decides, or the objective where it takes fewer instances.
    pub by_worth_alone: bool,
}

/// The load that goes on.
#[derive(Clone, Debug, Default)]
pub(super) struct SteadyLoad {
    came: Option<Window>,
    /// How long none has come.
    quiet_s: f64,
    needed: u32,
    rises: Rises,
}

/// How long it stays like this where more came all at once.
#[derive(Clone, Debug, Default)]
struct Rises {
    /// How long ago the load rose last; nothing where it fell since, or came from nothing.
    age_s: Option<f64>,
    /// How long the last ones lasted, the newest last.
    lasted_s: VecDeque<f64>,
}

impl Rises {
    /// Takes in that the load changed so many seconds ago.
    fn changed(&mut self, change: Change, ago_s: f64) {
        match (change, self.age_s) {
            (Change::Rise, None) => self.age_s = Some(ago_s),
            // One that goes on rising is one.
            (Change::Rise, Some(_)) | (Change::Fall, None) => {}
            (Change::Fall, Some(age_s)) => {
                self.age_s = None;
                if self.lasted_s.len() == RISES {
                    self.lasted_s.pop_front();
                }
                self.lasted_s.push_back(age_s - ago_s);
            }
        }
    }

    /// Whether the last rise lasts for so many seconds more, as all of the last did.
    fn last(&self, more_s: f64) -> bool {
        let shortest_s = self.lasted_s.iter().copied().min_by(f64::total_cmp);
        let left_s = self
            .age_s
            .zip(shortest_s)
            .map(|(age_s, all_s)| all_s - age_s);
        left_s.is_some_and(|left_s| left_s >= more_s)
    }
}

impl SteadyLoad {
    /// Takes in what came in the last `elapsed` seconds.
    pub fn observe(&mut self, came: f64, elapsed: f64, terms: Option<&Terms>) {
        let Some(terms) = terms else {
            *self = Self::default();
            return;
        };
        if elapsed > 0.0 {
            let window = self.came.get_or_insert_with(|| Window::of(Quantity::Rate));
            let grain = terms.objective_s.max(terms.service_s);
            let change = window.add(elapsed, came, grain);
            let now_s = window.estimate().length;
            self.rises.age_s = self.rises.age_s.map(|age_s| age_s + elapsed);
            if let Some(change) = change {
                self.rises.changed(change, now_s);
            }
            self.quiet_s = if came > 0.0 {
                0.0
            } else {
                self.quiet_s + elapsed
            };
            let all = window.estimate();
            let before_s = (all.length - self.quiet_s).max(grain);
            let groups = all.total / all.dispersion();
            if groups * self.quiet_s > (OVER + groups.max(1.0).ln()) * before_s {
                self.came = None;
                self.rises.changed(Change::Fall, self.quiet_s);
            }
        }
        let came = self.estimate();
        let (least, most) = RATE_DEVIATIONS;
        let most = staffing(came, most, terms);
        let is_known = came.length >= terms.known_s || self.rises.last(2.0 * terms.known_s);
        let least = if !is_known {
            0
        } else {
            staffing(came, least, terms)
        };
        self.needed = self.needed.clamp(least, most.max(least));
    }

    /// Instances that the load needs so that 99 of 100 requests wait no longer than the objective; none
    /// before it is known, and where none goes on.
    pub fn needed(&self) -> u32 {
        self.needed
    }

    /// Requests a second of a load that has risen and, by how long it did before, will stay like this for
    /// so many seconds; a standard deviation less than was counted.
    pub fn risen_rate(&self, for_s: f64) -> Option<f64> {
        let came = self.estimate();
        let known = self.rises.last(for_s) && came.length > 0.0;
        known.then(|| (came.total - came.total.sqrt()).max(0.0) / came.length)
    }

    /// Whether so many instances at some minute are more than this load needs now and then by chance.
    pub fn is_exceeded_by(&self, instances: u32) -> bool {
        let needed = f64::from(self.needed);
        let by_chance = if self.is_steady() {
            needed + CHANCE_DEVIATIONS * needed.sqrt()
        } else {
            needed
        };
        f64::from(instances) > by_chance
    }

    /// Whether the load has been the same for so long that what a moment brings is chance.
    pub fn is_steady(&self) -> bool {
        self.estimate().length >= STEADY_S
    }

    fn estimate(&self) -> Estimate {
        let came = self.came.as_ref().map(Window::estimate);
        came.unwrap_or_default()
    }
}

/// Instances for a load that goes on like this, if so many `deviations` more come than were counted.
///
/// An instance is worth having while the requests that it makes punctual are worth its time.
fn staffing(came: Estimate, deviations: f64, terms: &Terms) -> u32 {
    let kept_s = if terms.by_worth_alone {
        terms.worth_s
    } else {
        terms.kept_s
    };
    if came.groups() * kept_s < 1.0 {
        return 0;
    }
    let dispersion = came.dispersion();
    let bursty = came.total >= ENOUGH_TO_BE_BURSTY && dispersion > BURSTY;
    let load = Load {
        rate: came.rate() + deviations * (came.total + 1.0).sqrt() / came.length,
        service_s: terms.service_s,
        service_cv2: terms.service_cv2.min(MAX_SERVICE_CV2),
        peakedness: if bursty {
            1.0 + (dispersion - 1.0) * PEAKEDNESS
        } else {
            1.0
        },
        slots: terms.slots,
    };
    let enough = if terms.by_worth_alone {
        0.0
    } else {
        LATE_SHARE
    };
    let keeps_up = load.rate * load.service_s / f64::from(terms.slots.max(1)) + 1.0;
    let shares = load.late_shares(terms.objective_s);
    let (mut needed, mut before) = (0, 1.0);
    for (instances, late) in (0..=terms.max_instances).zip(shares) {
        let is_worth_it = load.rate * (before - late) * terms.worth_s >= 1.0;
        if f64::from(instances) > keeps_up && !is_worth_it {
            break;
        }
        (needed, before) = (instances, late);
        if late <= enough {
            break;
        }
    }
    needed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One request in 200 s: where a late one is worth more of an instance's time than that, one stands for
    /// them; where nothing is said, each comes from nothing.
    #[test]
    fn a_price_says_how_rare_a_load_may_be() {
        let terms = |worth_s: f64, by_worth_alone: bool| Terms {
            objective_s: 1.0,
            known_s: 30.0,
            kept_s: 60.0,
            service_s: 6.0,
            service_cv2: 0.0,
            slots: 1,
            max_instances: 10,
            worth_s,
            by_worth_alone,
        };
        let rare = Estimate {
            length: 20_000.0,
            total: 100.0,
            variance: 0.005,
        };
        assert_eq!(staffing(rare, 0.0, &terms(3600.0, false)), 0);
        assert_eq!(staffing(rare, 0.0, &terms(100.0, true)), 0);
        assert_eq!(staffing(rare, 0.0, &terms(400.0, true)), 1);
    }

    #[test]
    fn a_rise_is_expected_to_last_as_long_as_each_of_the_last_did() {
        let mut rises = Rises::default();
        rises.changed(Change::Rise, 2.0);
        assert!(!rises.last(1.0), "of the first nothing is known");
        rises.age_s = Some(102.0);
        rises.changed(Change::Rise, 2.0);
        assert_eq!(rises.age_s, Some(102.0), "it goes on rising");
        rises.changed(Change::Fall, 2.0);
        rises.changed(Change::Rise, 5.0);
        assert!(rises.last(95.0) && !rises.last(96.0));
        rises.age_s = Some(30.0);
        rises.changed(Change::Fall, 0.0);
        assert!(!rises.last(0.0), "it is over");
        rises.changed(Change::Rise, 0.0);
        assert!(rises.last(30.0) && !rises.last(31.0), "the shortest counts");
        for _ in 0..RISES {
            rises.age_s = Some(500.0);
            rises.changed(Change::Fall, 0.0);
        }
        rises.changed(Change::Rise, 0.0);
        assert!(rises.last(500.0), "of the last few");
    }
}
