//! What is decided of the faces of one photograph.
//!
//! Pure: candidates in, decisions out. All faces of a photograph are decided together, since one
//! person is in it at most once.

mod assignment;

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::embed::Embedding;
use crate::gallery::{Gallery, PersonId};

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
    /// How similar it is to a face of which was said that it is not the person, where that is more
    /// and reaches the cutoff: the person is out of the question.
    pub denied: Option<f32>,
}

/// What is decided of a face.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is the person's.
    Match,
    /// It is nobody's who is enrolled.
    Unknown,
    /// It may be either of several people's.
    Ambiguous,
}

/// Why a face is not simply its nearest person's.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
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
pub fn candidates(gallery: &Gallery, probe: &Embedding, count: usize, cutoff: f32) -> Vec<Candidate> {
    let nearest = gallery.nearest(probe, count).into_iter();
    nearest
        .map(|near| {
            let denials = near.person.denials.iter();
            let alike = denials
                .filter_map(|denial| denial.embeddings.by(gallery.model()?))
                .map(|denied| denied.cosine(probe))
                .max_by(f32::total_cmp);
            Candidate {
                person: near.person.id,
                name: near.person.name.clone(),
                similarity: near.similarity,
                denied: alike.filter(|alike| *alike >= cutoff && *alike > near.similarity),
            }
        })
        .collect()
}

/// Decides of the faces of one photograph, each with its candidates, nearest first.
///
/// Where one person is given once, people go to faces so that the similarities above the cutoff
/// have the greatest sum: a face that would take a person from one that resembles them more gets
/// its next candidate, or nobody.
#[must_use]
pub fn decide(faces: &[Vec<Candidate>], rules: &Rules) -> Vec<Verdict> {
    let given = give(faces, rules);
    let mut holders: HashMap<PersonId, usize> = HashMap::new();
    if rules.one_person_once {
        for (face, place) in given.iter().enumerate() {
            if let Some(place) = place {
                holders.insert(faces[face][*place].person, face);
            }
        }
    }
    (0..faces.len())
        .map(|face| verdict(face, faces, &given, &holders, rules))
        .collect()
}

/// The candidates' places that are not out of the question.
fn open(candidates: &[Candidate]) -> impl Iterator<Item = (usize, &Candidate)> {
    let places = candidates.iter().enumerate();
    places.filter(|(_, candidate)| candidate.denied.is_none())
}

/// For each face the place of the candidate that it is given.
fn give(faces: &[Vec<Candidate>], rules: &Rules) -> Vec<Option<usize>> {
    let reaching = |candidates: &'_ [Candidate]| -> Vec<(usize, PersonId, f32)> {
        let open = open(candidates).filter(|(_, c)| c.similarity >= rules.cutoff);
        open.map(|(place, c)| (place, c.person, c.similarity)).collect()
    };
    let reaching: Vec<_> = faces.iter().map(|face| reaching(face)).collect();
    let first = |face: &Vec<(usize, PersonId, f32)>| face.first().map(|(place, ..)| *place);
    let mut given: Vec<Option<usize>> = reaching.iter().map(first).collect();
    if !rules.one_person_once {
        return given;
    }
    for group in rivals(&reaching) {
        let mut columns: BTreeMap<PersonId, usize> = BTreeMap::new();
        let weights: Vec<Vec<(usize, f64)>> = group
            .iter()
            .map(|face| {
                let people = reaching[*face].iter().map(|(_, person, similarity)| {
                    let next = columns.len();
                    let column = *columns.entry(*person).or_insert(next);
                    let above = f64::from(*similarity) - f64::from(rules.cutoff);
                    (column, above + REACHED)
                });
                people.collect()
            })
            .collect();
        let assigned = assignment::best(&weights, columns.len());
        for (face, column) in group.iter().zip(assigned) {
            let mut people = reaching[*face].iter();
            let place = people.find(|(_, person, _)| columns.get(person).copied() == column);
            given[*face] = column.and(place).map(|(place, ..)| *place);
        }
    }
    given
}

