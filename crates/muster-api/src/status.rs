//! How a service fares.

use std::collections::HashMap;

use muster_jobs::QualityLimits;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How the service fares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StatusView {
    /// Muster's version.
    pub version: String,
    /// For how long this replica has been up.
    pub uptime_s: f64,
    /// The queue.
    pub queue: QueueStatus,
    /// The fleet.
    pub fleet: FleetView,
    /// Photographs, since this replica started.
    pub requests: RequestsView,
    /// Latencies, in milliseconds.
    pub latency_ms: LatencyView,
    /// The gallery.
    pub gallery: GalleryView,
    /// The embedder's name.
    pub model: String,
    /// The limits of a face's quality, by this replica's settings. It judges enrolments; workers judge who is
    /// named, by their own settings.
    #[serde(default)]
    #[schema(required = true)]
    pub quality: QualityLimits,
    /// Of stores and queues, since this process started, by what they mean.
    pub failures: HashMap<String, u64>,
    /// Processor time, in seconds.
    pub cpu_s: CpuView,
}

/// How many requests there are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QueueStatus {
    /// That wait for a worker.
    pub visible: u64,
    /// That a worker has.
    pub in_flight: u64,
    /// That were set aside.
    pub dead_letter: u64,
}

/// What the controller last saw and decided; all zero where none ever ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FleetView {
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
    /// The workers.
    pub instances: Vec<InstanceView>,
    /// Milliseconds since the Unix epoch.
    pub observed_at_ms: u64,
    /// What the workers that are there cost an hour, where their price is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dollars_per_hour: Option<f64>,
    /// What workers have cost since midnight (UTC), with what is billed for each at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dollars_today: Option<f64>,
    /// What the workers that are there may cost an hour, where that is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_dollars_per_hour: Option<f64>,
    /// What the workers of a day may cost, where that is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_dollars_per_day: Option<f64>,
}

/// Photographs, since this process started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RequestsView {
    /// Those that were taken.
    pub accepted: u64,
    /// Those that were answered.
    pub answered: u64,
    /// That timed out, that Muster failed on, or whose client hung up.
    pub failed: u64,
    /// That wait for their answer.
    pub waiting: usize,
}

/// Of the last 1000 answers; `null` before the first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LatencyView {
    /// The median.
    pub p50: Option<f64>,
    /// The 99th percentile.
    pub p99: Option<f64>,
}

/// The gallery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GalleryView {
    /// People enrolled.
    pub people: usize,
    /// Faces enrolled.
    pub faces: usize,
    /// Changes that led to it.
    pub version: u64,
}

/// Processor time outside the models: storage, queues, messages, and this replica's HTTP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CpuView {
    /// This replica's.
    pub web: Option<f64>,
    /// The workers'.
    pub workers: f64,
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InstanceView {
    /// Its name.
    pub id: String,
    /// Its state.
    pub state: InstanceState,
    /// Where it came from.
    #[serde(default)]
    #[schema(required = true)]
    pub tier: InstanceTier,
    /// Seconds since its launch.
    pub age_s: f64,
    /// Whether it works on a request, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy: Option<bool>,
}

/// Where a worker came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InstanceTier {
    /// A process on the controller's machine.
    Local,
    /// An EC2 instance that was stopped before, and was started.
    Stopped,
    /// An EC2 instance that was launched.
    #[default]
    Ec2,
}

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Launched, not yet taking work.
    Pending,
    /// Taking work.
    Running,
    /// Finishing what it has.
    Draining,
}
