//! The two rules that say how many instances there are to be, before any bound.

use crate::fleet::{Instance, InstanceState};
use crate::learn::Learned;
use crate::observation::Observation;
use crate::policy::{Policy, Scaling, instances_for};

/// No boot is given up before this by what was learned: a busy machine may take that long over what
/// is quick elsewhere.
const MIN_BOOT_TIMEOUT_S: f64 = 30.0;

/// What a rule asks for.
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
            let busy = learned.in_use(policy).min(members.coming());
            let expected = learned.expected_at_ready(policy);
            let sized = sized.max(learned.floor()).max(busy);
            let sized = sized.max(learned.standing(policy));
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
    let rate = learned.expected_rate(policy);
    let backlog = learned.backlog() as f64;
    if learned.backlog() == 0 && members.coming() == 0 {
        return 0;
    }
    // Requests that an instance begins in a time: one in each slot at once, and one each service time.
    let running = f64::from(members.running) * slots;
    let in_service = backlog.min(running);
    let mut begun = running - in_service;
    // Instances of the average speed that the others amount to.
    let mut coming = f64::from(members.booting);
    for instance in &observed.instances {
        if instance.state == InstanceState::Running {
            let speed = learned.speed(&instance.id);
            coming += speed;
            begun += speed * slots * boot_s / service_s;
        } else if instance.state == InstanceState::Pending && !members.patience.is_hung(instance) {
            let works_s = instance.age.as_secs_f64().min(boot_s);
            begun += slots * (1.0 + works_s / service_s);
        }
    }
    let left = (backlog - in_service + rate * boot_s - begun).max(0.0);
    let objective_s = policy.target_wait.as_secs_f64();
    // A fleet that is staffed for its load has one of a hundred requests wait longer than the objective by
    // chance; that passes.
    let is_staffed = learned.floor() > 0 && members.coming() >= learned.floor();
    let soon_enough_s = if is_staffed {
        2.0 * objective_s
    } else {
        objective_s
    };
    if coming > 0.0 && left <= coming * slots * soon_enough_s / service_s {
        return 0;
    }
    let within_s = objective_s.max(boot_s);
    let by_coming = coming * slots * within_s / service_s;
    let by_one = slots * (1.0 + within_s / service_s);
    let more = (left + rate * within_s - by_coming).max(0.0) / by_one;
    ((f64::from(members.coming()) + more).ceil() as u32).max(1)
}

/// How long a boot may take, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// One that takes longer is not counted on any more.
    hung_s: f64,
    /// One that takes longer is ended.
    given_up_s: f64,
}

impl Patience {
    fn of(learned: &Learned, policy: &Policy) -> Self {
        let hung_s = match policy.scaling {
            Scaling::Objective => learned.hung_s(policy),
            // What other boots took says nothing of this one.
            Scaling::RequestsPerInstance(_) => policy.boot_timeout.as_secs_f64(),
        };
        Self {
            hung_s,
            given_up_s: (2.0 * hung_s).max(MIN_BOOT_TIMEOUT_S),
        }
    }

    /// Says whether an instance boots for too long to be counted on.
    pub fn is_hung(self, instance: &Instance) -> bool {
        instance.state == InstanceState::Pending && instance.age.as_secs_f64() > self.hung_s
    }

    /// Says whether an instance boots for too long to be waited for.
    pub fn gives_up(self, instance: &Instance) -> bool {
        self.is_hung(instance) && instance.age.as_secs_f64() > self.given_up_s
    }
}

/// How many instances are in which phase.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Members {
    pub running: u32,
    /// Those that are counted on to take work.
    pub booting: u32,
    /// Those that boot for too long.
    pub hung: u32,
    pub draining: u32,
    pub patience: Patience,
}

impl Members {
    pub fn count(observed: &Observation, learned: &Learned, policy: &Policy) -> Self {
        let patience = Patience::of(learned, policy);
        let hung = observed.instances.iter().filter(|i| patience.is_hung(i));
        let hung = hung.count() as u32;
        Self {
            running: observed.count(InstanceState::Running),
            booting: observed.count(InstanceState::Pending) - hung,
            hung,
            draining: observed.count(InstanceState::Draining),
            patience,
        }
    }

    /// Those that take work, now or once they have booted.
    pub fn coming(self) -> u32 {
        self.running + self.booting
    }
}
