//! Recognising photographs: `POST /` and `POST /v1/recognize`.

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::future::join_all;
use muster_api::recognition::{PhotoResult, RecognitionAnswer, Recognitions};
use muster_jobs::{FileName, Outcome, Printable, Recognition, TraceParent};
use utoipa::ToSchema;

use crate::access::caller::Caller;
use crate::api::openapi::{FormProblems, WorkProblems};
use crate::api::problem::ApiError;
use crate::dispatch::answer::{mismatched, no_face};
use crate::dispatch::dispatcher::Dispatcher;
use crate::exchange::{self, trace};
use crate::forms::upload::{Form, Photo};
use crate::forms::uploads::{PhotosForm, Uploads};

/// A form with one photograph.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it documents what `upload` reads")]
struct PlainForm {
    /// A photograph: JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC, AVIF or JPEG XL.
    #[schema(value_type = String, content_media_type = "application/octet-stream")]
    #[serde(rename = "inputFile")]
    input_file: (),
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
pub async fn plain(
    State(uploads): State<Uploads>,
    State(dispatcher): State<Dispatcher>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    match one(&uploads, &dispatcher, &caller, request).await {
        Ok((file, recognition)) => (
            [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
            format!("{}:{}", file.stem(), Printable(recognition.headline())),
        )
            .into_response(),
        Err(error) => error.into_plain(),
    }
}

async fn one(
    uploads: &Uploads,
    dispatcher: &Dispatcher,
    caller: &Caller,
    request: Request,
) -> Result<(FileName, Box<Recognition>), ApiError> {
    let trace = trace(request.headers());
    let mut form = uploads
        .form(request, uploads.rules(&["inputFile"], 1))
        .await?;
    let photo = form
        .photos
        .pop()
        .expect("a form has at least one photograph");
    let file = photo.file.clone();
    Ok((file, recognize(dispatcher, photo, caller, trace).await?))
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
pub async fn json(
    State(uploads): State<Uploads>,
    State(dispatcher): State<Dispatcher>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<RecognitionAnswer>, ApiError> {
    let trace = trace(request.headers());
    let mut rules = uploads.rules(&["image"], uploads.max_images);
    rules.apart = true;
    let Form {
        mut photos,
        mut refused,
        ..
    } = uploads.form(request, rules).await?;
    if photos.len() + refused.len() == 1 {
        return match (photos.pop(), refused.pop()) {
            (Some(photo), _) => {
                let recognition = recognize(&dispatcher, photo, &caller, trace).await?;
                Ok(Json(RecognitionAnswer::One(recognition)))
            }
            (None, Some((_, _, error))) => Err(error),
            (None, None) => unreachable!("a form has at least one photograph"),
        };
    }
    dispatcher.check_room(photos.len())?;
    let runs = photos.into_iter().map(async |photo| {
        let file = photo.file.clone();
        match recognize(&dispatcher, photo, &caller, trace).await {
            Ok(recognition) => PhotoResult::Recognized { file, recognition },
            Err(error) => PhotoResult::Refused {
                file,
                problem: Box::new(error.into_problem()),
            },
        }
    });
    let mut results = join_all(runs).await;
    // By their place, first to last, so that each gets its own.
    for (place, file, error) in refused {
        let problem = Box::new(error.into_problem());
        results.insert(place, PhotoResult::Refused { file, problem });
    }
    Ok(Json(RecognitionAnswer::Several(Recognitions {
        request_id: exchange::current_id(),
        results,
    })))
}

async fn recognize(
    dispatcher: &Dispatcher,
    photo: Photo,
    caller: &Caller,
    trace: TraceParent,
) -> Result<Box<Recognition>, ApiError> {
    let file = photo.file.clone();
    match dispatcher.recognize(photo, caller.owner(), trace).await? {
        Outcome::Recognized(recognition) if recognition.faces.is_empty() => {
            Err(no_face(file.as_str())
                .with(|members| members.request_id = Some(recognition.request_id.to_string())))
        }
        Outcome::Recognized(recognition) => Ok(recognition),
        Outcome::Failed(failure) => Err(failure.into()),
        Outcome::Embedded(_) | Outcome::Stored => Err(mismatched()),
    }
}
