//! How long requests occupy this worker's slot, the one that the planner counts.
//!
//! A worker has several requests in hand, so that its models never wait. While the models work, or no
//! place is left, the slot is occupied: one more request would be answered no sooner. Otherwise a
//! request that is fetched, stored or answered occupies its share of the places. So the time a request
//! is about the same with one in hand and with all, and with all it is the time between two answers,
//! whatever takes it: the models, a slow store or queue, or a processor that others use too.
//!
//! A wait on an empty queue is no time of the slot. Neither is the deletion of the request's message,
//! however long it takes: a request gives its place up when its reply is sent and its deletion is
//! handed over, and whoever makes deletions makes those of many requests in one call. So the next
//! request waits for none.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The slot, and how long it was occupied.
#[derive(Debug)]
pub struct Slot {
    places: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    in_hand: usize,
    at_models: bool,
    full: bool,
    since: Instant,
    occupied: Duration,
}

/// What occupies the slot, until it is dropped.
#[derive(Debug)]
pub struct Occupied {
    slot: Arc<Slot>,
    by: Occupant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Occupant {
    InHand,
    AtModels,
    Full,
}

impl Slot {
    /// A slot of a worker with so many places in hand.
    pub fn new(places: usize) -> Arc<Self> {
        let state = State {
            in_hand: 0,
            at_models: false,
            full: false,
            since: Instant::now(),
            occupied: Duration::ZERO,
        };
        Arc::new(Self {
            places,
            state: Mutex::new(state),
        })
    }

    /// A request is in hand.
    pub fn in_hand(self: &Arc<Self>) -> Occupied {
        self.occupy(Occupant::InHand)
    }

    /// The models work.
    pub fn at_models(self: &Arc<Self>) -> Occupied {
        self.occupy(Occupant::AtModels)
    }

    /// The worker asks for no request, since it has no place for one.
    pub fn full(self: &Arc<Self>) -> Occupied {
        self.occupy(Occupant::Full)
    }

    /// How long it was occupied since this was last asked.
    pub fn take_occupied(&self) -> Duration {
        let mut state = self.state();
        state.advance(self.places, Instant::now());
        std::mem::take(&mut state.occupied)
    }

    fn occupy(self: &Arc<Self>, by: Occupant) -> Occupied {
        self.change(by, true);
        Occupied {
            slot: Arc::clone(self),
            by,
        }
    }

    fn change(&self, by: Occupant, begins: bool) {
        let mut state = self.state();
        state.advance(self.places, Instant::now());
        match by {
            Occupant::InHand if begins => state.in_hand += 1,
            Occupant::InHand => state.in_hand -= 1,
            Occupant::AtModels => state.at_models = begins,
            Occupant::Full => state.full = begins,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no code panics while it holds the slot")
    }
}

impl State {
    fn advance(&mut self, places: usize, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        self.since = now;
        let share = if self.at_models || self.full {
            1.0
        } else {
            self.in_hand as f64 / places as f64
        };
        self.occupied += passed.mul_f64(share.min(1.0));
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.slot.change(self.by, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: usize = 6;

    /// Seconds of the slot, while so many are in hand at a time for a second each.
    fn occupied(seconds: &[(usize, bool, bool)]) -> f64 {
        let begin = Instant::now();
        let slot = Slot::new(PLACES);
        let mut state = slot.state();
        state.since = begin;
        for (n, (in_hand, at_models, full)) in seconds.iter().enumerate() {
            (state.in_hand, state.at_models, state.full) = (*in_hand, *at_models, *full);
            state.advance(PLACES, begin + Duration::from_secs(n as u64 + 1));
        }
        state.occupied.as_secs_f64()
    }

    #[test]
    fn a_request_takes_as_long_of_the_slot_alone_as_among_others() {
        assert_eq!(occupied(&[(0, false, false); 5]), 0.0, "an empty queue");
        // A slow store: a request takes 6 s of a place, and six are answered in that time.
        let alone = occupied(&[(1, false, false); 6]);
        let six = occupied(&[(6, false, true); 6]) / 6.0;
        assert!((alone - 1.0).abs() < 1e-6 && (six - 1.0).abs() < 1e-6);
        // Models that take a second of it: alone they are waited for, among others they are all.
        let alone = occupied(&[(1, true, false), (1, false, false), (1, false, false)]);
        assert!((alone - (1.0 + 2.0 / 6.0)).abs() < 1e-6, "{alone}");
        assert!((occupied(&[(3, true, false); 4]) - 4.0).abs() < 1e-6);
    }

    #[test]
    fn what_ends_occupies_no_more_and_what_was_taken_is_gone() {
        let slot = Slot::new(1);
        let (held, models, full) = (slot.in_hand(), slot.at_models(), slot.full());
        std::thread::sleep(Duration::from_millis(2));
        drop((held, models, full));
        assert!(slot.take_occupied() >= Duration::from_millis(2));
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(slot.take_occupied(), Duration::ZERO);
    }
}
