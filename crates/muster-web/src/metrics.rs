//! `GET /metrics`: how the service fares, for Prometheus.
//!
//! What happens to photographs is counted where it happens; queue, fleet and gallery are looked at
//! when somebody asks. No label has a value that a client chose.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use muster_fleet::{Activity, BOUNDS_S, Durations};
use muster_jobs::{Decision, FaceReport, Outcome, Purpose, TimingMs};
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use super::status::{Look, look};
use super::{App, AppState};

/// What a metric's name begins with.
const PREFIX: &str = "muster";
/// Prometheus's text format.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Upper bounds of the classes of requests, in seconds.
const REQUEST_BOUNDS_S: [f64; 13] = [
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0,
];
/// Upper bounds of the classes of stages, in seconds: most take milliseconds, waiting may take long.
const STAGE_BOUNDS_S: [f64; 13] = [
    0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0,
];

/// A label and its value.
type Label = (&'static str, &'static str);
/// A route, a method and a status. Routes are those of the router's table.
type Call = [(&'static str, String); 3];
type Histograms = Family<[Label; 1], Histogram, fn() -> Histogram>;

/// What this replica counts while it works. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    calls: Family<Call, Counter>,
    requests: Histograms,
    stages: Histograms,
    faces: Family<[Label; 1], Counter>,
    /// What an instance costs an hour, in US dollars.
    price_per_hour: Option<f64>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Nothing has happened yet.
    pub fn new(price_per_hour: Option<f64>) -> Self {
        let metrics = Self {
            calls: Family::default(),
            requests: Family::new_with_constructor(|| Histogram::new(REQUEST_BOUNDS_S)),
            stages: Family::new_with_constructor(|| Histogram::new(STAGE_BOUNDS_S)),
            faces: Family::default(),
            price_per_hour,
        };
        // What never happened is zero, and not unknown.
        for purpose in [RECOGNIZE, ENROL] {
            let _ = metrics.requests.get_or_create(&[("purpose", purpose)]);
        }
        for (stage, _) in stages(&TimingMs::default()) {
            let _ = metrics.stages.get_or_create(&[("stage", stage)]);
        }
        for decision in [Decision::Match, Decision::Unknown, Decision::Ambiguous] {
            let _ = metrics.faces.get_or_create(&[decided(decision)]);
        }
        metrics
    }

    /// Takes note of an answer that a client waited for so long.
    pub fn answered(&self, purpose: Purpose, latency: Duration) {
        let purpose = match purpose {
            Purpose::Recognize => RECOGNIZE,
            Purpose::Embed { .. } => ENROL,
        };
        let requests = self.requests.get_or_create(&[("purpose", purpose)]);
        requests.observe(latency.as_secs_f64());
    }

    /// Takes note of what a worker made of a photograph.
    pub fn worked(&self, outcome: &Outcome) {
        let Outcome::Recognized(recognition) = outcome else {
            return;
        };
        for (stage, milliseconds) in stages(&recognition.timing_ms) {
            let stage = self.stages.get_or_create(&[("stage", stage)]);
            stage.observe(milliseconds / 1e3);
        }
        for FaceReport { decision, .. } in &recognition.faces {
            self.faces.get_or_create(&[decided(*decision)]).inc();
        }
    }
}

const RECOGNIZE: &str = "recognize";
const ENROL: &str = "enroll";

fn decided(decision: Decision) -> Label {
    let decision = match decision {
        Decision::Match => "match",
        Decision::Unknown => "unknown",
        Decision::Ambiguous => "ambiguous",
    };
    ("decision", decision)
}

/// The stages of a photograph's way, in milliseconds each.
fn stages(timing: &TimingMs) -> [(&'static str, f64); 8] {
    [
        ("queue", timing.queue),
        ("fetch", timing.fetch),
        ("decode", timing.decode),
        ("detect", timing.detect),
        ("align", timing.align),
        ("embed", timing.embed),
        ("match", timing.match_),
        ("store", timing.store),
    ]
}

/// Counts the calls of each route.
pub async fn count(State(app): AppState, request: Request, next: Next) -> Response {
    let route = match request.extensions().get::<MatchedPath>() {
        Some(path) => path.as_str().to_owned(),
        None => "none".to_owned(),
    };
    // Anybody may make up a method.
    let method = match request.method().as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PATCH" | "DELETE" | "OPTIONS") => known.to_owned(),
        _ => "other".to_owned(),
    };
    let response = next.run(request).await;
    let status = response.status().as_str().to_owned();
    let call = [("route", route), ("method", method), ("status", status)];
    app.metrics.calls.get_or_create(&call).inc();
    response
}

/// Say how the service fares, for Prometheus
///
/// `muster_http_*`, `muster_request_*`, `muster_stage_*`, `muster_faces_*`, `muster_cpu_*` and
/// `muster_store_failures_total` are this web replica's own; the rest is the deployment's, and every
/// replica tells the same. What does not answer is left out, and `muster_reachable` says so.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "service",
    responses((
        status = 200,
        description = "Prometheus's text format, version 0.0.4.",
        body = String,
        content_type = "text/plain",
    ))
)]
pub async fn metrics(State(app): AppState) -> Response {
    let look = look(&app).await;
    let text = Page::of(&app, &look).text();
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}

