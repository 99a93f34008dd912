//! The faces of one person.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use muster_recognize::decode::{DecodeLimits, probe};
use muster_recognize::gallery::{FaceId, Person, Source};
use object_store::ObjectStoreExt;
use serde::Serialize;

use super::enrolment::{self, Enrolment};
use super::receipt::Receipt;
use super::{FaceView, PersonView, check_faces, edit, no_such_person, person_id};
use crate::backend::Backend;
use crate::web::problem::ApiError;
use crate::web::recognize::trace;
use crate::web::{AppState, printable};

/// The faces of a person.
#[derive(Debug, Serialize)]
pub struct Faces {
    faces: Vec<FaceView>,
}

/// `GET /v1/people/{id}/faces`.
pub async fn list(State(app): AppState, Path(id): Path<String>) -> Result<Json<Faces>, ApiError> {
    let person = person_id(&id)?;
    app.with_gallery(|gallery| gallery.person(person).map(|person| faces(&person)))
        .await?
        .map(Json)
        .ok_or_else(|| no_such_person(&id))
}

fn faces(person: &Person) -> Faces {
    Faces {
        faces: person.faces.iter().map(FaceView::from).collect(),
    }
}

/// `POST /v1/people/{id}/faces`: more photographs of an enrolled person, or a face of an earlier
/// answer.
pub async fn add(
    State(app): AppState,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let person = person_id(&id)?;
    let trace = trace(request.headers());
    let form = enrolment::form(&app, request, &["request_id", "face"]).await?;
    let known = app
        .with_gallery(|gallery| gallery.person(person).map(|person| person.faces.len()))
        .await?
        .ok_or_else(|| no_such_person(&id))?;
    check_faces(known + form.photos.len())?;
    let enrolment = Enrolment::of(&app, form, trace).await?;
    let faces = enrolment.faces();
    let mut view = None;
    enrolment
        .append(&app, |gallery| {
            let mut person = gallery
                .person(person)
                .ok_or_else(|| no_such_person(&id))?
                .into_owned();
            person.faces.extend(faces.iter().cloned());
            check_faces(person.faces.len())?;
            person.changed_at_ms = muster_jobs::now_ms();
            view = Some(PersonView::from(&person));
            Ok(muster_recognize::gallery::Change::Put(person))
        })
        .await?;
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

/// What the deletion of a face answers.
#[derive(Debug, Serialize)]
pub struct FaceDeletion {
    deleted: FaceView,
    receipt: Receipt,
}

/// `DELETE /v1/people/{id}/faces/{face}`: its embedding and its photograph.
///
/// A person's last face stays: deleting the person says what is meant.
pub async fn remove(
    State(app): AppState,
    Path((id, face)): Path<(String, String)>,
) -> Result<Json<FaceDeletion>, ApiError> {
    let face_id = face_id(&face)?;
    let mut deleted = None;
    let person = edit(&app, &id, |_, person| {
        let place = person.faces.iter().position(|known| known.id == face_id);
        let place = place.ok_or_else(|| no_such_face(&face))?;
        if person.faces.len() == 1 {
            return Err(ApiError::new(
                StatusCode::CONFLICT,
                "face.last",
                format!(
                    "it is the only face of {}: delete the person, or add another face first",
                    person.name
                ),
            ));
        }
        deleted = Some(FaceView::from(&person.faces.remove(place)));
        Ok(())
    })
    .await?;
    let receipt = Receipt::of(&app, &person, [Source::Face(face_id)]).await?;
    Ok(Json(FaceDeletion {
        deleted: deleted.ok_or_else(|| no_such_face(&face))?,
        receipt,
    }))
}

/// `GET /v1/people/{id}/faces/{face}/photo`: the photograph that the face was enrolled from.
pub async fn photo(
    State(app): AppState,
    Path((id, face)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let (person, face_id) = (person_id(&id)?, face_id(&face)?);
    let known = app
        .with_gallery(|gallery| {
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
    let bytes = match app.backend.enrolled.get(&key).await {
        Ok(found) => found.bytes().await.map_err(failed)?,
        Err(object_store::Error::NotFound { .. }) => return Err(no_such_face(&face)),
        Err(error) => return Err(failed(error)),
    };
    let limits = DecodeLimits {
        max_bytes: bytes.len(),
        ..app.limits
    };
    let kind = probe(&bytes, &limits).map_or("application/octet-stream", |header| {
        header.format.media_type()
    });
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
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
