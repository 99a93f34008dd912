//! The sample photographs that a service offers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A sample photograph, as the page gets to know it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SamplePhotograph {
    /// Whom it shows; `None` where that is a group.
    pub person: Option<String>,
    /// Its name, below `/samples/`.
    pub file: String,
}

/// The sample photographs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SamplePhotographs {
    /// The photographs.
    pub samples: Vec<SamplePhotograph>,
}
