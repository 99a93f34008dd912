//! Fleets: one conformance suite for all of them, and what EC2 needs beyond it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod account;
mod conformance;
mod controllers;
mod crash;
mod ec2;
mod local;
mod store;
