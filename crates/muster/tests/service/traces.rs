//! One trace from the client's span through both processes and back, in a collector's eyes; and
//! nothing but lost spans where there is no collector.

mod collector;

use std::process::Stdio;
use std::time::{Duration, Instant};

use muster_jobs::TraceParent;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use reqwest::multipart::Form;
use tempfile::TempDir;

use crate::support::{Answer, Service, jpeg, muster, read, samples, until};
use collector::{Collector, Conduct, RecordedSpan};

const NAME: &str = "Zephyrine Quillfeather";
const FILE: &str = "quillfeather-at-home.jpg";
/// By how much the two clocks that a stage's begin and end are made of may disagree.
const CLOCKS_NS: u64 = 1_000_000;

/// `muster up` that exports there, or nowhere; its log is in the folder, which is returned.
async fn traced(endpoint: Option<&str>, more: &[(&str, &str)]) -> (Service, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let mut command = muster();
    command.stderr(Stdio::from(log));
    for name in ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_SAMPLER"] {
        command.env_remove(name);
    }
    if let Some(endpoint) = endpoint {
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    }
    command.envs(more.iter().copied());
    let data = folder.path().join("data");
    // A worker that ends has its spans sent.
    let toml = "max_instances = 1\nidle_grace_s = 600.0";
    let service = Service::start_as(command, "up", &data, toml).await;
    (service, folder)
}

impl Service {
    /// Posts a photograph as part of a client's trace.
    async fn post_traced(&self, path: &str, photo: &[u8], trace: Option<TraceParent>) -> Answer {
        let form = Form::new().text("name", NAME);
        let form = match path {
            "/v1/people" => form,
            _ => Form::new(),
        };
        let form = form.part("image", jpeg(FILE, photo));
        let mut request = self.http.post(self.at(path)).multipart(form);
        if let Some(trace) = trace {
            request = request.header("traceparent", trace.to_string());
        }
        Answer::read(request.send().await.unwrap()).await
    }

    async fn stop(&mut self) {
        self.signal("-TERM");
        assert!(self.ends().await.success());
    }
}

/// The spans of one trace.
struct Trace(Vec<RecordedSpan>);

impl Trace {
    fn of(all: &[RecordedSpan], id: &str) -> Self {
        Self(all.iter().filter(|s| s.trace() == id).cloned().collect())
    }

    /// The one span that begins so, below that one.
    fn child(&self, parent: &str, name: &str) -> &RecordedSpan {
        let below = self.0.iter().filter(|s| s.parent() == parent);
        let found: Vec<_> = below.filter(|s| s.span.name.starts_with(name)).collect();
        assert_eq!(found.len(), 1, "{name} below {parent}: {:#?}", self.0);
        found[0]
    }
}

fn within(inner: &RecordedSpan, outer: &RecordedSpan) {
    let (name, outer) = (&inner.span.name, &outer.span);
    assert!(inner.nanoseconds() > 0, "{name} took time");
    let begun = inner.span.start_time_unix_nano + CLOCKS_NS;
    assert!(begun >= outer.start_time_unix_nano, "{name} in time");
    let ended = inner.span.end_time_unix_nano;
    assert!(ended <= outer.end_time_unix_nano + CLOCKS_NS, "{name} ends");
}

