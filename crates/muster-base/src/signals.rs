//! What ends a process: SIGTERM and Ctrl-C mean to finish what is in flight and stop, a second one
//! means now; and for a child the end of its standard input, which is the end of its parent.

use std::io::Read;
use std::time::Duration;

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
            tracing::info!("stopping: requests in flight are finished first");
            cancelled.cancel();
        }
    }));
    Ok(token)
}

/// Cancels `stop` when standard input ends: the parent holds the other end, and the kernel closes it
/// however the parent ends. A process that has not stopped `at_most` this much later is ended.
///
/// # Errors
/// When no thread can be started.
pub fn stop_with_parent(stop: CancellationToken, at_most: Duration) -> anyhow::Result<()> {
    std::thread::Builder::new()
        .name("parent".into())
        .spawn(move || {
            let mut buffer = [0; 64];
            while !matches!(std::io::stdin().read(&mut buffer), Ok(0) | Err(_)) {}
            stop.cancel();
            std::thread::sleep(at_most);
            tracing::error!("the drain did not end in time after the parent had gone");
            std::process::exit(1);
        })
        .context("start the thread that watches the parent")?;
    Ok(())
}
