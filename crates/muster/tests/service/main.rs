//! End-to-end tests: a real service in real processes, on the sample photographs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod aws;
mod bad_input;
mod crash;
mod main_job;
mod people;
mod support;