/// The metrics of one scrape.
struct Page(Registry);

impl Page {
    fn of(app: &App, look: &Look) -> Self {
        let mut page = Self(Registry::with_prefix(PREFIX));
        let model = look.gallery.as_ref().map(|(.., model)| model.clone());
        page.replica(app, model.unwrap_or_default());
        page.queue(app, look);
        if let Ok(fleet) = &look.fleet {
            page.fleet(fleet);
            page.activity(&fleet.report.activity, app.metrics.price_per_hour);
        }
        if let Ok((people, faces, version, _)) = &look.gallery {
            page.gauge("gallery_people", "People enrolled", *people as f64);
            page.gauge("gallery_faces", "Faces enrolled", *faces as f64);
            page.gauge(
                "gallery_version",
                "Changes that led to the gallery",
                *version as f64,
            );
        }
        let reachable = [
            ("queue", look.requests.is_ok() && look.dead.is_ok()),
            ("status", look.fleet.is_ok()),
            ("gallery", look.gallery.is_ok()),
        ];
        page.gauges(
            "reachable",
            "Whether the queue, the fleet's status and the gallery answered this scrape",
            "part",
            reachable.map(|(part, is)| (part, f64::from(u8::from(is)))),
        );
        page
    }

    fn replica(&mut self, app: &App, model: String) {
        let build =
            Family::<[(&'static str, String); 2], ConstGauge<f64>>::new_with_constructor(|| {
                ConstGauge::new(1.0)
            });
        let _ = build.get_or_create(&[
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("model", model),
        ]);
        self.add(
            "build_info",
            "Muster's version and the embedder that faces are matched by",
            build,
        );
        self.gauge(
            "uptime_seconds",
            "How long this web replica has been up",
            app.started.elapsed().as_secs_f64(),
        );
        let metrics = &app.metrics;
        self.add(
            "http_requests",
            "HTTP requests by route and status",
            metrics.calls.clone(),
        );
        self.add(
            "request_duration_seconds",
            "From a photograph's submission to its answer",
            metrics.requests.clone(),
        );
        self.add(
            "stage_duration_seconds",
            "What recognised photographs spent in each stage",
            metrics.stages.clone(),
        );
        self.add(
            "faces",
            "Faces found, by what was decided of them",
            metrics.faces.clone(),
        );
        let ledger = app.dispatcher.ledger();
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        self.counters(
            "requests",
            "Photographs: accepted, and of those answered, or failed (timed out, given up by the \
             client, or Muster's fault)",
            "outcome",
            [
                ("accepted", count(&ledger.accepted) as f64),
                ("answered", count(&ledger.answered) as f64),
                ("failed", count(&ledger.failed) as f64),
            ],
        );
        self.gauge(
            "waiting_requests",
            "Photographs whose client waits for the answer",
            app.dispatcher.waiting() as f64,
        );
        let spent = [
            ("web", muster_base::cpu::beside_models()),
            ("workers", Some(ledger.workers_io())),
        ];
        let spent = spent
            .into_iter()
            .filter_map(|(part, spent)| Some((part, spent?.as_secs_f64())));
        self.counters(
            "cpu_seconds",
            "Processor time outside the models: storage, queues, messages and HTTP",
            "part",
            spent,
        );
        self.counters(
            "store_failures",
            "Failures of stores and queues, by what they mean",
            "kind",
            muster_base::aws::failures().map(|(kind, count)| (kind, count as f64)),
        );
    }

