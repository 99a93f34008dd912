//! What is decided of the faces of a photograph, given the gallery and the settings.

use std::sync::{Mutex, PoisonError};

use muster_gallery::Gallery;
use muster_gallery::calibration::Cutoff;
use muster_gallery::decide::{self, Rules, Verdict};
use muster_jobs::{
    Candidate, Decision, FaceBox, FaceQuality, FaceReport, PersonRef, Quality, Requirements,
};
use muster_recognize::recognizer::Face;

use muster_base::catalogue::Catalogue;
use muster_base::settings::DecisionSettings;

/// Candidates compared for each face.
pub const CANDIDATES: usize = 5;

/// A face's box as the contract has it.
pub fn face_box(face: &Face) -> FaceBox {
    FaceBox {
        x: face.bounds.x,
        y: face.bounds.y,
        width: face.bounds.width,
        height: face.bounds.height,
    }
}

/// A face's quality as the contract has it.
pub fn face_quality(quality: &Quality) -> FaceQuality {
    FaceQuality {
        size_px: quality.size_px,
        sharpness: quality.sharpness,
        brightness: quality.brightness,
        turn_deg: quality.turn_deg,
    }
}

/// Decides by the settings. The cutoff is worked out once for each version of the gallery.
pub struct Judge {
    catalogue: Catalogue,
    target_fpir: f64,
    cutoff: Option<f32>,
    one_person_once: bool,
    required: Requirements,
    /// The gallery's version and its cutoff.
    known: Mutex<Option<(u64, f32)>>,
}

impl Judge {
    /// Judges by these settings what the gallery's model sees.
    pub fn new(settings: &DecisionSettings, catalogue: Catalogue) -> Self {
        Self {
            catalogue,
            target_fpir: settings.target_fpir,
            cutoff: settings.cutoff,
            one_person_once: settings.one_person_once,
            required: Requirements::for_match(),
            known: Mutex::default(),
        }
    }

    /// Decides of all faces of one photograph together.
    pub fn decide(&self, faces: &[Face], gallery: &Gallery) -> Vec<FaceReport> {
        let seen: Vec<decide::Face> = faces
            .iter()
            .map(|face| decide::Face {
                candidates: decide::candidates(gallery, &face.embedding, CANDIDATES),
                lacks: self.required.lacking(&face.quality),
            })
            .collect();
        let cutoff = self.cutoff(gallery);
        let rules = Rules {
            one_person_once: self.one_person_once,
            ..Rules::at(cutoff)
        };
        let verdicts = decide::decide(&seen, &rules);
        let decided = faces.iter().zip(seen).zip(verdicts);
        decided
            .map(|((face, seen), verdict)| report(face, &seen.candidates, verdict, cutoff))
            .collect()
    }

    fn cutoff(&self, gallery: &Gallery) -> f32 {
        if let Some(set) = self.cutoff {
            return set;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match *known {
            Some((version, cutoff)) if version == gallery.version() => cutoff,
            _ => {
                let shipped = self.catalogue.shipped_of(gallery);
                let cutoff = Cutoff::for_target(gallery, &shipped, self.target_fpir).value;
                *known = Some((gallery.version(), cutoff));
                cutoff
            }
        }
    }
}

fn report(
    face: &Face,
    candidates: &[decide::Candidate],
    verdict: Verdict,
    cutoff: f32,
) -> FaceReport {
    let named = |candidate: &decide::Candidate| PersonRef {
        id: candidate.person.to_string(),
        name: candidate.name.clone(),
    };
    let best = verdict.best.map(|place| &candidates[place]);
    let decision = match verdict.decision {
        decide::Decision::Match => Decision::Match,
        decide::Decision::Unknown => Decision::Unknown,
        decide::Decision::Ambiguous => Decision::Ambiguous,
    };
    let open = candidates.iter().filter(|c| c.denied.is_none());
    FaceReport {
        bounds: face_box(face),
        landmarks: face.landmarks,
        confidence: face.confidence,
        decision,
        person: best.filter(|_| decision == Decision::Match).map(named),
        similarity: best.map(|best| best.similarity),
        margin: verdict.margin,
        cutoff: Some(cutoff),
        quality: Some(face_quality(&face.quality)),
        candidates: open
            .map(|candidate| Candidate {
                person: named(candidate),
                similarity: candidate.similarity,
            })
            .collect(),
        reasons: verdict.reasons.iter().map(ToString::to_string).collect(),
    }
}
