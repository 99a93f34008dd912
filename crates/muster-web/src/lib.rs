//! The web role: the HTTP contract, in front of the queue.

mod audit;
mod dispatch;
mod events;
mod exchange;
mod extract;
mod form;
mod gallery;
mod guard;
mod jobs;
mod keyless;
mod metrics;
mod model_change;
mod openapi;
mod page;
mod people;
mod problem;
mod rate;
mod recognize;
mod report;
mod retention;
mod serve;
mod status;
mod upload;
mod verify;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::extract::{Extension, OriginalUri};
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use axum::{Router, extract::State, middleware};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use muster_gallery::Gallery;
use muster_recognize::decode::DecodeLimits;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use audit::{Auditor, audited};
use dispatch::{Dispatcher, Parts};
use events::Events;
use guard::{Access, guarded};
use keyless::Keyless;
use metrics::Metrics;
use muster_base::api_keys::{KeyStore, Scope};
use muster_base::audit::AuditLog;
use muster_base::backend::{Backend, Role, local_folder};
use muster_base::catalogue::Catalogue;
use muster_base::live_gallery::LiveGallery;
use muster_base::logging;
use muster_base::settings::{Origin, PhotographSettings, Settings, WebSettings};
use muster_base::traces::Traces;
use problem::{ApiError, Code};
pub use report::{Replica, Reporting};
use serve::{ConnectionLimits, serve};
use upload::UploadMemory;

/// Time that connections get beyond the request timeout before a stop cuts them.
const STOP_MARGIN: Duration = Duration::from_secs(2);
/// How long a browser may keep what it was told of another origin's calls.
const PREFLIGHT: Duration = Duration::from_secs(600);

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
    /// Requests on the queue from which on no job is taken.
    max_jobs: usize,
    /// Whether photographs and results are deleted by Muster when they are old.
    deletes_when_old: bool,
    /// Whether photographs are in a bucket, which lists in the order of its keys.
    input_is_bucket: bool,
    /// The operator's cutoff, where there is one.
    cutoff: Option<f32>,
    /// What is known of each model.
    catalogue: Catalogue,
    /// Looks whether the gallery's model is to change.
    model_changes: model_change::Progress,
    examiner: gallery::Examiner,
    events: Events,
    metrics: Metrics,
    /// Where the sample photographs are, if there is such a place.
    models_dir: Option<PathBuf>,
    /// `/openapi.json`.
    document: Bytes,
    started: Instant,
}

/// Serves until `shutdown`, then answers what is in flight and returns.
///
/// # Errors
/// When a store or a queue can not be used, or the listener fails.
pub fn run(
    settings: Settings,
    listener: TcpListener,
    replica: Replica,
    shutdown: CancellationToken,
) -> BoxFuture<'static, anyhow::Result<()>> {
    // Boxed here, so that all of the role is compiled with this crate and not with its caller.
    serve_until(settings, listener, replica, shutdown).boxed()
}

