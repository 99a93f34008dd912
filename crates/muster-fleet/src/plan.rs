//! How many workers there should be: a pure function of what was observed and learned.
//!
//! A rule says how many are needed (`sizing`), the bounds and the budget how many of these there may
//! be, and what is worth keeping which of the others go. The controller and the simulator share it.

use crate::bill::Allowance;
use crate::fleet::{Instance, InstanceId, InstanceState};
use crate::learn::Learned;
use crate::observation::Observation;
use crate::policy::Policy;
use crate::sizing::{Members, size};
use crate::tier::{Tier, TierCounts};

/// What is to be done now, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Instances to launch.
    pub launch: TierCounts,
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
/// **Staffing.** A load that goes on has as many instances as queueing theory says that it needs so that
/// 99 of 100 requests wait no longer than the objective (`Learned::floor`), where the operator lets the
/// fleet learn how long an idle instance is worth keeping.
///
/// **Scaling out** is immediate. With `S` seconds of a slot for a request, `k` slots, `D` seconds
/// of a boot, `n` instances that run or boot and `r` requests a second to be expected, what is left of the
/// requests that wait when an instance launched now would be ready is
/// `F = max(0, waiting + r D - free slots - (D running) k / S - sum of k (1 + (D - time left) / S))`, the
/// sum over the booting. If what runs and boots serves `F` within the objective, a launch would come too
/// late to help and none is made; a fleet that is staffed for its load has twice as long, and for one that
/// has long been the same four times, since some wait for longer by chance. Otherwise the fleet is to clear `F` in as long as its first request has waited by
/// then, `T = max(objective, D)`, and to keep up with what comes, and each of those that are launched begins
/// `k` requests at once: `n + (F + r T - n k T / S) / (k (1 + T / S))`.
///
/// **Requests that stand**, because their clients wait for an answer before they send the next, have the
/// instances that answer each of them once in the objective and its service time.
///
/// **Looking ahead** (predictive scaling), as many instances are ready by then as the same minute of
/// the last half-hours, hours, days or weeks needed, where that forecast keeps coming true
/// ([`Learned::expected_at_ready`]).
///
/// **Scaling in** keeps what [`Learned::worth_keeping`] says, and what is billed anyway. An
/// instance that boots for too long is not counted on, so another takes its place, and is drained
/// once it has taken twice as long, or half a minute.
///
/// **Tiers.** Where this machine may have workers before the fleet ([`Policy::local`]), what they clear
/// within the objective is left to them, and they begin with what is more while instances boot: their
/// work is part of what runs and boots. They are launched for requests that the fleet's running
/// instances have no slot for, go when they are idle, and are in no bound and no budget of the fleet's
/// own. While this machine is throttled there are none. Of the fleet's own, stopped instances come
/// first, and `D` is the boot of what would be launched next.
///
/// By either rule, a limit of dollars an hour bounds the instances as `max_instances` does. One of
/// dollars a day ends the fleet, whatever is left to do, before more is spent.
pub fn plan(observed: &Observation, learned: &Learned, policy: &Policy) -> Plan {
    let members = Members::count(observed, learned, policy);
    let size = size(observed, members, learned, policy);
    let coming = members.coming();
    let others = members.hung + members.draining;
    let allowance = learned.bill.allowance(learned.boot_s(policy), policy);
    let stay = allowance.stay.saturating_sub(members.hung);

    let least = policy.min_instances.min(policy.max_instances);
    // What this machine's workers take is left to them.
    let of_fleet = |total: u32| total.saturating_sub(members.local.usable());
    let needed = of_fleet(size.needed).clamp(least, policy.max_instances);
    let granted = needed.min(allowance.at_a_time).min(stay);
    let missing = granted.saturating_sub(coming);
    let most = policy.max_instances.min(allowance.at_a_time);
    let room = most.saturating_sub(coming + others);
    let available = observed.available;
    let held = available.stopped.saturating_add(available.of(policy.tier));
    let launch = missing.min(room).min(allowance.launches).min(held);
    let local = local_launches(observed, members, learned, policy);
    let launches = launches(launch, local, available, policy);

    let kept = needed.max(of_fleet(size.kept));
    let kept = kept.min(allowance.at_a_time).min(stay);
    let surplus = Surplus {
        coming: coming.saturating_sub(kept) as usize,
        running: members.running.saturating_sub(kept) as usize,
    };
    let spent = coming + members.hung > allowance.stay;
    let mut drain = instances_to_drain(observed, learned, policy, members, surplus, spent);
    let surplus = surplus.coming;
    if observed.throttled || !learned.needs_local(policy) {
        drain.extend(local_to_drain(observed, members, policy));
    }

    let launched = match (launch, local) {
        (n, 0) => n.to_string(),
        (0, n) => format!("{n} here"),
        (n, here) => format!("{n}, and {here} here"),
    };
    let action = match (launch + local, drain.len()) {
        (0, 0) if missing > 0 && held == 0 => {
            format!("launching {missing} is held back after failed starts")
        }
        (0, 0) if missing > room => format!("{others} others leave no room for {missing} more"),
        (0, 0) if coming > needed && surplus == 0 => "the idle are worth keeping".to_owned(),
        (0, 0) if surplus > 0 => "the rest is paid for already".to_owned(),
        (0, 0) => "nothing to do".to_owned(),
        (0, n) => format!("drain {n}"),
        (_, 0) if size.ahead => format!("launch {launched} for what comes at this time"),
        (_, 0) => format!("launch {launched}"),
        (_, m) => format!("launch {launched}, drain {m}"),
    };
    let limits = limits(&allowance, needed, coming, learned, policy);
    let (backlog, running, booting) = (learned.backlog(), members.running, members.booting);
    let here = said_of_local(observed, members, policy);
    let reason = format!(
        "backlog {backlog} needs {needed}, {running} running, {booting} booting{here}: \
         {action}{limits}"
    );
    Plan {
        launch: launches,
        drain,
        reason,
    }
}

