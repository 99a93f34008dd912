//! Whether the hypervisor gives this machine less of its processors than it asks for.
//!
//! A burstable instance that has used up its CPU credits (t2, t3, t4g in standard mode) is held to its
//! baseline, 5 to 40 % of a processor. The kernel counts the rest of what was asked for as stolen, in
//! `/proc/stat` (proc_stat(5)). That needs no permission, comes within seconds where CloudWatch's
//! `CPUCreditBalance` comes every five minutes, and is the harm itself, whatever causes it.

use std::time::{Duration, Instant};

/// Between two readings that are compared. The kernel counts in hundredths of a second.
const WINDOW: Duration = Duration::from_secs(5);
/// The share of what was asked for that is withheld at least, where it is by credits: the highest
/// baseline leaves 60 %. Neighbours take a few.
const WITHHELD: f64 = 0.25;
/// What is asked for, in hundredths of a second within the window, before a share of it says anything.
const ENOUGH: u64 = 50;
/// For so long after it was seen the machine counts as throttled: without the worker it asks for less,
/// and nothing is stolen. The smallest types earn a vCPU minute meanwhile.
const HOLD: Duration = Duration::from_secs(600);

/// Processor time since the machine was started, of all processors, in hundredths of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cpu {
    /// That something ran, or would have.
    wanted: u64,
    /// Of that, when the hypervisor let something else run.
    stolen: u64,
}

impl Cpu {
    /// Reads the first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal; what
    /// follows is part of user and nice.
    fn read(stat: &str) -> Option<Self> {
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        let times: Vec<u64> = line
            .split_whitespace()
            .map_while(|n| n.parse().ok())
            .collect();
        let &[user, nice, system, _idle, _iowait, irq, softirq, stolen, ..] = &times[..] else {
            return None;
        };
        Some(Self {
            wanted: user + nice + system + irq + softirq + stolen,
            stolen,
        })
    }

    /// The share of what was asked for that was withheld.
    fn withheld(self) -> f64 {
        self.stolen as f64 / self.wanted.max(1) as f64
    }
}

/// The share of the processor time that was asked for since this machine was started, and was withheld; none
/// where the kernel does not say.
pub fn withheld_since_start() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    Cpu::read(&stat).map(Cpu::withheld)
}

/// Watches this machine's processors.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    last: Option<(Instant, Cpu)>,
    until: Option<Instant>,
    unreadable: bool,
}

impl Throttle {
    /// Looks, unless it has a moment ago, and says whether the machine is throttled.
    pub fn look(&mut self, now: Instant) -> bool {
        let is_due = |(at, _): (Instant, Cpu)| now.duration_since(at) >= WINDOW;
        if !self.unreadable && self.last.is_none_or(is_due) {
            let read = std::fs::read_to_string("/proc/stat");
            match read.ok().as_deref().and_then(Cpu::read) {
                Some(cpu) => self.observe(now, cpu),
                None => {
                    self.unreadable = true;
                    tracing::warn!(
                        "/proc/stat can not be read: it is not seen whether this machine is throttled"
                    );
                }
            }
        }
        self.until.is_some_and(|until| now < until)
    }

    fn observe(&mut self, now: Instant, cpu: Cpu) {
        let Some((_, before)) = self.last.replace((now, cpu)) else {
            return;
        };
        let since = Cpu {
            wanted: cpu.wanted.saturating_sub(before.wanted),
            stolen: cpu.stolen.saturating_sub(before.stolen),
        };
        if since.wanted < ENOUGH || since.withheld() < WITHHELD {
            return;
        }
        if self.until.is_none_or(|until| until <= now) {
            tracing::warn!(
                withheld = since.withheld(),
                "this machine is throttled, as one without CPU credits is: no worker runs here for {} min",
                HOLD.as_secs() / 60
            );
        }
        self.until = Some(now + HOLD);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel writes it, after so many hundredths of a second of work and of steal.
    fn stat(user: u64, stolen: u64) -> Cpu {
        let text = format!("cpu  {user} 0 0 900 100 0 0 {stolen} 7 7\ncpu0 1 2 3 4 5 6 7 8 9 10\n");
        Cpu::read(&text).unwrap()
    }

    /// What is seen at the end of windows in which so much was run and stolen.
    fn seen(windows: &[(u64, u64)]) -> Vec<bool> {
        let begun = Instant::now();
        let (mut throttle, mut user, mut stolen) = (Throttle::default(), 1000, 50);
        throttle.observe(begun, stat(user, stolen));
        let mut seen = Vec::new();
        for (n, (ran, lost)) in (1..).zip(windows) {
            (user, stolen) = (user + ran, stolen + lost);
            let now = begun + n * WINDOW;
            throttle.observe(now, stat(user, stolen));
            seen.push(throttle.until.is_some_and(|until| now < until));
        }
        seen
    }

    #[test]
    fn a_machine_without_credits_is_told_from_one_with_neighbours() {
        // Two processors, both wanted all the time: a t3.xlarge at its baseline of 40 %.
        assert_eq!(seen(&[(400, 600)]), [true]);
        // One of two wanted: a t3.small at its baseline of 20 %.
        assert_eq!(seen(&[(100, 400)]), [true]);
        assert_eq!(seen(&[(900, 100), (10, 20), (0, 0)]), [false; 3]);
    }

    #[test]
    fn it_counts_as_throttled_for_ten_minutes_after_that_was_seen() {
        let quiet = vec![(20, 0); 121];
        let windows = [vec![(100, 400)], quiet].concat();
        let seen = seen(&windows);
        assert_eq!(seen.iter().position(|throttled| !throttled), Some(120));
    }

    #[test]
    fn what_the_kernel_writes_is_read() {
        let text = std::fs::read_to_string("/proc/stat").unwrap();
        let cpu = Cpu::read(&text).unwrap();
        assert!(cpu.wanted > cpu.stolen);
        assert!(withheld_since_start().is_some_and(|share| (0.0..1.0).contains(&share)));
        assert_eq!(stat(60, 40).withheld(), 0.4);
        assert_eq!(Cpu::read("cpu  1 2 3\n"), None);
    }
}
