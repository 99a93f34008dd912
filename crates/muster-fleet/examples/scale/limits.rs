//! AWS's published limits, and how much of each a load uses. docs/SCALE.md names the sources.

use crate::calls::{Calls, IN_HAND, MESSAGES_A_CALL};
use crate::seconds::Second;

/// A photograph of 512x512 pixels, as `examples/web_tier.rs` sends it.
pub const PHOTOGRAPH_BYTES: f64 = 112_000.0;
/// Processor time of a web replica a request, measured by `examples/web_tier.rs --aws`.
const WEB_PROCESSOR_S: f64 = 0.001_49;
/// Cores of a replica (c7i.large), and the share of them that is to be busy at most.
const WEB_CORES: f64 = 2.0;
const WEB_BUSY: f64 = 0.6;
/// Bytes a second that a c7i.large may send for good, and receive: 0.781 Gbit/s.
const NETWORK_BYTES_PER_S: f64 = 0.781e9 / 8.0;
/// A call of SQS takes 20 ms, of which a connection makes one after the other.
const SQS_CALLS_PER_S: f64 = 50.0;
/// Sends that a replica has under way at one time, and as many receives and deletions.
const WEB_CONNECTIONS: f64 = 4.0;
/// Writes and reads a second of keys that begin alike, and beginnings of `prefix-hashed` keys.
const S3_WRITES_PER_S: f64 = 3500.0;
const S3_READS_PER_S: f64 = 5500.0;
const BEGINNINGS: f64 = 256.0;

/// Something that AWS gives so much of: a bucket of tokens. What is limited by the second has one that is
/// full again each second.
struct Limit {
    name: &'static str,
    size: f64,
    per_s: f64,
    asked: fn(&Second, &Calls) -> f64,
    /// Whether each web replica has it for itself.
    of_replica: bool,
}

impl Limit {
    const fn a_second(name: &'static str, most: f64, asked: fn(&Second, &Calls) -> f64) -> Self {
        Self::bucket(name, most, most, asked)
    }

    const fn bucket(
        name: &'static str,
        size: f64,
        per_s: f64,
        asked: fn(&Second, &Calls) -> f64,
    ) -> Self {
        Self {
            name,
            size,
            per_s,
            asked,
            of_replica: false,
        }
    }

    const fn of_replica(name: &'static str, requests_per_s: f64) -> Self {
        Self {
            of_replica: true,
            ..Self::a_second(name, requests_per_s, |_, calls| calls.photographs_written)
        }
    }
}

const LIMITS: [Limit; 21] = [
    Limit::of_replica(
        "web replica: 60 % of two cores",
        WEB_CORES * WEB_BUSY / WEB_PROCESSOR_S,
    ),
    Limit::of_replica(
        "web replica: network, each way",
        NETWORK_BYTES_PER_S / PHOTOGRAPH_BYTES,
    ),
    Limit::of_replica(
        "web replica: sends of requests, four at a time",
        WEB_CONNECTIONS * SQS_CALLS_PER_S * MESSAGES_A_CALL,
    ),
    Limit::a_second(
        "S3: writes of input keys that begin alike",
        S3_WRITES_PER_S,
        |_, calls| calls.photographs_written,
    ),
    Limit::a_second(
        "S3: writes of output keys that begin alike",
        S3_WRITES_PER_S,
        |_, calls| calls.results_written,
    ),
    Limit::a_second(
        "S3: reads of input keys that begin alike",
        S3_READS_PER_S,
        |_, calls| calls.photographs_read,
    ),
    Limit::a_second(
        "S3: writes of prefix-hashed input keys",
        BEGINNINGS * S3_WRITES_PER_S,
        |_, calls| calls.photographs_written,
    ),
    Limit::a_second(
        "S3: writes of prefix-hashed output keys",
        BEGINNINGS * S3_WRITES_PER_S,
        |_, calls| calls.results_written,
    ),
    Limit::a_second(
        "S3: reads of prefix-hashed input keys",
        BEGINNINGS * S3_READS_PER_S,
        |_, calls| calls.photographs_read,
    ),
    Limit::a_second(
        "S3: reads and listings of the gallery",
        S3_READS_PER_S,
        |_, calls| calls.gallery_read + calls.gallery_listings,
    ),
    Limit::a_second(
        "SQS: messages in flight of the request queue",
        120_000.0,
        |second, _| f64::from(second.unanswered.min(second.ready * IN_HAND)),
    ),
    Limit::a_second(
        "SQS: a worker's calls, one after the other",
        SQS_CALLS_PER_S,
        |second, calls| calls.worker_messages / f64::from(second.ready.max(1)),
    ),
    Limit::a_second(
        "controller: deletions of reports, one after the other",
        SQS_CALLS_PER_S * MESSAGES_A_CALL,
        |_, calls| calls.reports,
    ),
    Limit::a_second(
        "EC2: vCPUs of an account, if they are 32",
        32.0,
        |second, _| 2.0 * f64::from(second.ready + second.booting),
    ),
    Limit::a_second(
        "EC2: addresses of the template's subnets",
        8182.0,
        |second, _| f64::from(second.ready + second.booting),
    ),
    Limit::bucket("EC2: instances of RunInstances", 1000.0, 2.0, |_, calls| {
        calls.instances_asked
    }),
    Limit::bucket("EC2: calls of RunInstances", 5.0, 2.0, |_, calls| {
        calls.run_instances
    }),
    Limit::bucket("EC2: calls of CreateTags", 100.0, 10.0, |_, calls| {
        calls.create_tags
    }),
    Limit::bucket(
        "EC2: calls of DescribeInstances",
        100.0,
        20.0,
        |_, calls| calls.describe_instances,
    ),
    Limit::bucket(
        "EC2: instances of TerminateInstances",
        1000.0,
        20.0,
        |_, calls| calls.instances_ended,
    ),
    Limit::bucket(
        "EC2: calls of TerminateInstances",
        100.0,
        5.0,
        |_, calls| calls.terminate_instances,
    ),
];

