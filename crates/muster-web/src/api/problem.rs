//! Errors of the handlers: answered as problem+json, or as one plain line on `POST /`.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use muster_api::problem::{Code, Problem, ProblemMembers};
use muster_jobs::{Failure, Printable};

use crate::exchange;

/// After how many seconds to try again where something is away or full.
const UNAVAILABLE_RETRY_S: u64 = 5;

/// A refused or failed request.
#[derive(Debug)]
pub struct ApiError {
    code: Code,
    detail: String,
    retry_after_s: Option<u64>,
    members: Box<ProblemMembers>,
}

impl ApiError {
    /// An error with one sentence that names the thing and the remedy. What it quotes of a client
    /// is made printable.
    pub fn new(code: Code, detail: impl AsRef<str>) -> Self {
        Self {
            code,
            detail: Printable(detail.as_ref()).to_string(),
            retry_after_s: None,
            members: Box::default(),
        }
    }

    /// 400 for a request that is not in the expected form.
    pub fn bad_request(detail: impl AsRef<str>) -> Self {
        Self::new(Code::RequestInvalid, detail)
    }

    /// 404 for what is not there.
    pub fn not_found(detail: impl AsRef<str>) -> Self {
        Self::new(Code::NotFound, detail)
    }

    /// 429 with the time after which to try again.
    pub fn overloaded(detail: impl AsRef<str>, wait: Duration) -> Self {
        let mut error = Self::new(Code::Overloaded, detail);
        error.retry_after_s = Some(whole_seconds(wait));
        error
    }

    /// 429 for a key that asks too often.
    pub fn rate_limited(detail: impl AsRef<str>, wait: Duration) -> Self {
        let mut error = Self::new(Code::RateLimited, detail);
        error.retry_after_s = Some(whole_seconds(wait));
        error
    }

    /// Its code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// 503 where something that Muster needs is away or full, in a sentence that names it, and 500
    /// otherwise: logs the chain, counts the failure and answers a general sentence.
    pub fn internal(context: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        if let Some(outage) = muster_base::outage(error) {
            return Self::unavailable(format!("{context}: {outage}"), error);
        }
        muster_base::aws::failed(context, error);
        Self::new(
            Code::Internal,
            "Muster failed to serve this request; its log says why. Nothing was lost: try again.",
        )
    }

    /// 503 where something that Muster needs is away or full: logs the chain, counts the failure and
    /// answers that sentence.
    pub fn unavailable(
        detail: impl Into<String>,
        error: &(dyn std::error::Error + 'static),
    ) -> Self {
        let detail = detail.into();
        muster_base::aws::failed(&detail, error);
        let mut unavailable = Self::new(Code::NotReady, detail);
        unavailable.retry_after_s = Some(UNAVAILABLE_RETRY_S);
        unavailable
    }

    /// Whether Muster is at fault, so that what the request did is not known.
    pub fn is_internal(&self) -> bool {
        self.status().is_server_error()
    }

    /// The sentence.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Sets members of the problem.
    #[must_use]
    pub fn with(mut self, set: impl FnOnce(&mut ProblemMembers)) -> Self {
        set(&mut self.members);
        self
    }

    /// The status.
    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.code.status()).expect("every code has a status of HTTP")
    }

    /// The problem, to be a part of a larger answer.
    pub fn into_problem(self) -> Problem {
        let title = self.status().canonical_reason().unwrap_or("Error");
        Problem {
            kind: "about:blank".to_owned(),
            title: title.to_owned(),
            status: self.code.status(),
            code: self.code,
            detail: self.detail,
            members: *self.members,
        }
    }

    /// The answer of `POST /`: one plain line with the status of the code.
    pub fn into_plain(self) -> Response {
        let mut response = (
            self.status(),
            [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
            format!("{}\n", self.detail),
        )
            .into_response();
        self.add_headers(&mut response);
        response
    }

    fn add_headers(&self, response: &mut Response) {
        if let Some(seconds) = self.retry_after_s {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code == Code::Unauthorized {
            let challenge = HeaderValue::from_static("Bearer realm=\"muster\"");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, challenge);
        }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        Self::new(failure.code.into(), failure.detail)
    }
}

impl IntoResponse for ApiError {
    fn into_response(mut self) -> Response {
        if let Some(id) = exchange::current() {
            let request_id = &mut self.members.request_id;
            request_id.get_or_insert_with(|| id.to_string());
        }
        let mut response = (
            self.status(),
            [(header::CONTENT_TYPE, "application/problem+json")],
        )
            .into_response();
        self.add_headers(&mut response);
        let body =
            serde_json::to_vec(&self.into_problem()).expect("a problem has only string keys");
        *response.body_mut() = body.into();
        response
    }
}

/// Whole seconds to wait for, as `Retry-After` has them: at least one.
fn whole_seconds(wait: Duration) -> u64 {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    seconds.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sentence_quotes_can_not_act_on_a_terminal() {
        let error = ApiError::bad_request("there is no \u{1b}]0;x\u{7}\n\u{9b}2J\u{202e}");
        assert_eq!(
            error.detail(),
            r"there is no \u001b]0;x\u0007\u000a\u009b2J\u202e"
        );
    }

    #[test]
    fn a_wait_is_rounded_up_to_whole_seconds() {
        for (wait_s, whole) in [(0.2, 1), (2.0, 2), (2.1, 3)] {
            assert_eq!(whole_seconds(Duration::from_secs_f64(wait_s)), whole);
        }
    }
}
