//! Stopped instances: which may be started, which are too old for it, and who becomes one.
//!
//! Invariant: none is started that is not of the version of the launch template that a launch would be
//! of, as far as that is known, and none is stopped that is known not to be or will never be known to be.

use std::time::Instant;

use super::{Member, Members, PowerState, TemplateVersion};
use crate::fleet::InstanceId;

impl Members {
    /// Whether it is what a launch would be, where that is known by now.
    fn is_current(&self, member: &Member) -> Option<bool> {
        let version = member.listed.as_ref().and_then(|l| l.template_version);
        match self.template_version {
            TemplateVersion::NotYet => version.is_none().then_some(false),
            TemplateVersion::Known(current) => Some(version == Some(current)),
            TemplateVersion::Refused => Some(false),
        }
    }

    /// Whether any instance is stopped.
    pub fn any_stopped(&self, now: Instant) -> bool {
        let mut members = self.members.values();
        members.any(|member| member.power(now) == PowerState::Stopped)
    }

    /// Stopped instances that are known not to be what a launch would be.
    pub fn outdated(&self, now: Instant) -> Vec<InstanceId> {
        if !matches!(self.template_version, TemplateVersion::Known(_)) {
            return Vec::new();
        }
        let outdated = |(_, member): &(&InstanceId, &Member)| {
            member.power(now) == PowerState::Stopped && self.is_current(member) == Some(false)
        };
        let outdated = self.members.iter().filter(outdated);
        outdated.map(|(id, _)| id.clone()).collect()
    }

    /// Stopped instances that may be started, by their slots.
    pub fn stopped(&self, now: Instant) -> Vec<InstanceId> {
        let stopped = |(_, member): &(&InstanceId, &Member)| {
            member.state(now).is_none() && self.is_current(member) == Some(true)
        };
        let mut stopped: Vec<_> = self.members.iter().filter(stopped).collect();
        stopped.sort_by_key(|(_, member)| member.slot.unwrap_or(u32::MAX));
        stopped.into_iter().map(|(id, _)| id.clone()).collect()
    }

    /// Of `ids`, those that can be told to drain: `(to stop, to terminate)`, while fewer than
    /// `stopped` are stopped or about to be.
    pub fn to_drain(
        &self,
        now: Instant,
        ids: &[InstanceId],
        stopped: u32,
    ) -> (Vec<InstanceId>, Vec<InstanceId>) {
        let resting = |member: &&Member| {
            let power = member.power(now);
            let spot = member.listed.as_ref().is_some_and(|listed| listed.spot);
            matches!(power, PowerState::Stopped | PowerState::Stopping)
                || member.shutdown_at.is_some() && !spot && power == PowerState::Running
        };
        let resting = self.members.values().filter(resting);
        let may_be_current = |member: &Member| self.is_current(member) != Some(false);
        let resting = resting.filter(|member| may_be_current(member)).count();
        let mut room = (stopped as usize).saturating_sub(resting);
        let (mut stop, mut terminate) = (Vec::new(), Vec::new());
        for id in ids {
            let Some(member) = self.members.get(id) else {
                continue;
            };
            if member.shutdown_at.is_some() || stop.contains(id) || terminate.contains(id) {
                continue;
            }
            // It may be ready and at work: nobody would hear it say so.
            if member.run.is_none() && self.is_cut_off(now) {
                continue;
            }
            let listed = member.listed.as_ref();
            match member.power(now) {
                PowerState::Pending | PowerState::Running => {}
                PowerState::Stopping | PowerState::Stopped | PowerState::ShuttingDown => continue,
            }
            // Only one that has been up can be stopped, and only one that worked is worth it.
            let on_demand = listed.is_some_and(|l| l.power == PowerState::Running && !l.spot);
            if room > 0 && on_demand && member.run.is_some() && may_be_current(member) {
                room -= 1;
                stop.push(id.clone());
            } else {
                terminate.push(id.clone());
            }
        }
        (stop, terminate)
    }
}
