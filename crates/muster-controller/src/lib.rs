//! The controller role: sizes the fleet and says how it fares.

mod ledgers;
mod reports;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aws_config::SdkConfig;
use futures::FutureExt;
use futures::future::BoxFuture;
use muster_fleet::{
    Controller, Ec2Fleet, Ec2FleetOptions, Ec2Rehearsal, Fleet, FleetError, FleetReport, Heard,
    InstanceId, Learned, Lease, Ledger, LocalFleet, LocalFleetOptions, Phase,
};
use muster_jobs::{STATUS_PREFIX, WorkerPhase, WorkerReport};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use ledgers::Ledgers;
use muster_base::aws;
use muster_base::backend::{Backend, Role};
use muster_base::backoff;
use muster_base::fleet_status;
use muster_base::settings::{FleetKind, FleetSettings, QueueKind, Settings};

/// How often SQLite's queue is counted at most, and SQS's, where each count is a paid call and lags
/// anyway.
const LOCAL_COUNTS: Duration = Duration::from_millis(50);
const SQS_COUNTS: Duration = Duration::from_secs(1);
/// How long a controller that is gone keeps its lease. A successor waits for as long.
const LEASE: Duration = Duration::from_secs(15);

/// The web tier of this process.
pub struct OwnWeb {
    /// Its id, so that its reports are not counted twice.
    pub replica: String,
    /// What was submitted to it and answered.
    pub ledger: watch::Receiver<Ledger>,
}

/// Runs until `shutdown`.
///
/// Workers on this machine are drained then. Instances on EC2 stay: the next controller finds them.
///
/// `config` is handed to local workers, so that they resolve the same settings; `own` is the web
/// tier of this process, if there is one.
///
/// # Errors
/// When a store, a queue or EC2 can not be used, or another controller runs on the data folder.
pub fn run(
    settings: Settings,
    config: Option<PathBuf>,
    own: Option<OwnWeb>,
    shutdown: CancellationToken,
) -> BoxFuture<'static, anyhow::Result<()>> {
    // Boxed here, so that all of the role is compiled with this crate and not with its caller.
    control_until(settings, config, own, shutdown).boxed()
}

async fn control_until(
    settings: Settings,
    config: Option<PathBuf>,
    own: Option<OwnWeb>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let backend = Backend::open(&settings, Role::Controller).await?;
    match settings.fleet.kind {
        FleetKind::Local => on_this_machine(&settings, config, &backend, own, shutdown).await?,
        FleetKind::Ec2 => on_ec2(&settings, &backend, own, shutdown).await?,
    }
    tracing::info!("the controller has stopped");
    Ok(())
}

async fn on_this_machine(
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
    let ledgers = Ledgers::new(own.as_ref());
    let hears = reports::Hears {
        worker: |_| {},
        listening: || {},
    };
    let controlled = control(settings, backend, &fleet, &ledgers, hears, &shutdown).await;
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

/// Controls an EC2 fleet while this is the one controller that does, and waits for that otherwise.
async fn on_ec2(
    settings: &Settings,
    backend: &Backend,
    own: Option<OwnWeb>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    anyhow::ensure!(
        !settings.fleet.ec2.launch_template.is_empty(),
        "fleet is \"ec2\" and ec2.launch_template is not set: name the launch template"
    );
    let sdk = backend.sdk.as_ref().context("no AWS configuration")?;
    rehearse(sdk, &settings.fleet).await?;
    let holder = Uuid::now_v7().simple().to_string();
    let ledgers = Ledgers::new(own.as_ref());
    // What fails at the start is the operator's to mend; what fails later may pass.
    let mut held: Option<Arc<Lease>> = None;
    let mut failures = 0;
    while !shutdown.is_cancelled() {
        let before = held.as_deref();
        let taken = take_over(settings, backend, sdk, &holder, before, &shutdown).await;
        let (lease, fleet) = match taken {
            Ok(Some(taken)) => taken,
            Ok(None) => return Ok(()),
            Err(error) if held.is_none() => return Err(error),
            Err(error) => {
                let context = "the controller could not take over";
                failed(context, &error, &mut failures, &shutdown).await;
                continue;
            }
        };
        held = Some(Arc::clone(&lease));
        let stop = shutdown.child_token();
        let hears = reports::Hears {
            worker: |report| fleet.heard(&heard(report)),
            listening: || fleet.listening(),
        };
        let control = async {
            let ended = control(settings, backend, &fleet, &ledgers, hears, &stop).await;
            // Without it the lease would be kept by a controller that does nothing.
            stop.cancel();
            ended
        };
        let keep = async {
            lease.keep(&stop).await;
            stop.cancel();
        };
        let (controlled, ()) = tokio::join!(control, keep);
        let_go(&lease).await;
        match controlled {
            Err(error) => {
                failed("the controller ended", &error, &mut failures, &shutdown).await;
            }
            Ok(()) if shutdown.is_cancelled() => {}
            Ok(()) => {
                failures = 0;
                tracing::warn!("this controller has lost its lease and stands by");
            }
        }
    }
    Ok(())
}

/// Logs a failure, and pauses the longer the more there were in a row, or until `shutdown`.
async fn failed(
    context: &str,
    error: &anyhow::Error,
    failures: &mut u32,
    shutdown: &CancellationToken,
) {
    aws::failed(context, error.as_ref());
    *failures += 1;
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = tokio::time::sleep(backoff::after(*failures)) => {}
    }
}

