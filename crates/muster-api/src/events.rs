//! The events of `/v1/events`: `history` first, then `sample` or `trouble` again and again.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::status::InstanceView;

/// What viewers are told with each sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Sample {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The queue.
    pub queue: Backlog,
    /// The fleet.
    pub fleet: FleetNow,
    /// Photographs, since this replica started.
    pub requests: Requests,
    /// Latencies, in milliseconds.
    pub latency_ms: Latency,
}

/// The request queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Backlog {
    /// Requests that wait for a worker.
    pub visible: u64,
    /// Requests that a worker has.
    pub in_flight: u64,
}

/// What the controller last published, as `/v1/status` has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FleetNow {
    /// Workers that start.
    pub pending: u32,
    /// Workers that take work.
    pub running: u32,
    /// Workers that finish what they have.
    pub draining: u32,
    /// Workers kept without work.
    pub min: u32,
    /// Workers never exceeded.
    pub max: u32,
    /// Why the fleet is as it is.
    pub reason: String,
    /// When the controller last published, in milliseconds since the Unix epoch.
    pub observed_at_ms: u64,
    /// The workers.
    pub instances: Vec<InstanceNow>,
}

/// A worker, and what it has answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InstanceNow {
    /// The worker.
    #[serde(flatten)]
    pub instance: InstanceView,
    /// Photographs that it has answered to this replica.
    pub answered: u64,
}

/// This replica's own count, since it started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Requests {
    /// Those that were taken.
    pub accepted: u64,
    /// Those that were answered.
    pub answered: u64,
    /// Those that timed out, that Muster failed on, or whose client hung up.
    pub failed: u64,
    /// Those that wait for their answer.
    pub waiting: usize,
}

/// Of this replica's answers of late; `null` where there are none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Latency {
    /// The median.
    #[schema(required)]
    pub p50: Option<f64>,
    /// The 99th percentile.
    #[schema(required)]
    pub p99: Option<f64>,
}

/// What can be drawn of earlier samples: a column each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// When, in milliseconds since the Unix epoch.
    #[schema(value_type = Vec<u64>)]
    pub at_ms: VecDeque<u64>,
    /// Requests that wait for a worker.
    #[schema(value_type = Vec<u64>)]
    pub visible: VecDeque<u64>,
    /// Requests that a worker has.
    #[schema(value_type = Vec<u64>)]
    pub in_flight: VecDeque<u64>,
    /// Workers that start.
    #[schema(value_type = Vec<u32>)]
    pub pending: VecDeque<u32>,
    /// Workers that take work.
    #[schema(value_type = Vec<u32>)]
    pub running: VecDeque<u32>,
    /// Workers that finish what they have.
    #[schema(value_type = Vec<u32>)]
    pub draining: VecDeque<u32>,
    /// Those that were answered.
    #[schema(value_type = Vec<u64>)]
    pub answered: VecDeque<u64>,
    /// The median.
    #[schema(value_type = Vec<Option<f64>>)]
    pub p50: VecDeque<Option<f64>>,
    /// The 99th percentile.
    #[schema(value_type = Vec<Option<f64>>)]
    pub p99: VecDeque<Option<f64>>,
    /// What the planner said, and when, each different from the one before.
    #[schema(value_type = Vec<Reason>)]
    pub reasons: VecDeque<Reason>,
}

/// What the planner said, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Reason {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Why the fleet is as it is.
    pub reason: String,
}

/// What viewers are told where there is no sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Trouble {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// One sentence.
    pub detail: String,
}
