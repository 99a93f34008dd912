//! `GET /v1/events`: how the service fares, live, as server-sent events.
//!
//! One sampler serves all viewers, and only while there are any. The samples of the last minutes are
//! kept, so that a page that is opened shows them at once. Without viewers nothing is sampled, since a
//! sample costs reads of the queue and of the object store.

use std::convert::Infallible;
use std::future::ready;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Context;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use muster_api::events::{
    Backlog, FleetNow, History, InstanceNow, Latency, Reason, Requests, Sample, Trouble,
};
use muster_jobs::now_ms;
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::guard::Access;
use crate::dispatch::dispatcher::Dispatcher;
use crate::observe::instances::instance;
use muster_base::api_keys::Scope;
use muster_base::aws;
use muster_base::backend::Backend;
use muster_base::fleet_status;
use muster_fleet::FleetStatus;

/// Time between two samples while there is work or a fleet.
const BUSY: Duration = Duration::from_millis(250);
/// Time between two samples otherwise, and wherever a sample is paid for.
const IDLE: Duration = Duration::from_secs(1);
/// How far back a new viewer can see.
const KEPT: Duration = Duration::from_secs(300);
/// How many of the planner's reasons are kept.
const REASONS: usize = 40;
/// Latencies are of the answers within this time.
const LATENCY_SPAN: Duration = Duration::from_secs(10);
/// What viewers are told where there is no sample.
const TROUBLE: &str = "the queue or the store does not answer; Muster's log says why, and what is \
                       shown is from before";
/// How often it is asked whether a viewer's API key still lets them see.
const KEY_INTERVAL: Duration = Duration::from_secs(10);
/// Samples that a viewer may be behind; one that is further behind misses some.
const BEHIND: usize = 8;

/// Adds a sample, and forgets what is too old.
fn push(history: &mut History, sample: &Sample) {
    let oldest = sample.at_ms.saturating_sub(KEPT.as_millis() as u64);
    while history.at_ms.front().is_some_and(|at| *at < oldest) {
        history.at_ms.pop_front();
        history.visible.pop_front();
        history.in_flight.pop_front();
        history.pending.pop_front();
        history.running.pop_front();
        history.draining.pop_front();
        history.answered.pop_front();
        history.p50.pop_front();
        history.p99.pop_front();
    }
    history.at_ms.push_back(sample.at_ms);
    history.visible.push_back(sample.queue.visible);
    history.in_flight.push_back(sample.queue.in_flight);
    history.pending.push_back(sample.fleet.pending);
    history.running.push_back(sample.fleet.running);
    history.draining.push_back(sample.fleet.draining);
    history.answered.push_back(sample.requests.answered);
    history.p50.push_back(sample.latency_ms.p50);
    history.p99.push_back(sample.latency_ms.p99);
    let reason = &sample.fleet.reason;
    if !reason.is_empty()
        && history
            .reasons
            .back()
            .is_none_or(|last| last.reason != *reason)
    {
        if history.reasons.len() == REASONS {
            history.reasons.pop_front();
        }
        history.reasons.push_back(Reason {
            at_ms: sample.at_ms,
            reason: reason.clone(),
        });
    }
}

/// The samples, for their viewers. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    inner: Arc<Inner>,
}

struct Inner {
    /// Each sample as the bytes that every viewer is sent.
    samples: broadcast::Sender<Bytes>,
    /// Locked while a sample is added and sent, so that no viewer misses one or gets it twice.
    history: Mutex<History>,
    /// Rung by a viewer that comes.
    viewers: Notify,
    /// Ends the viewers' streams.
    stop: CancellationToken,
}

impl Inner {
    fn history(&self) -> MutexGuard<'_, History> {
        self.history
            .lock()
            .expect("no code panics while it holds these")
    }
}

