//! From photographs to enrolled faces: embedded by workers, judged, kept, and then written into the
//! gallery.

use axum::extract::Request;
use base64::Engine as _;
use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::{join_all, try_join_all};
use muster_gallery::{Change, Embeddings, EnrolledFace, Gallery, Source};
use muster_jobs::{
    Embedded, EmbeddedFace, Embedding, FaceQuality, Failure, FailureCode, FileName, Outcome,
    Purpose, Quality, RequestId, Requirements, TraceParent, now_ms,
};
use object_store::{ObjectStoreExt, PutPayload};

use super::{append, printable};
use crate::App;
use crate::problem::{ApiError, Code};
use crate::recognize::mismatched;
use crate::upload::{Form, FormRules, Photo, refusal, stored_photo};
use muster_base::backend::Backend;

/// Reads an enrolment's form: photographs, or an earlier request and which face of it.
pub async fn form(
    app: &App,
    request: Request,
    text_fields: &[(&'static str, usize)],
) -> Result<Form, ApiError> {
    let rules = FormRules {
        photo_fields: &["image"],
        min_photos: 0,
        max_photos: app.max_images,
        text_fields,
        limits: &app.limits,
        apart: false,
    };
    app.form(request, rules).await
}

/// Faces that are fit to be enrolled, with their photographs.
#[derive(Debug)]
pub struct Enrolment {
    faces: Vec<(EnrolledFace, Bytes)>,
}

impl Enrolment {
    /// Has workers embed the photographs of a form, or the face of an earlier request that it
    /// names.
    ///
    /// # Errors
    /// Where a photograph is not fit, naming each that is not; where there is none.
    pub async fn of(app: &App, mut form: Form, trace: TraceParent) -> Result<Self, ApiError> {
        let earlier = form.text("request_id");
        let face = form.text("face");
        let (photos, face) = match (earlier, form.photos.is_empty()) {
            (None, true) => {
                return Err(ApiError::bad_request(
                    "the form has no field image: put the photograph there, or the request_id of \
                     an earlier answer and which face of it",
                ));
            }
            (Some(_), false) => {
                return Err(ApiError::bad_request(
                    "the form has both image and request_id: send one of them",
                ));
            }
            (None, false) if face.is_some() => {
                return Err(ApiError::bad_request(
                    "face is for an earlier answer: enrol a photograph that shows one face",
                ));
            }
            (None, false) => (form.photos, None),
            (Some(id), true) => {
                let face = face.as_deref().unwrap_or("0").trim().parse().map_err(|_| {
                    ApiError::bad_request("face is not a number: count the answer's faces from 0")
                })?;
                (vec![earlier_photo(app, &id).await?], Some(face))
            }
        };
        let runs = photos.into_iter().map(async |photo| {
            let (file, bytes) = (photo.file.clone(), photo.bytes.clone());
            // Accounted for until the photograph is kept.
            let taken = photo.taken.clone();
            let outcome = app
                .dispatcher
                .run(photo, Purpose::Embed { face }, trace)
                .await;
            (file, bytes, taken, outcome)
        });
        let mut faces = Vec::new();
        let mut refused = Vec::new();
        for (file, bytes, _taken, outcome) in join_all(runs).await {
            match outcome? {
                Outcome::Embedded(embedded) => match unfit(&embedded, face, &file) {
                    None => {
                        let file = file.as_str().to_owned();
                        let mut made = EnrolledFace::new(file, embeddings(&embedded)?, now_ms());
                        made.face = face.unwrap_or(0);
                        made.quality = embedded.face.as_ref().map(measured);
                        faces.push((made, bytes));
                    }
                    Some(failure) => refused.push((file, failure)),
                },
                Outcome::Failed(failure) => refused.push((file, failure)),
                Outcome::Recognized(_) | Outcome::Stored => return Err(mismatched()),
            }
        }
        let Some((_, first)) = refused.first() else {
            return Ok(Self { faces });
        };
        let list: Vec<_> = refused
            .iter()
            .map(|(file, failure)| refusal(file, failure))
            .collect();
        Err(ApiError::from(first.clone()).with("refused", list))
    }

    /// The faces, in the order of the photographs.
    pub fn faces(&self) -> Vec<EnrolledFace> {
        self.faces.iter().map(|(face, _)| face.clone()).collect()
    }

    /// Keeps the photographs and then makes the change that `decide` returns, which brings the faces
    /// into the gallery. Where that is refused the photographs are not kept; where a crash comes
    /// between, [`super::kept::sweep`] deletes them.
    pub async fn append(
        self,
        app: &App,
        mut decide: impl FnMut(&Gallery) -> Result<Change, ApiError>,
    ) -> Result<(), ApiError> {
        let kept = self.faces.iter().map(async |(face, bytes)| {
            let key = Backend::kept(Source::Face(face.id));
            let payload = PutPayload::from_bytes(bytes.clone());
            app.backend.enrolled.put(&key, payload).await
        });
        try_join_all(kept)
            .await
            .map_err(|error| ApiError::internal("a photograph could not be kept", &error))?;
        let appended = append(app, |gallery| {
            expect_model(gallery, self.faces.iter().map(|(face, _)| &face.embeddings))?;
            decide(gallery)
        })
        .await;
        // Whether a change was made whose answer was lost is not known; the sweep will know.
        if let Err(refusal) = appended {
            if !refusal.is_internal() {
                let sources = self.faces.iter().map(|(face, _)| Source::Face(face.id));
                super::kept::delete(app, sources).await;
            }
            return Err(refusal);
        }
        Ok(())
    }
}

/// The photograph of an earlier request, while it is kept.
pub async fn earlier_photo(app: &App, id: &str) -> Result<Photo, ApiError> {
    let gone = || {
        ApiError::new(
            Code::InputMissing,
            format!(
                "there is no photograph of the request {} (they are kept for {} s, and not by file \
                 name): send it again",
                printable(id),
                app.retention.as_secs()
            ),
        )
    };
    let failed = |error| ApiError::internal("an earlier photograph could not be read", &error);
    let id: RequestId = id.trim().parse().map_err(|_| gone())?;
    let input = &app.backend.input;
    let below = Backend::of_request(id);
    let found = input.list(Some(&below)).try_next().await.map_err(failed)?;
    let location = found.ok_or_else(gone)?.location;
    let file = Backend::file_of(&location).ok_or_else(gone)?;
    match input.get(&location).await {
        Ok(found) => stored_photo(file, found.bytes().await.map_err(failed)?, &app.memory),
        Err(object_store::Error::NotFound { .. }) => Err(gone()),
        Err(error) => Err(failed(error)),
    }
}

/// Why a photograph is not to be enrolled, if it is not.
fn unfit(embedded: &Embedded, asked: Option<u32>, file: &FileName) -> Option<Failure> {
    let (file, found) = (file.as_str(), embedded.found);
    let (code, detail) = match (asked, found) {
        (None, 1) => return lacking(embedded, file),
        (Some(n), found) if n < found => return lacking(embedded, file),
        (Some(n), found) => (
            FailureCode::FaceNone,
            format!(
                "there is no face {n} in {file}, which shows {found}: count from 0, as the answer \
                 does"
            ),
        ),
        (None, 0) => (
            FailureCode::FaceNone,
            format!("no face was found in {file}: enrol a photograph that shows one face"),
        ),
        (None, found) => (
            FailureCode::FaceMultiple,
            format!("{found} faces were found in {file}: enrol a photograph that shows one face"),
        ),
    };
    Some(Failure { code, detail })
}

/// What a face lacks to stand for a person in every comparison to come, if anything.
fn lacking(embedded: &Embedded, file: &str) -> Option<Failure> {
    let quality = embedded.face.as_ref().map(measured)?;
    let unmet = Requirements::for_enrolment().unmet_by(&quality);
    let unmet: Vec<String> = unmet.iter().map(ToString::to_string).collect();
    (!unmet.is_empty()).then(|| Failure {
        code: FailureCode::FaceUnfit,
        detail: format!(
            "in {file} {}: enrol a clearer photograph",
            unmet.join(", and ")
        ),
    })
}

fn measured(face: &EmbeddedFace) -> Quality {
    let FaceQuality {
        size_px,
        sharpness,
        brightness,
        turn_deg,
    } = face.quality;
    Quality {
        size_px,
        sharpness,
        brightness,
        turn_deg,
    }
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

/// Refuses faces that the gallery's model has not embedded: it was changed since they were.
pub fn expect_model<'a>(
    gallery: &Gallery,
    mut faces: impl Iterator<Item = &'a Embeddings>,
) -> Result<(), ApiError> {
    match gallery.model() {
        Some(model) if faces.any(|face| face.by(model).is_none()) => Err(ApiError::new(
            Code::GalleryChanged,
            format!("the gallery's model became {model} this moment: send it again"),
        )),
        _ => Ok(()),
    }
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
