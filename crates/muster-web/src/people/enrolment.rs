//! From photographs to enrolled faces: embedded by workers, judged, kept, and then written into the
//! gallery.

use axum::extract::Request;
use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use muster_gallery::{Change, Embeddings, EnrolledFace, Gallery, Source};
use muster_jobs::{
    Embedded, EmbeddedFace, FaceQuality, Failure, FailureCode, FileName, Outcome, Quality,
    RequestId, Requirements, TraceParent, now_ms,
};
use object_store::{ObjectStoreExt, PutPayload};

use crate::api::gallery;
use crate::api::problem::ApiError;
use crate::dispatch::answer::{embeddings, mismatched};
use crate::dispatch::dispatcher::Dispatcher;
use crate::forms::printable::printable;
use crate::forms::upload::{Form, FormRules, MAX_TEXT_BYTES, Photo, refusal};
use crate::forms::uploads::Uploads;
use crate::people::photographs;
use crate::retention::Retention;
use muster_api::problem::Code;
use muster_base::backend::Backend;
use muster_base::live_gallery::LiveGallery;

/// The field that has faces enrolled whatever their quality.
const ACCEPT_UNFIT: &str = "accept_unfit";

/// The enrolment of faces by workers. Cheap to clone.
#[derive(Clone)]
pub struct Enroller {
    /// The reading of forms.
    pub uploads: Uploads,
    /// The way to a worker.
    pub dispatcher: Dispatcher,
    /// Stores and queues.
    pub backend: Backend,
    /// The enrolled people.
    pub gallery: LiveGallery,
    /// How long earlier photographs are kept.
    pub retention: Retention,
    /// What a face needs to be enrolled.
    pub required: Requirements,
}

