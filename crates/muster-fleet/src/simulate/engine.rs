//! The simulated fleet: one queue, instances with slots, and a bill.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::SeedableRng;

use super::autoscaler::Autoscaler;
use super::boots::Boots;
use super::counts::CountHistory;
use super::launch_limit::LaunchTokens;
use super::outcome::Outcome;
use super::random::unit;
use super::scaling_policy::{FleetMetrics, ScalingPolicy};
use super::scenario::Scenario;
use super::schedule::Schedule;
use crate::fleet::{Answers, Instance, InstanceId, InstanceState};
use crate::learn::Learned;
use crate::observation::{Observation, RequestTotals};
use crate::plan::plan;
use crate::policy::Policy;
use crate::tier::{Tier, TierCounts};

/// How often the counts are wrong, where the scenario has noise.
const NOISE_SHARE: f64 = 0.05;
/// How often Muster's controller observes while nothing wakes it.
const MUSTER_INTERVAL_S: f64 = 1.0;
/// How soon after one observation a submission may cause another, where there is no idle instance: one that
/// comes sooner causes it then.
const WAKE_INTERVAL_S: f64 = 0.05;

/// Ordered only so that the heap can hold it; events of one time keep the order of scheduling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// An instance has booted.
    Ready(u64),
    /// An instance has finished one request, the n-th that was begun.
    Done(u64, u64),
    /// The policy decides anew.
    Evaluate,
    /// Muster decides anew, for a request that came a moment after it had.
    Wake,
}

/// How often one looks whether requests are left after a schedule's last step.
const AFTER_SCHEDULE_S: f64 = 1.0;

struct Machine {
    tier: Tier,
    launched_s: f64,
    booted: bool,
    draining: bool,
    busy: u32,
    /// How much of the scenario's service it gives.
    speed: f64,
    answered: u64,
}

/// Runs one policy over one trace.
///
/// Requests are served in the order of arrival, by the instance that was launched first among
/// those with a free slot. The run ends when every request is answered and the trace is over; what
/// still runs then is billed until then.
pub fn run(
    arrivals: &[f64],
    length_s: f64,
    scenario: &Scenario,
    mut autoscaler: Autoscaler,
) -> Outcome {
    let mut sim = Simulation::new(scenario, arrivals.len());
    sim.replay(arrivals, length_s, &mut autoscaler);
    sim.finish(autoscaler.name())
}

struct Simulation<'a> {
    scenario: &'a Scenario,
    now: f64,
    /// Time as the bits of a float that is not negative, which sort as the float does.
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    scheduled: u64,
    waiting: VecDeque<f64>,
    /// When the requests came that were begun, from the oldest that is not answered on; none where one is.
    begun: VecDeque<Option<f64>>,
    machines: BTreeMap<u64, Machine>,
    /// Machines that take work and have a free slot, first launched first.
    free: BTreeSet<u64>,
    /// Machines that take work.
    ready: u32,
    booting: u32,
    launched: u64,
    launch_tokens: LaunchTokens,
    in_service: u64,
    answered: u64,
    /// What the answered requests took.
    worked: Duration,
    /// From when to when each instance is billed by the hour: none of the controller's own machine.
    bills: Vec<(f64, f64)>,
    cost: f64,
    /// Instances that are stopped.
    stopped: u32,
    waits: Vec<f64>,
    cold_starts: u64,
    peak: u32,
    fleet: Vec<(f64, u32, u32)>,
    reasons: Vec<(f64, String)>,
    boots: Boots,
    noise: SplitMix64,
    counts: CountHistory,
    last_evaluation_s: f64,
    /// Whether an observation is due for a request that came a moment after the last.
    waking: bool,
    /// What Muster's controller observes, kept from one time to the next.
    observation: Observation,
    /// Whether instances came or went since.
    members_changed: bool,
}

