//! What can be found wrong in a gallery.

use muster_jobs::{QualityLimits, Requirements, UnmetRequirement};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::person::{FaceId, Person, PersonId};

/// A person, to be shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Named {
    /// Who.
    #[schema(value_type = uuid::Uuid)]
    pub id: PersonId,
    /// The name.
    pub name: String,
}

impl Named {
    pub(super) fn of(person: &Person) -> Self {
        Self {
            id: person.id,
            name: person.name.clone(),
        }
    }
}

/// A face that looks like somebody else's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Mislabelled {
    /// The face.
    #[schema(value_type = uuid::Uuid)]
    pub face: FaceId,
    /// Its photograph's file name.
    pub file: String,
    /// Whose it is said to be.
    pub person: Named,
    /// Whose it seems to be.
    pub looks_like: Named,
    /// Mean similarity to the other faces of the person.
    pub to_own: f32,
    /// Mean similarity to the faces of the other.
    pub to_other: f32,
    /// `to_other` minus `to_own`.
    pub score: f32,
}

/// Two people and how alike they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Pair {
    /// The one who was enrolled first.
    pub first: Named,
    /// The other.
    pub second: Named,
    /// Similarity of their two nearest faces.
    pub nearest: f32,
    /// Mean similarity of the faces of the one to those of the other; what duplicates are judged
    /// by.
    pub score: f32,
}

/// A face that is of little use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Weak {
    /// The face.
    #[schema(value_type = uuid::Uuid)]
    pub face: FaceId,
    /// Its photograph's file name.
    pub file: String,
    /// Whose it is.
    pub person: Named,
    /// What is wrong with it, naming the measured and the required.
    pub reasons: Vec<String>,
    /// The limits of enrolment that it does not meet: it was enrolled all the same, or before they held.
    #[serde(default)]
    #[schema(required = true)]
    pub unfit: Vec<UnmetRequirement>,
    /// Median similarity to the person's other faces; `None` without others.
    pub agreement: Option<f32>,
}

/// What was found; each list has the most serious first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// The gallery's version.
    pub version: u64,
    /// The similarity from which on two faces are taken for one person's.
    pub cutoff: f32,
    /// The limits of enrolment that hold.
    #[serde(default = "by_default")]
    #[schema(required = true)]
    pub required: Requirements,
    /// People enrolled.
    pub people: usize,
    /// Their faces.
    pub faces: usize,
    /// How many faces were examined.
    pub examined: usize,
    /// After whom to go on, where not everybody was examined.
    #[schema(value_type = Option<uuid::Uuid>)]
    pub next: Option<PersonId>,
    /// Faces that are likely under the wrong name.
    pub mislabelled: Vec<Mislabelled>,
    /// People who are likely enrolled under two names.
    pub duplicates: Vec<Pair>,
    /// Other people who are most alike.
    pub confusable: Vec<Pair>,
    /// Faces of little use.
    pub weak: Vec<Weak>,
}

/// What a service requires that does not say so.
fn by_default() -> Requirements {
    QualityLimits::default().enrolment
}
