//! The gallery in memory: who is enrolled, and who is nearest to a probe.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::embed::Embedding;

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
}

impl Gallery {
    /// The gallery of these people, as it was at that version.
    pub fn restore(version: u64, people: Vec<Person>) -> Self {
        Self {
            version,
            people: people
                .into_iter()
                .map(|person| (person.id, person))
                .collect(),
        }
    }

    /// Applies the change that leads to `version`.
    pub(super) fn apply(&mut self, version: u64, change: Change) {
        self.version = version;
        match change {
            Change::Put(person) => {
                self.people.insert(person.id, person);
            }
            Change::Remove(id) => {
                self.people.remove(&id);
            }
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
        let mut all: Vec<Candidate<'_>> = self
            .people
            .values()
            .filter_map(|person| {
                let similarity = person
                    .faces
                    .iter()
                    .map(|face| face.embedding.cosine(probe))
                    .max_by(f32::total_cmp)?;
                Some(Candidate { person, similarity })
            })
            .collect();
        all.sort_by(|a, b| b.similarity.total_cmp(&a.similarity));
        all.truncate(count);
        all
    }
}
