//! How long launches and observations wait after failures.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::fleet::{Instance, InstanceId, InstanceState};

/// Back-off after failed starts: doubles from the first to the last.
const FIRST_BACK_OFF: Duration = Duration::from_millis(250);
const LAST_BACK_OFF: Duration = Duration::from_secs(30);

/// Launches held back after starts that failed: the wait doubles with each, and a start that
/// succeeds ends it.
#[derive(Debug, Default)]
pub(crate) struct BackOff {
    /// Failed starts, as the fleet last counted them.
    failed_starts: u64,
    /// Failures since the last start that succeeded.
    consecutive: u32,
    /// Instances that ran at the last observation: one that runs since then has started.
    running: HashSet<InstanceId>,
    until: Option<Instant>,
    /// Why the last launch failed, while launches are held back and nothing has failed to start
    /// since.
    reason: Option<String>,
}

impl BackOff {
    /// Takes in how many starts have failed so far, and the instances that there are.
    pub(crate) fn observe(&mut self, now: Instant, failed_starts: u64, instances: &[&Instance]) {
        let running = instances
            .iter()
            .filter(|instance| instance.state == InstanceState::Running)
            .map(|instance| instance.id.clone())
            .collect();
        let before = std::mem::replace(&mut self.running, running);
        if failed_starts > self.failed_starts {
            self.failed_starts = failed_starts;
            self.reason = None;
            self.hold(now, Duration::ZERO);
        } else if !self.running.is_subset(&before) {
            self.consecutive = 0;
        }
        self.until = self.until.filter(|until| *until > now);
        if self.until.is_none() {
            self.reason = None;
        }
    }

    /// Says whether launches are held back.
    pub(crate) fn is_holding(&self) -> bool {
        self.until.is_some()
    }

    /// Returns why the last launch failed, while launches are held back for that.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Holds launches back after one that failed, for at least as long as the fleet says that others
    /// are sure to fail.
    pub(crate) fn launch_failed(&mut self, now: Instant, reason: String, at_least: Duration) {
        self.reason = Some(reason);
        self.hold(now, at_least);
    }

    fn hold(&mut self, now: Instant, at_least: Duration) {
        let wait = doubled(self.consecutive).max(at_least);
        self.consecutive = self.consecutive.saturating_add(1);
        self.until = Some(now + wait);
        tracing::warn!(
            ?wait,
            self.consecutive,
            "a worker failed to start; launches wait"
        );
    }
}

/// Returns the pause after so many failures before the last.
pub(crate) fn doubled(times: u32) -> Duration {
    FIRST_BACK_OFF
        .saturating_mul(1 << times.min(16))
        .min(LAST_BACK_OFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instances(running: &[&str]) -> Vec<Instance> {
        let instance = |id: &&str| Instance {
            id: InstanceId((*id).to_owned()),
            state: InstanceState::Running,
            tier: crate::tier::Tier::Local,
            age: Duration::ZERO,
            busy: None,
            overdue: false,
            answered: None,
        };
        running.iter().map(instance).collect()
    }

    #[test]
    fn only_a_start_that_succeeds_ends_the_doubling() {
        let mut back_off = BackOff::default();
        let now = Instant::now();
        let [one, two] = [&["one"][..], &["one", "two"]].map(instances);
        let one: Vec<_> = one.iter().collect();
        let two: Vec<_> = two.iter().collect();
        back_off.observe(now, 0, &one);
        for (failures, doubled) in (1..).zip([1, 2, 4, 8, 16, 32, 64, 120, 120]) {
            back_off.observe(now, failures, &one);
            let wait = FIRST_BACK_OFF * doubled;
            assert_eq!(back_off.until, Some(now + wait));
            // One that runs all the time has not started.
            back_off.observe(now, failures, &one);
        }
        back_off.launch_failed(now, "no capacity".to_owned(), Duration::ZERO);
        assert_eq!(back_off.until, Some(now + LAST_BACK_OFF), "a launch");

        back_off.observe(now, 9, &two);
        back_off.observe(now, 10, &one);
        assert_eq!(back_off.until, Some(now + FIRST_BACK_OFF));
    }
}
