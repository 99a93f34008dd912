//! Durations as settings have them: a number of seconds, in a key that ends in `_s`.

use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

/// The longest, three decades: far from where sums of durations overflow.
const LONGEST_S: f64 = 1e9;

/// Writes a duration as seconds.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// Reads a duration of 0 to 1e9 seconds.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    if !(0.0..=LONGEST_S).contains(&seconds) {
        return Err(D::Error::custom(format!(
            "{seconds} is not between 0 and {LONGEST_S:e} seconds"
        )));
    }
    Duration::try_from_secs_f64(seconds).map_err(D::Error::custom)
}
