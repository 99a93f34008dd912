//! A change of the model that the gallery is matched by, without a pause.
//!
//! Every enrolled and denied face is embedded by the next model from its kept photograph, through the
//! ordinary queue, while the gallery goes on with its own model. When none is left, one change of the
//! gallery's log has every worker match by the next model from then on. Nothing of a change is held in
//! memory: that there is one, and which faces the next model found nothing in, stands in the state
//! store, and what is done in the gallery. So any replica goes on where another was killed, and several
//! at one time do nothing worse than some faces twice.

mod forget;
mod store;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, TryStreamExt};
use muster_api::gallery::{ChangeView, Forgotten, ModelView, NextModel, NotEmbedded};
use muster_gallery::{Change, Embeddings, Gallery, Person, PersonId, Source, WriteError};
use muster_jobs::{FailureCode, FileName, Outcome, TraceParent, now_ms};
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::api::extract::Path;
use crate::api::gallery;
use crate::api::openapi::{BodyProblems, NotThere, problem_responses};
use crate::api::problem::ApiError;
use crate::dispatch::answer::{embeddings, mismatched};
use crate::dispatch::dispatcher::Dispatcher;
use crate::forms::printable::printable;
use crate::forms::uploads::Uploads;
use crate::gallery::model_change::store::{Begun, store_failed};
use muster_api::problem::Code;
use muster_base::backend::Backend;
use muster_base::backoff;
use muster_base::catalogue::Catalogue;
use muster_base::live_gallery::LiveGallery;

/// Photographs that are embedded anew at one time: they share the queue with everybody's.
const IN_FLIGHT: usize = 2;
/// People whose faces are looked through at one time.
const PAGE: usize = 64;
/// How soon a replica notices a change that another one began, and works on it too.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// The least similarity, by the gallery's own model, of the face that is found in a kept photograph to the
/// face that was enrolled from it. Below it they are two faces; one and the same is far above it.
const SAME_FACE: f32 = 0.5;

/// The changes of the gallery's model. Cheap to clone.
#[derive(Clone)]
pub struct ModelChanges {
    backend: Backend,
    catalogue: Catalogue,
    gallery: LiveGallery,
    dispatcher: Dispatcher,
    uploads: Uploads,
    /// Wakes the work.
    wake: Arc<Notify>,
    /// Why this replica's work does not proceed.
    problem: Arc<Mutex<Option<String>>>,
}

impl ModelChanges {
    /// The changes of that gallery's model, by these workers.
    pub fn new(
        backend: Backend,
        catalogue: Catalogue,
        gallery: LiveGallery,
        dispatcher: Dispatcher,
        uploads: Uploads,
    ) -> Self {
        Self {
            backend,
            catalogue,
            gallery,
            dispatcher,
            uploads,
            wake: Arc::default(),
            problem: Arc::default(),
        }
    }

    fn state(&self) -> &dyn ObjectStore {
        &*self.backend.state
    }

    async fn read<T>(&self, read: impl Fn(&Gallery) -> T) -> Result<T, ApiError> {
        gallery::read(&self.gallery, read).await
    }

    fn set_problem(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

problem_responses! {
    /// The model is not known, or can not be used here.
    BadModel: RequestInvalid;
}

/// Show the model that the gallery is matched by, and how a change of it proceeds
#[utoipa::path(
    get,
    path = "/v1/gallery/model",
    operation_id = "gallery_model",
    tag = "gallery",
    responses((status = 200, description = "The model.", body = ModelView))
)]
pub async fn show(State(changes): State<ModelChanges>) -> Result<Json<ModelView>, ApiError> {
    Ok(Json(view(&changes).await?))
}

/// Change the model that the gallery is matched by
///
/// Every face is embedded anew from its kept photograph, while recognition goes on with the old model;
/// then all are matched by the new one at once. If every face already has an embedding by that model, as
/// after an earlier change, the change is made immediately. To end a change that is under way, name the
/// model that the gallery has.
#[utoipa::path(
    post,
    path = "/v1/gallery/model",
    operation_id = "change_gallery_model",
    tag = "gallery",
    request_body = NextModel,
    responses(
        (status = 200, description = "The gallery is matched by it.", body = ModelView),
        (status = 202, description = "The change is under way.", body = ModelView),
        BodyProblems,
    )
)]
pub async fn begin(
    State(changes): State<ModelChanges>,
    request: Request,
) -> Result<Response, ApiError> {
    let next: NextModel = changes.uploads.json(request).await?;
    let to = known(&changes, &next.model)?;
    let current = changes
        .read(|gallery| gallery.model().map(str::to_owned))
        .await?
        .ok_or_else(|| {
            ApiError::bad_request(
                "nobody is enrolled yet, so there is no model to change: set `profile` before the first enrolment",
            )
        })?;
    let mut under_way = false;
    if current == to {
        end(&changes, None).await?;
    } else {
        store::forget_not_embedded(changes.state()).await?;
        let begun = Begun {
            to: to.clone(),
            started_at_ms: now_ms(),
        };
        store::write(changes.state(), &begun).await?;
        changes.catalogue.set_next(Some(to));
        changes.set_problem(None);
        under_way = !finish(&changes, &begun, &HashSet::new()).await?;
        changes.wake.notify_one();
    }
    let status = if under_way {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(view(&changes).await?)).into_response())
}