impl<'a> Simulation<'a> {
    fn new(scenario: &'a Scenario, requests: usize) -> Self {
        Self {
            scenario,
            now: 0.0,
            events: BinaryHeap::new(),
            scheduled: 0,
            waiting: VecDeque::new(),
            begun: VecDeque::new(),
            machines: BTreeMap::new(),
            free: BTreeSet::new(),
            ready: 0,
            booting: 0,
            launched: 0,
            launch_tokens: LaunchTokens::new(scenario.launch_limit),
            in_service: 0,
            answered: 0,
            worked: Duration::ZERO,
            bills: Vec::new(),
            cost: 0.0,
            stopped: 0,
            waits: Vec::with_capacity(requests),
            cold_starts: 0,
            peak: 0,
            fleet: vec![(0.0, 0, 0)],
            reasons: Vec::new(),
            boots: Boots::new(scenario),
            noise: SplitMix64::seed_from_u64(scenario.seed ^ 0x6e6f_6973),
            counts: CountHistory::new(scenario.count_lag_s),
            last_evaluation_s: f64::NEG_INFINITY,
            waking: false,
            observation: Observation {
                now: Duration::ZERO,
                visible: 0,
                in_flight: 0,
                totals: None,
                instances: Vec::new(),
                available: TierCounts::UNLIMITED,
                throttled: false,
            },
            members_changed: false,
        }
    }

    fn replay(&mut self, arrivals: &[f64], length_s: f64, autoscaler: &mut Autoscaler) {
        match &*autoscaler {
            Autoscaler::Peer(peer) => {
                for _ in 0..peer.initial_instances().min(self.scenario.max_instances) {
                    self.launch_ahead(0.0, 0.0);
                }
            }
            Autoscaler::Scheduled(schedule) => {
                for _ in 0..schedule.initial() {
                    self.launch_ahead(0.0, 0.0);
                }
            }
            Autoscaler::Muster { .. } => {}
        }
        self.schedule(0.0, Event::Evaluate);
        let mut next = 0;
        loop {
            let event_s = self.next_event_s();
            if let Some(&arrival) = arrivals.get(next)
                && arrival < event_s
            {
                next += 1;
                self.now = arrival;
                self.arrive(autoscaler);
                continue;
            }
            let Some(Reverse((_, _, event))) = self.events.pop() else {
                break;
            };
            self.now = event_s;
            match event {
                Event::Ready(id) => self.booted(id),
                Event::Done(id, request) => {
                    self.done(id, request);
                    if self.scenario.closed_loop && self.now < length_s {
                        self.arrive(autoscaler);
                    }
                }
                Event::Evaluate
                    if self.now >= length_s
                        && next == arrivals.len()
                        && self.answered == self.submitted() =>
                {
                    break;
                }
                Event::Evaluate => {
                    let wait = self.evaluate(autoscaler);
                    self.schedule(self.now + wait, Event::Evaluate);
                }
                Event::Wake => {
                    self.waking = false;
                    self.wake(autoscaler);
                }
            }
            self.record_counts();
        }
    }

    fn schedule(&mut self, at_s: f64, event: Event) {
        self.scheduled += 1;
        // Adding zero turns -0.0, whose bits are large, into 0.0.
        let at = (at_s + 0.0).to_bits();
        self.events.push(Reverse((at, self.scheduled, event)));
    }

    fn next_event_s(&self) -> f64 {
        self.events
            .peek()
            .map_or(f64::INFINITY, |Reverse((bits, _, _))| f64::from_bits(*bits))
    }

    /// Requests that have come.
    fn submitted(&self) -> u64 {
        (self.waits.len() + self.waiting.len()) as u64
    }

    fn arrive(&mut self, autoscaler: &mut Autoscaler) {
        self.waiting.push_back(self.now);
        self.dispatch();
        self.record_counts();
        self.wake(autoscaler);
    }

