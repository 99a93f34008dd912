//! SIGTERM and Ctrl-C mean: finish what is in flight, then stop. A second one means now.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit status of a process that a second signal ended, as shells have it for SIGINT.
const INTERRUPTED: i32 = 130;

/// A token that the first signal cancels.
///
/// # Errors
/// When the signals can not be handled.
pub fn shutdown() -> anyhow::Result<CancellationToken> {
    let mut term = signal(SignalKind::terminate()).context("handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("handle Ctrl-C")?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    // Detached on purpose: it listens for as long as the process lives.
    drop(tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
            if cancelled.is_cancelled() {
                std::process::exit(INTERRUPTED);
            }
            tracing::info!("stopping: what is in flight is finished first");
            cancelled.cancel();
        }
    }));
    Ok(token)
}
