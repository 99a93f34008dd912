//! Recognising photographs: `POST /` and `POST /v1/recognize`.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::future::join_all;
use muster_jobs::{
    Failure, FailureCode, FileName, Outcome, Purpose, Recognition, RequestId, TraceParent,
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::exchange::trace;
use super::openapi::{FormProblems, WorkProblems};
use super::problem::{ApiError, Code, Problem};
use super::upload::{Form, FormRules, Photo};
use super::{App, AppState};

/// A form with one photograph.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it documents what `upload` reads")]
struct PlainForm {
    /// A photograph: JPEG, PNG, WebP, GIF, BMP or TIFF.
    #[schema(value_type = String, content_media_type = "application/octet-stream")]
    #[serde(rename = "inputFile")]
    input_file: (),
}

/// A form with photographs.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it documents what `upload` reads")]
pub struct PhotosForm {
    /// Photographs, at least one: JPEG, PNG, WebP, GIF, BMP or TIFF.
    #[schema(value_type = Vec<String>, min_items = 1)]
    image: (),
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
#[derive(Debug, Serialize, ToSchema)]
pub struct Recognitions {
    request_id: RequestId,
    /// One for each photograph, in their order.
    results: Vec<PhotoResult>,
}

/// What came of one of several photographs.
#[derive(Debug, Serialize, ToSchema)]
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
        #[schema(value_type = Problem)]
        problem: Value,
    },
}

/// What the recognition of a form's photographs is answered.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it documents what `json` answers")]
enum RecognitionAnswer {
    /// Of one photograph.
    One(Box<Recognition>),
    /// Of several.
    Several(Recognitions),
}

/// Recognise every face in a photograph, or in each of several
///
/// Several photographs are recognised at the same time, as far as there are workers, and each has
/// its own result or problem.
#[utoipa::path(
    post,
    path = "/v1/recognize",
    tag = "recognition",
    request_body(content = PhotosForm, content_type = "multipart/form-data"),
    responses(
        (
            status = 200,
            description = "Every face, with what was decided of it.",
            body = RecognitionAnswer,
        ),
        FormProblems,
        WorkProblems,
    )
)]
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
    match app.dispatcher.run(photo, Purpose::Recognize, trace).await? {
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

/// The error for a reply to another question than was asked, which no worker of this build sends.
pub fn mismatched() -> ApiError {
    ApiError::new(
        Code::Internal,
        "a worker of another version answered: run one version of muster",
    )
}
