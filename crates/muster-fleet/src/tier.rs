//! Where instances come from, and how many there are of each kind.

use serde::{Deserialize, Serialize};

/// Where an instance came from, in the order of preference.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// A process on the controller's machine, which is paid for anyway.
    Local,
    /// An EC2 instance that was stopped before, and was started.
    Stopped,
    /// An EC2 instance that was launched.
    #[default]
    Ec2,
}

/// A number of instances for each tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierCounts {
    /// Of [`Tier::Local`].
    pub local: u32,
    /// Of [`Tier::Stopped`].
    pub stopped: u32,
    /// Of [`Tier::Ec2`].
    pub ec2: u32,
}

impl TierCounts {
    /// As many as there are to be, and none that is stopped.
    pub const UNLIMITED: Self = Self {
        local: u32::MAX,
        stopped: 0,
        ec2: u32::MAX,
    };

    /// The number of one tier.
    #[must_use]
    pub fn of(self, tier: Tier) -> u32 {
        match tier {
            Tier::Local => self.local,
            Tier::Stopped => self.stopped,
            Tier::Ec2 => self.ec2,
        }
    }

    /// The tiers of which there are any, the preferred first.
    pub fn some(self) -> impl Iterator<Item = (Tier, u32)> {
        [Tier::Local, Tier::Stopped, Tier::Ec2]
            .map(|tier| (tier, self.of(tier)))
            .into_iter()
            .filter(|(_, count)| *count > 0)
    }

    /// Those of all tiers.
    #[must_use]
    pub fn total(self) -> u32 {
        self.some()
            .fold(0, |sum, (_, count)| sum.saturating_add(count))
    }
}
