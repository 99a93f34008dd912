//! People, their faces and their denials.

use std::collections::BTreeMap;

use muster_jobs::{FaceQuality, UnmetRequirement};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// An enrolled face, as the API shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FaceView {
    /// Its id.
    pub id: Uuid,
    /// The client's name of the photograph.
    pub file: String,
    /// When it was enrolled, in milliseconds since the Unix epoch.
    pub enrolled_at_ms: u64,
    /// How fit it was when it was enrolled; `null` where that was not measured.
    #[serde(default)]
    pub quality: Option<FaceQuality>,
    /// The limits of enrolment that it does not meet; empty where it is fit.
    #[serde(default)]
    #[schema(required = true)]
    pub unfit: Vec<UnmetRequirement>,
}

/// An enrolled person, as the API shows them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PersonView {
    /// Its id.
    pub id: Uuid,
    /// The person's name.
    pub name: String,
    /// The operator's own key of the person.
    pub external_id: Option<String>,
    /// The operator's own notes of the person.
    pub metadata: BTreeMap<String, String>,
    /// The faces.
    pub faces: Vec<FaceView>,
    /// How many faces were said not to be this person.
    pub denials: usize,
    /// When it was enrolled, in milliseconds since the Unix epoch.
    pub enrolled_at_ms: u64,
    /// When it was last changed, in milliseconds since the Unix epoch.
    pub changed_at_ms: u64,
}

/// One page of the enrolled people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct People {
    /// The people.
    pub people: Vec<PersonView>,
    /// What to give as `after` for the next page; `null` on the last.
    pub next: Option<Uuid>,
    /// How many people are enrolled, listed or not.
    pub total: usize,
    /// The gallery's version.
    pub version: u64,
}

/// What of a person is to change: a JSON merge patch (RFC 7396).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    /// The new name.
    #[schema(min_length = 1, max_length = 200)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The new external id; `null` takes it away.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 200)]
    pub external_id: Option<Option<String>>,
    /// Entries to set, or with `null` to take away; `null` takes all away.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<BTreeMap<String, Option<String>>>)]
    pub metadata: Option<Option<BTreeMap<String, Option<String>>>>,
}

/// Tells a `null` from what is not there.
fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// Who is to become part of whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Merge {
    /// The person whose faces are taken over, and who is gone then.
    pub from: Uuid,
}

/// Who is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Deleted {
    /// Its id.
    pub id: Uuid,
    /// The person's name.
    pub name: String,
    /// How many faces went.
    pub faces: usize,
}

/// What a deletion answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Deletion {
    /// What was deleted; not said where the request completes a deletion that was cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<Deleted>,
    /// The receipt.
    pub receipt: Receipt,
}

/// The receipt of a deletion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Receipt {
    /// Its id.
    pub id: Uuid,
    /// The person's id.
    pub person_id: Uuid,
    /// When it was deleted, in milliseconds since the Unix epoch.
    pub deleted_at_ms: u64,
    /// The first version of the gallery without what was deleted; what later requests are matched
    /// against has it or a newer one.
    pub gallery_version: u64,
    /// Embeddings deleted from the gallery: its changes, its segments and their copies on this
    /// machine.
    pub embeddings: usize,
    /// Kept photographs deleted.
    pub photographs: usize,
    /// Kept photographs that the store did not delete when asked; the sweep deletes them.
    pub photographs_pending: usize,
    /// Stored results that the person was taken out of. `null` where no person was deleted, or where
    /// results are in a bucket or known by file name: those may name the person until they are
    /// deleted for their age.
    pub results: Option<usize>,
    /// Within this time other machines with a running web tier or worker delete their copies of the
    /// segments that had them.
    pub other_machines_within_s: u64,
    /// Photographs that were sent for recognition are deleted when they are this old, whoever they
    /// show; `null` where they are in a bucket, whose own expiry rule says when.
    pub uploads_kept_s: Option<u64>,
}

/// The faces of a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Faces {
    /// The faces.
    pub faces: Vec<FaceView>,
}

/// What the deletion of a face answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FaceDeletion {
    /// What was deleted; not said where the request completes a deletion that was cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<FaceView>,
    /// The receipt.
    pub receipt: Receipt,
}

/// A denial, as the API shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DenialView {
    /// Its id.
    pub id: Uuid,
    /// The request whose answer was denied.
    pub request_id: String,
    /// Which face of that answer.
    pub face: u32,
    /// When it was denied, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// The denials of a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Denials {
    /// The denials.
    pub denials: Vec<DenialView>,
}

/// Which answer is wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WrongAnswer {
    /// The answer's `request_id`.
    pub request_id: String,
    /// Which of its faces, counted from 0.
    #[serde(default)]
    #[schema(maximum = 99)]
    pub face: u32,
}

/// What the deletion of a denial answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DenialDeletion {
    /// What was deleted; not said where the request completes a deletion that was cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<DenialView>,
    /// The receipt.
    pub receipt: Receipt,
}
