//! Galleries with known faults, of faces drawn around each person's own direction.

use muster_jobs::{Quality, QualityLimits};

use super::*;
use crate::Embeddings;
use crate::calibration::strangers;

const MODEL: &str = "m";
const CUTOFF: f32 = 0.5;

/// People with four faces each, about 0.8 alike.
fn healthy(count: usize) -> Vec<Person> {
    let drawn = strangers(5 * count, 64);
    let drawn: Vec<Embedding> = drawn
        .people()
        .flat_map(|person| person.embeddings(MODEL).cloned().collect::<Vec<_>>())
        .collect();
    let (centres, noise) = drawn.split_at(count);
    let people = centres.iter().zip(noise.chunks(4)).enumerate();
    let people = people.map(|(n, (centre, noise))| {
        let faces = noise.iter().map(|noise| {
            let values = centre.as_slice().iter().zip(noise.as_slice());
            let values: Vec<f32> = values.map(|(centre, noise)| centre + 0.5 * noise).collect();
            let made = Embeddings::of(MODEL, Embedding::normalise(&values).unwrap());
            EnrolledFace::new(format!("{n}.jpg"), made, 0)
        });
        Person::new(format!("person {n}"), faces.collect(), 0)
    });
    people.collect()
}

fn health(people: Vec<Person>) -> Health {
    let required = QualityLimits::default().enrolment;
    examine(
        &Gallery::of(MODEL, people),
        CUTOFF,
        &required,
        Extent::default(),
    )
}

#[test]
fn a_healthy_gallery_has_no_faults() {
    let health = health(healthy(30));
    assert_eq!(
        (health.people, health.faces, health.examined),
        (30, 120, 120)
    );
    assert_eq!(health.mislabelled, []);
    assert_eq!(health.duplicates, []);
    assert_eq!(health.weak, []);
    assert_eq!(health.confusable.len(), CONFUSABLE);
    assert!(
        health
            .confusable
            .is_sorted_by(|a, b| a.nearest >= b.nearest)
    );
    assert_eq!(health.next, None);
}

#[test]
fn swapped_faces_are_both_found_and_where_they_belong() {
    let mut people = healthy(30);
    let (a, b) = (people[3].faces[1].clone(), people[17].faces[2].clone());
    people[3].faces[1] = b.clone();
    people[17].faces[2] = a.clone();
    let health = health(people);
    let mut found: Vec<_> = health
        .mislabelled
        .iter()
        .map(|found| (found.face, &*found.person.name, &*found.looks_like.name))
        .collect();
    found.sort();
    let mut planted = [
        (a.id, "person 17", "person 3"),
        (b.id, "person 3", "person 17"),
    ];
    planted.sort();
    assert_eq!(found, planted);
    assert_eq!(health.duplicates, []);
    // They are also unlike the others of the person they stand with.
    let mut weak: Vec<_> = health.weak.iter().map(|weak| weak.face).collect();
    weak.sort();
    let mut planted = [a.id, b.id];
    planted.sort();
    assert_eq!(weak, planted);
    assert!(health.weak[0].reasons[0].contains("unlike the person's other faces"));
}

#[test]
fn one_person_under_two_names_is_found() {
    let mut people = healthy(30);
    let twin = people[5].faces.split_off(2);
    people.push(Person::new("twin".to_owned(), twin, 0));
    let health = health(people);
    let [pair] = &health.duplicates[..] else {
        panic!("{:?}", health.duplicates)
    };
    assert_eq!(
        (&*pair.first.name, &*pair.second.name),
        ("person 5", "twin")
    );
    assert!(pair.nearest >= pair.score && pair.score >= CUTOFF);
    assert_eq!(health.mislabelled, []);
    assert!(!health.confusable.contains(pair));
}

#[test]
fn of_two_faces_that_differ_neither_is_trusted_more() {
    let mut people = healthy(3);
    people[1].faces.truncate(1);
    let odd = people[2].faces.split_off(3);
    people.pop();
    people[1].faces.extend(odd);
    let health = health(people);
    assert_eq!(health.weak.len(), 2);
    assert!(
        health
            .weak
            .iter()
            .all(|weak| weak.reasons[0].contains("two faces are unlike"))
    );
}

#[test]
fn a_large_gallery_is_examined_part_by_part() {
    let gallery = Gallery::of(MODEL, healthy(30));
    let (mut after, mut examined) = (None, Vec::new());
    loop {
        let extent = Extent { after, faces: 50 };
        let required = QualityLimits::default().enrolment;
        let part = examine(&gallery, CUTOFF, &required, extent);
        examined.push(part.examined);
        after = part.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(examined, [52, 52, 16]);
}

#[test]
fn a_face_that_would_not_be_enrolled_now_is_weak() {
    let mut people = healthy(3);
    people[1].faces[2].quality = Some(Quality {
        size_px: 21.0,
        sharpness: 0.5,
        brightness: 100.0,
        turn_deg: 0.0,
        strength: None,
    });
    let face = people[1].faces[2].id;
    let [weak] = &health(people).weak[..] else {
        panic!("one is weak")
    };
    assert_eq!(weak.face, face);
    assert_eq!(
        weak.reasons,
        ["the face is too small: 21 pixels, 26 required"]
    );
}
