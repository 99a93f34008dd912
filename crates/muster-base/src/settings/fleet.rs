//! The workers: what they are, how many there may be, and when there are to be more or fewer.

use std::num::NonZeroU32;
use std::time::Duration;

use muster_fleet::{Budget, Capacity, KeepAlive, LocalTier, MOST_INSTANCES, Policy, Scaling, Tier};
use serde::{Deserialize, Serialize};

use super::queues::QueueKind;
use super::seconds;

/// What is expected of this machine's workers until they were seen: they load their models in half
/// a second, and take 30 to 100 ms for a photograph with one face.
const EXPECTED_BOOT: Duration = Duration::from_millis(600);
/// How long a photograph is expected to take a worker, until some were seen.
pub const EXPECTED_SERVICE: Duration = Duration::from_millis(100);
/// Where a worker costs nothing, the machine is used rather than the wait that the objective allows:
/// a wait of no more than this, about a photograph's time, is aimed at.
const FREE_WAIT: Duration = Duration::from_millis(50);
/// How long a worker of the controller's machine before a fleet on EC2 is kept without work, where the
/// time is not fixed: who sends one photograph after another waits for no start.
const LOCAL_KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Instances never exceeded on EC2 where nothing else is set: as many as the system that Muster came
/// from has.
const EC2_INSTANCES: u32 = 15;
/// How long the counts of SQS may lag: they settle within a minute of the last change.
const SQS_COUNT_LAG: Duration = Duration::from_secs(60);

/// A controller renews its lease of 15 s every 3 s.
const SHORTEST_ORPHAN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a worker of this machine may take to start, whatever others took.
const BOOT_TIMEOUT: Duration = Duration::from_secs(60);

/// What the controller's workers are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FleetKind {
    /// Child processes of the controller.
    #[default]
    Local,
    /// EC2 instances.
    Ec2,
}

/// How the idle time before the fleet shrinks is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeepAliveMode {
    /// `idle_grace_s`.
    Fixed,
    /// As long as an idle worker is worth it, by the gaps seen in the load; what comes regularly is
    /// awaited.
    Learned,
}

/// The workers, and how many there may be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FleetSettings {
    /// What the controller's workers are.
    #[serde(rename = "fleet")]
    pub kind: FleetKind,
    /// How instances are launched where the fleet is on EC2.
    pub ec2: Ec2Settings,
    /// The rule that the fleet is sized by, in place of the objective.
    pub scaling: ScalingSettings,
    /// Instances kept even without work.
    pub min_instances: u32,
    /// Instances never exceeded; the number of cores, or 15 on EC2, when unset.
    pub max_instances: Option<u32>,
    /// The objective: 99 of 100 requests begin to be worked on within this time. Workers on this
    /// machine cost nothing, and are started for less.
    #[serde(rename = "target_wait_s", with = "seconds")]
    pub target_wait: Duration,
    /// Whether the idle time before the fleet shrinks is fixed or learned; fixed on this machine
    /// and learned on EC2 when unset.
    pub keep_alive: Option<KeepAliveMode>,
    /// The fixed idle time before the fleet shrinks.
    #[serde(rename = "idle_grace_s", with = "seconds")]
    pub idle_grace: Duration,
    /// The longest learned idle time before the fleet shrinks.
    #[serde(rename = "keep_alive_max_s", with = "seconds")]
    pub keep_alive_max: Duration,
    /// How long a draining worker may take before it is killed.
    #[serde(rename = "drain_timeout_s", with = "seconds")]
    pub drain_timeout: Duration,
    /// How long a worker of this machine may show no progress before another takes its place.
    #[serde(rename = "hung_timeout_s", with = "seconds")]
    pub hung_timeout: Duration,
    /// What an instance costs an hour, in US dollars; its cost is not told when unset.
    pub price_per_hour: Option<f64>,
    /// What a request that waits longer than `target_wait` costs, in US dollars: where it is set, instances
    /// are there for what they save of it, whatever share of the requests is late.
    pub dollars_per_late_request: Option<f64>,
    /// What all instances that are there at one time may cost an hour, in US dollars.
    pub max_dollars_per_hour: Option<f64>,
    /// What the instances of a day (UTC) may cost, in US dollars.
    pub max_dollars_per_day: Option<f64>,
}

/// The rule that a fleet is sized by, where it is not the objective.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScalingSettings {
    /// One instance for so many unanswered requests, and none without.
    pub requests_per_instance: Option<u32>,
}

