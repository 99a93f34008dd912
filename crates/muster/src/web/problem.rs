//! Errors as RFC 9457 problem+json with a stable `code`, or as one plain line on `POST /`.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use muster_jobs::{Failure, FailureCode};
use serde::Serialize;
use serde_json::Value;

/// A refused or failed request.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    detail: String,
    retry_after_s: Option<u64>,
    extensions: serde_json::Map<String, Value>,
}

#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: &'a str,
    #[serde(flatten)]
    extensions: &'a serde_json::Map<String, Value>,
}

impl ApiError {
    /// An error with one sentence that names the thing and the remedy.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            retry_after_s: None,
            extensions: serde_json::Map::new(),
        }
    }

    /// 400 for a request that is not in the expected form.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "request.invalid", detail)
    }

    /// 404 for what is not there.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// 429 with the seconds after which to try again.
    pub fn overloaded(detail: impl Into<String>, retry_after_s: u64) -> Self {
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", detail);
        error.retry_after_s = Some(retry_after_s.max(1));
        error
    }

    /// 500: logs the chain, counts the failure and answers a general sentence.
    pub fn internal(context: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        crate::aws::failed(context, error);
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Muster failed to serve this request; its log says why. Nothing was lost: try again.",
        )
    }

    /// Whether Muster is at fault, so that what the request did is not known.
    pub fn is_internal(&self) -> bool {
        self.status.is_server_error()
    }

    /// Adds a member to the problem's JSON.
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.extensions.insert(member.to_owned(), value.into());
        self
    }

    /// The problem's JSON, to be a part of a larger answer.
    pub fn to_json(&self) -> Value {
        serde_json::to_value(self.problem()).expect("a problem has only string keys")
    }

    fn problem(&self) -> Problem<'_> {
        Problem {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
            extensions: &self.extensions,
        }
    }

    /// The answer of `POST /`: the same status with one plain line.
    pub fn into_plain(self) -> Response {
        let line: String = self
            .detail
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let mut response = (
            self.status,
            [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
            format!("{line}\n"),
        )
            .into_response();
        retry_after(&mut response, self.retry_after_s);
        response
    }
}

fn retry_after(response: &mut Response, seconds: Option<u64>) {
    if let Some(seconds) = seconds {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let (status, code) = match failure.code {
            FailureCode::ImageUnreadable => (StatusCode::UNPROCESSABLE_ENTITY, "image.unreadable"),
            FailureCode::ImageUnsupported => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "image.unsupported")
            }
            FailureCode::ImageTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "image.too_large"),
            FailureCode::FaceNone => (StatusCode::UNPROCESSABLE_ENTITY, "face.none"),
            FailureCode::FaceMultiple => (StatusCode::UNPROCESSABLE_ENTITY, "face.multiple"),
            FailureCode::InputReplaced => (StatusCode::CONFLICT, "input.replaced"),
            FailureCode::InputMissing => (StatusCode::GONE, "input.missing"),
            FailureCode::RecognitionFailed => {
                (StatusCode::INTERNAL_SERVER_ERROR, "recognition.failed")
            }
        };
        Self::new(status, code, failure.detail)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.problem()).expect("a problem has only string keys");
        let mut response = (
            self.status,
            [(header::CONTENT_TYPE, "application/problem+json")],
            body,
        )
            .into_response();
        retry_after(&mut response, self.retry_after_s);
        response
    }
}
