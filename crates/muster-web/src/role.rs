//! The role's life: everything is built, served, and stopped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use futures::FutureExt;
use futures::future::BoxFuture;
use muster_base::api_keys::KeyStore;
use muster_base::audit::AuditLog;
use muster_base::backend::{Backend, Role, local_folder};
use muster_base::catalogue::Catalogue;
use muster_base::live_gallery::LiveGallery;
use muster_base::local_token::LocalToken;
use muster_base::logging;
use muster_base::settings::{KeyRule, Settings, WebSettings};
use muster_base::traces::Traces;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::guard::Access;
use crate::access::keyless::Keyless;
use crate::app::{App, Parts};
use crate::dispatch::dispatcher::{Dependencies, Dispatcher};
use crate::forms::uploads::Uploads;
use crate::gallery::examination::Examiner;
use crate::gallery::model_change::{self, ModelChanges};
use crate::jobs::JobRules;
use crate::metrics::Metrics;
use crate::observe::audit::Auditor;
use crate::observe::events::Events;
use crate::observe::observer::Observer;
use crate::page::Samples;
use crate::people::deletion::Deletions;
use crate::people::enrolment::Enroller;
use crate::people::photographs;
use crate::quota::Quota;
use crate::replica::{self, Replica};
use crate::retention::{self, Retention};
use crate::routes::{router, table};
use crate::server::{ConnectionLimits, STOP_MARGIN, room, serve};
use crate::verify::Cutoff;

/// Serves until `shutdown`, then answers what is in flight and returns. `token` is the local token, where
/// there is one; it goes with the role. `ready` is called once requests are answered.
///
/// # Errors
/// When a store or a queue can not be used, or the listener fails.
pub fn run(
    settings: Settings,
    listener: TcpListener,
    token: Option<LocalToken>,
    identity: Replica,
    ready: Box<dyn FnOnce() + Send>,
    shutdown: CancellationToken,
) -> BoxFuture<'static, anyhow::Result<()>> {
    // Boxed here, so that all of the role is compiled with this crate and not with its caller.
    serve_until(settings, listener, token, identity, ready, shutdown).boxed()
}

