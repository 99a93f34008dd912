//! A fleet of processes on this machine, with one controller a data folder.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use muster_base::backend::Backend;
use muster_base::fleet_status;
use muster_base::settings::Settings;
use muster_fleet::{FleetReport, LocalFleet, LocalFleetOptions};
use tokio_util::sync::CancellationToken;

use super::control::control;
use super::replicas::{OwnWeb, ReplicaTotals};
use super::reports::ReportHandlers;

/// Controls the workers of this data folder until `shutdown`, and drains them then.
///
/// # Errors
/// When another controller runs on the data folder, or the store fails.
pub async fn control_until(
    settings: &Settings,
    config: Option<PathBuf>,
    backend: &Backend,
    own: Option<OwnWeb>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    // Held until the end: two controllers on one data folder would each launch a fleet.
    std::fs::create_dir_all(&settings.storage.data_dir).with_context(|| {
        format!(
            "make the data folder {}",
            settings.storage.data_dir.display()
        )
    })?;
    let lock_file = settings.storage.data_dir.join("controller.lock");
    let lock = std::fs::File::create(&lock_file)
        .with_context(|| format!("make {}", lock_file.display()))?;
    lock.try_lock().with_context(|| {
        format!(
            "another Muster runs on {}: stop it, or choose another folder with --data",
            settings.storage.data_dir.display()
        )
    })?;
    let fleet = Arc::new(LocalFleet::new(LocalFleetOptions {
        program: std::env::current_exe().context("find muster's own program")?,
        args: worker_args(settings, config),
        drain_timeout: settings.fleet.drain_timeout,
    }));
    let totals = ReplicaTotals::new(own.as_ref());
    let handlers = ReportHandlers {
        worker: |_| {},
        listening: || {},
    };
    let controlled = control(settings, backend, &fleet, &totals, handlers, &shutdown).await;
    fleet.shut_down().await;
    controlled?;
    let policy = settings.fleet.policy(settings.queues.kind);
    let gone = FleetReport {
        min: policy.min_instances,
        max: policy.max_instances,
        reason: "the controller has stopped".to_owned(),
        ..FleetReport::default()
    };
    fleet_status::publish(&*backend.state, gone)
        .await
        .context("publish the fleet's status")
}

fn worker_args(settings: &Settings, config: Option<PathBuf>) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec!["worker".into(), "--exit-with-stdin".into()];
    args.push("--data".into());
    args.push(settings.storage.data_dir.clone().into());
    args.push("--profile".into());
    args.push(settings.models.profile.clone().into());
    if let Some(config) = config {
        args.push("--config".into());
        args.push(config.into());
    }
    args
}
