//! What EC2 says when it says no, as the decision that follows.
//!
//! Invariant: only [`Refusal::Unknown`] leaves open whether the call happened.

use std::error::Error;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;

use crate::fleet::{FleetError, SourceError};

/// Why a call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The place has none left just now.
    Capacity,
    /// The account may not have more.
    Limit,
    /// The account makes too many calls.
    Throttled,
    /// The credentials do not allow it.
    NotPermitted,
    /// What the call names does not exist.
    NotFound,
    /// The client token has been used for a launch whose instances have ended.
    Spent,
    /// The client token has been used for a launch that differs: what the launch template's version
    /// names has changed since.
    Differs,
    /// Anything else that is the caller's to mend.
    Refused,
    /// Nobody knows whether the call happened.
    Unknown,
}

impl Refusal {
    /// Whether it says nothing of what was asked, and the next call may be taken.
    pub fn passes(self) -> bool {
        matches!(self, Self::Throttled | Self::Unknown)
    }
}

/// EC2's answer to a call that it has refused.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct ErrorAnswer {
    /// Empty when the answer was not EC2's.
    pub code: String,
    pub message: String,
    pub request_id: Option<String>,
}

/// An error that EC2 answered; it stands in the source chain of the [`FleetError`].
#[derive(Debug, thiserror::Error)]
#[error("{code}: {message} (request {request})")]
pub struct Ec2Refusal {
    /// EC2's code, as `UnauthorizedOperation`.
    pub code: String,
    /// EC2's sentence.
    pub message: String,
    /// EC2's id of the request.
    pub request: String,
}

/// One call that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub refusal: Refusal,
    /// EC2's code and sentence, or what happened on the way there.
    pub said: String,
    /// EC2's code, if it has answered.
    pub code: String,
    source: SourceError,
}

impl From<SdkError<ErrorAnswer, HttpResponse>> for Failure {
    fn from(error: SdkError<ErrorAnswer, HttpResponse>) -> Self {
        let (code, status) = match &error {
            SdkError::ServiceError(answer) => {
                (answer.err().code.clone(), answer.raw().status().as_u16())
            }
            SdkError::ConstructionFailure(_) => (String::new(), 400),
            _ => (String::new(), 503),
        };
        let (said, source): (_, SourceError) = match error.as_service_error() {
            Some(answer) if !code.is_empty() => {
                let refusal = Ec2Refusal {
                    code: code.clone(),
                    message: answer.message.clone(),
                    request: answer
                        .request_id
                        .as_deref()
                        .unwrap_or("without id")
                        .to_owned(),
                };
                (format!("{code}: {}", answer.message), refusal.into())
            }
            _ => (chain(&error), Box::new(error)),
        };
        Self {
            refusal: classify(&code, status),
            said,
            code,
            source,
        }
    }
}

impl Failure {
    /// EC2 has taken the call, and its answer is none that can be read.
    pub fn unreadable(error: impl Error + Send + Sync + 'static) -> Self {
        Self {
            refusal: Refusal::Unknown,
            said: chain(&error),
            code: String::new(),
            source: Box::new(error),
        }
    }

    /// The decision for a caller of the fleet. `template` and `subnet`: what a launch has named.
    pub fn into_error(self, action: &str, template: &str, subnet: Option<&str>) -> FleetError {
        let Self {
            refusal,
            code,
            said,
            source,
        } = self;
        let action = action.to_owned();
        match refusal {
            Refusal::NotPermitted => FleetError::NotPermitted { action, source },
            Refusal::NotFound => {
                let what = match subnet {
                    _ if LAUNCH_TEMPLATE.contains(&code.as_str()) => {
                        format!("launch template {template}")
                    }
                    Some(subnet) if SUBNET.contains(&code.as_str()) => format!("subnet {subnet}"),
                    _ => format!("what the launch template or the settings name ({said})"),
                };
                FleetError::NotFound { what, source }
            }
            Refusal::Throttled => FleetError::Throttled { source },
            Refusal::Unknown => FleetError::Unavailable { action, source },
            Refusal::Capacity
            | Refusal::Limit
            | Refusal::Spent
            | Refusal::Differs
            | Refusal::Refused => FleetError::Refused { action, source },
        }
    }
}