/// Follows a request from the exchange to the web tier's receipt of the reply; answers the worker's
/// span and the names of the stages below it.
fn follow(trace: &Trace, client: &str, route: &str, awaited: bool) -> (RecordedSpan, Vec<String>) {
    let server = trace.child(client, &format!("POST {route}"));
    assert_eq!(server.span.kind(), SpanKind::Server);
    assert_eq!(server.attributes["http.route"], route);
    assert_eq!(server.attributes["http.request.method"], "POST");
    let sent = trace.child(&server.id(), "send req-queue");
    assert_eq!(sent.span.kind(), SpanKind::Producer);
    assert_eq!(sent.attributes["messaging.destination.name"], "req-queue");
    within(sent, server);
    within(trace.child(&sent.id(), "store"), sent);
    let worked = trace.child(&sent.id(), "process req-queue");
    assert_eq!(worked.span.kind(), SpanKind::Consumer);
    let id = &worked.attributes["muster.request.id"];
    assert_eq!(&sent.attributes["muster.request.id"], id);
    assert!(worked.attributes.contains_key("muster.queue_ms"));
    let mut stages: Vec<_> = trace.0.iter().collect();
    stages.retain(|s| s.parent() == worked.id());
    stages.sort_by_key(|s| s.span.start_time_unix_nano);
    for stage in &stages {
        within(stage, worked);
        assert_eq!(stage.resource, worked.resource);
    }
    let reply = trace.child(&worked.id(), "send resp-queue-");
    assert_eq!(reply.span.kind(), SpanKind::Producer);
    let received = trace.child(&reply.id(), "process resp-queue-");
    assert_eq!(received.span.kind(), SpanKind::Consumer);
    assert_eq!(&received.attributes["muster.request.id"], id);
    if awaited {
        within(received, server);
    }
    // Two processes.
    assert_eq!(server.resource["service.name"], "muster-web");
    assert_eq!(worked.resource["service.name"], "muster-worker");
    assert!(worked.resource["service.instance.id"].starts_with("worker-"));
    assert_eq!(received.resource, server.resource);
    assert_ne!(
        server.resource["process.pid"],
        worked.resource["process.pid"]
    );
    for all in [server, worked] {
        assert_eq!(all.resource["deployment.environment.name"], "test");
    }
    // The web tier's receipt is not a stage.
    let names = stages.iter().map(|s| s.span.name.clone());
    (worked.clone(), names.collect())
}

#[tokio::test]
async fn one_trace_leads_from_the_clients_span_to_the_reply() {
    let Some(samples) = samples() else { return };
    let photos = &samples.people[0].1;
    let collector = Collector::start(Conduct::Take).await;
    let more = [
        // So long that only the end of each process brings its spans.
        ("OTEL_BSP_SCHEDULE_DELAY", "600000"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret"),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "deployment.environment.name=test",
        ),
    ];
    let (mut service, _folder) = traced(Some(&collector.endpoint), &more).await;
    let client = |trace, sampled| TraceParent::of_span(trace, 0x00f0_67aa_0ba9_02b7, sampled);
    let enrolled = service
        .post_traced("/v1/people", &read(&photos[0]), None)
        .await;
    assert_eq!(enrolled.status, 201, "{}", enrolled.text());
    let photo = read(&photos[1]);
    let recognized = service
        .post_traced("/v1/recognize", &photo, Some(client(1, true)))
        .await;
    assert_eq!(recognized.name(), NAME);
    let unsampled = service
        .post_traced("/v1/recognize", &photo, Some(client(2, false)))
        .await;
    assert_eq!(unsampled.name(), NAME);
    let refused = service
        .post_traced("/v1/recognize", b"no picture", Some(client(3, true)))
        .await;
    assert_eq!(refused.status, 415);
    let job = service
        .post_traced("/v1/jobs", &photo, Some(client(4, true)))
        .await;
    assert_eq!(job.status, 202, "{}", job.text());
    let job = service.at(job.headers["location"].to_str().unwrap());
    until("the job is done", async || {
        let answer = service.http.get(&job).send().await.unwrap();
        answer.json::<serde_json::Value>().await.unwrap()["state"] == "done"
    })
    .await;
    // The web tier may come to the job's reply after its result is there.
    until("the job's reply is taken", async || {
        service.status().await["requests"]["answered"] == 4
    })
    .await;
    assert_eq!(collector.posts(), 0, "nothing is due yet");
    service.stop().await;

    let seen = collector.seen();
    assert_eq!(collector.keys().len(), collector.posts());
    assert!(collector.keys().iter().all(|key| key == "secret"));
    let span = format!("{:016x}", client(1, true).span());
    let trace = |id: u128| Trace::of(&seen, &format!("{id:032x}"));
    let models = ["fetch", "decode", "detect", "align", "embed"];

    let (worked, stages) = follow(&trace(1), &span, "/v1/recognize", true);
    assert_eq!(stages[..5], models);
    assert_eq!(stages[5..7], ["match", "store"]);
    assert_eq!(worked.attributes["muster.outcome"], "recognized");
    let answer = recognized.json();
    assert_eq!(worked.attributes["muster.request.id"], answer["request_id"]);
    let detect = trace(1).child(&worked.id(), "detect").nanoseconds() as f64 / 1e6;
    let said = answer["timing_ms"]["detect"].as_f64().unwrap();
    assert!((detect - said).abs() < 0.01, "{detect} and {said} ms");

    assert_eq!(trace(2).0.len(), 0, "the client does not record this one");

    let refusal = trace(3);
    assert_eq!(refusal.0.len(), 1);
    let refusal = refusal.child(&span, "POST /v1/recognize");
    assert_eq!(refusal.attributes["http.response.status_code"], "415");
    // A client's mistake is no error of the server's.
    let status = refusal.span.status.as_ref().map(|status| status.code());
    assert_ne!(status, Some(StatusCode::Error));

    let (worked, stages) = follow(&trace(4), &span, "/v1/jobs", false);
    assert_eq!(stages[5..7], ["match", "store"]);
    assert_eq!(worked.attributes["muster.outcome"], "recognized");

    // Nobody's trace is one of its own.
    let mut own = seen.iter().filter(|s| s.span.name == "POST /v1/people");
    let own = own.next().unwrap();
    assert_eq!(own.parent(), "");
    let (worked, stages) = follow(&Trace::of(&seen, &own.trace()), "", "/v1/people", true);
    assert_eq!(stages[..5], models);
    assert!(
        stages[5].starts_with("send resp-queue-"),
        "nothing is stored"
    );
    assert_eq!(worked.attributes["muster.outcome"], "embedded");

    assert!(!seen.iter().any(|s| s.span.name.contains("/readyz")));
    let all = format!("{seen:?}");
    for private in [NAME, "Quillfeather", "quillfeather", FILE] {
        assert!(!all.contains(private), "{private} is in a span");
    }
}

