//! End-to-end tests: a real service in real processes, on the sample photographs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accuracy;
mod api;
mod audit;
mod aws;
mod bad_input;
mod bench;
mod clock;
mod costs;
mod crash;
mod decisions;
mod deletion;
mod described;
mod enrolment;
mod events;
mod exchange;
mod jobs;
mod keys;
mod logs;
mod main_job;
mod metrics;
mod model_change;
mod mutated;
mod names;
mod outages;
mod own_model;
mod people;
mod proxies;
mod quality;
mod several;
mod start;
mod support;
mod survival;
mod taken_over;
mod terminal;
mod traces;