    fn queue(&mut self, app: &App, look: &Look) {
        if let Ok(requests) = &look.requests {
            self.gauges(
                "queue_messages",
                "Requests on the queue: visible ones wait for a worker, a worker has those in flight",
                "state",
                [
                    ("visible", requests.visible as f64),
                    ("in_flight", requests.in_flight as f64),
                ],
            );
        }
        if let Ok(dead) = &look.dead {
            self.gauge(
                "dead_letters",
                "Requests that were set aside",
                (dead.visible + dead.in_flight) as f64,
            );
        }
        let oldest = app.dispatcher.oldest().unwrap_or_default();
        self.gauge(
            "oldest_request_age_seconds",
            "The age of the oldest unanswered request of this replica; 0 without one",
            oldest.as_secs_f64(),
        );
    }

    fn fleet(&mut self, fleet: &muster_base::fleet_status::FleetStatus) {
        let report = &fleet.report;
        self.gauges(
            "fleet_instances",
            "Recognition workers by state",
            "state",
            [
                ("pending", f64::from(report.pending)),
                ("running", f64::from(report.running)),
                ("draining", f64::from(report.draining)),
            ],
        );
        self.gauge(
            "fleet_min_instances",
            "Workers kept without work",
            f64::from(report.min),
        );
        self.gauge(
            "fleet_max_instances",
            "Workers never exceeded",
            f64::from(report.max),
        );
        self.gauge(
            "controller_last_seen_timestamp_seconds",
            "When the controller last published, since the Unix epoch; 0 where none ever did",
            fleet.observed_at_ms as f64 / 1e3,
        );
    }

    fn activity(&mut self, activity: &Activity, price_per_hour: Option<f64>) {
        self.counters(
            "plans",
            "The controller's plans: those that launched, drained, or left the fleet as it was",
            "decision",
            [
                ("launch", activity.plans.launch as f64),
                ("drain", activity.plans.drain as f64),
                ("hold", activity.plans.hold as f64),
            ],
        );
        self.counter(
            "fleet_launches",
            "Workers launched",
            activity.launched as f64,
        );
        self.counters(
            "fleet_launch_failures",
            "Launches that were refused, and workers that ended before they were ready",
            "kind",
            [
                ("refused", activity.failed_launches as f64),
                ("start", activity.failed_starts as f64),
            ],
        );
        self.counter(
            "fleet_drains",
            "Workers told to drain",
            activity.drained as f64,
        );
        self.counter(
            "fleet_instance_seconds",
            "The time that workers were there, each counted",
            activity.instance_s,
        );
        if let Some(price) = price_per_hour {
            self.counter(
                "fleet_cost_dollars",
                "What that cost at price_per_hour: an estimate",
                activity.instance_s / 3600.0 * price,
            );
        }
        self.add(
            "fleet_boot_seconds",
            "From a worker's launch until it was ready",
            Observed(activity.boots.clone()),
        );
        self.add(
            "scale_out_seconds",
            "From a launch until nothing was starting any more",
            Observed(activity.scale_outs.clone()),
        );
        self.add(
            "scale_in_seconds",
            "From the last answer until the fleet was down to its minimum",
            Observed(activity.scale_ins.clone()),
        );
    }

    fn add(&mut self, name: &str, help: &str, metric: impl Metric) {
        self.0.register(name, help, metric);
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.add(name, help, ConstGauge::new(value));
    }

    fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.add(name, help, ConstCounter::new(value));
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'static str, f64)>,
    ) {
        let values = values.into_iter();
        let metrics = values.map(|(value, metric)| ((label, value), ConstGauge::new(metric)));
        self.add(name, help, Each(metrics.collect()));
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'static str, f64)>,
    ) {
        let values = values.into_iter();
        let metrics = values.map(|(value, metric)| ((label, value), ConstCounter::new(metric)));
        self.add(name, help, Each(metrics.collect()));
    }

    fn text(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::prometheus_text::encode(&mut text, &self.0)
            .expect("a string takes everything");
        text
    }
}

/// One metric for each value of a label.
#[derive(Debug)]
struct Each<M>(Vec<(Label, M)>);

impl<M: EncodeMetric> EncodeMetric for Each<M> {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        for (label, metric) in &self.0 {
            metric.encode(encoder.encode_family(&[*label])?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        match self.0.first() {
            Some((_, metric)) => metric.metric_type(),
            None => MetricType::Unknown,
        }
    }
}

/// Durations that the controller has sorted into classes.
#[derive(Debug)]
struct Observed(Durations);

impl EncodeMetric for Observed {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        let bounds = BOUNDS_S.into_iter().chain([f64::INFINITY]);
        let classes: Vec<_> = bounds.zip(self.0.classes).collect();
        encoder.encode_histogram::<NoLabelSet>(self.0.sum_s, self.0.count(), &classes, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}
