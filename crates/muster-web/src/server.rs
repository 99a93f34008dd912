//! The HTTP server: connections, their limits, and their graceful end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Time that connections get beyond the request timeout before a stop cuts them.
pub const STOP_MARGIN: Duration = Duration::from_secs(2);
/// Pause after a connection could not be accepted, for want of file descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What a connection may cost.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Connections at one time; more wait until one ends.
    pub connections: usize,
    /// How long a client may take from one answer, or the connection's beginning, to the end of the
    /// next request's headers.
    pub header_timeout: Duration,
    /// Bytes of the request's line and headers.
    pub header_bytes: usize,
}

/// Serves until `shutdown`; then accepts nothing more, and returns once every request in flight is
/// answered. Dropped earlier, it cuts what is left.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    shutdown: CancellationToken,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_header_size(limits.header_bytes);
    let room = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut failing = false;
    loop {
        let accepted = async {
            let room = Arc::clone(&room).acquire_owned().await;
            (listener.accept().await, room)
        };
        let (accepted, room) = tokio::select! {
            accepted = accepted => accepted,
            Some(_) = connections.join_next() => continue,
            () = shutdown.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                if !failing {
                    tracing::warn!(error = %muster_base::ErrorChain(&error), "connections can not be accepted");
                }
                failing = true;
                tokio::select! {
                    () = tokio::time::sleep(ACCEPT_PAUSE) => continue,
                    () = shutdown.cancelled() => break,
                }
            }
        };
        failing = false;
        // A connection that ended before this shows when it is used.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        connections.spawn(async move {
            let _room = room;
            if let Err(error) = connection.await {
                tracing::debug!(error = %muster_base::ErrorChain(&error), "a connection ended early");
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
    while connections.join_next().await.is_some() {}
}
