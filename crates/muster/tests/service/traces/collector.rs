//! A small collector: takes OTLP in protobuf over HTTP, and keeps what it got.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::task::JoinHandle;

/// What it does with what it is sent.
#[derive(Clone, Copy)]
pub enum Conduct {
    Take,
    Refuse,
    /// Never answers.
    Hang,
}

/// A span with what its process says of itself.
#[derive(Clone, Debug)]
pub struct RecordedSpan {
    pub span: Span,
    pub resource: BTreeMap<String, String>,
    pub attributes: BTreeMap<String, String>,
}

impl RecordedSpan {
    pub fn trace(&self) -> String {
        hex(&self.span.trace_id)
    }

    pub fn id(&self) -> String {
        hex(&self.span.span_id)
    }

    pub fn parent(&self) -> String {
        hex(&self.span.parent_span_id)
    }

    pub fn nanoseconds(&self) -> u64 {
        self.span.end_time_unix_nano - self.span.start_time_unix_nano
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Listens until it is dropped.
pub struct Collector {
    pub endpoint: String,
    inner: Arc<Inner>,
    serving: JoinHandle<()>,
}

struct Inner {
    conduct: Conduct,
    posts: AtomicUsize,
    seen: Mutex<Vec<RecordedSpan>>,
    keys: Mutex<Vec<String>>,
}

impl Collector {
    pub async fn start(conduct: Conduct) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let inner = Arc::new(Inner {
            conduct,
            posts: AtomicUsize::new(0),
            seen: Mutex::default(),
            keys: Mutex::default(),
        });
        let router = Router::new()
            .route("/v1/traces", post(take))
            .with_state(Arc::clone(&inner));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            endpoint,
            inner,
            serving,
        }
    }

    /// Exports so far, taken or not.
    pub fn posts(&self) -> usize {
        self.inner.posts.load(Ordering::Relaxed)
    }

    /// Spans so far.
    pub fn seen(&self) -> Vec<RecordedSpan> {
        self.inner.seen.lock().unwrap().clone()
    }

    /// What the exports had in the header `x-key`.
    pub fn keys(&self) -> Vec<String> {
        self.inner.keys.lock().unwrap().clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn take(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    inner.posts.fetch_add(1, Ordering::Relaxed);
    match inner.conduct {
        Conduct::Take => {}
        Conduct::Refuse => return StatusCode::BAD_REQUEST,
        Conduct::Hang => std::future::pending().await,
    }
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let key = headers
        .get("x-key")
        .map(|key| key.to_str().unwrap().to_owned());
    inner.keys.lock().unwrap().extend(key);
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    for group in request.resource_spans {
        let resource = texts(&group.resource.unwrap().attributes);
        for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            inner.seen.lock().unwrap().push(RecordedSpan {
                attributes: texts(&span.attributes),
                resource: resource.clone(),
                span,
            });
        }
    }
    StatusCode::OK
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{}: {other:?}", attribute.key),
    };
    attributes
        .iter()
        .map(|attribute| (attribute.key.clone(), text(attribute).unwrap()))
        .collect()
}