/// How much of a limit was used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Use {
    /// What of.
    pub name: &'static str,
    /// The greatest share of what there was in a second: more than 1 where more was asked for.
    pub peak: f64,
    /// In which.
    pub peak_second: usize,
    /// The first second in which more was asked for than there was.
    pub exceeded: Option<usize>,
}

/// Tells how much of each limit a load uses, with so many web replicas.
pub fn uses(seconds: &[Second], calls: &[Calls], replicas: f64) -> Vec<Use> {
    LIMITS
        .iter()
        .map(|limit| {
            let of = if limit.of_replica { replicas } else { 1.0 };
            let asked = seconds.iter().zip(calls);
            let asked = asked.map(|(second, calls)| (limit.asked)(second, calls) / of);
            measure(limit.name, limit.size, limit.per_s, asked)
        })
        .collect()
}

/// What is refused is not asked for again here: whoever asks again is counted when it does.
fn measure(name: &'static str, size: f64, per_s: f64, asked: impl Iterator<Item = f64>) -> Use {
    let mut used = Use {
        name,
        peak: 0.0,
        peak_second: 0,
        exceeded: None,
    };
    let mut left = size;
    for (second, asked) in asked.enumerate() {
        let share = (size - left + asked) / size;
        if share > used.peak {
            (used.peak, used.peak_second) = (share, second);
        }
        if share > 1.0 {
            used.exceeded.get_or_insert(second);
        }
        left = ((left - asked).max(0.0) + per_s).min(size);
    }
    used
}

/// Returns how many web replicas a load needs in its busiest second.
pub fn replicas(seconds: &[Second]) -> u32 {
    let most = seconds.iter().map(|second| second.arrived).max();
    let least = LIMITS
        .iter()
        .filter(|limit| limit.of_replica)
        .map(|limit| limit.size)
        .fold(f64::INFINITY, f64::min);
    (f64::from(most.unwrap_or(0)) / least).ceil().max(1.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share_and_second(size: f64, per_s: f64, asked: &[f64]) -> (f64, usize, Option<usize>) {
        let used = measure("", size, per_s, asked.iter().copied());
        (used.peak, used.peak_second, used.exceeded)
    }

    #[test]
    fn what_is_limited_by_the_second_is_there_again_in_the_next() {
        let used = share_and_second(10.0, 10.0, &[5.0, 10.0, 12.0, 9.0, 11.0]);
        assert_eq!(used, (1.2, 2, Some(2)));
    }

    /// Of 10 tokens 8 are taken; 2 and 1 that has come back are 3, of which 4 are too many; then there is
    /// 1 again in each second, and after three that nobody has taken, 3.
    #[test]
    fn a_bucket_is_refilled_slowly() {
        let used = share_and_second(10.0, 1.0, &[8.0, 4.0, 1.0, 0.0, 0.0, 3.0]);
        assert_eq!(used, (1.1, 1, Some(1)));
        assert_eq!(
            share_and_second(10.0, 1.0, &[8.0, 3.0, 1.0]),
            (1.0, 1, None)
        );
    }

    #[test]
    fn a_replica_has_its_limits_for_itself_and_the_rest_is_shared() {
        let second = Second {
            arrived: 7000,
            ..Second::default()
        };
        let calls = Calls {
            photographs_written: 7000.0,
            ..Calls::default()
        };
        // 1.2 cores for 1.49 ms are 805 requests a second, fewer than the network's 871.
        assert_eq!(replicas(&[second]), 9);
        let used = uses(&[second], &[calls], 9.0);
        let peak = |name: &str| {
            let found = used.iter().find(|used| used.name.contains(name));
            (found.expect("it is in the table").peak * 1000.0).round() / 1000.0
        };
        assert_eq!(peak("two cores"), 0.966);
        assert_eq!(peak("writes of input keys"), 2.0);
        assert_eq!(peak("prefix-hashed input"), 0.008);
    }
}
