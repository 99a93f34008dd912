//! What is decided of the faces of one photograph.
//!
//! Pure: candidates in, decisions out. All faces of a photograph are decided together, since one
//! person is in it at most once.

mod assignment;

use std::collections::HashMap;
use std::fmt;

use muster_jobs::{Decision, Embedding, UnmetRequirement};

use crate::gallery::Gallery;
use crate::person::PersonId;

/// The margin below which a face may be either of two people.
///
/// On Labeled Faces in the Wild no true match of a gallery with a cutoff of its own has so small a
/// margin; at the published cutoff 1 of 200 has, and 13 of 18 wrong names.
pub const MIN_MARGIN: f32 = 0.05;
/// What makes a face that just reaches the cutoff worth more than nothing.
const REACHED: f64 = 1e-6;

/// What decisions are made by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// The similarity from which on a face is a person's.
    pub cutoff: f32,
    /// By how much the best must exceed the next.
    pub min_margin: f32,
    /// Whether a person is given to one face of a photograph at most.
    pub one_person_once: bool,
}

impl Rules {
    /// The default rules at that cutoff.
    #[must_use]
    pub fn at(cutoff: f32) -> Self {
        Self {
            cutoff,
            min_margin: MIN_MARGIN,
            one_person_once: true,
        }
    }
}

/// A person who comes into question for a face.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Who.
    pub person: PersonId,
    /// The person's name.
    pub name: String,
    /// How similar the face is to the nearest of the person's.
    pub similarity: f32,
    /// How similar it is to a face of which was said that it is not the person, where that is more:
    /// the person is out of the question.
    pub denied: Option<f32>,
}

/// Why a face is not simply its nearest person's.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// The face is not fit to be named.
    Unfit(UnmetRequirement),
    /// There is nobody to compare with.
    NobodyEnrolled,
    /// The similarity is too low.
    BelowCutoff {
        /// To the best candidate.
        similarity: f32,
        /// As required.
        cutoff: f32,
    },
    /// Two people are too much alike to this face.
    TooClose {
        /// The best candidate.
        best: String,
        /// Who else it may be.
        next: String,
        /// By how much the best exceeds the other.
        margin: f32,
        /// As required.
        required: f32,
    },
    /// The person is another face of the same photograph.
    GivenToAnother {
        /// Who.
        name: String,
        /// Of this face to that person.
        similarity: f32,
    },
    /// It was said that such a face is not the person's.
    Denied {
        /// Who it is not.
        name: String,
        /// To the face of which it was said.
        to_denied: f32,
        /// To the person's own faces.
        similarity: f32,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfit(unmet) => unmet.fmt(f),
            Self::NobodyEnrolled => write!(f, "nobody is enrolled"),
            Self::BelowCutoff { similarity, cutoff } => write!(
                f,
                "similarity {similarity:.3} is below the cutoff {cutoff:.3}"
            ),
            Self::TooClose {
                best,
                next,
                margin,
                required,
            } => write!(
                f,
                "{best} and {next} are too close: the margin {margin:.3} is below the required \
                 {required:.3}"
            ),
            Self::GivenToAnother { name, similarity } => write!(
                f,
                "{name} (similarity {similarity:.3}) is another face of this photograph: one \
                 person is in a photograph once"
            ),
            Self::Denied {
                name,
                to_denied,
                similarity,
            } => write!(
                f,
                "not {name}: the face is more similar to one that was said not to be {name} \
                 ({to_denied:.3}) than to {name}'s own ({similarity:.3})"
            ),
        }
    }
}

/// The decision on one face.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// What is decided.
    pub decision: Decision,
    /// The place among the face's candidates of the person that the figures are of: the match, or
    /// the best candidate. `None` where there is none.
    pub best: Option<usize>,
    /// By how much that one is better than the next who comes into question; `None` without a next.
    ///
    /// Where the next is another face's person, what that face loses is counted too.
    pub margin: Option<f32>,
    /// Why; empty for a plain match.
    pub reasons: Vec<Reason>,
}

/// The `count` people nearest to the probe, nearest first, and whether each was denied.
#[must_use]
pub fn candidates(gallery: &Gallery, probe: &Embedding, count: usize) -> Vec<Candidate> {
    let model = gallery.model().unwrap_or_default();
    let nearest = gallery.nearest(probe, count).into_iter();
    nearest
        .map(|near| Candidate {
            person: near.person.id,
            name: near.person.name.clone(),
            similarity: near.similarity,
            denied: near
                .person
                .nearest_denial(model, probe)
                .filter(|denied| *denied > near.similarity),
        })
        .collect()
}

/// A face to be decided of, by those who come into question.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FaceCandidates {
    /// Who comes into question, nearest first.
    pub candidates: Vec<Candidate>,
    /// The requirements that the face does not meet to be named at all; empty where it is fit.
    pub unmet: Vec<UnmetRequirement>,
}

impl FaceCandidates {
    /// The candidates' places that are not out of the question.
    fn open(&self) -> impl Iterator<Item = (usize, &Candidate)> {
        let places = self.candidates.iter().enumerate();
        places.filter(|(_, candidate)| candidate.denied.is_none())
    }

    /// Those who may be given the face, with their places.
    fn reaching(&self, cutoff: f32) -> impl Iterator<Item = (usize, &Candidate)> {
        let open = self.open();
        open.filter(move |(_, c)| self.unmet.is_empty() && c.similarity >= cutoff)
    }
}

