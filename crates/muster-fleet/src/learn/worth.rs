//! Instances that stand because the requests that would be late without them cost more.
//!
//! Where a late request has a price, an instance is worth having for as long as what it saves of it is
//! more than what it costs idle: the quantile of demand that the price pays for (the newsvendor's
//! critical ratio: Arrow, Harris and Marschak, "Optimal Inventory Policy", Econometrica 19, 1951). Neither
//! is known beforehand, so both are counted as if fleets of one, two, three … instances had always stood.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::season::{ServiceModel, SimulatedFleet};

/// Seconds, as the planner counts them.
type Seconds = f64;

/// What each instance that stands would have saved, and cost; the first is the first instance's.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Worth {
    levels: Vec<Level>,
    /// Fleets of which at least none, one, two … stand, and how they would serve the requests: more
    /// are there a boot after they are needed.
    #[serde(skip)]
    fleets: Vec<SimulatedFleet>,
    /// How many instances there were to be, by when: the newest last.
    #[serde(skip)]
    wanted: VecDeque<(Seconds, u32)>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Level {
    /// Requests that it would have kept from being late.
    saved: f64,
    /// Seconds that it would have stood without being wanted.
    idle_s: Seconds,
}

/// What is looked at.
pub(super) struct Look {
    pub now: Seconds,
    /// Seconds since the last one, how many requests came in them, and how many within a service time.
    pub elapsed: Seconds,
    pub came: f64,
    pub in_service: f64,
    /// Instances that there are to be, whatever a late request costs.
    pub wanted: u32,
    pub boot_s: Seconds,
    pub service: ServiceModel,
}

impl Worth {
    /// Takes in what came.
    pub fn observe(&mut self, look: &Look) {
        self.wanted.push_back((look.now, look.wanted));
        let launched_by = look.now - look.boot_s;
        while self.wanted.get(1).is_some_and(|(at, _)| *at <= launched_by) {
            self.wanted.pop_front();
        }
        // What was wanted a boot ago is there, unless it is no longer wanted.
        let first = self.wanted.front().filter(|(at, _)| *at <= launched_by);
        let there = first.map_or(0, |(_, wanted)| *wanted);
        let mut late_with_fewer = None;
        for stand in 0..=look.service.max_instances {
            let at = stand as usize;
            if self.fleets.len() == at {
                self.fleets.push(SimulatedFleet::default());
            }
            let instances = f64::from(stand.max(there));
            let (came, elapsed) = (look.came, look.elapsed);
            let late =
                self.fleets[at].serve(instances, came, elapsed, look.in_service, &look.service);
            if let Some(fewer) = late_with_fewer.replace(late) {
                if self.levels.len() < at {
                    self.levels.push(Level::default());
                }
                let level = &mut self.levels[at - 1];
                level.saved += f64::max(fewer - late, 0.0);
                if stand > look.wanted {
                    level.idle_s += elapsed;
                }
            }
            if late == 0.0 && at >= self.levels.len() {
                break;
            }
        }
    }

    /// Leaves so much of what was counted, from 0 to 1.
    pub fn fade(&mut self, left: f64) {
        for level in &mut self.levels {
            level.saved *= left;
            level.idle_s *= left;
        }
    }

    /// Times lie ahead of what is observed next, or belong to another clock.
    pub fn forget_times(&mut self) {
        self.wanted.clear();
    }

    /// How many are to stand where a late request is worth so many seconds of an instance: as many as
    /// together save the most of it beyond what they cost.
    pub fn standing(&self, late_request_s: Seconds) -> u32 {
        let mut gained = 0.0;
        let mut best = (0.0, 0);
        for (level, instances) in self.levels.iter().zip(1..) {
            gained += late_request_s * level.saved - level.idle_s;
            if gained > best.0 {
                best = (gained, instances);
            }
        }
        best.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: ServiceModel = ServiceModel {
        service_s: 1.0,
        slots: 1.0,
        objective_s: 1.0,
        max_instances: 20,
    };

    /// Bursts of so many at once, each of which takes a second, every so many seconds; nobody launches in
    /// time, and nothing is wanted between them.
    fn after_bursts(of: f64, every_s: u32, bursts: u32) -> Worth {
        let mut worth = Worth::default();
        for second in 0..every_s * bursts {
            let came = if second % every_s == 0 { of } else { 0.0 };
            worth.observe(&Look {
                now: f64::from(second),
                elapsed: 1.0,
                came,
                in_service: came,
                wanted: if came > 0.0 { 1 } else { 0 },
                boot_s: 60.0,
                service: SERVICE,
            });
        }
        worth
    }

    #[test]
    fn an_instance_stands_where_what_it_saves_costs_more() {
        // Ten at once: each instance begins one at once and one a second later, so it saves two of
        // every hundred seconds, for 99 seconds idle. Five serve them all.
        let worth = after_bursts(10.0, 100, 30);
        assert_eq!(worth.standing(45.0), 0, "{:?}", worth.levels);
        assert_eq!(worth.standing(55.0), 5, "{:?}", worth.levels);
        assert_eq!(worth.standing(1e6), 5);
    }

    #[test]
    fn what_comes_no_more_is_forgotten() {
        let mut worth = after_bursts(10.0, 100, 30);
        let quiet = Look {
            now: 3000.0,
            elapsed: 60.0,
            came: 0.0,
            in_service: 0.0,
            wanted: 0,
            boot_s: 60.0,
            service: SERVICE,
        };
        assert_eq!(worth.standing(60.0), 5);
        for _ in 0..20 {
            worth.observe(&quiet);
        }
        assert_eq!(worth.standing(60.0), 0);
        worth.fade(0.5);
        assert_eq!(worth.standing(60.0), 0);
    }
}
