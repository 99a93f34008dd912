//! What failures of S3, SQS and EC2 mean, and how many there were.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};

use muster_queue::QueueError;
use serde::Serialize;
use strum::VariantArray;

use crate::ErrorChain;

/// The configuration names no region.
#[derive(Debug, thiserror::Error)]
#[error("no AWS region is set in muster.toml, AWS_REGION or the profile")]
pub struct NoRegion;

/// What a failure means for whoever can mend it; the exit code of a role that fails at its start.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, strum::IntoStaticStr, strum::VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Trouble {
    /// Something named in the settings does not exist.
    Missing,
    /// There are no credentials, or they are not accepted.
    Credentials,
    /// The credentials do not permit it.
    Denied,
    /// This machine's clock is off.
    Clock,
    /// The settings name the wrong region.
    Region,
    /// The service does not answer, or asks for fewer calls.
    Unavailable,
}

impl Trouble {
    /// Its name, as in JSON.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The exit code, as `sysexits.h` has them: a supervisor need not restart what only a person can
    /// mend.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Missing | Self::Region => 78,
            Self::Credentials | Self::Denied => 77,
            Self::Clock | Self::Unavailable => 75,
        }
    }

    /// What to do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Missing => {
                "create what is named there, or correct its name, queue_prefix, region and endpoint in \
                 muster.toml"
            }
            Self::Credentials => {
                "renew or correct the AWS credentials (environment, profile, or the instance's role)"
            }
            Self::Denied => {
                "allow the action in this role's policy; `muster doctor` names every statement that \
                 is missing"
            }
            Self::Clock => {
                "set this machine's clock, and keep it set (chrony, systemd-timesyncd): AWS takes no \
                 request that is off by five minutes"
            }
            Self::Region => "set region in muster.toml to where the bucket is",
            Self::Unavailable => "check the network and the endpoint, and try again",
        }
    }

    /// Finds what an error of S3, SQS or EC2 means by the code that AWS gave.
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let chain = ErrorChain(error).to_string();
        let by_code = CODES
            .iter()
            .find(|(_, codes)| codes.iter().any(|code| chain.contains(code)));
        if let Some((trouble, _)) = by_code {
            return Some(*trouble);
        }
        let mut link = Some(error);
        while let Some(error) = link {
            if error.is::<NoRegion>() {
                return Some(Self::Region);
            }
            match error.downcast_ref() {
                Some(QueueError::NotFound { .. } | QueueError::Fifo { .. }) => {
                    return Some(Self::Missing);
                }
                Some(QueueError::Unavailable { .. } | QueueError::Throttled { .. }) => {
                    return Some(Self::Unavailable);
                }
                _ => link = error.source(),
            }
        }
        None
    }
}

