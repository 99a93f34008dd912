//! Traces: one for each request, from its upload through the queue and the worker to the reply.
//!
//! Off unless an OTLP endpoint is set: a [`Span`] is then no more than the context that is handed on
//! with the messages. Names and attributes are those of OpenTelemetry's semantic conventions, and
//! Muster's own begin with `muster.`; none holds anything of a photograph, a file's name, a person
//! or an embedding.

mod export;

use std::time::{Duration, Instant, SystemTime};

use http::Method;
use muster_jobs::{Attributes, RequestId, TraceParent};
use muster_queue::Received;
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags,
    TraceId, TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Context, InstrumentationScope, Key, KeyValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span as Recorded};

use crate::settings::{QueueKind, TraceSettings};

/// How long the end of a process waits for its last spans to be taken.
const FLUSH: Duration = Duration::from_secs(2);
/// What load balancers and Prometheus ask again and again: no trace is begun for it.
const PROBES: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
/// What `service.name` begins with where the operator has set none.
const UNNAMED: &str = "unknown_service";

/// Records spans, where that is on. Cheap to clone.
#[derive(Clone, Default)]
pub struct Traces {
    recorder: Option<Recorder>,
}

#[derive(Clone)]
struct Recorder {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
    /// The convention's name for the queues' kind.
    system: &'static str,
}

/// A span under way, recorded or not; it ends when this is dropped.
pub struct Span {
    recorded: Option<Recorded>,
    context: TraceParent,
}

impl Traces {
    /// Records what this process does, where the settings or OpenTelemetry's variables name an
    /// endpoint.
    ///
    /// # Errors
    /// Names the setting or the variable that can not be used.
    pub fn start(
        settings: &TraceSettings,
        queues: QueueKind,
        service: &str,
        instance: &str,
    ) -> anyhow::Result<Self> {
        let Some(exporter) = export::exporter(settings)? else {
            return Ok(Self::default());
        };
        let provider = SdkTracerProvider::builder()
            .with_resource(resource(service, instance))
            .with_batch_exporter(exporter)
            .build();
        let scope = InstrumentationScope::builder("muster")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        Ok(Self {
            recorder: Some(Recorder {
                tracer: provider.tracer_with_scope(scope),
                provider,
                system: match queues {
                    QueueKind::Local => "sqlite",
                    QueueKind::Sqs => "aws_sqs",
                },
            }),
        })
    }

