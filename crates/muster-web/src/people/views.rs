//! People, faces and denials as the API shows them.

use muster_api::people::{DenialView, FaceView, PersonView};
use muster_gallery::{Denial, EnrolledFace, Person};
use muster_jobs::{FaceQuality, QualityLimits};

/// An enrolled face, by these limits.
pub fn face(face: &EnrolledFace, limits: &QualityLimits) -> FaceView {
    let quality = face.quality.as_ref();
    FaceView {
        id: face.id.into(),
        file: face.file.clone(),
        enrolled_at_ms: face.enrolled_at_ms,
        quality: quality.map(FaceQuality::from),
        unfit: quality.map_or_else(Vec::new, |quality| limits.enrolment.unmet_by(quality)),
    }
}

/// An enrolled person, with faces by these limits.
pub fn person(person: &Person, limits: &QualityLimits) -> PersonView {
    PersonView {
        id: person.id.into(),
        name: person.name.clone(),
        external_id: person.external_id.clone(),
        metadata: person.metadata.clone(),
        faces: person.faces.iter().map(|one| face(one, limits)).collect(),
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
