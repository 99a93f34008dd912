//! People and faces as the API shows them.

use std::collections::BTreeMap;

use muster_gallery::{EnrolledFace, FaceId, Person, PersonId};
use serde::Serialize;
use utoipa::ToSchema;

/// An enrolled face, as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub struct FaceView {
    #[schema(value_type = uuid::Uuid)]
    pub id: FaceId,
    /// The client's name of the photograph.
    pub file: String,
    pub enrolled_at_ms: u64,
}

/// An enrolled person, as the API shows them.
#[derive(Debug, Serialize, ToSchema)]
pub struct PersonView {
    #[schema(value_type = uuid::Uuid)]
    pub id: PersonId,
    pub name: String,
    pub external_id: Option<String>,
    pub metadata: BTreeMap<String, String>,
    pub faces: Vec<FaceView>,
    /// How many faces were said not to be this person.
    pub denials: usize,
    pub enrolled_at_ms: u64,
    pub changed_at_ms: u64,
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
