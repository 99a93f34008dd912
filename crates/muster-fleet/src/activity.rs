//! What a controller has done since it began: counts and durations that only ever grow.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fleet::{Instance, InstanceId, InstanceState};
use crate::plan::Plan;

/// Upper bounds of the buckets of a [`DurationHistogram`], in seconds; what took longer is in one more
/// bucket. Local workers start within a second, instances on EC2 within minutes.
pub const BUCKET_BOUNDS_S: [f64; 12] = [
    0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0,
];
/// Longest time between two observations in which instances are taken to have been there throughout.
const MAX_OBSERVATION_GAP: Duration = Duration::from_secs(90);

/// Histogram of how long something took each time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DurationHistogram {
    /// The sum of the durations, in seconds.
    pub sum_s: f64,
    /// Durations in each bucket of [`BUCKET_BOUNDS_S`], and in the last those longer than all bounds.
    #[serde(rename = "classes")]
    pub buckets: [u64; BUCKET_BOUNDS_S.len() + 1],
}

impl DurationHistogram {
    fn record(&mut self, took: Duration) {
        let took_s = took.as_secs_f64();
        self.sum_s += took_s;
        self.buckets[BUCKET_BOUNDS_S.partition_point(|bound| *bound < took_s)] += 1;
    }

    /// Returns how many durations there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// What a controller has done since it began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Activity {
    /// Plans that launched, that drained, and that left the fleet as it was.
    pub plans: PlanCounts,
    /// Instances launched.
    pub launched: u64,
    /// Launches that the fleet refused.
    pub failed_launches: u64,
    /// Instances that ended before they were ready.
    pub failed_starts: u64,
    /// Instances told to drain.
    pub drained: u64,
    /// The time that instances were there, each counted, in seconds.
    pub instance_s: f64,
    /// From an instance's launch until it was ready.
    pub boots: DurationHistogram,
    /// From a launch, with nothing else starting, until nothing was starting any more.
    pub scale_outs: DurationHistogram,
    /// From the last request's answer until the fleet was down to its minimum.
    pub scale_ins: DurationHistogram,
}

/// Counts of plans by what they did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanCounts {
    /// Launched, whatever else.
    pub launch: u64,
    /// Drained, and launched nothing.
    pub drain: u64,
    /// Left the fleet as it was.
    pub hold: u64,
}

/// Keeps a controller's [`Activity`].
#[derive(Debug, Default)]
pub(crate) struct ActivityRecorder {
    pub activity: Activity,
    states: HashMap<InstanceId, InstanceState>,
    /// The time of the last observation, since whatever moment its times are counted from.
    observed_at: Option<Duration>,
    /// When the scaling that is under way began.
    scaling_out: Option<Duration>,
    scaling_in: Option<Duration>,
}

impl ActivityRecorder {
    /// Takes in the fleet as it is at `now`, with so many requests unanswered.
    pub fn observe(&mut self, now: Duration, instances: &[Instance], backlog: u64, min: u32) {
        let elapsed = self.observed_at.map_or(Duration::ZERO, |at| {
            now.saturating_sub(at).min(MAX_OBSERVATION_GAP)
        });
        self.observed_at = Some(now);
        // One that is younger was not there all the time.
        let there = instances.iter().map(|instance| elapsed.min(instance.age));
        self.activity.instance_s += there.sum::<Duration>().as_secs_f64();
        for instance in instances {
            let before = self.states.get(&instance.id);
            if before == Some(&InstanceState::Pending) && instance.state == InstanceState::Running {
                self.activity.boots.record(instance.age);
            }
        }
        let states = instances.iter();
        self.states = states.map(|i| (i.id.clone(), i.state)).collect();

        let there = |state| instances.iter().any(|instance| instance.state == state);
        if !there(InstanceState::Pending)
            && let Some(begun) = self.scaling_out.take()
            && there(InstanceState::Running)
        {
            self.activity.scale_outs.record(now.saturating_sub(begun));
        }
        if backlog > 0 {
            self.scaling_in = None;
        } else if instances.len() > min as usize {
            self.scaling_in.get_or_insert(now);
        } else if let Some(begun) = self.scaling_in.take() {
            self.activity.scale_ins.record(now.saturating_sub(begun));
        }
    }

    /// Records a plan.
    pub fn record_plan(&mut self, plan: &Plan) {
        let made = match (plan.launch.total(), plan.drain.is_empty()) {
            (1.., _) => &mut self.activity.plans.launch,
            (0, false) => &mut self.activity.plans.drain,
            (0, true) => &mut self.activity.plans.hold,
        };
        *made += 1;
    }

