//! What failures of S3, SQS and EC2 mean, and how many there were.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::result::ConnectorError;
use muster_fleet::Ec2Refusal;
use muster_queue::{QueueError, SqsRefusal};
use serde::Serialize;
use strum::VariantArray;

use crate::ErrorChain;
use crate::error_chain::s3::S3Refusal;

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

    /// Finds what an error of S3, SQS or EC2 means: by the code that AWS gave, anywhere in the chain,
    /// and where it gave none by the kind of the failure.
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let links = chain(error);
        let first = |meaning: fn(&(dyn Error + 'static)) -> Option<Self>| {
            links.iter().find_map(|link| meaning(*link))
        };
        first(Self::by_code)
            .or_else(|| first(Self::by_cause))
            .or_else(|| first(Self::by_kind))
    }

    /// What one error of a chain means, where it has a code of AWS's.
    fn by_code(error: &(dyn Error + 'static)) -> Option<Self> {
        if let Some(SqsRefusal { code, message, .. }) = error.downcast_ref() {
            return Self::of_code(code, message);
        }
        if let Some(Ec2Refusal { code, message, .. }) = error.downcast_ref() {
            return Self::of_code(code, message);
        }
        let said = error.to_string();
        let refusal = S3Refusal::find(&said)?;
        Self::of_code(refusal.code, refusal.message)
    }

    /// What a code of AWS's means; the sentence matters where a code has two meanings.
    fn of_code(code: &str, message: &str) -> Option<Self> {
        // Older servers put a namespace before the code (`AWS.SimpleQueueService.NonExistentQueue`), and
        // EC2 puts the reason behind the thing (`InvalidSubnetID.NotFound`).
        let parts = || code.split(['.', '#']);
        let is = |known: &&str| *known == code || parts().any(|part| part == *known);
        if SIGNATURE_CODES.iter().any(&is)
            && CLOCK_SENTENCES.iter().any(|said| message.contains(said))
        {
            return Some(Self::Clock);
        }
        let by_code = CODES.iter().find(|(_, codes)| codes.iter().any(&is));
        by_code.map(|(trouble, _)| *trouble)
    }

    /// What one error of a chain means that says why there was no call at all.
    fn by_cause(error: &(dyn Error + 'static)) -> Option<Self> {
        if error.is::<NoRegion>() {
            return Some(Self::Region);
        }
        if error.is::<CredentialsError>() {
            return Some(Self::Credentials);
        }
        match error.downcast_ref::<object_store::Error>()? {
            object_store::Error::Unauthenticated { .. } => Some(Self::Credentials),
            // The redirect to the bucket's own region, which S3 answers without a document to HEAD.
            error if error.to_string().contains(REDIRECTED) => Some(Self::Region),
            _ => None,
        }
    }

    /// What one error of a chain means that is no answer of AWS's.
    fn by_kind(error: &(dyn Error + 'static)) -> Option<Self> {
        let unsent = |error: &reqwest::Error| error.is_request() || error.is_timeout();
        if error.is::<ConnectorError>() || error.downcast_ref().is_some_and(unsent) {
            return Some(Self::Unavailable);
        }
        match error.downcast_ref()? {
            QueueError::NotFound { .. } | QueueError::Fifo { .. } => Some(Self::Missing),
            QueueError::Unavailable { .. } | QueueError::Throttled { .. } => {
                Some(Self::Unavailable)
            }
            _ => None,
        }
    }
}

/// An error and its sources, the outermost first.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> Vec<&'a (dyn Error + 'static)> {
    let mut links = vec![error];
    while let Some(source) = links[links.len() - 1].source() {
        links.push(source);
    }
    links
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

/// What object_store says of a redirect that names no place, as S3's to another region.
const REDIRECTED: &str = "Received redirect without LOCATION";
/// Codes of a signature that is not accepted, which a clock that is off makes too: only the sentence
/// tells.
const SIGNATURE_CODES: &[&str] = &["SignatureDoesNotMatch", "InvalidSignatureException"];
/// How the sentence begins then.
const CLOCK_SENTENCES: &[&str] = &["Signature expired", "Signature not yet current"];

/// Error codes of S3, SQS and EC2 ("Error responses", "Common errors" and "Error codes" in their API
/// references). The first that is found counts.
const CODES: &[(Trouble, &[&str])] = &[
    (
        Trouble::Clock,
        &["RequestTimeTooSkewed", "RequestInTheFuture"],
    ),
    // Before `AuthFailure`, which it begins with.
    (
        Trouble::Denied,
        &["AuthFailure.ServiceLinkedRoleCreationNotPermitted"],
    ),
    (
        Trouble::Credentials,
        &[
            "ExpiredToken",
            "ExpiredTokenException",
            "RequestExpired",
            "TokenRefreshRequired",
            "InvalidClientTokenId",
            "InvalidAccessKeyId",
            "InvalidToken",
            "UnrecognizedClient",
            "UnrecognizedClientException",
            "SignatureDoesNotMatch",
            "InvalidSignature",
            "InvalidSignatureException",
            "IncompleteSignature",
            "MissingAuthenticationToken",
            "MissingAuthenticationTokenException",
            "AuthFailure",
        ],
    ),
    (
        Trouble::Region,
        &[
            "PermanentRedirect",
            "AuthorizationHeaderMalformed",
            "IllegalLocationConstraintException",
        ],
    ),
    (
        Trouble::Missing,
        &[
            "NoSuchBucket",
            "NonExistentQueue",
            "QueueDoesNotExist",
            "InvalidLaunchTemplateId",
            "InvalidLaunchTemplateName",
            "InvalidSubnetID",
            "InvalidAMIID",
            "InvalidAddress",
        ],
    ),
    (
        Trouble::Denied,
        &[
            "AccessDenied",
            "AccessDeniedException",
            "UnauthorizedOperation",
        ],
    ),
    (
        Trouble::Unavailable,
        &[
            "SlowDown",
            "Throttling",
            "ThrottlingException",
            "RequestThrottled",
            "RequestLimitExceeded",
            "ServiceUnavailable",
            "InternalError",
        ],
    ),
];

#[cfg(test)]
mod tests {
    use muster_fleet::FleetError;
    use muster_queue::SourceError as QueueSourceError;

    use super::*;

    #[test]
    fn failures_are_counted_by_what_they_mean() {
        let count = || failures().collect::<std::collections::HashMap<_, _>>();
        let before = count();
        failed("a test", &s3("SlowDown"));
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

    fn s3(code: &str) -> std::io::Error {
        std::io::Error::other(format!(
            "Error performing GET http://s3 - <?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>No: AccessDenied.\
             </Message></Error>"
        ))
    }

    fn sqs(code: &str, message: &str) -> QueueError {
        let refusal = SqsRefusal {
            code: code.to_owned(),
            message: message.to_owned(),
            status: 400,
            request: "1".to_owned(),
        };
        QueueError::Refused {
            source: refusal.into(),
        }
    }

    fn ec2(code: &str) -> FleetError {
        let refusal = Ec2Refusal {
            code: code.to_owned(),
            message: "You are not AuthFailure.".to_owned(),
            request: "1".to_owned(),
        };
        FleetError::Refused {
            action: "launch".to_owned(),
            source: refusal.into(),
        }
    }

    #[test]
    fn codes_tell_what_is_to_be_mended() {
        for (code, trouble) in [
            ("RequestTimeTooSkewed", Some(Trouble::Clock)),
            ("ExpiredToken", Some(Trouble::Credentials)),
            ("NoSuchBucket", Some(Trouble::Missing)),
            ("PermanentRedirect", Some(Trouble::Region)),
            ("AccessDenied", Some(Trouble::Denied)),
            ("SlowDown", Some(Trouble::Unavailable)),
            // By its code, not by what its sentence mentions.
            ("NoSuchKey", None),
        ] {
            assert_eq!(Trouble::of(&s3(code)), trouble, "{code}");
        }
        for (code, message, trouble) in [
            (
                "SignatureDoesNotMatch",
                "Signature expired: 20260101T000000Z is now earlier than …",
                Trouble::Clock,
            ),
            (
                "SignatureDoesNotMatch",
                "It does not.",
                Trouble::Credentials,
            ),
            (
                "AWS.SimpleQueueService.NonExistentQueue",
                "",
                Trouble::Missing,
            ),
            ("RequestThrottled", "", Trouble::Unavailable),
        ] {
            let error = anyhow::Error::new(sqs(code, message)).context("open the queue");
            assert_eq!(
                Trouble::of(error.as_ref()),
                Some(trouble),
                "{code} {message}"
            );
        }
        for (code, trouble) in [
            ("UnauthorizedOperation", Trouble::Denied),
            ("AuthFailure", Trouble::Credentials),
            (
                "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
                Trouble::Denied,
            ),
            ("InvalidSubnetID.NotFound", Trouble::Missing),
        ] {
            assert_eq!(Trouble::of(&ec2(code)), Some(trouble), "{code}");
        }
    }

    #[test]
    fn failures_without_an_answer_are_told_by_their_kind() {
        assert_eq!(Trouble::of(&std::io::Error::other("disk full")), None);
        let missing = QueueError::NotFound {
            queue: "req-queue".to_owned(),
            source: None,
        };
        let error = anyhow::Error::new(missing).context("open the queue req-queue");
        assert_eq!(Trouble::of(error.as_ref()), Some(Trouble::Missing));
        let error = anyhow::Error::new(NoRegion).context("open the bucket");
        assert_eq!(Trouble::of(error.as_ref()), Some(Trouble::Region));
        let none = CredentialsError::not_loaded("no providers in chain");
        let error = anyhow::Error::new(none).context("renew the credentials");
        assert_eq!(Trouble::of(error.as_ref()), Some(Trouble::Credentials));
        let unavailable = |source: QueueSourceError| QueueError::Unavailable { source };
        let away = unavailable("dispatch failure".into());
        assert_eq!(Trouble::of(&away), Some(Trouble::Unavailable));
        let none = CredentialsError::not_loaded("no providers in chain");
        let unsigned = unavailable(none.into());
        assert_eq!(Trouble::of(&unsigned), Some(Trouble::Credentials));
    }
}