impl Default for FleetSettings {
    fn default() -> Self {
        Self {
            kind: FleetKind::Local,
            ec2: Ec2Settings::default(),
            scaling: ScalingSettings::default(),
            min_instances: 0,
            max_instances: None,
            target_wait: Duration::from_secs(1),
            keep_alive: None,
            idle_grace: Duration::from_secs(1),
            keep_alive_max: Duration::from_secs(3600),
            drain_timeout: Duration::from_secs(10),
            hung_timeout: Duration::from_secs(5),
            price_per_hour: None,
            dollars_per_late_request: None,
            max_dollars_per_hour: None,
            max_dollars_per_day: None,
        }
    }
}

impl FleetSettings {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        self.ec2.check()?;
        for (name, time) in [
            ("hung_timeout_s", self.hung_timeout),
            ("ec2.hung_timeout_s", self.ec2.hung_timeout),
        ] {
            anyhow::ensure!(
                time >= Duration::from_secs(1),
                "{name} is {}: workers that work would count as hung; set it to at least 1",
                time.as_secs_f64()
            );
        }
        if let Some(price) = self.price_per_hour {
            anyhow::ensure!(
                (0.0..=1e6).contains(&price),
                "price_per_hour is {price}: it must be between 0 and 1e6 dollars"
            );
        }
        anyhow::ensure!(
            self.max_instances() >= 1,
            "max_instances is 0: it must be at least 1"
        );
        for (name, instances) in [
            ("max_instances", self.max_instances()),
            ("ec2.stopped_instances", self.ec2.stopped_instances),
            ("ec2.local_workers", self.ec2.local_workers),
        ] {
            anyhow::ensure!(
                instances <= MOST_INSTANCES,
                "{name} is {instances}: one controller and one request queue carry at most {MOST_INSTANCES}"
            );
        }
        anyhow::ensure!(
            self.min_instances <= self.max_instances(),
            "min_instances is {} and max_instances {}: the least can not be more than the most",
            self.min_instances,
            self.max_instances()
        );
        anyhow::ensure!(
            self.scaling.requests_per_instance != Some(0),
            "scaling.requests_per_instance is 0: one instance is to be there for at least 1 request"
        );
        self.check_late_request()?;
        self.check_budget()
    }

    fn check_late_request(&self) -> anyhow::Result<()> {
        let Some(dollars) = self.dollars_per_late_request else {
            return Ok(());
        };
        anyhow::ensure!(
            dollars > 0.0 && dollars <= 1e6,
            "dollars_per_late_request is {dollars}: it must be more than 0 and at most 1e6 dollars"
        );
        anyhow::ensure!(
            self.price_per_hour.is_some_and(|price| price > 0.0),
            "dollars_per_late_request needs price_per_hour: a late request is weighed against it"
        );
        anyhow::ensure!(
            self.late_request().is_some(),
            "dollars_per_late_request is {dollars} and price_per_hour too small beside it: set a real price"
        );
        // What the other rule leaves without effect is said at the start.
        anyhow::ensure!(
            self.scaling.requests_per_instance.is_some()
                || self.keep_alive_mode() == KeepAliveMode::Learned,
            "dollars_per_late_request needs keep_alive = \"learned\": idle workers that are kept for a \
             fixed time are not weighed"
        );
        Ok(())
    }

    fn keep_alive_mode(&self) -> KeepAliveMode {
        self.keep_alive.unwrap_or(match self.kind {
            FleetKind::Local => KeepAliveMode::Fixed,
            FleetKind::Ec2 => KeepAliveMode::Learned,
        })
    }

    /// What a late request is worth, as time of an instance.
    fn late_request(&self) -> Option<Duration> {
        let (dollars, price) = (self.dollars_per_late_request?, self.price_per_hour?);
        Duration::try_from_secs_f64(dollars / price * 3600.0).ok()
    }

    /// Refuses limits that no instance could ever be launched within.
    fn check_budget(&self) -> anyhow::Result<()> {
        let policy = self.policy(QueueKind::Local);
        for (name, limit, instance_h, what) in [
            (
                "max_dollars_per_hour",
                self.max_dollars_per_hour,
                1.0,
                "an instance for an hour",
            ),
            (
                "max_dollars_per_day",
                self.max_dollars_per_day,
                policy.least_hours_per_day(),
                "the launch of one instance",
            ),
        ] {
            let Some(limit) = limit else { continue };
            let price = self.price_per_hour.filter(|price| *price > 0.0);
            let Some(price) = price else {
                anyhow::bail!(
                    "{name} is set and price_per_hour is not: set it to what an instance costs an hour, \
                     in dollars"
                )
            };
            let least = price * instance_h;
            anyhow::ensure!(
                limit.is_finite() && limit >= least,
                "{name} is {limit}: {what} costs {least}, so that there would be none; set it higher, or \
                 leave it out"
            );
        }
        Ok(())
    }

    /// Settings that others leave without effect, each with the reason.
    pub fn without_effect(&self) -> Vec<String> {
        let is_ruled = self.scaling.requests_per_instance.is_some();
        let by_rule = "scaling.requests_per_instance keeps no instance without a request";
        let is_here = self.kind == FleetKind::Local;
        let here = "the fleet is local";
        let learned = self.keep_alive == Some(KeepAliveMode::Learned);
        let (stopped, local) = (self.ec2.stopped_instances > 0, self.ec2.local_workers > 0);
        let late = self.dollars_per_late_request.is_some();
        let settings = [
            ("min_instances", is_ruled && self.min_instances > 0, by_rule),
            ("keep_alive = \"learned\"", is_ruled && learned, by_rule),
            ("dollars_per_late_request", is_ruled && late, by_rule),
            ("ec2.stopped_instances", is_here && stopped, here),
            (
                "ec2.stopped_instances",
                !is_here && is_ruled && stopped,
                by_rule,
            ),
            ("ec2.local_workers", is_here && local, here),
            ("ec2.local_workers", !is_here && is_ruled && local, by_rule),
        ];
        let set = settings.into_iter().filter(|(_, is_set, _)| *is_set);
        let mut said: Vec<_> = set
            .map(|(name, _, why)| format!("{name} has no effect: {why}"))
            .collect();
        let (kept, most) = (self.stopped_instances(), self.max_instances());
        if !is_here && kept > most {
            said.push(format!(
                "ec2.stopped_instances is {kept}: there are never more than {most}, max_instances"
            ));
        }
        said
    }

    /// Drained instances that are stopped rather than terminated.
    pub fn stopped_instances(&self) -> u32 {
        match self.scaling.requests_per_instance {
            Some(_) => 0,
            None => self.ec2.stopped_instances,
        }
    }

    /// Workers of the controller's own machine before a fleet on EC2. The rule `requests_per_instance`
    /// promises so many instances for so many requests: a worker that took these before would leave
    /// the instances without any.
    pub fn local_workers(&self) -> u32 {
        match (self.kind, self.scaling.requests_per_instance) {
            (FleetKind::Ec2, None) => self.ec2.local_workers,
            _ => 0,
        }
    }

    /// Workers of the controller's machine, at most, whatever the fleet is.
    pub fn workers_here(&self) -> u32 {
        match self.kind {
            FleetKind::Local => self.max_instances(),
            FleetKind::Ec2 => self.local_workers(),
        }
    }

    /// Instances never exceeded.
    pub fn max_instances(&self) -> u32 {
        self.max_instances.unwrap_or_else(|| match self.kind {
            FleetKind::Local => std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            FleetKind::Ec2 => EC2_INSTANCES,
        })
    }

    /// What the controller is to do, by the counts of these queues.
    pub fn policy(&self, queues: QueueKind) -> Policy {
        let requests = self.scaling.requests_per_instance.and_then(NonZeroU32::new);
        let keep_alive = match (requests, self.keep_alive) {
            // This rule knows no other time than one that was asked for.
            (Some(_), None | Some(KeepAliveMode::Learned)) => KeepAlive::Fixed(Duration::ZERO),
            _ => match self.keep_alive_mode() {
                KeepAliveMode::Fixed => KeepAlive::Fixed(self.idle_grace),
                KeepAliveMode::Learned => KeepAlive::Learned {
                    at_most: self.keep_alive_max,
                },
            },
        };
        let local = LocalTier {
            workers: self.local_workers(),
            idle_grace: match self.keep_alive {
                Some(KeepAliveMode::Fixed) => self.idle_grace,
                _ => LOCAL_KEEP_ALIVE.min(self.keep_alive_max),
            },
            expected_boot: EXPECTED_BOOT,
        };
        let policy = Policy {
            tier: Tier::Ec2,
            local: (local.workers > 0).then_some(local),
            min_instances: match requests {
                Some(_) => 0,
                None => self.min_instances,
            },
            max_instances: self.max_instances(),
            scaling: requests.map_or(Scaling::Objective, Scaling::RequestsPerInstance),
            slots: 1,
            target_wait: self.target_wait,
            keep_alive,
            late_request: self.late_request(),
            billing_minimum: self.ec2.billing_minimum,
            count_lag: match queues {
                QueueKind::Local => Duration::ZERO,
                QueueKind::Sqs => SQS_COUNT_LAG,
            },
            expected_boot: self.ec2.expected_boot,
            boot_timeout: self.ec2.boot_timeout,
            expected_service: EXPECTED_SERVICE,
            budget: self.price_per_hour.map(|price_per_hour| Budget {
                price_per_hour,
                max_dollars_per_hour: self.max_dollars_per_hour,
                max_dollars_per_day: self.max_dollars_per_day,
                // EC2 bills no instance that it was told to end ("Amazon EC2 instance state changes").
                drain_time: Duration::ZERO,
                unattended: match self.ec2.orphan_timeout {
                    Duration::ZERO => Duration::MAX,
                    orphan_timeout => orphan_timeout,
                },
            }),
        };
        match self.kind {
            FleetKind::Ec2 => policy,
            // Processes cost nothing by the minute, and none outlives its controller.
            FleetKind::Local => Policy {
                tier: Tier::Local,
                target_wait: self.target_wait.min(FREE_WAIT),
                billing_minimum: Duration::ZERO,
                expected_boot: EXPECTED_BOOT,
                boot_timeout: BOOT_TIMEOUT,
                budget: policy.budget.map(|budget| Budget {
                    drain_time: self.drain_timeout,
                    unattended: self.drain_timeout,
                    ..budget
                }),
                ..policy
            },
        }
    }
}

