//! The model that the gallery is matched by, and a change of it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A change of the model that is under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChangeView {
    /// The next model.
    pub to: String,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_at_ms: u64,
    /// Faces, those of denials included, that have an embedding by the next model.
    pub embedded: usize,
    /// Faces that are left.
    pub left: usize,
    /// What this replica waits for, if it does.
    pub problem: Option<String>,
}

/// The model that the gallery is matched by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModelView {
    /// Its name.
    pub model: String,
    /// The models that have an embedding of new faces: going back to one of them takes no time.
    pub kept: Vec<String>,
    /// The change that is under way.
    pub change: Option<ChangeView>,
    /// Faces that the last change found nothing in: they are not matched by the model that it was to.
    pub not_embedded: Vec<NotEmbedded>,
}

/// The model to change to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NextModel {
    /// An embedder's name, or a profile's.
    pub model: String,
}

/// What forgetting a model answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Forgotten {
    /// The model.
    pub model: String,
    /// People of whose faces its embeddings are gone.
    pub people: usize,
}

/// A face that the next model made no embedding of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NotEmbedded {
    /// Whose face it is.
    pub person_id: Uuid,
    /// The face's id, or the denial's.
    #[schema(value_type = Uuid)]
    pub id: String,
    /// Why there is none.
    pub reason: String,
}
