//! A client of the EC2 Query API, on the transport, signing and credentials of the AWS SDK.
//!
//! The SDK's own client of EC2 is generated from the whole service, and takes longer to compile than
//! the rest of the AWS crates together; Muster makes six of its calls.

mod answer;
mod endpoint;
mod query;

pub use self::endpoint::aws_domain;

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_runtime::auth::SigV4OperationSigningConfig;
use aws_runtime::auth::sigv4::{SCHEME_ID, SigV4AuthScheme};
use aws_runtime::invocation_id::InvocationIdInterceptor;
use aws_runtime::service_clock_skew::{DisableClockSkewCorrection, ServiceClockSkewInterceptor};
use aws_runtime::user_agent::{ApiMetadata, UserAgentInterceptor};
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime::client::retries::classifiers::HttpStatusCodeClassifier;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::auth::AuthSchemeOptionResolverParams;
use aws_smithy_runtime_api::client::auth::static_resolver::StaticAuthSchemeOptionResolver;
use aws_smithy_runtime_api::client::endpoint::EndpointResolverParams;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextMut;
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::runtime_components::{
    RuntimeComponents, RuntimeComponentsBuilder,
};
use aws_smithy_runtime_api::client::runtime_plugin::StaticRuntimePlugin;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::{ConfigBag, Layer};
use aws_types::SigningName;
use aws_types::region::SigningRegion;
use aws_types::request_id::RequestId;
use http_body_util::Limited;
use serde::de::DeserializeOwned;

pub(super) use self::answer::{
    Acknowledged, DescribeInstances, DescribeLaunchTemplateVersions, Instance, RunInstances,
};
use self::endpoint::Endpoint;
pub(super) use self::query::Query;
use super::failure::{ErrorAnswer, Failure};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long one call may take. A launch of a batch takes seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of one answer: a page of 1000 instances with all their tags and interfaces is a quarter.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// EC2 in one region, or the server in its place.
#[derive(Debug)]
pub(super) struct Client {
    operation: Operation<Query, Vec<u8>, ErrorAnswer>,
}

impl Client {
    /// Builds a client on the credentials, the region, the endpoint and the transport of `config`.
    ///
    /// Its timeouts and retries are not used: a call takes 20 s at most and is made once. Shortages
    /// come with status 500, and who asks knows how long to wait.
    pub fn new(config: &SdkConfig) -> Self {
        let behavior = config
            .behavior_version()
            .unwrap_or_else(BehaviorVersion::latest);
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_timeout(CALL_TIMEOUT)
            .build();
        let operation = Operation::builder()
            .service_name("EC2")
            .operation_name("Query")
            .behavior_version(behavior)
            .no_retry()
            .timeout_config(timeouts)
            .retry_classifier(HttpStatusCodeClassifier::default())
            .with_connection_poisoning()
            .interceptor(ServiceClockSkewInterceptor::new())
            .interceptor(UserAgentInterceptor::new())
            .interceptor(InvocationIdInterceptor::new())
            .interceptor(AnswerLimit)
            .runtime_plugin(plugin(config))
            .serializer(request)
            .deserializer(response)
            .build();
        Self { operation }
    }

    /// Makes the call and reads its answer.
    ///
    /// # Errors
    /// What EC2 has said, or what happened on the way there or back.
    pub async fn call<T: DeserializeOwned>(&self, query: Query) -> Result<T, Failure> {
        let action = query.action();
        let body = self.operation.invoke(query).await?;
        answer::read(&body, &format!("{action}Response")).map_err(Failure::unreadable)
    }
}

/// What `config` says, where the SDK's orchestrator looks for it.
fn plugin(config: &SdkConfig) -> StaticRuntimePlugin {
    let mut layer = Layer::new("muster-fleet");
    layer.store_put(AuthSchemeOptionResolverParams::new(()));
    layer.store_put(EndpointResolverParams::new(()));
    layer.store_put(RetryConfig::disabled());
    layer.store_put(SigV4OperationSigningConfig::default());
    layer.store_put(SigningName::from_static("ec2"));
    layer.store_put(ApiMetadata::new("ec2", env!("CARGO_PKG_VERSION")));
    layer.store_or_unset(config.region().cloned().map(SigningRegion::from));
    layer.store_or_unset(config.app_name().cloned());
    let uncorrected = config.disable_clock_skew_correction();
    layer.store_or_unset(uncorrected.map(DisableClockSkewCorrection::from));

    let mut components = RuntimeComponentsBuilder::new("muster-fleet")
        .with_auth_scheme(SigV4AuthScheme::new())
        .with_auth_scheme_option_resolver(Some(StaticAuthSchemeOptionResolver::new(vec![
            SCHEME_ID,
        ])))
        .with_endpoint_resolver(Some(Endpoint::new(config)))
        .with_http_client(config.http_client())
        .with_sleep_impl(config.sleep_impl())
        .with_time_source(config.time_source());
    if let Some(credentials) = config.credentials_provider() {
        components.set_identity_resolver(SCHEME_ID, credentials);
    }
    if let Some(cache) = config.identity_cache() {
        components.set_identity_cache(Some(cache));
    }
    StaticRuntimePlugin::new()
        .with_config(layer.freeze())
        .with_runtime_components(components)
}

fn request(query: Query) -> Result<HttpRequest, BoxError> {
    let body = query.to_form();
    let length = body.len().to_string();
    let mut request = HttpRequest::new(SdkBody::from(body));
    request.set_method("POST")?;
    request.set_uri("/")?;
    let headers = request.headers_mut();
    headers.insert("content-type", "application/x-www-form-urlencoded");
    headers.insert("content-length", length);
    Ok(request)
}

fn response(response: &HttpResponse) -> Result<Vec<u8>, OrchestratorError<ErrorAnswer>> {
    let body = response.body().bytes().unwrap_or_default();
    let status = response.status();
    if status.is_success() {
        return Ok(body.to_vec());
    }
    let mut error = answer::read_error(body).unwrap_or_else(|| ErrorAnswer {
        code: String::new(),
        message: format!("HTTP {} without an error of EC2's", status.as_u16()),
        request_id: None,
    });
    let by_header = response.request_id().map(str::to_owned);
    error.request_id = error.request_id.or(by_header);
    Err(OrchestratorError::operation(error))
}

/// Ends an answer that is longer than any of EC2's.
#[derive(Debug)]
struct AnswerLimit;

#[dyn_dispatch_hint]
impl Intercept for AnswerLimit {
    fn name(&self) -> &'static str {
        "AnswerLimit"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response_mut().body_mut();
        let whole = std::mem::replace(body, SdkBody::taken());
        *body = SdkBody::from_body_1_x(Limited::new(whole, MAX_ANSWER_BYTES));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
