//! How many workers there should be: a pure function of what was observed and learned.
//!
//! The controller and the simulator share it.

use std::time::Duration;

use crate::fleet::{Instance, InstanceId, InstanceState};
use crate::learn::Learned;
use crate::observation::Observation;
use crate::policy::Policy;

/// No boot is given up before this: a busy machine may take that long over what is quick elsewhere.
const MIN_BOOT_TIMEOUT: Duration = Duration::from_secs(30);

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

/// Decides what to launch and what to drain; `learned` has taken in the same observation.
///
/// **Scaling out** is immediate. With `S` seconds of a slot for a request, `k` slots, `D` seconds
/// of a boot and `r` requests a second to be expected, what is left of the backlog when an
/// instance launched now would be ready is
/// `F = max(0, backlog + r D - (D running + sum of (D - time left) of the booting) k / S)`.
/// If what runs and boots serves `F` within the objective, a launch would come too late to help
/// and none is made. Otherwise the fleet is to clear `F` in as long as its first request has waited
/// by then, and to keep up with what comes: `ceil((F / max(objective, D) + r) S / k)`.
///
/// **Looking ahead** (predictive scaling), as many instances are ready by then as the same minute of
/// the last half-hours, hours or days needed, where that forecast keeps coming true
/// ([`Learned::expected_at_ready`]).
///
/// **Scaling in** keeps what [`Learned::worth_keeping`] says, and what is billed anyway. An
/// instance that boots for too long is not counted on, so another takes its place, and is drained
/// once it has taken twice as long, or half a minute.
pub fn plan(observed: &Observation, learned: &Learned, policy: &Policy) -> Plan {
    let backlog = learned.backlog();
    let hung_s = learned.hung_s(policy);
    let members = Members::count(observed, hung_s);
    let coming = members.coming();
    let least = policy.min_instances.min(policy.max_instances);

    let sized = needed_for_backlog(observed, members, learned, policy);
    let busy = learned.in_use(policy).min(coming);
    let expected = learned.expected_at_ready(policy);
    let needed = sized
        .max(busy)
        .max(expected)
        .clamp(least, policy.max_instances);

    let missing = needed.saturating_sub(coming);
    let others = members.hung + members.draining;
    let room = policy.max_instances.saturating_sub(coming + others);
    let limit = observed.launch_limit.unwrap_or(u32::MAX);
    let launch = missing.min(room).min(limit);

    let kept = needed.max(learned.worth_keeping(policy));
    let surplus = coming.saturating_sub(kept) as usize;
    let drain = instances_to_drain(observed, policy, hung_s, surplus);

    let action = match (launch, drain.len()) {
        (0, 0) if missing > 0 && limit == 0 => {
            format!("launching {missing} is held back after failed starts")
        }
        (0, 0) if missing > 0 => format!("{others} others leave no room for {missing} more"),
        (0, 0) if coming > needed && surplus == 0 => "the idle are worth keeping".to_owned(),
        (0, 0) if surplus > 0 => "the rest is paid for already".to_owned(),
        (0, 0) => "nothing to do".to_owned(),
        (0, n) => format!("drain {n}"),
        (n, 0) if expected > sized.max(busy) => format!("launch {n} for what comes at this time"),
        (n, 0) => format!("launch {n}"),
        (n, m) => format!("launch {n}, drain {m}"),
    };
    let Members {
        running, booting, ..
    } = members;
    let reason =
        format!("backlog {backlog} needs {needed}, {running} running, {booting} booting: {action}");
    Plan {
        launch,
        drain,
        reason,
    }
}

/// How many instances are in which phase.
#[derive(Clone, Copy, Debug)]
struct Members {
    running: u32,
    /// Those that are counted on to take work.
    booting: u32,
    /// Those that boot for too long.
    hung: u32,
    draining: u32,
}

