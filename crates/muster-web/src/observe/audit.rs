//! The audit log: what callers do to people, and which of them they read.
//!
//! A change is in the log before it is made, as one of which the end is not known, and its end before it is
//! answered. So what can not be written down is not done; but a deletion is, where no space is left:
//! it makes the space for its entry. Reads are written together, within a second. Where the log is on this
//! machine, past days are joined.

use std::time::Duration;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{MatchedPath, RawPathParams, Request, State};
use axum::http::{Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use muster_gallery::PersonId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

use crate::access::caller::Caller;
use crate::api::affected::AffectedPeople;
use crate::api::problem::ApiError;
use crate::exchange;
use muster_api::problem::Code;
use muster_base::audit::{Action, AuditLog, End, Entry, Part, Who};
use muster_base::{backoff, is_full};

/// Reads are written together when the first is this old.
const WRITE_DELAY: Duration = Duration::from_secs(1);
/// How often it is looked for days that are over.
const JOIN_INTERVAL: Duration = Duration::from_secs(3600);
/// Reads that may wait to be written; a further call waits too.
const MAX_WAITING: usize = 4096;
/// How often it is tried to write a change.
const ATTEMPTS: u32 = 3;

/// Writes the audit log. Cheap to clone.
#[derive(Clone)]
pub struct Auditor {
    log: AuditLog,
    reads: mpsc::Sender<Entry>,
}

impl Auditor {
    /// Starts writing on `tasks`; what waits at `stop` is still written. With `join` past days are
    /// joined, which wants leave to delete.
    pub fn start(log: AuditLog, join: bool, tasks: &TaskTracker, stop: CancellationToken) -> Self {
        let (reads, waiting) = mpsc::channel(MAX_WAITING);
        if join {
            tasks.spawn(join_past_days(log.clone(), stop.clone()));
        }
        tasks.spawn(write_reads(log.clone(), waiting, stop));
        Self { log, reads }
    }

    /// Notes a look at people.
    async fn note(&self, entry: Entry) {
        // The task that writes ends after the last request.
        let _ = self.reads.send(entry).await;
    }

    /// Writes the entry of a change, or nothing in its place.
    async fn write(&self, id: Uuid, entry: Option<&Entry>) -> anyhow::Result<()> {
        let mut failures = 0;
        loop {
            match self.log.write(id, entry).await {
                Err(error) => {
                    failures += 1;
                    if failures == ATTEMPTS {
                        return Err(error);
                    }
                    tokio::time::sleep(backoff::after(failures)).await;
                }
                written => return written,
            }
        }
    }
}

/// Joins the days that are over, now and from time to time.
async fn join_past_days(log: AuditLog, stop: CancellationToken) {
    loop {
        if let Err(error) = log.join_past_days().await {
            tracing::warn!(
                error = %muster_base::ErrorChain(error.as_ref()),
                "past days of the audit log were not joined"
            );
        }
        tokio::select! {
            () = tokio::time::sleep(JOIN_INTERVAL) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Writes the entries of reads, some at a time. What can not be written is tried until it can.
async fn write_reads(log: AuditLog, mut waiting: mpsc::Receiver<Entry>, stop: CancellationToken) {
    let mut entries = Vec::new();
    let mut part = Part::new();
    let mut failures = 0;
    loop {
        if entries.is_empty() {
            tokio::select! {
                received = waiting.recv_many(&mut entries, MAX_WAITING) => if received == 0 {
                    return;
                },
                () = stop.cancelled() => {}
            }
        }
        tokio::select! {
            () = tokio::time::sleep(WRITE_DELAY.max(backoff::after(failures))) => {}
            () = stop.cancelled() => waiting.close(),
        }
        while entries.len() < MAX_WAITING
            && let Ok(entry) = waiting.try_recv()
        {
            entries.push(entry);
        }
        if entries.is_empty() {
            return;
        }
        match log.extend(&mut part, &entries).await {
            Ok(()) => {
                entries.clear();
                failures = 0;
            }
            Err(error) => {
                failures += 1;
                tracing::error!(
                    error = %muster_base::ErrorChain(error.as_ref()),
                    looks = entries.len(),
                    "looks at people are not in the audit log"
                );
                if stop.is_cancelled() {
                    return;
                }
            }
        }
    }
}

/// What a call of a route means, where it has to do with people.
fn action(method: &Method, route: &str) -> Option<Action> {
    let reads = *method == Method::GET || *method == Method::HEAD;
    Some(match (route, method) {
        ("/v1/people", _) if reads => Action::Listed,
        ("/v1/people", &Method::POST) => Action::Enrolled,
        ("/v1/people/{id}", _) if reads => Action::LookedAt,
        ("/v1/people/{id}", &Method::PATCH) => Action::Changed,
        ("/v1/people/{id}", &Method::DELETE) => Action::Deleted,
        ("/v1/people/{id}/merge", _) => Action::Merged,
        ("/v1/people/{id}/faces", _) if reads => Action::LookedAt,
        ("/v1/people/{id}/faces", _) => Action::FacesAdded,
        ("/v1/people/{id}/faces/{face}", _) => Action::FaceDeleted,
        ("/v1/people/{id}/faces/{face}/photo", _) => Action::PhotoLookedAt,
        ("/v1/people/{id}/denials", _) if reads => Action::LookedAt,
        ("/v1/people/{id}/denials", _) => Action::Denied,
        ("/v1/people/{id}/denials/{denial}", _) => Action::DenialRemoved,
        ("/v1/gallery/health", _) => Action::Examined,
        ("/v1/gallery/model", &Method::POST) => Action::ModelChanged,
        ("/v1/gallery/model/{model}", _) => Action::ModelForgotten,
        _ => return None,
    })
}

/// Writes every call of these routes that succeeds, or may have succeeded, into the log.
pub fn audited<S>(auditor: &Auditor, routes: OpenApiRouter<S>) -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    routes.route_layer(middleware::from_fn_with_state(auditor.clone(), audit))
}

/// Writes what a call does into the log, before it is done and before it is answered.
async fn audit(
    State(auditor): State<Auditor>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let Some(action) = route.and_then(|route| action(request.method(), route.as_str())) else {
        return next.run(request).await;
    };
    let caller = request.extensions().get::<Caller>();
    let who = caller.map_or(Who::Anybody, |caller| caller.who.clone());
    let mut entry = Entry::now(who, action);
    entry.request_id = exchange::current().map(|id| id.to_string());
    // What is no text names nothing: the handler answers so.
    for (name, value) in params.iter().flatten() {
        match name {
            "id" => entry.people.extend(value.parse::<PersonId>().ok()),
            _ => entry.thing = value.parse::<uuid::Uuid>().ok().map(|id| id.to_string()),
        }
    }
    if entry.action.is_look() {
        let response = next.run(request).await;
        if response.status().is_success() {
            auditor.note(ended(entry, &response)).await;
        }
        return response;
    }
    entry.end = End::Unknown;
    let id = Uuid::now_v7();
    let begun = auditor.write(id, Some(&entry)).await;
    if let Err(error) = &begun
        && !(entry.action.is_deletion() && is_full(error.as_ref()))
    {
        let why = muster_base::outage(error.as_ref());
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        let detail =
            format!("nothing was done, since it can not be written into the audit log{why}");
        return ApiError::unavailable(detail, error.as_ref()).into_response();
    }
    let response = next.run(request).await;
    // What failed may have failed after the change was made; what was refused was not done.
    let failed = response.status().is_server_error();
    let mut entry = ended(entry, &response);
    if !failed {
        entry.end = End::Done;
    }
    let kept = (failed || response.status().is_success()).then_some(&entry);
    let Err(error) = auditor.write(id, kept).await else {
        return response;
    };
    let unwritten = serde_json::to_string(&kept).unwrap_or_default();
    tracing::error!(
        error = %muster_base::ErrorChain(error.as_ref()),
        entry = unwritten,
        "the end of a change is not in the audit log"
    );
    if begun.is_err() && response.status().is_success() {
        return ApiError::new(
            Code::Internal,
            "it was done, but it could not be written into the audit log; Muster's log has the entry",
        )
        .into_response();
    }
    response
}

/// An entry with what the answer says of whom it was about.
fn ended(mut entry: Entry, response: &Response) -> Entry {
    entry.at_ms = muster_jobs::now_ms();
    let created = response.headers().get(header::LOCATION);
    let created = created.and_then(|at| at.to_str().ok()?.rsplit('/').next()?.parse().ok());
    entry.people.extend::<Option<PersonId>>(created);
    if let Some(AffectedPeople(more)) = response.extensions().get() {
        entry.people.extend(more);
    }
    entry
}
