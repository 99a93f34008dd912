//! The HTTP API as its clients see it, and with the feature `client` a client of it.

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "client")]
pub mod files;
#[cfg(feature = "client")]
pub mod progress;
