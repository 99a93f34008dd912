//! The controller role: sizes this machine's fleet and says how it fares.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use muster_fleet::{Controller, FleetReport, LocalFleet, LocalFleetOptions};
use muster_jobs::now_ms;
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
/// `config` is handed to the workers, so that they resolve the same settings.
///
/// # Errors
/// When the data folder can not be used, or another controller runs on it.
pub async fn run(
    settings: Settings,
    config: Option<PathBuf>,
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
        idle_grace: seconds(settings.idle_grace_s),
    };
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
    tokio::join!(muster_fleet::run(controller, reports, shutdown), publish);
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
    let body = serde_json::to_vec(&status).expect("a status has only string keys");
    backend
        .objects
        .put(&backend.fleet_status(), PutPayload::from(body))
        .await?;
    Ok(())
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
