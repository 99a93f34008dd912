//! A fleet of EC2 instances.
//!
//! AWS is the source of truth. Invariant: nothing is launched before its client token stands in the
//! launch record, so that a crash at any point, or two controllers, never make two instances of one
//! slot, nor more than there are slots.

mod calls;
mod client;
mod failure;
mod members;
mod pools;
mod record;
mod rehearsal;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use aws_config::SdkConfig;
use futures::StreamExt;
use futures::stream;
use object_store::ObjectStore;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use uuid::Uuid;

use self::calls::{Calls, Launched};
use self::failure::{Failure, Refusal};
use self::members::{Members, Overdue};
use self::pools::Pools;
use self::record::{Launch, Record};
pub use self::rehearsal::{Change, Ec2Rehearsal, Place};
use crate::fleet::{Fleet, FleetError, Instance, InstanceId};
use crate::lease::Lease;

/// How old a listing may be while something is about to change.
const FLUX_LISTING: Duration = Duration::from_secs(1);
/// How old a listing may be while nothing is.
const SETTLED_LISTING: Duration = Duration::from_secs(15);
/// From this age on a launch is looked for by its tag alone.
///
/// EC2 remembers a token for at least 24 hours after its instances have ended ("Ensuring idempotency
/// in Amazon EC2 API requests"), and shows an instance within minutes; in between there is room for
/// clocks that differ.
const LOOKED_FOR_ONLY: Duration = Duration::from_secs(60 * 60);
/// Within this long after a launch the listing by its tag shows its instances: EC2 is eventually
/// consistent.
const LISTED_AFTER: Duration = Duration::from_secs(60);

/// Instances that are named at the same time. Each takes a call of its own, and EC2 refills what an
/// account has of them slowly ("Request throttling for the Amazon EC2 API").
const NAMED_AT_ONCE: usize = 8;

/// Whether Spot capacity is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capacity {
    /// Never.
    #[default]
    OnDemand,
    /// Nothing else.
    Spot,
    /// Where there is some, else on-demand.
    SpotFirst,
}

/// How the instances of one installation are launched.
#[derive(Clone, Debug)]
pub struct Ec2FleetOptions {
    /// Tells this installation's instances from others': the tag `muster:deployment`.
    pub deployment: String,
    /// Name or id (`lt-…`) of the launch template.
    pub launch_template: String,
    /// Its version: a number, `$Default` or `$Latest`.
    pub launch_template_version: String,
    /// What the instances' `Name` tags begin with; the slot's number follows.
    pub name_prefix: String,
    /// Instance types, tried in this order; the template's own when empty.
    pub instance_types: Vec<String>,
    /// Subnets, tried in this order; the template's own when empty.
    pub subnets: Vec<String>,
    /// Whether Spot capacity is used.
    pub capacity: Capacity,
    /// Drained on-demand instances that are stopped rather than terminated.
    pub stopped_instances: u32,
    /// An instance that was not heard from for this long after its start is given up.
    pub boot_timeout: Duration,
    /// Instances never exceeded: the number of slots.
    pub max_instances: u32,
}

/// Whether an instance takes work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It does.
    Ready,
    /// It finishes what it has.
    Draining,
}

/// What an instance reports: when it is ready, every 10 s, at changes and when it drains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The instance.
    pub id: InstanceId,
    /// Whether it takes work.
    pub phase: Phase,
    /// Whether it works on a request.
    pub busy: bool,
    /// When its worker began, by its own clock, in milliseconds since the Unix epoch: tells the
    /// reports of one run from those of the one before.
    pub started_at_ms: u64,
}

/// The instances of one deployment, seen and changed by the one controller that holds the lease.
///
/// The listing is at most a second old while something is about to change, and 15 s when nothing
/// is; what this fleet does itself is seen at once, and so is what it [hears](Self::heard).
#[derive(Debug)]
pub struct Ec2Fleet {
    options: Ec2FleetOptions,
    calls: Calls,
    lease: Arc<Lease>,
    members: Mutex<Members>,
    /// Held for as long as EC2 is asked: one call at a time.
    acting: tokio::sync::Mutex<Acting>,
    changed: Notify,
}

