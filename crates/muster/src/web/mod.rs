//! The web role: the HTTP contract, in front of the queue.

mod dispatch;
mod people;
mod problem;
mod recognize;
mod report;
mod retention;
mod status;
mod upload;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::extract::{DefaultBodyLimit, OriginalUri};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, extract::State};
use muster_recognize::decode::DecodeLimits;
use muster_recognize::gallery::Gallery;
use muster_recognize::models;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backend::{Backend, Role};
use crate::config::{Settings, seconds};
use crate::live_gallery::LiveGallery;
use dispatch::{Dispatcher, Parts};
use problem::ApiError;
pub use report::{Replica, Reporting};
use upload::UploadMemory;

/// Time that connections get beyond the request timeout before a stop cuts them.
const STOP_MARGIN: Duration = Duration::from_secs(2);

/// What the handlers share. Cheap to clone.
#[derive(Clone)]
struct App {
    dispatcher: Dispatcher,
    backend: Backend,
    gallery: LiveGallery,
    memory: UploadMemory,
    limits: DecodeLimits,
    max_images: usize,
    request_timeout: Duration,
    retention: Duration,
    model: Arc<str>,
    started: Instant,
}

/// Serves until `shutdown`, then answers what is in flight and returns.
///
/// # Errors
/// When a store or a queue can not be used, or the listener fails.
pub async fn run(
    settings: Settings,
    listener: TcpListener,
    replica: Replica,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let address = listener
        .local_addr()
        .context("read the listener's address")?;
    let backend = Backend::open(&settings, Role::Web).await?;
    let tasks = TaskTracker::new();
    let stop = CancellationToken::new();
    let request_timeout = seconds(settings.request_timeout_s);
    let gallery = LiveGallery::load(backend.gallery.clone())
        .await
        .context("load the gallery")?;
    gallery.compact().await.context("compact the gallery")?;
    // Last: a start that fails leaves no queue behind.
    let model = models::Manifest::embedded().context("read the manifest")?;
    let replies = backend.replies(&replica.id).await?;
    // Buckets have lifecycle rules of their own.
    let swept = [
        (&settings.input_store, &backend.input),
        (&settings.output_store, &backend.output),
    ];
    let swept = swept
        .into_iter()
        .filter(|(bucket, _)| bucket.is_none())
        .map(|(_, store)| Arc::clone(store));
    tasks.spawn(retention::sweep(
        swept.collect(),
        seconds(settings.retention_s),
        stop.clone(),
    ));
    tasks.spawn(gallery.clone().follow(stop.clone()));
    tasks.spawn(people::kept::sweep(
        Arc::clone(&backend.enrolled),
        gallery.clone(),
        stop.clone(),
    ));
    let reporting = tokio::spawn(report::run(
        Arc::clone(&backend.reports),
        replica.id,
        replica.ledger.subscribe(),
        replica.reporting,
        stop.clone(),
    ));
    let app = App {
        dispatcher: Dispatcher::start(
            Parts {
                backend: backend.clone(),
                gallery: gallery.clone(),
                replies: Arc::clone(&replies),
                timeout: request_timeout,
                max_waiting: settings.max_waiting,
                backlog: replica.ledger,
            },
            &tasks,
            &stop,
        ),
        backend,
        gallery,
        memory: UploadMemory::new(settings.max_upload_memory_bytes),
        limits: settings.decode_limits(),
        max_images: settings.max_images,
        request_timeout,
        retention: seconds(settings.retention_s),
        model: model.profile.embedder.into(),
        started: Instant::now(),
    };
    tracing::info!(%address, "the web tier listens");
    let serve = axum::serve(listener, router(app))
        .with_graceful_shutdown(shutdown.clone().cancelled_owned())
        .into_future();
    let overdue = async {
        shutdown.cancelled().await;
        tokio::time::sleep(request_timeout + STOP_MARGIN).await;
    };
    tokio::select! {
        served = serve => served.context("serve HTTP")?,
        () = overdue => tracing::warn!("connections were cut after the request timeout"),
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    reporting.await.context("report to the controller")?;
    if let Err(error) = replies.remove().await {
        tracing::warn!(error = %crate::Chain(&error), "the reply queue was not removed");
    }
    tracing::info!("the web tier has stopped");
    Ok(())
}

/// Binds the web tier's address.
///
/// # Errors
/// Names the address and the remedy.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("listen on {address}: stop what uses it, or choose another with --listen")
    })
}

fn router(app: App) -> Router {
    Router::new()
        .route("/", post(recognize::plain))
        .route("/v1/recognize", post(recognize::json))
        .route("/v1/jobs/{id}", get(recognize::job))
        .route("/v1/people", get(people::list).post(people::create))
        .route(
            "/v1/people/{id}",
            get(people::show)
                .patch(people::change)
                .delete(people::remove),
        )
        .route(
            "/v1/people/{id}/faces",
            get(people::faces::list).post(people::faces::add),
        )
        .route(
            "/v1/people/{id}/faces/{face}",
            axum::routing::delete(people::faces::remove),
        )
        .route(
            "/v1/people/{id}/faces/{face}/photo",
            get(people::faces::photo),
        )
        .route("/v1/people/{id}/merge", post(people::merge))
        .route(
            "/v1/people/{id}/denials",
            get(people::denials::list).post(people::denials::add),
        )
        .route(
            "/v1/people/{id}/denials/{denial}",
            axum::routing::delete(people::denials::remove),
        )
        .route("/v1/status", get(status::status))
        .route("/healthz", get(status::healthz))
        .route("/readyz", get(status::readyz))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        // Every body is read through `upload`, which has limits of its own.
        .layer(DefaultBodyLimit::disable())
        .with_state(app)
}

async fn no_such_path(OriginalUri(uri): OriginalUri) -> Response {
    ApiError::not_found(format!("there is nothing at {}", printable(uri.path()))).into_response()
}

async fn no_such_method(method: Method, OriginalUri(uri): OriginalUri) -> Response {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method.not_allowed",
        format!("{method} is not taken at {}", printable(uri.path())),
    )
    .into_response()
}

/// The beginning of what a client sent, to be quoted back.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

impl App {
    /// Brings this replica's gallery up to date and runs `look` on it.
    async fn with_gallery<T>(&self, look: impl FnOnce(&Gallery) -> T) -> Result<T, ApiError> {
        self.gallery
            .newest(look)
            .await
            .map_err(|error| ApiError::internal("the gallery could not be read", &error))
    }

    /// Reads a form within the request timeout.
    async fn form(
        &self,
        request: axum::extract::Request,
        rules: upload::FormRules<'_>,
    ) -> Result<upload::Form, ApiError> {
        self.in_time(upload::read_form(request, rules, &self.memory))
            .await
    }

    /// Reads a JSON body within the request timeout.
    async fn json<T: serde::de::DeserializeOwned>(
        &self,
        request: axum::extract::Request,
    ) -> Result<T, ApiError> {
        self.in_time(upload::read_json(request)).await
    }

    async fn in_time<T>(
        &self,
        reading: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        tokio::time::timeout(self.request_timeout, reading)
            .await
            .map_err(|_| {
                ApiError::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "request.timeout",
                    "the upload took too long: send less at a time, or over a faster line",
                )
            })?
    }
}

type AppState = State<App>;
