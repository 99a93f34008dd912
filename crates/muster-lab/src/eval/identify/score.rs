//! Identification accuracy: photographs of people who are enrolled, and of strangers.

use muster_gallery::Gallery;
use muster_gallery::calibration::Rate;
use muster_gallery::decide::{self, FaceCandidates, Rules};
use muster_jobs::{Decision, Embedding, UnmetRequirement};
use serde::Serialize;

/// Candidates compared for each photograph.
const CANDIDATES: usize = 5;

/// Hundredths of the thresholds in the table.
const THRESHOLDS: std::ops::RangeInclusive<u32> = 30..=70;
const THRESHOLD_STEP: usize = 2;

/// What a photograph that is looked up shows.
#[derive(Debug, Clone, Default)]
pub struct ProbePhoto {
    /// The face; `None` where none was found.
    pub face: Option<Embedding>,
    /// The requirements that the face does not meet to be named.
    pub unmet: Vec<UnmetRequirement>,
}

/// A photograph of somebody who is enrolled.
#[derive(Debug, Clone)]
pub struct MatedProbe {
    /// The person's name in the gallery.
    pub name: String,
    /// What it shows.
    pub photo: ProbePhoto,
}

/// The error rates at one threshold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct AtThreshold {
    /// The similarity from which on a face is the nearest person's.
    pub threshold: f32,
    /// Probes whose nearest person is not their own or is below the threshold.
    pub fnir: Rate,
    /// Strangers whose nearest person reaches the threshold.
    pub fpir: Rate,
}

/// How well people are told from each other and from strangers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scores {
    /// Probes whose nearest person is their own.
    pub rank1: Rate,
    /// At the threshold in use.
    pub at: AtThreshold,
    /// What is decided with every rule, the margin's too: probes not given their own name, and
    /// strangers given any.
    pub decided: AtThreshold,
    /// Probes decided as ambiguous.
    pub ambiguous_probes: usize,
    /// Strangers decided as ambiguous.
    pub ambiguous_strangers: usize,
    /// At other thresholds.
    pub table: Vec<AtThreshold>,
}

/// How one photograph fares.
struct SearchResult {
    /// Whether the nearest is who it should be.
    first: bool,
    /// To the nearest.
    similarity: f32,
    decision: Decision,
    /// Whether the person decided on is who it should be.
    right: bool,
}

fn search(
    gallery: &Gallery,
    shown: &ProbePhoto,
    name: Option<&str>,
    rules: &Rules,
) -> SearchResult {
    let near = shown
        .face
        .as_ref()
        .map(|face| decide::candidates(gallery, face, CANDIDATES));
    let face = FaceCandidates {
        candidates: near.unwrap_or_default(),
        unmet: shown.unmet.clone(),
    };
    let verdict = decide::decide(std::slice::from_ref(&face), rules).remove(0);
    let near = face.candidates;
    let is_own = |place: Option<usize>| {
        let found = place.and_then(|place| near.get(place));
        found.is_some_and(|found| Some(&*found.name) == name)
    };
    SearchResult {
        first: is_own(Some(0)),
        similarity: near
            .first()
            .map_or(f32::NEG_INFINITY, |near| near.similarity),
        decision: verdict.decision,
        right: verdict.decision == Decision::Match && is_own(verdict.best),
    }
}

/// Looks every probe and stranger up.
///
/// A photograph without a face is a probe that was not found, or a stranger who was not taken for
/// anybody.
#[must_use]
pub fn score(
    gallery: &Gallery,
    probes: &[MatedProbe],
    strangers: &[ProbePhoto],
    rules: &Rules,
) -> Scores {
    let probes: Vec<SearchResult> = probes
        .iter()
        .map(|probe| search(gallery, &probe.photo, Some(&probe.name), rules))
        .collect();
    let strangers: Vec<SearchResult> = strangers
        .iter()
        .map(|face| search(gallery, face, None, rules))
        .collect();
    let at = |threshold: f32| AtThreshold {
        threshold,
        fnir: Rate::count(&probes, |seen| {
            !(seen.first && seen.similarity >= threshold)
        }),
        fpir: Rate::count(&strangers, |seen| seen.similarity >= threshold),
    };
    let ambiguous = |seen: &[SearchResult]| {
        let decisions = seen
            .iter()
            .filter(|seen| seen.decision == Decision::Ambiguous);
        decisions.count()
    };
    Scores {
        rank1: Rate::count(&probes, |seen| seen.first),
        at: at(rules.cutoff),
        decided: AtThreshold {
            threshold: rules.cutoff,
            fnir: Rate::count(&probes, |seen| !seen.right),
            fpir: Rate::count(&strangers, |seen| seen.decision == Decision::Match),
        },
        ambiguous_probes: ambiguous(&probes),
        ambiguous_strangers: ambiguous(&strangers),
        table: THRESHOLDS
            .step_by(THRESHOLD_STEP)
            .map(|hundredths| at(hundredths as f32 / 100.0))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use muster_gallery::{Embeddings, EnrolledFace, Person};

    use super::*;

    fn at(degrees: f32) -> Embedding {
        let (y, x) = degrees.to_radians().sin_cos();
        Embedding::normalise(&[x, y]).unwrap()
    }

    #[test]
    fn probes_and_strangers_are_counted() {
        let people = [("Ann", 0.0), ("Bob", 90.0)].map(|(name, degrees)| {
            let face = EnrolledFace::new(String::new(), Embeddings::of("m", at(degrees)), 0);
            Person::new(name.to_owned(), vec![face], 0)
        });
        let gallery = Gallery::of("m", people.to_vec());
        let shown = |degrees: Option<f32>| ProbePhoto {
            face: degrees.map(at),
            unmet: Vec::new(),
        };
        let probe = |name: &str, degrees: Option<f32>| MatedProbe {
            name: name.to_owned(),
            photo: shown(degrees),
        };
        let probes = [
            probe("Ann", Some(10.0)),
            // Below the cutoff, and nearer to Bob.
            probe("Ann", Some(46.0)),
            probe("Ann", Some(-50.0)),
            probe("Bob", None),
        ];
        // One between both, one near Bob, one near nobody, one without a face.
        let strangers = [Some(45.0), Some(80.0), Some(200.0), None].map(shown);
        let scores = score(&gallery, &probes, &strangers, &Rules::at(0.7));
        let counted = |rate: Rate| (rate.happened, rate.of);
        assert_eq!(counted(scores.rank1), (2, 4));
        assert_eq!(counted(scores.at.fnir), (3, 4));
        assert_eq!(counted(scores.at.fpir), (2, 4));
        assert_eq!(counted(scores.decided.fnir), (3, 4));
        assert_eq!(counted(scores.decided.fpir), (1, 4));
        assert_eq!(
            (scores.ambiguous_probes, scores.ambiguous_strangers),
            (1, 1)
        );
        let half = scores.table.iter().find(|at| at.threshold == 0.5).unwrap();
        assert_eq!(counted(half.fnir), (2, 4));
    }
}