/// Counts the workers of this machine to launch before the fleet: for requests that its running
/// instances have no slot for.
fn local_launches(
    observed: &Observation,
    members: Members,
    learned: &Learned,
    policy: &Policy,
) -> u32 {
    if observed.throttled || policy.local.is_none() {
        return 0;
    }
    let slots = u64::from(policy.slots.max(1));
    let waiting = learned.backlog().div_ceil(slots);
    let there = members.running + members.local.running + members.local.booting;
    let wanted = waiting.saturating_sub(there.into());
    wanted.min(members.local.more.into()) as u32
}

/// Splits the fleet's launches among its tiers: what is stopped comes first.
fn launches(launch: u32, local: u32, available: TierCounts, policy: &Policy) -> TierCounts {
    let stopped = launch.min(available.stopped);
    let mut launches = TierCounts {
        local,
        stopped,
        ec2: 0,
    };
    match policy.tier {
        Tier::Local => launches.local += launch - stopped,
        Tier::Stopped | Tier::Ec2 => launches.ec2 = launch - stopped,
    }
    launches
}

/// This machine's workers before the fleet, all that are not given up already.
fn local_to_drain<'a>(
    observed: &'a Observation,
    members: Members,
    policy: &Policy,
) -> impl Iterator<Item = InstanceId> + 'a {
    let has_local = policy.local.is_some();
    let local = observed.instances.iter().filter(move |i| {
        has_local
            && i.tier == Tier::Local
            && i.state != InstanceState::Draining
            && !members.patience.gives_up(i)
    });
    local.map(|instance| instance.id.clone())
}

/// Says what this machine's workers do, where there may be some.
fn said_of_local(observed: &Observation, members: Members, policy: &Policy) -> String {
    if policy.local.is_none() {
        return String::new();
    }
    if observed.throttled {
        return ", none here while this machine is throttled".to_owned();
    }
    format!(", {} here", members.local.running + members.local.booting)
}

/// Says which limits leave fewer instances than are needed, where one does.
fn limits(
    allowance: &Allowance,
    needed: u32,
    coming: u32,
    learned: &Learned,
    policy: &Policy,
) -> String {
    let Some(cost) = learned.bill.cost(0, policy) else {
        return String::new();
    };
    let mut said = String::new();
    if let Some(dollars) = cost.max_dollars_per_hour
        && needed > allowance.at_a_time
    {
        let allows = allowance.at_a_time;
        said += &format!("; the limit of ${dollars:.2} an hour allows {allows}");
    }
    let by_day = coming
        .saturating_add(allowance.launches)
        .min(allowance.stay);
    if let Some(dollars) = cost.max_dollars_per_day
        && needed.min(allowance.at_a_time) > by_day
    {
        let spent = cost.dollars_today;
        said += &format!("; the limit of ${dollars:.2} a day allows {by_day} (${spent:.2} spent)");
    }
    said
}

/// Instances beyond those that are kept.
#[derive(Clone, Copy, Debug)]
struct Surplus {
    /// Of those that run or boot.
    coming: usize,
    /// Of those that run: what boots does no work yet that one of the others could leave to it.
    running: usize,
}

/// Chooses instances to drain: those whose boot is given up, then the surplus, none of it within the time
/// that is billed anyway: first those whose sign of life is late, then idle ones, then booting, then busy
/// ones, the youngest of each first.
///
/// Where the day's money is spent (`spent`), none that hangs is waited for, and the others go in time
/// to be gone when what is billed anyway is over.
fn instances_to_drain(
    observed: &Observation,
    learned: &Learned,
    policy: &Policy,
    members: Members,
    surplus: Surplus,
    spent: bool,
) -> Vec<InstanceId> {
    let patience = members.patience;
    let ends = |i: &&Instance| {
        if spent {
            learned.bill.grows_with(&i.id, policy)
        } else {
            i.age >= policy.billing_minimum
        }
    };
    let own = |i: &&Instance| !policy.is_before_the_fleet(i.tier);
    let hung = observed.instances.iter().filter(|i| patience.is_hung(i));
    let given_up = hung.filter(|i| patience.gives_up(i) || spent && own(i) && ends(i));
    let order = |i: &Instance| match (i.state, i.busy) {
        _ if i.overdue => 0,
        (InstanceState::Running, Some(false)) => 1,
        (InstanceState::Pending, _) => 2,
        _ => 3,
    };
    let mut candidates: Vec<_> = if surplus.coming == 0 {
        Vec::new()
    } else {
        observed
            .instances
            .iter()
            .filter(own)
            .filter(|i| i.state != InstanceState::Draining && !patience.is_hung(i))
            .filter(ends)
            .map(|i| (order(i), i.age, i))
            .collect()
    };
    candidates.sort_unstable_by(|(a, a_age, a_i), (b, b_age, b_i)| {
        (a, a_age, &a_i.id).cmp(&(b, b_age, &b_i.id))
    });
    let mut running = surplus.running;
    let candidates = candidates.into_iter().map(|(_, _, instance)| instance);
    let candidates = candidates.filter(|i| {
        if i.state == InstanceState::Pending || spent {
            return true;
        }
        let is_surplus = running > 0 || i.overdue;
        running = running.saturating_sub(1);
        is_surplus
    });
    given_up
        .chain(candidates.take(surplus.coming))
        .map(|instance| instance.id.clone())
        .collect()
}

#[cfg(test)]
mod tests;
