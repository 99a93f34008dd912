//! What instances drain of the queue, compared with what the plan thinks that they drain.
//!
//! While requests are visible that no instance has taken, none of them is idle: what the requests that they
//! answer are said to have occupied their slots is all of that time. Where it falls short of it, or exceeds
//! it, the difference (a slow queue, a processor that is throttled or shared) corrects what an instance is
//! believed to drain: of the whole fleet, and of each instance that is known to differ from it.
//!
//! Such a time ends when many are answered, and goes on while few are. Counting answers would therefore
//! find a fleet slow that is busy now and then by chance; the time that they took is what it is, whichever
//! requests they were.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, DefaultHasher};

use super::window::{Quantity, Window};
use crate::fleet::{Instance, InstanceId, InstanceState};

/// Planned answers that make one entry of a meter, so that a count is no longer a matter of chance alone.
const GRAIN: f64 = 4.0;
/// A count differs from what was planned where it does so by this many standard deviations of a count, and by
/// this share of it: less changes no plan.
const DEVIATIONS: f64 = 3.0;
const TOLERANCE: f64 = 0.1;
/// A fleet that should have given this many answers for each of its slots and gave none does not work at
/// all, which more instances would not mend.
const STALLED: f64 = 32.0;
/// Looks after which requests that were visible at each of them say as much as many that were visible at
/// one: the last look of such a row, which ended by what was answered, weighs little then.
const LOOKS: u32 = 16;
/// How long after it was measured a difference counts half: a fleet that is too large for its load is
/// never busy enough to show that an instance has recovered.
const HALF_LIFE_S: Seconds = 600.0;

/// Longest time between two looks that is measured: with more the clock was set, or the machine slept.
const LONGEST_LOOK_S: Seconds = 60.0;

/// Seconds, as the planner counts them.
type Seconds = f64;

/// What the planner believes of the queue and the fleet, when it observes them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Believed<'a> {
    pub now: Seconds,
    /// Requests that no instance has taken.
    pub visible: u64,
    /// Requests without an answer.
    pub backlog: u64,
    /// Requests answered so far; of so many of them it was said that they occupied slots for so long.
    pub answered: u64,
    pub timed: u64,
    pub worked_s: Seconds,
    pub instances: &'a [Instance],
    /// Requests that an instance works on at a time.
    pub slots: f64,
    /// Seconds that a request is said to occupy a slot; none before it was said.
    pub service_s: Option<Seconds>,
}

impl Believed<'_> {
    /// What was answered since, in requests that occupy a slot for `service_s`.
    fn done_since(&self, before: Before, service_s: Seconds) -> f64 {
        let answers = self.answered.saturating_sub(before.answered) as f64;
        let timed = self.timed.saturating_sub(before.timed) as f64;
        if timed > 0.0 {
            (self.worked_s - before.worked_s) / service_s * answers / timed
        } else {
            answers
        }
    }
}

/// What was learned of the instances' capacity.
#[derive(Clone, Debug, Default)]
pub(super) struct Capacity {
    fleet: Meter,
    /// Hashed without a seed: a simulation adds them up in the same order each time.
    members: HashMap<InstanceId, Member, BuildHasherDefault<DefaultHasher>>,
    before: Option<Before>,
    /// Since when, and for how many looks, requests are visible that no instance has taken.
    busy: Option<(Seconds, u32)>,
    /// What the running instances drain of what is planned for them, on average.
    mean: Option<f64>,
    /// Whether more was measured since, or instances came or went.
    changed: bool,
    measured_at: Seconds,
    /// How much of what was measured still counts, 0 to 1.
    weight: f64,
}

/// What the observation before this one saw.
#[derive(Clone, Copy, Debug)]
struct Before {
    at: Seconds,
    answered: u64,
    timed: u64,
    worked_s: Seconds,
    /// Answers that are waited for, beyond those that are under way already.
    spare: f64,
    running: u32,
    /// Since when all of these run; none while others drain.
    complete_since: Option<Seconds>,
}

#[derive(Clone, Debug)]
struct Member {
    running_since: Seconds,
    /// When it said last, within the time that all are busy, how many it had answered, and how many.
    said: Option<(Seconds, u64)>,
    meter: Meter,
    share: Option<f64>,
}

