//! Recognising photographs: `POST /` and `POST /v1/recognize`.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures::future::join_all;
use muster_jobs::{Failure, FailureCode, FileName, Outcome, Recognition, RequestId, TraceParent};
use serde::Serialize;
use serde_json::Value;

use super::dispatch::Ask;
use super::problem::ApiError;
use super::upload::{Form, FormRules, Photo};
use super::{App, AppState};

/// `POST /`, as the system that Muster came from has it: `<stem>:<name>` in plain text.
pub async fn plain(State(app): AppState, request: Request) -> Response {
    match one(&app, request).await {
        Ok((file, recognition)) => (
            [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
            format!("{}:{}", file.stem(), recognition.headline()),
        )
            .into_response(),
        Err(error) => error.into_plain(),
    }
}

async fn one(app: &App, request: Request) -> Result<(FileName, Box<Recognition>), ApiError> {
    let trace = trace(request.headers());
    let mut form = app.form(request, rules(app, &["inputFile"], 1)).await?;
    let photo = form
        .photos
        .pop()
        .expect("a form has at least one photograph");
    let file = photo.file.clone();
    Ok((file, recognize(app, photo, trace).await?))
}

/// The answer to several photographs.
#[derive(Debug, Serialize)]
pub struct Recognitions {
    request_id: RequestId,
    /// One for each photograph, in their order.
    results: Vec<PhotoResult>,
}

/// What came of one of several photographs.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum PhotoResult {
    /// Its faces.
    Recognized {
        /// The client's name of the photograph.
        file: FileName,
        #[serde(flatten)]
        recognition: Box<Recognition>,
    },
    /// Why there are none.
    Refused {
        /// The client's name of the photograph.
        file: FileName,
        /// What the photograph alone would have been answered.
        problem: Value,
    },
}

/// `POST /v1/recognize`: every face of a photograph, with its decision; of several photographs, the
/// same for each, or its own problem.
///
/// Several are recognised at the same time, as far as there are workers.
pub async fn json(State(app): AppState, request: Request) -> Result<Response, ApiError> {
    let trace = trace(request.headers());
    let mut rules = rules(&app, &["image"], app.max_images);
    rules.apart = true;
    let Form {
        mut photos,
        mut refused,
        ..
    } = app.form(request, rules).await?;
    if photos.len() + refused.len() == 1 {
        return match (photos.pop(), refused.pop()) {
            (Some(photo), _) => Ok(Json(recognize(&app, photo, trace).await?).into_response()),
            (None, Some((_, _, error))) => Err(error),
            (None, None) => unreachable!("a form has at least one photograph"),
        };
    }
    app.dispatcher.check_room(photos.len())?;
    let runs = photos.into_iter().map(async |photo| {
        let file = photo.file.clone();
        match recognize(&app, photo, trace).await {
            Ok(recognition) => PhotoResult::Recognized { file, recognition },
            Err(error) => PhotoResult::Refused {
                file,
                problem: error.to_json(),
            },
        }
    });
    let mut results = join_all(runs).await;
    // By their place, first to last, so that each gets its own.
    for (place, file, error) in refused {
        let problem = error.to_json();
        results.insert(place, PhotoResult::Refused { file, problem });
    }
    Ok(Json(Recognitions {
        request_id: RequestId::new(),
        results,
    })
    .into_response())
}

/// A form with photographs to recognise, at least one.
pub fn rules<'a>(app: &'a App, fields: &'a [&'a str], max_photos: usize) -> FormRules<'a> {
    FormRules {
        photo_fields: fields,
        min_photos: 1,
        max_photos,
        text_fields: &[],
        limits: &app.limits,
        apart: false,
    }
}

async fn recognize(
    app: &App,
    photo: Photo,
    trace: TraceParent,
) -> Result<Box<Recognition>, ApiError> {
    let file = photo.file.clone();
    match app.dispatcher.run(photo, Ask::recognize(), trace).await? {
        Outcome::Recognized(recognition) if recognition.faces.is_empty() => {
            Err(no_face(file.as_str()).with("request_id", recognition.request_id.to_string()))
        }
        Outcome::Recognized(recognition) => Ok(recognition),
        Outcome::Failed(failure) => Err(failure.into()),
        Outcome::Embedded(_) | Outcome::Stored => Err(mismatched()),
    }
}

/// The error for a photograph without a face.
pub fn no_face(file: &str) -> ApiError {
    ApiError::from(Failure {
        code: FailureCode::FaceNone,
        detail: format!("no face was found in {file}: send a photograph that shows one"),
    })
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
