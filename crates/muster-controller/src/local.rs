//! A fleet of processes on this machine, with one controller a data folder.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use muster_base::backend::{Backend, data_folder};
use muster_base::fleet_status;
use muster_base::settings::{FleetKind, Settings};
use muster_fleet::{FleetReport, LocalFleet, LocalFleetOptions};
use tokio_util::sync::CancellationToken;

use super::control::control;
use super::replicas::{OwnWeb, ReplicaTotals};
use super::reports::ReportHandlers;

/// The right to control the workers of a data folder: two controllers on one would each launch a
/// fleet. Given up when it is dropped, and when the process ends.
pub struct Claim {
    _lock: File,
}

impl Claim {
    /// Claims the settings' data folder, where the workers are on this machine.
    ///
    /// # Errors
    /// When another controller has it, or its lock can not be opened.
    pub fn take(settings: &Settings) -> anyhow::Result<Option<Self>> {
        if settings.fleet.kind == FleetKind::Ec2 {
            return Ok(None);
        }
        let data_dir = &settings.storage.data_dir;
        data_folder::prepare(data_dir, None)?;
        let file = data_dir.join("controller.lock");
        let lock = data_folder::open_file(&file)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => anyhow::bail!(
                "another Muster runs on {}: stop it, or choose another folder with --data",
                data_dir.display()
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("lock {}", file.display()));
            }
        }
        Ok(Some(Self { _lock: lock }))
    }
}

/// Controls the workers of the data folder, which its caller has claimed, until `shutdown`, and drains
/// them then.
///
/// # Errors
/// When the store fails.
pub async fn control_until(
    settings: &Settings,
    config: Option<PathBuf>,
    backend: &Backend,
    own: Option<OwnWeb>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let fleet = Arc::new(workers(settings, config, 0)?);
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

/// The workers of this machine, none of which is there yet, so nice to others.
///
/// # Errors
/// When this program can not be found.
pub fn workers(
    settings: &Settings,
    config: Option<PathBuf>,
    nice: u8,
) -> anyhow::Result<LocalFleet> {
    Ok(LocalFleet::new(LocalFleetOptions {
        program: std::env::current_exe().context("find muster's own program")?,
        args: worker_args(settings, config),
        drain_timeout: settings.fleet.drain_timeout,
        hung_timeout: settings.fleet.hung_timeout,
        nice,
    }))
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
