//! How the service fares: `/v1/status`, `/healthz`, `/readyz`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use muster_api::status::{
    CpuView, FleetView, GalleryView, LatencyView, QueueStatus, RequestsView, StatusView,
};
use object_store::ObjectStoreExt;

use crate::api::openapi::problem_responses;
use crate::api::problem::ApiError;
use crate::observe::instances::instance;
use crate::observe::observer::Observer;
use muster_api::problem::Code;
use muster_base::aws;
use muster_base::backend::Backend;
use muster_base::cpu;

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
        version: env!("CARGO_PKG_VERSION").to_owned(),
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
            instances: report.instances.into_iter().map(instance).collect(),
            observed_at_ms: fleet.observed_at_ms,
            dollars_per_hour: report.cost.map(|cost| cost.dollars_per_hour),
            dollars_today: report.cost.map(|cost| cost.dollars_today),
            max_dollars_per_hour: report.cost.and_then(|cost| cost.max_dollars_per_hour),
            max_dollars_per_day: report.cost.and_then(|cost| cost.max_dollars_per_day),
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
        quality: observer.quality,
        failures: aws::failures()
            .map(|(kind, count)| (kind.to_owned(), count))
            .collect(),
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
        let outage = muster_base::outage(error);
        let detail = outage.unwrap_or_else(|| format!("{what} does not answer"));
        ApiError::new(Code::NotReady, detail)
    };
    backend
        .requests
        .counts()
        .await
        .map_err(|error| unready("the queue", &error))?;
    let space = backend.check_space().await;
    space.map_err(|error| unready("the object store", &error))?;
    match backend.state.head(&Backend::fleet_status()).await {
        Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok("ok\n"),
        Err(error) => Err(unready("the object store", &error)),
    }
}