    fn dispatch(&mut self) {
        while let (Some(&arrived), Some(&id)) = (self.waiting.front(), self.free.first()) {
            let Some(machine) = self.machines.get_mut(&id) else {
                self.free.remove(&id);
                continue;
            };
            self.waiting.pop_front();
            let request = self.waits.len() as u64;
            self.waits.push(self.now - arrived);
            self.begun.push_back(Some(arrived));
            machine.busy += 1;
            if machine.busy == self.scenario.slots {
                self.free.remove(&id);
            }
            self.in_service += 1;
            let took_s = self.scenario.service_time_s(request) / machine.speed;
            self.schedule(self.now + took_s, Event::Done(id, request));
        }
    }

    fn done(&mut self, id: u64, request: u64) {
        let first = self.waits.len() - self.begun.len();
        self.begun[request as usize - first] = None;
        while let Some(None) = self.begun.front() {
            self.begun.pop_front();
        }
        // What workers say, whatever their speed is.
        let said_s = self.scenario.service_time_s(request);
        self.worked += Duration::from_secs_f64(said_s);
        self.in_service -= 1;
        self.answered += 1;
        let Some(machine) = self.machines.get_mut(&id) else {
            return;
        };
        machine.busy -= 1;
        machine.answered += 1;
        if !machine.draining {
            self.free.insert(id);
            self.dispatch();
        } else if machine.busy == 0 {
            self.terminate(id);
        }
    }

    fn booted(&mut self, id: u64) {
        // One that was drained while it booted is gone.
        let Some(machine) = self.machines.get_mut(&id) else {
            return;
        };
        machine.booted = true;
        self.booting -= 1;
        self.ready += 1;
        self.free.insert(id);
        self.changed();
        self.dispatch();
    }

    fn launch(&mut self, tier: Tier, count: u32) {
        let granted = match tier {
            Tier::Ec2 => self.launch_tokens.take(self.now, count),
            Tier::Local | Tier::Stopped => count,
        };
        for _ in 0..granted {
            if self.ready + self.booting == 0 {
                self.cold_starts += 1;
            }
            let boot_s = self.boots.next_s(self.scenario.boot_s_of(tier));
            self.launch_ready_at(tier, self.now, self.now + boot_s);
        }
    }

    /// Launches an instance that is ready at a known time.
    fn launch_ahead(&mut self, launched_s: f64, ready_s: f64) {
        self.launch_ready_at(Tier::Ec2, launched_s, ready_s);
    }

    fn launch_ready_at(&mut self, tier: Tier, launched_s: f64, ready_s: f64) {
        let id = self.launched;
        self.launched += 1;
        let speeds = &self.scenario.speeds;
        let speed = speeds.get(id as usize % speeds.len().max(1));
        self.machines.insert(
            id,
            Machine {
                tier,
                launched_s,
                booted: false,
                draining: false,
                busy: 0,
                speed: speed.copied().unwrap_or(1.0),
                answered: 0,
            },
        );
        self.members_changed = true;
        self.booting += 1;
        self.peak = self.peak.max(self.machines.len() as u32);
        self.schedule(ready_s, Event::Ready(id));
        self.changed();
    }

    fn drain(&mut self, id: u64) {
        let Some(machine) = self.machines.get_mut(&id) else {
            return;
        };
        if machine.draining {
            return;
        }
        machine.draining = true;
        self.free.remove(&id);
        if machine.booted {
            self.ready -= 1;
        } else {
            self.booting -= 1;
        }
        let idle = machine.busy == 0;
        self.changed();
        if idle {
            self.terminate(id);
        }
    }

    fn terminate(&mut self, id: u64) {
        if let Some(machine) = self.machines.remove(&id) {
            self.members_changed = true;
            let held_s = self.now - machine.launched_s;
            self.cost += self.scenario.cost(machine.tier, held_s);
            if machine.tier == Tier::Local {
                return;
            }
            let billed_s = self.scenario.billed_s(machine.tier, held_s);
            self.bills
                .push((machine.launched_s, machine.launched_s + billed_s));
            // Only one that has been up can be stopped.
            let kept = self.scenario.tier(Tier::Stopped);
            let kept = kept.map_or(0, |stopped| stopped.number);
            if machine.booted && self.stopped < kept {
                self.stopped += 1;
            }
        }
    }