/// Logs a failure while the process runs, with its remedy where there is one, and counts it.
pub fn failed(context: &str, error: &(dyn Error + 'static)) {
    let trouble = Trouble::of(error);
    let count = match trouble {
        Some(trouble) => &FAILURES[trouble as usize],
        None => &OTHER_FAILURES,
    };
    count.fetch_add(1, Ordering::Relaxed);
    match trouble {
        Some(trouble) => {
            tracing::error!(error = %ErrorChain(error), remedy = trouble.remedy(), "{context}");
        }
        None => tracing::error!(error = %ErrorChain(error), "{context}"),
    }
}

/// Failures of this process since its start, by what they mean.
pub fn failures() -> impl Iterator<Item = (&'static str, u64)> {
    let named = Trouble::VARIANTS
        .iter()
        .map(|trouble| trouble.name())
        .zip(&FAILURES);
    let all = named.chain([("other", &OTHER_FAILURES)]);
    all.map(|(name, count)| (name, count.load(Ordering::Relaxed)))
}

static FAILURES: [AtomicU64; Trouble::VARIANTS.len()] =
    [const { AtomicU64::new(0) }; Trouble::VARIANTS.len()];
static OTHER_FAILURES: AtomicU64 = AtomicU64::new(0);

/// Error codes of S3, SQS and EC2, and what the SDK says where it had no answer. The first that
/// is found counts: a skewed clock is reported as a bad signature too.
const CODES: &[(Trouble, &[&str])] = &[
    (
        Trouble::Clock,
        &[
            "RequestTimeTooSkewed",
            "RequestInTheFuture",
            "Signature expired",
            "Signature not yet current",
        ],
    ),
    // Its code begins as one of wrong credentials does.
    (
        Trouble::Denied,
        &["AuthFailure.ServiceLinkedRoleCreationNotPermitted"],
    ),
    (
        Trouble::Credentials,
        &[
            "ExpiredToken",
            "RequestExpired",
            "TokenRefreshRequired",
            "InvalidClientTokenId",
            "InvalidAccessKeyId",
            "InvalidToken",
            "UnrecognizedClient",
            "SignatureDoesNotMatch",
            "InvalidSignature",
            "MissingAuthenticationToken",
            "AuthFailure",
            "the credential provider was not enabled",
            "no providers in chain provided credentials",
            "failed to load credentials",
        ],
    ),
    (
        Trouble::Region,
        &[
            "PermanentRedirect",
            "AuthorizationHeaderMalformed",
            "IllegalLocationConstraint",
            "Received redirect without LOCATION",
        ],
    ),
    (
        Trouble::Missing,
        &[
            "NoSuchBucket",
            "NonExistentQueue",
            "QueueDoesNotExist",
            "InvalidLaunchTemplate",
            "InvalidSubnetID",
            "InvalidAMIID",
            "InvalidAddress",
        ],
    ),
    (
        Trouble::Denied,
        &[
            "AccessDenied",
            "UnauthorizedOperation",
            "AccessDeniedException",
        ],
    ),
    (
        Trouble::Unavailable,
        &[
            "SlowDown",
            "Throttl",
            "RequestLimitExceeded",
            "ServiceUnavailable",
            "InternalError",
            "dispatch failure",
            "error sending request",
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_what_they_mean() {
        let count = || failures().collect::<std::collections::HashMap<_, _>>();
        let before = count();
        failed("a test", &std::io::Error::other("<Code>SlowDown</Code>"));
        failed("a test", &std::io::Error::other("disk full"));
        let after = count();
        for name in ["unavailable", "other"] {
            assert!(after[name] > before[name], "{name}");
        }
        assert_eq!(after.len(), Trouble::VARIANTS.len() + 1);
        for trouble in Trouble::VARIANTS {
            assert_eq!(serde_json::to_value(trouble).unwrap(), trouble.name());
        }
    }

    #[test]
    fn codes_tell_what_is_to_be_mended() {
        let of = |text: &str| Trouble::of(&std::io::Error::other(text.to_owned()));
        for (text, trouble) in [
            ("403: <Code>RequestTimeTooSkewed</Code>", Trouble::Clock),
            (
                "SignatureDoesNotMatch: Signature expired: 20260101T000000Z",
                Trouble::Clock,
            ),
            ("<Code>ExpiredToken</Code>", Trouble::Credentials),
            ("404 <Code>NoSuchBucket</Code>", Trouble::Missing),
            ("301 PermanentRedirect", Trouble::Region),
            ("UnauthorizedOperation: You are not", Trouble::Denied),
            ("dispatch failure: io error", Trouble::Unavailable),
        ] {
            assert_eq!(of(text), Some(trouble), "{text}");
        }
        assert_eq!(of("disk full"), None);
        let error = anyhow::Error::new(NoRegion).context("open the bucket");
        assert_eq!(Trouble::of(error.as_ref()), Some(Trouble::Region));
        let missing = QueueError::NotFound {
            queue: "req-queue".to_owned(),
            source: None,
        };
        let error = anyhow::Error::new(missing).context("open the queue req-queue");
        assert_eq!(Trouble::of(error.as_ref()), Some(Trouble::Missing));
    }
}
