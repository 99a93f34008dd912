//! The HTTP server: connections, their limits, and their graceful end.

mod connections;
mod patience;
pub mod room;
mod unread;

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use connections::{Busy, Connection, Connections, Room};
use patience::Patient;
use unread::Asked;

/// Time that connections get beyond the request timeout before a stop cuts them.
pub const STOP_MARGIN: Duration = Duration::from_secs(2);
/// Pause after a connection could not be accepted, for want of file descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// After how long without a word the system asks whether a client is still there, how often, and how
/// many times without an answer: one that vanished is gone after two minutes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 4;

/// What a connection may cost.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Connections at one time, of which a client may have half. Beyond that the longest idle one is
    /// cut.
    pub connections: usize,
    /// How long a client may take from one answer, or the connection's beginning, to the end of the
    /// next request's headers.
    pub header_timeout: Duration,
    /// How long a client may take nothing of an answer.
    pub write_timeout: Duration,
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
    let connections = Connections::new(limits.connections);
    let graceful = GracefulShutdown::new();
    let mut tasks = JoinSet::new();
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next() => continue,
            () = shutdown.cancelled() => break,
        };
        let (stream, client) = match accepted {
            Ok((stream, client)) => (stream, client.ip()),
            Err(error) => {
                if !failing {
                    tracing::warn!(error = %muster_base::ErrorChain(&error), "connections can not be accepted");
                }
                failing = true;
                // Its descriptor is what the next one takes.
                connections.cut_idle();
                tokio::select! {
                    () = tokio::time::sleep(ACCEPT_PAUSE) => continue,
                    () = shutdown.cancelled() => break,
                }
            }
        };
        failing = false;
        let taken = tokio::select! {
            taken = room(&connections, client) => taken,
            () = shutdown.cancelled() => break,
        };
        let Some(connection) = taken else {
            tracing::debug!(%client, "a client has its share of the connections, and all of them are busy");
            continue;
        };
        if let Err(error) = prepare(&stream) {
            // It ended before this.
            tracing::debug!(error = %muster_base::ErrorChain(&error), "a connection ended early");
            continue;
        }
        let stream = TokioIo::new(Patient::new(stream, limits.write_timeout));
        let marker = connection.marker();
        let routes = TowerToHyperService::new(router.clone());
        let service = service_fn(move |request| {
            let busy = marker.busy();
            let answer = answer(&routes, request);
            async move { Ok::<_, Infallible>(answer.await?.map(|body| Answered { body, _busy: busy })) }
        });
        let served = graceful.watch(http.serve_connection(stream, service));
        tasks.spawn(async move {
            tokio::select! {
                served = served => if let Err(error) = served {
                    tracing::debug!(error = %muster_base::ErrorChain(&error), "a connection ended early");
                },
                () = connection.cut().cancelled_owned() => {
                    tracing::debug!(%client, "an idle connection was cut to make room");
                }
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
    while tasks.join_next().await.is_some() {}
}

/// Answers a request, and says so where the connection ends because of what is left of it.
fn answer(
    routes: &TowerToHyperService<Router>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Body>, Infallible>> + use<> {
    let (head, body) = request.into_parts();
    let (asked, rest) = Asked::new(body, &head.headers);
    let answer = routes.call(Request::from_parts(head, asked));
    async move {
        let mut answer = answer.await?;
        if !rest.read().await {
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(header::CONNECTION, close);
        }
        Ok(answer)
    }
}

/// Waits for room for a connection; `None` where its client has its share.
async fn room(connections: &Connections, client: IpAddr) -> Option<Connection> {
    loop {
        match connections.take(client) {
            Room::Here(connection) => return Some(connection),
            Room::ShareTaken => return None,
            Room::Full => connections.one_ended().await,
        }
    }
}

fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// The body of an answer: until its end, the connection's request is being answered.
struct Answered {
    body: Body,
    _busy: Busy,
}

impl hyper::body::Body for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
