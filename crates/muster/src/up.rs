//! All roles on this machine: the web tier and the controller in this process, workers as its
//! children.

use std::path::PathBuf;

use anyhow::Context;
use muster_fleet::Ledger;
use muster_recognize::models::Installation;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::{controller, web};

/// Runs until `shutdown`: then the requests in flight are answered, and the fleet is drained.
///
/// # Errors
/// When the models are missing or damaged, the address is taken, or the data folder is in use.
pub async fn run(
    settings: Settings,
    config: Option<PathBuf>,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let models = settings.models_dir()?;
    tokio::task::spawn_blocking(move || Installation::open(&models)?.verify())
        .await
        .context("verify the models")??;
    // The controller reads from the web tier's own count what the queue's may not say yet.
    let ledger = watch::Sender::new(Ledger::default());
    let stop_controller = CancellationToken::new();
    let stop_web = shutdown.child_token();
    let mut controller = tokio::spawn(controller::run(
        settings.clone(),
        config,
        Some(ledger.subscribe()),
        stop_controller.clone(),
    ));
    let mut web = tokio::spawn(web::run(settings, listener, ledger, stop_web.clone()));
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
