//! What this replica measures while it works.
//!
//! What happens to photographs is counted where it happens. No label has a value that a client chose.

use std::fmt;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use muster_jobs::{Decision, FaceReport, Outcome, Purpose, TimingMs};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

/// Upper bounds of the classes of requests, in seconds.
const REQUEST_BOUNDS_S: [f64; 13] = [
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0,
];
/// Upper bounds of the classes of stages, in seconds: most take milliseconds, waiting may take long.
const STAGE_BOUNDS_S: [f64; 13] = [
    0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0,
];

/// A label and its value.
pub type Label = (&'static str, &'static str);
/// A route, a method and a status. Routes are those of the router's table.
type Call = [(&'static str, String); 3];
type Histograms = Family<[Label; 1], Histogram, fn() -> Histogram>;

/// What this replica counts while it works. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    /// HTTP calls by route, method and status.
    pub calls: Family<Call, Counter>,
    /// Latencies by purpose.
    pub requests: Histograms,
    /// Times by stage.
    pub stages: Histograms,
    /// Faces by decision.
    pub faces: Family<[Label; 1], Counter>,
    /// What an instance costs an hour, in US dollars.
    pub price_per_hour: Option<f64>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Metrics at zero.
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

    /// Records an answer and its latency.
    pub fn answered(&self, purpose: Purpose, latency: Duration) {
        let purpose = match purpose {
            Purpose::Recognize => RECOGNIZE,
            Purpose::Embed { .. } => ENROL,
        };
        let requests = self.requests.get_or_create(&[("purpose", purpose)]);
        requests.observe(latency.as_secs_f64());
    }

    /// Records a worker's stages and decisions.
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
pub async fn count(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
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
    metrics.calls.get_or_create(&call).inc();
    response
}