    fn changed(&mut self) {
        let now = (self.now, self.ready, self.booting);
        match self.fleet.last_mut() {
            Some(last) if last.0 == self.now => *last = now,
            _ => self.fleet.push(now),
        }
    }

    /// Lets the policy decide, and returns the seconds until it decides anew.
    fn evaluate(&mut self, autoscaler: &mut Autoscaler) -> f64 {
        match autoscaler {
            Autoscaler::Muster { policy, learned } => {
                self.evaluate_muster(policy, learned);
                MUSTER_INTERVAL_S
            }
            Autoscaler::Peer(peer) => {
                self.evaluate_peer(peer.as_mut(), false);
                peer.interval_s()
            }
            Autoscaler::Scheduled(schedule) => self.follow(schedule),
        }
    }

    /// Lets the policy decide besides its interval, where a request that has just come makes it.
    fn wake(&mut self, autoscaler: &mut Autoscaler) {
        match autoscaler {
            Autoscaler::Muster { policy, learned } => {
                let due_s = self.last_evaluation_s + WAKE_INTERVAL_S;
                if self.waiting.is_empty() {
                    return;
                }
                if self.now >= due_s {
                    self.evaluate_muster(policy, learned);
                } else if !std::mem::replace(&mut self.waking, true) {
                    self.schedule(due_s, Event::Wake);
                }
            }
            Autoscaler::Peer(peer) => {
                if peer.wakes_at_arrival() {
                    self.evaluate_peer(peer.as_mut(), true);
                }
            }
            Autoscaler::Scheduled(_) => {}
        }
    }

    fn evaluate_peer(&mut self, peer: &mut dyn ScalingPolicy, arrival: bool) {
        let (visible, in_flight, request_s) = self.approximate_counts();
        let metrics = FleetMetrics {
            now_s: self.now,
            visible,
            in_flight,
            request_s,
            arrival,
            ready: self.ready,
            booting: self.booting,
        };
        let desired = peer.desired_instances(&metrics, self.scenario);
        self.resize(desired.min(self.scenario.max_instances));
    }

    fn evaluate_muster(&mut self, policy: &Policy, learned: &mut Learned) {
        self.last_evaluation_s = self.now;
        let (visible, in_flight, _) = self.approximate_counts();
        self.update_instances();
        let submitted = self.submitted();
        let begun = self.begun.front().copied().flatten();
        let oldest = begun.or(self.waiting.front().copied());
        let observation = &mut self.observation;
        observation.now = Duration::from_secs_f64(self.now);
        (observation.visible, observation.in_flight) = (visible, in_flight);
        observation.totals = Some(RequestTotals {
            submitted,
            answered: self.answered,
            timed: self.answered,
            worked: self.worked,
            oldest: oldest.map(Duration::from_secs_f64),
        });
        observation.available.stopped = self.stopped;
        learned.observe(observation, policy);
        let made = plan(observation, learned, policy);
        self.stopped -= made.launch.stopped;
        for (tier, count) in made.launch.some() {
            self.launch(tier, count);
        }
        for id in &made.drain {
            if let Ok(id) = id.0.parse() {
                self.drain(id);
            }
        }
        if !(made.launch.total() == 0 && made.drain.is_empty()) {
            self.reasons.push((self.now, made.reason));
        }
    }

    /// Brings the observed instances up to date; names are made only for new ones.
    fn update_instances(&mut self) {
        if self.members_changed {
            self.members_changed = false;
            let known = |(id, machine): (&u64, &Machine)| Instance {
                id: InstanceId(id.to_string()),
                state: InstanceState::Pending,
                tier: machine.tier,
                age: Duration::ZERO,
                busy: None,
                overdue: false,
                answered: None,
            };
            self.observation.instances = self.machines.iter().map(known).collect();
        }
        for (machine, instance) in self.machines.values().zip(&mut self.observation.instances) {
            instance.state = match (machine.draining, machine.booted) {
                (true, _) => InstanceState::Draining,
                (false, true) => InstanceState::Running,
                (false, false) => InstanceState::Pending,
            };
            instance.age = Duration::from_secs_f64(self.now - machine.launched_s);
            instance.busy = Some(machine.busy > 0);
            instance.answered = Some(Answers {
                count: machine.answered,
                age: Duration::ZERO,
            });
        }
    }