impl Members {
    fn count(observed: &Observation, hung_s: f64) -> Self {
        let hung = observed.instances.iter().filter(|i| is_hung(i, hung_s));
        let hung = hung.count() as u32;
        Self {
            running: observed.count(InstanceState::Running),
            booting: observed.count(InstanceState::Pending) - hung,
            hung,
            draining: observed.count(InstanceState::Draining),
        }
    }

    /// Those that take work, now or once they have booted.
    fn coming(self) -> u32 {
        self.running + self.booting
    }
}

fn is_hung(instance: &Instance, hung_s: f64) -> bool {
    instance.state == InstanceState::Pending && instance.age.as_secs_f64() > hung_s
}

/// Counts the instances that the backlog needs when a launch would be ready; none where a launch
/// would come too late to help.
fn needed_for_backlog(
    observed: &Observation,
    members: Members,
    learned: &Learned,
    policy: &Policy,
) -> u32 {
    let slots = f64::from(policy.slots.max(1));
    let (boot_s, service_s) = (learned.boot_s(policy), learned.service_s(policy));
    let (hung_s, rate) = (learned.hung_s(policy), learned.expected_rate(policy));
    let (backlog, coming) = (learned.backlog(), members.coming());
    // Seconds that instances work in the time of a boot.
    let mut working_s = f64::from(members.running) * boot_s;
    for instance in &observed.instances {
        if instance.state == InstanceState::Pending && !is_hung(instance, hung_s) {
            working_s += instance.age.as_secs_f64().min(boot_s);
        }
    }
    let left = (backlog as f64 + rate * boot_s - working_s * slots / service_s).max(0.0);
    let objective_s = policy.target_wait.as_secs_f64();
    let soon_enough = f64::from(coming) * objective_s * slots / service_s;
    if backlog == 0 && coming == 0 || coming > 0 && left <= soon_enough {
        return 0;
    }
    let clearing = left / objective_s.max(boot_s);
    let wanted = ((clearing + rate) * service_s / slots).ceil() as u32;
    wanted.max(1)
}

