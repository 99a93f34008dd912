//! What is known of every instance: EC2's listing, what it was told, and what was heard from it.
//!
//! Invariant: an instance leaves only by EC2's listing, and no state is EC2's word alone: it takes
//! work once it was heard from, and drains from when it was told to.

mod spares;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::heartbeat::{Heartbeat, Phase};
use super::record::Launch;
use crate::fleet::{Answers, Instance, InstanceId, InstanceState};
use crate::tier::Tier;

/// How long a launch or start may be missing from EC2's listing, which is eventually consistent.
const LISTING_LAG: Duration = Duration::from_secs(60);
/// How long one that was told to end meanwhile may be missing: it keeps its place in case it is shown yet.
const ENDED_LISTING_LAG: Duration = Duration::from_secs(5);
/// An instance that was told to stop and still runs after this may be told again.
const SHUTDOWN_REPEAT: Duration = Duration::from_secs(60);
/// Reports that one is sure to have missed when it counts as hung.
const REPORTS: u32 = 4;
/// An instance's clock may differ from EC2's by this much.
const CLOCK_TOLERANCE_MS: u64 = 10 * 60 * 1000;
/// Unlisted instances whose heartbeats are remembered until a listing shows them.
const MAX_UNLISTED: usize = 1024;

/// EC2's own state of an instance that is not terminated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PowerState {
    Pending,
    Running,
    Stopping,
    Stopped,
    ShuttingDown,
}

/// One instance as EC2 lists it.
#[derive(Clone, Debug)]
pub(super) struct ListedInstance {
    pub id: InstanceId,
    pub power: PowerState,
    /// When it was launched or last started, in milliseconds since the Unix epoch.
    pub launched_at_ms: Option<u64>,
    pub spot: bool,
    /// Tag `muster:slot`.
    pub slot: Option<u32>,
    /// Tag `muster:launch`.
    pub launch: Option<String>,
    /// The version of the launch template that it was launched from.
    pub template_version: Option<u64>,
}

/// What was heard from one run of an instance's worker.
#[derive(Clone, Copy, Debug)]
struct Run {
    started_at_ms: u64,
    last: Instant,
    draining: bool,
    busy: bool,
    answered: u64,
    every: Duration,
}

impl Run {
    fn new(now: Instant, report: &Heartbeat) -> Self {
        Self {
            started_at_ms: report.started_at_ms,
            last: now,
            draining: report.phase == Phase::Draining,
            busy: report.busy,
            answered: report.answered,
            every: report.every,
        }
    }
}

#[derive(Debug)]
struct Member {
    listed: Option<ListedInstance>,
    slot: Option<u32>,
    launch: Option<String>,
    /// When this process launched or started it, or saw it first.
    begun: Instant,
    /// How old it was then.
    age_then: Duration,
    /// Whether this process has started it and no listing has shown it up since.
    starting: bool,
    /// Where this run of it came from. What another process has started counts as launched.
    tier: Tier,
    shutdown_at: Option<Instant>,
    run: Option<Run>,
    /// Heartbeats of runs that began no later than this are from before its last start.
    ended_runs_ms: Option<u64>,
    /// Whether it is known to have ended before it was heard from.
    failed: bool,
}

impl Member {
    fn new(now: Instant) -> Self {
        Self {
            listed: None,
            slot: None,
            launch: None,
            begun: now,
            age_then: Duration::ZERO,
            starting: false,
            tier: Tier::Ec2,
            shutdown_at: None,
            run: None,
            ended_runs_ms: None,
            failed: false,
        }
    }

    /// EC2's state, but for a listing from before a launch or start of this process.
    fn power(&self, now: Instant) -> PowerState {
        match &self.listed {
            None => PowerState::Pending,
            Some(listed) => match listed.power {
                PowerState::Stopped | PowerState::Stopping
                    if self.starting && now.duration_since(self.begun) < LISTING_LAG =>
                {
                    PowerState::Pending
                }
                power => power,
            },
        }
    }