impl Enroller {
    /// Reads an enrolment's form: photographs, or an earlier request and which face of it, and these
    /// fields.
    pub async fn form(
        &self,
        request: Request,
        text_fields: &[(&'static str, usize)],
    ) -> Result<Form, ApiError> {
        let own = ["request_id", "face", ACCEPT_UNFIT].map(|field| (field, MAX_TEXT_BYTES));
        let text_fields = &[text_fields, &own[..]].concat();
        let rules = FormRules {
            photo_fields: &["image"],
            min_photos: 0,
            max_photos: self.uploads.max_images,
            text_fields,
            limits: &self.uploads.limits,
            apart: false,
        };
        self.uploads.form(request, rules).await
    }

    /// Has workers embed the photographs of a form, or the face of an earlier request that it
    /// names. Where the form accepts unfit faces, their quality is no reason to refuse them; that there is
    /// one face, and which, is always required.
    ///
    /// # Errors
    /// Where a photograph is not fit, naming each that is not; where there is none.
    pub async fn enrolment(
        &self,
        mut form: Form,
        trace: TraceParent,
    ) -> Result<Enrolment, ApiError> {
        let earlier = form.text("request_id");
        let face = form.text("face");
        let required = match form.text(ACCEPT_UNFIT) {
            None => Some(&self.required),
            Some(text) => match &*text.trim().to_ascii_lowercase() {
                "false" => Some(&self.required),
                "true" => None,
                _ => {
                    return Err(ApiError::bad_request(format!(
                        "{ACCEPT_UNFIT} is {}: send true or false",
                        printable(&text)
                    )));
                }
            },
        };
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
                (vec![self.earlier_photo(&id).await?], Some(face))
            }
        };
        let runs = photos.into_iter().map(async |photo| {
            let (file, bytes) = (photo.file.clone(), photo.bytes.clone());
            // Accounted for until the photograph is kept.
            let memory = photo.memory.clone();
            let outcome = self.dispatcher.embed(photo, face, trace).await;
            (file, bytes, memory, outcome)
        });
        let mut faces = Vec::new();
        let mut refused = Vec::new();
        for (file, bytes, _memory, outcome) in join_all(runs).await {
            match outcome? {
                Outcome::Embedded(embedded) => match unfit(&embedded, face, &file, required) {
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
            return Ok(Enrolment { faces });
        };
        let list: Vec<_> = refused
            .iter()
            .map(|(file, failure)| refusal(file, failure))
            .collect();
        Err(ApiError::from(first.clone()).with(|members| members.refused = Some(list)))
    }

    /// Keeps the photographs and then makes the change that `decide` returns, which brings the faces
    /// into the gallery. Where that is refused the photographs are not kept; where a crash comes
    /// between, [`photographs::sweep`] deletes them.
    pub async fn append(
        &self,
        enrolment: Enrolment,
        mut decide: impl FnMut(&Gallery) -> Result<Change, ApiError>,
    ) -> Result<(), ApiError> {
        let kept = enrolment.faces.iter().map(async |(face, bytes)| {
            let key = Backend::kept(Source::Face(face.id));
            let payload = PutPayload::from_bytes(bytes.clone());
            self.backend.enrolled.put(&key, payload).await
        });
        try_join_all(kept)
            .await
            .map_err(|error| ApiError::internal("a photograph could not be kept", &error))?;
        let appended = gallery::change(&self.gallery, |gallery| {
            expect_model(
                gallery,
                enrolment.faces.iter().map(|(face, _)| &face.embeddings),
            )?;
            decide(gallery)
        })
        .await;
        // Whether a change was made whose answer was lost is not known; the sweep will know.
        if let Err(refusal) = appended {
            if !refusal.is_internal() {
                let keys = enrolment
                    .faces
                    .iter()
                    .map(|(face, _)| Backend::kept(Source::Face(face.id)));
                photographs::delete(&*self.backend.enrolled, keys).await;
            }
            return Err(refusal);
        }
        Ok(())
    }

    /// The photograph of an earlier request, while it is kept.
    pub async fn earlier_photo(&self, id: &str) -> Result<Photo, ApiError> {
        let gone = || {
            ApiError::new(
                Code::InputMissing,
                format!(
                    "there is no photograph of the request {} (they are kept for {} s, and not by file \
                     name): send it again",
                    printable(id),
                    self.retention.period.as_secs()
                ),
            )
        };
        let failed = |error| ApiError::internal("an earlier photograph could not be read", &error);
        let id: RequestId = id.trim().parse().map_err(|_| gone())?;
        let input = &self.backend.input;
        let found = Backend::of_request(&**input, id).await.map_err(failed)?;
        let location = found.into_iter().next().ok_or_else(gone)?.location;
        let file = Backend::file_of(&location).ok_or_else(gone)?;
        match input.get(&location).await {
            Ok(found) => self
                .uploads
                .stored(file, found.bytes().await.map_err(failed)?),
            Err(object_store::Error::NotFound { .. }) => Err(gone()),
            Err(error) => Err(failed(error)),
        }
    }
}

/// Faces that are fit to be enrolled, with their photographs.
#[derive(Debug)]
pub struct Enrolment {
    faces: Vec<(EnrolledFace, Bytes)>,
}

impl Enrolment {
    /// The faces, in the order of the photographs.
    pub fn faces(&self) -> Vec<EnrolledFace> {
        self.faces.iter().map(|(face, _)| face.clone()).collect()
    }
}

/// Why a photograph is not to be enrolled, if it is not. Its face's quality does not matter where nothing
/// is required of that.
fn unfit(
    embedded: &Embedded,
    asked: Option<u32>,
    file: &FileName,
    required: Option<&Requirements>,
) -> Option<Failure> {
    let (file, found) = (file.as_str(), embedded.found);
    let (code, detail) = match (asked, found) {
        (None, 1) => return lacking(embedded, file, required?),
        (Some(n), found) if n < found => return lacking(embedded, file, required?),
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
fn lacking(embedded: &Embedded, file: &str, required: &Requirements) -> Option<Failure> {
    let quality = embedded.face.as_ref().map(measured)?;
    let unmet = required.unmet_by(&quality);
    let told: Vec<String> = unmet.iter().map(ToString::to_string).collect();
    let settings = unmet
        .iter()
        .map(|lack| format!("quality.enrolment.{}", lack.measure.name()));
    let settings: Vec<String> = settings.collect();
    (!unmet.is_empty()).then(|| Failure {
        code: FailureCode::FaceUnfit,
        detail: format!(
            "in {file} {}: enrol a clearer photograph, this one all the same with {ACCEPT_UNFIT}=true \
             (--accept-unfit), or change {} in the settings",
            told.join(", and "),
            settings.join(" and ")
        ),
    })
}

fn measured(face: &EmbeddedFace) -> Quality {
    let FaceQuality {
        size_px,
        sharpness,
        brightness,
        turn_deg,
        strength,
    } = face.quality;
    Quality {
        size_px,
        sharpness,
        brightness,
        turn_deg,
        strength,
    }
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
