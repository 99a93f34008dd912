use super::*;
use crate::{Denial, DenialId, Embeddings, EnrolledFace};

fn embedding(values: &[f32]) -> Embedding {
    Embedding::normalise(values).unwrap()
}

/// People of every kind: faces of another dimension, of another model alone, of both, and none.
fn people() -> Vec<Person> {
    let face = |embeddings| EnrolledFace::new("x.jpg".to_owned(), embeddings, 7);
    let of = |model, values: &[f32]| Embeddings::of(model, embedding(values));
    let mut both = of("sface", &[0.1, 0.2, 0.3]);
    both.put("other", embedding(&[1.0, 2.0]));
    let mut anna = Person::new(
        "Anna".to_owned(),
        vec![
            face(of("other", &[1.0, 0.0])),
            face(of("sface", &[0.3, -0.2, 0.9])),
            face(of("sface", &[0.3, 0.9])),
            face(both.clone()),
        ],
        1,
    );
    anna.external_id = Some("a-1".to_owned());
    anna.denials.push(Denial {
        id: DenialId::new(),
        request_id: "r".to_owned(),
        face: 1,
        embeddings: both.clone(),
        at_ms: 3,
    });
    let nobody = Person::new("no face".to_owned(), Vec::new(), 2);
    let ben = Person::new("Ben".to_owned(), vec![face(both)], 3);
    vec![anna, nobody, ben]
}

fn build(model: Option<&str>) -> Segment {
    Segment::build(model, people().iter().map(Cow::Borrowed).collect())
}

#[test]
fn people_come_back_as_they_were() {
    let people = people();
    for model in [Some("sface"), Some("other"), Some("third"), None] {
        let built = Segment::build(model, people.iter().map(Cow::Borrowed).collect());
        let read = Segment::open(built.as_slice().to_vec()).unwrap();
        assert_eq!(read.verify(), Ok(()));
        assert_eq!((read.people(), read.faces()), (3, 5));
        for (at, person) in people.iter().enumerate() {
            assert_eq!(read.person(at as u32).as_ref(), Some(person), "{model:?}");
            assert_eq!(read.position(person.id), (at as u32, true));
            assert!(read.named(&name_key(&person.name)).eq([at as u32]));
        }
        assert!(read.external("a-1").eq([0]));
        assert_eq!(read.external("Anna").count() + read.named("a-1").count(), 0);
        assert_eq!(read.position(PersonId::new()), (3, false));
    }
    let rows = |model| {
        let segment = build(Some(model));
        (0..3)
            .map(|at| segment.rows_of(at).len())
            .collect::<Vec<_>>()
    };
    assert_eq!(rows("sface"), [2, 0, 1]);
    assert_eq!(rows("other"), [2, 0, 1]);
    assert_eq!(rows("third"), [0, 0, 0]);
}

/// A segment as builds before layout 2 wrote it.
fn with_exact_names(segment: &Segment, people: &[Person]) -> Vec<u8> {
    let mut bytes = segment.as_slice().to_vec();
    let names = people.iter().map(|person| hash(&person.name)).zip(0..);
    bytes[segment.sections.names.clone()].copy_from_slice(&layout::keys(names.collect()));
    bytes[8..12].copy_from_slice(&EXACT_NAMES.to_le_bytes());
    let digest = Sha256::digest(&bytes[HEADER..]);
    bytes[48..CHECKED].copy_from_slice(&digest);
    let check = Sha256::digest(&bytes[..CHECKED]);
    bytes[CHECKED..CHECKED + 8].copy_from_slice(&check[..8]);
    bytes
}

#[test]
fn names_are_found_in_a_segment_of_before_too() {
    let bytes = with_exact_names(&build(Some("sface")), &people());
    let read = Segment::open(bytes).unwrap();
    assert_eq!(read.verify(), Ok(()));
    for (position, name) in [(0, "ANNA"), (1, "No  Face"), (2, "ben")] {
        assert!(read.named(&name_key(name)).eq([position]), "{name}");
    }
    assert_eq!(read.named("nobody").count(), 0);
}

#[test]
fn damage_anywhere_is_noticed() {
    let whole = build(Some("sface")).as_slice().to_vec();
    let read = |bytes: Vec<u8>| {
        let segment = Segment::open(bytes)?;
        segment.verify()
    };
    assert_eq!(read(whole.clone()), Ok(()));
    for length in [0, 7, HEADER - 1, HEADER, whole.len() - 1] {
        let error = read(whole[..length].to_vec());
        assert_eq!(error, Err(SegmentError::Damaged), "cut at {length}");
    }
    // The header says the length twice; nothing reads the bytes after its check.
    for at in (0..CHECKED + 8).chain(HEADER..whole.len()) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        let found = read(damaged);
        let expected = if (8..12).contains(&at) {
            matches!(found, Err(SegmentError::Layout { .. }))
        } else {
            found == Err(SegmentError::Damaged)
        };
        assert!(expected, "byte {at}: {found:?}");
    }
}

/// What docs/ARCHITECTURE.md says of it.
#[test]
fn a_face_takes_little_memory_where_the_rest_is_in_a_file() {
    let face = |n: usize| {
        let values: Vec<f32> = (0..128)
            .map(|at| ((n * 31 + at * 17) % 97) as f32)
            .collect();
        EnrolledFace::new(
            "x.jpg".to_owned(),
            Embeddings::of("sface", embedding(&values)),
            0,
        )
    };
    let people: Vec<Person> = (0..1_024)
        .map(|n| {
            let faces = (4 * n..4 * n + 4).map(face).collect();
            let external_id = Some(n.to_string());
            Person {
                external_id,
                ..Person::new(n.to_string(), faces, 0)
            }
        })
        .collect();
    let built = Segment::build(Some("sface"), people.iter().map(Cow::Borrowed).collect());
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, built.as_slice()).unwrap();
    let read = Segment::open(built.as_slice().to_vec())
        .unwrap()
        .leave_in(file);
    let checks = 4 * (read.faces() + read.people());
    let held = read.as_slice().len() + checks;
    assert!(held <= 64 * read.faces(), "{}", held / read.faces());
    assert!(
        people
            .iter()
            .zip(0..)
            .all(|(person, at)| read.person(at).as_ref() == Some(person))
    );
}
