//! What the calls and machines of a load cost: us-east-1, as docs/AWS.md and docs/SCALE.md have the prices.

use crate::calls::Calls;
use crate::limits::PHOTOGRAPH_BYTES;

const S3_WRITE: f64 = 5.00e-6;
const S3_READ: f64 = 0.40e-6;
const SQS_CALL: f64 = 0.40e-6;
/// A gigabyte and month of storage; what is kept is kept for a day.
const S3_GIGABYTE_DAY: f64 = 0.023 / 30.0;
/// A c7i.large an hour, with its public address and disk.
pub const INSTANCE_HOUR: f64 = 0.089_25;
const ADDRESS_AND_DISK_HOUR: f64 = 0.005 + 0.0009;
/// A load balancer an hour, and a unit of it: a gigabyte in an hour. A request is its photograph and
/// 2 kB of answer, which leaves AWS.
const BALANCER_HOUR: f64 = 0.0225;
const BALANCER_GIGABYTE: f64 = 0.008;
const ANSWER_BYTES: f64 = 2000.0;
const OUT_GIGABYTE: f64 = 0.09;
const GIGABYTE: f64 = 1e9;

/// Items with what each costs, in dollars.
pub fn bill(
    calls: &[Calls],
    instance_hours: f64,
    replicas: f64,
    hours: f64,
) -> Vec<(&'static str, f64)> {
    let sum = |count: fn(&Calls) -> f64| calls.iter().map(count).sum::<f64>();
    let requests = sum(|calls| calls.photographs_written);
    let gigabytes = |bytes: f64| requests * bytes / GIGABYTE;
    let hour = INSTANCE_HOUR + ADDRESS_AND_DISK_HOUR;
    let listings = sum(|calls| calls.gallery_listings);
    vec![
        (
            "S3: photographs and results written",
            (sum(Calls::s3_writes) - listings) * S3_WRITE,
        ),
        ("workers", instance_hours * hour),
        (
            "load balancer",
            hours * BALANCER_HOUR + gigabytes(PHOTOGRAPH_BYTES + ANSWER_BYTES) * BALANCER_GIGABYTE,
        ),
        ("SQS", sum(Calls::sqs) * SQS_CALL),
        ("S3: photographs read", sum(Calls::s3_reads) * S3_READ),
        (
            "answers to clients outside AWS",
            gigabytes(ANSWER_BYTES) * OUT_GIGABYTE,
        ),
        ("S3: looks for new enrolments", listings * S3_WRITE),
        (
            "S3: photographs kept for a day",
            gigabytes(PHOTOGRAPH_BYTES) * S3_GIGABYTE_DAY,
        ),
        ("web replicas", replicas * hours * hour),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A million requests in a quarter of an hour, by 10 workers and 2 replicas.
    #[test]
    fn a_million_requests_are_billed_by_hand() {
        let calls = Calls {
            photographs_written: 1e6,
            photographs_read: 1e6,
            results_written: 1e6,
            gallery_listings: 10_000.0,
            web_messages: 300_000.0,
            worker_messages: 1_700_000.0,
            ..Calls::default()
        };
        let expected = [
            10.00,                        // 2,000,000 at $5 a million
            0.2379,                       // 2.5 hours of $0.09515
            0.0225 / 4.0 + 114.0 * 0.008, // 114 GB
            0.80,                         // 2,000,000 at $0.40 a million
            0.40,                         // 1,000,000 at $0.40 a million
            0.18,                         // 2 GB at $0.09
            0.05,                         // 10,000 at $5 a million
            112.0 * 0.023 / 30.0,         // 112 GB
            0.0476,                       // half an hour of $0.09515
        ];
        let billed = bill(&[calls], 2.5, 2.0, 0.25);
        for ((item, dollars), expected) in billed.into_iter().zip(expected) {
            assert!((dollars - expected).abs() < 1e-4, "{item}: {dollars}");
        }
    }
}
