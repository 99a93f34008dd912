//! What is answered of the faces of a photograph.

use std::sync::{Mutex, PoisonError};

use muster_jobs::{
    CandidateReport, Decision, FaceProbe, FaceQuality, FaceReport, PersonRef, Requirements,
    ShippedCalibration,
};

use crate::calibration::Cutoff;
use crate::decide::{self, Candidate, FaceCandidates, Rules, Verdict};
use crate::gallery::Gallery;

/// Candidates compared for each face.
const CANDIDATES: usize = 5;

/// What an operator sets of decisions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JudgeOptions {
    /// The rate of strangers taken for somebody that is aimed at.
    pub target_fpir: f64,
    /// The cutoff; worked out from the gallery when `None`.
    pub cutoff: Option<f32>,
    /// Whether a person is given to one face of a photograph at most.
    pub one_person_once: bool,
    /// What a face needs to be named.
    pub required: Requirements,
}

/// Decides of faces. The cutoff is worked out once for each version of the gallery.
#[derive(Debug)]
pub struct Judge {
    options: JudgeOptions,
    /// The gallery's version and its cutoff.
    known: Mutex<Option<(u64, f32)>>,
}

impl Judge {
    /// Judges as the operator has set.
    #[must_use]
    pub fn new(options: JudgeOptions) -> Self {
        Self {
            options,
            known: Mutex::default(),
        }
    }

    /// Decides of all faces of one photograph together. `shipped` is what is known of the gallery's
    /// model.
    pub fn decide<'a>(
        &self,
        faces: impl IntoIterator<Item: Into<FaceProbe<'a>>>,
        gallery: &Gallery,
        shipped: &ShippedCalibration,
    ) -> Vec<FaceReport> {
        let faces: Vec<FaceProbe<'a>> = faces.into_iter().map(Into::into).collect();
        let candidates: Vec<FaceCandidates> = faces
            .iter()
            .map(|face| FaceCandidates {
                candidates: decide::candidates(gallery, face.embedding, CANDIDATES),
                unmet: self.options.required.unmet_by(&face.quality),
            })
            .collect();
        let cutoff = self.cutoff(gallery, shipped);
        let rules = Rules {
            one_person_once: self.options.one_person_once,
            ..Rules::at(cutoff)
        };
        let verdicts = decide::decide(&candidates, &rules);
        let decided = faces.iter().zip(candidates).zip(verdicts);
        decided
            .map(|((face, of), verdict)| report(face, &of.candidates, verdict, cutoff))
            .collect()
    }

    fn cutoff(&self, gallery: &Gallery, shipped: &ShippedCalibration) -> f32 {
        if let Some(set) = self.options.cutoff {
            return set;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match *known {
            Some((version, cutoff)) if version == gallery.version() => cutoff,
            _ => {
                let target = self.options.target_fpir;
                let cutoff = Cutoff::for_target(gallery, shipped, target).value;
                *known = Some((gallery.version(), cutoff));
                cutoff
            }
        }
    }
}

fn report(
    face: &FaceProbe<'_>,
    candidates: &[Candidate],
    verdict: Verdict,
    cutoff: f32,
) -> FaceReport {
    let named = |candidate: &Candidate| PersonRef {
        id: candidate.person.to_string(),
        name: candidate.name.clone(),
    };
    let best = verdict.best.map(|place| &candidates[place]);
    let open = candidates.iter().filter(|c| c.denied.is_none());
    FaceReport {
        bounds: face.bounds,
        landmarks: face.landmarks,
        confidence: face.confidence,
        turned_deg: face.turned_deg,
        decision: verdict.decision,
        person: best
            .filter(|_| verdict.decision == Decision::Match)
            .map(named),
        similarity: best.map(|best| best.similarity),
        margin: verdict.margin,
        cutoff: Some(cutoff),
        quality: Some(FaceQuality::from(&face.quality)),
        candidates: open
            .map(|candidate| CandidateReport {
                person: named(candidate),
                similarity: candidate.similarity,
            })
            .collect(),
        reasons: verdict.reasons.iter().map(ToString::to_string).collect(),
    }
}
