//! How many instances are to be ready when, decided before the trace begins.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::load::Load;
use super::scenario::Scenario;

/// The time that one instance is to be ready for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// When it takes work.
    pub ready_s: f64,
    /// When it is drained.
    pub end_s: f64,
}

/// Runs, as how many instances are to be ready from when on.
///
/// Which of them is drained is decided when it is time: idle ones first, of each the last launched
/// first.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// `(second, instances ready from then on)`, from second 0 on; none in the end.
    changes: Vec<(f64, u32)>,
    boot_s: f64,
    launched: usize,
    followed: usize,
}

impl Schedule {
    /// Takes runs of instances that boot for `boot_s`. What would be launched before the trace begins
    /// is ready when it begins, as a fixed fleet is.
    pub fn new(runs: &[Run], boot_s: f64) -> Self {
        let begin = |run: &Run| {
            if run.ready_s < boot_s {
                0.0
            } else {
                run.ready_s
            }
        };
        let mut steps: Vec<(f64, i64)> = runs
            .iter()
            .flat_map(|run| [(begin(run), 1), (run.end_s.max(begin(run)), -1)])
            .collect();
        steps.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let mut changes = vec![(0.0, 0)];
        let mut ready = 0;
        for at_once in steps.chunk_by(|a, b| a.0 == b.0) {
            ready += at_once.iter().map(|step| step.1).sum::<i64>();
            match changes.last_mut() {
                Some(last) if last.0 == at_once[0].0 => last.1 = ready as u32,
                _ => changes.push((at_once[0].0, ready as u32)),
            }
        }
        Self {
            changes,
            boot_s,
            launched: 1,
            followed: 1,
        }
    }

    /// Returns how many instances are ready when the trace begins.
    pub(super) fn initial(&self) -> u32 {
        self.changes[0].1
    }

    /// Returns the next launch that is due: how many instances, and when they are to be ready.
    pub(super) fn launch(&mut self, now_s: f64) -> Option<(u32, f64)> {
        while let Some(&(at_s, ready)) = self.changes.get(self.launched)
            && at_s - self.boot_s <= now_s
        {
            let before = self.changes[self.launched - 1].1;
            self.launched += 1;
            if ready > before {
                return Some((ready - before, at_s));
            }
        }
        None
    }

    /// Returns how many instances are to be kept from now on, at most, if that changes now.
    pub(super) fn keep(&mut self, now_s: f64) -> Option<u32> {
        let mut kept = None;
        while let Some(&(at_s, ready)) = self.changes.get(self.followed)
            && at_s <= now_s
        {
            self.followed += 1;
            kept = Some(ready);
        }
        kept
    }

    /// Returns when there is something to be done next; never, once the schedule is over.
    pub(super) fn next_s(&self) -> Option<f64> {
        let launch_s = self
            .changes
            .get(self.launched)
            .map(|change| change.0 - self.boot_s);
        let change_s = self.changes.get(self.followed).map(|change| change.0);
        launch_s.into_iter().chain(change_s).reduce(f64::min)
    }

    /// Replays the schedule as the engine does, many times as fast, for what a search must know of it.
    pub(super) fn rehearse(&self, load: &Load, scenario: &Scenario) -> Rehearsal {
        let mut stage = Stage::new(self.initial(), scenario);
        let mut changes = self.changes[1..].iter().copied().peekable();
        let mut arrivals = 0;
        loop {
            let arrival_s = load
                .arrivals
                .get(arrivals)
                .copied()
                .unwrap_or(f64::INFINITY);
            let change_s = changes.peek().map_or(f64::INFINITY, |change| change.0);
            let end_s = stage.next_end_s();
            if arrival_s < change_s.min(end_s) {
                stage.waiting.push_back(arrivals);
                arrivals += 1;
                stage.begin(arrival_s, load);
            } else if end_s <= change_s {
                if end_s == f64::INFINITY {
                    break;
                }
                stage.end(end_s);
                stage.begin(end_s, load);
            } else if let Some((now_s, ready)) = changes.next() {
                let last = changes.peek().is_none();
                // One of those that are there answers what is left.
                let left = u32::from(last && stage.is_busy() && !stage.ready.is_empty());
                stage.resize(now_s, ready.max(left), self.boot_s);
                if last {
                    // Whoever comes now finds none, and has to wait for a boot.
                    stage.late += load.arrivals.len() - arrivals;
                    arrivals = load.arrivals.len();
                }
                stage.begin(now_s, load);
            }
        }
        // Whoever waits still would be late.
        stage.late += stage.waiting.len();
        let until_s = stage.last_s;
        stage.resize(until_s, 0, 0.0);
        Rehearsal {
            late: stage.late,
            billed_s: stage.billed_s,
        }
    }
}

/// What a search must know of a replay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rehearsal {
    /// Requests that wait longer than the objective.
    pub(super) late: usize,
    /// Seconds billed.
    pub(super) billed_s: f64,
}

struct Instance {
    launched_s: f64,
    busy: u32,
    draining: bool,
}

struct Stage {
    slots: u32,
    minimum_s: f64,
    target_wait_s: f64,
    /// All that ever were, in the order of their launches.
    instances: Vec<Instance>,
    /// Those that take work, in this order.
    ready: Vec<usize>,
    /// Those with a free slot, and some that have none any more.
    free: BinaryHeap<Reverse<usize>>,
    /// When each busy slot is free again (the bits of a float that is not negative), and whose it is.
    ends: BinaryHeap<Reverse<(u64, usize)>>,
    waiting: VecDeque<usize>,
    late: usize,
    billed_s: f64,
    last_s: f64,
}

