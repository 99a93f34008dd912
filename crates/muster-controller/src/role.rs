//! The role from its start to its end.

use std::path::PathBuf;

use futures::FutureExt;
use futures::future::BoxFuture;
use muster_base::backend::{Backend, Role};
use muster_base::settings::{FleetKind, Settings};
use tokio_util::sync::CancellationToken;

use super::local::Claim;
use super::replicas::OwnWeb;
use super::{ec2, local};

/// Runs until `shutdown`.
///
/// Workers on this machine are drained then. Instances on EC2 stay: the next controller finds them.
///
/// `config` is handed to local workers, so that they resolve the same settings; `claim` is on the
/// settings' data folder; `own` is the web tier of this process, if there is one.
///
/// # Errors
/// When a store, a queue or EC2 can not be used.
pub fn run(
    settings: Settings,
    config: Option<PathBuf>,
    claim: Option<Claim>,
    own: Option<OwnWeb>,
    shutdown: CancellationToken,
) -> BoxFuture<'static, anyhow::Result<()>> {
    // Boxed here, so that all of the role is compiled with this crate and not with its caller.
    async move {
        let ended = control_until(settings, config, own, shutdown).await;
        drop(claim);
        ended
    }
    .boxed()
}

async fn control_until(
    settings: Settings,
    config: Option<PathBuf>,
    own: Option<OwnWeb>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    for said in settings.fleet.without_effect() {
        tracing::warn!("{said}");
    }
    let backend = Backend::open(&settings, Role::Controller).await?;
    match settings.fleet.kind {
        FleetKind::Local => {
            local::control_until(&settings, config, &backend, own, shutdown).await?
        }
        FleetKind::Ec2 => ec2::control_until(&settings, config, &backend, own, shutdown).await?,
    }
    backend.close().await;
    tracing::info!("the controller has stopped");
    Ok(())
}
