//! Enrolment: the people that recognition can name.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use futures::future::join_all;
use muster_jobs::{EnrolledPhoto, Outcome, Purpose, TraceParent, now_ms};
use muster_recognize::embed::Embedding;
use muster_recognize::gallery::{Change, EnrolledFace, FaceId, Gallery, Person, PersonId};
use serde::Serialize;
use utoipa::ToSchema;

use super::exchange::trace;
use super::extract::Path;
use super::openapi::{FormProblems, NotThere, WorkProblems, problem_responses};
use super::problem::{ApiError, Code};
use super::recognize::mismatched;
use super::upload::refusal;
use super::{App, AppState, printable};

/// Longest name, in characters.
const MAX_NAME_CHARS: usize = 200;
/// The field of the form that holds a photograph.
const PHOTO_FIELDS: &[&str] = &["image"];

/// An enrolled face.
#[derive(Serialize, ToSchema)]
struct FaceView {
    #[schema(value_type = uuid::Uuid)]
    id: FaceId,
    /// The name of the file that it was enrolled from.
    file: String,
    /// Milliseconds since the Unix epoch.
    enrolled_at_ms: u64,
}

/// An enrolled person.
#[derive(Serialize, ToSchema)]
struct PersonView {
    #[schema(value_type = uuid::Uuid)]
    id: PersonId,
    name: String,
    faces: Vec<FaceView>,
    /// Milliseconds since the Unix epoch.
    enrolled_at_ms: u64,
}

/// The people enrolled.
#[derive(Serialize, ToSchema)]
struct PeopleView {
    people: Vec<PersonView>,
    /// The gallery's version: each change makes the next.
    version: u64,
}

/// A person who is enrolled no longer.
#[derive(Serialize, ToSchema)]
struct Deleted {
    deleted: DeletedPerson,
}

/// Who was deleted.
#[derive(Serialize, ToSchema)]
struct DeletedPerson {
    #[schema(value_type = uuid::Uuid)]
    id: PersonId,
    name: String,
    /// How many faces went with the person.
    faces: usize,
}

/// A name and photographs that each show that one person.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it documents what `upload` reads")]
struct PersonForm {
    /// Up to 200 characters, unique among the enrolled.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// Photographs: JPEG, PNG or WebP, one face in each.
    #[schema(value_type = Vec<String>, min_items = 1)]
    image: (),
}

/// Photographs that each show that one person.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it documents what `upload` reads")]
struct FacesForm {
    /// Photographs: JPEG, PNG or WebP, one face in each.
    #[schema(value_type = Vec<String>, min_items = 1)]
    image: (),
}

problem_responses! {
    /// What a photograph is refused for at enrolment.
    EnrollProblems: FaceMultiple;
    /// Another person has the name.
    NameTaken: PersonExists;
}

impl From<&Person> for PersonView {
    fn from(person: &Person) -> Self {
        let faces = person
            .faces
            .iter()
            .map(|face| FaceView {
                id: face.id,
                file: face.file.clone(),
                enrolled_at_ms: face.enrolled_at_ms,
            })
            .collect();
        Self {
            id: person.id,
            name: person.name.clone(),
            faces,
            enrolled_at_ms: person.enrolled_at_ms,
        }
    }
}

/// List the people
#[utoipa::path(
    get,
    path = "/v1/people",
    tag = "people",
    responses((status = 200, description = "Everybody enrolled.", body = PeopleView))
)]
pub async fn list(State(app): AppState) -> Result<Response, ApiError> {
    app.with_gallery(|gallery| {
        let people = gallery.people().map(PersonView::from).collect();
        let version = gallery.version();
        Json(PeopleView { people, version }).into_response()
    })
    .await
}

/// Show a person
#[utoipa::path(
    get,
    path = "/v1/people/{id}",
    tag = "people",
    params(("id" = String, Path, description = "The person's id, a UUID.")),
    responses((status = 200, description = "The person.", body = PersonView), NotThere)
)]
pub async fn show(State(app): AppState, Path(id): Path<String>) -> Result<Response, ApiError> {
    let person = person_id(&id)?;
    app.with_gallery(|gallery| gallery.person(person).map(PersonView::from))
        .await?
        .map(|view| Json(view).into_response())
        .ok_or_else(|| no_such_person(&id))
}

/// Enrol a person: a name and one or more photographs, each showing that one face
///
/// All photographs are taken or none: a refusal names those found at fault, the first only where a
/// file is no photograph at all.
#[utoipa::path(
    post,
    path = "/v1/people",
    tag = "people",
    request_body(content = PersonForm, content_type = "multipart/form-data"),
    responses(
        (
            status = 201,
            description = "The person is enrolled.",
            body = PersonView,
            headers(("Location" = String, description = "The person's path.")),
        ),
        FormProblems,
        WorkProblems,
        EnrollProblems,
        NameTaken,
    )
)]
pub async fn create(State(app): AppState, request: Request) -> Result<Response, ApiError> {
    let trace = trace(request.headers());
    let mut form = app.form(request, PHOTO_FIELDS, app.max_images).await?;
    let name = check_name(form.name.take())?;
    app.with_gallery(|gallery| not_taken(gallery, &name))
        .await??;
    let faces = embed(&app, form.photos, trace).await?;
    let person = Person {
        id: PersonId::new(),
        name,
        faces,
        enrolled_at_ms: now_ms(),
    };
    append(&app, |gallery| {
        not_taken(gallery, &person.name)?;
        Ok(Change::Put(person.clone()))
    })
    .await?;
    let location = format!("/v1/people/{}", person.id);
    let view = Json(PersonView::from(&person));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], view).into_response())
}

