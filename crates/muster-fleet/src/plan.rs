//! How many workers there should be: a pure function of what was observed.
//!
//! The controller calls it, and a simulator can call the very same function.

use crate::fleet::{Instance, InstanceId, InstanceState};

/// What the operator asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Instances kept even without work.
    pub min_instances: u32,
    /// Instances never exceeded.
    pub max_instances: u32,
    /// Requests that one instance is launched for.
    pub backlog_per_instance: u32,
}

/// What the controller saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Requests visible on the queue plus requests in flight at a worker.
    pub backlog: u64,
    /// The largest backlog seen over the idle grace, this observation included.
    pub peak_backlog: u64,
    /// Every instance that is not terminated, oldest first.
    pub instances: Vec<Instance>,
    /// Whether launches are held back after failed ones.
    pub launches_held: bool,
}

/// What is to be done now, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Instances to launch.
    pub launch: u32,
    /// Instances to drain.
    pub drain: Vec<InstanceId>,
    /// One sentence for the log and the status page.
    pub reason: String,
}

/// Decides what to launch and what to drain.
///
/// Wanted is `ceil(backlog / backlog_per_instance)` within the policy's bounds, the formula that
/// KEDA uses for SQS with in-flight requests counted. Instances that are still pending count as
/// capacity to come, so a backlog is never launched for twice; draining ones count only against
/// `max_instances`. Scaling out is immediate. Scaling in waits until the whole idle grace has
/// needed fewer (`peak_backlog`), and takes pending instances before running ones and the youngest
/// of each first: the oldest have the warmest caches.
pub fn plan(seen: &Observation, policy: &Policy) -> Plan {
    let wanted = wanted(seen.backlog, policy);
    let kept = wanted.max(self::wanted(seen.peak_backlog, policy));
    let count = |state| seen.instances.iter().filter(|i| i.state == state).count() as u32;
    let (pending, running, draining) = (
        count(InstanceState::Pending),
        count(InstanceState::Running),
        count(InstanceState::Draining),
    );
    let coming = pending + running;

    let missing = wanted.saturating_sub(coming);
    let room = policy.max_instances.saturating_sub(coming + draining);
    let launch = if seen.launches_held {
        0
    } else {
        missing.min(room)
    };

    let surplus = coming.saturating_sub(kept) as usize;
    let mut candidates: Vec<&Instance> = seen
        .instances
        .iter()
        .filter(|i| i.state != InstanceState::Draining)
        .collect();
    candidates.sort_by(|a, b| (a.state, a.age, &a.id).cmp(&(b.state, b.age, &b.id)));
    let drain: Vec<InstanceId> = candidates
        .into_iter()
        .take(surplus)
        .map(|instance| instance.id.clone())
        .collect();

    let action = match (launch, drain.len()) {
        (0, 0) if missing > 0 && seen.launches_held => {
            format!("launching {missing} is held back after failed starts")
        }
        (0, 0) if missing > 0 => format!("{draining} draining leave no room for {missing} more"),
        (0, 0) if kept > wanted && coming > wanted => "the idle grace keeps the rest".to_owned(),
        (0, 0) => "nothing to do".to_owned(),
        (0, n) => format!("drain {n}"),
        (n, _) => format!("launch {n}"),
    };
    let reason = format!(
        "backlog {} needs {wanted}, {running} running, {pending} booting: {action}",
        seen.backlog
    );
    Plan {
        launch,
        drain,
        reason,
    }
}

