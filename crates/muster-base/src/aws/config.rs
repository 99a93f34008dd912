//! Region, endpoint and credentials, found as AWS's own tools find them; object_store, which has a
//! chain of its own, is given the same ones.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_types::service_config::ServiceConfigKey;
use muster_fleet::aws_domain;
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore};

use super::credentials::Credentials;
use super::trouble::NoRegion;
use crate::settings::{AwsSettings, S3Url};

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
    if config.region().is_none() {
        return Err(NoRegion.into());
    }
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
    let region = config.region().map(AsRef::as_ref).unwrap_or_default();
    let endpoint = own_endpoint(config, AwsService::S3)?
        // The builder knows the domain of the commercial regions only.
        .or_else(|| {
            (aws_domain(region) != "amazonaws.com").then(|| of_aws(AwsService::S3, region))
        });
    let plain = endpoint.as_ref().is_some_and(|e| e.starts_with("http://"));
    let client = ClientOptions::new()
        .with_allow_http(plain)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout(OBJECT_TIMEOUT);
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&place.bucket)
        .with_credentials(Arc::new(Credentials::new(credentials)))
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
pub enum AwsService {
    /// S3.
    S3,
    /// SQS.
    Sqs,
}

impl AwsService {
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
pub fn endpoint(config: &SdkConfig, service: AwsService) -> anyhow::Result<String> {
    if let Some(own) = own_endpoint(config, service)? {
        return Ok(own);
    }
    let region = config.region().map(AsRef::as_ref).unwrap_or_default();
    Ok(of_aws(service, region))
}

/// AWS's own address of a service in a region.
fn of_aws(service: AwsService, region: &str) -> String {
    format!(
        "https://{}.{region}.{}",
        service.names().1,
        aws_domain(region)
    )
}

/// The server that stands in a service's place, by the rules of AWS's own tools: the one for
/// everything, or the service's own from `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL_SQS` or the
/// profile.
fn own_endpoint(config: &SdkConfig, service: AwsService) -> anyhow::Result<Option<String>> {
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
    let url = format!(
        "{}/{}",
        endpoint(config, AwsService::S3).ok()?,
        place.bucket
    );
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_is_in_the_domain_of_the_regions_partition() {
        for (region, s3, sqs) in [
            (
                "eu-central-1",
                "https://s3.eu-central-1.amazonaws.com",
                "https://sqs.eu-central-1.amazonaws.com",
            ),
            (
                "cn-north-1",
                "https://s3.cn-north-1.amazonaws.com.cn",
                "https://sqs.cn-north-1.amazonaws.com.cn",
            ),
        ] {
            let config = SdkConfig::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(Region::new(region))
                .build();
            assert_eq!(endpoint(&config, AwsService::S3).unwrap(), s3);
            assert_eq!(endpoint(&config, AwsService::Sqs).unwrap(), sqs);
        }
    }
}
