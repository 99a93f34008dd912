//! Recognising a photograph: `POST /`, `POST /v1/recognize`, and results asked for later.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures::TryStreamExt;
use muster_jobs::{FileName, Outcome, Purpose, Recognition, RequestId, TraceParent};
use object_store::ObjectStoreExt;
use serde_json::json;

use super::problem::ApiError;
use super::upload::FormRules;
use super::{App, AppState, printable};
use crate::backend::Backend;

/// `POST /`, as the system that Muster came from has it: `<stem>:<name>` in plain text.
pub async fn plain(State(app): AppState, request: Request) -> Response {
    match recognize(&app, request, "inputFile").await {
        Ok((file, recognition)) => (
            [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
            format!("{}:{}", file.stem(), recognition.headline()),
        )
            .into_response(),
        Err(error) => error.into_plain(),
    }
}

/// `POST /v1/recognize`: every face, with its decision.
pub async fn json(
    State(app): AppState,
    request: Request,
) -> Result<Json<Box<Recognition>>, ApiError> {
    Ok(Json(recognize(&app, request, "image").await?.1))
}

async fn recognize(
    app: &App,
    request: Request,
    field: &str,
) -> Result<(FileName, Box<Recognition>), ApiError> {
    let trace = trace(request.headers());
    let rules = FormRules {
        photo_fields: &[field],
        min_photos: 1,
        max_photos: 1,
        text_fields: &[],
        limits: &app.limits,
    };
    let mut form = app.form(request, rules).await?;
    let photo = form
        .photos
        .pop()
        .expect("a form has at least one photograph");
    let file = photo.file.clone();
    match app.dispatcher.run(photo, Purpose::Recognize, trace).await? {
        Outcome::Recognized(recognition) if recognition.faces.is_empty() => {
            Err(ApiError::from(muster_jobs::Failure {
                code: muster_jobs::FailureCode::FaceNone,
                detail: format!(
                    "no face was found in {}: send a photograph that shows one",
                    file.as_str()
                ),
            })
            .with("request_id", recognition.request_id.to_string()))
        }
        Outcome::Recognized(recognition) => Ok((file, recognition)),
        Outcome::Failed(failure) => Err(failure.into()),
        Outcome::Embedded(_) | Outcome::Stored => Err(mismatched()),
    }
}

/// The trace that the client's `traceparent` names, continued; a new one where it names none.
pub fn trace(headers: &HeaderMap) -> TraceParent {
    headers
        .get("traceparent")
        .and_then(|value| value.to_str().ok()?.parse::<TraceParent>().ok())
        .map_or_else(TraceParent::new, TraceParent::child)
}

/// The error for a reply to another question than was asked, which no worker of this build sends.
pub fn mismatched() -> ApiError {
    ApiError::new(
        axum::http::StatusCode::INTERNAL_SERVER_ERROR,
        "internal",
        "a worker of another version answered: run one version of muster",
    )
}

/// `GET /v1/jobs/{id}`: the result of a request whose client did not wait for it.
pub async fn job(State(app): AppState, Path(id): Path<String>) -> Result<Response, ApiError> {
    let unknown = || ApiError::not_found(format!("there is no job {}", printable(&id)));
    let id: RequestId = id.parse().map_err(|_| unknown())?;
    let failed = |error| ApiError::internal("a job could not be read", &error);
    let Backend { input, output, .. } = &app.backend;
    let below = Backend::of_request(id);
    let found = output.list(Some(&below)).try_next().await.map_err(failed)?;
    if let Some(meta) = found {
        let stored = output.get(&meta.location).await.map_err(failed)?;
        let bytes = stored.bytes().await.map_err(failed)?;
        let result: serde_json::Value = serde_json::from_slice(&bytes)
            .map_err(|error| ApiError::internal("a stored result is not JSON", &error))?;
        return Ok(Json(json!({ "id": id, "state": "done", "result": result })).into_response());
    }
    match input.list(Some(&below)).try_next().await.map_err(failed)? {
        Some(_) => Ok(Json(json!({ "id": id, "state": "pending" })).into_response()),
        None => Err(unknown()),
    }
}
