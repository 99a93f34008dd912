//! The web tier and the controller in one process; workers are its children, or EC2 instances.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use muster_base::local_token::LocalToken;
use muster_base::settings::{FleetKind, Settings};
use muster_controller::{Claim, OwnWeb};
use muster_web::{Replica, Reporting};

/// Runs until `shutdown`: then the requests in flight are answered, and the fleet is drained.
///
/// # Errors
/// When the models are missing or damaged, or a role fails.
pub async fn run(
    settings: Settings,
    config: Option<PathBuf>,
    claim: Option<Claim>,
    listener: TcpListener,
    token: Option<LocalToken>,
    ready: Box<dyn FnOnce() + Send>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    if settings.fleet.workers_here() > 0 {
        let installation = settings.models.installation()?;
        tokio::task::spawn_blocking(move || installation.verify())
            .await
            .context("verify the models")??;
    }
    // The controller here reads from the web tier's own count what the queue's may not say yet; on
    // EC2 another host's may be the one that acts.
    let replica = Replica::new(match settings.fleet.kind {
        FleetKind::Local => Reporting::Presence,
        FleetKind::Ec2 => Reporting::Totals,
    });
    let own = OwnWeb {
        replica: replica.id.clone(),
        totals: replica.totals.subscribe(),
    };
    let stop_controller = CancellationToken::new();
    let stop_web = shutdown.child_token();
    let mut controller = tokio::spawn(muster_controller::run(
        settings.clone(),
        config,
        claim,
        Some(own),
        stop_controller.clone(),
    ));
    let mut web = tokio::spawn(muster_web::run(
        settings,
        listener,
        token,
        replica,
        ready,
        stop_web.clone(),
    ));
    // The fleet outlives the web tier, so that what is in flight gets its answer.
    let (served, controlled) = tokio::select! {
        served = &mut web => {
            stop_controller.cancel();
            (served, controller.await)
        }
        controlled = &mut controller => {
            stop_web.cancel();
            (web.await, controlled)
        }
    };
    controlled.context("run the controller")??;
    served.context("run the web tier")?
}

/// How long everything on this machine takes to stop at most: the requests in flight, then the
/// workers.
pub fn longest_drain(settings: &Settings) -> Duration {
    /// For what is neither: queues removed, spans exported, files closed.
    const MARGIN: Duration = Duration::from_secs(10);
    settings.web.request_timeout + settings.fleet.drain_timeout + MARGIN
}
