//! How the service fares: `/v1/status`, `/healthz`, `/readyz`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use object_store::ObjectStoreExt;
use serde_json::json;

use super::problem::ApiError;
use super::{App, AppState};
use crate::aws;
use crate::backend::Backend;
use crate::controller::FleetStatus;
use crate::cpu;

/// `GET /v1/status`.
pub async fn status(State(app): AppState) -> Result<Response, ApiError> {
    let queue_failed = |error| ApiError::internal("the queue could not be counted", &error);
    let requests = app.backend.requests.counts().await.map_err(queue_failed)?;
    let dead = app
        .backend
        .dead_letters
        .counts()
        .await
        .map_err(queue_failed)?;
    let fleet = fleet(&app).await?;
    let report = &fleet.report;
    let ledger = app.dispatcher.ledger();
    let milliseconds = |latency: Duration| latency.as_secs_f64() * 1e3;
    let [p50, p99] = match ledger.percentiles([0.5, 0.99]) {
        Some(latencies) => latencies.map(|latency| Some(milliseconds(latency))),
        None => [None, None],
    };
    let (people, faces, version) = app
        .with_gallery(|gallery| (gallery.people_count(), gallery.faces(), gallery.version()))
        .await?;
    Ok(Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": app.started.elapsed().as_secs_f64(),
        "queue": {
            "visible": requests.visible,
            "in_flight": requests.in_flight,
            "dead_letter": dead.visible + dead.in_flight,
        },
        "fleet": {
            "pending": report.pending,
            "running": report.running,
            "draining": report.draining,
            "min": report.min,
            "max": report.max,
            "reason": report.reason,
            "instances": report.instances,
            "observed_at_ms": fleet.observed_at_ms,
        },
        "requests": {
            "accepted": ledger.accepted.load(Ordering::Relaxed),
            "answered": ledger.answered.load(Ordering::Relaxed),
            "failed": ledger.failed.load(Ordering::Relaxed),
            "waiting": app.dispatcher.waiting(),
        },
        "latency_ms": { "p50": p50, "p99": p99 },
        "gallery": { "people": people, "faces": faces, "version": version },
        "model": &*app.model,
        // Of stores and queues, since this process started.
        "failures": aws::failures(),
        // Outside the models: storage, queues, messages, and this replica's HTTP.
        "cpu_s": {
            "web": cpu::runtime_time().map(|used| used.as_secs_f64()),
            "workers": ledger.workers_io().as_secs_f64(),
        },
    }))
    .into_response())
}

/// What the controller last published; all zero where no controller ever ran on this store.
async fn fleet(app: &App) -> Result<FleetStatus, ApiError> {
    let failed = |error| ApiError::internal("the fleet's status could not be read", &error);
    let bytes = match app.backend.state.get(&Backend::fleet_status()).await {
        Ok(found) => found.bytes().await.map_err(failed)?,
        Err(object_store::Error::NotFound { .. }) => return Ok(FleetStatus::default()),
        Err(error) => return Err(failed(error)),
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::internal("the fleet's status is not JSON", &error))
}

/// `GET /healthz`: this process answers.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: requests can be stored, queued and looked up.
pub async fn readyz(State(app): AppState) -> Result<&'static str, ApiError> {
    let unready = |what: &str, error: &(dyn std::error::Error + 'static)| {
        tracing::warn!(error = %crate::Chain(error), "not ready: {what}");
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "not_ready",
            format!("{what} does not answer"),
        )
    };
    app.backend
        .requests
        .counts()
        .await
        .map_err(|error| unready("the queue", &error))?;
    match app.backend.state.head(&Backend::fleet_status()).await {
        Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok("ok\n"),
        Err(error) => Err(unready("the object store", &error)),
    }
}
