//! One enrolled person: shown, enrolled, changed, merged, deleted.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use muster_api::people::{Deleted, Deletion, Merge, Patch, PersonView};
use muster_base::live_gallery::LiveGallery;
use muster_gallery::{Change, Gallery, Person, PersonId, WriteError};
use muster_jobs::{QualityLimits, now_ms};
use utoipa::ToSchema;

use crate::api::affected::AffectedPeople;
use crate::api::extract::Path;
use crate::api::gallery;
use crate::api::openapi::{BodyProblems, FormProblems, NotThere, WorkProblems};
use crate::api::problem::ApiError;
use crate::exchange::trace;
use crate::forms::json::MAX_JSON_BYTES;
use crate::forms::upload::MAX_TEXT_BYTES;
use crate::forms::uploads::Uploads;
use crate::people::deletion::{Begun, Deletions};
use crate::people::edit::edit;
use crate::people::enrolment::Enroller;
use crate::people::rules::{
    EnrollProblems, NameTaken, PersonFull, check_denials, check_faces, check_line, check_metadata,
    check_name, external_id_not_taken, name_not_taken, no_such_person, person_id,
};
use crate::people::views;
/// The form that enrols a person.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it documents what `create` reads")]
pub struct PersonForm {
    /// The name, of no more than 200 characters on one line; unique in the gallery, where names are
    /// compared without regard to case and to how blanks and accents are encoded.
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
    /// Whether faces are enrolled that do not meet the limits of enrolment (`quality` of `/v1/status`).
    #[schema(nullable = false, default = false)]
    accept_unfit: Option<bool>,
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
    State(live): State<LiveGallery>,
    State(limits): State<QualityLimits>,
    Path(id): Path<String>,
) -> Result<Json<PersonView>, ApiError> {
    let person = person_id(&id)?;
    gallery::read(&live, |gallery| {
        let person = gallery.person(person)?;
        Some(views::person(&person, &limits))
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
        NameTaken,
    )
)]
pub async fn create(
    State(live): State<LiveGallery>,
    State(enroller): State<Enroller>,
    State(limits): State<QualityLimits>,
    request: Request,
) -> Result<Response, ApiError> {
    let trace = trace(request.headers());
    let texts = [
        ("name", MAX_TEXT_BYTES),
        ("external_id", MAX_TEXT_BYTES),
        ("metadata", MAX_JSON_BYTES),
    ];
    let mut form = enroller.form(request, &texts).await?;
    let name = form.text("name").ok_or_else(|| {
        ApiError::bad_request("the form has no field name: put the person's name there")
    })?;
    let name = check_name(&name)?;
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
    let not_taken = |gallery: &Gallery, name: &str, external_id: Option<&str>| {
        name_not_taken(gallery, id, name)?;
        external_id.map_or(Ok(()), |key| external_id_not_taken(gallery, id, key))
    };
    gallery::read(&live, |gallery| {
        not_taken(gallery, &name, external_id.as_deref())
    })
    .await??;
    let enrolment = enroller.enrolment(form, trace).await?;
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
    enroller
        .append(enrolment, |gallery| {
            not_taken(gallery, &person.name, person.external_id.as_deref())?;
            Ok(Change::Put(person.clone()))
        })
        .await?;
    let location = format!("/v1/people/{id}");
    let view = Json(views::person(&person, &limits));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], view).into_response())
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
        NameTaken,
        NotThere,
    )
)]
pub async fn change(
    State(live): State<LiveGallery>,
    State(uploads): State<Uploads>,
    State(limits): State<QualityLimits>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<PersonView>, ApiError> {
    let mut patch: Patch = uploads.json(request).await?;
    if let Some(name) = &mut patch.name {
        *name = check_name(name)?;
    }
    if let Some(Some(external_id)) = &mut patch.external_id {
        *external_id = check_line("external_id", external_id)?;
    }
    let person = edit(&live, &id, |gallery, person| {
        // People of before may have one name: what is left as it is needs no other.
        if let Some(name) = &patch.name
            && *name != person.name
        {
            name_not_taken(gallery, person.id, name)?;
            person.name.clone_from(name);
        }
        if let Some(external_id) = &patch.external_id {
            if let Some(key) = external_id {
                external_id_not_taken(gallery, person.id, key)?;
            }
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
        Ok(())
    })
    .await?;
    Ok(Json(views::person(&person, &limits)))
}

/// Delete a person, every embedding and every kept photograph of theirs
///
/// Where one was cut off, the same request completes it and hands out the receipt.
#[utoipa::path(
    delete,
    path = "/v1/people/{id}",
    operation_id = "delete_person",
    tag = "people",
    params(("id" = uuid::Uuid, Path, description = "The person's id.")),
    responses((status = 200, description = "Who is gone.", body = Deletion), NotThere)
)]
pub async fn remove(
    State(live): State<LiveGallery>,
    State(deletions): State<Deletions>,
    Path(id): Path<String>,
) -> Result<Json<Deletion>, ApiError> {
    let person = person_id(&id)?;
    let unknown = || no_such_person(&id);
    let look = |gallery: &Gallery| Some(gallery.person(person)?.into_owned());
    let Some(mut found) = gallery::read(&live, look).await? else {
        let receipt = deletions.again(person.into(), unknown).await?;
        return Ok(Json(Deletion {
            deleted: None,
            receipt,
        }));
    };
    loop {
        let begun = Begun::of_person(&found);
        deletions.begin(person.into(), &begun).await?;
        let mut now = None;
        let removed = live.append(|gallery| {
            let there = look(gallery).ok_or(None)?;
            // Only what was noted is deleted.
            if Begun::of_person(&there) == begun {
                now = Some(there);
                Ok(Change::Remove(person))
            } else {
                Err(Some(Box::new(there)))
            }
        });
        match removed.await {
            Ok(()) => {
                let receipt = deletions.complete(person.into(), begun).await?;
                let deleted = now.map(|removed| Deleted {
                    id: removed.id.into(),
                    name: removed.name,
                    faces: removed.faces.len(),
                });
                return Ok(Json(Deletion { deleted, receipt }));
            }
            Err(WriteError::Refused(Some(there))) => found = *there,
            Err(WriteError::Refused(None)) => return Err(unknown()),
            Err(WriteError::Failed(error)) => return Err(gallery::failed(&error)),
        }
    }
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
    State(live): State<LiveGallery>,
    State(uploads): State<Uploads>,
    State(limits): State<QualityLimits>,
    Path(id): Path<String>,
    request: Request,
) -> Result<(Extension<AffectedPeople>, Json<PersonView>), ApiError> {
    let Merge { from } = uploads.json(request).await?;
    let from = PersonId::from(from);
    let into = person_id(&id)?;
    if from == into {
        return Err(ApiError::bad_request(
            "from is this person: name another one to take over",
        ));
    }
    let person = loop {
        let person = edit(&live, &id, |gallery, person| {
            take_over(gallery, person, from)
        })
        .await?;
        if remove_merged(&live, into, from).await? {
            break person;
        }
    };
    Ok((
        Extension(AffectedPeople(vec![from])),
        Json(views::person(&person, &limits)),
    ))
}