/// Answers that were planned, and those that came, each as long as a request is said to take.
#[derive(Clone, Debug)]
struct Meter {
    window: Window,
    /// Planned since the last answer.
    pending: f64,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            window: Window::of(Quantity::Rate),
            pending: 0.0,
        }
    }
}

impl Meter {
    fn add(&mut self, planned: f64, answers: f64) {
        self.pending += planned;
        if answers > 0.0 {
            let planned = std::mem::take(&mut self.pending);
            self.window.add(planned, answers, GRAIN);
        }
    }

    /// No more is planned for a while.
    fn pause(&mut self) {
        let planned = std::mem::take(&mut self.pending);
        if planned > 0.0 {
            self.window.add(planned, 0.0, GRAIN);
        }
    }

    /// The share of what was planned that was answered, where that is sure to differ from `expected`: of so
    /// many meters together no more often by chance than of one.
    fn share(&self, expected: f64, of: usize) -> Option<f64> {
        let counted = self.window.estimate();
        let (planned, answers) = (counted.length, counted.total);
        let off = (answers - expected * planned).abs();
        let chance = answers.max(expected * planned).sqrt();
        let deviations = (DEVIATIONS.powi(2) + 2.0 * (of as f64).ln()).sqrt();
        let differs = off > deviations * chance && off > TOLERANCE * expected * planned;
        differs.then(|| (answers + 1.0) / (planned + 1.0))
    }
}

impl Capacity {
    /// Takes in an observation.
    pub fn observe(&mut self, seen: Believed) {
        let Some(service_s) = seen.service_s else {
            return;
        };
        let now = seen.now;
        let is_look = |before: &Before| before.at < now && now - before.at <= LONGEST_LOOK_S;
        let before = self.before.filter(is_look);
        let planned = before.map_or(0.0, |before| {
            f64::from(before.running) * seen.slots * (now - before.at) / service_s
        });
        // There are enough by the plan, whatever was answered, or more than were answered.
        let by_plan = planned + DEVIATIONS * planned.sqrt();
        let enough = before.is_some_and(|before| before.spare >= by_plan);
        let busy = before.filter(|before| {
            let answers = seen.answered.saturating_sub(before.answered);
            enough || before.spare > answers as f64
        });
        if let Some(before) = busy {
            let (since, looks) = self.busy.unwrap_or((before.at, 0));
            self.busy = Some((since, looks + 1));
            if enough || looks >= LOOKS {
                self.measure(seen, before, planned, service_s, since);
            }
        } else {
            self.pause();
        }
        self.follow(seen);
        if std::mem::take(&mut self.changed) {
            self.compare();
        }
        self.weight = 0.5_f64.powf((now - self.measured_at).max(0.0) / HALF_LIFE_S);
        let drains = |instance: &Instance| instance.state == InstanceState::Draining;
        let begun = self.members.values().map(|member| member.running_since);
        let taken = self.members.len() as f64 * seen.slots;
        self.before = Some(Before {
            at: now,
            answered: seen.answered,
            timed: seen.timed,
            worked_s: seen.worked_s,
            spare: (seen.visible as f64).min(seen.backlog as f64 - taken),
            running: self.members.len() as u32,
            complete_since: begun
                .max_by(f64::total_cmp)
                .filter(|_| !seen.instances.iter().any(drains)),
        });
    }

    /// What instances drain of what is planned for them by the time that they say to need, on average:
    /// what is to be expected of one more, too.
    pub fn mean(&self) -> f64 {
        self.mean.unwrap_or(1.0).powf(self.weight)
    }

    /// What an instance drains of what one does on average.
    pub fn of(&self, id: &InstanceId) -> f64 {
        let member = self.members.get(id);
        let share = member.and_then(|member| member.share);
        let ratio = share.zip(self.mean).map(|(own, mean)| own / mean);
        ratio.unwrap_or(1.0).powf(self.weight)
    }

