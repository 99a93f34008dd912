//! The HTTP API as its clients see it, and with the feature `client` a client of it.

#[cfg(feature = "client")]
pub mod client;
pub mod events;
#[cfg(feature = "client")]
pub mod files;
pub mod gallery;
pub mod jobs;
pub mod people;
pub mod problem;
#[cfg(feature = "client")]
pub mod progress;
pub mod recognition;
pub mod samples;
pub mod status;
