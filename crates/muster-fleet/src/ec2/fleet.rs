//! The instances of one deployment, listed, launched and ended.
//!
//! AWS is the source of truth. Invariant: nothing is launched before its client token stands in the
//! launch record, so that a crash at any point, or two controllers, never make two instances of one
//! slot, nor more than there are slots.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_config::SdkConfig;
use futures::StreamExt;
use futures::stream;
use object_store::ObjectStore;
use object_store::path::Path;
use tokio::sync::Notify;

use super::calls::{Calls, LaunchedInstance};
use super::failure::{Failure, Refusal};
use super::heartbeat::Heartbeat;
use super::members::{Members, TemplateVersion, Unresponsive};
use super::options::Ec2FleetOptions;
use super::pools::Pools;
use super::record::{Launch, Record, now_ms};
use crate::fleet::{Fleet, FleetError, Instance, InstanceId};
use crate::lease::Lease;
use crate::tier::Tier;

/// How old a listing may be while something is about to change.
const CHANGING_LISTING: Duration = Duration::from_secs(1);
/// How old a listing may be while nothing is.
const SETTLED_LISTING: Duration = Duration::from_secs(15);
/// From this age on a launch is looked for by its tag alone.
///
/// EC2 remembers a token for at least 24 hours after its instances have ended ("Ensuring idempotency
/// in Amazon EC2 API requests"), and shows an instance within minutes; in between there is room for
/// clocks that differ.
const REPEATED_UNTIL: Duration = Duration::from_secs(60 * 60);
/// Within this long after a launch the listing by its tag shows its instances: EC2 is eventually
/// consistent.
const LISTING_LAG: Duration = Duration::from_secs(60);

/// Instances that one call launches at most. An account has as many resource tokens, and a call for Spot may ask
/// for 3,000 ("Request throttling for the Amazon EC2 API"; "Error codes", RequestResourceCountExceeded).
const LAUNCHED_AT_ONCE: u32 = 1000;
/// Instances that are named at the same time. Each takes a call of its own.
const NAMED_AT_ONCE: usize = 8;
/// Instances that are named in one look, of which there is one a second at most: EC2 gives an account ten
/// calls of CreateTags a second, after a hundred ("Request throttling for the Amazon EC2 API"). Whoever made
/// more would look at nothing else until they are made.
const NAMED_IN_A_LOOK: usize = 10;

/// The instances of one deployment, seen and changed by the one controller that holds the lease.
///
/// The listing is at most a second old while something is about to change, and 15 s when nothing
/// is; what this fleet does itself is seen at once, and so are the instances'
/// [heartbeats](Self::record_heartbeat).
#[derive(Debug)]
pub struct Ec2Fleet {
    options: Ec2FleetOptions,
    calls: Calls,
    lease: Arc<Lease>,
    members: Mutex<Members>,
    /// Held for as long as EC2 is asked: one call at a time.
    state: tokio::sync::Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    record: Record,
    pools: Pools,
    /// When the last listing began.
    listed: Option<Instant>,
    /// Listings so far.
    looks: usize,
    /// When the launch template's version was last asked for.
    version_asked: Option<Instant>,
}

impl Ec2Fleet {
    /// Opens the fleet for the holder of `lease`, and shuts every earlier holder out.
    ///
    /// `store` keeps the launch record at the key `record`; it must support conditional writes.
    /// Timeouts and retries are set here, whatever `config` says.
    ///
    /// # Errors
    /// When the record can not be used, or a later holder of the lease has opened it.
    pub async fn open(
        config: &SdkConfig,
        options: Ec2FleetOptions,
        store: Arc<dyn ObjectStore>,
        record: Path,
        lease: Arc<Lease>,
    ) -> Result<Self, FleetError> {
        let record = Record::open(store, record, lease.fence()).await?;
        let pools = Pools::new(options.capacity, &options.instance_types, &options.subnets);
        Ok(Self {
            calls: Calls::new(config, &options.deployment),
            lease,
            members: Mutex::new(Members::new(
                options.max_instances,
                options.boot_timeout,
                options.hung_timeout,
            )),
            state: tokio::sync::Mutex::new(State {
                record,
                pools,
                listed: None,
                looks: 0,
                version_asked: None,
            }),
            changed: Notify::new(),
            options,
        })
    }

