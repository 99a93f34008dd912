//! What the tests run against in place of AWS: a protocol server of their own, a proxy that makes
//! its calls fail, and instances that really boot.
//!
//! Only tests depend on this crate. Everything listens on loopback, and nothing outlives the test
//! process that started it, however that ends.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, and so does what it stands on"
)]

mod ci;
mod http_server;
pub mod hypervisor;
pub mod imds;
pub mod moto;
pub mod proxy;
mod sdk;

pub use ci::in_ci;
pub use sdk::{REGION, sdk_config};
