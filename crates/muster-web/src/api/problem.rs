//! Errors as RFC 9457 problem+json with a stable `code`, or as one plain line on `POST /`.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use muster_jobs::{Failure, FailureCode};
use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::exchange;

/// Defines the codes with their texts and statuses, so that the document lists what the code has.
macro_rules! codes {
    ($($(#[doc = $meaning:literal])+ $name:ident $text:literal $status:ident;)+) => {
        /// What went wrong, by a name that stays: programs decide by this, never by `detail`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
        pub enum Code {
            $($(#[doc = $meaning])+ #[serde(rename = $text)] $name,)+
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The status that it is answered with.
            pub fn status(self) -> StatusCode {
                match self {
                    $(Self::$name => StatusCode::$status,)+
                }
            }

            /// The code as it stands in the JSON.
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// What it means, for the document.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($meaning),+).trim_ascii(),)+
                }
            }
        }
    };
}

codes! {
    /// The request is not in the expected form.
    RequestInvalid "request.invalid" BAD_REQUEST;
    /// The upload took longer than the request timeout.
    RequestTimeout "request.timeout" REQUEST_TIMEOUT;
    /// The body is not of a media type that is taken.
    RequestUnsupported "request.unsupported" UNSUPPORTED_MEDIA_TYPE;
    /// A part of the request other than a photograph is too large.
    RequestTooLarge "request.too_large" PAYLOAD_TOO_LARGE;
    /// There is no such thing.
    NotFound "not_found" NOT_FOUND;
    /// No API key, or none that is known: see `WWW-Authenticate`.
    Unauthorized "unauthorized" UNAUTHORIZED;
    /// The API key lacks the scope; or none is wanted, and it is not this Muster's own page that asks.
    Forbidden "forbidden" FORBIDDEN;
    /// The API key asked too often; `Retry-After` says when to try again.
    RateLimited "rate_limited" TOO_MANY_REQUESTS;
    /// The path does not take the method.
    MethodNotAllowed "method.not_allowed" METHOD_NOT_ALLOWED;
    /// The photograph is damaged.
    ImageUnreadable "image.unreadable" UNPROCESSABLE_ENTITY;
    /// The photograph is of a format that is not taken.
    ImageUnsupported "image.unsupported" UNSUPPORTED_MEDIA_TYPE;
    /// The photograph has too many bytes or pixels.
    ImageTooLarge "image.too_large" PAYLOAD_TOO_LARGE;
    /// The form has too many photographs.
    ImageTooMany "image.too_many" PAYLOAD_TOO_LARGE;
    /// No face was found.
    FaceNone "face.none" UNPROCESSABLE_ENTITY;
    /// Several faces were found where one is needed.
    FaceMultiple "face.multiple" UNPROCESSABLE_ENTITY;
    /// The face is too small, blurred, dark or turned away to be enrolled.
    FaceUnfit "face.unfit" UNPROCESSABLE_ENTITY;
    /// The person is enrolled already.
    PersonExists "person.exists" CONFLICT;
    /// The person has as many faces, or denials, as are kept.
    PersonFull "person.full" CONFLICT;
    /// It is the person's only face.
    FaceLast "face.last" CONFLICT;
    /// The gallery changed its model meanwhile: send the request again.
    GalleryChanged "gallery.changed" CONFLICT;
    /// Another upload of the same file name replaced the photograph before it was read.
    InputReplaced "input.replaced" CONFLICT;
    /// The photograph is no longer in the object store.
    InputMissing "input.missing" GONE;
    /// Workers failed on the photograph too often, and it was set aside.
    RecognitionFailed "recognition.failed" INTERNAL_SERVER_ERROR;
    /// Too much waits already; `Retry-After` says when to try again.
    Overloaded "overloaded" TOO_MANY_REQUESTS;
    /// No answer within the request timeout.
    Timeout "timeout" GATEWAY_TIMEOUT;
    /// A store or a queue does not answer.
    NotReady "not_ready" SERVICE_UNAVAILABLE;
    /// This process is stopping.
    Stopping "stopping" SERVICE_UNAVAILABLE;
    /// There are no jobs where results are known by their file name alone.
    JobsUnavailable "jobs.unavailable" CONFLICT;
    /// Muster failed; its log says why.
    Internal "internal" INTERNAL_SERVER_ERROR;
}

// By hand: the derive does not see names that a macro puts in.
impl PartialSchema for Code {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(
                "What went wrong, by a name that stays: programs decide by this, never by `detail`.",
            ))
            .enum_values(Some(Self::ALL.iter().map(|code| code.text())))
            .into()
    }
}

impl ToSchema for Code {}

/// A refused or failed request.
#[derive(Debug)]
pub struct ApiError {
    code: Code,
    detail: String,
    retry_after_s: Option<u64>,
    extensions: serde_json::Map<String, Value>,
}

