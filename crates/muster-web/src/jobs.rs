//! Jobs: photographs that are recognised without their client waiting.
//!
//! A job is accepted when its photograph is stored and its message is on the queue, both of which
//! outlive every process. An object of its own, written after both, lists it. The result stands in
//! the output store; nothing of a job is held in memory, so that any replica answers for it.
//!
//! A job belongs to the key that submitted it, whose id is in the name of that object; others are told
//! that it is not there, except an administrator. A recognition that timed out becomes a job of its key.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::{StreamExt, TryStreamExt, stream};
use muster_api::jobs::{Accepted, Job, JobDeletion, JobState, Jobs, Submitted};
use muster_jobs::keys::ObjectKeys;
use muster_jobs::{Failure, FailureCode, FileName, RequestId, now_ms};
use object_store::path::Path as Key;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;

use crate::access::caller::Caller;
use crate::api::extract::{Path, Query};
use crate::api::openapi::{FormProblems, NotThere, problem_responses};
use crate::api::problem::ApiError;
use crate::dispatch::answer::no_face;
use crate::dispatch::dispatcher::Dispatcher;
use crate::exchange::trace;
use crate::forms::printable::printable;
use crate::forms::uploads::{PhotosForm, Uploads};
use crate::retention::{Retention, never_worked, written};
use muster_api::problem::Code;
use muster_base::backend::Backend;

/// Jobs on a page, unless asked otherwise.
const PAGE: usize = 100;
/// Most jobs on a page.
const MAX_PAGE: usize = 1000;
/// Most jobs examined for one page where only those of one state are wanted.
const MAX_EXAMINED: usize = 1000;
/// Jobs read from the stores at one time.
const CONCURRENT_READS: usize = 16;

/// What the stores have of a job.
#[derive(Debug)]
enum StoredJob {
    /// The stored outcome, and when it was stored, since the Unix epoch.
    Outcome(Value, Duration),
    /// The photograph alone.
    Photograph,
    /// Neither.
    Nothing,
}

problem_responses! {
    /// Where there are no jobs.
    Unavailable: JobsUnavailable;
    /// What a query is refused with.
    BadQuery: RequestInvalid;
    /// What a job's queue or store does not take in time.
    Unstored: Timeout;
}

/// Submit photographs, and ask for the results later
///
/// One job for each photograph, all of them or none. Once it is accepted a job survives the end of
/// every process, and ends with one result.
#[utoipa::path(
    post,
    path = "/v1/jobs",
    tag = "jobs",
    request_body(content = PhotosForm, content_type = "multipart/form-data"),
    responses(
        (
            status = 202,
            description = "The jobs are queued.",
            body = Submitted,
            headers(("Location" = String, description = "Of one photograph: where its job is.")),
        ),
        FormProblems,
        Unavailable,
        Unstored,
    )
)]
pub async fn submit(
    State(backend): State<Backend>,
    State(uploads): State<Uploads>,
    State(dispatcher): State<Dispatcher>,
    State(rules): State<JobRules>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    there_are_jobs(&backend)?;
    let trace = trace(request.headers());
    let form = uploads.form(request, uploads.rules(&["image"], uploads.max_images));
    let photos = form.await?.photos;
    check_room(&backend, &dispatcher, &rules, photos.len()).await?;
    let accepted = dispatcher.accept(photos, caller.owner(), trace).await?;
    let pending = |(id, file)| rules.job(id, Some(file), StoredJob::Photograph);
    let mut jobs: Vec<Job> = accepted.into_iter().map(pending).collect();
    if jobs.len() > 1 {
        return Ok((
            StatusCode::ACCEPTED,
            Json(Submitted::Several(Accepted { jobs })),
        )
            .into_response());
    }
    let job = jobs.remove(0);
    let location = [(header::LOCATION, format!("/v1/jobs/{}", job.id))];
    Ok((
        StatusCode::ACCEPTED,
        location,
        Json(Submitted::One(Box::new(job))),
    )
        .into_response())
}

/// Refuses jobs while too many requests are on the queue.
async fn check_room(
    backend: &Backend,
    dispatcher: &Dispatcher,
    rules: &JobRules,
    jobs: usize,
) -> Result<(), ApiError> {
    let counts = backend.requests.counts().await;
    let counts =
        counts.map_err(|error| ApiError::internal("the queue could not be counted", &error))?;
    let queued = (counts.visible + counts.in_flight) as usize;
    // SQS's own count lags.
    let queued = queued.max(dispatcher.unawaited_jobs());
    let beyond = (queued + jobs).saturating_sub(rules.max_jobs);
    if beyond == 0 {
        return Ok(());
    }
    Err(ApiError::overloaded(
        format!(
            "{queued} requests are queued already, of {} that may be: try again later",
            rules.max_jobs
        ),
        dispatcher.time_to_answer(beyond),
    ))
}

