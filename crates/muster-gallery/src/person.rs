//! Who is enrolled, and the steps that change it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use muster_jobs::{Embedding, Quality, keys};
use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

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

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
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
impl PersonId {
    /// A hash by which people who were enrolled one after the other stand apart.
    pub(crate) fn sampling_hash(self) -> u64 {
        // In the lower half of the id people who were enrolled at one time differ.
        SplitMix64::seed_from_u64(self.0.as_u64_pair().1).next_u64()
    }

    /// The id's bytes, which sort as the ids do.
    pub(super) fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }

    /// The id of these bytes.
    pub(super) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

uuid_newtype! {
    /// One enrolled face's identity; its kept photograph has the same name.
    FaceId
}
uuid_newtype! {
    /// The identity of one denial: a face of which was said that it is not the person.
    DenialId
}

/// The embeddings of one face by the name of the model that made each: those of two models do not
/// compare.
///
/// In JSON each is its little-endian `f32` values, base64.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Embeddings(#[serde(with = "base64_embeddings")] BTreeMap<String, Embedding>);

impl Embeddings {
    /// One embedding.
    pub fn of(model: &str, embedding: Embedding) -> Self {
        Self(BTreeMap::from([(model.to_owned(), embedding)]))
    }

    /// Adds one, or replaces the model's.
    #[must_use]
    pub fn with(mut self, model: &str, embedding: Embedding) -> Self {
        self.0.insert(model.to_owned(), embedding);
        self
    }

    /// Drops what that model made.
    #[must_use]
    pub fn without(mut self, model: &str) -> Self {
        self.0.remove(model);
        self
    }

    /// What that model made of the face.
    pub fn by(&self, model: &str) -> Option<&Embedding> {
        self.0.get(model)
    }

    /// Adds or replaces a model's embedding.
    pub(super) fn put(&mut self, model: &str, embedding: Embedding) {
        self.0.insert(model.to_owned(), embedding);
    }

    /// Takes a model's embedding out.
    pub(super) fn take(&mut self, model: &str) -> Option<Embedding> {
        self.0.remove(model)
    }

    /// Each model's name and embedding, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Embedding)> {
        self.0.iter().map(|(model, made)| (model.as_str(), made))
    }
}

mod base64_embeddings {
    use std::collections::BTreeMap;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use muster_jobs::Embedding;
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub fn serialize<S: Serializer>(
        embeddings: &BTreeMap<String, Embedding>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        let text = |embedding: &Embedding| STANDARD.encode(embedding.to_bytes());
        s.collect_map(embeddings.iter().map(|(model, e)| (model, text(e))))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<BTreeMap<String, Embedding>, D::Error> {
        let embedding = |(model, text): (String, String)| {
            let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
            let embedding = Embedding::from_bytes(&bytes).map_err(D::Error::custom)?;
            Ok((model, embedding))
        };
        let texts = BTreeMap::<String, String>::deserialize(d)?;
        texts.into_iter().map(embedding).collect()
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
    /// Which of the photograph's faces it is, counted from 0, largest first.
    pub face: u32,
    /// Who it looks like, to each model.
    pub embeddings: Embeddings,
    /// How fit it was when it was enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<Quality>,
    /// When it was enrolled, in milliseconds since the Unix epoch.
    pub enrolled_at_ms: u64,
}

impl EnrolledFace {
    /// A fresh face, the largest of its photograph.
    pub fn new(file: String, embeddings: Embeddings, enrolled_at_ms: u64) -> Self {
        Self {
            id: FaceId::new(),
            file,
            face: 0,
            embeddings,
            quality: None,
            enrolled_at_ms,
        }
    }
}

/// "This is not that person": a face that was once taken, or might be taken, for the person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Denial {
    /// Its identity; the photograph is kept under it.
    pub id: DenialId,
    /// The request whose answer was denied.
    pub request_id: String,
    /// Which face of that photograph, in the order of the answer.
    pub face: u32,
    /// Who the face looks like, to each model.
    pub embeddings: Embeddings,
    /// When it was said, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// An enrolled person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// The person's identity.
    pub id: PersonId,
    /// The name that recognition answers with; unique in a gallery.
    pub name: String,
    /// The operator's own key for the person; unique in a gallery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// What the operator wants to remember of the person.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// The person's faces.
    pub faces: Vec<EnrolledFace>,
    /// Faces that are not this person's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denials: Vec<Denial>,
    /// When the person was first enrolled, in milliseconds since the Unix epoch.
    pub enrolled_at_ms: u64,
    /// When anything of the person was last changed, in milliseconds since the Unix epoch.
    pub changed_at_ms: u64,
}

impl Person {
    /// A fresh person of whom nothing but the name and the faces is known.
    pub fn new(name: String, faces: Vec<EnrolledFace>, enrolled_at_ms: u64) -> Self {
        Self {
            id: PersonId::new(),
            name,
            external_id: None,
            metadata: BTreeMap::new(),
            faces,
            denials: Vec::new(),
            enrolled_at_ms,
            changed_at_ms: enrolled_at_ms,
        }
    }