/// An RFC 9457 problem. Some codes have members of their own besides these.
#[derive(Serialize, ToSchema)]
pub struct Problem<'a> {
    /// Always `about:blank`: `code` tells the problems apart.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'a str,
    /// The HTTP status.
    status: u16,
    code: Code,
    /// One sentence that names the thing and the remedy.
    detail: &'a str,
    #[serde(flatten)]
    #[schema(value_type = ProblemMembers)]
    extensions: &'a serde_json::Map<String, Value>,
}

/// Members that a problem may have.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it documents what `ApiError::with` adds")]
pub struct ProblemMembers {
    /// The recognition's id where there is one, and the exchange's `X-Request-Id` elsewhere.
    request_id: Option<String>,
    /// Photographs of the request that are at fault.
    refused: Option<Vec<Refused>>,
    /// Which of two photographs is at fault: `first` or `second`.
    photograph: Option<String>,
    /// The path of the job whose result comes later.
    job: Option<String>,
    /// The person who has the name already.
    person_id: Option<String>,
}

/// A photograph that was refused.
#[derive(Debug, Serialize, ToSchema)]
pub struct Refused {
    /// Its file name.
    pub file: String,
    /// The stable code.
    pub code: FailureCode,
    /// One sentence that names the thing and the remedy.
    pub detail: String,
}

impl ApiError {
    /// An error with one sentence that names the thing and the remedy.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            retry_after_s: None,
            extensions: serde_json::Map::new(),
        }
    }

    /// 400 for a request that is not in the expected form.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(Code::RequestInvalid, detail)
    }

    /// 404 for what is not there.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(Code::NotFound, detail)
    }

    /// 429 with the time after which to try again.
    pub fn overloaded(detail: impl Into<String>, wait: Duration) -> Self {
        let mut error = Self::new(Code::Overloaded, detail);
        error.retry_after_s = Some(whole_seconds(wait));
        error
    }

    /// 429 for a key that asks too often.
    pub fn rate_limited(detail: impl Into<String>, wait: Duration) -> Self {
        let mut error = Self::new(Code::RateLimited, detail);
        error.retry_after_s = Some(whole_seconds(wait));
        error
    }

    /// Its code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// 500: logs the chain, counts the failure and answers a general sentence.
    pub fn internal(context: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        muster_base::aws::failed(context, error);
        Self::new(
            Code::Internal,
            "Muster failed to serve this request; its log says why. Nothing was lost: try again.",
        )
    }

    /// Whether Muster is at fault, so that what the request did is not known.
    pub fn is_internal(&self) -> bool {
        self.code.status().is_server_error()
    }

    /// The sentence.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Adds a member to the problem's JSON; [`ProblemMembers`] documents them.
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
            title: self.code.status().canonical_reason().unwrap_or("Error"),
            status: self.code.status().as_u16(),
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
            self.code.status(),
            [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
            format!("{line}\n"),
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
        let code = match failure.code {
            FailureCode::ImageUnreadable => Code::ImageUnreadable,
            FailureCode::ImageUnsupported => Code::ImageUnsupported,
            FailureCode::ImageTooLarge => Code::ImageTooLarge,
            FailureCode::FaceNone => Code::FaceNone,
            FailureCode::FaceMultiple => Code::FaceMultiple,
            FailureCode::FaceUnfit => Code::FaceUnfit,
            FailureCode::InputReplaced => Code::InputReplaced,
            FailureCode::InputMissing => Code::InputMissing,
            FailureCode::RecognitionFailed => Code::RecognitionFailed,
        };
        Self::new(code, failure.detail)
    }
}

impl IntoResponse for ApiError {
    fn into_response(mut self) -> Response {
        if let Some(id) = exchange::current() {
            self.extensions
                .entry("request_id")
                .or_insert_with(|| Value::from(&*id));
        }
        let body = serde_json::to_vec(&self.problem()).expect("a problem has only string keys");
        let mut response = (
            self.code.status(),
            [(header::CONTENT_TYPE, "application/problem+json")],
            body,
        )
            .into_response();
        self.add_headers(&mut response);
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
    fn a_wait_is_rounded_up_to_whole_seconds() {
        for (wait_s, whole) in [(0.2, 1), (2.0, 2), (2.1, 3)] {
            assert_eq!(whole_seconds(Duration::from_secs_f64(wait_s)), whole);
        }
    }

    #[test]
    fn codes_are_told_apart_and_a_workers_keep_their_names() {
        for (n, code) in Code::ALL.iter().enumerate() {
            assert_eq!(serde_json::to_value(code).unwrap(), code.text());
            assert!(!code.meaning().is_empty());
            for other in &Code::ALL[..n] {
                assert_ne!(code.text(), other.text());
            }
        }
        let worker = FailureCode::FaceNone;
        let error = ApiError::from(Failure {
            code: worker,
            detail: String::new(),
        });
        assert_eq!(
            serde_json::to_value(worker).unwrap(),
            error.code.text(),
            "a worker's code is the client's"
        );
    }
}
