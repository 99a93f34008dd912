//! Enrolment: the people that recognition can name, their faces, and what was said not to be them.

pub mod denials;
pub mod enrolment;
pub mod faces;
pub mod kept;
pub mod listing;
mod receipt;

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use muster_gallery::{Change, EnrolledFace, FaceId, Gallery, Person, PersonId};
use muster_jobs::now_ms;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::audit::Whom;
use super::exchange::trace;
use super::extract::Path;
use super::openapi::{BodyProblems, FormProblems, NotThere, WorkProblems, problem_responses};
use super::problem::{ApiError, Code};
use super::upload::{MAX_JSON_BYTES, MAX_TEXT_BYTES};
use super::{App, AppState, printable};
use enrolment::Enrolment;
use receipt::Receipt;

/// Longest name or external id, in characters.
const MAX_NAME_CHARS: usize = 200;
/// Most entries of a person's metadata.
const MAX_METADATA: usize = 50;
/// Longest key and value of metadata, in characters.
const MAX_METADATA_CHARS: (usize, usize) = (100, 1000);
/// Most faces of one person.
const MAX_FACES: usize = 100;
/// Most denials of one person.
const MAX_DENIALS: usize = 100;

/// An enrolled face, as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub struct FaceView {
    #[schema(value_type = uuid::Uuid)]
    id: FaceId,
    /// The client's name of the photograph.
    file: String,
    enrolled_at_ms: u64,
}

/// An enrolled person, as the API shows them.
#[derive(Debug, Serialize, ToSchema)]
pub struct PersonView {
    #[schema(value_type = uuid::Uuid)]
    id: PersonId,
    name: String,
    external_id: Option<String>,
    metadata: BTreeMap<String, String>,
    faces: Vec<FaceView>,
    /// How many faces were said not to be this person.
    denials: usize,
    enrolled_at_ms: u64,
    changed_at_ms: u64,
}

impl From<&EnrolledFace> for FaceView {
    fn from(face: &EnrolledFace) -> Self {
        Self {
            id: face.id,
            file: face.file.clone(),
            enrolled_at_ms: face.enrolled_at_ms,
        }
    }
}

impl From<&Person> for PersonView {
    fn from(person: &Person) -> Self {
        Self {
            id: person.id,
            name: person.name.clone(),
            external_id: person.external_id.clone(),
            metadata: person.metadata.clone(),
            faces: person.faces.iter().map(FaceView::from).collect(),
            denials: person.denials.len(),
            enrolled_at_ms: person.enrolled_at_ms,
            changed_at_ms: person.changed_at_ms,
        }
    }
}

/// The form that enrols a person.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it documents what `create` reads")]
pub struct PersonForm {
    /// The name, of no more than 200 characters on one line; unique in the gallery.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// The operator's own key of the person, of no more than 200 characters; unique in the gallery.
    #[schema(min_length = 1, max_length = 200, nullable = false)]
    external_id: Option<String>,
    /// A JSON object of texts: up to 50 entries, keys of 1 to 100 and values of up to 1000
    /// characters.
    #[schema(nullable = false)]
    metadata: Option<String>,
    /// Photographs that each show this one person.
    #[schema(value_type = Option<Vec<String>>, nullable = false)]
    image: (),
    /// In place of photographs: the `request_id` of an earlier answer.
    #[schema(nullable = false)]
    request_id: Option<String>,
    /// Which face of that answer, counted from 0.
    #[schema(nullable = false)]
    face: Option<u32>,
}

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
}

problem_responses! {
    /// What a photograph is refused for at enrolment.
    EnrollProblems: FaceMultiple FaceUnfit GalleryChanged;
    /// Another person has the name or the external id.
    Taken: PersonExists;
    /// The person has as much as is kept.
    PersonFull: PersonFull;
    /// The photograph was embedded for the gallery's model of before.
    ModelChanged: GalleryChanged;
}