    /// Counts what was answered of what was planned since `before`, while all were busy.
    fn measure(
        &mut self,
        seen: Believed,
        before: Before,
        planned: f64,
        service_s: Seconds,
        busy_since: Seconds,
    ) {
        // An instance that begins gives its first answer one service later.
        let begun = |since: Seconds| since.max(busy_since) + service_s <= before.at;
        if before.complete_since.is_some_and(begun) {
            let done = seen.done_since(before, service_s);
            self.fleet.add(planned, done);
            if done > 0.0 {
                self.changed = true;
                self.measured_at = seen.now;
            }
            let slots = f64::from(before.running) * seen.slots;
            if self.fleet.pending > STALLED * slots {
                self.fleet.pending = 0.0;
                return self.pause();
            }
        } else {
            self.fleet.pause();
        }
        for instance in seen.instances {
            let (Some(said), Some(member)) =
                (instance.answered, self.members.get_mut(&instance.id))
            else {
                continue;
            };
            // What it says now and then is compared with what was planned from one time to the next.
            let said_at = seen.now - said.age.as_secs_f64();
            let begun = member.running_since.max(busy_since) + service_s;
            let (at, had) = *member.said.get_or_insert((said_at, said.count));
            if at < begun {
                member.said = None;
            } else if said_at > at {
                let planned = seen.slots * (said_at - at) / service_s;
                let answers = said.count.saturating_sub(had);
                member.meter.add(planned, answers as f64);
                member.said = Some((said_at, said.count));
                self.changed |= answers > 0;
            }
        }
    }

    /// Not all are busy.
    fn pause(&mut self) {
        if self.busy.take().is_some() {
            self.fleet.pause();
            for member in self.members.values_mut() {
                member.said = None;
                member.meter.pause();
            }
        }
    }

    /// Knows the running instances, and no others.
    fn follow(&mut self, seen: Believed) {
        let runs = |instance: &&Instance| instance.state == InstanceState::Running;
        for instance in seen.instances.iter().filter(runs) {
            if !self.members.contains_key(&instance.id) {
                let member = Member {
                    running_since: seen.now,
                    said: None,
                    meter: Meter::default(),
                    share: None,
                };
                self.members.insert(instance.id.clone(), member);
                self.changed = true;
            }
        }
        let running = seen.instances.iter().filter(runs).count();
        if self.members.len() > running {
            let running = seen.instances.iter().filter(runs);
            let running: HashSet<_> = running.map(|instance| &instance.id).collect();
            self.members.retain(|id, _| running.contains(id));
            self.changed = true;
        }
    }

