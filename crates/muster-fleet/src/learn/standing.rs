//! A queue that stands, since its clients each wait for an answer before they send the next request.
//!
//! What such clients would send does not show in what they do send: they send as much as is answered,
//! however little that is. A burst is worked off, by what was launched for it, one boot after that was
//! there. A load that is too much grows, and where one is just not too much, the requests that wait become
//! more and fewer by chance. But where each answer brings the next request, their number stays, far closer
//! than chance would keep it.
//!
//! (CoDel tells a queue that stands from a burst in a like way, by what it was at least within an interval:
//! Nichols and Jacobson, "Controlling queue delay", 2012.)

use std::collections::VecDeque;

/// The share of the time for clearing it after which a backlog that is worked off has become clearly less.
const WATCHED: f64 = 0.5;
/// Parts of that time. Those that wait are averaged over each: answers come in batches, and the next
/// requests a little later.
const PARTS: f64 = 8.0;
/// By how much these averages may differ, in standard deviations of what chance would make of as many
/// requests and answers. Of random walks, by simulation, 1 of 140 stays within that, however long it is; 1 of
/// 7 would stay within 0.6.
const DEVIATIONS: f64 = 0.3;
/// Fewest requests and answers to tell by.
const ENOUGH: u64 = 8;

/// Seconds, as the planner counts them.
type Seconds = f64;

/// What there is of requests at one time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Requests {
    pub submitted: u64,
    pub answered: u64,
    /// When the oldest without an answer was submitted, where it has waited for longer than it may.
    pub late: Option<Seconds>,
}

impl Requests {
    fn unanswered(self) -> u64 {
        self.submitted.saturating_sub(self.answered)
    }
}

/// Looks for a queue that stands, from one observation after another.
#[derive(Clone, Debug, Default)]
pub(super) struct StandingQueue {
    /// Since when requests wait for too long, as the oldest of them was submitted.
    late_since: Option<Seconds>,
    /// The parts of the last interval in which instances ran.
    parts: VecDeque<Part>,
    requests: u64,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    begun: Seconds,
    /// Requests that had come and that had been answered by then, together.
    moved: u64,
    /// The requests without an answer, summed over so many looks.
    unanswered: u64,
    looks: u64,
}

impl Part {
    fn average(&self) -> f64 {
        self.unanswered as f64 / self.looks as f64
    }
}

impl StandingQueue {
    /// Takes in what requests there are, and whether instances run; `interval_s` is how long a launch
    /// takes to be there, and to clear what waits for it then.
    pub fn observe(&mut self, now: Seconds, seen: Requests, runs: bool, interval_s: Seconds) {
        self.requests = 0;
        let Some(submitted) = seen.late else {
            *self = Self::default();
            return;
        };
        let late_since = *self.late_since.get_or_insert(submitted);
        if !runs {
            self.parts.clear();
            return;
        }
        let (unanswered, moved) = (seen.unanswered(), seen.submitted + seen.answered);
        let watched_s = WATCHED * interval_s;
        match self.parts.back_mut() {
            Some(part) if now < part.begun + watched_s / PARTS => {
                part.unanswered += unanswered;
                part.looks += 1;
            }
            _ => self.parts.push_back(Part {
                begun: now,
                moved,
                unanswered,
                looks: 1,
            }),
        }
        // The first part that is left began with what is watched, or before it.
        let begun = now - watched_s;
        while self.parts.get(1).is_some_and(|part| part.begun <= begun) {
            self.parts.pop_front();
        }
        let first = self.parts.front().filter(|part| part.begun <= begun);
        let Some(first) = first.filter(|_| late_since <= now - interval_s - watched_s) else {
            return;
        };
        let moved = moved.saturating_sub(first.moved);
        let averages = self.parts.iter().map(Part::average);
        let least = averages.clone().fold(f64::INFINITY, f64::min);
        let most = averages.fold(0.0, f64::max);
        if moved >= ENOUGH && most - least <= DEVIATIONS * (moved as f64).sqrt() {
            self.requests = least as u64;
        }
    }

    /// How long requests have waited for too long without a break.
    pub fn late_s(&self, now: Seconds) -> Seconds {
        self.late_since.map_or(0.0, |since| now - since)
    }

    /// Requests that stand.
    pub fn requests(&self) -> u64 {
        self.requests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL_S: f64 = 30.0;

    /// The requests that were found to stand at the end of three intervals, each a second apart. Whoever
    /// drives them says what came and what was answered in each second, from the second on and from what
    /// is unanswered; instances run after the first interval.
    fn stands(mut moves: impl FnMut(u64, u64) -> (u64, u64)) -> Vec<u64> {
        let mut queue = StandingQueue::default();
        let (mut submitted, mut answered) = (0, 0);
        let mut found = Vec::new();
        for second in 0..=3 * INTERVAL_S as u64 {
            let (came, left) = moves(second, submitted - answered);
            submitted += came;
            answered += left;
            let seen = Requests {
                submitted,
                answered,
                late: (submitted > answered).then_some(0.0),
            };
            let runs = second as f64 >= INTERVAL_S;
            queue.observe(second as f64, seen, runs, INTERVAL_S);
            found.push(queue.requests());
        }
        found
    }

    /// As many answers a second as instances give, if they run.
    fn given(second: u64, rate: u64) -> u64 {
        if second as f64 >= INTERVAL_S { rate } else { 0 }
    }

    #[test]
    fn clients_that_wait_for_their_answers_make_a_queue_that_stands() {
        let found = stands(|second, there| match second {
            0 => (100, 0),
            _ => (given(second, 5).min(there), given(second, 5).min(there)),
        });
        // One interval until instances run, and half of the one in which they should have cleared it.
        let watched = (1.5 * INTERVAL_S) as usize;
        assert_eq!(found[watched - 1..=watched], [0, 100]);
    }

    #[test]
    fn what_is_worked_off_does_not_stand_and_neither_does_what_grows_or_comes_by_chance() {
        let never = [0; 3 * INTERVAL_S as usize + 1];
        let burst = stands(|second, there| match second {
            0 => (150, 0),
            _ => (0, given(second, 5).min(there)),
        });
        assert_eq!(burst, never);
        let slowly = stands(|second, _| match second {
            0 => (600, 0),
            _ => (4, given(second, 5)),
        });
        assert_eq!(slowly, never);
        let grows = stands(|second, _| (6, given(second, 5)));
        assert_eq!(grows, never);
        // In twos and threes, as many as are answered in the end.
        let chance = stands(|second, _| match second {
            0 => (100, 0),
            _ => (
                given(second, [2, 2, 9, 9, 8, 0][second as usize / 4 % 6]),
                given(second, 5),
            ),
        });
        assert_eq!(chance, never);
        let stuck = stands(|second, _| (if second == 0 { 100 } else { 0 }, 0));
        assert_eq!(stuck, never, "nothing works: more would not help");
    }
}
