//! Verification: whether two photographs show the same person. Nobody has to be enrolled for it, and
//! nothing of it is kept.

use axum::Json;
use axum::extract::{Request, State};
use futures::future::join_all;
use muster_jobs::{Embedded, EmbeddedFace, FaceBox, FaceQuality, FileName, Outcome, RequestId};
use muster_recognize::models::Manifest;
use serde::Serialize;

use super::dispatch::Ask;
use super::people::enrolment::{embedding, model};
use super::problem::ApiError;
use super::recognize::{mismatched, no_face, rules, trace};
use super::{App, AppState};

/// Which photograph of the form is meant.
const PLACES: [&str; 2] = ["first", "second"];

/// The face of one of the photographs.
#[derive(Debug, Serialize)]
pub struct VerifiedFace {
    /// The client's name of the photograph.
    file: FileName,
    #[serde(rename = "box")]
    bounds: FaceBox,
    /// The detector's score, 0 to 1.
    confidence: f32,
    quality: FaceQuality,
    /// How many faces the photograph shows; the largest was compared.
    faces_found: u32,
}

/// Whether two photographs show the same person.
#[derive(Debug, Serialize)]
pub struct Verification {
    request_id: RequestId,
    /// Whether the similarity reaches the cutoff.
    same: bool,
    /// Cosine similarity of the two faces, -1 to 1.
    similarity: f32,
    /// The similarity from which on two faces are one person's.
    cutoff: f32,
    /// The face of the first photograph, and that of the second.
    faces: [VerifiedFace; 2],
    /// The embedder's name.
    model: String,
}

/// `POST /v1/verify`: whether the largest faces of two photographs are the same person's.
pub async fn verify(
    State(app): AppState,
    request: Request,
) -> Result<Json<Verification>, ApiError> {
    let trace = trace(request.headers());
    let mut rules = rules(&app, &["image"], PLACES.len());
    rules.min_photos = PLACES.len();
    let photos = app.form(request, rules).await?.photos;
    app.dispatcher.check_room(photos.len())?;
    let model = model(&app).await?;
    let runs = photos.into_iter().map(async |photo| {
        let file = photo.file.clone();
        let ask = Ask::embed(&model, None);
        match app.dispatcher.run(photo, ask, trace).await? {
            Outcome::Embedded(embedded) => Ok((file, embedded)),
            Outcome::Failed(failure) => Err(failure.into()),
            Outcome::Recognized(_) | Outcome::Stored => Err(mismatched()),
        }
    });
    let mut seen = Vec::new();
    for (place, ran) in PLACES.into_iter().zip(join_all(runs).await) {
        let said = |error: ApiError| error.with("photograph", place);
        let (file, embedded) = ran.map_err(said)?;
        let face = largest(&embedded, &file, place).map_err(said)?;
        seen.push((embedding(&face)?, embedded, face, file));
    }
    let [(first, one, ..), (second, other, ..)] = &seen[..] else {
        return Err(mismatched());
    };
    if one.model != other.model {
        return Err(mismatched());
    }
    let similarity = first.cosine(second);
    let model = one.model.clone();
    let cutoff = cutoff(&app, &model)?;
    let mut faces = seen
        .into_iter()
        .map(|(_, embedded, face, file)| VerifiedFace {
            file,
            bounds: face.bounds,
            confidence: face.confidence,
            quality: face.quality,
            faces_found: embedded.found,
        });
    let (Some(one), Some(other)) = (faces.next(), faces.next()) else {
        return Err(mismatched());
    };
    Ok(Json(Verification {
        request_id: RequestId::new(),
        same: similarity >= cutoff,
        similarity,
        cutoff,
        faces: [one, other],
        model,
    }))
}

/// The largest face of a photograph.
fn largest(embedded: &Embedded, file: &FileName, place: &str) -> Result<EmbeddedFace, ApiError> {
    let face = embedded.faces.first().cloned();
    face.ok_or_else(|| no_face(&format!("the {place} photograph, {}", file.as_str())))
}

/// The similarity from which on two faces are one person's: the operator's, or the model's own. One
/// pair is compared, so that the size of the gallery does not matter.
fn cutoff(app: &App, model: &str) -> Result<f32, ApiError> {
    if let Some(cutoff) = app.cutoff {
        return Ok(cutoff);
    }
    let manifest = Manifest::embedded()
        .map_err(|error| ApiError::internal("the manifest could not be read", &error))?;
    let embedder = manifest.embedders.iter().find(|known| known.name == model);
    embedder.map(|known| known.cutoff).ok_or_else(mismatched)
}
