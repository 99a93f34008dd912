//! What is decided of a face, given the gallery and the cutoff.

use muster_jobs::{Candidate, Decision, FaceBox, FaceReport, PersonRef};
use muster_recognize::gallery::Gallery;
use muster_recognize::recognizer::Face;

/// Candidates named for each face.
const CANDIDATES: usize = 5;

/// A face's box as the contract has it.
pub fn face_box(face: &Face) -> FaceBox {
    FaceBox {
        x: face.bounds.x,
        y: face.bounds.y,
        width: face.bounds.width,
        height: face.bounds.height,
    }
}

/// Matches one face: the nearest person where the similarity reaches `cutoff`, else `unknown`.
///
/// A person is no candidate where the face is more like one that was said not to be them than like
/// any of theirs.
pub fn report(face: &Face, gallery: &Gallery, cutoff: f32) -> FaceReport {
    let model = gallery.model().unwrap_or_default();
    let mut candidates = Vec::new();
    let mut denied = Vec::new();
    for near in gallery.nearest(&face.embedding, CANDIDATES) {
        match near.person.nearest_denial(model, &face.embedding) {
            Some(denial) if denial > near.similarity => denied.push(format!(
                "it is said not to be {}: similarity {:.3} to a face that is not, {:.3} to theirs",
                near.person.name, denial, near.similarity
            )),
            _ => candidates.push(Candidate {
                person: PersonRef {
                    id: near.person.id.to_string(),
                    name: near.person.name.clone(),
                },
                similarity: near.similarity,
            }),
        }
    }
    let best = candidates.first();
    let similarity = best.map(|best| best.similarity);
    let person = best
        .filter(|best| best.similarity >= cutoff)
        .map(|best| best.person.clone());
    let reasons = match (&person, similarity) {
        (Some(_), _) => vec![],
        (None, None) if denied.is_empty() => vec!["nobody is enrolled".to_owned()],
        (None, None) => denied,
        (None, Some(similarity)) => {
            denied.push(format!(
                "similarity {similarity:.3} is below the cutoff {cutoff:.3}"
            ));
            denied
        }
    };
    FaceReport {
        bounds: face_box(face),
        landmarks: face.landmarks,
        confidence: face.confidence,
        decision: if person.is_some() {
            Decision::Match
        } else {
            Decision::Unknown
        },
        person,
        similarity,
        margin: match &candidates[..] {
            [best, next, ..] => Some(best.similarity - next.similarity),
            _ => None,
        },
        cutoff: Some(cutoff),
        candidates,
        reasons,
    }
}
