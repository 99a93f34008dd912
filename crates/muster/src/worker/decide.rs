//! What is decided of a face, given the gallery and the cutoff.

use muster_jobs::{Candidate, Decision, FaceBox, FaceQuality, FaceReport, PersonRef};
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

/// What was measured of a face, as the contract has it.
pub fn quality(face: &Face) -> FaceQuality {
    FaceQuality {
        face_px: face.quality.face_px,
        sharpness: face.quality.sharpness,
        brightness: face.quality.brightness,
        turn: face.quality.turn,
    }
}

/// Matches one face: the nearest person where the similarity reaches `cutoff`, else `unknown`.
pub fn report(face: &Face, gallery: &Gallery, cutoff: f32) -> FaceReport {
    let candidates: Vec<Candidate> = gallery
        .nearest(&face.embedding, CANDIDATES)
        .into_iter()
        .map(|near| Candidate {
            person: PersonRef {
                id: near.person.id.to_string(),
                name: near.person.name.clone(),
            },
            similarity: near.similarity,
        })
        .collect();
    let best = candidates.first();
    let similarity = best.map(|best| best.similarity);
    let person = best
        .filter(|best| best.similarity >= cutoff)
        .map(|best| best.person.clone());
    let reasons = match (&person, similarity) {
        (Some(_), _) => vec![],
        (None, None) => vec!["nobody is enrolled".to_owned()],
        (None, Some(similarity)) => {
            vec![format!(
                "similarity {similarity:.3} is below the cutoff {cutoff:.3}"
            )]
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
        quality: quality(face),
    }
}
