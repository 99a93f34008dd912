//! How many workers there should be: a pure function of what was observed and learned.
//!
//! A rule says how many are needed (`sizing`), the bounds how many of these there may be, and what is
//! worth keeping which of the others go. The controller and the simulator share it.

use crate::fleet::{Instance, InstanceId, InstanceState};
use crate::learn::Learned;
use crate::observation::Observation;
use crate::policy::Policy;
use crate::sizing::{Members, size};

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
/// By the rule [`RequestsPerInstance`](crate::Scaling::RequestsPerInstance) there are
/// `ceil(backlog / requests)` instances, no matter what was learned. By the rule
/// [`Objective`](crate::Scaling::Objective):
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
    let members = Members::count(observed, learned, policy);
    let size = size(observed, members, learned, policy);
    let coming = members.coming();
    let others = members.hung + members.draining;

    let least = policy.min_instances.min(policy.max_instances);
    let needed = size.needed.clamp(least, policy.max_instances);
    let missing = needed.saturating_sub(coming);
    let room = policy.max_instances.saturating_sub(coming + others);
    let held = observed.launch_limit.unwrap_or(u32::MAX);
    let launch = missing.min(room).min(held);

    let kept = needed.max(size.kept);
    let surplus = coming.saturating_sub(kept) as usize;
    let drain = instances_to_drain(observed, policy, members, surplus);

    let action = match (launch, drain.len()) {
        (0, 0) if missing > 0 && held == 0 => {
            format!("launching {missing} is held back after failed starts")
        }
        (0, 0) if missing > room => format!("{others} others leave no room for {missing} more"),
        (0, 0) if coming > needed && surplus == 0 => "the idle are worth keeping".to_owned(),
        (0, 0) if surplus > 0 => "the rest is paid for already".to_owned(),
        (0, 0) => "nothing to do".to_owned(),
        (0, n) => format!("drain {n}"),
        (n, 0) if size.ahead => format!("launch {n} for what comes at this time"),
        (n, 0) => format!("launch {n}"),
        (n, m) => format!("launch {n}, drain {m}"),
    };
    let (backlog, running, booting) = (learned.backlog(), members.running, members.booting);
    let reason =
        format!("backlog {backlog} needs {needed}, {running} running, {booting} booting: {action}");
    Plan {
        launch,
        drain,
        reason,
    }
}

/// Chooses instances to drain: those whose boot is given up, then `surplus` others, none of them
/// within the time that is billed anyway: first those whose sign of life is late, then idle ones,
/// then booting, then busy ones, the youngest of each first.
fn instances_to_drain(
    observed: &Observation,
    policy: &Policy,
    members: Members,
    surplus: usize,
) -> Vec<InstanceId> {
    let patience = members.patience;
    let given_up = observed.instances.iter().filter(|i| patience.gives_up(i));
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
            .filter(|i| i.state != InstanceState::Draining && !patience.is_hung(i))
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
mod tests;
