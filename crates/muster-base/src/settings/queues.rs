//! The queues: which, what they are called, and when a message comes back.

use std::time::Duration;

use muster_queue::{QueueError, check_name};
use serde::{Deserialize, Serialize};

use super::seconds;

/// The queue itself sets aside what was received three times more than `max_receives`, and SQS lets
/// it do so after 1,000 receives at most.
const MOST_RECEIVES: u32 = 997;
/// What follows the name of a replica's own reply queue: a hyphen and the replica's id.
const REPLICA_CHARS: usize = 33;
/// What SQS takes for the name of a queue.
const NAMES: &str = "a queue's name is 1 to 80 letters, digits, hyphens and underscores";

/// Which queues are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueKind {
    /// One SQLite file in the data folder, shared by the processes of this machine.
    #[default]
    Local,
    /// Amazon SQS, or what speaks its protocol.
    Sqs,
}

/// Where the web tier gets its replies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplyQueues {
    /// Each web replica on a queue of its own, which it makes and removes.
    #[default]
    Replica,
    /// The one web replica on the queue `reply_queue` itself, which stays.
    Shared,
}

/// The queues.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueSettings {
    /// Which queues are used.
    #[serde(rename = "queues")]
    pub kind: QueueKind,
    /// What every queue's name begins with.
    #[serde(rename = "queue_prefix")]
    pub prefix: String,
    /// The queue on which requests wait.
    #[serde(rename = "request_queue")]
    pub requests: String,
    /// The queue of replies, or what the names of the web replicas' own begin with.
    #[serde(rename = "reply_queue")]
    pub replies: String,
    /// Whether each web replica gets its replies on a queue of its own.
    pub reply_queues: ReplyQueues,
    /// The queue for requests that workers failed on too often.
    #[serde(rename = "dead_letter_queue")]
    pub dead_letters: String,
    /// The queue on which workers and web replicas tell the controller how they fare.
    #[serde(rename = "report_queue")]
    pub reports: String,
    /// How long a request that a worker holds stays invisible to the others.
    #[serde(rename = "visibility_timeout_s", with = "seconds")]
    pub visibility_timeout: Duration,
    /// Receives after which a request goes to the dead-letter queue.
    pub max_receives: u32,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            kind: QueueKind::Local,
            prefix: String::new(),
            requests: "req-queue".to_owned(),
            replies: "resp-queue".to_owned(),
            reply_queues: ReplyQueues::Replica,
            dead_letters: "dead-letter-queue".to_owned(),
            reports: "report-queue".to_owned(),
            visibility_timeout: Duration::from_secs(10),
            max_receives: 4,
        }
    }
}

impl QueueSettings {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.visibility_timeout >= Duration::from_secs(1),
            "visibility_timeout_s is {}: it must be at least 1",
            self.visibility_timeout.as_secs_f64()
        );
        anyhow::ensure!(
            (1..=MOST_RECEIVES).contains(&self.max_receives),
            "max_receives is {}: it must be at least 1 and at most {MOST_RECEIVES}",
            self.max_receives
        );
        let mut queues = vec![
            (&self.requests, "request_queue"),
            (&self.dead_letters, "dead_letter_queue"),
            (&self.reports, "report_queue"),
        ];
        match self.reply_queues {
            ReplyQueues::Shared => queues.push((&self.replies, "reply_queue")),
            ReplyQueues::Replica => {
                let of_replica = format!("{}-{}", self.replies, "0".repeat(REPLICA_CHARS - 1));
                let whole = format!("{}{of_replica}", self.prefix);
                anyhow::ensure!(
                    check_name(&whole).is_ok(),
                    "queue_prefix and reply_queue are {:?} together, and a replica's id of {REPLICA_CHARS} \
                     characters follows: {NAMES}",
                    format!("{}{}", self.prefix, self.replies)
                );
            }
        }
        for (n, (queue, name)) in queues.iter().enumerate() {
            let whole = format!("{}{queue}", self.prefix);
            match check_name(&whole) {
                // What opens it says that it is a FIFO queue, and the doctor does.
                Ok(()) | Err(QueueError::Fifo { .. }) => {}
                Err(_) => anyhow::bail!("queue_prefix and {name} are {whole:?} together: {NAMES}"),
            }
            for (other, other_name) in &queues[..n] {
                anyhow::ensure!(
                    queue != other,
                    "{other_name} and {name} are both {queue:?}: give each a queue of its own"
                );
            }
        }
        Ok(())
    }
}
