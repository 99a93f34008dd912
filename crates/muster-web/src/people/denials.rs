//! "This is not that person": faces that are never taken for the person again.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use muster_api::people::{DenialDeletion, DenialView, Denials, WrongAnswer};
use muster_gallery::{Denial, DenialId, Person, Source};
use muster_jobs::{MAX_FACES, Outcome, now_ms};
use object_store::{ObjectStoreExt, PutPayload};
use uuid::Uuid;

use crate::api::extract::Path;
use crate::api::gallery;
use crate::api::openapi::{BodyProblems, NotThere, WorkProblems};
use crate::api::problem::ApiError;
use crate::dispatch::answer::{embeddings, mismatched};
use crate::exchange::trace;
use crate::forms::printable::printable;
use crate::people::deletion::{Begun, Deletions};
use crate::people::edit::edit;
use crate::people::enrolment::{Enroller, expect_model};
use crate::people::photographs;
use crate::people::rules::{ModelChanged, PersonFull, check_denials, no_such_person, person_id};
use crate::people::views;
use muster_base::backend::Backend;
use muster_base::live_gallery::LiveGallery;

/// List what was said not to be a person
#[utoipa::path(
    get,
    path = "/v1/people/{id}/denials",
    operation_id = "list_denials",
    tag = "people",
    params(("id" = uuid::Uuid, Path, description = "The person's id.")),
    responses((status = 200, description = "The denials.", body = Denials), NotThere)
)]
pub async fn list(
    State(live): State<LiveGallery>,
    Path(id): Path<String>,
) -> Result<Json<Denials>, ApiError> {
    let person = person_id(&id)?;
    let denials = |person: &Person| Denials {
        denials: person.denials.iter().map(views::denial).collect(),
    };
    gallery::read(&live, |gallery| {
        gallery.person(person).map(|person| denials(&person))
    })
    .await?
    .map(Json)
    .ok_or_else(|| no_such_person(&id))
}

/// Say that a face of an earlier answer is not this person
///
/// It holds from the next request on, for that face and those that are more like it than like the
/// person.
#[utoipa::path(
    post,
    path = "/v1/people/{id}/denials",
    operation_id = "deny",
    tag = "people",
    params(("id" = uuid::Uuid, Path, description = "The person's id.")),
    request_body = WrongAnswer,
    responses(
        (status = 201, description = "It is denied.", body = DenialView),
        BodyProblems,
        WorkProblems,
        ModelChanged,
        PersonFull,
        NotThere,
    )
)]
pub async fn add(
    State(live): State<LiveGallery>,
    State(enroller): State<Enroller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let trace = trace(request.headers());
    let wrong: WrongAnswer = enroller.uploads.json(request).await?;
    if wrong.face >= MAX_FACES {
        return Err(ApiError::bad_request(format!(
            "face is {}: an answer has at most {MAX_FACES} faces, counted from 0",
            wrong.face
        )));
    }
    let person = person_id(&id)?;
    gallery::read(&live, |gallery| gallery.person(person).map(|_| ()))
        .await?
        .ok_or_else(|| no_such_person(&id))?;
    let photo = enroller.earlier_photo(&wrong.request_id).await?;
    let (bytes, _memory) = (photo.bytes.clone(), photo.memory.clone());
    let face = Some(wrong.face);
    let embedded = match enroller.dispatcher.embed(photo, face, trace).await? {
        Outcome::Embedded(embedded) => embedded,
        Outcome::Failed(failure) => return Err(failure.into()),
        Outcome::Recognized(_) | Outcome::Stored => return Err(mismatched()),
    };
    if wrong.face >= embedded.found {
        return Err(ApiError::not_found(format!(
            "there is no face {} in that photograph, which shows {}: count from 0, as the answer \
             does",
            wrong.face, embedded.found
        )));
    }
    let denial = Denial {
        id: DenialId::new(),
        request_id: wrong.request_id.trim().to_owned(),
        face: wrong.face,
        embeddings: embeddings(&embedded)?,
        at_ms: now_ms(),
    };
    let key = Backend::kept(Source::Denial(denial.id));
    enroller
        .backend
        .enrolled
        .put(&key, PutPayload::from_bytes(bytes))
        .await
        .map_err(|error| ApiError::internal("a photograph could not be kept", &error))?;
    let mut view = views::denial(&denial);
    let denied = edit(&live, &id, |gallery, person| {
        expect_model(gallery, std::iter::once(&denial.embeddings))?;
        let mut known = person.denials.iter();
        if let Some(same) =
            known.find(|known| known.request_id == denial.request_id && known.face == denial.face)
        {
            view = views::denial(same);
            return Ok(());
        }
        person.denials.push(denial.clone());
        check_denials(person.denials.len())
    })
    .await;
    let is_new = denied
        .as_ref()
        .is_ok_and(|_| view.id == Uuid::from(denial.id));
    let unknown = denied.as_ref().is_err_and(ApiError::is_internal);
    if !is_new && !unknown {
        photographs::delete(&*enroller.backend.enrolled, [key]).await;
    }
    denied?;
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

/// Take a denial back
#[utoipa::path(
    delete,
    path = "/v1/people/{id}/denials/{denial}",
    operation_id = "delete_denial",
    tag = "people",
    params(
        ("id" = uuid::Uuid, Path, description = "The person's id."),
        ("denial" = uuid::Uuid, Path, description = "The denial's id."),
    ),
    responses(
        (status = 200, description = "What was taken back.", body = DenialDeletion),
        NotThere,
    )
)]
pub async fn remove(
    State(live): State<LiveGallery>,
    State(deletions): State<Deletions>,
    Path((id, denial)): Path<(String, String)>,
) -> Result<Json<DenialDeletion>, ApiError> {
    let unknown = || {
        ApiError::not_found(format!(
            "the person has no denial {}: GET /v1/people/{{id}}/denials lists them",
            printable(&denial)
        ))
    };
    let person = person_id(&id)?;
    let denial_id: DenialId = denial.parse().map_err(|_| unknown())?;
    let found = gallery::read(&live, |gallery| {
        let found = gallery.person(person)?;
        let has = found.denials.iter().any(|known| known.id == denial_id);
        has.then(|| Begun::of_sources(&found, [Source::Denial(denial_id)]))
    });
    let Some(begun) = found.await? else {
        let receipt = deletions.again(denial_id.into(), unknown).await?;
        return Ok(Json(DenialDeletion {
            deleted: None,
            receipt,
        }));
    };
    deletions.begin(denial_id.into(), &begun).await?;
    let mut deleted = None;
    edit(&live, &id, |_, person| {
        let mut known = person.denials.iter();
        let place = known.position(|known| known.id == denial_id);
        let removed = person.denials.remove(place.ok_or_else(unknown)?);
        deleted = Some(views::denial(&removed));
        Ok(())
    })
    .await?;
    let receipt = deletions.complete(denial_id.into(), begun).await?;
    Ok(Json(DenialDeletion { deleted, receipt }))
}
