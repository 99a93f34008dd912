//! AWS, or what speaks its protocols: one configuration for S3, SQS and EC2.
//!
//! Region, endpoint and credentials are found as AWS's own tools find them; object_store, which has
//! a chain of its own, is given the same ones.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use aws_config::imds;
use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_types::service_config::ServiceConfigKey;
use muster_queue::QueueError;
use object_store::aws::{AmazonS3Builder, AwsCredential, S3ConditionalPut};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, CredentialProvider, ObjectStore};
use serde::Serialize;

use crate::config::{S3Url, Settings};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long one attempt at an object may take: the largest photograph over a slow line.
const OBJECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long an object is tried for in all; a client waits for a minute by default.
const OBJECT_RETRY: Duration = Duration::from_secs(30);
/// Attempts at one call of SQS or EC2: a throttled one is worth more than the SDK's three.
const ATTEMPTS: u32 = 5;

/// Finds region, endpoint and credentials.
///
/// # Errors
/// Where no region is to be found.
pub async fn sdk_config(settings: &Settings) -> anyhow::Result<SdkConfig> {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS));
    if let Some(region) = &settings.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(endpoint) = &settings.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    let config = loader.load().await;
    anyhow::ensure!(
        config.region().is_some(),
        "no AWS region is set: set region in muster.toml, or AWS_REGION"
    );
    Ok(config)
}

/// Opens a bucket, or the part of it that `place` names.
///
/// # Errors
/// Where the endpoint is no URL, or there are no credentials at all.
pub fn bucket(config: &SdkConfig, place: &S3Url) -> anyhow::Result<Arc<dyn ObjectStore>> {
    let credentials = config
        .credentials_provider()
        .context("no AWS credentials are configured")?;
    let endpoint = endpoint_of_s3(config)?;
    let plain = endpoint.as_ref().is_some_and(|e| e.starts_with("http://"));
    let client = ClientOptions::new()
        .with_allow_http(plain)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout(OBJECT_TIMEOUT);
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&place.bucket)
        .with_credentials(Arc::new(Credentials(credentials)))
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_client_options(client)
        .with_retry(object_store::RetryConfig {
            retry_timeout: OBJECT_RETRY,
            ..object_store::RetryConfig::default()
        });
    if let Some(region) = config.region() {
        builder = builder.with_region(region.as_ref());
    }
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    let store = builder
        .build()
        .with_context(|| format!("open the bucket {}", place.bucket))?;
    Ok(if place.prefix.is_empty() {
        Arc::new(store)
    } else {
        Arc::new(PrefixStore::new(store, Path::from(place.prefix.as_str())))
    })
}

/// The server that stands in S3's place, by the rules of AWS's own tools: the one for everything, or
/// S3's own from `AWS_ENDPOINT_URL_S3` or the profile.
fn endpoint_of_s3(config: &SdkConfig) -> anyhow::Result<Option<String>> {
    let key = ServiceConfigKey::builder()
        .service_id("S3")
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .context("name S3's endpoint")?;
    let own = config
        .service_config()
        .and_then(|service| service.load_config(key));
    Ok(own.or_else(|| config.endpoint_url().map(str::to_owned)))
}

/// Hands the SDK's credentials to object_store.
#[derive(Debug)]
struct Credentials(SharedCredentialsProvider);

#[async_trait]
impl CredentialProvider for Credentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let found = self.0.provide_credentials().await.map_err(|error| {
            object_store::Error::Unauthenticated {
                path: String::new(),
                source: Box::new(error),
            }
        })?;
        Ok(Arc::new(AwsCredential {
            key_id: found.access_key_id().to_owned(),
            secret_key: found.secret_access_key().to_owned(),
            token: found.session_token().map(str::to_owned),
        }))
    }
}

/// What a failure means for whoever can mend it; the exit code of a role that fails at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
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
        let mut link = Some(error);
        while let Some(error) = link {
            match error.downcast_ref() {
                Some(QueueError::NotFound { .. }) => return Some(Self::Missing),
                Some(QueueError::Unavailable { .. } | QueueError::Throttled { .. }) => {
                    return Some(Self::Unavailable);
                }
                _ => link = error.source(),
            }
        }
        let chain = crate::Chain(error).to_string();
        CODES
            .iter()
            .find(|(_, codes)| codes.iter().any(|code| chain.contains(code)))
            .map(|(trouble, _)| *trouble)
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
            tracing::error!(error = %crate::Chain(error), remedy = trouble.remedy(), "{context}");
        }
        None => tracing::error!(error = %crate::Chain(error), "{context}"),
    }
}

/// Failures of this process since its start, by what they mean.
pub fn failures() -> serde_json::Map<String, serde_json::Value> {
    let named = ALL.iter().zip(&FAILURES).filter_map(|(trouble, count)| {
        let name = serde_json::to_value(trouble).ok()?.as_str()?.to_owned();
        Some((name, count))
    });
    named
        .chain([("other".to_owned(), &OTHER_FAILURES)])
        .map(|(name, count)| (name, count.load(Ordering::Relaxed).into()))
        .collect()
}

/// In the order of their numbers.
const ALL: [Trouble; 6] = [
    Trouble::Missing,
    Trouble::Credentials,
    Trouble::Denied,
    Trouble::Clock,
    Trouble::Region,
    Trouble::Unavailable,
];
static FAILURES: [AtomicU64; ALL.len()] = [const { AtomicU64::new(0) }; ALL.len()];
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

/// This machine as an EC2 instance, by its metadata service (version 2).
#[derive(Debug)]
pub struct ThisInstance {
    metadata: imds::Client,
    /// The instance's id.
    pub id: String,
}

impl ThisInstance {
    /// Asks the metadata service who this is.
    ///
    /// # Errors
    /// Where this is no EC2 instance, or its metadata service is turned off.
    pub async fn find() -> anyhow::Result<Self> {
        let metadata = imds::Client::builder().build();
        let id = metadata
            .get("/latest/meta-data/instance-id")
            .await
            .context(
                "ask the metadata service for this instance's id: run the worker on an EC2 \
                 instance, or name it with --id",
            )?;
        Ok(Self {
            id: String::from(id),
            metadata,
        })
    }

    /// Returns once EC2 has announced that it will take this Spot instance back, two minutes
    /// ahead.
    ///
    /// Asks as often as EC2 recommends. A metadata service that does not answer says nothing.
    pub async fn interrupted(&self) {
        /// "We recommend that you check for these interruption notices every 5 seconds."
        const EVERY: Duration = Duration::from_secs(5);
        loop {
            match self
                .metadata
                .get("/latest/meta-data/spot/instance-action")
                .await
            {
                Ok(_) => return,
                Err(error) => {
                    tracing::debug!(error = %crate::Chain(&error), "no Spot interruption")
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_what_they_mean() {
        let before = failures();
        failed("a test", &std::io::Error::other("<Code>SlowDown</Code>"));
        failed("a test", &std::io::Error::other("disk full"));
        let after = failures();
        for name in ["unavailable", "other"] {
            assert!(after[name].as_u64() > before[name].as_u64(), "{name}");
        }
        assert_eq!(after.len(), ALL.len() + 1);
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
        let missing = QueueError::NotFound {
            queue: "req-queue".to_owned(),
            source: None,
        };
        let error = anyhow::Error::new(missing).context("open the queue req-queue");
        assert_eq!(Trouble::of(error.as_ref()), Some(Trouble::Missing));
    }
}