    /// Records a launch that was made at `now`.
    pub fn record_launch(&mut self, now: Duration, count: u32) {
        self.activity.launched += u64::from(count);
        self.scaling_out.get_or_insert(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tier::{Tier, TierCounts};

    fn instance(id: &str, state: InstanceState, age_s: u64) -> Instance {
        Instance {
            id: InstanceId(id.to_owned()),
            tier: Tier::Ec2,
            state,
            age: Duration::from_secs(age_s),
            busy: None,
            overdue: false,
            answered: None,
        }
    }

    #[test]
    fn each_duration_is_in_the_bucket_that_bounds_it() {
        let mut durations = DurationHistogram::default();
        for took_ms in [0, 100, 101, 320_000, 320_001] {
            durations.record(Duration::from_millis(took_ms));
        }
        assert_eq!(durations.buckets[..2], [2, 1]);
        assert_eq!(durations.buckets[11..], [1, 1]);
        assert_eq!(durations.count(), 5);
        assert!((durations.sum_s - 640.202).abs() < 1e-9);
    }

    #[test]
    fn a_burst_is_followed_from_zero_to_zero() {
        use InstanceState::{Draining, Pending, Running};
        let at = Duration::from_secs;
        let mut recorder = ActivityRecorder::default();
        recorder.observe(at(0), &[], 5, 0);
        recorder.record_launch(at(0), 2);
        recorder.observe(
            at(1),
            &[instance("a", Pending, 1), instance("b", Pending, 1)],
            5,
            0,
        );
        recorder.observe(
            at(2),
            &[instance("a", Running, 2), instance("b", Pending, 2)],
            5,
            0,
        );
        let both = |state| [instance("a", state, 9), instance("b", state, 4)];
        recorder.observe(at(4), &both(Running), 3, 0);
        let activity = &recorder.activity;
        assert_eq!((activity.boots.count(), activity.boots.sum_s), (2, 6.0));
        assert_eq!(
            (activity.scale_outs.count(), activity.scale_outs.sum_s),
            (1, 4.0)
        );

        recorder.observe(at(10), &both(Running), 0, 0);
        // Another request came in between: what ended did not last.
        recorder.observe(at(11), &both(Running), 1, 0);
        recorder.observe(at(12), &both(Running), 0, 0);
        recorder.observe(at(14), &both(Draining), 0, 0);
        recorder.observe(at(15), &[], 0, 0);
        recorder.observe(at(16), &[], 0, 0);
        let activity = &recorder.activity;
        assert_eq!(
            (activity.scale_ins.count(), activity.scale_ins.sum_s),
            (1, 3.0)
        );
        // Until each observation, those that it saw, as old as they were: 2 x (1 + 1 + 2 + 1 + 1 + 2)
        // and, of six seconds, 6 + 4.
        assert_eq!(activity.instance_s, 26.0);
        assert_eq!(activity.launched, 2);
    }

    #[test]
    fn a_start_that_fails_is_no_scaling_out() {
        let mut recorder = ActivityRecorder::default();
        recorder.record_launch(Duration::ZERO, 1);
        let pending = [instance("a", InstanceState::Pending, 0)];
        recorder.observe(Duration::from_secs(1), &pending, 1, 0);
        recorder.observe(Duration::from_secs(2), &[], 1, 0);
        assert_eq!(recorder.activity.scale_outs.count(), 0);
        assert_eq!(recorder.activity.boots.count(), 0);
    }

    #[test]
    fn a_machine_that_slept_is_not_counted_as_instances() {
        let mut recorder = ActivityRecorder::default();
        let running = |age_s| [instance("a", InstanceState::Running, age_s)];
        recorder.observe(Duration::ZERO, &running(0), 0, 1);
        recorder.observe(Duration::from_secs(86_400), &running(86_400), 0, 1);
        assert_eq!(
            recorder.activity.instance_s,
            MAX_OBSERVATION_GAP.as_secs_f64()
        );
    }

    #[test]
    fn the_time_before_a_launch_is_not_counted() {
        let mut recorder = ActivityRecorder::default();
        recorder.observe(Duration::ZERO, &[], 0, 0);
        let launched = [instance("a", InstanceState::Pending, 1)];
        recorder.observe(Duration::from_secs(10), &launched, 1, 0);
        assert_eq!(recorder.activity.instance_s, 1.0);
    }

    #[test]
    fn plans_are_counted_by_what_they_do() {
        let plan = |launch, drain: &[&str]| Plan {
            launch: TierCounts {
                ec2: launch,
                ..TierCounts::default()
            },
            drain: drain
                .iter()
                .map(|id| InstanceId((*id).to_owned()))
                .collect(),
            reason: String::new(),
        };
        let mut recorder = ActivityRecorder::default();
        for plan in [
            plan(0, &[]),
            plan(1, &[]),
            plan(1, &["a"]),
            plan(0, &["a"]),
            plan(0, &[]),
        ] {
            recorder.record_plan(&plan);
        }
        let expected = PlanCounts {
            launch: 2,
            drain: 1,
            hold: 2,
        };
        assert_eq!(recorder.activity.plans, expected);
    }
}