/// Decides of the faces of one photograph.
///
/// Where one person is given once, people go to faces so that the similarities above the cutoff
/// have the greatest sum: a face that would take a person from one that resembles them more gets
/// its next candidate, or nobody.
#[must_use]
pub fn decide(faces: &[FaceCandidates], rules: &Rules) -> Vec<Verdict> {
    let given = if rules.one_person_once {
        give_once(faces, rules.cutoff)
    } else {
        let nearest =
            |face: &FaceCandidates| face.reaching(rules.cutoff).next().map(|(place, _)| place);
        faces.iter().map(nearest).collect()
    };
    let mut holders: HashMap<PersonId, usize> = HashMap::new();
    if rules.one_person_once {
        for (face, place) in given.iter().enumerate() {
            if let Some(place) = place {
                holders.insert(faces[face].candidates[*place].person, face);
            }
        }
    }
    (0..faces.len())
        .map(|face| verdict(face, faces, &given, &holders, rules))
        .collect()
}

/// For each face the place of the candidate that it is given, nobody twice.
fn give_once(faces: &[FaceCandidates], cutoff: f32) -> Vec<Option<usize>> {
    let mut columns: HashMap<PersonId, usize> = HashMap::new();
    let weights: Vec<Vec<(usize, f64)>> = faces
        .iter()
        .map(|face| {
            let reaching = face.reaching(cutoff);
            let weights = reaching.map(|(_, candidate)| {
                let next = columns.len();
                let column = *columns.entry(candidate.person).or_insert(next);
                let above = f64::from(candidate.similarity) - f64::from(cutoff);
                (column, above + REACHED)
            });
            weights.collect()
        })
        .collect();
    let assigned = assignment::best(&weights, columns.len());
    let places = faces.iter().zip(assigned).map(|(face, column)| {
        let mut reaching = face.reaching(cutoff);
        reaching
            .find(|(_, candidate)| column.is_some_and(|given| columns[&candidate.person] == given))
            .map(|(place, _)| place)
    });
    places.collect()
}

fn verdict(
    face: usize,
    faces: &[FaceCandidates],
    given: &[Option<usize>],
    holders: &HashMap<PersonId, usize>,
    rules: &Rules,
) -> Verdict {
    let seen = &faces[face];
    let candidates = &seen.candidates;
    let mut reasons: Vec<Reason> = seen.unmet.iter().copied().map(Reason::Unfit).collect();
    for candidate in candidates {
        if let Some(to_denied) = candidate.denied {
            reasons.push(Reason::Denied {
                name: candidate.name.clone(),
                to_denied,
                similarity: candidate.similarity,
            });
        }
    }
    let holder = |person: &PersonId| holders.get(person).copied().filter(|other| *other != face);
    let best = given[face].or_else(|| seen.open().next().map(|(place, _)| place));
    // Those it resembles more, or would be, but who are another face.
    for (place, candidate) in seen.reaching(rules.cutoff) {
        let better = given[face].is_none_or(|given| place < given);
        if better && holder(&candidate.person).is_some() {
            reasons.push(Reason::GivenToAnother {
                name: candidate.name.clone(),
                similarity: candidate.similarity,
            });
        }
    }
    let Some(place) = best else {
        if candidates.is_empty() {
            reasons.push(Reason::NobodyEnrolled);
        }
        return Verdict {
            decision: Decision::Unknown,
            best: None,
            margin: None,
            reasons,
        };
    };
    let chosen = &candidates[place];
    let next = seen
        .open()
        .filter(|(other, _)| *other != place)
        .map(|(_, other)| {
            let mut margin = chosen.similarity - other.similarity;
            if let (Some(holder), Some(_)) = (holder(&other.person), given[face]) {
                margin += loss(&faces[holder], other.person, chosen.person, holders, rules);
            }
            (margin, other)
        })
        .min_by(|a, b| a.0.total_cmp(&b.0));
    let margin = next.as_ref().map(|(margin, _)| *margin);
    let decision = match next {
        _ if given[face].is_none() => {
            if chosen.similarity < rules.cutoff {
                reasons.push(Reason::BelowCutoff {
                    similarity: chosen.similarity,
                    cutoff: rules.cutoff,
                });
            }
            Decision::Unknown
        }
        Some((margin, other)) if margin < rules.min_margin => {
            reasons.push(Reason::TooClose {
                best: chosen.name.clone(),
                next: other.name.clone(),
                margin,
                required: rules.min_margin,
            });
            Decision::Ambiguous
        }
        _ => Decision::Match,
    };
    Verdict {
        decision,
        best,
        margin,
        reasons,
    }
}

/// What the holder of `lost` loses when it takes its next best instead, `freed` among them.
fn loss(
    holder: &FaceCandidates,
    lost: PersonId,
    freed: PersonId,
    holders: &HashMap<PersonId, usize>,
    rules: &Rules,
) -> f32 {
    let held = holder
        .open()
        .find(|(_, candidate)| candidate.person == lost);
    let free = |person: PersonId| person == freed || !holders.contains_key(&person);
    let instead = holder
        .open()
        .filter(|(_, candidate)| candidate.person != lost && free(candidate.person))
        .map(|(_, candidate)| candidate.similarity)
        .fold(rules.cutoff, f32::max);
    held.map_or(0.0, |(_, held)| held.similarity - instead)
}

#[cfg(test)]
mod tests;
