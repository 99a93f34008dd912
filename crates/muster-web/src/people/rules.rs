//! The rules that an enrolled person meets, and the problems of those who do not.

use std::collections::BTreeMap;

use muster_gallery::{Gallery, Person, PersonId};
use muster_jobs::{name_key, reads_unknown, unprintable};

use crate::api::openapi::problem_responses;
use crate::api::problem::ApiError;
use crate::forms::printable::printable;
use muster_api::problem::Code;

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

problem_responses! {
    /// What a photograph is refused for at enrolment.
    EnrollProblems: FaceMultiple FaceUnfit GalleryChanged;
    /// Another person has the name or the external id.
    NameTaken: PersonExists;
    /// The person has as much as is kept.
    PersonFull: PersonFull;
    /// The photograph was embedded for the gallery's model of before.
    ModelChanged: GalleryChanged;
}

/// The id in a path.
pub fn person_id(id: &str) -> Result<PersonId, ApiError> {
    id.parse().map_err(|_| no_such_person(id))
}

/// The error for an id that nobody has.
pub fn no_such_person(id: &str) -> ApiError {
    ApiError::not_found(format!(
        "there is no person {}: GET /v1/people lists them",
        printable(id)
    ))
}

/// A text of one line, without the space around it.
pub fn check_line(field: &str, text: &str) -> Result<String, ApiError> {
    let text = text.trim();
    if name_key(text).is_empty() {
        return Err(ApiError::bad_request(format!(
            "the {field} is empty: send the person's {field}"
        )));
    }
    if text.chars().count() > MAX_NAME_CHARS {
        return Err(ApiError::bad_request(format!(
            "the {field} has more than {MAX_NAME_CHARS} characters: send a shorter one"
        )));
    }
    if let Some((_, c)) = unprintable(text).next() {
        return Err(ApiError::bad_request(format!(
            "the {field} has a line break, a control character or an invisible one (U+{:04X}): send \
             it without",
            u32::from(c)
        )));
    }
    Ok(text.to_owned())
}

/// A person's name, which can not be what a stranger is called.
pub fn check_name(name: &str) -> Result<String, ApiError> {
    let name = check_line("name", name)?;
    if reads_unknown(&name) {
        return Err(ApiError::bad_request(format!(
            "the name {name} reads like what a stranger is answered with: choose another"
        )));
    }
    Ok(name)
}

/// Refuses metadata that is too much.
pub fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), ApiError> {
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

/// Refuses more faces than a person may have.
pub fn check_faces(count: usize) -> Result<(), ApiError> {
    if count > MAX_FACES {
        return Err(ApiError::new(
            Code::PersonFull,
            format!("the person would have {count} faces: {MAX_FACES} are kept, delete some first"),
        ));
    }
    Ok(())
}

/// Refuses more denials than a person may have.
pub fn check_denials(count: usize) -> Result<(), ApiError> {
    if count > MAX_DENIALS {
        return Err(ApiError::new(
            Code::PersonFull,
            format!("{count} faces would be denied: {MAX_DENIALS} are kept, delete some first"),
        ));
    }
    Ok(())
}

/// Refuses a name that another person has, as names are compared.
pub fn name_not_taken(gallery: &Gallery, id: PersonId, name: &str) -> Result<(), ApiError> {
    let mut namesakes = gallery.named(name);
    match namesakes.find(|person| person.id != id) {
        Some(person) => Err(taken(&person.name, &person)),
        None => Ok(()),
    }
}

/// Refuses an external id that another person has.
pub fn external_id_not_taken(
    gallery: &Gallery,
    id: PersonId,
    external_id: &str,
) -> Result<(), ApiError> {
    let same = gallery.external(external_id);
    match same.filter(|person| person.id != id) {
        Some(person) => Err(taken(
            &format!("the external id of {}", person.name),
            &person,
        )),
        None => Ok(()),
    }
}

fn taken(what: &str, person: &Person) -> ApiError {
    ApiError::new(
        Code::PersonExists,
        format!(
            "{what} is enrolled already: add photographs at /v1/people/{}/faces, or choose another",
            person.id
        ),
    )
    .with(|members| members.person_id = Some(person.id.to_string()))
}