/// Show a person
#[utoipa::path(
    get,
    path = "/v1/people/{id}",
    operation_id = "show_person",
    tag = "people",
    params(("id" = uuid::Uuid, Path, description = "The person's id.")),
    responses((status = 200, description = "The person.", body = PersonView), NotThere)
)]
pub async fn show(
    State(app): AppState,
    Path(id): Path<String>,
) -> Result<Json<PersonView>, ApiError> {
    let person = person_id(&id)?;
    app.with_gallery(|gallery| {
        gallery
            .person(person)
            .map(|person| PersonView::from(&*person))
    })
    .await?
    .map(Json)
    .ok_or_else(|| no_such_person(&id))
}

/// Enrol a person: a name and photographs that each show one face, or a face of an earlier answer
///
/// All photographs are taken or none: a refusal names those found at fault, the first only where a
/// file is no photograph at all.
#[utoipa::path(
    post,
    path = "/v1/people",
    operation_id = "enroll",
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
        Taken,
    )
)]
pub async fn create(State(app): AppState, request: Request) -> Result<Response, ApiError> {
    let trace = trace(request.headers());
    let texts = [
        ("name", MAX_TEXT_BYTES),
        ("external_id", MAX_TEXT_BYTES),
        ("metadata", MAX_JSON_BYTES),
        ("request_id", MAX_TEXT_BYTES),
        ("face", MAX_TEXT_BYTES),
    ];
    let mut form = enrolment::form(&app, request, &texts).await?;
    let name = form.text("name").ok_or_else(|| {
        ApiError::bad_request("the form has no field name: put the person's name there")
    })?;
    let name = check_line("name", &name)?;
    let external_id = form
        .text("external_id")
        .map(|id| check_line("external_id", &id))
        .transpose()?;
    let metadata = match form.text("metadata") {
        None => BTreeMap::new(),
        Some(json) => serde_json::from_str(&json).map_err(|error| {
            ApiError::bad_request(format!(
                "metadata is not a JSON object of texts ({error}): send {{\"key\": \"value\"}}"
            ))
        })?,
    };
    check_metadata(&metadata)?;
    let id = PersonId::new();
    app.with_gallery(|gallery| not_taken(gallery, id, &name, external_id.as_deref()))
        .await??;
    let enrolment = Enrolment::of(&app, form, trace).await?;
    let now = now_ms();
    let person = Person {
        id,
        name,
        external_id,
        metadata,
        faces: enrolment.faces(),
        denials: Vec::new(),
        enrolled_at_ms: now,
        changed_at_ms: now,
    };
    enrolment
        .append(&app, |gallery| {
            not_taken(gallery, id, &person.name, person.external_id.as_deref())?;
            Ok(Change::Put(person.clone()))
        })
        .await?;
    let location = format!("/v1/people/{id}");
    let view = Json(PersonView::from(&person));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], view).into_response())
}

/// What of a person is to change: a JSON merge patch (RFC 7396).
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    /// The new name.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// The new external id; `null` takes it away.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 200)]
    external_id: Option<Option<String>>,
    /// Entries to set, or with `null` to take away; `null` takes all away.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<BTreeMap<String, Option<String>>>)]
    metadata: Option<Option<BTreeMap<String, Option<String>>>>,
}