/// Delete every embedding of a model that the gallery was matched by before
///
/// To use that model again, change to it as to any other.
#[utoipa::path(
    delete,
    path = "/v1/gallery/model/{model}",
    operation_id = "forget_model",
    tag = "gallery",
    params(("model" = String, Path, description = "The embedder's name.")),
    responses(
        (status = 200, description = "They are gone.", body = Forgotten),
        BadModel,
        NotThere,
    )
)]
pub async fn forget(
    State(changes): State<ModelChanges>,
    Path(model): Path<String>,
) -> Result<Json<Forgotten>, ApiError> {
    // One that is in no manifest any more is forgotten by its own name.
    let model = changes.catalogue.find(&model).unwrap_or(&model).to_owned();
    let in_use = || {
        ApiError::bad_request(format!(
            "the gallery is matched by {}, or changing to it: change to another model first",
            printable(&model)
        ))
    };
    if store::read(changes.state())
        .await?
        .is_some_and(|begun| begun.to == model)
    {
        return Err(in_use());
    }
    let people = forget::everywhere(&changes.gallery, &model)
        .await
        .map_err(|error| gallery::failed(&error))?
        .ok_or_else(in_use)?;
    if people == 0 {
        return Err(ApiError::not_found(format!(
            "no face has an embedding by {}: GET /v1/gallery/model lists which models are kept",
            printable(&model)
        )));
    }
    Ok(Json(Forgotten { model, people }))
}

fn known(changes: &ModelChanges, name: &str) -> Result<String, ApiError> {
    let found = changes.catalogue.find(name.trim());
    found.map(str::to_owned).ok_or_else(|| {
        ApiError::bad_request(format!(
            "there is no model {}: name one of {}",
            printable(name),
            changes.catalogue.names().join(", ")
        ))
    })
}

async fn view(changes: &ModelChanges) -> Result<ModelView, ApiError> {
    let begun = store::read(changes.state()).await?;
    let not_embedded = store::not_embedded(changes.state()).await?;
    let without: HashSet<String> = not_embedded.iter().map(|face| face.id.clone()).collect();
    let copy = changes.read(Gallery::clone).await?;
    let catalogue = changes.catalogue.clone();
    let looked = gallery::look(&changes.gallery, copy, move |copy| {
        let change = begun.clone().map(|begun| {
            let (embedded, left) = counted(copy, &begun.to, &without);
            ChangeView {
                to: begun.to,
                started_at_ms: begun.started_at_ms,
                embedded,
                left,
                problem: None,
            }
        });
        let kept = copy.kept_models().into_iter().collect();
        (catalogue.model_of(copy), kept, change)
    });
    let (model, kept, change) = looked.await?;
    let problem = &changes.problem;
    let problem = || {
        problem
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    };
    Ok(ModelView {
        model,
        kept,
        change: change.map(|change| ChangeView {
            problem: problem(),
            ..change
        }),
        not_embedded,
    })
}

/// How many faces have an embedding by that model, and how many still need one. The faces in `without` need
/// none: the model found no face in their photographs.
fn counted(gallery: &Gallery, model: &str, without: &HashSet<String>) -> (usize, usize) {
    let (mut embedded, mut left) = (0, 0);
    for person in gallery.people() {
        embedded += person.sources().count() - person.lacking(model).count();
        left += left_of(&person, model, without);
    }
    (embedded, left)
}

/// How many of a person's faces still need an embedding by that model.
fn left_of(person: &Person, model: &str, without: &HashSet<String>) -> usize {
    let lacking = person.lacking(model);
    lacking
        .filter(|(source, _)| !without.contains(&name(*source)))
        .count()
}

fn name(source: Source) -> String {
    match source {
        Source::Face(id) => id.to_string(),
        Source::Denial(id) => id.to_string(),
    }
}

