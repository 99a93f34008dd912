//! Sizing a fleet, whichever it is: reports in, plans done, status out.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use muster_base::ErrorChain;
use muster_base::backend::Backend;
use muster_base::fleet_status;
use muster_base::settings::{FleetKind, QueueKind, Settings};
use muster_fleet::{Controller, Fleet, FleetReport, Learned};
use muster_jobs::WorkerReport;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::replicas::ReplicaTotals;
use super::reports::{self, ReportHandlers};

/// How often SQLite's queue is counted at most, and SQS's, where each count is a paid call and lags
/// anyway.
const LOCAL_COUNTS: Duration = Duration::from_millis(50);
const SQS_COUNTS: Duration = Duration::from_secs(1);
/// Sizes the fleet until `stop`, publishing what is seen and keeping what is learned.
pub async fn control<F: Fleet>(
    settings: &Settings,
    backend: &Backend,
    fleet: &Arc<F>,
    totals: &ReplicaTotals,
    handlers: ReportHandlers<impl Fn(WorkerReport), impl Fn()>,
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
        totals: Some(totals.total()),
        learned: watch::Sender::new(kept(backend).await?),
    };
    // Only a controller that alone handlers the reports knows whose queues nobody owns: the one with
    // the lease, or the one of this data folder.
    let sweeps = settings.fleet.kind == FleetKind::Ec2 || settings.queues.kind == QueueKind::Local;
    let mut learned = controller.learned.subscribe();
    let (reports, mut latest) = watch::channel(FleetReport::default());
    let publish = async {
        // Ends with the controller, which holds the other end.
        while latest.changed().await.is_ok() {
            let report = latest.borrow_and_update().clone();
            if let Err(error) = fleet_status::publish(&*backend.state, report).await {
                tracing::warn!(error = %ErrorChain(&error), "the fleet's status was not published");
            }
        }
    };
    let keep = async {
        while learned.changed().await.is_ok() {
            let learned = learned.borrow_and_update().clone();
            if let Err(error) = put(backend, &Backend::learned(), &learned).await {
                tracing::warn!(error = %ErrorChain(&error), "what was learned was not kept");
            }
        }
    };
    // Local workers tell it to their parent.
    let on_ec2 = settings.fleet.kind == FleetKind::Ec2;
    let hung_timeout = on_ec2.then_some(settings.fleet.ec2.hung_timeout);
    let listen = async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = reports::listen(backend, hung_timeout, totals, handlers) => {}
            () = totals.follow() => {}
            () = reports::sweep(backend, totals), if sweeps => {}
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
    let bytes = bytes.context("read the learned boot and service times")?;
    Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        tracing::warn!(%error, "the boot and service times that were learned can not be read: they are learned again");
        Learned::default()
    }))
}
