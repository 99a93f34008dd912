//! Identification accuracy: photographs of people who are enrolled, and of strangers.

use serde::Serialize;

use crate::calibration::Rate;
use crate::decide::{self, Decision, Rules};
use crate::embed::Embedding;
use crate::gallery::Gallery;

/// Candidates compared for each photograph.
const CANDIDATES: usize = 5;

/// A photograph of somebody who is enrolled.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The person's name in the gallery.
    pub name: String,
    /// The face; `None` where none was found.
    pub face: Option<Embedding>,
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
    /// At other thresholds.
    pub table: Vec<AtThreshold>,
}

/// Looks every probe and stranger up.
///
/// A photograph without a face is a probe that was not found, or a stranger who was not taken for
/// anybody.
#[must_use]
pub fn score(
    gallery: &Gallery,
    probes: &[Probe],
    strangers: &[Option<Embedding>],
    rules: &Rules,
) -> Scores {
    struct Seen {
        /// Whether the nearest is who it should be, and how near.
        first: bool,
        similarity: f32,
        named: Option<String>,
    }
    let look = |face: Option<&Embedding>, name: Option<&str>| {
        let near = face.map(|face| decide::candidates(gallery, face, CANDIDATES, rules.cutoff));
        let near = near.unwrap_or_default();
        let verdict = decide::decide(std::slice::from_ref(&near), rules).remove(0);
        let matched = verdict.decision == Decision::Match;
        Seen {
            first: near.first().is_some_and(|near| Some(near.name.as_str()) == name),
            similarity: near.first().map_or(f32::NEG_INFINITY, |near| near.similarity),
            named: verdict.best.filter(|_| matched).map(|place| near[place].name.clone()),
        }
    };
    let probes: Vec<(&str, Seen)> = probes
        .iter()
        .map(|probe| (&*probe.name, look(probe.face.as_ref(), Some(&probe.name))))
        .collect();
    let strangers: Vec<Seen> = strangers.iter().map(|face| look(face.as_ref(), None)).collect();
    let at = |threshold: f32| AtThreshold {
        threshold,
        fnir: Rate::count(&probes, |(_, seen)| !(seen.first && seen.similarity >= threshold)),
        fpir: Rate::count(&strangers, |seen| seen.similarity >= threshold),
    };
    Scores {
        rank1: Rate::count(&probes, |(_, seen)| seen.first),
        at: at(rules.cutoff),
        decided: AtThreshold {
            threshold: rules.cutoff,
            fnir: Rate::count(&probes, |(name, seen)| seen.named.as_deref() != Some(*name)),
            fpir: Rate::count(&strangers, |seen| seen.named.is_some()),
        },
        table: (30..=70).step_by(2).map(|hundredths| at(hundredths as f32 / 100.0)).collect(),
    }
}