/// Waits for the lease and opens the fleet; `None` when `shutdown` came first.
async fn take_over(
    settings: &Settings,
    backend: &Backend,
    sdk: &SdkConfig,
    holder: &str,
    before: Option<&Lease>,
    shutdown: &CancellationToken,
) -> anyhow::Result<Option<(Arc<Lease>, Arc<Ec2Fleet>)>> {
    let key = Path::from_iter([STATUS_PREFIX, "controller-lease.json"]);
    let state = Arc::clone(&backend.state);
    let lease = match before {
        // One that was lost to nobody is regained without a wait.
        Some(before) => before.regain(shutdown).await,
        None => Lease::acquire(state, key, holder, LEASE, shutdown).await,
    };
    let lease = lease.context("take the controller's lease")?;
    let Some(lease) = lease else {
        return Ok(None);
    };
    let state = Arc::clone(&backend.state);
    let prefix = Path::from(STATUS_PREFIX);
    let options = ec2_options(&settings.fleet);
    match Ec2Fleet::open(sdk, options, state, &prefix, Arc::clone(&lease)).await {
        Ok(fleet) => Ok(Some((lease, Arc::new(fleet)))),
        Err(error) => {
            let_go(&lease).await;
            Err(error).context("open the EC2 fleet")
        }
    }
}

/// Releases the lease, so that a successor need not wait for its end.
async fn let_go(lease: &Lease) {
    if let Err(error) = lease.release().await {
        tracing::warn!(
            error = %muster_base::ErrorChain(&error),
            "the controller's lease was not released; a successor waits for its end"
        );
    }
}

/// Fails where no launch will ever succeed as things are set, rather than when the first request
/// waits for a worker. A service that does not answer now may do so later.
async fn rehearse(sdk: &SdkConfig, settings: &FleetSettings) -> anyhow::Result<()> {
    let ec2 = Ec2Rehearsal::new(sdk, ec2_options(settings));
    let may_pass = |error: &FleetError| {
        !matches!(
            error,
            FleetError::NotFound { .. } | FleetError::NotPermitted { .. }
        )
    };
    match ec2.instances().await {
        Err(error) if !may_pass(&error) => return Err(error).context("look for the workers"),
        _ => {}
    }
    let mut refusal = None;
    for place in ec2.places() {
        match ec2.launch(&place).await {
            Err(error) if !may_pass(&error) => {
                refusal.get_or_insert((place, error));
            }
            _ => return Ok(()),
        }
    }
    match refusal {
        Some((place, error)) => Err(error).with_context(|| format!("launch {place}")),
        None => Ok(()),
    }
}

