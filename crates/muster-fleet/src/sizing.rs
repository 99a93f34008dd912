//! The two rules that say how many instances there are to be, before any bound.

use crate::fleet::{Instance, InstanceState};
use crate::learn::Learned;
use crate::observation::Observation;
use crate::policy::{Policy, Scaling, instances_for};
use crate::tier::Tier;

/// No boot is given up before this by what was learned: a busy machine may take that long over what
/// is quick elsewhere.
const MIN_BOOT_TIMEOUT_S: f64 = 30.0;

/// What a rule asks for, of all tiers together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Instances that there are to be.
    pub needed: u32,
    /// Instances that are worth keeping, where there are that many.
    pub kept: u32,
    /// Whether more are needed for what is expected than for what is there.
    pub ahead: bool,
}

/// Asks the policy's rule.
pub(crate) fn size(
    observed: &Observation,
    members: Members,
    learned: &Learned,
    policy: &Policy,
) -> Size {
    let kept = learned.worth_keeping(policy);
    match policy.scaling {
        Scaling::Objective => {
            let sized = needed_for_objective(observed, members, learned, policy);
            let all = members.coming() + members.local.usable();
            let busy = learned.in_use(policy).min(all);
            let expected = learned.expected_at_ready(policy);
            let sized = sized.max(learned.floor()).max(busy);
            let sized = sized.max(learned.standing(policy));
            let sized = sized.max(learned.paid_for(policy));
            Size {
                needed: sized.max(expected),
                kept,
                ahead: expected > sized,
            }
        }
        Scaling::RequestsPerInstance(requests) => Size {
            needed: instances_for(learned.backlog(), requests),
            kept,
            ahead: false,
        },
    }
}

/// Counts the instances that the backlog needs when a launch would be ready; none where a launch
/// would come too late to help.
fn needed_for_objective(
    observed: &Observation,
    members: Members,
    learned: &Learned,
    policy: &Policy,
) -> u32 {
    let slots = f64::from(policy.slots.max(1));
    let (boot_s, service_s) = (learned.boot_s(policy), learned.service_s(policy));
    let (rate, growth) = (learned.expected_rate(policy), learned.growth(policy));
    let local = members.local;
    let all = members.coming() + local.usable();
    let backlog = learned.backlog() as f64;
    if learned.backlog() == 0 && all == 0 {
        return 0;
    }
    // Requests that an instance begins in a time: one in each slot at once, and one each service time.
    let running = f64::from(members.running + local.running) * slots;
    let in_service = backlog.min(running);
    let mut begun = running - in_service;
    // Of those that are ready in a while, by when a launch would be.
    let begun_after = |ready_s: f64| {
        if ready_s > boot_s {
            0.0
        } else {
            slots * (1.0 + (boot_s - ready_s) / service_s)
        }
    };
    let starting = local.booting + local.more + local.draining;
    // Instances of the average speed that the others amount to.
    let mut coming = f64::from(members.booting + starting);
    for instance in &observed.instances {
        let is_local = policy.is_before_the_fleet(instance.tier);
        if instance.state == InstanceState::Running && !(is_local && local.running == 0) {
            let speed = learned.speed(&instance.id);
            coming += speed;
            begun += speed * slots * boot_s / service_s;
        } else if instance.state == InstanceState::Pending
            && !is_local
            && !members.patience.is_hung(instance)
        {
            let boots_s = learned.boot_s_of(instance.tier, policy);
            begun += begun_after((boots_s - instance.age.as_secs_f64()).max(0.0));
        }
    }
    begun += f64::from(starting) * begun_after(learned.boot_s_of(Tier::Local, policy));
    let come = (rate + growth * boot_s / 2.0) * boot_s;
    let left = (backlog - in_service + come - begun).max(0.0);
    let objective_s = policy.target_wait.as_secs_f64();
    // A fleet that is staffed for its load has one of a hundred requests wait longer than the objective by
    // chance; that passes, and all the more where the load has long been the same.
    let is_staffed = learned.floor() > 0 && all >= learned.floor();
    let soon_enough_s = match (is_staffed, learned.is_steady()) {
        (true, true) => 4.0 * objective_s,
        (true, false) => 2.0 * objective_s,
        (false, _) => objective_s,
    };
    if coming > 0.0 && left <= coming * slots * soon_enough_s / service_s {
        return 0;
    }
    let within_s = objective_s.max(boot_s);
    let by_coming = coming * slots * within_s / service_s;
    let by_one = slots * (1.0 + within_s / service_s);
    let rate = rate + growth * (boot_s + within_s / 2.0);
    let more = (left + rate * within_s - by_coming).max(0.0) / by_one;
    ((f64::from(all) + more).ceil() as u32).max(1)
}