    /// Takes in a heartbeat of an instance. Duplicates, late ones and those from before the instance's
    /// last start change nothing.
    pub fn record_heartbeat(&self, heartbeat: &Heartbeat) {
        if self.members().record_heartbeat(Instant::now(), heartbeat) {
            self.changed.notify_one();
        }
    }

    /// Notes that heartbeats were asked for and an answer came, with or without any: call it after
    /// each successful receive. While none succeeds, nobody is given up for being silent.
    pub fn record_receive(&self) {
        self.members().record_receive(Instant::now());
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
    async fn refresh(&self, state: &mut State) -> Result<(), FleetError> {
        let begun = Instant::now();
        let listing = self.calls.list().await;
        let listing = listing.map_err(|failure| self.error(failure, "list the instances"))?;
        state.listed = Some(begun);
        self.members()
            .apply_listing(begun, now_ms(), listing, state.record.launches());
        if !self.lease.held() {
            return Ok(());
        }
        let resolved = self.resolve(state).await.map(drop);
        let look = state.looks;
        state.looks = look.wrapping_add(1);
        self.know_template_version(state, SETTLED_LISTING).await;
        let (ended, replaced, named) = tokio::join!(
            self.end_unresponsive(),
            self.end_outdated(),
            self.name_untagged(look)
        );
        let now = Instant::now();
        let tagged =
            |launch: &Launch| launch.resolved && self.members().is_tagged(now, &launch.token);
        let forgot = state.record.forget(tagged).await;
        for error in [resolved, ended, replaced, named, forgot]
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
    async fn resolve(&self, state: &mut State) -> Result<u32, FleetError> {
        let open = state.record.launches().iter().filter(|l| !l.resolved);
        let open: Vec<Launch> = open.cloned().collect();
        let mut found = Ok(0);
        for launch in open {
            let instances = self.instances_of(&launch).await;
            found = match (found, instances) {
                (Ok(found), Ok(instances)) => Ok(found + self.adopt(state, &launch, &instances)),
                (Err(error), Ok(instances)) => {
                    self.adopt(state, &launch, &instances);
                    Err(error)
                }
                (Ok(_), Err(error)) => Err(error),
                (Err(first), Err(_)) => Err(first),
            };
        }
        found
    }

    /// Finds a launch's instances by its tag, or by making the launch again.
    async fn instances_of(&self, launch: &Launch) -> Result<Vec<LaunchedInstance>, FleetError> {
        let token = &launch.token;
        let by_tag = self.calls.launched(token).await;
        let by_tag = by_tag.map_err(|failure| self.error(failure, "find a launch's instances"))?;
        let age_ms = now_ms().abs_diff(launch.begun_at_ms);
        let old = u128::from(age_ms) >= REPEATED_UNTIL.as_millis();
        let instances = if old || by_tag.len() >= launch.slots.len() {
            by_tag
        } else {
            self.check_lease()?;
            match self.calls.run(launch).await {
                Ok(instances) => instances,
                // Nothing of what became of the launch when it was made.
                Err(failure) if is_inconclusive(failure.refusal, age_ms) => {
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
    fn adopt(&self, state: &mut State, launch: &Launch, instances: &[LaunchedInstance]) -> u32 {
        let now = Instant::now();
        let mut members = self.members();
        let mut count = 0;
        for instance in instances.iter().filter(|instance| !instance.ended) {
            let slot = launch.slots.get(instance.index as usize).copied();
            members.launched(now, &instance.id, slot, &launch.token);
            count += 1;
        }
        state.record.resolve(&launch.token);
        self.changed.notify_one();
        count
    }

    /// Terminates instances that nobody hears.
    async fn end_unresponsive(&self) -> Result<(), FleetError> {
        let unresponsive = self.members().unresponsive(Instant::now());
        if unresponsive.is_empty() {
            return Ok(());
        }
        for (id, why) in &unresponsive {
            match why {
                Unresponsive::NeverReported => {
                    tracing::warn!(instance.id = %id, "an instance was never heard from and is ended");
                    self.members().boot_failed(id);
                }
                Unresponsive::Silent => {
                    tracing::warn!(instance.id = %id, "an instance shows no progress: another takes its place, and it is ended");
                }
            }
        }
        let ids: Vec<_> = unresponsive.into_iter().map(|(id, _)| id).collect();
        self.shut_down(Shutdown::Terminate, &ids).await
    }

    /// Asks which version of the launch template the next launch would be of, where instances are stopped
    /// or may be, unless that was asked within `at_most`.
    async fn know_template_version(&self, state: &mut State, at_most: Duration) {
        let now = Instant::now();
        let keeps = self.options.stopped_instances > 0 || self.members().any_stopped(now);
        let asked = |at: Instant| now.duration_since(at) < at_most;
        if !keeps || state.version_asked.is_some_and(asked) {
            return;
        }
        state.version_asked = Some(now);
        let Ec2FleetOptions {
            launch_template,
            launch_template_version,
            ..
        } = &self.options;
        let version = self
            .calls
            .template_version(launch_template, launch_template_version)
            .await;
        let before = self.members().template_version;
        let known = match &version {
            Ok(number) => TemplateVersion::Known(*number),
            // What it was is as good as anything else that is known.
            Err(failure) if failure.refusal.passes() => before,
            Err(_) => TemplateVersion::Refused,
        };
        self.members().template_version = known;
        if let Err(failure) = version
            && (failure.refusal.passes() || known != before)
        {
            let error = self.error(failure, "see the launch template's version");
            tracing::warn!(
                error = format!("{:#}", anyhow::Error::new(error)),
                "it is not seen whether stopped instances are of an older launch template"
            );
        }
    }

    /// Terminates stopped instances of another version of the launch template.
    async fn end_outdated(&self) -> Result<(), FleetError> {
        let outdated = self.members().outdated(Instant::now());
        for id in &outdated {
            tracing::info!(instance.id = %id, "a stopped instance is of an older launch template and is ended");
        }
        self.shut_down(Shutdown::Terminate, &outdated).await
    }

    /// Gives instances their slots' names, of many some in each look. All of those are tried; the first failure
    /// is returned.
    async fn name_untagged(&self, look: usize) -> Result<(), FleetError> {
        let mut untagged = self.members().untagged(Instant::now());
        // One that can not be named holds up no other.
        let first = look.wrapping_mul(NAMED_IN_A_LOOK) % untagged.len().max(1);
        untagged.rotate_left(first);
        untagged.truncate(NAMED_IN_A_LOOK);
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
    async fn start(&self, state: &mut State, count: u32) -> Result<u32, FleetError> {
        if !state.pools.may_start(Instant::now()) {
            return Ok(0);
        }
        self.know_template_version(state, Duration::ZERO).await;
        let now = Instant::now();
        let mut stopped = self.members().stopped(now);
        stopped.truncate(count as usize);
        if stopped.is_empty() {
            return Ok(0);
        }
        match self.calls.start(&stopped).await {
            Ok(()) => {
                let now = Instant::now();
                let mut members = self.members();
                for id in &stopped {
                    tracing::info!(instance.id = %id, "started a stopped instance");
                    members.started(now, id);
                }
                state.pools.accepted(None);
                Ok(stopped.len() as u32)
            }
            Err(failure) => {
                let refusal = failure.refusal;
                // The listing is to say which of them are still there.
                state.listed = None;
                state
                    .pools
                    .refused(None, Instant::now(), refusal, failure.said.clone());
                if refusal.passes() {
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
    async fn launch_new(&self, state: &mut State, mut missing: u32) -> Result<(), FleetError> {
        let mut refused = None;
        while missing > 0 {
            self.check_lease()?;
            let now = Instant::now();
            let open = state.record.launches();
            let slots = self
                .members()
                .free_slots(now, missing.min(LAUNCHED_AT_ONCE), open);
            if slots.is_empty() {
                return Err(FleetError::NoCapacity {
                    missing,
                    retry_after: Duration::ZERO,
                    last: format!("all {} slots are taken", self.options.max_instances),
                });
            }
            let Some(pool) = state.pools.next_free(now) else {
                let (retry_after, last) = state.pools.wait(now);
                return Err(refused.unwrap_or(FleetError::NoCapacity {
                    missing,
                    retry_after,
                    last,
                }));
            };
            let launch = Launch::new(&self.options, slots, pool.clone());
            state.record.begin(launch.clone()).await?;
            self.check_lease()?;
            match self.calls.run(&launch).await {
                Ok(instances) => {
                    let launched = self.adopt(state, &launch, &instances);
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
                        state.pools.refused(Some(&pool), now, refusal, said);
                    } else {
                        state.pools.accepted(Some(&pool));
                    }
                }
                Err(failure) => {
                    let (refusal, said) = (failure.refusal, failure.said.clone());
                    let now = Instant::now();
                    state.pools.refused(Some(&pool), now, refusal, said);
                    let subnet = pool.subnet.as_deref();
                    let template = &self.options.launch_template;
                    let said = failure.said.clone();
                    let error = failure.into_error("launch instances", template, subnet);
                    if refusal == Refusal::Unknown {
                        return Err(error);
                    }
                    state.record.forget(|l| l.token == launch.token).await?;
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
    async fn shut_down(&self, what: Shutdown, ids: &[InstanceId]) -> Result<(), FleetError> {
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

    async fn call(&self, what: Shutdown, ids: &[InstanceId]) -> Result<(), Failure> {
        match what {
            Shutdown::Stop => self.calls.stop(ids).await?,
            Shutdown::Terminate => self.calls.terminate(ids).await?,
        }
        let now = Instant::now();
        let mut members = self.members();
        for id in ids {
            tracing::info!(instance.id = %id, "told an instance to {}", what.verb());
            members.shutdown_requested(now, id);
        }
        self.changed.notify_one();
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
enum Shutdown {
    Stop,
    Terminate,
}

impl Shutdown {
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
        let mut state = self.state.lock().await;
        let now = Instant::now();
        let changing = self.members().is_changing(now) || !state.record.launches().is_empty();
        let at_most = if changing {
            CHANGING_LISTING
        } else {
            SETTLED_LISTING
        };
        let fresh = |at: Instant| now.duration_since(at) < at_most;
        if !state.listed.is_some_and(fresh) {
            self.refresh(&mut state).await?;
        }
        Ok(self.members().instances(Instant::now()))
    }

    async fn launch(&self, _: Tier, count: u32) -> Result<(), FleetError> {
        let mut state = self.state.lock().await;
        self.check_lease()?;
        // What an earlier launch has made all the same is part of what is asked for.
        let found = self.resolve(&mut state).await?;
        if state.listed.is_none() {
            self.refresh(&mut state).await?;
        }
        let mut missing = count.saturating_sub(found);
        let room = {
            let open = state.record.launches();
            self.members().free_slots(Instant::now(), missing, open)
        };
        let room = room.len() as u32;
        missing -= self.start(&mut state, missing.min(room)).await?;
        self.launch_new(&mut state, missing).await
    }

    async fn stopped(&self) -> u32 {
        let state = self.state.lock().await;
        let now = Instant::now();
        if state.pools.may_start(now) {
            self.members().stopped(now).len() as u32
        } else {
            0
        }
    }

    async fn drain(&self, ids: &[InstanceId]) -> Result<(), FleetError> {
        let _state = self.state.lock().await;
        let (stop, terminate) = {
            let stopped = self.options.stopped_instances;
            self.members().to_drain(Instant::now(), ids, stopped)
        };
        let mut terminate = terminate;
        let stopped = match self.shut_down(Shutdown::Stop, &stop).await {
            // What EC2 will not stop is not kept running for it.
            Err(FleetError::Refused { source, .. }) => {
                tracing::warn!(error = %source, "instances can not be stopped and are terminated");
                terminate.extend(stop);
                Ok(())
            }
            stopped => stopped,
        };
        self.shut_down(Shutdown::Terminate, &terminate).await?;
        stopped
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }

    fn failed_starts(&self, _: Tier) -> u64 {
        self.members().failed_starts()
    }
}

/// Whether the refusal to repeat a launch leaves open what the launch itself has made. One that
/// differs from what its token stands for was made: the listing shows its instances in a while.
fn is_inconclusive(refusal: Refusal, age_ms: u64) -> bool {
    match refusal {
        Refusal::Unknown | Refusal::Throttled | Refusal::NotPermitted => true,
        Refusal::Differs => u128::from(age_ms) < LISTING_LAG.as_millis(),
        Refusal::Capacity
        | Refusal::Limit
        | Refusal::NotFound
        | Refusal::Spent
        | Refusal::Refused => false,
    }
}