/// How instances are launched.
pub fn ec2_options(settings: &FleetSettings) -> Ec2FleetOptions {
    let ec2 = &settings.ec2;
    Ec2FleetOptions {
        deployment: ec2.deployment.clone(),
        launch_template: ec2.launch_template.clone(),
        launch_template_version: ec2.launch_template_version.clone(),
        name_prefix: ec2.name_prefix.clone(),
        instance_types: ec2.instance_types.clone(),
        subnets: ec2.subnets.clone(),
        capacity: ec2.capacity,
        stopped_instances: ec2.stopped_instances,
        boot_timeout: ec2.boot_timeout,
        max_instances: settings.max_instances(),
    }
}

fn heard(report: WorkerReport) -> Heard {
    Heard {
        id: InstanceId(report.instance),
        phase: match report.phase {
            WorkerPhase::Ready => Phase::Ready,
            WorkerPhase::Draining => Phase::Draining,
        },
        busy: report.busy,
        started_at_ms: report.started_at_ms,
    }
}

/// Sizes the fleet until `stop`, publishing what is seen and keeping what is learned.
async fn control<F: Fleet>(
    settings: &Settings,
    backend: &Backend,
    fleet: &Arc<F>,
    ledgers: &Ledgers,
    hears: reports::Hears<impl Fn(WorkerReport), impl Fn()>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let controller = Controller {
        requests: Arc::clone(&backend.requests),
        fleet: Arc::clone(fleet),
        policy: settings.fleet.policy(settings.queues.kind),
        count_interval: match settings.queues.kind {
            QueueKind::Local => LOCAL_COUNTS,
            QueueKind::Sqs => SQS_COUNTS,
        },
        ledger: Some(ledgers.total()),
        learned: watch::Sender::new(kept(backend).await?),
    };
    // Only a controller that alone hears the reports knows whose queues nobody owns: the one with
    // the lease, or the one of this data folder.
    let sweeps = settings.fleet.kind == FleetKind::Ec2 || settings.queues.kind == QueueKind::Local;
    let mut learned = controller.learned.subscribe();
    let (reports, mut latest) = watch::channel(FleetReport::default());
    let publish = async {
        // Ends with the controller, which holds the other end.
        while latest.changed().await.is_ok() {
            let report = latest.borrow_and_update().clone();
            if let Err(error) = fleet_status::publish(&*backend.state, report).await {
                tracing::warn!(error = %muster_base::ErrorChain(&error), "the fleet's status was not published");
            }
        }
    };
    let keep = async {
        while learned.changed().await.is_ok() {
            let learned = learned.borrow_and_update().clone();
            if let Err(error) = put(backend, &Backend::learned(), &learned).await {
                tracing::warn!(error = %muster_base::ErrorChain(&error), "what was learned was not kept");
            }
        }
    };
    let listen = async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = reports::listen(backend, ledgers, hears) => {}
            () = ledgers.follow() => {}
            () = reports::sweep(backend, ledgers), if sweeps => {}
        }
    };
    tokio::join!(
        muster_fleet::run(controller, reports, stop.clone()),
        publish,
        keep,
        listen
    );
    Ok(())
}

async fn put(
    backend: &Backend,
    path: &Path,
    value: &impl Serialize,
) -> Result<(), object_store::Error> {
    let body = serde_json::to_vec(value).expect("only string keys");
    backend.state.put(path, PutPayload::from(body)).await?;
    Ok(())
}

/// What the controllers before this one have learned; nothing where none ever ran here.
async fn kept(backend: &Backend) -> anyhow::Result<Learned> {
    let bytes = match backend.state.get(&Backend::learned()).await {
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
    args.push(settings.storage.data_dir.clone().into());
    args.push("--profile".into());
    args.push(settings.models.profile.clone().into());
    if let Some(config) = config {
        args.push("--config".into());
        args.push(config.into());
    }
    args
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn failures_in_a_row_are_paused_after_until_the_shutdown() {
        let error = anyhow::anyhow!("the store does not answer");
        let (mut failures, shutdown) = (0, CancellationToken::new());
        let begun = Instant::now();
        for _ in 0..2 {
            failed("the controller ended", &error, &mut failures, &shutdown).await;
        }
        assert!(begun.elapsed() >= backoff::after(1) + backoff::after(2));
        shutdown.cancel();
        failures = 100;
        let begun = Instant::now();
        failed("the controller ended", &error, &mut failures, &shutdown).await;
        assert!(begun.elapsed() < backoff::after(failures));
    }
}
