//! `GET /metrics`, in Prometheus's text format.
//!
//! Queue, fleet and gallery are read when somebody asks.

use std::fmt;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use muster_fleet::{Activity, BUCKET_BOUNDS_S, DurationHistogram};
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Metric, Registry};

use crate::metrics::{Label, Metrics};
use crate::observe::observer::{Observation, Observer};

/// What a metric's name begins with.
const PREFIX: &str = "muster";
/// Prometheus's text format.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
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
pub async fn metrics(State(observer): State<Observer>, State(metrics): State<Metrics>) -> Response {
    let observation = observer.observe().await;
    let text = Exposition::of(&observer, &metrics, &observation).text();
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}

/// The metrics of one scrape.
struct Exposition(Registry);

impl Exposition {
    fn of(observer: &Observer, metrics: &Metrics, observation: &Observation) -> Self {
        let mut page = Self(Registry::with_prefix(PREFIX));
        let model = observation
            .gallery
            .as_ref()
            .map(|(.., model)| model.clone());
        page.replica(observer, metrics, model.unwrap_or_default());
        page.queue(observer, observation);
        if let Ok(fleet) = &observation.fleet {
            page.fleet(fleet);
            page.activity(&fleet.report.activity, metrics.price_per_hour);
        }
        if let Ok((people, faces, version, _)) = &observation.gallery {
            page.gauge("gallery_people", "People enrolled", *people as f64);
            page.gauge("gallery_faces", "Faces enrolled", *faces as f64);
            page.gauge(
                "gallery_version",
                "Changes that led to the gallery",
                *version as f64,
            );
        }
        let reachable = [
            (
                "queue",
                observation.requests.is_ok() && observation.dead.is_ok(),
            ),
            ("status", observation.fleet.is_ok()),
            ("gallery", observation.gallery.is_ok()),
        ];
        page.gauges(
            "reachable",
            "Whether the queue, the fleet's status and the gallery answered this scrape",
            "part",
            reachable.map(|(part, is)| (part, f64::from(u8::from(is)))),
        );
        page
    }

    fn replica(&mut self, observer: &Observer, metrics: &Metrics, model: String) {
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
            observer.started.elapsed().as_secs_f64(),
        );
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
        let counts = observer.dispatcher.counts();
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        self.counters(
            "requests",
            "Photographs: accepted, and of those answered, or failed (timed out, given up by the \
             client, or Muster's fault)",
            "outcome",
            [
                ("accepted", count(&counts.accepted) as f64),
                ("answered", count(&counts.answered) as f64),
                ("failed", count(&counts.failed) as f64),
            ],
        );
        self.gauge(
            "waiting_requests",
            "Photographs whose client waits for the answer",
            observer.dispatcher.waiting() as f64,
        );
        let spent = [
            ("web", muster_base::cpu::beside_models()),
            ("workers", Some(counts.workers_io())),
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

    fn queue(&mut self, observer: &Observer, observation: &Observation) {
        if let Ok(requests) = &observation.requests {
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
        if let Ok(dead) = &observation.dead {
            self.gauge(
                "dead_letters",
                "Requests that were set aside",
                (dead.visible + dead.in_flight) as f64,
            );
        }
        let oldest = observer.dispatcher.oldest().unwrap_or_default();
        self.gauge(
            "oldest_request_age_seconds",
            "The age of the oldest unanswered request of this replica; 0 without one",
            oldest.as_secs_f64(),
        );
    }

    fn fleet(&mut self, fleet: &muster_fleet::FleetStatus) {
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
        if let Some(cost) = report.cost {
            self.gauge(
                "fleet_dollars_per_hour",
                "What the workers that are there cost an hour at price_per_hour",
                cost.dollars_per_hour,
            );
            self.gauge(
                "fleet_dollars_today",
                "What workers have cost since midnight (UTC), with what is billed for each at least",
                cost.dollars_today,
            );
            for (name, help, limit) in [
                (
                    "fleet_max_dollars_per_hour",
                    "What the workers that are there may cost an hour",
                    cost.max_dollars_per_hour,
                ),
                (
                    "fleet_max_dollars_per_day",
                    "What the workers of a day (UTC) may cost",
                    cost.max_dollars_per_day,
                ),
            ] {
                if let Some(limit) = limit {
                    self.gauge(name, help, limit);
                }
            }
        }
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
struct Observed(DurationHistogram);

impl EncodeMetric for Observed {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        let bounds = BUCKET_BOUNDS_S.into_iter().chain([f64::INFINITY]);
        let classes: Vec<_> = bounds.zip(self.0.buckets).collect();
        encoder.encode_histogram::<NoLabelSet>(self.0.sum_s, self.0.count(), &classes, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}
