//! Where EC2 is: the server in its place, or AWS's own in the region, as AWS's own tools find it.

use aws_config::SdkConfig;
use aws_smithy_runtime_api::client::endpoint::{
    EndpointFuture, EndpointResolverParams, ResolveEndpoint,
};
use aws_smithy_types::endpoint;
use aws_types::service_config::ServiceConfigKey;

/// Why there is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum EndpointError {
    #[error("no AWS region is set")]
    NoRegion,
    #[error(
        "FIPS and dual-stack endpoints are AWS's own: an endpoint of your own can not be either"
    )]
    OwnVariant,
}

/// The address of EC2, found once.
#[derive(Debug)]
pub(super) struct Endpoint(Result<String, EndpointError>);

impl Endpoint {
    pub fn new(config: &SdkConfig) -> Self {
        Self(find(config))
    }
}

impl ResolveEndpoint for Endpoint {
    fn resolve_endpoint<'a>(&'a self, _params: &'a EndpointResolverParams) -> EndpointFuture<'a> {
        let found = self.0.clone();
        EndpointFuture::ready(
            found
                .map(|url| endpoint::Endpoint::builder().url(url).build())
                .map_err(Into::into),
        )
    }
}

fn find(config: &SdkConfig) -> Result<String, EndpointError> {
    let fips = config.use_fips().unwrap_or_default();
    let dual_stack = config.use_dual_stack().unwrap_or_default();
    match own(config) {
        Some(_) if fips || dual_stack => Err(EndpointError::OwnVariant),
        Some(own) => Ok(own),
        None => {
            let region = config.region().ok_or(EndpointError::NoRegion)?;
            Ok(of_aws(region.as_ref(), fips, dual_stack))
        }
    }
}

/// The one that the program has set; else `AWS_ENDPOINT_URL_EC2`, the profile's for EC2, or the one
/// for every service.
fn own(config: &SdkConfig) -> Option<String> {
    let for_all = config.endpoint_url().map(str::to_owned);
    if config.get_origin("endpoint_url").is_client_config() {
        return for_all;
    }
    let key = ServiceConfigKey::builder()
        .service_id("EC2")
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .expect("every part is named");
    let for_ec2 = config
        .service_config()
        .and_then(|service| service.load_config(key));
    for_ec2.or(for_all)
}

/// AWS's own address (EC2's endpoint rules).
fn of_aws(region: &str, fips: bool, dual_stack: bool) -> String {
    let (domain, dual_stack_domain) = domains(region);
    let domain = if dual_stack {
        dual_stack_domain
    } else {
        domain
    };
    // In GovCloud the ordinary endpoint is the FIPS endpoint.
    let service = if fips && (dual_stack || !region.starts_with("us-gov-")) {
        "ec2-fips"
    } else {
        "ec2"
    };
    format!("https://{service}.{region}.{domain}")
}

/// The domain that AWS's services have in a region's partition: `amazonaws.com` in most.
pub fn aws_domain(region: &str) -> &'static str {
    domains(region).0
}

/// The domain of a region's partition, and that of its dual-stack endpoints (the partitions in the AWS
/// SDKs).
fn domains(region: &str) -> (&'static str, &'static str) {
    match region.split('-').next() {
        Some("cn") => ("amazonaws.com.cn", "api.amazonwebservices.com.cn"),
        Some("eusc") => ("amazonaws.eu", "api.amazonwebservices.eu"),
        _ if region.starts_with("us-iso-") => ("c2s.ic.gov", "api.aws.ic.gov"),
        _ if region.starts_with("us-isob-") => ("sc2s.sgov.gov", "api.aws.scloud"),
        _ if region.starts_with("eu-isoe-") => ("cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
        _ if region.starts_with("us-isof-") => ("csp.hci.ic.gov", "api.aws.hci.ic.gov"),
        _ => ("amazonaws.com", "api.aws"),
    }
}

#[cfg(test)]
mod tests {
    use aws_config::{BehaviorVersion, Region};
    use aws_types::origin::Origin;
    use aws_types::service_config::LoadServiceConfig;

    use super::*;

    #[test]
    fn every_partition_has_its_own_domains() {
        for (region, fips, dual_stack, url) in [
            (
                "eu-central-1",
                false,
                false,
                "https://ec2.eu-central-1.amazonaws.com",
            ),
            (
                "us-east-1",
                true,
                false,
                "https://ec2-fips.us-east-1.amazonaws.com",
            ),
            ("us-east-1", false, true, "https://ec2.us-east-1.api.aws"),
            (
                "us-east-1",
                true,
                true,
                "https://ec2-fips.us-east-1.api.aws",
            ),
            (
                "cn-north-1",
                false,
                false,
                "https://ec2.cn-north-1.amazonaws.com.cn",
            ),
            (
                "cn-north-1",
                true,
                true,
                "https://ec2-fips.cn-north-1.api.amazonwebservices.com.cn",
            ),
            (
                "us-gov-west-1",
                false,
                false,
                "https://ec2.us-gov-west-1.amazonaws.com",
            ),
            (
                "us-gov-west-1",
                true,
                false,
                "https://ec2.us-gov-west-1.amazonaws.com",
            ),
            (
                "us-gov-west-1",
                true,
                true,
                "https://ec2-fips.us-gov-west-1.api.aws",
            ),
            (
                "eusc-de-east-1",
                false,
                false,
                "https://ec2.eusc-de-east-1.amazonaws.eu",
            ),
            (
                "us-iso-east-1",
                false,
                false,
                "https://ec2.us-iso-east-1.c2s.ic.gov",
            ),
            (
                "us-isob-east-1",
                true,
                false,
                "https://ec2-fips.us-isob-east-1.sc2s.sgov.gov",
            ),
        ] {
            assert_eq!(of_aws(region, fips, dual_stack), url);
        }
    }

    /// Variables and profiles of the test's own.
    #[derive(Debug)]
    struct ForEc2(&'static str);

    impl LoadServiceConfig for ForEc2 {
        fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
            assert_eq!(key.service_id(), "EC2");
            Some(self.0.to_owned())
        }
    }

    #[test]
    fn the_program_comes_before_what_is_meant_for_ec2_and_that_before_the_rest() {
        let empty = || {
            SdkConfig::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(Region::new("eu-central-1"))
        };
        let for_all = || empty().endpoint_url("http://all");
        let for_ec2 = || for_all().service_config(ForEc2("http://ec2"));
        let mut program = for_ec2();
        program.insert_origin("endpoint_url", Origin::shared_config());
        let aws = "https://ec2.eu-central-1.amazonaws.com";
        for (config, found) in [
            (empty(), Ok(aws)),
            (for_all(), Ok("http://all")),
            (for_ec2(), Ok("http://ec2")),
            (program, Ok("http://all")),
            (for_ec2().use_fips(true), Err(EndpointError::OwnVariant)),
            (
                for_all().use_dual_stack(true),
                Err(EndpointError::OwnVariant),
            ),
            (SdkConfig::builder(), Err(EndpointError::NoRegion)),
        ] {
            assert_eq!(find(&config.build()), found.map(str::to_owned));
        }
    }
}