/// The groups of faces, two or more, that are linked by people who reach the cutoff for both.
fn rivals(reaching: &[Vec<(usize, PersonId, f32)>]) -> Vec<Vec<usize>> {
    let mut group: Vec<usize> = (0..reaching.len()).collect();
    fn root(group: &mut [usize], mut face: usize) -> usize {
        while group[face] != face {
            group[face] = group[group[face]];
            face = group[face];
        }
        face
    }
    let mut seen: HashMap<PersonId, usize> = HashMap::new();
    for (face, people) in reaching.iter().enumerate() {
        for (_, person, _) in people {
            let other = *seen.entry(*person).or_insert(face);
            let (a, b) = (root(&mut group, face), root(&mut group, other));
            group[a.max(b)] = a.min(b);
        }
    }
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for face in 0..reaching.len() {
        groups.entry(root(&mut group, face)).or_default().push(face);
    }
    groups.into_values().filter(|faces| faces.len() > 1).collect()
}

fn verdict(
    face: usize,
    faces: &[Vec<Candidate>],
    given: &[Option<usize>],
    holders: &HashMap<PersonId, usize>,
    rules: &Rules,
) -> Verdict {
    let candidates = &faces[face];
    let mut reasons: Vec<Reason> = Vec::new();
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
    let best = given[face].or_else(|| open(candidates).next().map(|(place, _)| place));
    // Those it resembles more, or would be, but who are another face.
    for (place, candidate) in open(candidates) {
        let better = given[face].is_none_or(|given| place < given);
        if better && candidate.similarity >= rules.cutoff && holder(&candidate.person).is_some() {
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
    let next = open(candidates)
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
    holder: &[Candidate],
    lost: PersonId,
    freed: PersonId,
    holders: &HashMap<PersonId, usize>,
    rules: &Rules,
) -> f32 {
    let held = open(holder).find(|(_, candidate)| candidate.person == lost);
    let free = |person: PersonId| person == freed || !holders.contains_key(&person);
    let instead = open(holder)
        .filter(|(_, candidate)| candidate.person != lost && free(candidate.person))
        .map(|(_, candidate)| candidate.similarity)
        .fold(rules.cutoff, f32::max);
    held.map_or(0.0, |(_, held)| held.similarity - instead)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Cast(Vec<PersonId>);

    impl Cast {
        fn new() -> Self {
            Self((0..6).map(|_| PersonId::new()).collect())
        }

        /// A face that resembles the people A, B… of the cast.
        fn face(&self, similarities: &[(char, f32)]) -> Vec<Candidate> {
            let mut face: Vec<Candidate> = similarities
                .iter()
                .map(|(name, similarity)| Candidate {
                    person: self.0[*name as usize - 'A' as usize],
                    name: name.to_string(),
                    similarity: *similarity,
                    denied: None,
                })
                .collect();
            face.sort_by(|a, b| b.similarity.total_cmp(&a.similarity));
            face
        }
    }

    const RULES: Rules = Rules {
        cutoff: 0.4,
        min_margin: 0.05,
        one_person_once: true,
    };

    /// The decision and whose figures they are, one word a face: "match A".
    fn words(faces: &[Vec<Candidate>], rules: &Rules) -> Vec<String> {
        let verdicts = decide(faces, rules);
        let word = |(face, verdict): (&Vec<Candidate>, Verdict)| {
            let name = verdict.best.map_or("nobody", |place| &face[place].name);
            format!("{:?} {name}", verdict.decision).to_lowercase()
        };
        faces.iter().zip(verdicts).map(word).collect()
    }

    fn sentences(faces: &[Vec<Candidate>], face: usize) -> Vec<String> {
        let reasons = &decide(faces, &RULES)[face].reasons;
        reasons.iter().map(Reason::to_string).collect()
    }

    #[test]
    fn one_face_is_its_nearest_persons_nobodys_or_either_of_two() {
        let cast = Cast::new();
        let of = |similarities: &[(char, f32)]| words(&[cast.face(similarities)], &RULES).remove(0);
        assert_eq!(of(&[('A', 0.6), ('B', 0.2)]), "match a");
        assert_eq!(of(&[('A', 0.4)]), "match a");
        assert_eq!(of(&[('A', 0.39), ('B', 0.2)]), "unknown a");
        assert_eq!(of(&[('A', 0.6), ('B', 0.56)]), "ambiguous a");
        assert_eq!(of(&[('A', 0.42), ('B', 0.38)]), "ambiguous a");
        assert_eq!(of(&[]), "unknown nobody");
    }

    #[test]
    fn reasons_name_the_measured_and_the_required() {
        let cast = Cast::new();
        let of = |similarities: &[(char, f32)]| sentences(&[cast.face(similarities)], 0);
        assert!(of(&[('A', 0.6), ('B', 0.2)]).is_empty());
        assert_eq!(of(&[('A', 0.39)]), ["similarity 0.390 is below the cutoff 0.400"]);
        assert_eq!(
            of(&[('A', 0.6), ('B', 0.58)]),
            ["A and B are too close: the margin 0.020 is below the required 0.050"]
        );
        assert_eq!(of(&[]), ["nobody is enrolled"]);
    }

    #[test]
    fn one_person_is_one_face_the_one_that_resembles_them_more() {
        let cast = Cast::new();
        let faces = [cast.face(&[('A', 0.5)]), cast.face(&[('A', 0.9), ('B', 0.45)])];
        assert_eq!(words(&faces, &RULES), ["unknown a", "match a"]);
        assert_eq!(
            sentences(&faces, 0),
            ["A (similarity 0.500) is another face of this photograph: one person is in a \
              photograph once"]
        );
        let twice = Rules {
            one_person_once: false,
            ..RULES
        };
        assert_eq!(words(&faces, &twice), ["match a", "match a"]);
    }

    #[test]
    fn a_face_that_loses_its_person_may_be_its_next() {
        let cast = Cast::new();
        let faces = [
            cast.face(&[('A', 0.6), ('B', 0.58)]),
            cast.face(&[('A', 0.9), ('B', 0.2)]),
        ];
        assert_eq!(words(&faces, &RULES), ["match b", "match a"]);
        assert!(sentences(&faces, 0)[0].starts_with("A (similarity 0.600) is another face"));
    }

    #[test]
    fn another_faces_person_does_not_make_a_face_ambiguous() {
        let cast = Cast::new();
        let faces = [
            cast.face(&[('A', 0.6), ('B', 0.59)]),
            cast.face(&[('B', 0.9)]),
        ];
        assert_eq!(words(&faces, &RULES), ["match a", "match b"]);
        // Twins: which is which can not be told.
        let faces = [
            cast.face(&[('A', 0.6), ('B', 0.59)]),
            cast.face(&[('B', 0.6), ('A', 0.59)]),
        ];
        assert_eq!(words(&faces, &RULES), ["ambiguous a", "ambiguous b"]);
    }

    #[test]
    fn a_denied_person_is_out_of_the_question() {
        let cast = Cast::new();
        let mut face = cast.face(&[('A', 0.7), ('B', 0.5)]);
        face[0].denied = Some(0.98);
        let faces = [face.clone()];
        assert_eq!(words(&faces, &RULES), ["match b"]);
        assert_eq!(
            sentences(&faces, 0),
            ["not A: the face is more similar to one that was said not to be A (0.980) than to A's \
              own (0.700)"]
        );
        face.truncate(1);
        let verdict = decide(&[face], &RULES).remove(0);
        assert_eq!((verdict.decision, verdict.best), (Decision::Unknown, None));
        assert_eq!(verdict.reasons.len(), 1);
    }

    fn table() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(0u8..100, 5), 1..5)
    }

    proptest! {
        #[test]
        fn whatever_the_faces(table in table()) {
            let cast = Cast::new();
            let faces: Vec<_> = table
                .iter()
                .map(|row| {
                    let people = "ABCDE".chars().zip(row);
                    cast.face(&people.map(|(n, s)| (n, f32::from(*s) / 100.0)).collect::<Vec<_>>())
                })
                .collect();
            let mut named = Vec::new();
            for (face, verdict) in faces.iter().zip(decide(&faces, &RULES)) {
                let best = &face[verdict.best.unwrap()];
                prop_assert_eq!(verdict.decision == Decision::Unknown || best.similarity >= 0.4, true);
                prop_assert_eq!(verdict.decision != Decision::Match, verdict.reasons.iter().any(|r| {
                    !matches!(r, Reason::GivenToAnother { .. })
                }) || verdict.decision == Decision::Unknown);
                if verdict.decision != Decision::Match {
                    prop_assert!(!verdict.reasons.is_empty());
                }
                if verdict.decision != Decision::Unknown {
                    prop_assert!(!named.contains(&best.person), "a person twice");
                    named.push(best.person);
                    prop_assert!(verdict.margin.unwrap() > -1e-3, "the assignment was not the best");
                }
            }
            // A photograph with one face is decided by the nearest and the next alone.
            let alone = decide(&faces[..1], &RULES).remove(0);
            let face = &faces[0];
            prop_assert_eq!(alone.margin, Some(face[0].similarity - face[1].similarity));
        }
    }
}