#[derive(Debug)]
struct Acting {
    record: Record,
    pools: Pools,
    /// When the last listing began.
    listed: Option<Instant>,
}

impl Ec2Fleet {
    /// Opens the fleet for the holder of `lease`, and shuts every earlier holder out.
    ///
    /// `store` keeps the launch record, `<prefix>/launches.json`; it must support conditional
    /// writes. Timeouts and retries are set here, whatever `config` says.
    ///
    /// # Errors
    /// When the record can not be used, or a later holder of the lease has opened it.
    pub async fn open(
        config: &SdkConfig,
        options: Ec2FleetOptions,
        store: Arc<dyn ObjectStore>,
        prefix: &Path,
        lease: Arc<Lease>,
    ) -> Result<Self, FleetError> {
        let path = prefix.clone().join("launches.json");
        let record = Record::open(store, path, lease.fence()).await?;
        let pools = Pools::new(options.capacity, &options.instance_types, &options.subnets);
        Ok(Self {
            calls: Calls::new(config, &options.deployment),
            lease,
            members: Mutex::new(Members::new(options.max_instances, options.boot_timeout)),
            acting: tokio::sync::Mutex::new(Acting {
                record,
                pools,
                listed: None,
            }),
            changed: Notify::new(),
            options,
        })
    }

    /// Takes in a report of an instance. Duplicates, late ones and those from before the instance's
    /// last start change nothing.
    pub fn heard(&self, report: &Heard) {
        if self.members().heard(Instant::now(), report) {
            self.changed.notify_one();
        }
    }

    /// Reports were asked for and an answer came, with or without any: call it after each
    /// successful receive. While none succeeds, nobody is given up for being silent.
    pub fn listening(&self) {
        self.members().listened(Instant::now());
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members
            .lock()
            .expect("no code panics while it holds the fleet")
    }

    fn check_lease(&self) -> Result<(), FleetError> {
        if self.lease.held() {
            Ok(())
        } else {
            Err(FleetError::LeaseLost)
        }
    }

    fn error(&self, failure: Failure, action: &str) -> FleetError {
        failure.into_error(action, &self.options.launch_template, None)
    }

    /// Lists, and finishes what was begun: launches whose instances are not known, names, and the
    /// ends of those that nobody hears.
    async fn refresh(&self, acting: &mut Acting) -> Result<(), FleetError> {
        let begun = Instant::now();
        let listing = self.calls.list().await;
        let listing = listing.map_err(|failure| self.error(failure, "list the instances"))?;
        acting.listed = Some(begun);
        self.members()
            .seen(begun, now_ms(), listing, acting.record.launches());
        if !self.lease.held() {
            return Ok(());
        }
        let resolved = self.resolve(acting).await.map(drop);
        let (swept, named) = tokio::join!(self.sweep(), self.name_all());
        let now = Instant::now();
        let tagged =
            |launch: &Launch| launch.resolved && self.members().is_tagged(now, &launch.token);
        let forgot = acting.record.forget(tagged).await;
        for error in [resolved, swept, named, forgot]
            .into_iter()
            .filter_map(Result::err)
        {
            // The next listing finds what is left to do.
            tracing::warn!(
                error = format!("{:#}", anyhow::Error::new(error)),
                "the instances were listed, and not all that is due was done"
            );
        }
        Ok(())
    }

    /// Finds the instances of launches whose answer this process has not seen; says how many.
    ///
    /// All are looked for; the first failure is returned.
    async fn resolve(&self, acting: &mut Acting) -> Result<u32, FleetError> {
        let open = acting.record.launches().iter().filter(|l| !l.resolved);
        let open: Vec<Launch> = open.cloned().collect();
        let mut found = Ok(0);
        for launch in open {
            let instances = self.instances_of(&launch).await;
            found = match (found, instances) {
                (Ok(found), Ok(instances)) => Ok(found + self.take_in(acting, &launch, &instances)),
                (Err(error), Ok(instances)) => {
                    self.take_in(acting, &launch, &instances);
                    Err(error)
                }
                (Ok(_), Err(error)) => Err(error),
                (Err(first), Err(_)) => Err(first),
            };
        }
        found
    }

