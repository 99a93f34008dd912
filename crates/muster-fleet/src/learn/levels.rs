//! How long an idle instance is worth keeping: for each level of the fleet, by the gaps in its use.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::policy::KeepAlive;

/// Gaps remembered for each level of the fleet.
const GAPS: usize = 32;
/// Gaps after which a learned keep-alive is preferred to the break-even time.
const ENOUGH_GAPS: usize = 4;

/// Seconds, as the planner counts them.
type Seconds = f64;

/// What it depends on besides the gaps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keeping {
    pub now: Seconds,
    /// Less than this is no gap.
    pub shortest_gap_s: Seconds,
    pub boot_s: Seconds,
    /// What is billed at least.
    pub billed_s: Seconds,
    pub keep_alive: KeepAlive,
}

/// How the levels of the fleet were used: the first is the first instance's.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Levels(Vec<Level>);

/// How one level of the fleet was used: level `n` is in use while `n` instances are needed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Level {
    first_used: Seconds,
    last_used: Seconds,
    uses: VecDeque<Seconds>,
    gaps: VecDeque<Seconds>,
    /// Idle and switching time paid for so far, and what one who knew the future would have paid.
    paid: Seconds,
    clairvoyant: Seconds,
    /// How long it is kept after its last use, while it is idle: what that follows from does not
    /// change then, but for the boot time.
    #[serde(skip)]
    kept_s: Option<Seconds>,
}

impl Levels {
    /// So many levels are in use now.
    pub fn observe(&mut self, used: usize, keeping: &Keeping) {
        let now = keeping.now;
        if self.0.len() < used {
            let fresh = Level {
                first_used: now,
                last_used: now,
                ..Level::default()
            };
            self.0.resize(used, fresh);
        }
        let (in_use, idle) = self.0.split_at_mut(used);
        for level in in_use {
            let gap = now - level.last_used;
            if gap > keeping.shortest_gap_s {
                level.end_gap(gap, keeping);
            }
            level.last_used = now;
            level.kept_s = None;
        }
        for level in idle {
            level.kept_s = Some(level.keep_s(keeping));
        }
    }

    /// Leaves so much of what was paid, from 0 to 1.
    pub fn fade(&mut self, left: f64) {
        for level in &mut self.0 {
            level.paid *= left;
            level.clairvoyant *= left;
        }
    }

    /// The boot time is another: how long idle levels are kept has to be found anew.
    pub fn boots_changed(&mut self) {
        for level in &mut self.0 {
            level.kept_s = None;
        }
    }

    /// Moves times that lie ahead of `now` back to it.
    pub fn set_back(&mut self, now: Seconds) {
        for level in &mut self.0 {
            level.first_used = level.first_used.min(now);
            level.last_used = level.last_used.min(now);
        }
    }

    /// Idle and switching time paid for, and what one who knew the future would have paid.
    pub fn paid(&self) -> (Seconds, Seconds) {
        self.0.iter().fold((0.0, 0.0), |(paid, least), level| {
            (paid + level.paid, least + level.clairvoyant)
        })
    }

    /// Levels that are in use or not idle for long enough to be drained.
    pub fn kept(&self, keeping: &Keeping) -> u32 {
        let is_kept = |level: &Level| {
            let idle = keeping.now - level.last_used;
            // How long a level that is in use would be kept is not asked, and not known yet.
            idle <= 0.0 || idle <= level.keep_s(keeping)
        };
        let highest = self.0.iter().rposition(is_kept);
        highest.map_or(0, |at| at as u32 + 1)
    }

    /// Seconds until the next level is idle for long enough.
    pub fn next_release_s(&self, keeping: &Keeping) -> Option<Seconds> {
        self.0
            .iter()
            .map(|level| level.last_used + level.keep_s(keeping) - keeping.now)
            .filter(|left| *left >= 0.0)
            .min_by(f64::total_cmp)
    }
}

impl Level {
    fn end_gap(&mut self, gap: Seconds, keeping: &Keeping) {
        let switch_s = self.switch_s(keeping);
        let kept_s = self.keep_s(keeping);
        self.paid += gap.min(kept_s) + if gap > kept_s { switch_s } else { 0.0 };
        self.clairvoyant += gap.min(switch_s);
        push(&mut self.uses, self.last_used - self.first_used);
        push(&mut self.gaps, gap);
        self.first_used = keeping.now;
    }

    /// What stopping an instance of this level and launching another costs, in seconds of an instance:
    /// its boot, and what is left of the time that is billed anyway after the boot and a use.
    fn switch_s(&self, keeping: &Keeping) -> Seconds {
        let use_s = median(&self.uses).unwrap_or(self.last_used - self.first_used);
        keeping.boot_s.max(keeping.billed_s - use_s)
    }

    /// How long it is kept after its last use.
    fn keep_s(&self, keeping: &Keeping) -> Seconds {
        if let Some(kept_s) = self.kept_s {
            return kept_s;
        }
        match keeping.keep_alive {
            KeepAlive::Fixed(time) => time.as_secs_f64(),
            // What is no gap ends no use.
            KeepAlive::Learned { at_most } => {
                let at_most_s = at_most.as_secs_f64();
                let learned_s = self.learned_s(at_most_s, keeping);
                learned_s.max(keeping.shortest_gap_s).min(at_most_s)
            }
        }
    }

    /// How long that is by the gaps.
    fn learned_s(&self, at_most: Seconds, keeping: &Keeping) -> Seconds {
        let switch_s = self.switch_s(keeping).min(at_most);
        if self.gaps.len() < ENOUGH_GAPS || self.paid > 2.0 * self.clairvoyant {
            return switch_s;
        }
        let cost = |kept: Seconds| -> Seconds {
            let of = |gap: &Seconds| gap.min(kept) + if *gap > kept { switch_s } else { 0.0 };
            self.gaps.iter().map(of).sum()
        };
        self.gaps
            .iter()
            .copied()
            .filter(|gap| *gap < switch_s)
            .chain([0.0, switch_s])
            .min_by(|a, b| cost(*a).total_cmp(&cost(*b)).then(b.total_cmp(a)))
            .unwrap_or(switch_s)
    }
}

fn push(samples: &mut VecDeque<Seconds>, sample: Seconds) {
    if samples.len() == GAPS {
        samples.pop_front();
    }
    samples.push_back(sample);
}

fn median(samples: &VecDeque<Seconds>) -> Option<Seconds> {
    let mut sorted: Vec<_> = samples.iter().copied().collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}
