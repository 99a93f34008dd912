//! Why a service did not answer what was asked for.

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;

/// A problem that the service answered with.
#[derive(Clone, Debug, Deserialize)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: String,
    /// One sentence.
    pub detail: String,
    /// Photographs of an enrolment that are at fault.
    #[serde(default)]
    pub refused: Vec<Refused>,
    /// After which time to try again, where the service said so.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

/// A photograph that can not be enrolled.
#[derive(Clone, Debug, Deserialize)]
pub struct Refused {
    /// Its file name.
    pub file: String,
    /// Why not.
    pub detail: String,
}

/// Why there is no answer to a request.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The service answered with a problem.
    #[error("{}", .0.detail)]
    Problem(Problem),
    /// Nothing answered.
    #[error("reach Muster at {url}: start it with `muster up`, or give its --url")]
    Unreachable {
        /// The service's address.
        url: String,
        /// What failed.
        #[source]
        source: reqwest::Error,
    },
    /// The connection broke before the answer's end.
    #[error("read the answer")]
    Broken(#[source] reqwest::Error),
    /// The answer is not the document that was asked for.
    #[error("read the answer's JSON")]
    Json(#[source] serde_json::Error),
    /// Something else than Muster answered.
    #[error("this is not a Muster service (404)")]
    NotMuster,
    /// The answer is neither a document nor a problem.
    #[error("the service answered {0} without saying why")]
    Unexplained(StatusCode),
}
