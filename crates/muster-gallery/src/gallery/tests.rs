use proptest::prelude::*;
use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::SeedableRng as _;

use super::*;
use crate::segment::Segment;
use crate::template;
use crate::{Denial, DenialId, Embeddings, EnrolledFace};

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

/// Puts everybody of a gallery into segments.
fn restored(gallery: &Gallery) -> Gallery {
    let snapshot = Snapshot {
        sequence: 1,
        version: gallery.version(),
        segments: gallery.compacted(),
    };
    Gallery::restore(gallery.model.clone(), snapshot)
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
        for near in found {
            prop_assert_eq!(near.similarity, best(&near.person));
        }
        let restored = restored(&gallery);
        prop_assert_eq!(&restored, &gallery);
        for gallery in [&gallery, &restored] {
            for exact_up_to in [usize::MAX, 0] {
                let found = gallery.nearest_of(&probe, count, exact_up_to);
                let similarities = found.iter().map(|c| c.similarity);
                prop_assert_eq!(similarities.collect::<Vec<_>>(), expected.clone());
            }
            let people: Vec<Person> = gallery.people().map(Cow::into_owned).collect();
            let some: Vec<Person> = gallery.every_nth(count).map(Cow::into_owned).collect();
            prop_assert!(some.iter().eq(people.iter().step_by(count)));
            // Not those who were enrolled first.
            let mut sampled = people.clone();
            sampled.sort_by_key(|person| person.id.sampling_hash());
            sampled.truncate(count);
            let sample = gallery.sample(count);
            prop_assert_eq!(sample.len(), sampled.len());
            for (person, (hash, made)) in sampled.iter().zip(sample) {
                prop_assert_eq!(person.id.sampling_hash(), hash);
                prop_assert!(person.embeddings("sface").eq(&made));
            }
            for (n, (person, removed)) in all.iter().zip(&removed).enumerate() {
                let expected = (!removed).then_some(person.id);
                prop_assert_eq!(gallery.named(&person.name).map(|p| p.id).next(), expected);
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
    assert!(gallery.named("Anna").map(|p| p.id).eq([anna.id]));
    assert_eq!(gallery.named("1").count(), 0);
    assert_eq!(gallery.external("key-1"), None);
}

#[test]
fn people_of_one_name_are_found_together_in_memory_and_in_segments() {
    let mut gallery = Gallery::default();
    let names = ["José", "Jose", "JOSE\u{301}", " jose\u{301} "];
    let people: Vec<Person> = names
        .into_iter()
        .enumerate()
        .map(|(n, name)| Person {
            name: name.to_owned(),
            ..person(n, &[vec![1.0, 0.0]])
        })
        .collect();
    for (version, person) in (1..).zip(&people) {
        gallery.apply(version, Change::Put(person.clone()));
    }
    let stored = restored(&gallery);
    for mut gallery in [gallery, stored] {
        let named = |gallery: &Gallery, name: &str| {
            let ids: BTreeSet<_> = gallery.named(name).map(|person| person.id).collect();
            ids
        };
        assert_eq!(
            named(&gallery, "josé"),
            BTreeSet::from([people[0].id, people[2].id, people[3].id])
        );
        assert_eq!(named(&gallery, "JOSE"), BTreeSet::from([people[1].id]));
        gallery.apply(5, Change::Remove(people[2].id));
        assert_eq!(
            named(&gallery, "josé"),
            BTreeSet::from([people[0].id, people[3].id])
        );
    }
}

#[test]
fn a_change_of_the_model_is_one_step_and_so_is_the_way_back() {
    let mut gallery = Gallery::default();
    let mut people = [person(0, &[vec![1.0, 0.0]]), person(1, &[vec![0.0, 1.0]])];
    for (n, person) in people.iter().enumerate() {
        gallery.apply(n as u64 + 1, Change::Put(person.clone()));
    }
    assert_eq!(people[0].lacking("other").count(), 1);
    // To the other model the two look the other way round.
    for (person, other) in people.iter_mut().zip([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]) {
        for (_, embeddings) in person.embeddings_mut() {
            let made = Embedding::normalise(&other).unwrap();
            *embeddings = embeddings.clone().with("other", made);
        }
        assert_eq!(person.lacking("other").count(), 0);
        gallery.apply(gallery.version() + 1, Change::Put(person.clone()));
    }
    let kept: Vec<String> = gallery.kept_models().into_iter().collect();
    assert_eq!(kept, ["other", "sface"]);
    let nearest = |gallery: &Gallery, probe: &[f32]| {
        let probe = Embedding::normalise(probe).unwrap();
        gallery.nearest(&probe, 1)[0].person.name.clone()
    };
    assert_eq!(nearest(&gallery, &[1.0, 0.0]), "0");
    // Everybody stands in segments of the model before.
    let mut gallery = restored(&gallery);
    gallery.apply(5, Change::UseModel("other".to_owned()));
    assert_eq!(gallery.model(), Some("other"));
    assert_eq!(nearest(&gallery, &[1.0, 0.0, 0.0]), "1");
    assert_eq!(nearest(&restored(&gallery), &[1.0, 0.0, 0.0]), "1");
    gallery.apply(6, Change::UseModel("sface".to_owned()));
    assert_eq!(nearest(&gallery, &[1.0, 0.0]), "0");
    let mut bare = people[0].clone();
    assert!(!gallery.must_erase(&Change::Put(bare.clone())));
    for (_, embeddings) in bare.embeddings_mut() {
        *embeddings = embeddings.clone().without("other");
    }
    assert_eq!(
        bare.faces[0].embeddings,
        Embeddings::of("sface", Embedding::normalise(&[1.0, 0.0]).unwrap())
    );
    assert!(gallery.must_erase(&Change::Put(bare)));
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
        gallery.must_erase(&Change::Put(forgiven)),
        "its embedding must go"
    );
}

#[test]
fn a_change_forgets_when_it_drops_a_face_or_a_person() {
    let mut gallery = Gallery::default();
    let anna = person(1, &[vec![1.0, 0.0], vec![0.0, 1.0]]);
    assert!(!gallery.must_erase(&Change::Put(anna.clone())));
    gallery.apply(1, Change::Put(anna.clone()));
    let mut fewer = anna.clone();
    fewer.faces.pop();
    assert!(gallery.must_erase(&Change::Put(fewer)));
    let mut more = anna.clone();
    more.faces
        .push(person(2, &[vec![1.0, 1.0]]).faces.remove(0));
    assert!(!gallery.must_erase(&Change::Put(more)));
    assert!(gallery.must_erase(&Change::Remove(anna.id)));
}

#[test]
fn another_models_segments_are_compared_by_their_records_until_they_are_written_anew() {
    let made = |values: &[f32]| Embedding::normalise(values).unwrap();
    let both = |number: usize, sface: &[f32], other: &[f32]| {
        let mut person = person(number, &[sface.to_vec()]);
        person.faces[0].embeddings.put("other", made(other));
        person
    };
    let mut people = [
        both(1, &[1.0, 0.0], &[0.0, 0.0, 1.0]),
        both(2, &[0.0, 1.0], &[0.0, 1.0, 0.0]),
        person(3, &[vec![0.6, 0.8]]),
    ];
    people.sort_by_key(|person| person.id);
    let segment = Segment::build(Some("sface"), people.iter().map(Cow::Borrowed).collect());
    let snapshot = Snapshot {
        sequence: 1,
        version: 3,
        segments: vec![LiveSegment::fresh(segment)],
    };
    let switched = Gallery::restore(Some("other".to_owned()), snapshot);
    let anew = restored(&switched);
    assert_eq!(anew.snapshot.segments[0].segment.model(), "other");
    assert_eq!(anew, switched);
    for gallery in [&switched, &anew] {
        for exact_up_to in [usize::MAX, 0] {
            let nearest = gallery.nearest_of(&made(&[0.0, 0.8, 0.6]), 3, exact_up_to);
            let found = nearest.iter().map(|c| (&*c.person.name, c.similarity));
            assert!(found.eq([("2", 0.8), ("1", 0.6)]), "{nearest:?}");
        }
    }
}

/// Directions as they are drawn in `benches/gallery.rs`.
fn random_direction(random: &mut SplitMix64) -> Vec<f32> {
    let mut share = || (random.next_u64() >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
    (0..128).map(|_| (0..6).map(|_| share()).sum()).collect()
}

#[test]
fn of_fifty_thousand_the_nearest_is_found() {
    let mut random = SplitMix64::seed_from_u64(3);
    let people = (0..50_000).map(|n| person(n, &[random_direction(&mut random)]));
    let gallery = restored(&Gallery::of("sface", people.collect()));
    assert!(gallery.snapshot.segments.len() > 3 && gallery.faces() > EXACT_UP_TO);
    // Probes of nobody, the nearest of whom is but the greatest of many chance similarities.
    let found = (0..200).filter(|_| {
        let probe = Embedding::normalise(&random_direction(&mut random)).unwrap();
        let best = |nearest: Vec<Neighbour<'_>>| (nearest[0].person.id, nearest[0].similarity);
        best(gallery.nearest(&probe, 5)) == best(gallery.nearest_exactly(&probe, 5))
    });
    let found = found.count();
    assert!(found >= 198, "{found} of 200");
}