async fn serve_until(
    settings: Settings,
    listener: TcpListener,
    replica: Replica,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let address = listener
        .local_addr()
        .context("read the listener's address")?;
    logging::identify(logging::REPLICA, &replica.id);
    let traces = Traces::start(
        &settings.traces,
        settings.queues.kind,
        "muster-web",
        &replica.id,
    )?;
    let backend = Backend::open(&settings, Role::Web).await?;
    let tasks = TaskTracker::new();
    let stop = CancellationToken::new();
    let request_timeout = settings.web.request_timeout;
    let gallery = LiveGallery::load(backend.gallery.clone())
        .await
        .context("load the gallery")?;
    gallery.compact().await.context("compact the gallery")?;
    let catalogue = Catalogue::open(&settings.models)?;
    gallery.held(|gallery| catalogue.expect(gallery)).await?;
    // Last: a start that fails leaves no queue behind.
    let replies = backend.replies(&replica.id).await?;
    // Buckets have lifecycle rules of their own.
    let swept = [
        (&settings.storage.input_store, &backend.input),
        (&settings.storage.output_store, &backend.output),
    ];
    let swept = swept
        .into_iter()
        .filter(|(bucket, _)| bucket.is_none())
        .map(|(_, store)| Arc::clone(store));
    tasks.spawn(retention::sweep(
        swept.collect(),
        settings.storage.retention,
        stop.clone(),
    ));
    let folder = local_folder(&settings.storage);
    if folder.exists() {
        tasks.spawn(retention::sweep_cut_off(folder, stop.clone()));
    }
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
    let access = access(&settings.web, &backend).await?;
    let state = Arc::clone(&backend.state);
    let (routes, document) = table(&settings.web, &settings.photographs);
    let submitted = replica.ledger.subscribe();
    let metrics = Metrics::new(settings.fleet.price_per_hour);
    let dispatcher = Dispatcher::start(
        Parts {
            backend: backend.clone(),
            gallery: gallery.clone(),
            catalogue: catalogue.clone(),
            replies: Arc::clone(&replies),
            timeout: request_timeout,
            max_waiting: settings.web.max_waiting,
            max_instances: settings.fleet.max_instances(),
            backlog: replica.ledger,
            traces: traces.clone(),
            metrics: metrics.clone(),
        },
        &tasks,
        &stop,
    );
    let app = App {
        events: Events::start(
            backend.clone(),
            dispatcher.clone(),
            submitted,
            &tasks,
            // A page that stays open must not hold up the stop.
            shutdown.clone(),
        ),
        metrics,
        dispatcher,
        backend,
        gallery,
        memory: UploadMemory::new(settings.web.max_upload_memory_bytes),
        limits: settings.photographs.limits(),
        max_images: settings.photographs.max_in_request,
        request_timeout,
        retention: settings.storage.retention,
        max_jobs: settings.web.max_jobs,
        deletes_when_old: settings.storage.input_store.is_none()
            && settings.storage.output_store.is_none(),
        input_is_bucket: settings.storage.input_store.is_some(),
        cutoff: settings.decisions.cutoff,
        examiner: gallery::Examiner::new(&settings.decisions, catalogue.clone()),
        catalogue,
        model_changes: model_change::Progress::default(),
        models_dir: settings.models.dir().ok(),
        document,
        started: Instant::now(),
    };
    tasks.spawn(model_change::run(app.clone(), stop.clone()));
    tracing::info!(%address, "the web tier listens");
    let limits = ConnectionLimits {
        connections: settings.web.max_connections,
        header_timeout: settings.web.header_timeout,
        header_bytes: settings.web.max_header_bytes,
    };
    let auditor = Auditor::start(AuditLog::new(state), &tasks, stop.clone());
    let router = router(
        routes,
        app,
        access,
        auditor,
        traces.clone(),
        &settings.web.cors_origins,
    );
    let serve = serve(listener, router, limits, shutdown.clone());
    let overdue = async {
        shutdown.cancelled().await;
        tokio::time::sleep(request_timeout + STOP_MARGIN).await;
    };
    tokio::select! {
        () = serve => {}
        () = overdue => tracing::warn!("connections were cut after the request timeout"),
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    reporting.await.context("report to the controller")?;
    if let Err(error) = replies.remove().await {
        tracing::warn!(error = %muster_base::ErrorChain(&error), "the reply queue was not removed");
    }
    traces.stop().await;
    tracing::info!("the web tier has stopped");
    Ok(())
}

/// Whom the web tier lets in; says so where that is nobody yet.
async fn access(settings: &WebSettings, backend: &Backend) -> anyhow::Result<Access> {
    let keys = KeyStore::new(Arc::clone(&backend.state));
    let required = settings.require_keys();
    if required && !keys.any().await? {
        tracing::warn!(
            "API keys are required and there is none: every call is answered 401. Make one with \
             `muster keys create --name NAME --scope admin`, with the same configuration"
        );
    }
    let keyless = Keyless {
        loopback: settings.listen.ip().is_loopback(),
        origins: settings.cors_origins.clone(),
    };
    Ok(Access::new(keys, (!required).then_some(keyless)))
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

/// What is asked with a photograph.
fn recognize_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(recognize::plain))
        .routes(routes!(recognize::json))
        .routes(routes!(verify::verify))
        .routes(routes!(jobs::list, jobs::submit))
        .routes(routes!(jobs::show, jobs::remove))
}

