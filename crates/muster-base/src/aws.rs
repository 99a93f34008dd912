//! AWS, or what speaks its protocols: one configuration for S3, SQS and EC2.
//!
//! Region, endpoint and credentials are found as AWS's own tools find them; object_store, which has
//! a chain of its own, is given the same ones.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

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
use tokio::sync::Mutex;

use crate::settings::{AwsSettings, S3Url};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long one attempt at an object may take: the largest photograph over a slow line.
const OBJECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long an object is tried for in all; a client waits for a minute by default.
const OBJECT_RETRY: Duration = Duration::from_secs(30);
/// Attempts at one call of SQS or EC2: a throttled one is worth more than the SDK's three.
const ATTEMPTS: u32 = 5;

const NO_REGION: &str = "no AWS region is set in muster.toml, AWS_REGION or the profile";

/// Finds region, endpoint and credentials.
///
/// # Errors
/// Where no region is to be found.
pub async fn sdk_config(settings: &AwsSettings) -> anyhow::Result<SdkConfig> {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS));
    if let Some(region) = &settings.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(endpoint) = &settings.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    let config = loader.load().await;
    anyhow::ensure!(config.region().is_some(), NO_REGION);
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
    let endpoint = own_endpoint(config, Service::S3)?;
    let plain = endpoint.as_ref().is_some_and(|e| e.starts_with("http://"));
    let client = ClientOptions::new()
        .with_allow_http(plain)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout(OBJECT_TIMEOUT);
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&place.bucket)
        .with_credentials(Arc::new(Credentials {
            provider: credentials,
            held: Mutex::default(),
        }))
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

/// A service of AWS that is spoken to by its URL.
#[derive(Clone, Copy, Debug)]
pub enum Service {
    /// S3.
    S3,
    /// SQS.
    Sqs,
}

impl Service {
    /// What AWS's own tools call it in variables and profiles, and its host names begin with.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::S3 => ("S3", "s3"),
            Self::Sqs => ("SQS", "sqs"),
        }
    }
}

/// Where a service answers: the server in its place, or AWS's own in the region.
///
/// # Errors
/// Where the configuration can not be read.
pub fn endpoint(config: &SdkConfig, service: Service) -> anyhow::Result<String> {
    if let Some(own) = own_endpoint(config, service)? {
        return Ok(own);
    }
    let region = config.region().map(AsRef::as_ref).unwrap_or_default();
    Ok(format!(
        "https://{}.{region}.amazonaws.com",
        service.names().1
    ))
}

/// The server that stands in a service's place, by the rules of AWS's own tools: the one for
/// everything, or the service's own from `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL_SQS` or the
/// profile.
fn own_endpoint(config: &SdkConfig, service: Service) -> anyhow::Result<Option<String>> {
    let key = ServiceConfigKey::builder()
        .service_id(service.names().0)
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .context("name the service's endpoint")?;
    let own = config
        .service_config()
        .and_then(|service| service.load_config(key));
    Ok(own.or_else(|| config.endpoint_url().map(str::to_owned)))
}

/// The region that a bucket is in, which S3 says to anybody who asks.
pub async fn region_of(config: &SdkConfig, place: &S3Url) -> Option<String> {
    let url = format!("{}/{}", endpoint(config, Service::S3).ok()?, place.bucket);
    let client = reqwest::Client::builder()
        .timeout(CONNECT_TIMEOUT)
        // The redirect says it too, and leads to a server that does not.
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .ok()?;
    let answer = client.head(url).send().await.ok()?;
    let region = answer.headers().get("x-amz-bucket-region")?;
    Some(region.to_str().ok()?.to_owned())
}

/// Credentials are renewed this long before they expire: EC2 has new ones five minutes ahead.
const RENEW_AHEAD: Duration = Duration::from_secs(300);

/// Hands the SDK's credentials to object_store, which asks for each request: they are held, since
/// asking anew costs calls to the instance's metadata or to STS.
#[derive(Debug)]
struct Credentials {
    provider: SharedCredentialsProvider,
    held: Mutex<Option<Held>>,
}

#[derive(Clone, Debug)]
struct Held {
    credential: Arc<AwsCredential>,
    /// `None`: they do not expire.
    expiry: Option<SystemTime>,
}

impl Held {
    fn outlasts(&self, time: SystemTime) -> bool {
        self.expiry.is_none_or(|expiry| expiry > time)
    }
}

#[async_trait]
impl CredentialProvider for Credentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut held = self.held.lock().await;
        let now = SystemTime::now();
        if let Some(held) = held.as_ref().filter(|h| h.outlasts(now + RENEW_AHEAD)) {
            return Ok(Arc::clone(&held.credential));
        }
        match self.provider.provide_credentials().await {
            Ok(found) => {
                let credential = Arc::new(AwsCredential {
                    key_id: found.access_key_id().to_owned(),
                    secret_key: found.secret_access_key().to_owned(),
                    token: found.session_token().map(str::to_owned),
                });
                *held = Some(Held {
                    credential: Arc::clone(&credential),
                    expiry: found.expiry(),
                });
                Ok(credential)
            }
            Err(error) => match held.as_ref().filter(|h| h.outlasts(now)) {
                Some(held) => {
                    failed("the credentials could not be renewed yet", &error);
                    Ok(Arc::clone(&held.credential))
                }
                None => Err(object_store::Error::Unauthenticated {
                    path: String::new(),
                    source: Box::new(error),
                }),
            },
        }
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
    /// Its name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Credentials => "credentials",
            Self::Denied => "denied",
            Self::Clock => "clock",
            Self::Region => "region",
            Self::Unavailable => "unavailable",
        }
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
        let chain = crate::ErrorChain(error).to_string();
        let by_code = CODES
            .iter()
            .find(|(_, codes)| codes.iter().any(|code| chain.contains(code)));
        if let Some((trouble, _)) = by_code {
            return Some(*trouble);
        }
        let mut link = Some(error);
        while let Some(error) = link {
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
            tracing::error!(error = %crate::ErrorChain(error), remedy = trouble.remedy(), "{context}");
        }
        None => tracing::error!(error = %crate::ErrorChain(error), "{context}"),
    }
}

/// Failures of this process since its start, by what they mean.
pub fn failures() -> impl Iterator<Item = (&'static str, u64)> {
    let named = ALL.iter().map(|trouble| trouble.name()).zip(&FAILURES);
    let all = named.chain([("other", &OTHER_FAILURES)]);
    all.map(|(name, count)| (name, count.load(Ordering::Relaxed)))
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
            NO_REGION,
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

    /// The deployment that the instance is tagged with, where its metadata shows tags: that has to be
    /// enabled for it.
    pub async fn deployment(&self) -> Option<String> {
        let tag = "/latest/meta-data/tags/instance/muster:deployment";
        self.metadata.get(tag).await.ok().map(String::from)
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
                    tracing::debug!(error = %crate::ErrorChain(&error), "no Spot interruption")
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
        let count = || failures().collect::<std::collections::HashMap<_, _>>();
        let before = count();
        failed("a test", &std::io::Error::other("<Code>SlowDown</Code>"));
        failed("a test", &std::io::Error::other("disk full"));
        let after = count();
        for name in ["unavailable", "other"] {
            assert!(after[name] > before[name], "{name}");
        }
        assert_eq!(after.len(), ALL.len() + 1);
        for trouble in ALL {
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
        let missing = QueueError::NotFound {
            queue: "req-queue".to_owned(),
            source: None,
        };
        let error = anyhow::Error::new(missing).context("open the queue req-queue");
        assert_eq!(Trouble::of(error.as_ref()), Some(Trouble::Missing));
    }
}
