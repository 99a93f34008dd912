//! Errors as RFC 9457 problems with a stable `code`.

use muster_jobs::FailureCode;
use serde::{Deserialize, Serialize};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// Defines the codes with their texts and statuses, so that the document lists what the code has.
macro_rules! codes {
    ($($(#[doc = $meaning:literal])+ $name:ident $text:literal $status:literal;)+) => {
        /// What went wrong, by a name that stays: programs decide by this, never by `detail`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Code {
            $($(#[doc = $meaning])+ #[serde(rename = $text)] $name,)+
            /// A code that this version does not know, of a service of a later one.
            #[serde(other, rename = "other")]
            Other,
        }

        impl Code {
            /// Every code that this version answers.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The HTTP status that it is answered with.
            pub fn status(self) -> u16 {
                match self {
                    $(Self::$name => $status,)+
                    Self::Other => 500,
                }
            }

            /// The code as it stands in the JSON.
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                    Self::Other => "other",
                }
            }

            /// What it means, for the document.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($meaning),+).trim_ascii(),)+
                    Self::Other => "A code of a later version.",
                }
            }
        }
    };
}

codes! {
    /// The request is not in the expected form.
    RequestInvalid "request.invalid" 400;
    /// The upload took longer than the request timeout.
    RequestTimeout "request.timeout" 408;
    /// The body is not of a media type that is taken.
    RequestUnsupported "request.unsupported" 415;
    /// A part of the request other than a photograph is too large.
    RequestTooLarge "request.too_large" 413;
    /// There is no such thing.
    NotFound "not_found" 404;
    /// No API key, or none that is known: see `WWW-Authenticate`.
    Unauthorized "unauthorized" 401;
    /// The API key lacks the scope; or none is wanted, and it is not this Muster's own page that asks.
    Forbidden "forbidden" 403;
    /// The API key asked too often; `Retry-After` says when to try again.
    RateLimited "rate_limited" 429;
    /// The path does not take the method.
    MethodNotAllowed "method.not_allowed" 405;
    /// The photograph is damaged.
    ImageUnreadable "image.unreadable" 422;
    /// The photograph is of a format that is not taken.
    ImageUnsupported "image.unsupported" 415;
    /// The photograph has too many bytes or pixels.
    ImageTooLarge "image.too_large" 413;
    /// The form has too many photographs.
    ImageTooMany "image.too_many" 413;
    /// No face was found.
    FaceNone "face.none" 422;
    /// Several faces were found where one is needed.
    FaceMultiple "face.multiple" 422;
    /// The face is too small, blurred, dark or turned away to be enrolled.
    FaceUnfit "face.unfit" 422;
    /// The person is enrolled already.
    PersonExists "person.exists" 409;
    /// The person has as many faces, or denials, as are kept.
    PersonFull "person.full" 409;
    /// It is the person's only face.
    FaceLast "face.last" 409;
    /// The gallery changed its model meanwhile: send the request again.
    GalleryChanged "gallery.changed" 409;
    /// Another upload of the same file name replaced the photograph before it was read.
    InputReplaced "input.replaced" 409;
    /// The photograph is no longer in the object store.
    InputMissing "input.missing" 410;
    /// Workers failed on the photograph too often, and it was set aside.
    RecognitionFailed "recognition.failed" 500;
    /// Too much waits already; `Retry-After` says when to try again.
    Overloaded "overloaded" 429;
    /// No answer within the request timeout.
    Timeout "timeout" 504;
    /// A store or a queue does not answer.
    NotReady "not_ready" 503;
    /// This process is stopping.
    Stopping "stopping" 503;
    /// There are no jobs where results are known by their file name alone.
    JobsUnavailable "jobs.unavailable" 409;
    /// Muster failed; its log says why.
    Internal "internal" 500;
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

impl From<FailureCode> for Code {
    fn from(code: FailureCode) -> Self {
        match code {
            FailureCode::ImageUnreadable => Self::ImageUnreadable,
            FailureCode::ImageUnsupported => Self::ImageUnsupported,
            FailureCode::ImageTooLarge => Self::ImageTooLarge,
            FailureCode::FaceNone => Self::FaceNone,
            FailureCode::FaceMultiple => Self::FaceMultiple,
            FailureCode::FaceUnfit => Self::FaceUnfit,
            FailureCode::InputReplaced => Self::InputReplaced,
            FailureCode::InputMissing => Self::InputMissing,
            FailureCode::RecognitionFailed => Self::RecognitionFailed,
        }
    }
}

/// An RFC 9457 problem. Some codes have members of their own besides these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: `code` tells the problems apart.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: Code,
    /// One sentence that names the thing and the remedy.
    pub detail: String,
    /// Members that a problem may have.
    #[serde(flatten)]
    #[schema(value_type = ProblemMembers)]
    pub members: ProblemMembers,
}

/// Members that a problem may have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemMembers {
    /// The recognition's id where there is one, and the exchange's `X-Request-Id` elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Photographs of the request that are at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Vec<Refused>>,
    /// Which of two photographs is at fault: `first` or `second`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub photograph: Option<String>,
    /// The path of the job whose result comes later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// The person who has the name already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub person_id: Option<String>,
}

/// A photograph that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Refused {
    /// Its file name.
    pub file: String,
    /// The stable code.
    pub code: FailureCode,
    /// One sentence that names the thing and the remedy.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_apart_and_a_workers_keep_their_names() {
        for (n, code) in Code::ALL.iter().enumerate() {
            assert_eq!(serde_json::to_value(code).expect("JSON"), code.text());
            assert!(!code.meaning().is_empty());
            for other in &Code::ALL[..n] {
                assert_ne!(code.text(), other.text());
            }
        }
        let worker = FailureCode::FaceNone;
        assert_eq!(
            serde_json::to_value(worker).expect("JSON"),
            Code::from(worker).text(),
            "a worker's code is the client's"
        );
    }

    #[test]
    fn a_problem_is_read_as_it_is_written() {
        let problem = Problem {
            kind: "about:blank".to_owned(),
            title: "Conflict".to_owned(),
            status: 409,
            code: Code::PersonExists,
            detail: "Anna is enrolled already".to_owned(),
            members: ProblemMembers {
                person_id: Some("1".to_owned()),
                ..ProblemMembers::default()
            },
        };
        let json = serde_json::to_value(&problem).expect("JSON");
        assert_eq!(json["person_id"], "1");
        assert!(json.get("job").is_none() && json.get("members").is_none());
        let read: Problem = serde_json::from_value(json).expect("a problem");
        assert_eq!(read, problem);
    }

    #[test]
    fn a_problem_of_a_later_version_keeps_its_sentence() {
        let problem = r#"{"type":"about:blank","title":"Locked","status":423,"code":"person.locked","detail":"Wait."}"#;
        let problem: Problem = serde_json::from_str(problem).expect("a problem");
        assert_eq!((problem.code, &*problem.detail), (Code::Other, "Wait."));
        assert!(!Code::ALL.contains(&Code::Other));
    }
}