/// Show a job and its result
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}",
    tag = "jobs",
    params(("id" = String, Path, description = "The job's id, a UUID.")),
    responses((status = 200, description = "How far it is.", body = Job), NotThere, Unavailable)
)]
pub async fn show(
    State(backend): State<Backend>,
    State(rules): State<JobRules>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Job>, ApiError> {
    there_are_jobs(&backend)?;
    let unknown = || no_such_job(&id);
    let id: RequestId = id.parse().map_err(|_| unknown())?;
    let failed =
        |error: anyhow::Error| ApiError::internal("a job could not be read", error.as_ref());
    let Backend { input, output, .. } = &backend;
    let listed = first(&**input, &Backend::of_job(id))
        .await
        .map_err(failed)?;
    if let Some(listed) = listed.as_ref().and_then(ListedJob::of) {
        if !caller.may_have(listed.owner.as_deref()) {
            return Err(unknown());
        }
        let file = listed.file;
        let found = stored(&backend, id, &file).await.map_err(failed)?;
        return Ok(Json(rules.job(id, Some(file), found)));
    }
    let result = first_of(&**output, id).await.map_err(failed)?;
    if let Some(key) = result
        && let Some((outcome, at)) = read(&**output, &key).await.map_err(failed)?
    {
        return Ok(Json(rules.job(id, None, StoredJob::Outcome(outcome, at))));
    }
    let photo = first_of(&**input, id).await.map_err(failed)?;
    let photo = photo.ok_or_else(unknown)?;
    Ok(Json(rules.job(
        id,
        Backend::file_of(&photo),
        StoredJob::Photograph,
    )))
}

/// Which jobs are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Listing {
    /// Most jobs on the page, 1 to 1000; 100 where it is not given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Where to go on: the `next` of the page before.
    #[param(value_type = Option<uuid::Uuid>)]
    after: Option<RequestId>,
    /// Only jobs in this state.
    state: Option<JobState>,
}

/// List the key's jobs, the oldest first
///
/// A key with the scope admin is shown everybody's.
#[utoipa::path(
    get,
    path = "/v1/jobs",
    tag = "jobs",
    params(Listing),
    responses((status = 200, description = "A page of them.", body = Jobs), BadQuery, Unavailable)
)]
pub async fn list(
    State(backend): State<Backend>,
    State(rules): State<JobRules>,
    Extension(caller): Extension<Caller>,
    Query(listing): Query<Listing>,
) -> Result<Json<Jobs>, ApiError> {
    there_are_jobs(&backend)?;
    let limit = listing.limit.unwrap_or(PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(ApiError::bad_request(format!(
            "limit is {limit}: ask for 1 to {MAX_PAGE} jobs a page"
        )));
    }
    let failed =
        |error: anyhow::Error| ApiError::internal("the jobs could not be listed", error.as_ref());
    let wanted = match listing.state {
        None => limit,
        Some(_) => MAX_EXAMINED.max(limit),
    };
    let sorted = rules.retention.input_is_bucket;
    let mine = |job: &ListedJob| caller.may_have(job.owner.as_deref());
    let (listed, more) = first_jobs(&*backend.input, sorted, listing.after, wanted, mine)
        .await
        .map_err(failed)?;
    let last = listed.last().map(|job| job.id);
    let read_jobs = stream::iter(listed).map(async |ListedJob { id, file, .. }| {
        let found = stored(&backend, id, &file).await?;
        anyhow::Ok(summary(rules.job(id, Some(file), found)))
    });
    let jobs = read_jobs.buffered(CONCURRENT_READS);
    let fits = |job: &Job| listing.state.is_none_or(|state| job.state == state);
    let mut fitting = Box::pin(jobs.try_filter(|job| std::future::ready(fits(job))));
    let mut page: Vec<Job> = Vec::new();
    while page.len() <= limit {
        match fitting.try_next().await.map_err(failed)? {
            Some(job) => page.push(job),
            None => break,
        }
    }
    let full = page.len() > limit;
    page.truncate(limit);
    let next = match (full, more) {
        (true, _) => page.last().map(|job| job.id),
        (false, true) => last,
        (false, false) => None,
    };
    Ok(Json(Jobs { jobs: page, next }))
}

