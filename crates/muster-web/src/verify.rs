//! Verification: whether two photographs show the same person. Nobody has to be enrolled for it, and
//! nothing of it is kept.

use axum::Json;
use axum::extract::{Request, State};
use futures::future::join_all;
use muster_api::recognition::{Verification, VerifiedFace};
use muster_jobs::{Embedded, Embedding, FileName, Outcome};
use utoipa::ToSchema;

use crate::api::openapi::{FormProblems, WorkProblems};
use crate::api::problem::ApiError;
use crate::dispatch::answer::{embedding, mismatched, no_face};
use crate::dispatch::dispatcher::Dispatcher;
use crate::exchange::{self, trace};
use crate::forms::uploads::Uploads;
use muster_base::catalogue::Catalogue;

/// The names of the two photographs in a problem.
const PLACES: [&str; 2] = ["first", "second"];

/// The form with the two photographs.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it documents what `verify` reads")]
pub struct PairForm {
    /// The two photographs: JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC, AVIF or JPEG XL.
    #[schema(value_type = Vec<String>, min_items = 2, max_items = 2)]
    image: (),
}

/// Say whether two photographs show the same person
///
/// The largest face of each is compared. Nobody has to be enrolled, and nothing is kept.
#[utoipa::path(
    post,
    path = "/v1/verify",
    tag = "recognition",
    request_body(content = PairForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "Whether they do.", body = Verification),
        FormProblems,
        WorkProblems,
    )
)]
pub async fn verify(
    State(uploads): State<Uploads>,
    State(dispatcher): State<Dispatcher>,
    State(cutoff): State<Cutoff>,
    request: Request,
) -> Result<Json<Verification>, ApiError> {
    let trace = trace(request.headers());
    let mut rules = uploads.rules(&["image"], PLACES.len());
    rules.min_photos = PLACES.len();
    let photos = uploads.form(request, rules).await?.photos;
    dispatcher.check_room(photos.len())?;
    let runs = photos.into_iter().map(async |photo| {
        let file = photo.file.clone();
        match dispatcher.embed(photo, Some(0), trace).await? {
            Outcome::Embedded(embedded) => Ok((file, embedded)),
            Outcome::Failed(failure) => Err(failure.into()),
            Outcome::Recognized(_) | Outcome::Stored => Err(mismatched()),
        }
    });
    let mut compared_faces = Vec::new();
    for (place, ran) in PLACES.into_iter().zip(join_all(runs).await) {
        let compared = ran.and_then(|(file, embedded)| compared(file, embedded, place));
        compared_faces.push(
            compared.map_err(|error| {
                error.with(|members| members.photograph = Some(place.to_owned()))
            })?,
        );
    }
    let faces: Result<[Compared; 2], _> = compared_faces.try_into();
    let [one, other] = faces.map_err(|_| mismatched())?;
    if one.model != other.model {
        return Err(mismatched());
    }
    let similarity = one.embedding.cosine(&other.embedding);
    let cutoff = cutoff.of(&one.model)?;
    Ok(Json(Verification {
        request_id: exchange::current_id(),
        same: similarity >= cutoff,
        similarity,
        cutoff,
        faces: [one.face, other.face],
        model: one.model,
    }))
}

/// One of the two faces.
struct Compared {
    face: VerifiedFace,
    embedding: Embedding,
    model: String,
}

/// The largest face of a photograph.
fn compared(file: FileName, embedded: Embedded, place: &str) -> Result<Compared, ApiError> {
    let Some(face) = embedded.face else {
        let name = format!("the {place} photograph, {}", file.as_str());
        return Err(no_face(&name));
    };
    Ok(Compared {
        embedding: embedding(&face)?,
        face: VerifiedFace {
            file,
            bounds: face.bounds,
            confidence: face.confidence,
            faces_found: embedded.found,
        },
        model: embedded.model,
    })
}

/// The similarity from which on two faces are one person's: the operator's, or the model's own. One
/// pair is compared, so that the size of the gallery does not matter.
#[derive(Clone)]
pub struct Cutoff {
    /// The operator's, where there is one.
    pub operator: Option<f32>,
    /// The models with their own.
    pub catalogue: Catalogue,
}

impl Cutoff {
    fn of(&self, model: &str) -> Result<f32, ApiError> {
        if let Some(cutoff) = self.operator {
            return Ok(cutoff);
        }
        self.catalogue.cutoff(model).ok_or_else(mismatched)
    }
}
