//! The load itself: so many photographs at a time, while the fleet is watched.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use futures::{StreamExt, stream};
use muster_jobs::FailureCode;
use reqwest::StatusCode;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::observers;
use super::report::{Figures, Raw};
use muster_api::client::Client;
use muster_api::progress;

/// How often the fleet is looked at while it may still grow.
const WATCH_GROWTH: Duration = Duration::from_millis(50);
/// How often once it has its most instances: looking takes time from the work that is measured.
const WATCH_FULL: Duration = Duration::from_millis(500);
/// How often while it is expected to reach zero.
const WATCH_CLOSELY: Duration = Duration::from_millis(10);
/// Longest wait for the fleet to reach zero after the last answer.
const SCALE_IN_LIMIT: Duration = Duration::from_secs(60);
/// Uploads by which the web tier's HTTP is measured by itself, and at one time.
const HTTP_ALONE: usize = 1000;
const HTTP_AT_ONCE: usize = 100;
/// Separates the parts of the form; no JPEG made here contains it.
const BOUNDARY: &str = "muster-bench-7f1c9a52d6e84b03";

#[derive(Clone, Copy, Debug)]
struct Fleet {
    running: u64,
    all: u64,
    min: u64,
    max: u64,
}

async fn fleet(client: &Client) -> anyhow::Result<Fleet> {
    let status: Value = client.get("/v1/status").await?;
    let count = |state: &str| status["fleet"][state].as_u64().unwrap_or(0);
    Ok(Fleet {
        running: count("running"),
        all: count("pending") + count("running") + count("draining"),
        min: count("min"),
        max: count("max"),
    })
}

/// Waits until nothing but the service's minimum runs.
///
/// # Errors
/// When that takes longer than `limit`: the figures would not be from zero.
pub async fn until_zero(client: &Client, limit: Duration) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    loop {
        let now = fleet(client).await?;
        if now.all <= now.min {
            return Ok(begun.elapsed());
        }
        anyhow::ensure!(
            begun.elapsed() < limit,
            "the fleet still has {} instances after {limit:?}: measure an idle service",
            now.all
        );
        tokio::time::sleep(WATCH_CLOSELY).await;
    }
}

/// The largest number of running instances seen, and when it was first reached.
async fn watch(
    client: Client,
    begun: Instant,
    stop: CancellationToken,
) -> anyhow::Result<(u64, Duration)> {
    let mut peak = (0, Duration::ZERO);
    while !stop.is_cancelled() {
        let now = fleet(&client).await?;
        if now.running > peak.0 {
            peak = (now.running, begun.elapsed());
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(if now.running < now.max { WATCH_GROWTH } else { WATCH_FULL }) => {}
        }
    }
    Ok(peak)
}

enum Answer {
    /// Faces, and the milliseconds that the models took for them.
    Faces(f64),
    NoFace,
    Error(String),
}

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Photographs in all.
    pub requests: usize,
    /// Photographs at one time.
    pub concurrency: usize,
    /// Viewers that look on every other few seconds.
    pub observers: Option<usize>,
    /// Whether the service runs in another process than the load.
    pub apart: bool,
}

/// Sends the photographs and waits for the fleet to reach zero.
///
/// # Errors
/// When the service's status can not be read or the fleet does not return to zero.
pub async fn run(client: &Client, photos: Vec<Bytes>, load: Load) -> anyhow::Result<Figures> {
    let Load {
        requests,
        concurrency,
        observers,
        apart,
    } = load;
    let bodies: Arc<Vec<Bytes>> = Arc::new(photos.iter().map(form).collect());
    let next = Arc::new(AtomicUsize::new(0));
    let bar = progress::bar(requests, "recognising");
    let stop_watching = CancellationToken::new();
    let before: Value = client.get("/v1/status").await?;
    let begun = Instant::now();
    let watcher = tokio::spawn(watch(client.clone(), begun, stop_watching.clone()));
    let stop_looking = CancellationToken::new();
    let looking = observers.map(|viewers| {
        let stop = stop_looking.clone();
        let phases = observers::look_on(client.clone(), viewers, begun, stop);
        (viewers, tokio::spawn(phases))
    });
    let mut senders = JoinSet::new();
    for _ in 0..concurrency.min(requests) {
        let (client, bodies, next, bar) = (
            client.clone(),
            Arc::clone(&bodies),
            Arc::clone(&next),
            bar.clone(),
        );
        senders.spawn(async move {
            let mut answers = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= requests {
                    return answers;
                }
                let sent = Instant::now();
                let answer = send(&client, &bodies[n % bodies.len()]).await;
                answers.push((sent.elapsed(), begun.elapsed(), answer));
                bar.inc(1);
            }
        });
    }
    let answers: Vec<(Duration, Duration, Answer)> =
        senders.join_all().await.into_iter().flatten().collect();
    stop_looking.cancel();
    let observed = match looking {
        None => None,
        Some((viewers, phases)) => {
            let phases = phases.await.context("look on")?;
            let answered = answers
                .iter()
                .filter(|(_, _, answer)| !matches!(answer, Answer::Error(_)));
            let answered: Vec<_> = answered.map(|(latency, end, _)| (*latency, *end)).collect();
            Some(observers::sort(viewers, &phases, &answered))
        }
    };
    let scale_in = until_zero(client, SCALE_IN_LIMIT).await?;
    let after: Value = client.get("/v1/status").await?;
    bar.finish_and_clear();
    stop_watching.cancel();
    let (peak, scale_out) = watcher.await.context("watch the fleet")??;

    let http = match apart {
        true => http_alone(client, &bodies, requests.min(HTTP_ALONE), &after).await?,
        false => None,
    };
    let used = |whose: &str| cpu_between(&before, &after, whose);
    let ends = || answers.iter().map(|(_, end, _)| *end);
    let mut raw = Raw {
        requests,
        answers: (
            ends().min().unwrap_or_default(),
            ends().max().unwrap_or_default(),
        ),
        scale_out: (scale_out, peak),
        scale_in,
        io: (used("web").filter(|_| apart), used("workers")),
        http,
        observed,
        ..Raw::default()
    };
    for (latency, _, answer) in &answers {
        match answer {
            Answer::Faces(ms) => {
                raw.latencies.push(*latency);
                raw.models_ms.push(*ms);
            }
            Answer::NoFace => {
                raw.no_face += 1;
                raw.latencies.push(*latency);
            }
            Answer::Error(reason) => {
                if raw.errors == 0 {
                    eprintln!("first error: {reason}");
                }
                raw.errors += 1;
            }
        }
    }
    Ok(Figures::new(raw))
}