/// Chooses instances to drain: those whose boot is given up, then `surplus` others, none of them
/// within the time that is billed anyway: first those whose sign of life is late, then idle ones,
/// then booting, then busy ones, the youngest of each first.
fn instances_to_drain(
    observed: &Observation,
    policy: &Policy,
    hung_s: f64,
    surplus: usize,
) -> Vec<InstanceId> {
    let given_up = observed.instances.iter().filter(|i| {
        is_hung(i, hung_s) && i.age > MIN_BOOT_TIMEOUT && i.age.as_secs_f64() > 2.0 * hung_s
    });
    let order = |i: &Instance| match (i.state, i.busy) {
        _ if i.overdue => 0,
        (InstanceState::Running, Some(false)) => 1,
        (InstanceState::Pending, _) => 2,
        _ => 3,
    };
    let mut candidates: Vec<_> = if surplus == 0 {
        Vec::new()
    } else {
        observed
            .instances
            .iter()
            .filter(|i| i.state != InstanceState::Draining && !is_hung(i, hung_s))
            .filter(|i| i.age >= policy.billing_minimum)
            .map(|i| (order(i), i.age, i))
            .collect()
    };
    candidates.sort_unstable_by(|(a, a_age, a_i), (b, b_age, b_i)| {
        (a, a_age, &a_i.id).cmp(&(b, b_age, &b_i.id))
    });
    let candidates = candidates.into_iter().map(|(_, _, instance)| instance);
    given_up
        .chain(candidates.take(surplus))
        .map(|instance| instance.id.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use InstanceState::{Draining, Pending, Running};
    use proptest::prelude::*;

    use super::*;
    use crate::policy::KeepAlive;

    const POLICY: Policy = Policy {
        min_instances: 0,
        max_instances: 20,
        slots: 1,
        target_wait: Duration::from_secs(1),
        keep_alive: KeepAlive::Fixed(Duration::from_secs(30)),
        billing_minimum: Duration::ZERO,
        count_lag: Duration::from_secs(60),
        expected_boot: Duration::from_secs(10),
        expected_service: Duration::from_millis(500),
    };

    fn instance(id: u32, state: InstanceState, age_s: f64) -> Instance {
        Instance {
            id: InstanceId(id.to_string()),
            state,
            age: Duration::from_secs_f64(age_s),
            busy: Some(false),
            overdue: false,
        }
    }

    fn members(states: &[(InstanceState, f64)]) -> Vec<Instance> {
        let numbered = (0..).zip(states);
        numbered
            .map(|(id, (state, age_s))| instance(id, *state, *age_s))
            .collect()
    }

    fn observed(backlog: u64, instances: Vec<Instance>) -> Observation {
        Observation {
            now: Duration::from_secs(1000),
            visible: backlog,
            in_flight: 0,
            totals: None,
            instances,
            launch_limit: None,
        }
    }

    /// The plan of a controller that sees this first of all.
    fn first_plan(observed: &Observation, policy: &Policy) -> Plan {
        let mut learned = Learned::default();
        learned.observe(observed, policy);
        plan(observed, &learned, policy)
    }

    #[test]
    fn the_fleet_is_sized_for_what_is_left_when_a_launch_would_be_ready() {
        // Boot 10 s, half a second a request, objective 1 s: an instance serves 20 requests in the
        // time of a boot, and a launch is to clear what is left in as long again.
        type Case<'a> = (u64, &'a [(InstanceState, f64)], u32, &'a str);
        let cases: [Case<'_>; 8] = [
            (
                0,
                &[],
                0,
                "backlog 0 needs 0, 0 running, 0 booting: nothing to do",
            ),
            (
                1,
                &[],
                1,
                "backlog 1 needs 1, 0 running, 0 booting: launch 1",
            ),
            (
                100,
                &[],
                5,
                "backlog 100 needs 5, 0 running, 0 booting: launch 5",
            ),
            // No overshoot while the first boot: they are counted as capacity to come.
            (100, &[(Pending, 0.0); 5], 0, "nothing to do"),
            // 100 - 2 x 20 are left; with one almost booted another 18 go.
            (
                100,
                &[(Running, 99.0); 2],
                1,
                "backlog 100 needs 3, 2 running, 0 booting: launch 1",
            ),
            (60, &[(Running, 99.0); 3], 0, "nothing to do"),
            // Nothing that would come too late to help: 20 go before it is ready.
            (20, &[(Running, 99.0)], 0, "nothing to do"),
            (
                1000,
                &[],
                20,
                "backlog 1000 needs 20, 0 running, 0 booting: launch 20",
            ),
        ];
        for (backlog, states, launch, reason) in cases {
            let made = first_plan(&observed(backlog, members(states)), &POLICY);
            assert_eq!(made.launch, launch, "{}", made.reason);
            assert!(made.reason.ends_with(reason), "{}", made.reason);
        }
    }

    #[test]
    fn the_bounds_hold_and_draining_instances_take_room() {
        let bounded = Policy {
            min_instances: 1,
            max_instances: 3,
            ..POLICY
        };
        assert_eq!(first_plan(&observed(0, vec![]), &bounded).launch, 1);
        let draining = observed(500, members(&[(Draining, 50.0), (Running, 50.0)]));
        let made = first_plan(&draining, &bounded);
        assert_eq!(made.launch, 1, "{}", made.reason);
        let mut full = observed(500, members(&[(Draining, 50.0); 3]));
        let made = first_plan(&full, &bounded);
        assert_eq!(made.launch, 0);
        assert!(
            made.reason.ends_with("3 others leave no room for 3 more"),
            "{}",
            made.reason
        );
        full.instances.clear();
        full.launch_limit = Some(0);
        let made = first_plan(&full, &bounded);
        assert_eq!(made.launch, 0);
        assert!(
            made.reason.contains("held back after failed starts"),
            "{}",
            made.reason
        );
        full.launch_limit = Some(1);
        let made = first_plan(&full, &bounded);
        assert_eq!(made.launch, 1);
    }

    #[test]
    fn idle_ones_go_first_and_none_within_what_is_paid_for() {
        let policy = Policy {
            keep_alive: KeepAlive::Fixed(Duration::ZERO),
            billing_minimum: Duration::from_secs(60),
            ..POLICY
        };
        let mut instances = members(&[
            (Running, 300.0),
            (Running, 200.0),
            (Running, 100.0),
            (Pending, 70.0),
            (Running, 30.0),
        ]);
        instances[2].busy = Some(true);
        let made = first_plan(&observed(0, instances), &policy);
        let drained: Vec<_> = made.drain.iter().map(|id| id.0.as_str()).collect();
        // First the one that will never boot; then the youngest idle one that is paid up, the
        // other, the busy one; the fifth has half a minute left that is paid for.
        assert_eq!(drained, ["3", "1", "0", "2"], "{}", made.reason);
    }

    #[test]
    fn one_whose_sign_of_life_is_late_goes_first_although_it_holds_requests() {
        let policy = Policy {
            keep_alive: KeepAlive::Fixed(Duration::ZERO),
            ..POLICY
        };
        let mut instances = members(&[(Running, 300.0), (Running, 200.0), (Running, 100.0)]);
        (instances[0].overdue, instances[0].busy) = (true, Some(true));
        let made = first_plan(&observed(0, instances), &policy);
        assert_eq!(made.drain[0].0, "0", "{}", made.reason);
    }

    proptest! {
        #[test]
        fn bounds_hold_and_the_same_input_gives_the_same_plan(
            backlog in 0u64..5000,
            states in prop::collection::vec((0u8..3, 0.0f64..500.0), 0..40),
            min in 0u32..10,
            more in 0u32..20,
            limit: Option<u32>,
            slots in 1u32..4,
        ) {
            let state = |n| [Pending, Running, Draining][n as usize];
            let states: Vec<_> = states.into_iter().map(|(n, age)| (state(n), age)).collect();
            let mut observed = observed(backlog, members(&states));
            observed.launch_limit = limit;
            let policy = Policy { min_instances: min, max_instances: (min + more).max(1), slots, ..POLICY };
            let made = first_plan(&observed, &policy);
            prop_assert_eq!(&made, &first_plan(&observed, &policy));
            let members = observed.instances.len() as u32;
            prop_assert!(made.launch == 0 || members + made.launch <= policy.max_instances);
            prop_assert!(limit.is_none_or(|limit| made.launch <= limit));
            // Those that take as long as this to boot are not counted on.
            let counted = |i: &&Instance| match i.state {
                Draining => false,
                Pending => i.age.as_secs_f64() <= 30.0,
                Running => true,
            };
            let before = observed.instances.iter().filter(counted).count() as u32;
            let left = observed.instances.iter().filter(counted);
            let left = left.filter(|i| !made.drain.contains(&i.id)).count() as u32;
            prop_assert!(left + made.launch >= min.min(before));
            let mut drained = made.drain.clone();
            drained.sort();
            drained.dedup();
            prop_assert_eq!(drained.len(), made.drain.len(), "none is drained twice");
            for id in &made.drain {
                let instance = observed.instances.iter().find(|i| i.id == *id);
                prop_assert!(instance.is_some_and(|i| i.state != Draining));
            }
        }

        /// More work never asks for fewer instances.
        #[test]
        fn what_is_needed_grows_with_the_backlog(backlog in 0u64..2000, more in 1u64..500, running in 0usize..10) {
            let plan_for = |backlog| {
                let states = vec![(Running, 100.0); running];
                first_plan(&observed(backlog, members(&states)), &POLICY).launch
            };
            prop_assert!(plan_for(backlog + more) >= plan_for(backlog));
        }
    }
}
