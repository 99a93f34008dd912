//! Recognising a photograph: `POST /`, `POST /v1/recognize`, and results asked for later.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::TryStreamExt;
use muster_jobs::{Failure, FileName, Outcome, Purpose, Recognition, RequestId};
use object_store::ObjectStoreExt;
use serde::Serialize;
use utoipa::ToSchema;

use super::exchange::trace;
use super::extract::Path;
use super::openapi::{FormProblems, NotThere, WorkProblems};
use super::problem::{ApiError, Code};
use super::upload::FormRules;
use super::{App, AppState, printable};
use crate::backend::Backend;

/// A form with one photograph.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it documents what `upload` reads")]
struct PlainForm {
    /// A photograph: JPEG, PNG or WebP.
    #[schema(value_type = String, content_media_type = "application/octet-stream")]
    #[serde(rename = "inputFile")]
    input_file: (),
}

/// A form with one photograph.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it documents what `upload` reads")]
struct PhotoForm {
    /// A photograph: JPEG, PNG or WebP.
    #[schema(value_type = String, content_media_type = "application/octet-stream")]
    image: (),
}

/// How far a job is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum JobState {
    /// It waits or is worked on.
    Pending,
    /// Its result is there.
    Done,
}

/// A request whose client did not wait for its result.
#[derive(Serialize, ToSchema)]
pub struct JobView {
    id: RequestId,
    state: JobState,
    /// What came of it, once it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<JobResult>)]
    result: Option<serde_json::Value>,
}

/// What came of a job.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it documents what workers store")]
enum JobResult {
    Recognition(Box<Recognition>),
    Failure(Failure),
}

/// Name the person in a photograph, in one line
///
/// `<stem>:<name>`, as the system that Muster came from has it: the file's name without its
/// extension, and the name of the largest face that is known, or `unknown`. Errors are one plain
/// line.
#[utoipa::path(
    post,
    path = "/",
    tag = "recognition",
    request_body(content = PlainForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "`<stem>:<name>`", body = String, content_type = "text/plain"),
        FormProblems,
        WorkProblems,
    )
)]
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

/// Recognise every face in a photograph
#[utoipa::path(
    post,
    path = "/v1/recognize",
    tag = "recognition",
    request_body(content = PhotoForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "Every face, with what was decided of it.", body = Recognition),
        FormProblems,
        WorkProblems,
    )
)]
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

/// The error for a reply to another question than was asked, which no worker of this build sends.
pub fn mismatched() -> ApiError {
    ApiError::new(
        Code::Internal,
        "a worker of another version answered: run one version of muster",
    )
}

/// Ask for the result of a request whose client did not wait for it
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}",
    tag = "recognition",
    params(("id" = String, Path, description = "The job's id, a UUID.")),
    responses((status = 200, description = "How far it is.", body = JobView), NotThere)
)]
pub async fn job(State(app): AppState, Path(id): Path<String>) -> Result<Json<JobView>, ApiError> {
    let unknown = || ApiError::not_found(format!("there is no job {}", printable(&id)));
    let id: RequestId = id.parse().map_err(|_| unknown())?;
    let failed = |error| ApiError::internal("a job could not be read", &error);
    let Backend { input, output, .. } = &app.backend;
    let below = Backend::of_request(id);
    let found = output.list(Some(&below)).try_next().await.map_err(failed)?;
    if let Some(meta) = found {
        let stored = output.get(&meta.location).await.map_err(failed)?;
        let bytes = stored.bytes().await.map_err(failed)?;
        let result = serde_json::from_slice(&bytes)
            .map_err(|error| ApiError::internal("a stored result is not JSON", &error))?;
        return Ok(Json(JobView {
            id,
            state: JobState::Done,
            result: Some(result),
        }));
    }
    match input.list(Some(&below)).try_next().await.map_err(failed)? {
        Some(_) => Ok(Json(JobView {
            id,
            state: JobState::Pending,
            result: None,
        })),
        None => Err(unknown()),
    }
}
