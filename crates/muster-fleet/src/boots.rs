//! How long the last boots of one tier took.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Boots remembered.
const BOOTS: usize = 64;
/// Boots after which the longest of them may be an outlier, and the second longest counts.
const ENOUGH_BOOTS: usize = 16;

/// Seconds, as the planner counts them.
type Seconds = f64;

/// The last boots of one tier, and their quantiles, since a plan asks for them many times.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "VecDeque<Seconds>", into = "VecDeque<Seconds>")]
pub(crate) struct Boots {
    samples: VecDeque<Seconds>,
    /// The median.
    pub median_s: Option<Seconds>,
    /// Nine of ten took no longer.
    pub late_s: Option<Seconds>,
    /// The longest that is no outlier.
    pub longest_s: Option<Seconds>,
}

impl Boots {
    /// Takes in a boot.
    pub fn push(&mut self, took_s: Seconds) {
        if self.samples.len() == BOOTS {
            self.samples.pop_front();
        }
        self.samples.push_back(took_s);
        self.summarise();
    }

    fn summarise(&mut self) {
        let mut sorted: Vec<_> = self.samples.iter().copied().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let outliers = if sorted.len() < ENOUGH_BOOTS { 1 } else { 2 };
        self.median_s = sorted.get(sorted.len() / 2).copied();
        self.late_s = sorted.get(sorted.len() * 9 / 10).copied();
        self.longest_s = sorted.len().checked_sub(outliers).map(|at| sorted[at]);
    }
}

impl From<VecDeque<Seconds>> for Boots {
    fn from(samples: VecDeque<Seconds>) -> Self {
        let mut boots = Self {
            samples,
            ..Self::default()
        };
        boots.summarise();
        boots
    }
}

impl From<Boots> for VecDeque<Seconds> {
    fn from(boots: Boots) -> Self {
        boots.samples
    }
}
