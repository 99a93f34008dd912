//! The faces of one person.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use muster_api::people::{FaceDeletion, Faces, PersonView};
use muster_gallery::{FaceId, Source};
use muster_jobs::QualityLimits;
use muster_recognize::decode::{DecodeLimits, probe};
use object_store::ObjectStoreExt;
use utoipa::ToSchema;

use crate::api::extract::Path;
use crate::api::gallery;
use crate::api::openapi::{FormProblems, NotThere, WorkProblems, problem_responses};
use crate::api::problem::ApiError;
use crate::exchange::trace;
use crate::forms::printable::printable;
use crate::forms::uploads::Uploads;
use crate::people::deletion::{Begun, Deletions};
use crate::people::edit::edit;
use crate::people::enrolment::Enroller;
use crate::people::rules::{EnrollProblems, PersonFull, check_faces, no_such_person, person_id};
use crate::people::views;
use muster_api::problem::Code;
use muster_base::backend::Backend;
use muster_base::live_gallery::LiveGallery;

/// The form that enrols more faces of a person.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it documents what `faces::add` reads")]
pub struct FacesForm {
    /// Photographs that each show this one person.
    #[schema(value_type = Option<Vec<String>>, nullable = false)]
    image: (),
    /// In place of photographs: the `request_id` of an earlier answer.
    #[schema(nullable = false)]
    request_id: Option<String>,
    /// Which face of that answer, counted from 0.
    #[schema(nullable = false)]
    face: Option<u32>,
    /// Whether faces are enrolled that do not meet the limits of enrolment (`quality` of `/v1/status`).
    #[schema(nullable = false, default = false)]
    accept_unfit: Option<bool>,
}

/// List a person's faces
#[utoipa::path(
    get,
    path = "/v1/people/{id}/faces",
    operation_id = "list_faces",
    tag = "people",
    params(("id" = uuid::Uuid, Path, description = "The person's id.")),
    responses((status = 200, description = "The faces.", body = Faces), NotThere)
)]
pub async fn list(
    State(live): State<LiveGallery>,
    State(limits): State<QualityLimits>,
    Path(id): Path<String>,
) -> Result<Json<Faces>, ApiError> {
    let person = person_id(&id)?;
    let faces = gallery::read(&live, |gallery| {
        let person = gallery.person(person)?;
        let faces = person.faces.iter();
        Some(faces.map(|face| views::face(face, &limits)).collect())
    });
    let faces = faces.await?.ok_or_else(|| no_such_person(&id))?;
    Ok(Json(Faces { faces }))
}

