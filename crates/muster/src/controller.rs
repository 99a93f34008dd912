//! The controller role: sizes this machine's fleet and says how it fares.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use muster_fleet::{Controller, FleetReport, Learned, Ledger, LocalFleet, LocalFleetOptions};
use muster_jobs::now_ms;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;
use crate::config::{Settings, seconds};

/// What the controller last published.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FleetStatus {
    /// When the controller saw this, in milliseconds since the Unix epoch; 0 when there was none.
    pub observed_at_ms: u64,
    /// What it saw and decided.
    pub report: FleetReport,
}

/// Runs until `shutdown`, then drains the whole fleet.
///
/// `config` is handed to the workers, so that they resolve the same settings; `ledger` is the web
/// tier's own count, where it runs in this process.
///
/// # Errors
/// When the data folder can not be used, or another controller runs on it.
pub async fn run(
    settings: Settings,
    config: Option<PathBuf>,
    ledger: Option<watch::Receiver<Ledger>>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let backend = Backend::open(&settings).await?;
    // Held until the end: two controllers on one data folder would each launch a fleet.
    let lock_file = settings.data_dir.join("controller.lock");
    let lock = std::fs::File::create(&lock_file)
        .with_context(|| format!("make {}", lock_file.display()))?;
    lock.try_lock().with_context(|| {
        format!(
            "another Muster runs on {}: stop it, or choose another folder with --data",
            settings.data_dir.display()
        )
    })?;
    let fleet = Arc::new(LocalFleet::new(LocalFleetOptions {
        program: std::env::current_exe().context("find muster's own program")?,
        args: worker_args(&settings, config),
        drain_timeout: seconds(settings.drain_timeout_s),
    }));
    let controller = Controller {
        requests: Arc::clone(&backend.requests),
        fleet: Arc::clone(&fleet),
        policy: settings.policy(),
        ledger,
        count_interval: std::time::Duration::from_millis(50),
        learned: watch::Sender::new(kept(&backend).await?),
    };
    let mut learned = controller.learned.subscribe();
    let (reports, mut latest) = watch::channel(FleetReport::default());
    let publish = async {
        // Ends with the controller, which holds the other end.
        while latest.changed().await.is_ok() {
            let report = latest.borrow_and_update().clone();
            if let Err(error) = put_status(&backend, report).await {
                tracing::warn!(error = %crate::Chain(&error), "the fleet's status was not published");
            }
        }
    };
    let keep = async {
        while learned.changed().await.is_ok() {
            let learned = learned.borrow_and_update().clone();
            if let Err(error) = put(&backend, &backend.learned(), &learned).await {
                tracing::warn!(error = %crate::Chain(&error), "what was learned was not kept");
            }
        }
    };
    tokio::join!(
        muster_fleet::run(controller, reports, shutdown),
        publish,
        keep
    );
    fleet.shut_down().await;
    let policy = settings.policy();
    let gone = FleetReport {
        min: policy.min_instances,
        max: policy.max_instances,
        reason: "the controller has stopped".to_owned(),
        ..FleetReport::default()
    };
    put_status(&backend, gone)
        .await
        .context("publish the fleet's status")?;
    tracing::info!("the controller has stopped");
    Ok(())
}

async fn put_status(backend: &Backend, report: FleetReport) -> Result<(), object_store::Error> {
    let status = FleetStatus {
        observed_at_ms: now_ms(),
        report,
    };
    put(backend, &backend.fleet_status(), &status).await
}

async fn put(
    backend: &Backend,
    path: &Path,
    value: &impl Serialize,
) -> Result<(), object_store::Error> {
    let body = serde_json::to_vec(value).expect("only string keys");
    backend.objects.put(path, PutPayload::from(body)).await?;
    Ok(())
}

/// What the controllers before this one have learned; nothing where none ever ran here.
async fn kept(backend: &Backend) -> anyhow::Result<Learned> {
    let bytes = match backend.objects.get(&backend.learned()).await {
        Ok(found) => found.bytes().await,
        Err(object_store::Error::NotFound { .. }) => return Ok(Learned::default()),
        Err(error) => Err(error),
    };
    let bytes = bytes.context("read what was learned")?;
    Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        tracing::warn!(%error, "what was learned can not be read: learning anew");
        Learned::default()
    }))
}

fn worker_args(settings: &Settings, config: Option<PathBuf>) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec!["worker".into(), "--exit-with-stdin".into()];
    args.push("--data".into());
    args.push(settings.data_dir.clone().into());
    if let Some(config) = config {
        args.push("--config".into());
        args.push(config.into());
    }
    args
}
