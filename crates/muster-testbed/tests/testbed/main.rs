//! The testbed, as tests use it.

mod ec2;
mod faults;
mod hypervisor;
mod imds;

use std::{
    fmt,
    sync::atomic::{AtomicU32, Ordering},
};

use aws_sdk_ec2::{
    config::retry::RetryConfig,
    error::{ProvideErrorMetadata, SdkError},
};
use muster_testbed::sdk_config;

fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{}-{number}", std::process::id())
}

/// An EC2 client that does not retry: what the server answers is what the test sees.
fn ec2_client(endpoint: &str) -> aws_sdk_ec2::Client {
    let config = aws_sdk_ec2::config::Builder::from(&sdk_config(endpoint))
        .retry_config(RetryConfig::disabled())
        .build();
    aws_sdk_ec2::Client::from_conf(config)
}

fn code<E: ProvideErrorMetadata + fmt::Debug>(error: &SdkError<E>) -> String {
    let code = error.as_service_error().and_then(|error| error.code());
    code.unwrap_or_else(|| panic!("not an answer of the service: {error:?}"))
        .to_owned()
}
