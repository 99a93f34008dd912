//! The answers of recognition and verification.

use muster_jobs::{FaceBox, FileName, Recognition};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::Problem;

/// The answer to several photographs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Recognitions {
    /// The id of the exchange, as in the logs and in `X-Request-Id`; each photograph has one of its
    /// own in its result.
    pub request_id: String,
    /// One for each photograph, in their order.
    pub results: Vec<PhotoResult>,
}

/// What came of one of several photographs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum PhotoResult {
    /// Its faces.
    Recognized {
        /// The client's name of the photograph.
        file: FileName,
        /// What was recognised.
        #[serde(flatten)]
        recognition: Box<Recognition>,
    },
    /// Why there are none.
    Refused {
        /// The client's name of the photograph.
        file: FileName,
        /// What the photograph alone would have been answered.
        problem: Box<Problem>,
    },
}

/// What the recognition of a form's photographs is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum RecognitionAnswer {
    /// Of one photograph.
    One(Box<Recognition>),
    /// Of several.
    Several(Recognitions),
}

/// The face of one of the photographs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VerifiedFace {
    /// The client's name of the photograph.
    pub file: FileName,
    /// Where the face is.
    #[serde(rename = "box")]
    pub bounds: FaceBox,
    /// The detector's score, 0 to 1.
    pub confidence: f32,
    /// How many faces the photograph shows; the largest was compared.
    pub faces_found: u32,
}

/// Whether two photographs show the same person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Verification {
    /// The id of the exchange, as in the logs and in `X-Request-Id`.
    pub request_id: String,
    /// Whether the similarity reaches the cutoff.
    pub same: bool,
    /// Cosine similarity of the two faces, -1 to 1.
    pub similarity: f32,
    /// The similarity from which on two faces are one person's.
    pub cutoff: f32,
    /// The face of the first photograph, and that of the second.
    pub faces: [VerifiedFace; 2],
    /// The embedder's name.
    pub model: String,
}
