//! The web role: the HTTP contract, in front of the queue.

mod dispatch;
mod people;
mod problem;
mod recognize;
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
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backend::Backend;
use crate::config::{Settings, seconds};
use dispatch::Dispatcher;
use problem::ApiError;
use upload::UploadMemory;

/// Time that connections get beyond the request timeout before a stop cuts them.
const STOP_MARGIN: Duration = Duration::from_secs(2);

/// What the handlers share. Cheap to clone.
#[derive(Clone)]
struct App {
    dispatcher: Dispatcher,
    backend: Backend,
    gallery: Arc<Mutex<Gallery>>,
    memory: UploadMemory,
    limits: DecodeLimits,
    max_images: usize,
    request_timeout: Duration,
    model: Arc<str>,
    started: Instant,
}

/// Serves until `shutdown`, then answers what is in flight and returns. `ledger` is told what was
/// submitted and answered.
///
/// # Errors
/// When the data folder can not be used or the listener fails.
pub async fn run(
    settings: Settings,
    listener: TcpListener,
    ledger: watch::Sender<muster_fleet::Ledger>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let address = listener
        .local_addr()
        .context("read the listener's address")?;
    let backend = Backend::open(&settings).await?;
    // Held until the end: the port is free as soon as a stop begins, while the reply queue, one for
    // each port so that a restart takes over its own, is still needed for what is in flight.
    let lock_file = settings
        .data_dir
        .join(format!("web-{}.lock", address.port()));
    let lock = std::fs::File::create(&lock_file)
        .with_context(|| format!("make {}", lock_file.display()))?;
    lock.try_lock().with_context(|| {
        format!(
            "another web tier is still stopping on port {}: try again shortly",
            address.port()
        )
    })?;
    let replies = backend
        .replies(&format!("replies-{}", address.port()))
        .await?;
    let tasks = TaskTracker::new();
    let stop = CancellationToken::new();
    let request_timeout = seconds(settings.request_timeout_s);
    let mut gallery = Gallery::default();
    backend
        .gallery
        .sync(&mut gallery)
        .await
        .context("load the gallery")?;
    // Completes a removal that a crash cut off before the embeddings were gone.
    backend
        .gallery
        .compact(&gallery)
        .await
        .context("compact the gallery")?;
    tasks.spawn(retention::sweep(
        Arc::clone(&backend.objects),
        seconds(settings.retention_s),
        stop.clone(),
    ));
    let app = App {
        dispatcher: Dispatcher::start(
            backend.clone(),
            Arc::clone(&replies),
            request_timeout,
            settings.max_waiting,
            ledger,
            &tasks,
            &stop,
        ),
        backend,
        gallery: Arc::new(Mutex::new(gallery)),
        memory: UploadMemory::new(settings.max_upload_memory_bytes),
        limits: settings.decode_limits(),
        max_images: settings.max_images,
        request_timeout,
        model: models::Manifest::embedded()
            .context("read the manifest")?
            .profile
            .embedder
            .into(),
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
        .route("/v1/people/{id}", get(people::show).delete(people::remove))
        .route("/v1/people/{id}/faces", post(people::add_faces))
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
        let mut gallery = self.gallery.lock().await;
        self.backend
            .gallery
            .sync(&mut gallery)
            .await
            .map_err(|error| ApiError::internal("the gallery could not be read", &error))?;
        Ok(look(&gallery))
    }

    /// Reads a form within the request timeout.
    async fn form(
        &self,
        request: axum::extract::Request,
        photo_fields: &[&str],
        max_photos: usize,
    ) -> Result<upload::Form, ApiError> {
        let rules = upload::FormRules {
            photo_fields,
            max_photos,
            limits: &self.limits,
        };
        tokio::time::timeout(
            self.request_timeout,
            upload::read_form(request, rules, &self.memory),
        )
        .await
        .map_err(|_| {
            ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                "request.timeout",
                "the upload took too long: send a smaller photograph, or over a faster line",
            )
        })?
    }
}

type AppState = State<App>;