    /// Whether the next listings may show it although this one does not.
    fn awaited(&self, now: Instant) -> bool {
        let until = match self.shutdown_at {
            Some(told) => told + ENDED_LISTING_LAG,
            None => self.begun + LISTING_LAG,
        };
        self.listed.is_none() && now < until
    }

    /// `None` for one that is stopped.
    fn state(&self, now: Instant) -> Option<InstanceState> {
        match self.power(now) {
            PowerState::Stopped => None,
            PowerState::Stopping | PowerState::ShuttingDown => Some(InstanceState::Draining),
            PowerState::Pending | PowerState::Running if self.shutdown_at.is_some() => {
                Some(InstanceState::Draining)
            }
            PowerState::Pending | PowerState::Running => Some(match &self.run {
                None => InstanceState::Pending,
                Some(run) if run.draining => InstanceState::Draining,
                Some(_) => InstanceState::Running,
            }),
        }
    }

    fn age(&self, now: Instant) -> Duration {
        let seen = now.duration_since(self.begun);
        match self.run {
            // When a launch that another process saw was heard from is not known: its age by EC2's
            // clock and ours would make a boot of hours of it.
            None => seen,
            Some(_) => self.age_then + seen,
        }
    }

    /// Whether a run that began then belongs to the time since its last start.
    fn accepts_run(&self, started_at_ms: u64) -> bool {
        let since = self.listed.as_ref().and_then(|l| l.launched_at_ms);
        self.ended_runs_ms.is_none_or(|floor| started_at_ms > floor)
            && since.is_none_or(|since| started_at_ms + CLOCK_TOLERANCE_MS >= since)
    }

    fn failed_start(&mut self) -> bool {
        let fresh = self.run.is_none() && self.shutdown_at.is_none() && !self.failed;
        self.failed |= fresh;
        fresh
    }
}

/// What is known of the version of the launch template that a launch would be of. Instances of this
/// version alone are started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum TemplateVersion {
    /// Nothing yet; it will be asked for again.
    #[default]
    NotYet,
    /// It was this one when EC2 said so last.
    Known(u64),
    /// EC2 will not say.
    Refused,
}

/// Why an instance is to be ended although nobody asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unresponsive {
    /// It was never heard from.
    NeverReported,
    /// It was, and is silent.
    Silent,
}

/// Every instance of the deployment.
#[derive(Debug)]
pub(super) struct Members {
    max: u32,
    boot_timeout: Duration,
    /// The version of the launch template that a launch would be of.
    pub template_version: TemplateVersion,
    /// How long one that takes work may be silent.
    hung_timeout: Duration,
    members: BTreeMap<InstanceId, Member>,
    /// Heartbeat from and not listed yet.
    unlisted: HashMap<InstanceId, Run>,
    /// `(first, last)` receive without an interruption in between.
    receiving: Option<(Instant, Instant)>,
    failed_starts: u64,
}

impl Members {
    pub fn new(max: u32, boot_timeout: Duration, hung_timeout: Duration) -> Self {
        Self {
            max,
            boot_timeout,
            template_version: TemplateVersion::default(),
            hung_timeout,
            members: BTreeMap::new(),
            unlisted: HashMap::new(),
            receiving: None,
            failed_starts: 0,
        }
    }

    /// Takes in a whole listing. `open`: launches whose slots are spoken for.
    pub fn apply_listing(
        &mut self,
        now: Instant,
        now_ms: u64,
        listing: Vec<ListedInstance>,
        open: &[Launch],
    ) {
        let there: BTreeSet<_> = listing.iter().map(|listed| listed.id.clone()).collect();
        let mut failed = 0;
        self.members.retain(|id, member| {
            if there.contains(id) || member.awaited(now) {
                return true;
            }
            let spare = member.state(now).is_none();
            failed += u64::from(!spare && member.failed_start());
            false
        });
        self.failed_starts += failed;
        for listed in listing {
            self.apply(now, now_ms, listed);
        }
        let recent = |run: &Run| now.duration_since(run.last) < self.hung_timeout;
        self.unlisted.retain(|_, run| recent(run));
        self.assign(now, open);
    }