/// Add photographs of an enrolled person
#[utoipa::path(
    post,
    path = "/v1/people/{id}/faces",
    tag = "people",
    params(("id" = String, Path, description = "The person's id, a UUID.")),
    request_body(content = FacesForm, content_type = "multipart/form-data"),
    responses(
        (status = 201, description = "The person, with the new faces.", body = PersonView),
        FormProblems,
        WorkProblems,
        EnrollProblems,
        NotThere,
    )
)]
pub async fn add_faces(
    State(app): AppState,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let person = person_id(&id)?;
    let trace = trace(request.headers());
    let form = app.form(request, PHOTO_FIELDS, app.max_images).await?;
    let known = app
        .with_gallery(|gallery| gallery.person(person).is_some())
        .await?;
    if !known {
        return Err(no_such_person(&id));
    }
    let faces = embed(&app, form.photos, trace).await?;
    let mut view = None;
    append(&app, |gallery| {
        let mut person = gallery
            .person(person)
            .ok_or_else(|| no_such_person(&id))?
            .clone();
        person.faces.extend(faces.iter().cloned());
        view = Some(PersonView::from(&person));
        Ok(Change::Put(person))
    })
    .await?;
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

/// Delete a person, and every embedding of theirs, in memory and in the store
#[utoipa::path(
    delete,
    path = "/v1/people/{id}",
    tag = "people",
    params(("id" = String, Path, description = "The person's id, a UUID.")),
    responses((status = 200, description = "Who was deleted.", body = Deleted), NotThere)
)]
pub async fn remove(State(app): AppState, Path(id): Path<String>) -> Result<Response, ApiError> {
    let person = person_id(&id)?;
    let mut deleted = None;
    append(&app, |gallery| {
        let found = gallery.person(person).ok_or_else(|| no_such_person(&id))?;
        deleted = Some(DeletedPerson {
            id: found.id,
            name: found.name.clone(),
            faces: found.faces.len(),
        });
        Ok(Change::Remove(person))
    })
    .await?;
    let deleted = deleted.ok_or_else(|| no_such_person(&id))?;
    Ok(Json(Deleted { deleted }).into_response())
}

fn person_id(id: &str) -> Result<PersonId, ApiError> {
    id.parse().map_err(|_| no_such_person(id))
}

fn no_such_person(id: &str) -> ApiError {
    ApiError::not_found(format!(
        "there is no person {}: GET /v1/people lists them",
        printable(id)
    ))
}

fn check_name(name: Option<String>) -> Result<String, ApiError> {
    let name = name.ok_or_else(|| {
        ApiError::bad_request("the form has no field name: put the person's name there")
    })?;
    let name = name.trim();
    if name.is_empty() {
        return Err(ApiError::bad_request(
            "the name is empty: send the person's name",
        ));
    }
    if name.chars().count() > MAX_NAME_CHARS {
        return Err(ApiError::bad_request(format!(
            "the name has more than {MAX_NAME_CHARS} characters: send a shorter one"
        )));
    }
    if name
        .chars()
        .any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'))
    {
        return Err(ApiError::bad_request(
            "the name has line breaks or control characters: send it without",
        ));
    }
    Ok(name.to_owned())
}

fn not_taken(gallery: &Gallery, name: &str) -> Result<(), ApiError> {
    match gallery.named(name) {
        None => Ok(()),
        Some(person) => Err(ApiError::new(
            Code::PersonExists,
            format!(
                "{name} is enrolled already: add photographs at /v1/people/{}/faces, or choose \
                 another name",
                person.id
            ),
        )
        .with("person_id", person.id.to_string())),
    }
}

/// Has workers compute the embedding of each photograph's one face.
async fn embed(
    app: &App,
    photos: Vec<super::upload::Photo>,
    trace: TraceParent,
) -> Result<Vec<EnrolledFace>, ApiError> {
    let runs = photos.into_iter().map(async |photo| {
        let file = photo.file.clone();
        (
            file,
            app.dispatcher.run(photo, Purpose::Enroll, trace).await,
        )
    });
    let mut faces = Vec::new();
    let mut refused = Vec::new();
    for (file, outcome) in join_all(runs).await {
        match outcome? {
            Outcome::Enrolled(photo) => faces.push(EnrolledFace {
                id: FaceId::new(),
                file: file.as_str().to_owned(),
                embedding: embedding(app, &photo)?,
                enrolled_at_ms: now_ms(),
            }),
            Outcome::Failed(failure) => refused.push((file, failure)),
            Outcome::Recognized(_) | Outcome::Stored => return Err(mismatched()),
        }
    }
    let Some((_, first)) = refused.first() else {
        return Ok(faces);
    };
    let list: Vec<_> = refused
        .iter()
        .map(|(file, failure)| refusal(file, failure))
        .collect();
    Err(ApiError::from(first.clone()).with("refused", list))
}

fn embedding(app: &App, photo: &EnrolledPhoto) -> Result<Embedding, ApiError> {
    if *photo.model != *app.model {
        return Err(mismatched());
    }
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(&photo.embedding)
        .map_err(|error| ApiError::internal("a worker's embedding is not base64", &error))?;
    Embedding::from_bytes(&bytes)
        .map_err(|error| ApiError::internal("a worker's embedding is damaged", &error))
}

async fn append(
    app: &App,
    decide: impl FnMut(&Gallery) -> Result<Change, ApiError>,
) -> Result<(), ApiError> {
    app.gallery
        .append(decide)
        .await
        .map_err(|error| ApiError::internal("the gallery could not be changed", &error))?
}