/// Works on the change that is under way, again and again, until `stop`.
pub async fn run(changes: ModelChanges, stop: CancellationToken) {
    let mut failures = 0;
    loop {
        let stepped = tokio::select! {
            () = stop.cancelled() => return,
            stepped = step(&changes) => stepped,
        };
        let wait = match stepped {
            Ok(Step::Nothing) => LOOK_EVERY,
            Ok(Step::Done) => {
                failures = 0;
                Duration::ZERO
            }
            Err(error) => {
                failures += 1;
                if failures == 1 {
                    tracing::warn!(
                        error = error.detail(),
                        "faces could not be embedded anew; it is tried again"
                    );
                }
                changes.set_problem(Some(error.detail().to_owned()));
                backoff::after(failures)
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            () = changes.wake.notified() => {}
        }
    }
}

enum Step {
    /// No change is under way, or what is left waits for the operator.
    Nothing,
    /// Something was done.
    Done,
}

/// Goes through the whole gallery once, and changes the model if nothing was left to do.
async fn step(changes: &ModelChanges) -> Result<Step, ApiError> {
    let begun = store::read(changes.state()).await?;
    changes
        .catalogue
        .set_next(begun.as_ref().map(|begun| begun.to.clone()));
    let Some(begun) = begun else {
        return Ok(Step::Nothing);
    };
    let without = store::not_embedded(changes.state()).await?;
    let without: HashSet<String> = without.into_iter().map(|face| face.id).collect();
    if finish(changes, &begun, &without).await? {
        return Ok(Step::Done);
    }
    let mut after = None;
    let mut worked = false;
    loop {
        let (page, last) = changes
            .read(|gallery| {
                let page = gallery.page(after, PAGE);
                let last = page.last().map(|person| person.id);
                let lacking = |person: &Person| {
                    let mut lacking = person.lacking(&begun.to);
                    lacking.any(|(source, _)| !without.contains(&name(source)))
                };
                let lacking = page.iter().filter(|person| lacking(person));
                (lacking.map(|person| person.id).collect::<Vec<_>>(), last)
            })
            .await?;
        for person in page {
            if store::read(changes.state()).await?.as_ref() != Some(&begun) {
                return Ok(Step::Done);
            }
            worked |= embed(changes, &begun, person, &without).await?;
        }
        match last {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    if !worked {
        changes.set_problem(Some(
            "more than half of the faces could not be embedded: the gallery keeps its model; see \
             not_embedded, and name the gallery's own model to end the change"
                .to_owned(),
        ));
        return Ok(Step::Nothing);
    }
    changes.set_problem(None);
    Ok(Step::Done)
}

/// Has the next model embed one person's faces; tells whether there was anything to do.
async fn embed(
    changes: &ModelChanges,
    begun: &Begun,
    id: PersonId,
    without: &HashSet<String>,
) -> Result<bool, ApiError> {
    // Another replica may have been here meanwhile.
    let found = changes
        .read(|gallery| {
            let person = gallery.person(id)?.into_owned();
            Some((person, gallery.model()?.to_owned()))
        })
        .await?;
    let Some((person, current)) = found else {
        return Ok(false);
    };
    let mut known = person.clone();
    let known: Vec<(Source, Option<_>)> = known
        .embeddings_mut()
        .map(|(source, made)| (source, made.by(&current).cloned()))
        .collect();
    let lacking: Vec<(Source, u32)> = person
        .lacking(&begun.to)
        .filter(|(source, _)| !without.contains(&name(*source)))
        .collect();
    if lacking.is_empty() {
        return Ok(false);
    }
    let made: Vec<(Source, Reembedding)> = futures::stream::iter(lacking)
        .map(async |(source, face)| {
            let mut made = embed_source(changes, source, face, &begun.to).await?;
            let before = known.iter().find(|(of, _)| *of == source);
            if let (Reembedding::Embedded(now), Some((_, Some(before)))) = (&made, before)
                && now
                    .by(&current)
                    .is_some_and(|now| now.cosine(before) < SAME_FACE)
            {
                made = Reembedding::Nothing(
                    "another face is found at its place in the photograph now: enrol it again"
                        .to_owned(),
                );
            }
            Ok::<_, ApiError>((source, made))
        })
        .buffer_unordered(IN_FLIGHT)
        .try_collect()
        .await?;
    for (source, made) in &made {
        if let Reembedding::Nothing(reason) = made {
            let lost = NotEmbedded {
                person_id: id.into(),
                id: name(*source),
                reason: reason.clone(),
            };
            store::write_not_embedded(changes.state(), &lost).await?;
        }
    }
    let by = |source: Source| {
        let (_, made) = made.iter().find(|(of, _)| *of == source)?;
        match made {
            Reembedding::Embedded(all) => all.by(&begun.to).cloned(),
            Reembedding::Nothing(_) => None,
        }
    };
    let appended = changes.gallery.append(|gallery| {
        let mut person = gallery.person(id).ok_or(())?.into_owned();
        let mut any = false;
        for (source, embeddings) in person.embeddings_mut() {
            if let (None, Some(new)) = (embeddings.by(&begun.to), by(source)) {
                *embeddings = embeddings.clone().with(&begun.to, new);
                any = true;
            }
        }
        // Gone, or done by another replica.
        if any {
            Ok(Change::Put(person))
        } else {
            Err(())
        }
    });
    match appended.await {
        Ok(()) | Err(WriteError::Refused(())) => Ok(true),
        Err(WriteError::Failed(error)) => Err(gallery::failed(&error)),
    }
}

/// The result of embedding a kept photograph again.
enum Reembedding {
    Embedded(Embeddings),
    /// No face could be embedded, for this reason.
    Nothing(String),
}

async fn embed_source(
    changes: &ModelChanges,
    source: Source,
    face: u32,
    model: &str,
) -> Result<Reembedding, ApiError> {
    let bytes = match changes.backend.enrolled.get(&Backend::kept(source)).await {
        Ok(found) => found.bytes().await.map_err(store_failed)?,
        Err(object_store::Error::NotFound { .. }) => {
            let reason = "its photograph is not kept: enrol the face again";
            return Ok(Reembedding::Nothing(reason.to_owned()));
        }
        Err(error) => return Err(store_failed(error)),
    };
    let file = FileName::from_client("kept");
    let photo = changes.uploads.stored(file, bytes)?;
    let nothing = |reason: String| Ok(Reembedding::Nothing(reason));
    match changes
        .dispatcher
        .embed(photo, Some(face), TraceParent::new())
        .await?
    {
        Outcome::Embedded(embedded) if embedded.face.is_none() => nothing(format!(
            "its photograph shows {} faces now, and it was number {face}, counted from 0: enrol it \
             again",
            embedded.found
        )),
        Outcome::Embedded(embedded) => {
            let made = embeddings(&embedded)?;
            if made.by(model).is_none() {
                return Err(ApiError::new(
                    Code::Stopping,
                    format!(
                        "a worker has not got the model {}: install it where the workers run (`muster \
                         models install --profile NAME`), which they notice within a minute, or add \
                         the manifest with its entry and restart them",
                        printable(model)
                    ),
                ));
            }
            Ok(Reembedding::Embedded(made))
        }
        // Sent again: it was kept for too short a time, in a long queue.
        Outcome::Failed(failure) if failure.code == FailureCode::InputMissing => {
            Err(ApiError::from(failure))
        }
        Outcome::Failed(failure) => nothing(failure.detail),
        Outcome::Recognized(_) | Outcome::Stored => Err(mismatched()),
    }
}

/// Why the gallery's model is not changed now.
enum NotFinished {
    /// Another replica changed it.
    ByAnother,
    /// Faces are left without an embedding.
    FacesLeft,
    /// Segments were written since the faces were counted.
    Uncounted,
}

/// Changes the gallery's model if no face is left; tells whether it is changed.
async fn finish(
    changes: &ModelChanges,
    begun: &Begun,
    without: &HashSet<String>,
) -> Result<bool, ApiError> {
    loop {
        // All are counted in a copy; of the gallery itself only those who changed since.
        let copy = changes.read(Gallery::clone).await?;
        let (to, known) = (begun.to.clone(), without.clone());
        let counting = gallery::look(&changes.gallery, copy.clone(), move |copy| {
            counted(copy, &to, &known)
        });
        let (embedded, left) = counting.await?;
        // A gallery of which most would be lost is no gallery.
        let ready = left == 0 && embedded >= without.len();
        let appended = changes.gallery.append(|gallery| {
            if gallery.model() == Some(&begun.to) {
                return Err(NotFinished::ByAnother);
            }
            if !ready {
                return Err(NotFinished::FacesLeft);
            }
            let mut changed = gallery.changed_since(&copy).ok_or(NotFinished::Uncounted)?;
            if changed.any(|person| left_of(person, &begun.to, without) > 0) {
                return Err(NotFinished::FacesLeft);
            }
            Ok(Change::UseModel(begun.to.clone()))
        });
        match appended.await {
            Ok(()) => {
                tracing::info!(model = begun.to, "the gallery is matched by another model");
                break;
            }
            Err(WriteError::Refused(NotFinished::ByAnother)) => break,
            Err(WriteError::Refused(NotFinished::FacesLeft)) => return Ok(false),
            Err(WriteError::Refused(NotFinished::Uncounted)) => {}
            Err(WriteError::Failed(error)) => return Err(gallery::failed(&error)),
        }
    }
    end(changes, Some(begun)).await?;
    Ok(true)
}

/// Ends the change that is under way, if it is this one.
async fn end(changes: &ModelChanges, only: Option<&Begun>) -> Result<(), ApiError> {
    if let (Some(only), Some(there)) = (only, store::read(changes.state()).await?)
        && *only != there
    {
        return Ok(());
    }
    store::remove(changes.state()).await?;
    changes.catalogue.set_next(None);
    changes.set_problem(None);
    Ok(())
}