    fn apply(&mut self, now: Instant, now_ms: u64, listed: ListedInstance) {
        let id = listed.id.clone();
        let unlisted = self.unlisted.remove(&id);
        let known = self.members.contains_key(&id);
        let member = self.members.entry(id).or_insert_with(|| Member::new(now));
        let was = known.then(|| member.power(now));
        let up = matches!(listed.power, PowerState::Pending | PowerState::Running);
        if !known || was == Some(PowerState::Stopped) && up {
            // Launched or started by somebody else.
            let age_ms = now_ms.saturating_sub(listed.launched_at_ms.unwrap_or(now_ms));
            member.begun = now;
            member.age_then = Duration::from_millis(age_ms);
            member.shutdown_at = None;
        }
        member.slot = member.slot.or(listed.slot);
        member.launch = member.launch.take().or_else(|| listed.launch.clone());
        member.starting &= !up;
        member.listed = Some(listed);
        if let Some(run) = unlisted.filter(|run| member.accepts_run(run.started_at_ms)) {
            member.run = Some(run);
        }
        match member.power(now) {
            PowerState::Stopped => {
                if was.is_some_and(|was| was != PowerState::Stopped) && member.failed_start() {
                    self.failed_starts += 1;
                }
                member.ended_runs_ms = member
                    .ended_runs_ms
                    .max(member.run.map(|run| run.started_at_ms));
                member.run = None;
                member.shutdown_at = None;
                member.starting = false;
            }
            PowerState::Stopping | PowerState::ShuttingDown => {
                if known && member.failed_start() {
                    self.failed_starts += 1;
                }
            }
            PowerState::Pending | PowerState::Running => {
                let again = |told: &Instant| now.duration_since(*told) < SHUTDOWN_REPEAT;
                member.shutdown_at = member.shutdown_at.filter(again);
            }
        }
    }

    /// Sees to it that no two instances bear the same slot, and that none that works is without.
    fn assign(&mut self, now: Instant, open: &[Launch]) {
        let mut taken: BTreeSet<u32> = reserved(open).collect();
        let mut order: Vec<_> = self
            .members
            .iter_mut()
            .filter(|(_, member)| member.state(now).is_some())
            .collect();
        // Those that bear their slot already keep it against those that are to be tagged.
        order.sort_by_key(|(id, member)| {
            let tagged = member.listed.as_ref().and_then(|listed| listed.slot);
            (tagged.is_none(), member.begun, (*id).clone())
        });
        let (placed, others): (Vec<_>, Vec<_>) = order.into_iter().partition(|(_, member)| {
            let of_open = open
                .iter()
                .any(|l| member.launch.as_ref() == Some(&l.token));
            match member.slot {
                // A launch's own slots are reserved for its own instances.
                Some(slot) => taken.insert(slot) || of_open,
                None => of_open,
            }
        });
        drop(placed);
        for (_, member) in others {
            member.slot = None;
            let known = member.run.is_some() || member.launch.is_some();
            if known && let Some(slot) = (1..=self.max).find(|slot| !taken.contains(slot)) {
                taken.insert(slot);
                member.slot = Some(slot);
            }
        }
    }

    /// This process has launched it, or found that an earlier one has.
    pub fn launched(&mut self, now: Instant, id: &InstanceId, slot: Option<u32>, token: &str) {
        let run = self.unlisted.remove(id);
        let fresh = || Member {
            run,
            ..Member::new(now)
        };
        let member = self.members.entry(id.clone()).or_insert_with(fresh);
        member.launch = Some(token.to_owned());
        member.slot = member.slot.or(slot);
    }

    /// This process has started it.
    pub fn started(&mut self, now: Instant, id: &InstanceId) {
        if let Some(member) = self.members.get_mut(id) {
            member.begun = now;
            member.age_then = Duration::ZERO;
            member.starting = true;
            member.tier = Tier::Stopped;
            member.shutdown_at = None;
            member.failed = false;
            member.ended_runs_ms = member
                .ended_runs_ms
                .max(member.run.map(|run| run.started_at_ms));
            member.run = None;
        }
    }

    /// This process has told it to stop or to terminate.
    pub fn shutdown_requested(&mut self, now: Instant, id: &InstanceId) {
        if let Some(member) = self.members.get_mut(id) {
            member.shutdown_at = Some(now);
        }
    }

