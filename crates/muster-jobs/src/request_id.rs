//! What a request is known by, from its submission to its result.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// One request's identity: a UUIDv7, so that ids sort by the time of submission.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(transparent)]
pub struct RequestId(Uuid);

impl RequestId {
    /// A fresh id, stamped with the present time.
    #[expect(
        clippy::new_without_default,
        reason = "a default that differs each time misleads"
    )]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// When the request was submitted, since the Unix epoch; `None` for an id that is not a UUIDv7.
    pub fn submitted_at(self) -> Option<Duration> {
        let (seconds, nanos) = self.0.get_timestamp()?.to_unix();
        Some(Duration::new(seconds, nanos))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RequestId {
    type Err = uuid::Error;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::now_ms;

    #[test]
    fn ids_tell_when_they_were_submitted() {
        let before = now_ms();
        let submitted = RequestId::new().submitted_at().unwrap().as_millis() as u64;
        assert!((before..=now_ms()).contains(&submitted));
    }
}