impl Events {
    /// Starts the sampler on `tasks`, until `stop`; `submitted` wakes it between two samples.
    pub fn start(
        backend: Backend,
        dispatcher: Dispatcher,
        submitted: watch::Receiver<muster_fleet::RequestTotals>,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let inner = Arc::new(Inner {
            samples: broadcast::Sender::new(BEHIND),
            history: Mutex::default(),
            viewers: Notify::new(),
            stop: stop.clone(),
        });
        let sampler = Sampler {
            inner: Arc::clone(&inner),
            // Calls of AWS are paid for.
            busy: if backend.sdk.is_some() { IDLE } else { BUSY },
            backend,
            dispatcher,
            submitted,
        };
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = sampler.run() => {}
            }
        });
        Self { inner }
    }

    /// The history, and then each sample as it comes.
    fn view(&self) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
        let (begun, samples) = {
            let history = self.inner.history();
            (event("history", &*history), self.inner.samples.subscribe())
        };
        self.inner.viewers.notify_one();
        let samples = stream::unfold(samples, async |mut samples| {
            loop {
                match samples.recv().await {
                    Ok(sample) => return Some((sample, samples)),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        });
        let stop = self.inner.stop.clone();
        stream::once(ready(begun))
            .chain(samples)
            .map(Ok)
            .take_until(stop.cancelled_owned())
    }
}

/// An event as it is sent. JSON has no line breaks.
fn event(name: &str, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).expect("only string keys");
    format!("event: {name}\ndata: {data}\n\n").into()
}

/// The task that samples queue, fleet and answers while there are viewers.
struct Sampler {
    inner: Arc<Inner>,
    backend: Backend,
    dispatcher: Dispatcher,
    submitted: watch::Receiver<muster_fleet::RequestTotals>,
    busy: Duration,
}

impl Sampler {
    async fn run(mut self) {
        let mut failing = false;
        loop {
            if self.inner.samples.receiver_count() == 0 {
                self.inner.viewers.notified().await;
                continue;
            }
            let begun = Instant::now();
            self.submitted.mark_unchanged();
            let sampled = self.sample().await;
            let busy = match &sampled {
                Ok(sample) => {
                    let mut history = self.inner.history();
                    push(&mut history, sample);
                    // Nobody may be there any more.
                    let _ = self.inner.samples.send(event("sample", sample));
                    failing = false;
                    let fleet = &sample.fleet;
                    sample.requests.waiting > 0
                        || sample.queue.visible + sample.queue.in_flight > 0
                        || fleet.pending + fleet.running + fleet.draining > fleet.min
                }
                Err(error) => {
                    if !failing {
                        aws::failed("viewers are not told how it fares", error.as_ref());
                    }
                    failing = true;
                    let trouble = Trouble {
                        at_ms: now_ms(),
                        detail: TROUBLE.to_owned(),
                    };
                    let _ = self.inner.samples.send(event("trouble", &trouble));
                    false
                }
            };
            if busy {
                sleep_until(begun + self.busy).await;
            } else {
                tokio::select! {
                    () = sleep_until(begun + IDLE) => {}
                    // No sender is left only where the web tier is stopping.
                    Ok(()) = self.submitted.changed() => {}
                }
            }
        }
    }

    /// A sample of the present moment.
    async fn sample(&self) -> anyhow::Result<Sample> {
        let counts = self.backend.requests.counts().await;
        let counts = counts.context("count the queue")?;
        let FleetStatus {
            observed_at_ms,
            report,
        } = fleet_status::read(&*self.backend.state)
            .await
            .context("read the fleet's status")?;
        let counted = self.dispatcher.counts();
        let answered_by = counted.answered_by();
        let instances = report.instances.into_iter().map(|worker| InstanceNow {
            answered: answered_by.get(&worker.id.0).copied().unwrap_or(0),
            instance: instance(worker),
        });
        let latencies = counted.percentiles_within([0.5, 0.99], LATENCY_SPAN);
        let [p50, p99] = [0, 1].map(|n| {
            let latency = latencies
                .as_ref()
                .map(|latencies| latencies[n].as_secs_f64());
            latency.map(|seconds| (seconds * 1e4).round() / 10.0)
        });
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Ok(Sample {
            at_ms: now_ms(),
            queue: Backlog {
                visible: counts.visible,
                in_flight: counts.in_flight,
            },
            fleet: FleetNow {
                pending: report.pending,
                running: report.running,
                draining: report.draining,
                min: report.min,
                max: report.max,
                reason: report.reason,
                observed_at_ms,
                instances: instances.collect(),
            },
            requests: Requests {
                accepted: count(&counted.accepted),
                answered: count(&counted.answered),
                failed: count(&counted.failed),
                waiting: self.dispatcher.waiting(),
            },
            latency_ms: Latency { p50, p99 },
        })
    }
}

