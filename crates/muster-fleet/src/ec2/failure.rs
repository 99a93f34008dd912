//! What EC2 says when it says no, as the decision that follows.
//!
//! Invariant: only [`Refusal::Unknown`] leaves open whether the call happened.

use std::error::Error;

use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::RequestId;

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

/// One call that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub refusal: Refusal,
    /// EC2's code and sentence, or what happened on the way there.
    pub said: String,
    code: String,
    source: SourceError,
}

impl<E> From<SdkError<E, HttpResponse>> for Failure
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        let (code, message, status) = match &error {
            SdkError::ServiceError(answer) => (
                answer.err().code().unwrap_or_default().to_owned(),
                answer.err().message().unwrap_or_default().to_owned(),
                answer.raw().status().as_u16(),
            ),
            SdkError::ConstructionFailure(_) => (String::new(), String::new(), 400),
            _ => (String::new(), String::new(), 503),
        };
        let (said, source): (_, SourceError) = if code.is_empty() {
            (chain(&error), Box::new(error))
        } else {
            let request = error.request_id().unwrap_or("without id");
            let said = format!("{code}: {message}");
            (said.clone(), format!("{said} (request {request})").into())
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
                    _ if code.contains("LaunchTemplate") => format!("launch template {template}"),
                    Some(subnet) if code.contains("Subnet") => format!("subnet {subnet}"),
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
        _ if code.ends_with(".NotFound")
            || code.ends_with(".NotFoundException")
            || code.ends_with(".Malformed")
            || code.ends_with("IdMalformed")
            || code.ends_with(".VersionNotFound") =>
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
            ("IdempotentInstanceTerminated", 400, Refusal::Spent),
            ("IdempotentParameterMismatch", 400, Refusal::Differs),
            ("InternalError", 500, Refusal::Unknown),
            ("", 503, Refusal::Unknown),
            ("InvalidParameterCombination", 400, Refusal::Refused),
        ] {
            assert_eq!(classify(code, status), refusal, "{code}");
        }
    }
}