    /// Finds a launch's instances by its tag, or by making the launch again.
    async fn instances_of(&self, launch: &Launch) -> Result<Vec<Launched>, FleetError> {
        let token = &launch.token;
        let by_tag = self.calls.launched(token).await;
        let by_tag = by_tag.map_err(|failure| self.error(failure, "find a launch's instances"))?;
        let age_ms = now_ms().abs_diff(launch.begun_at_ms);
        let old = u128::from(age_ms) >= LOOKED_FOR_ONLY.as_millis();
        let instances = if old || by_tag.len() >= launch.slots.len() {
            by_tag
        } else {
            self.check_lease()?;
            match self.calls.run(launch).await {
                Ok(instances) => instances,
                // Nothing of what became of the launch when it was made.
                Err(failure) if says_nothing(failure.refusal, age_ms) => {
                    return Err(self.error(failure, "repeat a launch"));
                }
                Err(failure) => {
                    tracing::info!(said = failure.said, "a launch that was begun made no more");
                    by_tag
                }
            }
        };
        tracing::info!(
            launch = token,
            slots = ?launch.slots,
            instances = instances.len(),
            "found what became of a launch"
        );
        Ok(instances)
    }

    /// The launch's instances are these, and no others; says how many there are.
    fn take_in(&self, acting: &mut Acting, launch: &Launch, instances: &[Launched]) -> u32 {
        let now = Instant::now();
        let mut members = self.members();
        let mut count = 0;
        for instance in instances.iter().filter(|instance| !instance.ended) {
            let slot = launch.slots.get(instance.index as usize).copied();
            members.launched(now, &instance.id, slot, &launch.token);
            count += 1;
        }
        acting.record.resolve(&launch.token);
        self.changed.notify_one();
        count
    }

    /// Terminates instances that nobody hears.
    async fn sweep(&self) -> Result<(), FleetError> {
        let overdue = self.members().overdue(Instant::now());
        if overdue.is_empty() {
            return Ok(());
        }
        for (id, why) in &overdue {
            match why {
                Overdue::NeverHeard => {
                    tracing::warn!(instance.id = %id, "an instance was never heard from and is ended");
                    self.members().gave_up(id);
                }
                Overdue::Silent => {
                    tracing::warn!(instance.id = %id, "an instance has fallen silent and is ended");
                }
            }
        }
        let ids: Vec<_> = overdue.into_iter().map(|(id, _)| id).collect();
        self.tell(Told::Terminate, &ids).await
    }

    /// Gives every instance its slot's name. All are tried; the first failure is returned.
    async fn name_all(&self) -> Result<(), FleetError> {
        let untagged = self.members().untagged(Instant::now());
        let names = untagged.into_iter().map(async |(id, slot)| {
            self.check_lease()?;
            match self.calls.name(&id, &self.options.name_prefix, slot).await {
                Ok(()) => Ok(()),
                // Not yet, or not any more: the next listing tells.
                Err(failure) if failure.refusal == Refusal::NotFound => Ok(()),
                Err(failure) => Err(self.error(failure, "name an instance")),
            }
        });
        let named = stream::iter(names).buffer_unordered(NAMED_AT_ONCE);
        let named: Vec<_> = named.collect().await;
        named.into_iter().collect()
    }