    /// Everything of the person that an embedding was made of.
    pub fn sources(&self) -> impl Iterator<Item = Source> {
        let faces = self.faces.iter().map(|face| Source::Face(face.id));
        let denials = self.denials.iter();
        faces.chain(denials.map(|denial| Source::Denial(denial.id)))
    }

    /// Every embedding that is kept, by what it was made of and the model.
    pub fn kept(&self) -> impl Iterator<Item = (Source, &str)> {
        let faces = self.faces.iter();
        let faces = faces.flat_map(|face| {
            face.embeddings
                .iter()
                .map(|(by, _)| (Source::Face(face.id), by))
        });
        let denials = self.denials.iter();
        let denials = denials.flat_map(|denial| {
            denial
                .embeddings
                .iter()
                .map(|(by, _)| (Source::Denial(denial.id), by))
        });
        faces.chain(denials)
    }

    /// What that model has not made an embedding of, with the place of the face in its photograph.
    pub fn lacking(&self, model: &str) -> impl Iterator<Item = (Source, u32)> {
        let faces = self
            .faces
            .iter()
            .filter(move |face| face.embeddings.by(model).is_none());
        let denials = self
            .denials
            .iter()
            .filter(move |denial| denial.embeddings.by(model).is_none());
        let faces = faces.map(|face| (Source::Face(face.id), face.face));
        faces.chain(denials.map(|denial| (Source::Denial(denial.id), denial.face)))
    }

    /// Everything that embeddings are kept of.
    pub fn embeddings_mut(&mut self) -> impl Iterator<Item = (Source, &mut Embeddings)> {
        let faces = self.faces.iter_mut();
        let faces = faces.map(|face| (Source::Face(face.id), &mut face.embeddings));
        let denials = self.denials.iter_mut();
        faces.chain(denials.map(|denial| (Source::Denial(denial.id), &mut denial.embeddings)))
    }

    /// What that model made of the person's faces, in the order of enrolment.
    pub fn embeddings(&self, model: &str) -> impl Iterator<Item = &Embedding> {
        self.faces
            .iter()
            .filter_map(move |face| face.embeddings.by(model))
    }

    /// How alike the probe and the likest of the denied faces are, to that model; `None` where
    /// nothing was denied.
    pub fn nearest_denial(&self, model: &str, probe: &Embedding) -> Option<f32> {
        let denied = self.denials.iter().filter_map(|d| d.embeddings.by(model));
        denied.map(|denied| denied.cosine(probe)).reduce(f32::max)
    }
}

/// What an embedding was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// An enrolled face.
    Face(FaceId),
    /// A denied face.
    Denial(DenialId),
}

impl Source {
    /// Names the kept photograph.
    pub fn photograph_key(self) -> String {
        match self {
            Self::Face(FaceId(id)) | Self::Denial(DenialId(id)) => keys::kept_photograph(id),
        }
    }
}

/// One step from a gallery's version to the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The person is enrolled, or replaces the person of the same id.
    Put(Person),
    /// The person and all their faces are gone.
    Remove(PersonId),
    /// From here on that model's embeddings are compared.
    UseModel(String),
}