/// Say how the service fares, live
///
/// Server-sent events without an end: first `history`, what was seen of the last five minutes, a
/// column for each figure; then a `sample` up to four times a second, or `trouble` with a `detail`
/// where there is none. `requests`, `latency_ms` and each worker's `answered` are this web
/// replica's own, the rest is the deployment's. Nothing is sampled while nobody listens.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "service",
    responses(
        (status = 200, description = "The events.", body = String, content_type = "text/event-stream"),
    )
)]
pub async fn events(
    State(events): State<Events>,
    State(access): State<Access>,
    headers_of_caller: HeaderMap,
) -> Response {
    let key_revoked = async move {
        loop {
            tokio::time::sleep(KEY_INTERVAL).await;
            if !access.still_admits(&headers_of_caller, Scope::Admin).await {
                return;
            }
        }
    };
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        // A proxy in between must not wait for more.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let stream = events.view().take_until(Box::pin(key_revoked));
    (headers, Body::from_stream(stream)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_ms: u64, reason: &str) -> Sample {
        Sample {
            at_ms,
            queue: Backlog {
                visible: 1,
                in_flight: 2,
            },
            fleet: FleetNow {
                pending: 1,
                running: 2,
                draining: 3,
                min: 0,
                max: 4,
                reason: reason.to_owned(),
                observed_at_ms: at_ms,
                instances: Vec::new(),
            },
            requests: Requests {
                accepted: 1,
                answered: at_ms,
                failed: 0,
                waiting: 0,
            },
            latency_ms: Latency {
                p50: None,
                p99: Some(2.0),
            },
        }
    }

    #[test]
    fn the_history_is_bounded_and_its_columns_stay_equally_long() {
        let mut history = History::default();
        let kept = KEPT.as_millis() as u64;
        for at in (0..3 * kept).step_by(1000) {
            push(&mut history, &sample(at, &format!("reason {}", at / 2000)));
        }
        let (first, last) = (history.at_ms[0], *history.at_ms.back().unwrap());
        assert_eq!(last - first, kept);
        let json = serde_json::to_value(&history).unwrap();
        for (name, column) in json.as_object().unwrap() {
            let wanted = match &**name {
                "reasons" => REASONS,
                _ => history.at_ms.len(),
            };
            assert_eq!(column.as_array().unwrap().len(), wanted, "{name}");
        }
        assert_eq!(history.answered.front(), history.at_ms.front());
    }

    #[test]
    fn a_reason_that_stays_is_told_once() {
        let mut history = History::default();
        for (at, reason) in [(1, ""), (2, "idle"), (3, "idle"), (4, "busy"), (5, "idle")] {
            push(&mut history, &sample(at, reason));
        }
        let told: Vec<_> = history
            .reasons
            .iter()
            .map(|r| (r.at_ms, &*r.reason))
            .collect();
        assert_eq!(told, [(2, "idle"), (4, "busy"), (5, "idle")]);
    }

    #[test]
    fn an_event_is_three_lines() {
        let event = event("sample", &serde_json::json!({ "text": "a\nb" }));
        assert_eq!(&event[..], b"event: sample\ndata: {\"text\":\"a\\nb\"}\n\n");
    }
}
