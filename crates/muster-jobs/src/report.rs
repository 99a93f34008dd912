//! What workers and web replicas tell the controller, over a queue of its own.
//!
//! Reports are many, may come twice, late or out of order, and each says all there is to say: of one
//! sender's, the one that counts most.

use serde::{Deserialize, Serialize};

use crate::message::{MESSAGE_VERSION, MessageError, check_version, queue_json};

/// A report as it stands on the queue, in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`MESSAGE_VERSION`] of the sender.
    pub version: u32,
    /// Who reports what.
    pub content: ReportContent,
}

/// Who reports what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportContent {
    /// A worker.
    Worker(WorkerReport),
    /// A web replica.
    Web(WebReport),
}

/// How a worker fares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// The instance that it is, or runs on.
    pub instance: String,
    /// Whether it takes requests.
    pub phase: WorkerPhase,
    /// Whether it has a request in hand.
    pub busy: bool,
    /// When its process started, by its clock.
    pub started_at_ms: u64,
    /// Requests answered since then.
    pub answered: u64,
    /// How often it reports at least; 0 where that is not said.
    #[serde(default)]
    pub every_ms: u64,
}

/// Whether a worker takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerPhase {
    /// It does.
    Ready,
    /// It finishes what it has, and ends.
    Draining,
}

/// What a web replica has submitted and had answered since it started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WebReport {
    /// The replica; the name of its reply queue ends with it.
    pub replica: String,
    /// Requests submitted.
    pub submitted: u64,
    /// Requests answered, or given up.
    pub answered: u64,
    /// Answers whose worker said how long they had occupied its slot.
    pub timed: u64,
    /// How long that was, all together.
    pub worked_ms: f64,
    /// When the oldest request was submitted that is not answered, in milliseconds since the Unix epoch;
    /// none where every one is answered, and from a build that did not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_at_ms: Option<u64>,
    /// Whether this is its last report: it has stopped.
    pub stopped: bool,
}

impl Report {
    /// A report in this build's format.
    pub fn new(content: ReportContent) -> Self {
        Self {
            version: MESSAGE_VERSION,
            content,
        }
    }

    /// Reads a message's body.
    ///
    /// # Errors
    /// [`MessageError`] where the body is not a report of this build's format.
    pub fn from_json(body: &str) -> Result<Self, MessageError> {
        check_version(body)?;
        serde_json::from_str(body).map_err(MessageError::Malformed)
    }

    /// The message's body.
    pub fn to_json(&self) -> String {
        queue_json(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_survive_the_queue() {
        for content in [
            ReportContent::Worker(WorkerReport {
                instance: "i-0abc".into(),
                phase: WorkerPhase::Ready,
                busy: true,
                started_at_ms: 1,
                answered: 2,
                every_ms: 3,
            }),
            ReportContent::Web(WebReport {
                replica: "a".into(),
                submitted: 3,
                answered: 2,
                timed: 1,
                worked_ms: 30.5,
                oldest_at_ms: Some(1),
                stopped: false,
            }),
        ] {
            let report = Report::new(content);
            assert!(report.to_json().len() < 512, "far below SQS's least, 1024");
            assert_eq!(Report::from_json(&report.to_json()).unwrap(), report);
        }
        assert!(Report::from_json("{\"version\":1}").is_err());
    }
}
