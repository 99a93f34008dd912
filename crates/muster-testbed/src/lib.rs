//! What the tests run against in place of AWS: a protocol server of their own, a proxy that makes
//! its calls fail, and instances that really boot.
//!
//! Only tests depend on this crate. Everything listens on loopback, and nothing outlives the test
//! process that started it, however that ends.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, and so does what it stands on"
)]

pub mod hypervisor;
pub mod imds;
pub mod moto;
pub mod proxy;
mod serving;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ec2::config::{Credentials, SharedCredentialsProvider};

/// Whether this is continuous integration, `CI=true`: there a test fails for what it needs and is not
/// installed, elsewhere it is skipped.
pub fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|ci| ci == "true")
}

/// The region that tests use.
pub const REGION: &str = "eu-central-1";

/// An SDK configuration for a server at `endpoint`, which takes any credentials.
pub fn sdk_config(endpoint: &str) -> SdkConfig {
    let credentials = Credentials::new("test", "test", None, None, "tests");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .endpoint_url(endpoint)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}