/// Codes about the launch template (EC2 API Reference, "Error codes").
const LAUNCH_TEMPLATE: [&str; 5] = [
    "InvalidLaunchTemplateId.Malformed",
    "InvalidLaunchTemplateId.NotFound",
    "InvalidLaunchTemplateId.VersionNotFound",
    "InvalidLaunchTemplateName.MalformedException",
    "InvalidLaunchTemplateName.NotFoundException",
];
/// Codes about the subnet.
const SUBNET: [&str; 3] = [
    "InvalidSubnetID.Malformed",
    "InvalidSubnetID.NotFound",
    "InvalidSubnetId.NotFound",
];
/// What the codes about a thing that does not exist end in, after the thing's name and a dot.
const NOT_FOUND: [&str; 5] = [
    "Malformed",
    "MalformedException",
    "NotFound",
    "NotFoundException",
    "VersionNotFound",
];

/// By EC2's error codes (EC2 API Reference, "Error codes"). Shortages come with status 500.
fn classify(code: &str, status: u16) -> Refusal {
    match code {
        "InsufficientInstanceCapacity"
        | "InsufficientHostCapacity"
        | "InsufficientReservedInstanceCapacity"
        | "InsufficientCapacity"
        | "InsufficientFreeAddressesInSubnet"
        | "SpotMaxPriceTooLow" => Refusal::Capacity,
        "VcpuLimitExceeded" | "InstanceLimitExceeded" | "MaxSpotInstanceCountExceeded" => {
            Refusal::Limit
        }
        "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "RequestThrottled"
        | "EC2ThrottledException" => Refusal::Throttled,
        "UnauthorizedOperation"
        | "AuthFailure"
        | "AccessDenied"
        | "AccessDeniedException"
        | "InvalidClientTokenId"
        | "SignatureDoesNotMatch"
        | "OptInRequired"
        | "Blocked"
        | "RequestExpired"
        | "ExpiredToken"
        | "PendingVerification" => Refusal::NotPermitted,
        "IdempotentInstanceTerminated" => Refusal::Spent,
        "IdempotentParameterMismatch" => Refusal::Differs,
        _ if code
            .split_once('.')
            .is_some_and(|(_, what)| NOT_FOUND.contains(&what)) =>
        {
            Refusal::NotFound
        }
        _ if status == 429 => Refusal::Throttled,
        _ if status >= 500 => Refusal::Unknown,
        _ => Refusal::Refused,
    }
}

/// An error and its causes, in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        said = format!("{said}: {error}");
        cause = error.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_decisions() {
        for (code, status, refusal) in [
            ("InsufficientInstanceCapacity", 500, Refusal::Capacity),
            ("VcpuLimitExceeded", 400, Refusal::Limit),
            ("MaxSpotInstanceCountExceeded", 400, Refusal::Limit),
            ("RequestLimitExceeded", 503, Refusal::Throttled),
            ("UnauthorizedOperation", 403, Refusal::NotPermitted),
            ("InvalidSubnetID.NotFound", 400, Refusal::NotFound),
            (
                "InvalidLaunchTemplateName.NotFoundException",
                400,
                Refusal::NotFound,
            ),
            (
                "InvalidLaunchTemplateId.VersionNotFound",
                400,
                Refusal::NotFound,
            ),
            ("InvalidAMIID.Malformed", 400, Refusal::NotFound),
            ("NotFound", 400, Refusal::Refused),
            ("IdempotentInstanceTerminated", 400, Refusal::Spent),
            ("IdempotentParameterMismatch", 400, Refusal::Differs),
            ("InternalError", 500, Refusal::Unknown),
            ("", 503, Refusal::Unknown),
            ("InvalidParameterCombination", 400, Refusal::Refused),
        ] {
            assert_eq!(classify(code, status), refusal, "{code}");
        }
    }

    #[test]
    fn what_does_not_exist_is_named() {
        for (code, what) in [
            (
                "InvalidLaunchTemplateName.NotFoundException",
                "launch template worker",
            ),
            ("InvalidSubnetID.NotFound", "subnet subnet-1"),
            (
                "InvalidAMIID.NotFound",
                "what the launch template or the settings name (it is not there)",
            ),
        ] {
            let failure = Failure {
                refusal: Refusal::NotFound,
                said: "it is not there".to_owned(),
                code: code.to_owned(),
                source: "it is not there".into(),
            };
            let error = failure.into_error("launch instances", "worker", Some("subnet-1"));
            let FleetError::NotFound { what: named, .. } = error else {
                panic!("{error:?}");
            };
            assert_eq!(named, what);
        }
    }
}