async fn serve_until(
    settings: Settings,
    listener: TcpListener,
    token: Option<LocalToken>,
    identity: Replica,
    ready: Box<dyn FnOnce() + Send>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let address = listener
        .local_addr()
        .context("read the listener's address")?;
    logging::identify(logging::REPLICA, &identity.id);
    let traces = Traces::start(
        &settings.traces,
        settings.queues.kind,
        "muster-web",
        &identity.id,
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
    gallery.held(|gallery| catalogue.expect(gallery)).await??;
    let shares_replies = backend.shares_replies();
    // Last: a start that fails leaves no queue behind.
    let replies = backend.replies(&identity.id).await?;
    tasks.spawn(retention::sweep(
        backend.clone(),
        settings.storage.clone(),
        stop.clone(),
    ));
    let folder = local_folder(&settings.storage);
    if folder.exists() {
        tasks.spawn(retention::sweep_partial_files(folder, stop.clone()));
    }
    tasks.spawn(gallery.clone().follow(stop.clone()));
    tasks.spawn(photographs::sweep(
        Arc::clone(&backend.enrolled),
        gallery.clone(),
        stop.clone(),
    ));
    let retention = Retention::new(&settings.storage);
    let deletions = Deletions::new(backend.clone(), gallery.clone(), retention.clone());
    tasks.spawn(deletions.clone().sweep(stop.clone()));
    let reporting = tokio::spawn(replica::run(
        Arc::clone(&backend.reports),
        identity.id,
        identity.totals.subscribe(),
        identity.reporting,
        stop.clone(),
    ));
    let access = access(&settings.web, address, token.as_ref(), &backend).await?;
    let auditor = Auditor::start(
        AuditLog::new(Arc::clone(&backend.state)),
        // In a bucket the log is append-only: no role may delete any of it.
        settings.storage.state_store.is_none(),
        &tasks,
        stop.clone(),
    );
    let (routes, document) = table(&access, &auditor, &settings.web, &settings.photographs);
    let submitted = identity.totals.subscribe();
    let metrics = Metrics::new(settings.fleet.price_per_hour);
    // A bucket has no end, and rules of its own.
    let in_bucket = settings.storage.input_store.is_some();
    let quota = Arc::new(Quota::new(
        (!in_bucket).then_some(settings.storage.max_stored_bytes),
    ));
    tasks.spawn(Arc::clone(&quota).follow(Arc::clone(&backend.input), stop.clone()));
    let dispatcher = Dispatcher::start(
        Dependencies {
            quota,
            backend: backend.clone(),
            gallery: gallery.clone(),
            catalogue: catalogue.clone(),
            replies: Arc::clone(&replies),
            timeout: request_timeout,
            max_waiting: settings.web.max_waiting,
            max_instances: settings.fleet.max_instances(),
            backlog: identity.totals,
            traces: traces.clone(),
            metrics: metrics.clone(),
        },
        &tasks,
        &stop,
    );
    let uploads = Uploads::new(&settings);
    let model_changes = ModelChanges::new(
        backend.clone(),
        catalogue.clone(),
        gallery.clone(),
        dispatcher.clone(),
        uploads.clone(),
    );
    let closing = backend.clone();
    let quality = settings.decisions.quality;
    let app = App(Arc::new(Parts {
        access,
        cutoff: Cutoff {
            operator: settings.decisions.cutoff,
            catalogue: catalogue.clone(),
        },
        deletions,
        document,
        enroller: Enroller {
            uploads: uploads.clone(),
            dispatcher: dispatcher.clone(),
            backend: backend.clone(),
            gallery: gallery.clone(),
            retention: retention.clone(),
            required: quality.enrolment,
        },
        events: Events::start(
            backend.clone(),
            dispatcher.clone(),
            submitted,
            &tasks,
            // A page that stays open must not hold up the stop.
            shutdown.clone(),
        ),
        examiner: Examiner::new(&settings.decisions, catalogue.clone()),
        jobs: JobRules {
            max_jobs: settings.web.max_jobs,
            retention: retention.clone(),
            requests_kept: backend.requests_kept,
        },
        metrics,
        model_changes: model_changes.clone(),
        observer: Observer {
            backend: backend.clone(),
            gallery: gallery.clone(),
            catalogue: catalogue.clone(),
            dispatcher: dispatcher.clone(),
            started: Instant::now(),
            quality,
        },
        quality,
        retention,
        samples: Samples(settings.models.dir().ok()),
        backend,
        catalogue,
        dispatcher,
        gallery,
        uploads,
    }));
    tasks.spawn(model_change::run(model_changes, stop.clone()));
    tracing::info!(%address, "the web tier listens");
    ready();
    let limits = ConnectionLimits {
        connections: room::connections(settings.web.max_connections),
        header_timeout: settings.web.header_timeout,
        write_timeout: settings.web.write_timeout,
        header_bytes: settings.web.max_header_bytes,
    };
    let router = router(routes, app, traces.clone(), &settings.web);
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
    if !shares_replies && let Err(error) = replies.remove().await {
        tracing::warn!(error = %muster_base::ErrorChain(&error), "the reply queue was not removed");
    }
    closing.close().await;
    traces.stop().await;
    tracing::info!("the web tier has stopped");
    Ok(())
}

/// Who may call the web tier; says so at the start.
async fn access(
    settings: &WebSettings,
    address: SocketAddr,
    token: Option<&LocalToken>,
    backend: &Backend,
) -> anyhow::Result<Access> {
    let keys = KeyStore::new(Arc::clone(&backend.state));
    let keyless = match (settings.key_rule(), token) {
        (KeyRule::UnlessLocal, Some(token)) => {
            tracing::info!(
                "without an API key, programs on this machine may recognise and verify; all else wants a \
                 key or the local token, which this account's commands send by themselves and `muster \
                 token` prints. Calls through a proxy want a key (docs/OPERATIONS.md)"
            );
            Keyless::Local(token.key().clone())
        }
        (KeyRule::Never, _) => {
            tracing::warn!(
                %address,
                "require_keys is false: whoever reaches the address, also through a proxy, may read, \
                 change and delete everything"
            );
            Keyless::Everything {
                loopback: settings.listen.ip().is_loopback(),
                origins: settings.cors_origins.clone(),
            }
        }
        (KeyRule::Always | KeyRule::UnlessLocal, _) => {
            if !keys.any().await? {
                tracing::warn!(
                    "API keys are required and there is none: every call is answered 401. Make one with \
                     `muster keys create --name NAME --scope admin`, with the same configuration"
                );
            }
            Keyless::Nothing
        }
    };
    Ok(Access::new(keys, keyless))
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
