//! What the operator asks of the fleet: bounds, the rule it is sized by, how long idle instances stay,
//! and what it may cost.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::tier::Tier;

/// Instances that a fleet may have at most: that many hold half of the 120,000 messages which one queue of
/// SQS has in flight, with six each, and one controller looks after them.
pub const MOST_INSTANCES: u32 = 10_000;

/// Bounds, objective and budget of a fleet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// The tier of the fleet's instances that were launched. Where that is [`Tier::Ec2`], others are of
    /// [`Tier::Stopped`]: they are the fleet's own too.
    pub tier: Tier,
    /// Workers of this machine before a fleet that is elsewhere, where there may be some.
    pub local: Option<LocalTier>,
    /// Instances of the fleet's own kept even without work.
    pub min_instances: u32,
    /// Instances of the fleet's own never exceeded.
    pub max_instances: u32,
    /// The rule that says how many there are to be within these bounds.
    pub scaling: Scaling,
    /// Requests that one instance works on at a time.
    pub slots: u32,
    /// The objective: 99 of 100 requests begin to be served within this time.
    pub target_wait: Duration,
    /// How long an idle instance is kept.
    pub keep_alive: KeepAlive,
    /// What a late request is worth, as time of an instance: in place of the share of requests that the
    /// objective is kept for.
    pub late_request: Option<Duration>,
    /// Time that is billed for an instance at least; zero where nothing is billed.
    pub billing_minimum: Duration,
    /// How long the queue's counts may lag behind; zero where they are exact.
    pub count_lag: Duration,
    /// How long a boot takes, until boots were seen.
    pub expected_boot: Duration,
    /// How long a boot may take where it is not judged by others.
    pub boot_timeout: Duration,
    /// How long one request takes of one slot, until requests were seen.
    pub expected_service: Duration,
    /// What instances cost, and what they may cost, where a price is known.
    pub budget: Option<Budget>,
}

/// Workers on the machine of the controller, whose fleet is elsewhere. They are paid for anyway, and are
/// there within a second: they begin with a burst, and one that they clear within the objective is
/// left to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTier {
    /// Workers never exceeded.
    pub workers: u32,
    /// How long one is kept without work.
    pub idle_grace: Duration,
    /// How long a start takes, until some were seen.
    pub expected_boot: Duration,
}

/// Longest time between two plans while instances are there that cost money, and from a plan until it
/// is done, in seconds.
pub(crate) const LOOK_S: f64 = 2.0;

impl Policy {
    /// A fleet of up to so many instances on EC2, by the objective of a second and what is learned, as the
    /// settings have it where nothing else is set.
    #[must_use]
    pub const fn on_ec2(max_instances: u32) -> Self {
        Self {
            tier: Tier::Ec2,
            local: None,
            min_instances: 0,
            max_instances,
            scaling: Scaling::Objective,
            slots: 1,
            target_wait: Duration::from_secs(1),
            keep_alive: KeepAlive::Learned {
                at_most: Duration::from_secs(3600),
            },
            late_request: None,
            billing_minimum: Duration::from_secs(60),
            count_lag: Duration::from_secs(60),
            expected_boot: Duration::from_secs(30),
            boot_timeout: Duration::from_secs(300),
            expected_service: Duration::from_millis(500),
            budget: None,
        }
    }

    /// Says whether instances of a tier stand before the fleet, and are none of its own.
    #[must_use]
    pub fn is_before_the_fleet(&self, tier: Tier) -> bool {
        self.local.is_some() && tier == Tier::Local
    }

    /// Instances never exceeded, those of this machine before the fleet included.
    #[must_use]
    pub fn most_instances(&self) -> u32 {
        self.max_instances.saturating_add(self.local_workers())
    }

    /// Workers of this machine before the fleet, at most.
    #[must_use]
    pub fn local_workers(&self) -> u32 {
        self.local.map_or(0, |local| local.workers)
    }

    /// The seconds of an instance that a launch takes of a day's limit, where a boot takes `boot_s`: its
    /// boot and as long again, or what is billed at least, and its end. One that ends before it has
    /// worked would be money for nothing.
    pub(crate) fn launch_s(&self, boot_s: f64) -> f64 {
        let drain_time = self.budget.map_or(Duration::ZERO, |b| b.drain_time);
        let worked_s = self.billing_minimum.as_secs_f64().max(2.0 * boot_s);
        worked_s + drain_time.as_secs_f64() + LOOK_S
    }

    /// What a limit of a day has to be so that an instance is launched at all, in hours of an instance,
    /// until boots were seen.
    #[must_use]
    pub fn least_hours_per_day(&self) -> f64 {
        self.launch_s(self.expected_boot.as_secs_f64()) / 3600.0
    }
}

/// The rule that a fleet is sized by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scaling {
    /// For the objective: by the backlog, and by what was learned of boots, requests and the load.
    Objective,
    /// One instance for so many unanswered requests, and nothing else: what was learned has no part
    /// in it.
    RequestsPerInstance(NonZeroU32),
}

/// The instances for so many unanswered requests, at so many for each.
pub(crate) fn instances_for(backlog: u64, requests: NonZeroU32) -> u32 {
    let instances = backlog.div_ceil(requests.get().into());
    instances.try_into().unwrap_or(u32::MAX)
}

/// What an instance costs, and what the fleet may cost.
///
/// Days are those of UTC. An instance is paid for from its launch, for as long as the fleet lists it
/// and for the policy's `billing_minimum` at least.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// What an instance costs an hour, in dollars.
    pub price_per_hour: f64,
    /// What all instances that are there at one time may cost an hour.
    pub max_dollars_per_hour: Option<f64>,
    /// What all instances of one day may cost.
    pub max_dollars_per_day: Option<f64>,
    /// How long an instance that was told to end is paid for yet, at most; zero on EC2, which bills
    /// none that shuts down.
    pub drain_time: Duration,
    /// How long an instance may have gone on after it was last seen, where it is gone when the next
    /// controller looks.
    pub unattended: Duration,
}

/// How long an idle instance is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// As long as it is worth its price, by what was learned of the gaps in the load; what comes
    /// regularly has its instances launched ahead.
    Learned {
        /// But never longer.
        at_most: Duration,
    },
    /// This long; zero sends an idle instance away at once.
    Fixed(Duration),
}
