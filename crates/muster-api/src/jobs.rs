//! Jobs: photographs that are recognised without their client waiting.

use muster_jobs::{FileName, Recognition, RequestId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::problem::Problem;

/// How a job fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It waits, or a worker is at it.
    Pending,
    /// It has its result.
    Done,
    /// It will have none.
    Failed,
}

/// A job, as the API shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// The job's id.
    pub id: RequestId,
    /// How far it is.
    pub state: JobState,
    /// The client's name of the photograph, as far as it is still known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileName>,
    /// When it was submitted, in milliseconds since the Unix epoch.
    pub submitted_at_ms: u64,
    /// When the photograph and the result are deleted, at the earliest: a job is kept until it has an
    /// answer, and then for as long as results are kept. `null` where a bucket's own rules say so.
    pub expires_at_ms: Option<u64>,
    /// What recognition answered, where the job is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Recognition>)]
    pub result: Option<Value>,
    /// Why there is no result, where the job has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// What several photographs are answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Accepted {
    /// One for each photograph, in their order.
    pub jobs: Vec<Job>,
}

/// What the submission of jobs is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Submitted {
    /// One photograph's.
    One(Box<Job>),
    /// Several photographs'.
    Several(Accepted),
}

/// One page of the jobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Jobs {
    /// The oldest first, without their results.
    pub jobs: Vec<Job>,
    /// What to give as `after` for the next page; `null` on the last. Where only one state is
    /// wanted, a page may be short and not be the last.
    pub next: Option<RequestId>,
}

/// What the deletion of a job answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobDeletion {
    /// The job's id.
    pub id: RequestId,
    /// Photographs deleted.
    pub photographs: usize,
    /// Results deleted.
    pub results: usize,
}
