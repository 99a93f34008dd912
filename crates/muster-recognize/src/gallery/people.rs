//! The gallery in memory: who is enrolled, and who is nearest to a probe.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::embed::{Embedding, cosine};

macro_rules! uuid_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh id; ids sort by the time they were made.
            #[expect(clippy::new_without_default, reason = "a default that differs each time misleads")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(s: &str) -> Result<Self, Self::Err> {
                s.parse().map(Self)
            }
        }
    };
}

uuid_newtype! {
    /// An enrolled person's identity.
    PersonId
}
uuid_newtype! {
    /// One enrolled face's identity.
    FaceId
}

mod base64_embedding {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    use crate::embed::Embedding;

    pub fn serialize<S: Serializer>(embedding: &Embedding, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(embedding.to_bytes()))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Embedding, D::Error> {
        let text = String::deserialize(d)?;
        let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
        Embedding::from_bytes(&bytes).map_err(D::Error::custom)
    }
}

/// One face of an enrolled person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolledFace {
    /// Its identity.
    pub id: FaceId,
    /// The client's name of the photograph.
    pub file: String,
    /// The face's embedding; in JSON its little-endian `f32` values, base64.
    #[serde(with = "base64_embedding")]
    pub embedding: Embedding,
    /// When it was enrolled, in milliseconds since the Unix epoch.
    pub enrolled_at_ms: u64,
}

/// An enrolled person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// The person's identity.
    pub id: PersonId,
    /// The name that recognition answers with; unique in a gallery.
    pub name: String,
    /// The person's faces, at least one.
    pub faces: Vec<EnrolledFace>,
    /// When the person was first enrolled, in milliseconds since the Unix epoch.
    pub enrolled_at_ms: u64,
}

/// One step from a gallery's version to the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The person is enrolled, or replaces the person of the same id.
    Put(Person),
    /// The person and all their faces are gone.
    Remove(PersonId),
}

/// A person near a probe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate<'a> {
    /// Who.
    pub person: &'a Person,
    /// Cosine similarity between the probe and this person's nearest face.
    pub similarity: f32,
}

/// Everyone enrolled, at one version.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gallery {
    version: u64,
    people: BTreeMap<PersonId, Person>,
    index: Index,
}

/// Every enrolled embedding, one after the other in memory: a search reads it front to back.
#[derive(Clone, Debug, Default, PartialEq)]
struct Index {
    values: Vec<f32>,
    /// Whose face each is and how many values it has; a person's faces stand together.
    faces: Vec<(PersonId, usize)>,
}

impl Index {
    fn add(&mut self, person: &Person) {
        for face in &person.faces {
            let values = face.embedding.as_slice();
            self.values.extend_from_slice(values);
            self.faces.push((person.id, values.len()));
        }
    }

    /// Calls `found` with each person's greatest similarity to the probe.
    fn search(&self, probe: &Embedding, mut found: impl FnMut(PersonId, f32)) {
        let mut rest = self.values.as_slice();
        let mut best: Option<(PersonId, f32)> = None;
        for &(person, length) in &self.faces {
            let (values, after) = rest.split_at(length);
            rest = after;
            let similarity = cosine(values, probe.as_slice());
            best = Some(match best {
                Some((same, before)) if same == person => (same, before.max(similarity)),
                Some((other, before)) => {
                    found(other, before);
                    (person, similarity)
                }
                None => (person, similarity),
            });
        }
        if let Some((person, similarity)) = best {
            found(person, similarity);
        }
    }
}

impl Gallery {
    /// The gallery of these people, as it was at that version.
    pub fn restore(version: u64, people: Vec<Person>) -> Self {
        let people = people
            .into_iter()
            .map(|person| (person.id, person))
            .collect();
        let mut gallery = Self {
            version,
            people,
            index: Index::default(),
        };
        gallery.rebuild_index();
        gallery
    }

    /// Applies the change that leads to `version`.
    pub(super) fn apply(&mut self, version: u64, change: Change) {
        self.version = version;
        match change {
            Change::Put(person) => {
                let id = person.id;
                if self.people.insert(id, person).is_some() {
                    self.rebuild_index();
                } else {
                    self.index.add(&self.people[&id]);
                }
            }
            Change::Remove(id) => {
                self.people.remove(&id);
                self.rebuild_index();
            }
        }
    }

    fn rebuild_index(&mut self) {
        self.index = Index::default();
        for person in self.people.values() {
            self.index.add(person);
        }
    }

    /// How many changes led here.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Everyone, in the order of enrolment.
    pub fn people(&self) -> impl ExactSizeIterator<Item = &Person> {
        self.people.values()
    }

    /// The person of that id.
    pub fn person(&self, id: PersonId) -> Option<&Person> {
        self.people.get(&id)
    }

    /// The person of that name.
    pub fn named(&self, name: &str) -> Option<&Person> {
        self.people.values().find(|person| person.name == name)
    }

    /// How many faces all people have together.
    pub fn faces(&self) -> usize {
        self.people.values().map(|person| person.faces.len()).sum()
    }

    /// The `count` people nearest to the probe, nearest first, each by their nearest face.
    ///
    /// Exact: every enrolled face is compared, in O(faces x dimensions).
    pub fn nearest(&self, probe: &Embedding, count: usize) -> Vec<Candidate<'_>> {
        let mut nearest: Vec<(PersonId, f32)> = Vec::with_capacity(count + 1);
        self.index.search(probe, |person, similarity| {
            let place = nearest.partition_point(|(_, nearer)| *nearer >= similarity);
            if place < count {
                nearest.insert(place, (person, similarity));
                nearest.truncate(count);
            }
        });
        let person = |id| &self.people[&id];
        nearest
            .into_iter()
            .map(|(id, similarity)| Candidate {
                person: person(id),
                similarity,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A person whose faces have these directions, in five dimensions.
    fn person(number: usize, directions: &[Vec<f32>]) -> Person {
        let face = |values: &Vec<f32>| EnrolledFace {
            id: FaceId::new(),
            file: String::new(),
            embedding: Embedding::normalise(values).unwrap(),
            enrolled_at_ms: 0,
        };
        Person {
            id: PersonId::new(),
            name: number.to_string(),
            faces: directions.iter().map(face).collect(),
            enrolled_at_ms: 0,
        }
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
                let faces = person.faces.iter();
                faces.map(|face| face.embedding.cosine(&probe)).fold(-1.0, f32::max)
            };
            let mut expected: Vec<f32> = gallery.people().map(best).collect();
            expected.sort_by(|a, b| b.total_cmp(a));
            expected.truncate(count);
            let found = gallery.nearest(&probe, count);
            prop_assert_eq!(found.iter().map(|c| c.similarity).collect::<Vec<_>>(), expected);
            for candidate in found {
                prop_assert_eq!(candidate.similarity, best(candidate.person));
            }
            let people = gallery.people().cloned().collect();
            prop_assert_eq!(gallery.nearest(&probe, count).len(),
                Gallery::restore(1, people).nearest(&probe, count).len());
        }
    }
}