    /// Finds out which instances differ.
    fn compare(&mut self) {
        let fleet = self.fleet.share(1.0, 1);
        let expected = fleet.unwrap_or(1.0);
        let (mut sum, members) = (0.0, self.members.len());
        for member in self.members.values_mut() {
            let own = member.meter.share(expected, members);
            member.share = own.or(fleet);
            sum += own.unwrap_or(expected);
        }
        // What the last instances drained is what the next are expected to.
        if members > 0 {
            self.mean = Some(sum / members as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fleet::Answers;
    use crate::tier::Tier;

    /// Seconds that workers say to need.
    const SERVICE_S: f64 = 0.2;

    /// A fleet that is looked at a hundred times a second, and tells what each instance answered.
    struct World {
        capacity: Capacity,
        now: f64,
        /// Answers of each instance, with parts of the next.
        answered: Vec<f64>,
    }

    impl World {
        fn new(instances: usize) -> Self {
            Self {
                capacity: Capacity::default(),
                now: 1000.0,
                answered: vec![0.0; instances],
            }
        }

        /// So many seconds in which instances have this share of the speed that they say.
        fn pass(&mut self, seconds: f64, visible: u64, speeds: &[f64]) {
            for _ in 0..(seconds * 100.0) as u32 {
                self.now += 0.01;
                for (answered, speed) in self.answered.iter_mut().zip(speeds) {
                    *answered += 0.01 * speed / SERVICE_S;
                }
                let instances: Vec<_> = (0..self.answered.len())
                    .map(|n| Instance {
                        id: id(n),
                        tier: Tier::Ec2,
                        state: InstanceState::Running,
                        age: Duration::ZERO,
                        busy: None,
                        overdue: false,
                        answered: Some(Answers {
                            count: self.answered[n] as u64,
                            age: Duration::ZERO,
                        }),
                    })
                    .collect();
                let answered = instances
                    .iter()
                    .filter_map(|i| i.answered)
                    .map(|a| a.count)
                    .sum();
                self.capacity.observe(Believed {
                    now: self.now,
                    visible,
                    backlog: visible + instances.len() as u64,
                    answered,
                    timed: answered,
                    worked_s: answered as f64 * SERVICE_S,
                    instances: &instances,
                    slots: 1.0,
                    service_s: Some(SERVICE_S),
                });
            }
        }

        #[track_caller]
        fn drains(&self, mean: f64, each: &[f64]) {
            let drained = self.capacity.mean();
            assert!((drained / mean - 1.0).abs() < 0.1, "{drained} on average");
            for (n, share) in each.iter().enumerate() {
                let own = drained * self.capacity.of(&id(n));
                assert!((own / share - 1.0).abs() < 0.1, "{own} by {n}");
            }
        }
    }

    fn id(n: usize) -> InstanceId {
        InstanceId(n.to_string())
    }

    #[test]
    fn what_a_busy_fleet_answers_is_what_it_drains_and_what_an_idle_one_does_tells_nothing() {
        for speed in [0.1, 0.2, 0.5, 1.0, 2.0] {
            let mut world = World::new(4);
            // With nothing to do but what came just now.
            world.pass(20.0, 0, &[speed / 10.0; 4]);
            assert_eq!(world.capacity.mean(), 1.0);
            // A tenth of the speed is known from three answers of each.
            world.pass(30.0, 100, &[speed; 4]);
            world.drains(speed, &[speed; 4]);
        }
    }

    #[test]
    fn chance_corrects_nothing() {
        let mut world = World::new(4);
        for wave in 0..200 {
            let speed = [0.8, 1.3, 0.9, 1.0][wave % 4];
            world.pass(0.3, 100, &[speed; 4]);
            assert_eq!(world.capacity.mean(), 1.0);
        }
    }

    #[test]
    fn instances_that_differ_are_told_from_each_other_and_one_more_is_expected_to_be_as_they_are() {
        let speeds = [1.0, 1.0, 0.5, 0.1];
        let mut world = World::new(4);
        world.pass(90.0, 100, &speeds);
        world.drains(0.65, &speeds);
        // One that has not shown yet what it does.
        assert_eq!(world.capacity.of(&id(9)), 1.0);
        // The slowest is replaced: what is left is what counts.
        world.answered.pop();
        world.pass(1.0, 100, &speeds[..3]);
        world.drains(2.5 / 3.0, &speeds[..3]);
    }

    #[test]
    fn a_throttled_fleet_that_recovers_is_believed_again_with_and_without_a_load() {
        let mut world = World::new(2);
        world.pass(60.0, 100, &[1.0; 2]);
        world.pass(60.0, 100, &[0.2; 2]);
        world.drains(0.2, &[0.2; 2]);
        world.pass(60.0, 100, &[1.0; 2]);
        world.drains(1.0, &[1.0; 2]);
        world.pass(60.0, 100, &[0.2; 2]);
        let believed = world.capacity.mean();
        world.now += 2.0 * HALF_LIFE_S;
        world.pass(1.0, 0, &[0.0; 2]);
        let after = world.capacity.mean();
        assert!((after - believed.powf(0.25)).abs() < 0.01, "{after}");
    }

    #[test]
    fn a_clock_that_is_set_makes_nothing_slow() {
        let mut world = World::new(2);
        world.pass(30.0, 100, &[1.0; 2]);
        world.now += 3600.0;
        world.pass(1.0, 100, &[1.0; 2]);
        world.drains(1.0, &[1.0; 2]);
    }

    #[test]
    fn a_fleet_that_answers_nothing_is_not_slow() {
        let mut world = World::new(2);
        world.pass(30.0, 100, &[1.0; 2]);
        world.pass(100.0, 100, &[0.0; 2]);
        world.pass(30.0, 100, &[1.0; 2]);
        world.drains(1.0, &[1.0; 2]);
    }
}