impl Stage {
    fn new(initial: u32, scenario: &Scenario) -> Self {
        let mut stage = Self {
            slots: scenario.slots,
            minimum_s: scenario.billing_minimum_s,
            target_wait_s: scenario.target_wait_s,
            instances: Vec::new(),
            ready: Vec::new(),
            free: BinaryHeap::new(),
            ends: BinaryHeap::new(),
            waiting: VecDeque::new(),
            late: 0,
            billed_s: 0.0,
            last_s: 0.0,
        };
        stage.resize(0.0, initial, 0.0);
        stage
    }

    fn next_end_s(&self) -> f64 {
        self.ends
            .peek()
            .map_or(f64::INFINITY, |Reverse((bits, _))| f64::from_bits(*bits))
    }

    fn is_busy(&self) -> bool {
        !self.ends.is_empty() || !self.waiting.is_empty()
    }

    /// Lets free slots begin with what waits.
    fn begin(&mut self, now_s: f64, load: &Load) {
        while let (Some(&request), Some(&Reverse(id))) = (self.waiting.front(), self.free.peek()) {
            let instance = &mut self.instances[id];
            if instance.draining {
                self.free.pop();
                continue;
            }
            self.waiting.pop_front();
            instance.busy += 1;
            if instance.busy == self.slots {
                self.free.pop();
            }
            self.late += usize::from(now_s - load.arrivals[request] > self.target_wait_s);
            let end_s = now_s + load.services[request];
            self.ends.push(Reverse((end_s.to_bits(), id)));
        }
    }

    fn end(&mut self, now_s: f64) {
        let Some(Reverse((_, id))) = self.ends.pop() else {
            return;
        };
        self.last_s = now_s;
        let instance = &mut self.instances[id];
        instance.busy -= 1;
        if !instance.draining {
            if instance.busy + 1 == self.slots {
                self.free.push(Reverse(id));
            }
        } else if instance.busy == 0 {
            self.bill(id, now_s);
        }
    }

    fn resize(&mut self, now_s: f64, ready: u32, boot_s: f64) {
        self.last_s = now_s;
        while self.ready.len() < ready as usize {
            let id = self.instances.len();
            self.instances.push(Instance {
                launched_s: now_s - boot_s,
                busy: 0,
                draining: false,
            });
            self.ready.push(id);
            self.free.push(Reverse(id));
        }
        while self.ready.len() > ready as usize {
            let is_idle = |id: &usize| self.instances[*id].busy == 0;
            let last = self.ready.len() - 1;
            let at = self.ready.iter().rposition(is_idle).unwrap_or(last);
            let id = self.ready.remove(at);
            self.instances[id].draining = true;
            if self.instances[id].busy == 0 {
                self.bill(id, now_s);
            }
        }
    }

    fn bill(&mut self, id: usize, now_s: f64) {
        let held_s = now_s - self.instances[id].launched_s;
        self.billed_s += held_s.max(self.minimum_s);
    }
}

#[cfg(test)]
mod tests {
    use rand_xoshiro::SplitMix64;
    use rand_xoshiro::rand_core::SeedableRng;

    use super::*;
    use crate::simulate::autoscaler::Autoscaler;
    use crate::simulate::engine::run;
    use crate::simulate::random::unit;

    #[test]
    fn a_rehearsal_is_what_the_engine_replays() {
        let mut random = SplitMix64::seed_from_u64(3);
        let mut draw = move |most: f64| most * unit(&mut random);
        for seed in 0..200 {
            let scenario = Scenario {
                boot_s: draw(50.0),
                service_s: 0.1 + draw(5.0),
                service_cv: draw(2.0).floor(),
                slots: 1 + draw(3.0) as u32,
                target_wait_s: draw(5.0),
                seed,
                ..Scenario::on_ec2(32)
            };
            let mut arrivals: Vec<f64> = (0..60).map(|_| draw(300.0)).collect();
            arrivals.sort_unstable_by(f64::total_cmp);
            let mut runs: Vec<Run> = (0..1 + draw(9.0) as usize)
                .map(|_| {
                    let ready_s = draw(300.0);
                    let end_s = ready_s + draw(200.0);
                    Run { ready_s, end_s }
                })
                .collect();
            // Of every other one, who comes last finds nobody.
            let ends_early = seed % 2 == 1;
            if !ends_early {
                runs.push(Run {
                    ready_s: 250.0,
                    end_s: 1000.0,
                });
            }
            let schedule = Schedule::new(&runs, scenario.boot_s);
            let rehearsal = schedule.rehearse(&Load::new(&arrivals, &scenario), &scenario);
            let outcome = run(
                &arrivals,
                1100.0,
                &scenario,
                Autoscaler::Scheduled(schedule),
            );
            let late = outcome.waits.iter();
            let late = late.filter(|&&wait| wait > scenario.target_wait_s).count();
            if ends_early {
                assert!(rehearsal.late >= late, "seed {seed}");
                continue;
            }
            assert_eq!(rehearsal.late, late, "seed {seed}");
            let billed_s = outcome.instance_hours * 3600.0;
            assert!(
                (rehearsal.billed_s - billed_s).abs() < 1e-6,
                "seed {seed}: {rehearsal:?}, {billed_s} s"
            );
        }
    }
}