/// How instances are launched on EC2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ec2Settings {
    /// Tells this installation's instances from others': the value of their tag
    /// `muster:deployment`.
    pub deployment: String,
    /// Name or id of the launch template.
    pub launch_template: String,
    /// Its version: a number, `$Default` or `$Latest`.
    pub launch_template_version: String,
    /// What the instances' `Name` tags begin with; a slot's number follows.
    pub name_prefix: String,
    /// Instance types, tried in this order; the template's own when empty.
    pub instance_types: Vec<String>,
    /// Subnets, tried in this order; the template's own when empty.
    pub subnets: Vec<String>,
    /// Whether Spot capacity is used.
    pub capacity: Capacity,
    /// Idle instances that are stopped rather than terminated, and started again before any is
    /// launched.
    pub stopped_instances: u32,
    /// Workers of the controller's own machine, which begin while instances boot.
    pub local_workers: u32,
    /// An instance that was not heard from for this long after its launch is given up.
    #[serde(rename = "boot_timeout_s", with = "seconds")]
    pub boot_timeout: Duration,
    /// An instance that takes requests and shows no progress for this long is terminated.
    #[serde(rename = "hung_timeout_s", with = "seconds")]
    pub hung_timeout: Duration,
    /// An idle instance powers itself off when no controller has acted for this long; zero: never.
    #[serde(rename = "orphan_timeout_s", with = "seconds")]
    pub orphan_timeout: Duration,
    /// How long a boot is expected to take, until boots were seen.
    #[serde(rename = "expected_boot_s", with = "seconds")]
    pub expected_boot: Duration,
    /// Time that is billed for an instance at least.
    #[serde(rename = "billing_minimum_s", with = "seconds")]
    pub billing_minimum: Duration,
}