fn wanted(backlog: u64, policy: &Policy) -> u32 {
    let needed = backlog.div_ceil(u64::from(policy.backlog_per_instance.max(1)));
    u32::try_from(needed).unwrap_or(u32::MAX).clamp(
        policy.min_instances.min(policy.max_instances),
        policy.max_instances,
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const POLICY: Policy = Policy {
        min_instances: 0,
        max_instances: 4,
        backlog_per_instance: 1,
    };

    fn fleet(states: &[InstanceState]) -> Vec<Instance> {
        states
            .iter()
            .enumerate()
            .map(|(i, &state)| Instance {
                id: InstanceId(format!("i-{i}")),
                state,
                age: Duration::from_secs(100 - i as u64),
            })
            .collect()
    }

    fn seen(backlog: u64, peak_backlog: u64, states: &[InstanceState]) -> Observation {
        Observation {
            backlog,
            peak_backlog,
            instances: fleet(states),
            launches_held: false,
        }
    }

    use InstanceState::{Draining, Pending, Running};

    #[test]
    fn the_fleet_follows_the_backlog() {
        for (observation, launch, drained) in [
            (seen(0, 0, &[]), 0, vec![]),
            (seen(1, 1, &[]), 1, vec![]),
            (seen(100, 100, &[]), 4, vec![]),
            (seen(2, 2, &[Pending]), 1, vec![]),
            (seen(2, 2, &[Pending, Running]), 0, vec![]),
            (seen(9, 9, &[Draining, Draining, Running]), 1, vec![]),
            (seen(0, 3, &[Running, Running]), 0, vec![]),
            (seen(0, 0, &[Running, Running]), 0, vec!["i-1", "i-0"]),
            (seen(0, 0, &[Running, Pending]), 0, vec!["i-1", "i-0"]),
            (
                seen(1, 1, &[Pending, Running, Running]),
                0,
                vec!["i-0", "i-2"],
            ),
            (seen(0, 0, &[Draining]), 0, vec![]),
        ] {
            let plan = plan(&observation, &POLICY);
            let drained: Vec<_> = drained
                .into_iter()
                .map(|id| InstanceId(id.to_owned()))
                .collect();
            assert_eq!(
                (plan.launch, plan.drain),
                (launch, drained),
                "{observation:?}"
            );
        }
    }

    #[test]
    fn the_reason_says_what_was_seen_and_done() {
        let reason = plan(&seen(120, 120, &[Running, Running, Pending]), &POLICY).reason;
        assert_eq!(
            reason,
            "backlog 120 needs 4, 2 running, 1 booting: launch 1"
        );
    }

    #[test]
    fn failed_starts_hold_launches_back_and_say_so() {
        let held = Observation {
            launches_held: true,
            ..seen(5, 5, &[Running])
        };
        let plan = plan(&held, &POLICY);
        assert_eq!(plan.launch, 0);
        assert!(plan.reason.contains("held back"), "{}", plan.reason);
    }

    prop_compose! {
        fn observations()(
            backlog in 0u64..50,
            above in 0u64..50,
            states in prop::collection::vec(prop::sample::select(vec![Pending, Running, Draining]), 0..12),
            launches_held: bool,
        ) -> Observation {
            Observation { launches_held, ..seen(backlog, backlog + above, &states) }
        }
    }

    proptest! {
        #[test]
        fn bounds_hold_for_any_observation(
            observation in observations(),
            min in 0u32..4,
            span in 0u32..6,
            per in 1u32..7,
        ) {
            let policy = Policy { min_instances: min, max_instances: min + span, backlog_per_instance: per };
            let made = plan(&observation, &policy);
            prop_assert_eq!(&made, &plan(&observation, &policy));
            let all = observation.instances.len() as u32;
            let coming = observation.instances.iter().filter(|i| i.state != Draining).count() as u32;
            prop_assert!(made.launch == 0 || all + made.launch <= policy.max_instances);
            prop_assert!(made.launch == 0 || made.drain.is_empty());
            prop_assert!(coming - made.drain.len() as u32 >= policy.min_instances.min(coming));
            let alive = |id| observation.instances.iter().any(|i| i.id == id && i.state != Draining);
            prop_assert!(made.drain.iter().cloned().all(alive));
            // Nothing is launched while capacity to come suffices.
            let needed = observation.backlog.div_ceil(u64::from(per)).max(u64::from(min));
            prop_assert!(made.launch == 0 || u64::from(coming) < needed);
        }

        #[test]
        fn applying_the_plan_settles_at_once(observation in observations()) {
            let made = plan(&observation, &POLICY);
            let mut after = observation.clone();
            for instance in &mut after.instances {
                if made.drain.contains(&instance.id) {
                    instance.state = Draining;
                }
            }
            for n in 0..made.launch {
                after.instances.push(Instance {
                    id: InstanceId(format!("new-{n}")),
                    state: Pending,
                    age: Duration::ZERO,
                });
            }
            let again = plan(&after, &POLICY);
            prop_assert_eq!((again.launch, again.drain.len()), (0, 0));
        }
    }
}