/// The people, read and written.
fn enroll_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(people::listing::list, people::create))
        .routes(routes!(people::show, people::change, people::remove))
        .routes(routes!(people::merge))
        .routes(routes!(people::faces::list, people::faces::add))
        .routes(routes!(people::faces::remove))
        .routes(routes!(people::faces::photo))
        .routes(routes!(people::denials::list, people::denials::add))
        .routes(routes!(people::denials::remove))
}

/// The operator's own.
fn admin_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(status::status))
        .routes(routes!(metrics::metrics))
        .routes(routes!(gallery::calibration))
        .routes(routes!(gallery::health))
        .routes(routes!(model_change::show, model_change::begin))
        .routes(routes!(model_change::forget))
        .routes(routes!(events::events))
}

/// What anybody may ask.
fn open_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(status::healthz))
        .routes(routes!(status::readyz))
        .routes(routes!(openapi::openapi))
        .routes(routes!(openapi::docs))
        .routes(routes!(page::index))
        .routes(routes!(page::asset))
        .routes(routes!(page::samples))
        .routes(routes!(page::sample))
}

/// Every route with its description: the router and the document are both made of this, so a route
/// that is not described can not be served.
fn routes() -> OpenApiRouter<App> {
    openapi::document()
        .merge(guarded(Scope::Recognize, recognize_routes()))
        .merge(guarded(Scope::Enroll, audited(enroll_routes())))
        .merge(guarded(Scope::Admin, audited(admin_routes())))
        .merge(open_routes())
}

/// The routes, and the document as JSON.
fn table(web: &WebSettings, photographs: &PhotographSettings) -> (Router<App>, Bytes) {
    let (router, mut document) = routes().split_for_parts();
    openapi::finish(&mut document, web, photographs);
    let json = serde_json::to_vec(&document).expect("a document has only string keys");
    (router, json.into())
}

fn router(
    routes: Router<App>,
    app: App,
    access: Access,
    auditor: Auditor,
    traces: Traces,
    origins: &[Origin],
) -> Router {
    let router = routes
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(Extension(auditor))
        .layer(Extension(access));
    let router = match origins {
        [] => router,
        origins => router.layer(cors(origins)),
    };
    router
        .layer(middleware::from_fn_with_state(app.clone(), metrics::count))
        .layer(middleware::from_fn_with_state(traces, exchange::identify))
        .with_state(app)
}

/// Pages of these origins may call the API, with a key that they have: cookies play no part.
fn cors(origins: &[Origin]) -> CorsLayer {
    let origins = origins.iter().map(|origin| origin.header().clone());
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            guard::API_KEY,
            exchange::REQUEST_ID,
            exchange::TRACE,
        ])
        .expose_headers([header::LOCATION, header::RETRY_AFTER, exchange::REQUEST_ID])
        .max_age(PREFLIGHT)
}

async fn no_such_path(OriginalUri(uri): OriginalUri) -> Response {
    ApiError::not_found(format!("there is nothing at {}", printable(uri.path()))).into_response()
}

async fn no_such_method(method: Method, OriginalUri(uri): OriginalUri) -> Response {
    ApiError::new(
        Code::MethodNotAllowed,
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
                    Code::RequestTimeout,
                    "the upload took too long: send less at a time, or over a faster line",
                )
            })?
    }
}

type AppState = State<App>;
