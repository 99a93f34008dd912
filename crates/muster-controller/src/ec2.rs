//! A fleet of EC2 instances, which several controllers may stand by for: one has the lease and acts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aws_config::SdkConfig;
use muster_base::backend::Backend;
use muster_base::settings::{FleetSettings, Settings};
use muster_base::{ErrorChain, aws, backoff};
use muster_fleet::{
    Ec2DryRun, Ec2Fleet, Ec2FleetOptions, FleetError, Heartbeat, InstanceId, Lease, Phase,
    TieredFleet,
};
use muster_jobs::keys::{CONTROLLER_LEASE, LAUNCHES};
use muster_jobs::{WorkerPhase, WorkerReport};
use object_store::path::Path;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::control::control;
use super::local;
use super::replicas::{OwnWeb, ReplicaTotals};
use super::reports::ReportHandlers;

/// How long a controller that is gone keeps its lease. A successor waits for as long.
const LEASE: Duration = Duration::from_secs(15);
/// How nice this machine's workers are to the web tier: where both want a processor, the worker gets a
/// quarter of it.
const NICE: u8 = 5;

/// Controls an EC2 fleet while this is the one controller that does, and waits for that otherwise.
pub async fn control_until(
    settings: &Settings,
    config: Option<PathBuf>,
    backend: &Backend,
    own: Option<OwnWeb>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    anyhow::ensure!(
        !settings.fleet.ec2.launch_template.is_empty(),
        "fleet is \"ec2\" and ec2.launch_template is not set: name the launch template"
    );
    let sdk = backend.sdk.as_ref().context("no AWS configuration")?;
    check_permissions(sdk, &settings.fleet).await?;
    let holder = Uuid::now_v7().simple().to_string();
    let totals = ReplicaTotals::new(own.as_ref());
    // What fails at the start is the operator's to mend; what fails later may pass.
    let mut held: Option<Arc<Lease>> = None;
    let mut failures = 0;
    while !shutdown.is_cancelled() {
        let before = held.as_deref();
        let taken = take_over(settings, backend, sdk, &holder, before, &shutdown).await;
        let (lease, instances) = match taken {
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
        // They are the lease's: whoever has it has them, and nobody has two sets.
        let workers = local::workers(settings, config.clone(), NICE)?;
        let fleet = Arc::new(TieredFleet::new(workers, Arc::clone(&instances)));
        let stop = shutdown.child_token();
        let handlers = ReportHandlers {
            worker: |report| instances.record_heartbeat(&heartbeat(report)),
            listening: || instances.record_receive(),
        };
        let control = async {
            let ended = control(settings, backend, &fleet, &totals, handlers, &stop).await;
            // Without it the lease would be kept by a controller that does nothing.
            stop.cancel();
            ended
        };
        let keep = async {
            lease.keep(&stop).await;
            stop.cancel();
        };
        let (controlled, ()) = tokio::join!(control, keep);
        // The next controller need not wait until they have drained.
        tokio::join!(release(&lease), fleet.shut_down());
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
    let key = Path::from(CONTROLLER_LEASE);
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
    let record = Path::from(LAUNCHES);
    let options = ec2_options(&settings.fleet);
    match Ec2Fleet::open(sdk, options, state, record, Arc::clone(&lease)).await {
        Ok(fleet) => Ok(Some((lease, Arc::new(fleet)))),
        Err(error) => {
            release(&lease).await;
            Err(error).context("open the EC2 fleet")
        }
    }
}

/// Releases the lease, so that a successor need not wait for its end.
async fn release(lease: &Lease) {
    if let Err(error) = lease.release().await {
        tracing::warn!(
            error = %ErrorChain(&error),
            "the controller's lease was not released; a successor waits for its end"
        );
    }
}

/// Fails where no launch will ever succeed as things are set, rather than when the first request
/// waits for a worker. A service that does not answer now may do so later.
async fn check_permissions(sdk: &SdkConfig, settings: &FleetSettings) -> anyhow::Result<()> {
    let ec2 = Ec2DryRun::new(sdk, ec2_options(settings));
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
    for pool in ec2.pools() {
        match ec2.launch(&pool).await {
            Err(error) if !may_pass(&error) => {
                refusal.get_or_insert((pool, error));
            }
            _ => return Ok(()),
        }
    }
    match refusal {
        Some((pool, error)) => Err(error).with_context(|| format!("launch {pool}")),
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
        stopped_instances: settings.stopped_instances(),
        boot_timeout: ec2.boot_timeout,
        hung_timeout: ec2.hung_timeout,
        max_instances: settings.max_instances(),
    }
}

fn heartbeat(report: WorkerReport) -> Heartbeat {
    Heartbeat {
        id: InstanceId(report.instance),
        phase: match report.phase {
            WorkerPhase::Ready => Phase::Ready,
            WorkerPhase::Draining => Phase::Draining,
        },
        busy: report.busy,
        started_at_ms: report.started_at_ms,
        answered: report.answered,
        every: Duration::from_millis(report.every_ms),
    }
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
        // Half of a quarter and of half a second, at least.
        assert!(begun.elapsed() >= Duration::from_millis(125 + 250));
        shutdown.cancel();
        failures = 100;
        let begun = Instant::now();
        failed("the controller ended", &error, &mut failures, &shutdown).await;
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