#[tokio::test]
async fn nothing_is_sent_where_it_is_off() {
    let Some(samples) = samples() else { return };
    let collector = Collector::start(Conduct::Take).await;
    let off = [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
    ];
    let (mut service, _folder) = traced(Some(&collector.endpoint), &off).await;
    let photo = read(&samples.people[0].1[0]);
    let trace = TraceParent::of_span(1, 1, true);
    let answer = service
        .post_traced("/v1/recognize", &photo, Some(trace))
        .await;
    assert_eq!(answer.name(), "unknown");
    service.stop().await;
    assert_eq!(collector.posts(), 0);
}

#[tokio::test]
async fn a_collector_that_is_away_costs_nothing_but_spans() {
    let Some(samples) = samples() else { return };
    let photo = read(&samples.people[0].1[0]);
    let refusing = Collector::start(Conduct::Refuse).await;
    let hanging = Collector::start(Conduct::Hang).await;
    for (endpoint, collector, said) in [
        // Nothing listens there.
        ("http://127.0.0.1:1", None, "onnection refused"),
        (&refusing.endpoint, Some(&refusing), "it answers 400"),
        (&hanging.endpoint, Some(&hanging), ""),
    ] {
        let often = [("OTEL_BSP_SCHEDULE_DELAY", "20")];
        let (mut service, folder) = traced(Some(endpoint), &often).await;
        for _ in 0..3 {
            let answer = service.post_traced("/v1/recognize", &photo, None).await;
            assert_eq!(answer.name(), "unknown");
        }
        if let (Some(collector), false) = (collector, said.is_empty()) {
            until("more than one export has failed", async || {
                service.post_traced("/v1/recognize", &photo, None).await;
                collector.posts() > 4
            })
            .await;
        }
        let told = || {
            let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
            let lines = log
                .lines()
                .filter(|line| line.contains("can not be exported"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        if !said.is_empty() {
            until("both processes have said so", async || told().len() >= 2).await;
        }
        let begun = Instant::now();
        service.stop().await;
        assert!(begun.elapsed() < Duration::from_secs(15), "{endpoint}");
        if !said.is_empty() {
            let told = told();
            assert_eq!(told.len(), 2, "each process says it once: {told:#?}");
            assert!(told.iter().all(|line| line.contains(said)), "{told:#?}");
        }
    }
}
