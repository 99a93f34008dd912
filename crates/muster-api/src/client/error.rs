//! Why a service did not answer what was asked for.

use std::time::Duration;

use reqwest::StatusCode;

use crate::problem::Problem;

/// Why there is no answer to a request.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The service answered with a problem.
    #[error("{}", problem.detail)]
    Problem {
        /// The problem.
        problem: Box<Problem>,
        /// After which time to try again, where the service said so.
        retry_after: Option<Duration>,
    },
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
