//! What Muster calls at AWS in each second of a load.

use crate::seconds::Second;

/// Messages of one call of SQS, at most.
pub const MESSAGES_A_CALL: f64 = 10.0;
/// A worker receives when it has room for three at least: half of the six that it has in hand.
const RECEIVED_A_CALL: f64 = 3.0;
pub const IN_HAND: u32 = 6;
/// Deletions of messages that end within 100 ms share a call: at ten requests a second, two do.
const DELETED_A_CALL: f64 = 2.0;
/// Seconds between two reports of a worker, where it becomes busy or idle all the time.
const REPORT_S: f64 = 5.0;
/// Seconds that an idle worker waits for a message in one call.
const IDLE_RECEIVE_S: f64 = 5.0;
/// Seconds between two looks of a worker for new enrolments.
const GALLERY_S: f64 = 25.0;
/// Objects of the gallery and the models that a worker reads when it boots.
const READ_AT_BOOT: f64 = 20.0;
/// Looks of a web replica for new enrolments, of 50 ms each, one at a time: all who wait share them.
const WEB_LOOKS_PER_S: f64 = 20.0;
/// Seconds between two writes of the controller's lease.
const LEASE_S: f64 = 3.0;
/// Instances that are named in a look of the controller, each by a call of its own.
const NAMED_IN_A_LOOK: u32 = 10;
/// Seconds between two listings while nothing changes, and instances of one page.
const SETTLED_LISTING_S: f64 = 15.0;
const LISTED_A_CALL: f64 = 1000.0;

/// The calls of one second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Calls {
    /// S3: photographs that the web tier writes to the input bucket.
    pub photographs_written: f64,
    /// S3: photographs that workers read.
    pub photographs_read: f64,
    /// S3: results that workers write to the output bucket.
    pub results_written: f64,
    /// S3: listings of new enrolments, by the web tier and by workers.
    pub gallery_listings: f64,
    /// S3: objects that workers read when they boot.
    pub gallery_read: f64,
    /// S3: the controller's lease.
    pub lease_written: f64,
    /// SQS: the web tier's sends, receives of replies and deletions of these, in equal parts.
    pub web_messages: f64,
    /// SQS: receives, replies and deletions of the workers.
    pub worker_messages: f64,
    /// SQS: reports that workers send.
    pub reports: f64,
    /// SQS: the controller's receives and deletions of reports, and its looks at the queue's counts.
    pub controller_messages: f64,
    /// EC2: RunInstances, and the instances asked for.
    pub run_instances: f64,
    pub instances_asked: f64,
    /// EC2: CreateTags.
    pub create_tags: f64,
    /// EC2: DescribeInstances.
    pub describe_instances: f64,
    /// EC2: TerminateInstances, and the instances named.
    pub terminate_instances: f64,
    pub instances_ended: f64,
}

impl Calls {
    /// Objects written and listings, which S3 bills alike.
    pub fn s3_writes(&self) -> f64 {
        self.photographs_written + self.results_written + self.gallery_listings + self.lease_written
    }

    /// Objects read.
    pub fn s3_reads(&self) -> f64 {
        self.photographs_read + self.gallery_read
    }

    /// Calls of SQS.
    pub fn sqs(&self) -> f64 {
        self.web_messages + self.worker_messages + self.reports + self.controller_messages
    }
}

/// Tells the calls of each second, with so many web replicas.
pub fn calls(seconds: &[Second], replicas: f64) -> Vec<Calls> {
    let mut unnamed = 0;
    let of = |second: &Second| {
        let (arrived, begun) = (f64::from(second.arrived), f64::from(second.begun));
        let answered = f64::from(second.answered);
        let instances = f64::from(second.ready + second.booting);
        let workers = f64::from(second.ready);
        let idle = f64::from(second.ready.saturating_sub(second.unanswered));
        let reports = workers / REPORT_S;
        unnamed += second.launched;
        let named = unnamed.min(NAMED_IN_A_LOOK);
        unnamed -= named;
        let changes = second.launched + second.drained + second.booting + named > 0;
        let listings = if changes {
            1.0
        } else {
            1.0 / SETTLED_LISTING_S
        };
        Calls {
            photographs_written: arrived,
            photographs_read: begun,
            results_written: answered,
            gallery_listings: arrived.min(WEB_LOOKS_PER_S * replicas) + workers / GALLERY_S,
            gallery_read: f64::from(second.booted) * READ_AT_BOOT,
            lease_written: 1.0 / LEASE_S,
            web_messages: (arrived + 2.0 * answered) / MESSAGES_A_CALL,
            worker_messages: begun / RECEIVED_A_CALL
                + answered
                + answered / DELETED_A_CALL
                + idle / IDLE_RECEIVE_S,
            reports,
            controller_messages: 2.0 * reports / MESSAGES_A_CALL + 1.0,
            run_instances: f64::from(second.launch_calls),
            instances_asked: f64::from(second.launched + second.refused),
            create_tags: f64::from(named),
            describe_instances: listings * (instances / LISTED_A_CALL).ceil().max(1.0),
            terminate_instances: f64::from(second.drained.min(1)),
            instances_ended: f64::from(second.drained),
        }
    };
    seconds.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_a_busy_fleet_is_counted_as_the_page_has_it() {
        let second = Second {
            arrived: 10_000,
            begun: 10_000,
            answered: 10_000,
            unanswered: 1000,
            ready: 1000,
            ..Second::default()
        };
        let expected = Calls {
            photographs_written: 10_000.0,
            photographs_read: 10_000.0,
            results_written: 10_000.0,
            // Thirteen replicas look 20 times a second, and 1,000 workers once in 25 s.
            gallery_listings: 260.0 + 40.0,
            gallery_read: 0.0,
            lease_written: 1.0 / 3.0,
            web_messages: 3000.0,
            worker_messages: 10_000.0 / 3.0 + 10_000.0 + 5000.0,
            reports: 200.0,
            controller_messages: 20.0 + 20.0 + 1.0,
            describe_instances: 1.0 / 15.0,
            ..Calls::default()
        };
        assert_eq!(calls(&[second], 13.0), [expected]);
    }

    #[test]
    fn a_launch_is_one_call_and_its_instances_are_named_ten_a_second() {
        let launched = Second {
            launch_calls: 1,
            launched: 25,
            refused: 5,
            booting: 1025,
            ..Second::default()
        };
        let then = Second {
            launch_calls: 1,
            refused: 5,
            booting: 1025,
            ..Second::default()
        };
        let told = calls(&[launched, then, then, Second::default()], 1.0);
        let of = |field: fn(&Calls) -> f64| -> Vec<f64> { told.iter().map(field).collect() };
        assert_eq!(of(|calls| calls.run_instances), [1.0, 1.0, 1.0, 0.0]);
        assert_eq!(of(|calls| calls.instances_asked), [30.0, 5.0, 5.0, 0.0]);
        assert_eq!(of(|calls| calls.create_tags), [10.0, 10.0, 5.0, 0.0]);
        // Of 1,025 instances a listing has two pages.
        let listings = of(|calls| calls.describe_instances);
        assert_eq!(listings, [2.0, 2.0, 2.0, 1.0 / 15.0]);
    }
}