/// Processor time between two statuses, of the web tier or of the workers.
fn cpu_between(before: &Value, after: &Value, whose: &str) -> Option<Duration> {
    let seconds = |status: &Value| status["cpu_s"][whose].as_f64();
    Duration::try_from_secs_f64(seconds(after)? - seconds(before)?).ok()
}

/// The web tier's processor time for one upload alone: forms of the same size are read to their end,
/// and refused before anything is stored or queued since they hold no picture.
async fn http_alone(
    client: &Client,
    bodies: &[Bytes],
    requests: usize,
    before: &Value,
) -> anyhow::Result<Option<Duration>> {
    let spoilt: Vec<Bytes> = bodies.iter().map(without_picture).collect();
    let refused = FailureCode::ImageUnsupported;
    let refused = serde_json::to_value(refused).unwrap_or_default();
    let sends = (0..requests).map(|n| post(client, &spoilt[n % spoilt.len()]));
    let mut answers = stream::iter(sends).buffer_unordered(HTTP_AT_ONCE);
    while let Some(answer) = answers.next().await {
        let (status, answer) = answer.map_err(|reason| anyhow::anyhow!("{reason}"))?;
        anyhow::ensure!(
            answer["code"] == refused,
            "a form without a picture was answered {status}: {answer}"
        );
    }
    let after: Value = client.get("/v1/status").await?;
    let used = cpu_between(before, &after, "web");
    Ok(used.map(|used| used.div_f64(requests.max(1) as f64)))
}

/// The same form with bytes that begin like no picture.
fn without_picture(form: &Bytes) -> Bytes {
    let mut form = form.to_vec();
    let head = form.windows(4).position(|four| four == b"\r\n\r\n");
    if let Some(head) = head {
        form[head + 4..]
            .iter_mut()
            .take(16)
            .for_each(|byte| *byte = 0);
    }
    form.into()
}

async fn post(client: &Client, body: &Bytes) -> Result<(StatusCode, Value), String> {
    let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
    let request = client.http().post(client.at("/v1/recognize"));
    let request = request.header("content-type", content_type);
    let response = request.body(body.clone()).send().await;
    let response = response.map_err(|error| muster_base::ErrorChain(&error).to_string())?;
    let status = response.status();
    let bytes = response.bytes().await;
    let bytes = bytes.map_err(|error| muster_base::ErrorChain(&error).to_string())?;
    let answer = serde_json::from_slice(&bytes).map_err(|error| format!("{status}: {error}"))?;
    Ok((status, answer))
}

async fn send(client: &Client, body: &Bytes) -> Answer {
    let (status, answer) = match post(client, body).await {
        Ok(answer) => answer,
        Err(reason) => return Answer::Error(reason),
    };
    let no_face = serde_json::to_value(FailureCode::FaceNone).unwrap_or_default();
    if status.is_success() && answer["faces"].is_array() {
        let stage = |name: &str| answer["timing_ms"][name].as_f64().unwrap_or(0.0);
        Answer::Faces(stage("detect") + stage("embed"))
    } else if answer["code"] == no_face {
        Answer::NoFace
    } else {
        Answer::Error(format!("{status}: {}", answer["detail"]))
    }
}

fn form(photo: &Bytes) -> Bytes {
    let mut body = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"image\"; filename=\"bench.jpg\"\r\n\
         Content-Type: image/jpeg\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(photo);
    body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    body.into()
}