    /// Sends what is left, waiting for two seconds at most; what begins later is not recorded.
    pub async fn stop(&self) {
        let Some(Recorder { provider, .. }) = self.recorder.clone() else {
            return;
        };
        let flushed = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH));
        if let Ok(Err(error)) = flushed.await {
            tracing::warn!(%error, "the last spans could not be exported");
        }
    }

    /// An HTTP exchange: continues its client's trace, or begins one.
    pub fn server(
        &self,
        client: Option<TraceParent>,
        method: &Method,
        route: Option<&str>,
    ) -> Span {
        let probe = route.is_some_and(|route| PROBES.contains(&route));
        match &self.recorder {
            Some(recorder) if !probe => {
                // Whatever a client made up is one value: the conventions keep these few.
                let method = match method {
                    &Method::GET | &Method::POST | &Method::PATCH | &Method::DELETE => {
                        method.to_string()
                    }
                    &Method::HEAD | &Method::OPTIONS | &Method::PUT => method.to_string(),
                    _ => "_OTHER".to_owned(),
                };
                let name = match route {
                    Some(route) => format!("{method} {route}"),
                    None => method.clone(),
                };
                let mut attributes = vec![
                    KeyValue::new("http.request.method", method),
                    KeyValue::new("url.scheme", "http"),
                ];
                if let Some(route) = route {
                    // The path itself may hold what a client calls something.
                    attributes.push(KeyValue::new("http.route", route.to_owned()));
                    attributes.push(KeyValue::new("url.path", route.to_owned()));
                }
                let builder = SpanBuilder::from_name(name)
                    .with_kind(SpanKind::Server)
                    .with_attributes(attributes);
                recorder.begin(client, true, builder)
            }
            _ => Span::unrecorded(client.map_or_else(TraceParent::new, TraceParent::child)),
        }
    }

    /// A message on its way to a queue, from being made to being there.
    pub fn send(&self, parent: TraceParent, queue: &str, id: RequestId) -> Span {
        self.below(parent, false, |recorder| {
            recorder
                .message("send", queue, id)
                .with_kind(SpanKind::Producer)
        })
    }

    /// A message in hand; `parent` is what its sender said.
    pub fn process(
        &self,
        parent: TraceParent,
        queue: &str,
        id: RequestId,
        message: &Received,
    ) -> Span {
        let mut span = self.below(parent, true, |recorder| {
            recorder
                .message("process", queue, id)
                .with_kind(SpanKind::Consumer)
        });
        if span.recorded.is_some() {
            span.set("messaging.message.id", message.id.as_str().to_owned());
            span.set("muster.receive_count", i64::from(message.receive_count));
        }
        span
    }

    /// A part of what `parent` does that took so long and has just ended.
    pub fn stage(&self, parent: TraceParent, name: &'static str, length: Duration) {
        self.stages(parent, Instant::now(), [(name, length)]);
    }

    /// Parts that followed upon each other, the last of which ended then. One that took no time was
    /// not there.
    pub fn stages<const N: usize>(
        &self,
        parent: TraceParent,
        ended: Instant,
        stages: [(&'static str, Duration); N],
    ) {
        if self.recorder.is_none() || !parent.is_sampled() {
            return;
        }
        let mut end = SystemTime::now() - ended.elapsed();
        for (name, length) in stages.into_iter().rev() {
            let begin = end - length;
            if !length.is_zero() {
                let mut span = self.below(parent, false, |_| {
                    SpanBuilder::from_name(name)
                        .with_kind(SpanKind::Internal)
                        .with_start_time(begin)
                });
                span.end_at(end);
            }
            end = begin;
        }
    }

    /// A span below another, where that is recorded.
    fn below(
        &self,
        parent: TraceParent,
        remote: bool,
        build: impl FnOnce(&Recorder) -> SpanBuilder,
    ) -> Span {
        match &self.recorder {
            Some(recorder) if parent.is_sampled() => {
                recorder.begin(Some(parent), remote, build(recorder))
            }
            _ => Span::unrecorded(parent),
        }
    }
}

impl Recorder {
    /// Begins a span, where the sampler says so.
    fn begin(&self, parent: Option<TraceParent>, remote: bool, builder: SpanBuilder) -> Span {
        let context = match parent {
            None => Context::new(),
            Some(parent) => Context::new().with_remote_span_context(SpanContext::new(
                TraceId::from(parent.trace()),
                SpanId::from(parent.span()),
                TraceFlags::default().with_sampled(parent.is_sampled()),
                remote,
                TraceState::NONE,
            )),
        };
        let span = self.tracer.build_with_context(builder, &context);
        let made = span.span_context();
        if !made.is_valid() {
            // The recorder has been stopped.
            return Span::unrecorded(parent.unwrap_or_else(TraceParent::new));
        }
        let context = TraceParent::of_span(
            u128::from_be_bytes(made.trace_id().to_bytes()),
            u64::from_be_bytes(made.span_id().to_bytes()),
            made.is_sampled(),
        );
        Span {
            recorded: span.is_recording().then_some(span),
            context,
        }
    }

    fn message(&self, operation: &'static str, queue: &str, id: RequestId) -> SpanBuilder {
        SpanBuilder::from_name(format!("{operation} {queue}")).with_attributes(vec![
            KeyValue::new("messaging.system", self.system),
            KeyValue::new("messaging.operation.name", operation),
            KeyValue::new("messaging.operation.type", operation),
            KeyValue::new("messaging.destination.name", queue.to_owned()),
            KeyValue::new("muster.request.id", id.to_string()),
        ])
    }
}

impl Span {
    fn unrecorded(context: TraceParent) -> Self {
        Self {
            recorded: None,
            context,
        }
    }

    /// What is handed on; where nothing is recorded, what was handed over.
    pub fn context(&self) -> TraceParent {
        self.context
    }

    /// What a message carries of it; nothing where it is not recorded.
    pub fn attributes(&self) -> Attributes {
        self.recorded
            .iter()
            .map(|_| self.context.to_attribute())
            .collect()
    }

    /// Says more about it.
    pub fn set(&mut self, key: impl Into<Key>, value: impl Into<Value>) {
        if let Some(span) = &mut self.recorded {
            span.set_attribute(KeyValue::new(key, value));
        }
    }

    /// Says that it failed, and how: one of few words or codes.
    pub fn fail(&mut self, kind: impl Into<Value>) {
        self.set("error.type", kind);
        if let Some(span) = &mut self.recorded {
            span.set_status(Status::error(""));
        }
    }

    fn end_at(&mut self, end: SystemTime) {
        if let Some(span) = &mut self.recorded {
            span.end_with_timestamp(end);
        }
    }
}

/// What all spans of this process have in common.
fn resource(service: &str, instance: &str) -> Resource {
    // It has read OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES.
    let given = Resource::builder().build();
    let name = given.get(&Key::from_static_str("service.name"));
    let named = name.is_some_and(|name| !name.as_str().starts_with(UNNAMED));
    let mut resource = Resource::builder().with_attributes([
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", instance.to_owned()),
        KeyValue::new("process.pid", i64::from(std::process::id())),
    ]);
    if !named {
        resource = resource.with_service_name(service.to_owned());
    }
    resource.build()
}

#[cfg(test)]
mod tests;
