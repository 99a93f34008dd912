use proptest::prelude::*;

use super::*;
use crate::gallery::{Denial, DenialId, Embeddings, EnrolledFace};
use crate::template;

/// A person whose faces have these directions, in five dimensions.
fn person(number: usize, directions: &[Vec<f32>]) -> Person {
    let face = |values: &Vec<f32>| {
        let embedding = Embedding::normalise(values).unwrap();
        EnrolledFace::new(String::new(), Embeddings::of("sface", embedding), 0)
    };
    Person {
        external_id: Some(format!("key-{number}")),
        ..Person::new(number.to_string(), directions.iter().map(face).collect(), 0)
    }
}

/// The same gallery, everybody in segments.
fn restored(gallery: &Gallery) -> Gallery {
    let base = Base {
        sequence: 1,
        version: gallery.version(),
        parts: gallery.compacted(),
    };
    Gallery::restore(gallery.model.clone(), base)
}

fn direction() -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(-1.0f32..1.0, 5).prop_filter("a direction", |values| {
        values.iter().any(|value| value.abs() > 0.01)
    })
}

proptest! {
    #[test]
    fn the_nearest_are_those_of_a_full_comparison(
        people in prop::collection::vec(prop::collection::vec(direction(), 1..4), 0..12),
        removed in prop::collection::vec(any::<bool>(), 12),
        probe in direction(),
        count in 1usize..6,
    ) {
        let mut gallery = Gallery::default();
        let all: Vec<Person> =
            people.iter().enumerate().map(|(n, faces)| person(n, faces)).collect();
        for (n, person) in all.iter().enumerate() {
            gallery.apply(n as u64 + 1, Change::Put(person.clone()));
        }
        for (person, removed) in all.iter().zip(&removed) {
            if *removed {
                gallery.apply(gallery.version() + 1, Change::Remove(person.id));
            }
        }
        let probe = Embedding::normalise(&probe).unwrap();
        let best = |person: &Person| {
            template::similarity(&template::rows(person, "sface"), &probe).unwrap()
        };
        let mut expected: Vec<f32> = gallery.people().map(|person| best(&person)).collect();
        expected.sort_by(|a, b| b.total_cmp(a));
        expected.truncate(count);
        let found = gallery.nearest(&probe, count);
        prop_assert_eq!(found.iter().map(|c| c.similarity).collect::<Vec<_>>(), expected.clone());
        for candidate in found {
            prop_assert_eq!(candidate.similarity, best(&candidate.person));
        }
        let restored = restored(&gallery);
        prop_assert_eq!(&restored, &gallery);
        prop_assert_eq!(gallery.nearest(&probe, count).len(),
            restored.nearest(&probe, count).len());
        for gallery in [&gallery, &restored] {
            let shortlisted = gallery.nearest_of(&probe, count, 0);
            let similarities = shortlisted.iter().map(|c| c.similarity);
            prop_assert_eq!(similarities.collect::<Vec<_>>(), expected.clone());
            for (n, (person, removed)) in all.iter().zip(&removed).enumerate() {
                let expected = (!removed).then_some(person.id);
                prop_assert_eq!(gallery.named(&person.name).map(|p| p.id), expected);
                let key = format!("key-{n}");
                prop_assert_eq!(gallery.external(&key).map(|p| p.id), expected);
            }
        }
    }

    #[test]
    fn pages_together_are_everyone(count in 0usize..20, limit in 1usize..7) {
        let mut gallery = Gallery::default();
        for n in 0..count {
            gallery.apply(n as u64 + 1, Change::Put(person(n, &[vec![1.0; 5]])));
        }
        let mut seen = Vec::new();
        loop {
            let page = gallery.page(seen.last().copied(), limit);
            if page.is_empty() {
                break;
            }
            seen.extend(page.iter().map(|person| person.id));
        }
        let everyone: Vec<_> = gallery.people().map(|person| person.id).collect();
        prop_assert_eq!(seen, everyone);
    }
}

#[test]
fn a_renamed_person_is_found_by_the_new_name_alone() {
    let mut gallery = Gallery::default();
    let mut anna = person(1, &[vec![1.0, 0.0]]);
    gallery.apply(1, Change::Put(anna.clone()));
    anna.name = "Anna".to_owned();
    anna.external_id = None;
    gallery.apply(2, Change::Put(anna.clone()));
    assert_eq!(gallery.named("Anna").map(|p| p.id), Some(anna.id));
    assert_eq!(
        (gallery.named("1"), gallery.external("key-1")),
        (None, None)
    );
}

#[test]
fn only_embeddings_of_the_gallerys_model_are_compared() {
    let mut gallery = Gallery::default();
    let anna = person(1, &[vec![1.0, 0.0]]);
    gallery.apply(1, Change::Put(anna.clone()));
    assert_eq!(gallery.model(), Some("sface"));
    let probe = Embedding::normalise(&[0.0, 1.0]).unwrap();
    let embeddings = Embeddings::of("other", probe.clone());
    let face = EnrolledFace::new(String::new(), embeddings, 0);
    gallery.apply(2, Change::Put(Person::new("Ben".to_owned(), vec![face], 0)));
    let nearest = gallery.nearest(&probe, 5);
    assert_eq!(nearest.len(), 1, "Ben's is another model's");
    assert_eq!(
        (nearest[0].person.id, nearest[0].similarity),
        (anna.id, 0.0)
    );
}

#[test]
fn the_likest_denial_counts() {
    let mut anna = person(1, &[vec![1.0, 0.0]]);
    let probe = Embedding::normalise(&[0.0, 1.0]).unwrap();
    assert_eq!(anna.nearest_denial("sface", &probe), None);
    for direction in [[1.0, 0.0], [0.0, 1.0]] {
        let denied = Embedding::normalise(&direction).unwrap();
        anna.denials.push(Denial {
            id: DenialId::new(),
            request_id: String::new(),
            face: 0,
            embeddings: Embeddings::of("sface", denied),
            at_ms: 0,
        });
    }
    assert_eq!(anna.nearest_denial("sface", &probe), Some(1.0));
    assert_eq!(anna.nearest_denial("other", &probe), None);
    let mut forgiven = anna.clone();
    forgiven.denials.pop();
    let mut gallery = Gallery::default();
    gallery.apply(1, Change::Put(anna));
    assert!(
        gallery.forgets(&Change::Put(forgiven)),
        "its embedding must go"
    );
}

#[test]
fn a_change_forgets_when_it_drops_a_face_or_a_person() {
    let mut gallery = Gallery::default();
    let anna = person(1, &[vec![1.0, 0.0], vec![0.0, 1.0]]);
    assert!(!gallery.forgets(&Change::Put(anna.clone())));
    gallery.apply(1, Change::Put(anna.clone()));
    let mut fewer = anna.clone();
    fewer.faces.pop();
    assert!(gallery.forgets(&Change::Put(fewer)));
    let mut more = anna.clone();
    more.faces
        .push(person(2, &[vec![1.0, 1.0]]).faces.remove(0));
    assert!(!gallery.forgets(&Change::Put(more)));
    assert!(gallery.forgets(&Change::Remove(anna.id)));
}