impl Default for Ec2Settings {
    fn default() -> Self {
        Self {
            deployment: "muster".to_owned(),
            launch_template: String::new(),
            launch_template_version: "$Default".to_owned(),
            name_prefix: "app-tier-instance-".to_owned(),
            instance_types: Vec::new(),
            subnets: Vec::new(),
            capacity: Capacity::OnDemand,
            stopped_instances: 0,
            local_workers: 0,
            boot_timeout: Duration::from_secs(300),
            hung_timeout: Duration::from_secs(40),
            orphan_timeout: Duration::from_secs(900),
            // m7i.large, cold: 25.8 s to the operating system (docs/AUTOSCALING.md), and the models.
            expected_boot: Duration::from_secs(30),
            // EC2 bills Linux by the second, 60 s at least.
            billing_minimum: Duration::from_secs(60),
        }
    }
}

impl Ec2Settings {
    fn check(&self) -> anyhow::Result<()> {
        for (name, time, harm) in [
            (
                "boot_timeout_s",
                self.boot_timeout,
                "no instance would have the time to boot",
            ),
            (
                "expected_boot_s",
                self.expected_boot,
                "every instance that boots would count as hung",
            ),
        ] {
            anyhow::ensure!(
                !time.is_zero(),
                "ec2.{name} is 0: {harm}; set it to more than 0, or leave it out"
            );
        }
        anyhow::ensure!(
            self.expected_boot <= self.boot_timeout,
            "ec2.expected_boot_s is {} and ec2.boot_timeout_s {}: instances would be terminated before they \
             are ready; set boot_timeout_s to more than the longest boot",
            self.expected_boot.as_secs_f64(),
            self.boot_timeout.as_secs_f64()
        );
        anyhow::ensure!(
            self.orphan_timeout.is_zero() || self.orphan_timeout >= SHORTEST_ORPHAN_TIMEOUT,
            "ec2.orphan_timeout_s is {}: a controller that acts says so every 3 s, and instances would power \
             off under it; set it to at least {}, or to 0 for never",
            self.orphan_timeout.as_secs_f64(),
            SHORTEST_ORPHAN_TIMEOUT.as_secs()
        );
        Ok(())
    }
}