    /// EC2 does not know it.
    pub fn unknown(&mut self, now: Instant, id: &InstanceId) {
        // EC2 may not know a launch yet; the listing will tell.
        let gone = |member: &Member| {
            member.listed.is_some() || now.duration_since(member.begun) >= LISTING_LAG
        };
        if self.members.get(id).is_some_and(gone) {
            self.members.remove(id);
        }
    }

    /// Takes in a heartbeat; says whether it has changed anything that a plan looks at.
    pub fn record_heartbeat(&mut self, now: Instant, report: &Heartbeat) -> bool {
        let Some(member) = self.members.get_mut(&report.id) else {
            if self.unlisted.len() < MAX_UNLISTED || self.unlisted.contains_key(&report.id) {
                let run = Run::new(now, report);
                let known = self.unlisted.entry(report.id.clone()).or_insert(run);
                if run.started_at_ms >= known.started_at_ms {
                    *known = run;
                }
            }
            return false;
        };
        if member.state(now).is_none() {
            member.ended_runs_ms = member.ended_runs_ms.max(Some(report.started_at_ms));
            return false;
        }
        if !member.accepts_run(report.started_at_ms) {
            return false;
        }
        let before = (member.state(now), member.run.map(|run| run.busy));
        let heard = Run::new(now, report);
        match &mut member.run {
            Some(run) if run.started_at_ms > heard.started_at_ms => {}
            Some(run) if run.started_at_ms == heard.started_at_ms => {
                // A late report from before the drain takes nothing back.
                *run = Run {
                    draining: run.draining || heard.draining,
                    answered: run.answered.max(heard.answered),
                    ..heard
                };
            }
            run => *run = Some(heard),
        }
        before != (member.state(now), member.run.map(|run| run.busy))
    }

    /// Notes that heartbeats were asked for, and an answer came.
    pub fn record_receive(&mut self, now: Instant) {
        let first = self
            .receiving
            .filter(|(_, last)| now.duration_since(*last) < self.receive_gap())
            .map_or(now, |(first, _)| first);
        self.receiving = Some((first, now));
    }

    /// Receives of heartbeats further apart than this are an interruption.
    fn receive_gap(&self) -> Duration {
        self.hung_timeout * 3 / 4
    }

    /// How long nothing was heard since then, although it could have been. What the receive that is
    /// under way will bring is not known.
    fn silent_for(&self, since: Instant) -> Duration {
        self.receiving.map_or(Duration::ZERO, |(first, last)| {
            last.saturating_duration_since(since.max(first))
        })
    }

    /// How long it may be silent. The settings of a worker may be others than those of its controller.
    fn hung_timeout(&self, run: &Run) -> Duration {
        self.hung_timeout.max(REPORTS * run.every)
    }

    fn is_overdue(&self, member: &Member) -> bool {
        let overdue = |run: &Run| self.silent_for(run.last) >= self.hung_timeout(run) / 2;
        member.run.as_ref().is_some_and(overdue)
    }

    pub fn instances(&self, now: Instant) -> Vec<Instance> {
        let mut instances: Vec<_> = self
            .members
            .iter()
            .filter_map(|(id, member)| {
                let state = member.state(now)?;
                Some(Instance {
                    id: id.clone(),
                    state,
                    tier: member.tier,
                    age: member.age(now),
                    busy: member.run.map(|run| run.busy),
                    overdue: state == InstanceState::Running && self.is_overdue(member),
                    answered: member.run.map(|run| Answers {
                        count: run.answered,
                        age: now.saturating_duration_since(run.last),
                    }),
                })
            })
            .collect();
        instances.sort_by(|a, b| b.age.cmp(&a.age).then_with(|| a.id.cmp(&b.id)));
        instances
    }

    /// Whether something is about to change at EC2, or to be ended there.
    pub fn is_changing(&self, now: Instant) -> bool {
        self.members.values().any(|member| {
            let state = member.state(now);
            member.listed.is_none()
                || self.is_overdue(member)
                || matches!(
                    state,
                    Some(InstanceState::Pending | InstanceState::Draining)
                )
        }) || !self.untagged(now).is_empty()
    }