/// Adds everything of another person to one.
fn take_over(gallery: &Gallery, person: &mut Person, from: PersonId) -> Result<(), ApiError> {
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
}

/// Why the entry that was taken over is not removed.
enum NotRemoved {
    /// It has a face or a denial that the other has not.
    Grown,
    /// Somebody had it deleted meanwhile.
    Gone,
    Failed(ApiError),
}

/// Removes the entry that was taken over; `false` where it has got something meanwhile that was not
/// taken over.
async fn remove_merged(
    live: &LiveGallery,
    into: PersonId,
    from: PersonId,
) -> Result<bool, ApiError> {
    let removed = live.append(|gallery| {
        let other = gallery.person(from).ok_or(NotRemoved::Gone)?;
        let person = gallery.person(into);
        let person = person.ok_or_else(|| NotRemoved::Failed(no_such_person(&into.to_string())))?;
        let has = |source| person.sources().any(|known| known == source);
        if other.sources().all(has) {
            Ok(Change::Remove(from))
        } else {
            Err(NotRemoved::Grown)
        }
    });
    match removed.await {
        Ok(()) | Err(WriteError::Refused(NotRemoved::Gone)) => Ok(true),
        Err(WriteError::Refused(NotRemoved::Grown)) => Ok(false),
        Err(WriteError::Refused(NotRemoved::Failed(refusal))) => Err(refusal),
        Err(WriteError::Failed(error)) => Err(gallery::failed(&error)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use muster_gallery::{EnrolledFace, GalleryStore};
    use muster_jobs::Embedding;
    use object_store::memory::InMemory;

    use super::*;

    fn face() -> EnrolledFace {
        let made = Embedding::normalise(&[1.0, 0.0]).unwrap();
        EnrolledFace::new(
            String::new(),
            muster_gallery::Embeddings::of("sface", made),
            0,
        )
    }

    #[tokio::test]
    async fn a_face_that_comes_between_the_steps_of_a_merge_is_taken_over_too() {
        let store = GalleryStore::new(Arc::new(InMemory::new()), "gallery");
        let live = LiveGallery::load(store).await.unwrap();
        let put = async |person: &Person| {
            let put = live.append(|_| Ok::<_, ()>(Change::Put(person.clone())));
            put.await.unwrap();
        };
        let mut into = Person::new("Anna".to_owned(), vec![face()], 0);
        let mut from = Person::new("Anna II".to_owned(), vec![face()], 0);
        put(&into).await;
        put(&from).await;
        let take_over_now = async |into: &mut Person| {
            let copy = live.copy().await.unwrap();
            take_over(&copy, into, from.id).unwrap();
            put(into).await;
        };
        take_over_now(&mut into).await;
        from.faces.push(face());
        put(&from).await;
        assert!(!remove_merged(&live, into.id, from.id).await.unwrap());
        let there = live.held(|gallery| gallery.person(from.id).is_some());
        assert!(there.await.unwrap(), "its new face is nowhere else");
        take_over_now(&mut into).await;
        assert!(remove_merged(&live, into.id, from.id).await.unwrap());
        let (gone, faces) = live
            .held(|gallery| {
                let into = gallery.person(into.id).unwrap();
                (gallery.person(from.id).is_none(), into.faces.len())
            })
            .await
            .unwrap();
        assert!(gone && faces == 3);
        // The same request again completes what was cut off.
        assert!(remove_merged(&live, into.id, from.id).await.unwrap());
    }
}
