//! What an instance's worker says of itself.

use std::time::Duration;

use crate::fleet::InstanceId;

/// Whether an instance takes work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It does.
    Ready,
    /// It finishes what it has.
    Draining,
}

/// What an instance reports: when it is ready, several times within the
/// time after which its silence counts as hung, at changes and when it drains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The instance.
    pub id: InstanceId,
    /// Whether it takes work.
    pub phase: Phase,
    /// Whether it works on a request.
    pub busy: bool,
    /// When its worker began, by its own clock, in milliseconds since the Unix epoch: tells the
    /// reports of one run from those of the one before.
    pub started_at_ms: u64,
    /// Requests that its worker has answered since it began.
    pub answered: u64,
    /// How often it reports at least, by its own settings; zero where that is not known.
    pub every: Duration,
}