/// Enrol more photographs of a person, or a face of an earlier answer
#[utoipa::path(
    post,
    path = "/v1/people/{id}/faces",
    operation_id = "add_faces",
    tag = "people",
    params(("id" = uuid::Uuid, Path, description = "The person's id.")),
    request_body(content = FacesForm, content_type = "multipart/form-data"),
    responses(
        (status = 201, description = "The person, with the new faces.", body = PersonView),
        FormProblems,
        WorkProblems,
        EnrollProblems,
        PersonFull,
        NotThere,
    )
)]
pub async fn add(
    State(live): State<LiveGallery>,
    State(enroller): State<Enroller>,
    State(limits): State<QualityLimits>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let person = person_id(&id)?;
    let trace = trace(request.headers());
    let form = enroller.form(request, &[]).await?;
    let known = gallery::read(&live, |gallery| {
        gallery.person(person).map(|person| person.faces.len())
    })
    .await?
    .ok_or_else(|| no_such_person(&id))?;
    check_faces(known + form.photos.len())?;
    let enrolment = enroller.enrolment(form, trace).await?;
    let faces = enrolment.faces();
    let mut view = None;
    enroller
        .append(enrolment, |gallery| {
            let mut person = gallery
                .person(person)
                .ok_or_else(|| no_such_person(&id))?
                .into_owned();
            for face in &faces {
                if person.faces.iter().all(|known| known.id != face.id) {
                    person.faces.push(face.clone());
                }
            }
            check_faces(person.faces.len())?;
            person.changed_at_ms = muster_jobs::now_ms();
            view = Some(views::person(&person, &limits));
            Ok(muster_gallery::Change::Put(person))
        })
        .await?;
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

problem_responses! {
    /// A person's last face stays.
    LastFace: FaceLast;
}

/// Delete a face: its embedding and its photograph
///
/// A person's last face stays: deleting the person says what is meant.
#[utoipa::path(
    delete,
    path = "/v1/people/{id}/faces/{face}",
    operation_id = "delete_face",
    tag = "people",
    params(
        ("id" = uuid::Uuid, Path, description = "The person's id."),
        ("face" = uuid::Uuid, Path, description = "The face's id."),
    ),
    responses(
        (status = 200, description = "What was deleted.", body = FaceDeletion),
        LastFace,
        NotThere,
    )
)]
pub async fn remove(
    State(live): State<LiveGallery>,
    State(deletions): State<Deletions>,
    State(limits): State<QualityLimits>,
    Path((id, face)): Path<(String, String)>,
) -> Result<Json<FaceDeletion>, ApiError> {
    let (person, face_id) = (person_id(&id)?, face_id(&face)?);
    let found = gallery::read(&live, |gallery| {
        let found = gallery.person(person)?;
        let has = found.faces.iter().any(|known| known.id == face_id);
        has.then(|| Begun::of_sources(&found, [Source::Face(face_id)]))
    });
    let Some(begun) = found.await? else {
        let unknown = || no_such_face(&face);
        let receipt = deletions.again(face_id.into(), unknown).await?;
        return Ok(Json(FaceDeletion {
            deleted: None,
            receipt,
        }));
    };
    deletions.begin(face_id.into(), &begun).await?;
    let mut deleted = None;
    edit(&live, &id, |_, person| {
        let place = person.faces.iter().position(|known| known.id == face_id);
        let place = place.ok_or_else(|| no_such_face(&face))?;
        if person.faces.len() == 1 {
            return Err(ApiError::new(
                Code::FaceLast,
                format!(
                    "it is the only face of {}: delete the person, or add another face first",
                    person.name
                ),
            ));
        }
        deleted = Some(views::face(&person.faces.remove(place), &limits));
        Ok(())
    })
    .await?;
    let receipt = deletions.complete(face_id.into(), begun).await?;
    Ok(Json(FaceDeletion { deleted, receipt }))
}

/// Show the photograph that a face was enrolled from
#[utoipa::path(
    get,
    path = "/v1/people/{id}/faces/{face}/photo",
    operation_id = "face_photo",
    tag = "people",
    params(
        ("id" = uuid::Uuid, Path, description = "The person's id."),
        ("face" = uuid::Uuid, Path, description = "The face's id."),
    ),
    responses(
        (status = 200, description = "The photograph as it was sent.", content_type = "image/*"),
        NotThere,
    )
)]
pub async fn photo(
    State(live): State<LiveGallery>,
    State(backend): State<Backend>,
    State(uploads): State<Uploads>,
    Path((id, face)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let (person, face_id) = (person_id(&id)?, face_id(&face)?);
    let known = gallery::read(&live, |gallery| {
        let person = gallery.person(person)?;
        Some(person.faces.iter().any(|known| known.id == face_id))
    })
    .await?
    .ok_or_else(|| no_such_person(&id))?;
    if !known {
        return Err(no_such_face(&face));
    }
    let failed = |error| ApiError::internal("a kept photograph could not be read", &error);
    let key = Backend::kept(Source::Face(face_id));
    let bytes = match backend.enrolled.get(&key).await {
        Ok(found) => found.bytes().await.map_err(failed)?,
        Err(object_store::Error::NotFound { .. }) => return Err(no_such_face(&face)),
        Err(error) => return Err(failed(error)),
    };
    let limits = DecodeLimits {
        max_bytes: bytes.len(),
        ..uploads.limits
    };
    let kind = probe(&bytes, &limits).map_or("application/octet-stream", |header| {
        header.format.media_type()
    });
    let headers = [(header::CONTENT_TYPE, kind)];
    Ok((headers, bytes).into_response())
}

fn face_id(face: &str) -> Result<FaceId, ApiError> {
    face.parse().map_err(|_| no_such_face(face))
}

fn no_such_face(face: &str) -> ApiError {
    ApiError::not_found(format!(
        "the person has no face {}: GET /v1/people/{{id}}/faces lists them",
        printable(face)
    ))
}
