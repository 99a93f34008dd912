//! An HTTP server on a free port of loopback.
//!
//! It runs in a thread of its own, so that a test may block.

use std::{
    future::poll_fn,
    net::TcpListener,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, runtime};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type AnyBody = BoxBody<Bytes, BoxError>;

pub(crate) fn boxed(body: Full<Bytes>) -> AnyBody {
    BoxBody::new(body.map_err(|never| match never {}))
}

/// A server that ends with this value, and with it every connection.
#[derive(Debug)]
pub(crate) struct HttpServer {
    endpoint: String,
    connections: Arc<AtomicUsize>,
    ended: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl HttpServer {
    /// Answers requests by `handle`, whose errors reset the connection.
    pub(crate) fn start<H, F, E>(name: &str, handle: H) -> HttpServer
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + Unpin + 'static,
        F: Future<Output = Result<Response<AnyBody>, E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let ended = CancellationToken::new();
        let connections = Arc::new(AtomicUsize::new(0));
        let (until, count) = (ended.clone(), Arc::clone(&connections));
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let runtime = runtime::Builder::new_current_thread().enable_all().build();
                runtime
                    .unwrap()
                    .block_on(accept(listener, handle, &count, until));
            })
            .unwrap();
        HttpServer {
            endpoint,
            connections,
            ended,
            thread: Some(thread),
        }
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Returns how many connections were made to the server.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.ended.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("the server at {} panicked", self.endpoint);
        }
    }
}

async fn accept<H, F, E>(
    listener: TcpListener,
    handle: H,
    connections_total: &AtomicUsize,
    ended: CancellationToken,
) where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Unpin + 'static,
    F: Future<Output = Result<Response<AnyBody>, E>> + Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = ended.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        // A client that has gone again is its own affair.
        if let Ok((stream, _)) = accepted {
            connections_total.fetch_add(1, Ordering::Relaxed);
            connections.spawn(serve(stream, handle.clone(), ended.clone()));
        }
    }
    connections.close();
    connections.wait().await;
}

async fn serve<H, F, E>(stream: TcpStream, handle: H, ended: CancellationToken)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Unpin + 'static,
    F: Future<Output = Result<Response<AnyBody>, E>> + Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    let handle = service_fn(move |request| {
        let answer: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(handle(request));
        answer
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), handle);
    let served = tokio::select! {
        () = ended.cancelled() => return,
        served = poll_fn(|context| connection.poll_without_shutdown(context)) => served,
    };
    if served.is_err() {
        let stream = connection.into_parts().io.into_inner();
        // The socket is closed by a reset. An error means that the client has closed it already.
        let _ = stream.set_zero_linger();
    }
}
