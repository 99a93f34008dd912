//! Workers' answers: their embeddings, and the errors for what they lack.

use base64::Engine as _;
use muster_gallery::Embeddings;
use muster_jobs::{Embedded, EmbeddedFace, Embedding, Failure, FailureCode};

use crate::api::problem::ApiError;
use muster_api::problem::Code;

/// The error for a photograph without a face.
pub fn no_face(file: &str) -> ApiError {
    ApiError::from(Failure {
        code: FailureCode::FaceNone,
        detail: format!("no face was found in {file}: send a photograph that shows one"),
    })
}

/// The error for a reply to another question than was asked, which no worker of this build sends.
pub fn mismatched() -> ApiError {
    ApiError::new(
        Code::Internal,
        "a worker of another version answered: run one version of muster",
    )
}

/// The embeddings in a worker's answer, by each model.
pub fn embeddings(embedded: &Embedded) -> Result<Embeddings, ApiError> {
    let face = embedded.face.as_ref().ok_or_else(mismatched)?;
    let mut all = Embeddings::of(&embedded.model, embedding(face)?);
    for (model, text) in &face.others {
        all = all.with(model, decoded(text)?);
    }
    Ok(all)
}

/// The embedding of a face in a worker's answer.
pub fn embedding(face: &EmbeddedFace) -> Result<Embedding, ApiError> {
    decoded(&face.embedding)
}

fn decoded(text: &str) -> Result<Embedding, ApiError> {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text)
        .map_err(|error| ApiError::internal("a worker's embedding is not base64", &error))?;
    Embedding::from_bytes(&bytes)
        .map_err(|error| ApiError::internal("a worker's embedding is damaged", &error))
}