/// Delete a job: its photograph, its result, and the work on it where it is not done
#[utoipa::path(
    delete,
    path = "/v1/jobs/{id}",
    tag = "jobs",
    params(("id" = String, Path, description = "The job's id, a UUID.")),
    responses(
        (status = 200, description = "What was deleted.", body = JobDeletion),
        NotThere,
        Unavailable,
    )
)]
pub async fn remove(
    State(backend): State<Backend>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<JobDeletion>, ApiError> {
    there_are_jobs(&backend)?;
    let unknown = || no_such_job(&id);
    let id: RequestId = id.parse().map_err(|_| unknown())?;
    let failed =
        |error: anyhow::Error| ApiError::internal("a job could not be deleted", error.as_ref());
    let Backend { input, output, .. } = &backend;
    let listed = first(&**input, &Backend::of_job(id))
        .await
        .map_err(failed)?;
    if let Some(listed) = listed.as_ref().and_then(ListedJob::of)
        && !caller.may_have(listed.owner.as_deref())
    {
        return Err(unknown());
    }
    // A worker that is at it looks for the photograph after it has stored a result. What lists the
    // job goes last, so that a deletion that was cut off can be made again.
    let photographs = delete_of(&**input, id).await.map_err(failed)?;
    let results = delete_of(&**output, id).await.map_err(failed)?;
    let listed = delete_below(&**input, &Backend::of_job(id)).await;
    if photographs + results + listed.map_err(failed)? == 0 {
        return Err(unknown());
    }
    Ok(Json(JobDeletion {
        id,
        photographs,
        results,
    }))
}

/// The rules of jobs.
#[derive(Clone)]
pub struct JobRules {
    /// No job is taken while so many requests are on the queue.
    pub max_jobs: usize,
    /// How long photographs and results are kept.
    pub retention: Retention,
    /// How long a request is kept on the queue.
    pub requests_kept: Duration,
}

impl JobRules {
    /// A job as its stored objects describe it.
    fn job(&self, id: RequestId, file: Option<FileName>, found: StoredJob) -> Job {
        let submitted = id.submitted_at().unwrap_or_default();
        let name = file.as_ref().map_or("the photograph", FileName::as_str);
        // Where Muster looks after the photographs, it stores that no worker will come any more.
        let age = Duration::from_millis(now_ms()).saturating_sub(submitted);
        let expired = self.retention.input_is_bucket && age >= self.requests_kept;
        let kept_from = match &found {
            StoredJob::Outcome(_, at) => submitted.max(*at),
            StoredJob::Photograph | StoredJob::Nothing => submitted,
        };
        let (state, result, problem) = match outcome(found, name, expired) {
            None => (JobState::Pending, None, None),
            Some(Ok(result)) => (JobState::Done, Some(result), None),
            Some(Err(problem)) => (JobState::Failed, None, Some(problem.into_problem())),
        };
        let kept = self.retention.deletes.then_some(self.retention.period);
        Job {
            id,
            state,
            file,
            submitted_at_ms: submitted.as_millis() as u64,
            expires_at_ms: kept.map(|kept| (kept_from + kept).as_millis() as u64),
            result,
            problem,
        }
    }
}

/// A job as a list shows it: without its result.
fn summary(job: Job) -> Job {
    Job {
        result: None,
        ..job
    }
}

/// How a job ended, if it has: with what recognition would have answered, a result or a problem.
fn outcome(found: StoredJob, name: &str, expired: bool) -> Option<Result<Value, ApiError>> {
    let failure = |code, detail: &str| {
        let detail = format!("{name}: {detail}");
        Some(Err(Failure { code, detail }.into()))
    };
    match found {
        StoredJob::Outcome(stored, _) => {
            Some(match serde_json::from_value::<Failure>(stored.clone()) {
                Ok(failure) => Err(failure.into()),
                Err(_) if stored["faces"].as_array().is_some_and(Vec::is_empty) => {
                    Err(no_face(name))
                }
                Err(_) => Ok(stored),
            })
        }
        StoredJob::Photograph if !expired => None,
        StoredJob::Photograph => Some(Err(never_worked(name).into())),
        StoredJob::Nothing => failure(
            FailureCode::InputMissing,
            "the photograph was deleted before a worker came to it: send it again",
        ),
    }
}

/// Jobs are found by the ids in the names of their objects.
fn there_are_jobs(backend: &Backend) -> Result<(), ApiError> {
    match backend.keys {
        ObjectKeys::Request | ObjectKeys::PrefixHashed => Ok(()),
        ObjectKeys::Filename => Err(ApiError::new(
            Code::JobsUnavailable,
            "there are no jobs where object_keys is \"filename\", since a result is known by its \
             file name alone: set it to \"request\", or wait for the answer of POST /v1/recognize",
        )),
    }
}

fn no_such_job(id: &str) -> ApiError {
    ApiError::not_found(format!("there is no job {}", printable(id)))
}

/// What the stores have of a job whose file's name is known.
async fn stored(backend: &Backend, id: RequestId, file: &FileName) -> anyhow::Result<StoredJob> {
    let Backend { input, output, .. } = backend;
    // Photograph and result of a request are in one layout.
    for layout in backend.layouts() {
        let key = Key::from(layout.output(id, file));
        if let Some((outcome, at)) = read(&**output, &key).await? {
            return Ok(StoredJob::Outcome(outcome, at));
        }
        match input.head(&Key::from(layout.input(id, file))).await {
            Ok(_) => return Ok(StoredJob::Photograph),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(StoredJob::Nothing)
}

/// The stored outcome and when it was stored, where there is one.
async fn read(store: &dyn ObjectStore, key: &Key) -> anyhow::Result<Option<(Value, Duration)>> {
    let found = match store.get(key).await {
        Ok(found) => found,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let at = written(&found.meta);
    let outcome = serde_json::from_slice(&found.bytes().await?).context("read a stored result")?;
    Ok(Some((outcome, at)))
}

/// The key of an object below `prefix`, where there is one.
async fn first(store: &dyn ObjectStore, prefix: &Key) -> anyhow::Result<Option<Key>> {
    let found = store.list(Some(prefix)).try_next().await?;
    Ok(found.map(|meta| meta.location))
}

/// The key of an object of a request, where there is one.
async fn first_of(store: &dyn ObjectStore, id: RequestId) -> anyhow::Result<Option<Key>> {
    let found = Backend::of_request(store, id).await?;
    Ok(found.into_iter().next().map(|meta| meta.location))
}

/// Deletes what a store has of a request and says how much that was.
async fn delete_of(store: &dyn ObjectStore, id: RequestId) -> anyhow::Result<usize> {
    delete(store, Backend::of_request(store, id).await?).await
}

/// Deletes everything below `prefix` and says how much that was.
async fn delete_below(store: &dyn ObjectStore, prefix: &Key) -> anyhow::Result<usize> {
    delete(store, store.list(Some(prefix)).try_collect().await?).await
}

async fn delete(store: &dyn ObjectStore, listed: Vec<ObjectMeta>) -> anyhow::Result<usize> {
    let mut deleted = 0;
    for meta in listed {
        match store.delete(&meta.location).await {
            Ok(()) => deleted += 1,
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(deleted)
}

/// The first `most` wanted jobs after a given one, oldest first, and whether there are more. A bucket lists
/// keys in the order of submission, so that its listing may end early; a folder in any order.
async fn first_jobs(
    input: &dyn ObjectStore,
    sorted: bool,
    after: Option<RequestId>,
    most: usize,
    wanted: impl Fn(&ListedJob) -> bool,
) -> anyhow::Result<(Vec<ListedJob>, bool)> {
    let jobs = Backend::jobs();
    let mut listing = match after {
        None => input.list(Some(&jobs)),
        Some(id) => input.list_with_offset(Some(&jobs), &Backend::after_job(id)),
    };
    let mut found = BTreeMap::new();
    while let Some(meta) = listing.try_next().await? {
        if let Some(job) = ListedJob::of(&meta.location).filter(&wanted) {
            found.insert(job.id, job);
        }
        if found.len() > most + 1 {
            found.pop_last();
        }
        if sorted && found.len() > most {
            break;
        }
    }
    let more = found.len() > most;
    Ok((found.into_values().take(most).collect(), more))
}

/// The job that an object lists.
#[derive(Debug, PartialEq)]
struct ListedJob {
    id: RequestId,
    /// Its owner; `None` for a job of an earlier build.
    owner: Option<String>,
    file: FileName,
}

impl ListedJob {
    fn of(key: &Key) -> Option<Self> {
        let parts: Vec<_> = key.parts().collect();
        let (id, owner) = match &parts[..] {
            [_, id, _] => (id, None),
            [_, id, owner, _] => (id, Some(owner.as_ref().to_owned())),
            _ => return None,
        };
        Some(Self {
            id: id.as_ref().parse().ok()?,
            owner,
            file: Backend::file_of(key)?,
        })
    }
}

#[cfg(test)]
mod tests;
