//! How well a gallery recognises its own people, each face left out in turn.

use std::collections::BTreeSet;

use muster_jobs::{Embedding, ShippedCalibration};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::cutoff::{Basis, Cutoff};
use super::impostors::Impostors;
use super::rate::Rate;
use crate::decide::MIN_MARGIN;
use crate::gallery::Gallery;
use crate::person::Person;
use crate::template;

/// People whose faces are looked for, at most, evenly over the gallery.
const PEOPLE: usize = 2000;
/// Faces of one person that are looked for, at most.
const FACES: usize = 3;
/// Cutoffs in the table, beside the one in use.
const STEPS: std::ops::RangeInclusive<u32> = 30..=70;
/// A hundredth of the table's cutoffs lie apart.
const STEP: usize = 2;

/// What is known of the error rates in a gallery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Report {
    /// The gallery's version.
    pub version: u64,
    /// The model whose embeddings are compared; `None` while nobody is enrolled.
    pub model: Option<String>,
    /// The rate of strangers taken for somebody that is aimed at.
    pub target_fpir: f64,
    /// The similarity from which on a face is a person's.
    pub cutoff: f32,
    /// What the cutoff rests on.
    pub basis: Basis,
    /// People enrolled.
    pub people: usize,
    /// Their faces.
    pub faces: usize,
    /// Comparisons of a face with another person that the cutoff rests on.
    pub impostor_pairs: usize,
    /// Faces that were looked for among the other faces of the same person.
    pub genuine_probes: usize,
    /// The share of faces whose nearest person is their own.
    pub rank1: Rate,
    /// The share of people who, if they were not enrolled, would be taken for somebody.
    pub fpir: Rate,
    /// The share of faces whose person would not be named; those that would be ambiguous count.
    pub fnir: Rate,
    /// Both rates at other cutoffs.
    pub table: Vec<AtCutoff>,
    /// What is not known and why, one sentence each.
    pub notes: Vec<String>,
}

/// The error rates at one cutoff.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AtCutoff {
    /// The cutoff.
    pub cutoff: f32,
    /// Strangers taken for somebody.
    pub fpir: Rate,
    /// People not named.
    pub fnir: Rate,
}

/// How a face that is left out fares: similarities to its own person and to the nearest other.
struct LeftOut {
    /// `None` where the person has no other face.
    own: Option<f32>,
    other: Option<f32>,
}

impl LeftOut {
    fn first(&self) -> bool {
        self.own > self.other
    }

    /// Whether the person would be named at that cutoff, and not be ambiguous.
    fn named(&self, cutoff: f32) -> bool {
        let ahead = |own: f32| self.other.is_none_or(|other| own - other >= MIN_MARGIN);
        self.own.is_some_and(|own| own >= cutoff && ahead(own))
    }
}

/// Measures a gallery's error rates on its own faces.
///
/// One face of each of up to 2,000 people is compared with everybody else, as a stranger would be,
/// for the FPIR; up to three faces of each of those who have several are looked for among everybody
/// without that face, for rank 1 and FNIR, which counts what is ambiguous. Takes a search for each face.
#[must_use]
pub fn report(
    gallery: &Gallery,
    shipped: &ShippedCalibration,
    target: f64,
    set: Option<f32>,
) -> Report {
    let own = Impostors::of(gallery);
    let people = gallery.people_count();
    let faces = gallery.faces();
    let cutoff = match set {
        Some(value) => Cutoff::set(value),
        None => Cutoff::estimate(own.as_ref(), people, faces, shipped, target),
    };
    let (mut strangers, mut probes) = (Vec::new(), Vec::new());
    if let Some(model) = gallery.model() {
        let step = people.div_ceil(PEOPLE).max(1);
        for person in gallery.every_nth(step) {
            leave_out(gallery, &person, model, &mut strangers, &mut probes);
        }
    }
    let at = |cutoff: f32| AtCutoff {
        cutoff,
        fpir: Rate::count(&strangers, |nearest: &f32| *nearest >= cutoff),
        fnir: Rate::count(&probes, |probe: &LeftOut| !probe.named(cutoff)),
    };
    let here = at(cutoff.value);
    Report {
        version: gallery.version(),
        model: gallery.model().map(str::to_owned),
        target_fpir: target,
        cutoff: cutoff.value,
        basis: cutoff.basis,
        people,
        faces,
        impostor_pairs: own.map_or(0, |own| own.pairs),
        genuine_probes: probes.len(),
        rank1: Rate::count(&probes, LeftOut::first),
        fpir: here.fpir,
        fnir: here.fnir,
        table: cutoffs(cutoff.value).map(at).collect(),
        notes: notes(people, &here, target),
    }
}

/// Round cutoffs and the one in use, in order.
fn cutoffs(in_use: f32) -> impl Iterator<Item = f32> {
    let round = STEPS.step_by(STEP).map(|hundredths| hundredths * 1000);
    let mut all: BTreeSet<u32> = round.collect();
    let exact = (in_use * 1e5).round() as u32;
    all.insert(exact);
    all.into_iter().map(move |cutoff| {
        if cutoff == exact {
            in_use
        } else {
            cutoff as f32 / 1e5
        }
    })
}

