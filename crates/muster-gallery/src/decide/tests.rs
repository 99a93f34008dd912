//! Decisions over made-up candidates.

use proptest::prelude::*;

use super::*;

struct Cast(Vec<PersonId>);

impl Cast {
    fn new() -> Self {
        Self((0..6).map(|_| PersonId::new()).collect())
    }

    /// A face that resembles the people A, B… of the cast.
    fn face(&self, similarities: &[(char, f32)]) -> FaceCandidates {
        let mut candidates: Vec<Candidate> = similarities
            .iter()
            .map(|(name, similarity)| Candidate {
                person: self.0[*name as usize - 'A' as usize],
                name: name.to_string(),
                similarity: *similarity,
                denied: None,
            })
            .collect();
        candidates.sort_by(|a, b| b.similarity.total_cmp(&a.similarity));
        FaceCandidates {
            candidates,
            unmet: Vec::new(),
        }
    }
}

const RULES: Rules = Rules {
    cutoff: 0.4,
    min_margin: 0.05,
    one_person_once: true,
};

/// The decision and whose figures they are, one word a face: "match A".
fn words(faces: &[FaceCandidates], rules: &Rules) -> Vec<String> {
    let verdicts = decide(faces, rules);
    let word = |(face, verdict): (&FaceCandidates, Verdict)| {
        let name = verdict
            .best
            .map_or("nobody", |place| &face.candidates[place].name);
        format!("{:?} {name}", verdict.decision).to_lowercase()
    };
    faces.iter().zip(verdicts).map(word).collect()
}

fn sentences(faces: &[FaceCandidates], face: usize) -> Vec<String> {
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
    assert_eq!(
        of(&[('A', 0.39)]),
        ["similarity 0.390 is below the cutoff 0.400"]
    );
    assert_eq!(
        of(&[('A', 0.6), ('B', 0.58)]),
        ["A and B are too close: the margin 0.020 is below the required 0.050"]
    );
    assert_eq!(of(&[]), ["nobody is enrolled"]);
}

#[test]
fn one_person_is_one_face_the_one_that_resembles_them_more() {
    let cast = Cast::new();
    let faces = [
        cast.face(&[('A', 0.5)]),
        cast.face(&[('A', 0.9), ('B', 0.45)]),
    ];
    assert_eq!(words(&faces, &RULES), ["unknown a", "match a"]);
    assert_eq!(
        sentences(&faces, 0),
        [
            "A (similarity 0.500) is another face of this photograph: one person is in a \
          photograph once"
        ]
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
    face.candidates[0].denied = Some(0.98);
    let faces = [face.clone()];
    assert_eq!(words(&faces, &RULES), ["match b"]);
    assert_eq!(
        sentences(&faces, 0),
        [
            "not A: the face is more similar to one that was said not to be A (0.980) than to A's \
          own (0.700)"
        ]
    );
    face.candidates.truncate(1);
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
            let best = &face.candidates[verdict.best.unwrap()];
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
        let face = &faces[0].candidates;
        prop_assert_eq!(alone.margin, Some(face[0].similarity - face[1].similarity));
    }
}
