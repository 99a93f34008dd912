//! How the service fares: `/v1/status`, `/healthz`, `/readyz`.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use muster_fleet::Instance;
use object_store::ObjectStoreExt;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::openapi::problem_responses;
use crate::api::problem::{ApiError, Code};
use crate::observe::observer::Observer;
use muster_base::aws;
use muster_base::backend::Backend;
use muster_base::cpu;

/// How the service fares.
#[derive(Serialize, ToSchema)]
pub struct StatusView {
    /// Muster's version.
    version: &'static str,
    uptime_s: f64,
    queue: QueueStatus,
    fleet: FleetView,
    requests: RequestsView,
    latency_ms: LatencyView,
    gallery: GalleryView,
    /// The embedder's name.
    model: String,
    /// Of stores and queues, since this process started, by what they mean.
    failures: HashMap<&'static str, u64>,
    cpu_s: CpuView,
}

/// How many requests there are.
#[derive(Serialize, ToSchema)]
struct QueueStatus {
    /// That wait for a worker.
    visible: u64,
    /// That a worker has.
    in_flight: u64,
    /// That were set aside.
    dead_letter: u64,
}

/// What the controller last saw and decided; all zero where none ever ran.
#[derive(Serialize, ToSchema)]
struct FleetView {
    pending: u32,
    running: u32,
    draining: u32,
    min: u32,
    max: u32,
    /// Why the fleet is as it is.
    reason: String,
    #[schema(value_type = Vec<Object>)]
    instances: Vec<Instance>,
    /// Milliseconds since the Unix epoch.
    observed_at_ms: u64,
}

/// Photographs, since this process started.
#[derive(Serialize, ToSchema)]
struct RequestsView {
    accepted: u64,
    answered: u64,
    /// That timed out, that Muster failed on, or whose client hung up.
    failed: u64,
    /// That wait for their answer.
    waiting: usize,
}

/// Of the last 1000 answers; `null` before the first.
#[derive(Serialize, ToSchema)]
struct LatencyView {
    p50: Option<f64>,
    p99: Option<f64>,
}

/// The gallery.
#[derive(Serialize, ToSchema)]
struct GalleryView {
    people: usize,
    faces: usize,
    version: u64,
}

/// Processor time outside the models: storage, queues, messages, and this replica's HTTP.
#[derive(Serialize, ToSchema)]
struct CpuView {
    web: Option<f64>,
    workers: f64,
}

problem_responses! {
    /// A store or a queue does not answer.
    Unready: NotReady;
}

/// Say how the service fares
#[utoipa::path(
    get,
    path = "/v1/status",
    tag = "service",
    responses((status = 200, description = "How it fares.", body = StatusView))
)]
pub async fn status(State(observer): State<Observer>) -> Result<Json<StatusView>, ApiError> {
    let observation = observer.observe().await;
    let queue_failed = |error| ApiError::internal("the queue could not be counted", &error);
    let (requests, dead) = (observation.requests, observation.dead);
    let (requests, dead) = (requests.map_err(queue_failed)?, dead.map_err(queue_failed)?);
    let fleet = observation.fleet.map_err(|error| {
        ApiError::internal("the fleet's status could not be read", error.as_ref())
    })?;
    let (people, faces, version, model) = observation
        .gallery
        .map_err(|error| ApiError::internal("the gallery could not be read", &error))?;
    let report = fleet.report;
    let counts = observer.dispatcher.counts();
    let milliseconds = |latency: Duration| latency.as_secs_f64() * 1e3;
    let [p50, p99] = match counts.percentiles([0.5, 0.99]) {
        Some(latencies) => latencies.map(|latency| Some(milliseconds(latency))),
        None => [None, None],
    };
    Ok(Json(StatusView {
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: observer.started.elapsed().as_secs_f64(),
        queue: QueueStatus {
            visible: requests.visible,
            in_flight: requests.in_flight,
            dead_letter: dead.visible + dead.in_flight,
        },
        fleet: FleetView {
            pending: report.pending,
            running: report.running,
            draining: report.draining,
            min: report.min,
            max: report.max,
            reason: report.reason,
            instances: report.instances,
            observed_at_ms: fleet.observed_at_ms,
        },
        requests: RequestsView {
            accepted: counts.accepted.load(Ordering::Relaxed),
            answered: counts.answered.load(Ordering::Relaxed),
            failed: counts.failed.load(Ordering::Relaxed),
            waiting: observer.dispatcher.waiting(),
        },
        latency_ms: LatencyView { p50, p99 },
        gallery: GalleryView {
            people,
            faces,
            version,
        },
        model,
        failures: aws::failures().collect(),
        cpu_s: CpuView {
            web: cpu::beside_models().map(|used| used.as_secs_f64()),
            workers: counts.workers_io().as_secs_f64(),
        },
    }))
}

/// Say that this process answers
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "service",
    responses((status = 200, description = "`ok`", body = String, content_type = "text/plain"))
)]
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// Say whether requests can be stored, queued and looked up
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "service",
    responses(
        (status = 200, description = "`ok`", body = String, content_type = "text/plain"),
        Unready,
    )
)]
pub async fn readyz(State(backend): State<Backend>) -> Result<&'static str, ApiError> {
    let unready = |what: &str, error: &(dyn std::error::Error + 'static)| {
        tracing::warn!(error = %muster_base::ErrorChain(error), "not ready: {what}");
        ApiError::new(Code::NotReady, format!("{what} does not answer"))
    };
    backend
        .requests
        .counts()
        .await
        .map_err(|error| unready("the queue", &error))?;
    match backend.state.head(&Backend::fleet_status()).await {
        Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok("ok\n"),
        Err(error) => Err(unready("the object store", &error)),
    }
}
