//! People, faces and denials as the API shows them.

use muster_api::people::{DenialView, FaceView, PersonView};
use muster_gallery::{Denial, EnrolledFace, Person};

/// An enrolled face.
pub fn face(face: &EnrolledFace) -> FaceView {
    FaceView {
        id: face.id.into(),
        file: face.file.clone(),
        enrolled_at_ms: face.enrolled_at_ms,
    }
}

/// An enrolled person.
pub fn person(person: &Person) -> PersonView {
    PersonView {
        id: person.id.into(),
        name: person.name.clone(),
        external_id: person.external_id.clone(),
        metadata: person.metadata.clone(),
        faces: person.faces.iter().map(face).collect(),
        denials: person.denials.len(),
        enrolled_at_ms: person.enrolled_at_ms,
        changed_at_ms: person.changed_at_ms,
    }
}

/// A denial.
pub fn denial(denial: &Denial) -> DenialView {
    DenialView {
        id: denial.id.into(),
        request_id: denial.request_id.clone(),
        face: denial.face,
        at_ms: denial.at_ms,
    }
}