/// Tells a `null` from what is not there.
fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// Change a person's name, external id or metadata: a JSON merge patch (RFC 7396)
#[utoipa::path(
    patch,
    path = "/v1/people/{id}",
    operation_id = "change_person",
    tag = "people",
    params(("id" = uuid::Uuid, Path, description = "The person's id.")),
    request_body = Patch,
    responses(
        (status = 200, description = "The person as changed.", body = PersonView),
        BodyProblems,
        Taken,
        NotThere,
    )
)]
pub async fn change(
    State(app): AppState,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<PersonView>, ApiError> {
    let mut patch: Patch = app.json(request).await?;
    if let Some(name) = &mut patch.name {
        *name = check_line("name", name)?;
    }
    if let Some(Some(external_id)) = &mut patch.external_id {
        *external_id = check_line("external_id", external_id)?;
    }
    let person = edit(&app, &id, |gallery, person| {
        if let Some(name) = &patch.name {
            person.name.clone_from(name);
        }
        if let Some(external_id) = &patch.external_id {
            person.external_id.clone_from(external_id);
        }
        match &patch.metadata {
            None => {}
            Some(None) => person.metadata.clear(),
            Some(Some(entries)) => {
                for (key, value) in entries {
                    match value {
                        Some(value) => person.metadata.insert(key.clone(), value.clone()),
                        None => person.metadata.remove(key),
                    };
                }
            }
        }
        if patch.metadata.is_some() {
            check_metadata(&person.metadata)?;
        }
        not_taken(
            gallery,
            person.id,
            &person.name,
            person.external_id.as_deref(),
        )
    })
    .await?;
    Ok(Json(PersonView::from(&person)))
}

/// Delete a person, every embedding and every kept photograph of theirs
#[utoipa::path(
    delete,
    path = "/v1/people/{id}",
    operation_id = "delete_person",
    tag = "people",
    params(("id" = uuid::Uuid, Path, description = "The person's id.")),
    responses((status = 200, description = "Who is gone.", body = Deletion), NotThere)
)]
pub async fn remove(
    State(app): AppState,
    Path(id): Path<String>,
) -> Result<Json<Deletion>, ApiError> {
    let person = person_id(&id)?;
    let mut removed = None;
    append(&app, |gallery| {
        let found = gallery.person(person).ok_or_else(|| no_such_person(&id))?;
        removed = Some(found.into_owned());
        Ok(Change::Remove(person))
    })
    .await?;
    let removed = removed.ok_or_else(|| no_such_person(&id))?;
    let receipt = Receipt::of(&app, &removed, removed.sources()).await?;
    Ok(Json(Deletion {
        deleted: Deleted {
            id: removed.id,
            name: removed.name,
            faces: removed.faces.len(),
        },
        receipt,
    }))
}

/// Who is gone.
#[derive(Debug, Serialize, ToSchema)]
pub struct Deleted {
    #[schema(value_type = uuid::Uuid)]
    id: PersonId,
    name: String,
    /// How many faces went.
    faces: usize,
}

/// What a deletion answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct Deletion {
    deleted: Deleted,
    receipt: Receipt,
}

/// Who is to become part of whom.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Merge {
    /// The person whose faces are taken over, and who is gone then.
    #[schema(value_type = uuid::Uuid)]
    from: PersonId,
}

/// Make one person of two entries
///
/// Faces, denials and metadata are taken over, the other's name is not. It happens in two steps: a
/// crash between them leaves the faces with both, and the same request completes it.
#[utoipa::path(
    post,
    path = "/v1/people/{id}/merge",
    operation_id = "merge_people",
    tag = "people",
    params(("id" = uuid::Uuid, Path, description = "The person's id.")),
    request_body = Merge,
    responses(
        (status = 200, description = "The person, with the other's faces.", body = PersonView),
        BodyProblems,
        PersonFull,
        NotThere,
    )
)]
pub async fn merge(
    State(app): AppState,
    Path(id): Path<String>,
    request: Request,
) -> Result<(Extension<Whom>, Json<PersonView>), ApiError> {
    let Merge { from } = app.json(request).await?;
    let into = person_id(&id)?;
    if from == into {
        return Err(ApiError::bad_request(
            "from is this person: name another one to take over",
        ));
    }
    let person = edit(&app, &id, |gallery, person| {
        let other = gallery
            .person(from)
            .ok_or_else(|| no_such_person(&from.to_string()))?;
        for face in &other.faces {
            if person.faces.iter().all(|known| known.id != face.id) {
                person.faces.push(face.clone());
            }
        }
        for denial in &other.denials {
            if person.denials.iter().all(|known| known.id != denial.id) {
                person.denials.push(denial.clone());
            }
        }
        for (key, value) in &other.metadata {
            let entry = person.metadata.entry(key.clone());
            entry.or_insert_with(|| value.clone());
        }
        check_faces(person.faces.len())?;
        check_denials(person.denials.len())?;
        check_metadata(&person.metadata)
    })
    .await?;
    let removed = append(&app, |gallery| {
        gallery
            .person(from)
            .map(|_| Change::Remove(from))
            .ok_or_else(|| no_such_person(&from.to_string()))
    })
    .await;
    match removed {
        // Somebody else had the other entry deleted meanwhile.
        Err(refusal) if refusal.code() == Code::NotFound => {}
        removed => removed?,
    }
    Ok((Extension(Whom(vec![from])), Json(PersonView::from(&person))))
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

/// A text of one line, without the space around it.
fn check_line(field: &str, text: &str) -> Result<String, ApiError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(ApiError::bad_request(format!(
            "the {field} is empty: send the person's {field}"
        )));
    }
    if text.chars().count() > MAX_NAME_CHARS {
        return Err(ApiError::bad_request(format!(
            "the {field} has more than {MAX_NAME_CHARS} characters: send a shorter one"
        )));
    }
    if text
        .chars()
        .any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'))
    {
        return Err(ApiError::bad_request(format!(
            "the {field} has line breaks or control characters: send it without"
        )));
    }
    Ok(text.to_owned())
}

fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), ApiError> {
    let (key_chars, value_chars) = MAX_METADATA_CHARS;
    if metadata.len() > MAX_METADATA {
        return Err(ApiError::bad_request(format!(
            "the metadata has {} entries: {MAX_METADATA} are kept",
            metadata.len()
        )));
    }
    for (key, value) in metadata {
        if key.is_empty() || key.chars().count() > key_chars {
            return Err(ApiError::bad_request(format!(
                "the metadata's key {} is empty or has more than {key_chars} characters",
                printable(key)
            )));
        }
        if value.chars().count() > value_chars {
            return Err(ApiError::bad_request(format!(
                "the metadata's {} has more than {value_chars} characters",
                printable(key)
            )));
        }
    }
    Ok(())
}

fn check_faces(count: usize) -> Result<(), ApiError> {
    if count > MAX_FACES {
        return Err(ApiError::new(
            Code::PersonFull,
            format!("the person would have {count} faces: {MAX_FACES} are kept, delete some first"),
        ));
    }
    Ok(())
}

fn check_denials(count: usize) -> Result<(), ApiError> {
    if count > MAX_DENIALS {
        return Err(ApiError::new(
            Code::PersonFull,
            format!("{count} faces would be denied: {MAX_DENIALS} are kept, delete some first"),
        ));
    }
    Ok(())
}

/// Whether nobody but that person has the name or the external id.
fn not_taken(
    gallery: &Gallery,
    id: PersonId,
    name: &str,
    external_id: Option<&str>,
) -> Result<(), ApiError> {
    let taken = |what: String, person: &Person| {
        ApiError::new(
            Code::PersonExists,
            format!(
                "{what} is enrolled already: add photographs at /v1/people/{}/faces, or choose \
                 another",
                person.id
            ),
        )
        .with("person_id", person.id.to_string())
    };
    if let Some(person) = gallery.named(name).filter(|person| person.id != id) {
        return Err(taken(name.to_owned(), &person));
    }
    let same = external_id.and_then(|key| gallery.external(key));
    match same.filter(|person| person.id != id) {
        Some(person) => Err(taken(
            format!("the external id of {}", person.name),
            &person,
        )),
        None => Ok(()),
    }
}

/// Changes one person, as they are at the gallery's newest version.
async fn edit(
    app: &App,
    id: &str,
    mut change: impl FnMut(&Gallery, &mut Person) -> Result<(), ApiError>,
) -> Result<Person, ApiError> {
    let person = person_id(id)?;
    let mut changed = None;
    append(app, |gallery| {
        let found = gallery.person(person).ok_or_else(|| no_such_person(id))?;
        let mut person = found.into_owned();
        change(gallery, &mut person)?;
        person.changed_at_ms = now_ms();
        changed = Some(person.clone());
        Ok(Change::Put(person))
    })
    .await?;
    changed.ok_or_else(|| no_such_person(id))
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