fn notes(people: usize, here: &AtCutoff, target: f64) -> Vec<String> {
    let mut notes = Vec::new();
    if people < 2 {
        notes.push("FPIR is not known: fewer than two people are enrolled".to_owned());
    } else if 3.0 / target > here.fpir.of as f64 {
        notes.push(format!(
            "{} people are too few to measure a rate of {:.3} %: with none of them taken for \
             somebody, it is still known only to be below {:.2} %",
            here.fpir.of,
            100.0 * target,
            100.0 * Rate::of(0, here.fpir.of).high,
        ));
    }
    if here.fnir.of == 0 {
        notes.push(
            "FNIR and rank 1 are not known: nobody has two faces; enrol a second photograph of \
             some people"
                .to_owned(),
        );
    }
    if here.fpir.low > target {
        notes.push(
            "more people are taken for each other than the target allows: look for people who are \
             enrolled under two names, and for faces under a wrong one, with `muster gallery health`"
                .to_owned(),
        );
    }
    notes
}

fn leave_out(
    gallery: &Gallery,
    person: &Person,
    model: &str,
    strangers: &mut Vec<f32>,
    probes: &mut Vec<LeftOut>,
) {
    let faces: Vec<&Embedding> = person.embeddings(model).collect();
    let step = faces.len().div_ceil(FACES).max(1);
    for place in (0..faces.len()).step_by(step) {
        let face = faces[place];
        // The person stands first or second: the face itself is among theirs.
        let nearest = gallery.nearest(face, 2).into_iter();
        let mut others = nearest.filter(|near| near.person.id != person.id);
        let other = others.next().map(|near| near.similarity);
        if place == 0 {
            strangers.extend(other);
        }
        if faces.len() > 1 {
            let mut left = faces.clone();
            left.remove(place);
            let own = template::similarity(&template::trusted(left), face);
            probes.push(LeftOut { own, other });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Embeddings, EnrolledFace};

    const SHIPPED: ShippedCalibration = ShippedCalibration {
        cutoff: 0.363,
        impostors: None,
    };

    fn person(name: &str, angles: &[f32]) -> Person {
        let face = |degrees: &f32| {
            let (y, x) = degrees.to_radians().sin_cos();
            let embedding = Embedding::normalise(&[x, y]).unwrap();
            EnrolledFace::new(String::new(), Embeddings::of("m", embedding), 0)
        };
        Person::new(name.to_owned(), angles.iter().map(face).collect(), 0)
    }

    #[test]
    fn each_face_is_looked_for_among_the_others() {
        let people = vec![
            person("Ann", &[0.0, 10.0]),
            person("Bob", &[180.0]),
            // One of two is nearer to Ann than to the other.
            person("Cleo", &[90.0, 15.0]),
        ];
        let report = report(&Gallery::of("m", people), &SHIPPED, 0.001, Some(0.9));
        assert_eq!((report.people, report.faces), (3, 5));
        assert_eq!((report.basis, report.cutoff), (Basis::Set, 0.9));
        // Ann's first face is 15 degrees from Cleo's: cosine 0.966. Bob's nearest is at 90.
        assert_eq!((report.fpir.happened, report.fpir.of), (1, 3));
        assert_eq!(report.genuine_probes, 4);
        // Ann's second is nearer to Cleo's (5 degrees) than to her own (10), and Cleo's second to
        // Ann's; her first is nearest to her own (75), but below the cutoff. Ann's first is nearest to
        // her own (0.985), but Cleo (0.966) is too close behind: it is ambiguous.
        assert_eq!((report.rank1.happened, report.rank1.of), (2, 4));
        assert_eq!((report.fnir.happened, report.fnir.of), (4, 4));
        assert!(report.table.iter().any(|row| row.cutoff == 0.9));
        assert!(report.table.is_sorted_by(|a, b| a.cutoff < b.cutoff));
    }

    #[test]
    fn whom_somebody_is_too_close_behind_is_not_named() {
        let missed = |degrees: f32| {
            let people = vec![person("Ann", &[0.0, 10.0]), person("Bob", &[degrees])];
            let report = report(&Gallery::of("m", people), &SHIPPED, 0.001, Some(0.5));
            assert_eq!(report.rank1.happened, 2);
            report.fnir.happened
        };
        // Ann's faces have 0.985 to each other, and 0.946 and 0.875 to Bob's; then 0 and 0.17.
        assert_eq!(missed(-19.0), 1);
        assert_eq!(missed(90.0), 0);
    }

    #[test]
    fn what_is_not_known_is_said() {
        let empty = report(&Gallery::default(), &SHIPPED, 0.001, None);
        assert_eq!(empty.fpir.estimate, None);
        assert!(
            empty.notes[0].contains("fewer than two people"),
            "{:?}",
            empty.notes
        );
        let people = vec![person("Ann", &[0.0]), person("Bob", &[180.0])];
        let single = report(&Gallery::of("m", people), &SHIPPED, 0.001, None);
        assert_eq!(single.fpir.of, 2);
        assert_eq!(single.fnir.estimate, None);
        assert!(
            single
                .notes
                .iter()
                .any(|note| note.contains("nobody has two faces"))
        );
        assert!(single.notes.iter().any(|note| note.contains("too few")));
    }
}