    /// Starts up to `count` stopped instances; says how many.
    async fn start(&self, acting: &mut Acting, count: u32) -> Result<u32, FleetError> {
        let now = Instant::now();
        if !acting.pools.may_start(now) {
            return Ok(0);
        }
        let mut spares = self.members().spares(now);
        spares.truncate(count as usize);
        if spares.is_empty() {
            return Ok(0);
        }
        match self.calls.start(&spares).await {
            Ok(()) => {
                let now = Instant::now();
                let mut members = self.members();
                for id in &spares {
                    tracing::info!(instance.id = %id, "started a stopped instance");
                    members.started(now, id);
                }
                acting.pools.accepted(None);
                Ok(spares.len() as u32)
            }
            Err(failure) => {
                let refusal = failure.refusal;
                // The listing is to say which of them are still there.
                acting.listed = None;
                acting
                    .pools
                    .refused(None, Instant::now(), refusal, failure.said.clone());
                if matches!(refusal, Refusal::Unknown | Refusal::Throttled) {
                    return Err(self.error(failure, "start stopped instances"));
                }
                tracing::warn!(
                    said = failure.said,
                    "stopped instances could not be started: launching others"
                );
                Ok(0)
            }
        }
    }

    /// Launches `missing` new instances from whichever pools have them.
    async fn launch_new(&self, acting: &mut Acting, mut missing: u32) -> Result<(), FleetError> {
        let mut refused = None;
        while missing > 0 {
            self.check_lease()?;
            let now = Instant::now();
            let open = acting.record.launches();
            let slots = self.members().free_slots(now, missing, open);
            if slots.is_empty() {
                return Err(FleetError::NoCapacity {
                    missing,
                    retry_after: Duration::ZERO,
                    last: format!("all {} slots are taken", self.options.max_instances),
                });
            }
            let Some(pool) = acting.pools.next(now) else {
                let (retry_after, last) = acting.pools.wait(now);
                return Err(refused.unwrap_or(FleetError::NoCapacity {
                    missing,
                    retry_after,
                    last,
                }));
            };
            let launch = Launch {
                token: Uuid::now_v7().to_string(),
                slots,
                begun_at_ms: now_ms(),
                template: self.options.launch_template.clone(),
                template_version: self.options.launch_template_version.clone(),
                pool: pool.clone(),
                resolved: false,
            };
            acting.record.begin(launch.clone()).await?;
            self.check_lease()?;
            match self.calls.run(&launch).await {
                Ok(instances) => {
                    let launched = self.take_in(acting, &launch, &instances);
                    tracing::info!(
                        %pool,
                        slots = ?launch.slots,
                        instances = launched,
                        "launched instances"
                    );
                    missing = missing.saturating_sub(launched);
                    if instances.len() < launch.slots.len() {
                        let said = format!("only {} of {}", instances.len(), launch.slots.len());
                        let now = Instant::now();
                        let refusal = Refusal::Capacity;
                        acting.pools.refused(Some(&pool), now, refusal, said);
                    } else {
                        acting.pools.accepted(Some(&pool));
                    }
                }
                Err(failure) => {
                    let (refusal, said) = (failure.refusal, failure.said.clone());
                    let now = Instant::now();
                    acting.pools.refused(Some(&pool), now, refusal, said);
                    let subnet = pool.subnet.as_deref();
                    let template = &self.options.launch_template;
                    let said = failure.said.clone();
                    let error = failure.into_error("launch instances", template, subnet);
                    if refusal == Refusal::Unknown {
                        return Err(error);
                    }
                    acting.record.forget(|l| l.token == launch.token).await?;
                    match refusal {
                        Refusal::Throttled => return Err(error),
                        Refusal::Capacity | Refusal::Limit => {
                            tracing::warn!(%pool, said, "a pool has no capacity: trying the next");
                        }
                        _ => {
                            tracing::warn!(%pool, said, "a pool refuses: trying the next");
                            refused = Some(error);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Tells instances to stop or to terminate. Those that EC2 does not know are none.
    async fn tell(&self, what: Told, ids: &[InstanceId]) -> Result<(), FleetError> {
        if ids.is_empty() {
            return Ok(());
        }
        self.check_lease()?;
        let told = self.call(what, ids).await;
        match told {
            Err(failure) if failure.refusal == Refusal::NotFound => {
                // One unknown id fails the call for all.
                for id in ids {
                    match self.call(what, std::slice::from_ref(id)).await {
                        Err(failure) if failure.refusal == Refusal::NotFound => {
                            self.members().unknown(Instant::now(), id);
                        }
                        told => told.map_err(|failure| self.error(failure, what.action()))?,
                    }
                }
                Ok(())
            }
            told => told.map_err(|failure| self.error(failure, what.action())),
        }
    }

    async fn call(&self, what: Told, ids: &[InstanceId]) -> Result<(), Failure> {
        match what {
            Told::Stop => self.calls.stop(ids).await?,
            Told::Terminate => self.calls.terminate(ids).await?,
        }
        let now = Instant::now();
        let mut members = self.members();
        for id in ids {
            tracing::info!(instance.id = %id, "told an instance to {}", what.verb());
            members.told(now, id);
        }
        self.changed.notify_one();
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
enum Told {
    Stop,
    Terminate,
}

impl Told {
    fn verb(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Terminate => "terminate",
        }
    }

    fn action(self) -> &'static str {
        match self {
            Self::Stop => "stop instances",
            Self::Terminate => "terminate instances",
        }
    }
}

#[async_trait]
impl Fleet for Ec2Fleet {
    async fn instances(&self) -> Result<Vec<Instance>, FleetError> {
        let mut acting = self.acting.lock().await;
        let now = Instant::now();
        let flux = self.members().in_flux(now) || !acting.record.launches().is_empty();
        let at_most = if flux { FLUX_LISTING } else { SETTLED_LISTING };
        let fresh = |at: Instant| now.duration_since(at) < at_most;
        if !acting.listed.is_some_and(fresh) {
            self.refresh(&mut acting).await?;
        }
        Ok(self.members().instances(Instant::now()))
    }

    async fn launch(&self, count: u32) -> Result<(), FleetError> {
        let mut acting = self.acting.lock().await;
        self.check_lease()?;
        // What an earlier launch has made all the same is part of what is asked for.
        let found = self.resolve(&mut acting).await?;
        if acting.listed.is_none() {
            self.refresh(&mut acting).await?;
        }
        let mut missing = count.saturating_sub(found);
        let room = {
            let open = acting.record.launches();
            self.members().free_slots(Instant::now(), missing, open)
        };
        let room = room.len() as u32;
        missing -= self.start(&mut acting, missing.min(room)).await?;
        self.launch_new(&mut acting, missing).await
    }

    async fn stopped(&self) -> u32 {
        let acting = self.acting.lock().await;
        let now = Instant::now();
        if acting.pools.may_start(now) {
            self.members().spares(now).len() as u32
        } else {
            0
        }
    }

    async fn drain(&self, ids: &[InstanceId]) -> Result<(), FleetError> {
        let _acting = self.acting.lock().await;
        let (stop, terminate) = {
            let stopped = self.options.stopped_instances;
            self.members().to_drain(Instant::now(), ids, stopped)
        };
        let mut terminate = terminate;
        let stopped = match self.tell(Told::Stop, &stop).await {
            // What EC2 will not stop is not kept running for it.
            Err(FleetError::Refused { source, .. }) => {
                tracing::warn!(error = %source, "instances can not be stopped and are terminated");
                terminate.extend(stop);
                Ok(())
            }
            stopped => stopped,
        };
        self.tell(Told::Terminate, &terminate).await?;
        stopped
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }

    fn failed_starts(&self) -> u64 {
        self.members().failed_starts()
    }
}

/// Whether the refusal to repeat a launch leaves open what the launch itself has made. One that
/// differs from what its token stands for was made: the listing shows its instances in a while.
fn says_nothing(refusal: Refusal, age_ms: u64) -> bool {
    match refusal {
        Refusal::Unknown | Refusal::Throttled | Refusal::NotPermitted => true,
        Refusal::Differs => u128::from(age_ms) < LISTED_AFTER.as_millis(),
        Refusal::Capacity
        | Refusal::Limit
        | Refusal::NotFound
        | Refusal::Spent
        | Refusal::Refused => false,
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