    /// Instances that do not bear their slot yet, and their slots.
    pub fn untagged(&self, now: Instant) -> Vec<(InstanceId, u32)> {
        let untagged = |(id, member): (&InstanceId, &Member)| {
            let listed = member.listed.as_ref()?;
            let slot = member.slot.filter(|slot| listed.slot != Some(*slot))?;
            let up = matches!(member.power(now), PowerState::Pending | PowerState::Running);
            up.then(|| (id.clone(), slot))
        };
        self.members.iter().filter_map(untagged).collect()
    }

    /// Whether every instance of the launch that is left bears its slot.
    pub fn is_tagged(&self, now: Instant, token: &str) -> bool {
        let of_launch = |member: &&Member| member.launch.as_deref() == Some(token);
        self.members.values().filter(of_launch).all(|member| {
            let listed = member.listed.as_ref().and_then(|listed| listed.slot);
            listed.is_some() && listed == member.slot
                || !matches!(member.power(now), PowerState::Pending | PowerState::Running)
        })
    }

    /// Instances that are to be ended. Nobody is while nothing is being received: the silence may
    /// be on this side.
    pub fn unresponsive(&self, now: Instant) -> Vec<(InstanceId, Unresponsive)> {
        if self.receiving.is_none() || self.is_cut_off(now) {
            return Vec::new();
        }
        let over = |(id, member): (&InstanceId, &Member)| {
            let up = matches!(member.power(now), PowerState::Pending | PowerState::Running);
            let why = match member.run {
                _ if !up || member.shutdown_at.is_some() => None,
                None if self.silent_for(member.begun) > self.boot_timeout => {
                    Some(Unresponsive::NeverReported)
                }
                Some(run) if self.silent_for(run.last) > self.hung_timeout(&run) => {
                    Some(Unresponsive::Silent)
                }
                _ => None,
            };
            why.map(|why| (id.clone(), why))
        };
        self.members.iter().filter_map(over).collect()
    }

    /// Whether heartbeats were received once, and are not any more.
    fn is_cut_off(&self, now: Instant) -> bool {
        self.receiving
            .is_some_and(|(_, last)| now.duration_since(last) >= self.receive_gap())
    }

    /// A boot was given up.
    pub fn boot_failed(&mut self, id: &InstanceId) {
        if self.members.get_mut(id).is_some_and(Member::failed_start) {
            self.failed_starts += 1;
        }
    }

    /// The lowest slots that are free, at most `count`, and never more than there is room for;
    /// those of stopped instances last.
    pub fn free_slots(&self, now: Instant, count: u32, open: &[Launch]) -> Vec<u32> {
        let live = |member: &&Member| member.state(now).is_some();
        let unresolved = || open.iter().filter(|launch| !launch.resolved);
        let taken: BTreeSet<u32> = self
            .members
            .values()
            .filter(live)
            .filter_map(|member| member.slot)
            .chain(reserved(open))
            .collect();
        let spare: BTreeSet<u32> = self
            .members
            .values()
            .filter(|member| member.state(now).is_none())
            .filter_map(|member| member.slot)
            .collect();
        let coming: usize = unresolved().map(|launch| launch.slots.len()).sum();
        let here = self.members.values().filter(live).count() + coming;
        let room = (self.max as usize).saturating_sub(here);
        let mut free: Vec<u32> = (1..=self.max).filter(|n| !taken.contains(n)).collect();
        free.sort_by_key(|slot| (spare.contains(slot), *slot));
        free.truncate(room.min(count as usize));
        free.sort_unstable();
        free
    }

    pub fn failed_starts(&self) -> u64 {
        self.failed_starts
    }
}

/// Slots that belong to launches whose instances are not known.
fn reserved(open: &[Launch]) -> impl Iterator<Item = u32> {
    let unresolved = open.iter().filter(|launch| !launch.resolved);
    unresolved.flat_map(|launch| launch.slots.iter().copied())
}

#[cfg(test)]
mod tests;