    fn record_counts(&mut self) {
        let visible = self.waiting.len() as u64;
        self.counts.record(self.now, visible, self.in_service);
    }

    /// Returns the queue's counts as the service answers them, late, and now and then wrong, and the
    /// seconds that requests had taken then.
    fn approximate_counts(&mut self) -> (u64, u64, f64) {
        let counts = self.counts.told(self.now);
        let mut visible = counts.visible;
        if self.scenario.count_noise > 0 && unit(&mut self.noise) < NOISE_SHARE {
            let span = f64::from(2 * self.scenario.count_noise + 1);
            let off = (unit(&mut self.noise) * span) as i64 - i64::from(self.scenario.count_noise);
            visible = visible.saturating_add_signed(off);
        }
        (visible, counts.in_flight, counts.request_s)
    }

    /// Launches or drains until there are `desired` instances, booting ones included.
    fn resize(&mut self, desired: u32) {
        let missing = desired.saturating_sub(self.ready + self.booting);
        self.launch(Tier::Ec2, missing);
        let surplus = (self.ready + self.booting).saturating_sub(desired) as usize;
        if surplus > 0 {
            let mut members: Vec<_> = self
                .machines
                .iter()
                .filter(|(_, machine)| !machine.draining)
                .map(|(id, machine)| (machine.booted, machine.busy > 0, Reverse(*id)))
                .collect();
            members.sort_unstable();
            for (_, _, Reverse(id)) in members.into_iter().take(surplus) {
                self.drain(id);
            }
        }
    }

    /// Does what a schedule asks for by now, and returns the seconds until it asks for more.
    fn follow(&mut self, schedule: &mut Schedule) -> f64 {
        while let Some((count, ready_s)) = schedule.launch(self.now) {
            for _ in 0..count {
                self.launch_ahead(self.now, ready_s);
            }
        }
        let kept = schedule.keep(self.now);
        if let Some(next_s) = schedule.next_s() {
            if let Some(ready) = kept {
                self.keep(ready);
            }
            return next_s - self.now;
        }
        // After its last step one instance answers what is left.
        let unanswered = !self.waiting.is_empty() || self.in_service > 0;
        self.keep(u32::from(unanswered));
        if unanswered && self.ready + self.booting == 0 {
            self.launch_ahead(self.now, self.now + self.scenario.boot_s);
        }
        AFTER_SCHEDULE_S
    }

    /// Drains what is ready beyond `count`: idle ones first, of each the last launched first.
    fn keep(&mut self, count: u32) {
        let surplus = self.ready.saturating_sub(count) as usize;
        if surplus > 0 {
            let mut members: Vec<_> = self
                .machines
                .iter()
                .filter(|(_, machine)| machine.booted && !machine.draining)
                .map(|(id, machine)| (machine.busy > 0, Reverse(*id)))
                .collect();
            members.sort_unstable();
            for (_, Reverse(id)) in members.into_iter().take(surplus) {
                self.drain(id);
            }
        }
    }

    fn finish(mut self, name: String) -> Outcome {
        let ids: Vec<u64> = self.machines.keys().copied().collect();
        for id in ids {
            self.drain(id);
        }
        let billed_s: f64 = self.bills.iter().map(|(from_s, to_s)| to_s - from_s).sum();
        let instance_hours = billed_s / 3600.0;
        Outcome {
            name,
            cost: self.cost,
            instance_hours,
            waits: self.waits,
            bills: self.bills,
            launches: self.launched,
            refused_launches: self.launch_tokens.refused,
            cold_starts: self.cold_starts,
            peak: self.peak,
            fleet: self.fleet,
            reasons: self.reasons,
        }
    }
}

#[cfg(test)]
mod tests;
