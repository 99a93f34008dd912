//! Which of a person's faces stand for them.
//!
//! A probe is as similar to a person as to the nearest of these rows, so that one face of somebody
//! else among a person's would let that other pass. A face that the person's other faces agree to
//! differ from is left out.

use muster_jobs::Embedding;

use crate::person::Person;

/// Faces needed before one can be judged by the others: of two that differ neither is the better.
const FEWEST: usize = 3;
/// Faces that each is compared with, at most.
const COMPARED: usize = 32;
/// The similarity from which on a person's faces agree with each other.
pub const AGREEMENT: f32 = 0.3;
/// The share of the usual similarity below which a face does not belong.
const BELONGING: f32 = 0.5;

/// A face's index among the person's, in the order of enrolment.
pub type FaceIndex = usize;

/// Tells which of one person's faces do not belong with the others.
///
/// A face's agreement is the median of its similarities to the others (the upper one of two), and
/// what is usual is the median of all agreements. A face below half of the usual does not belong;
/// where the usual is below 0.3 nothing agrees, and no face is better than another. So the majority
/// decides, and of two faces, or of two against two, all are kept.
#[must_use]
pub fn outliers(faces: &[&Embedding]) -> Vec<FaceIndex> {
    if faces.len() < FEWEST {
        return Vec::new();
    }
    let agreements = (0..faces.len()).map(|place| agreement(faces, place).unwrap_or_default());
    let agreements: Vec<f32> = agreements.collect();
    let usual = upper_median(agreements.clone());
    if usual < AGREEMENT {
        return Vec::new();
    }
    (0..faces.len())
        .filter(|place| agreements[*place] < BELONGING * usual)
        .collect()
}

/// The median of a face's similarities to the others, of two the greater; `None` without others.
#[must_use]
pub fn agreement(faces: &[&Embedding], place: FaceIndex) -> Option<f32> {
    let step = faces.len().div_ceil(COMPARED).max(1);
    let others = (0..faces.len()).step_by(step).filter(|n| *n != place);
    let similarities: Vec<f32> = others.map(|n| faces[n].cosine(faces[place])).collect();
    (!similarities.is_empty()).then(|| upper_median(similarities))
}

/// Whether a person has two faces and they are unlike each other: neither can be trusted more.
#[must_use]
pub fn disagree(faces: &[&Embedding]) -> bool {
    matches!(faces, [one, other] if one.cosine(other) < AGREEMENT)
}

/// The middle value, of two the greater; 0 of none.
fn upper_median(mut values: Vec<f32>) -> f32 {
    let middle = values.len() / 2;
    if values.is_empty() {
        return 0.0;
    }
    *values.select_nth_unstable_by(middle, f32::total_cmp).1
}

/// One person's faces without those that do not belong.
#[must_use]
pub fn trusted(mut faces: Vec<&Embedding>) -> Vec<&Embedding> {
    for place in outliers(&faces).into_iter().rev() {
        faces.remove(place);
    }
    faces
}

/// The embeddings by `model` that a probe is compared with.
#[must_use]
pub fn rows<'a>(person: &'a Person, model: &str) -> Vec<&'a Embedding> {
    trusted(person.embeddings(model).collect())
}

/// How similar the probe is to the nearest row; `None` where there is none.
#[must_use]
pub fn similarity(rows: &[&Embedding], probe: &Embedding) -> Option<f32> {
    rows.iter()
        .map(|row| row.cosine(probe))
        .max_by(f32::total_cmp)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A face at that angle, in degrees, in the plane of two axes of eight.
    fn face(axis: usize, degrees: f32) -> Embedding {
        let mut values = [0.0; 8];
        values[axis] = degrees.to_radians().cos();
        values[axis + 1] = degrees.to_radians().sin();
        Embedding::normalise(&values).unwrap()
    }

    fn places(faces: &[Embedding]) -> Vec<FaceIndex> {
        outliers(&faces.iter().collect::<Vec<_>>())
    }

    #[test]
    fn the_majority_decides_who_does_not_belong() {
        let [a, b, c] = [face(0, 0.0), face(0, 20.0), face(0, 40.0)];
        let (x, x2, y) = (face(3, 0.0), face(3, 10.0), face(5, 0.0));
        let of =
            |faces: &[&Embedding]| places(&faces.iter().map(|f| (*f).clone()).collect::<Vec<_>>());
        assert_eq!(of(&[&a, &x, &b]), [1]);
        assert_eq!(of(&[&a, &x, &b, &y, &c]), [1, 3]);
        assert_eq!(of(&[&x, &x2, &a, &b, &c]), [0, 1]);
        // Nobody can tell which of these belong.
        assert!(of(&[&a, &x]).is_empty());
        assert!(of(&[&a, &b, &x, &x2]).is_empty());
        assert!(of(&[&a, &x, &y]).is_empty());
        assert!(of(&[&a, &b, &c]).is_empty());
    }

    #[test]
    fn many_faces_are_judged_by_some_of_them() {
        let mut faces: Vec<Embedding> = (0..200).map(|n| face(0, n as f32 / 10.0)).collect();
        faces[77] = face(3, 0.0);
        assert_eq!(places(&faces), [77]);
    }

    proptest! {
        #[test]
        fn most_faces_are_kept(
            faces in prop::collection::vec(prop::collection::vec(-1.0f32..1.0, 6), 0..12)
        ) {
            let faces: Vec<_> = faces.iter().filter_map(|v| Embedding::normalise(v).ok()).collect();
            prop_assert!(2 * places(&faces).len() <= faces.len());
        }
    }
}