/// How long a boot may take, in seconds, by its tier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// One that takes longer is not counted on any more.
    hung_s: [f64; 3],
}

impl Patience {
    fn of(learned: &Learned, policy: &Policy) -> Self {
        let hung_s = |tier| match policy.scaling {
            Scaling::Objective => learned.hung_s(tier, policy),
            // What other boots took says nothing of this one.
            Scaling::RequestsPerInstance(_) => policy.boot_timeout.as_secs_f64(),
        };
        Self {
            hung_s: [Tier::Local, Tier::Stopped, Tier::Ec2].map(hung_s),
        }
    }

    fn hung_s(self, tier: Tier) -> f64 {
        self.hung_s[tier as usize]
    }

    /// Says whether an instance boots for too long to be counted on.
    pub fn is_hung(self, instance: &Instance) -> bool {
        instance.state == InstanceState::Pending
            && instance.age.as_secs_f64() > self.hung_s(instance.tier)
    }

    /// Says whether an instance boots for too long to be waited for.
    pub fn gives_up(self, instance: &Instance) -> bool {
        let given_up_s = (2.0 * self.hung_s(instance.tier)).max(MIN_BOOT_TIMEOUT_S);
        self.is_hung(instance) && instance.age.as_secs_f64() > given_up_s
    }
}

/// How many instances are in which phase.
#[derive(Clone, Copy, Debug, Default)]
struct Phases {
    running: u32,
    booting: u32,
    hung: u32,
    draining: u32,
}

impl Phases {
    fn count<'a>(instances: impl Iterator<Item = &'a Instance>, patience: Patience) -> Self {
        let mut phases = Self::default();
        for instance in instances {
            *match instance.state {
                InstanceState::Running => &mut phases.running,
                InstanceState::Pending if patience.is_hung(instance) => &mut phases.hung,
                InstanceState::Pending => &mut phases.booting,
                InstanceState::Draining => &mut phases.draining,
            } += 1;
        }
        phases
    }
}

/// How many of the fleet's own instances are in which phase.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Members {
    pub running: u32,
    /// Those that are counted on to take work.
    pub booting: u32,
    /// Those that boot for too long.
    pub hung: u32,
    pub draining: u32,
    /// This machine's workers, which stand before the fleet.
    pub local: LocalMembers,
    pub patience: Patience,
}

/// How many of this machine's workers before the fleet are in which phase; none while it is throttled.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LocalMembers {
    pub running: u32,
    pub booting: u32,
    /// Those that may be launched.
    pub more: u32,
    /// Those that end what they have. In their place others may be launched within seconds.
    pub draining: u32,
}

impl LocalMembers {
    /// Those that take work, now or as soon as that is wanted.
    pub fn usable(self) -> u32 {
        self.running + self.booting + self.more + self.draining
    }
}

impl Members {
    pub fn count(observed: &Observation, learned: &Learned, policy: &Policy) -> Self {
        let patience = Patience::of(learned, policy);
        let before = |i: &&Instance| policy.is_before_the_fleet(i.tier);
        let instances = observed.instances.iter();
        let own = Phases::count(instances.clone().filter(|i| !before(i)), patience);
        let local = Phases::count(instances.filter(before), patience);
        let local_there = local.running + local.booting + local.hung + local.draining;
        let room = policy.local_workers().saturating_sub(local_there);
        let local = LocalMembers {
            running: local.running,
            booting: local.booting,
            more: room.min(observed.available.local),
            draining: local.draining.min(observed.available.local),
        };
        Self {
            running: own.running,
            booting: own.booting,
            hung: own.hung,
            draining: own.draining,
            local: if observed.throttled {
                LocalMembers::default()
            } else {
                local
            },
            patience,
        }
    }

    /// Those that take work, now or once they have booted.
    pub fn coming(self) -> u32 {
        self.running + self.booting
    }
}
