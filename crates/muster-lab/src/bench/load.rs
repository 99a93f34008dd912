//! The load: so many photographs at a time, while the fleet is polled.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use futures::{StreamExt, stream};
use indicatif::ProgressBar;
use muster_jobs::Recognition;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::observers;
use super::report::{Figures, Measurements};
use muster_api::client::{Client, ClientError};
use muster_api::problem::{Code, Problem};
use muster_api::progress;
use muster_api::status::StatusView;
use muster_base::print_error_line;

/// Longest wait for a fleet of zero before the first photograph.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
/// How often the fleet is polled while it may still grow.
const POLL_GROWING: Duration = Duration::from_millis(50);
/// How often once it has its most instances: a poll takes time from the work that is measured.
const POLL_FULL: Duration = Duration::from_millis(500);
/// How often while it is expected to reach zero.
const POLL_SHRINKING: Duration = Duration::from_millis(10);
/// Longest wait for the fleet to reach zero after the last answer.
const SCALE_IN_LIMIT: Duration = Duration::from_secs(60);
/// Uploads by which the web tier's HTTP is measured by itself, and at one time.
const HTTP_ALONE: usize = 1000;
const HTTP_AT_ONCE: usize = 100;
/// Separates the parts of the form; no JPEG made here contains it.
const BOUNDARY: &str = "muster-bench-7f1c9a52d6e84b03";

async fn status(client: &Client) -> Result<StatusView, ClientError> {
    client.get("/v1/status").await
}

/// Waits until nothing but the service's minimum runs.
///
/// # Errors
/// When that takes longer than `limit`: the figures would not be from zero.
async fn until_zero(client: &Client, limit: Duration) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    loop {
        let fleet = status(client).await?.fleet;
        let instances = fleet.pending + fleet.running + fleet.draining;
        if instances <= fleet.min {
            return Ok(begun.elapsed());
        }
        anyhow::ensure!(
            begun.elapsed() < limit,
            "the fleet still has {instances} instances after {limit:?}: measure an idle service"
        );
        tokio::time::sleep(POLL_SHRINKING).await;
    }
}

/// The largest fleet that was seen.
struct Peak {
    instances: u32,
    /// When it was first reached.
    at: Duration,
}

/// Polls the fleet for its peak until `stop`.
async fn poll_peak(
    client: Client,
    begun: Instant,
    stop: CancellationToken,
) -> anyhow::Result<Peak> {
    let mut peak = Peak {
        instances: 0,
        at: Duration::ZERO,
    };
    while !stop.is_cancelled() {
        let now = status(&client).await?.fleet;
        if now.running > peak.instances {
            peak = Peak {
                instances: now.running,
                at: begun.elapsed(),
            };
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(if now.running < now.max { POLL_GROWING } else { POLL_FULL }) => {}
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

/// An answer to one photograph.
struct Sent {
    /// From sending the photograph to reading its answer.
    latency: Duration,
    /// When the answer was read, from the first submission on.
    end: Duration,
    answer: Answer,
}

/// The load that is put on a service.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Photographs in all.
    pub requests: usize,
    /// Photographs at one time.
    pub concurrency: usize,
    /// Viewers that there are every other few seconds.
    pub observers: Option<usize>,
    /// Whether the service is another than the one that was started for the measurement.
    pub separate: bool,
}

/// Waits for a fleet of zero, sends the photographs and waits for zero again.
///
/// # Errors
/// When the service's status can not be read or the fleet does not return to zero.
pub async fn run(client: &Client, photos: Vec<Bytes>, load: Load) -> anyhow::Result<Figures> {
    until_zero(client, SETTLE_LIMIT).await?;
    let bodies: Arc<Vec<Bytes>> = Arc::new(photos.iter().map(form).collect());
    let bar = progress::bar(load.requests, "recognising");
    let before = status(client).await?;
    let begun = Instant::now();
    let stop_polling = CancellationToken::new();
    let peak = tokio::spawn(poll_peak(client.clone(), begun, stop_polling.clone()));
    let stop_observing = CancellationToken::new();
    let observing = load.observers.map(|viewers| {
        let stop = stop_observing.clone();
        let phases = observers::observe(client.clone(), viewers, begun, stop);
        (viewers, tokio::spawn(phases))
    });
    let sent = send_all(client, &bodies, load, begun, &bar).await;
    stop_observing.cancel();
    let observed = match observing {
        None => None,
        Some((viewers, phases)) => {
            let phases = phases.await.context("observe the service")?;
            let answered = sent
                .iter()
                .filter(|sent| !matches!(sent.answer, Answer::Error(_)));
            let answered: Vec<_> = answered.map(|sent| (sent.latency, sent.end)).collect();
            Some(observers::compare(viewers, &phases, &answered))
        }
    };
    let scale_in = until_zero(client, SCALE_IN_LIMIT).await?;
    let after = status(client).await?;
    bar.finish_and_clear();
    stop_polling.cancel();
    let peak = peak.await.context("poll the fleet")??;

    let http_cpu = match load.separate {
        true => {
            http_alone(
                client,
                &bodies,
                load.requests.min(HTTP_ALONE),
                after.cpu_s.web,
            )
            .await?
        }
        false => None,
    };
    let ends = || sent.iter().map(|sent| sent.end);
    let mut measured = Measurements {
        requests: load.requests,
        first_answer: ends().min().unwrap_or_default(),
        last_answer: ends().max().unwrap_or_default(),
        scale_out: peak.at,
        peak_instances: u64::from(peak.instances),
        scale_in,
        web_cpu: cpu_between(before.cpu_s.web, after.cpu_s.web).filter(|_| load.separate),
        worker_cpu: cpu_between(Some(before.cpu_s.workers), Some(after.cpu_s.workers)),
        http_cpu,
        observed,
        ..Measurements::default()
    };
    for Sent {
        latency, answer, ..
    } in &sent
    {
        match answer {
            Answer::Faces(ms) => {
                measured.latencies.push(*latency);
                measured.models_ms.push(*ms);
            }
            Answer::NoFace => {
                measured.no_face += 1;
                measured.latencies.push(*latency);
            }
            Answer::Error(reason) => {
                if measured.errors == 0 {
                    print_error_line!("first error: {reason}");
                }
                measured.errors += 1;
            }
        }
    }
    Ok(Figures::new(measured))
}

/// Sends as many photographs as the load has, and at a time as it says.
async fn send_all(
    client: &Client,
    bodies: &Arc<Vec<Bytes>>,
    load: Load,
    begun: Instant,
    bar: &ProgressBar,
) -> Vec<Sent> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut senders = JoinSet::new();
    for _ in 0..load.concurrency.min(load.requests) {
        let (client, bar) = (client.clone(), bar.clone());
        let (bodies, next) = (Arc::clone(bodies), Arc::clone(&next));
        senders.spawn(async move {
            let mut all = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= load.requests {
                    return all;
                }
                let sent = Instant::now();
                let answer = send(&client, &bodies[n % bodies.len()]).await;
                all.push(Sent {
                    latency: sent.elapsed(),
                    end: begun.elapsed(),
                    answer,
                });
                bar.inc(1);
            }
        });
    }
    senders.join_all().await.into_iter().flatten().collect()
}

/// Processor time between two statuses, of which each has the seconds until then.
fn cpu_between(before: Option<f64>, after: Option<f64>) -> Option<Duration> {
    Duration::try_from_secs_f64(after? - before?).ok()
}

/// The web tier's processor time for one upload alone: forms of the same size are read to their end,
/// and refused before anything is stored or queued since they hold no picture.
async fn http_alone(
    client: &Client,
    bodies: &[Bytes],
    requests: usize,
    before: Option<f64>,
) -> anyhow::Result<Option<Duration>> {
    let without_pictures: Vec<Bytes> = bodies.iter().map(without_picture).collect();
    let sends = (0..requests).map(|n| post(client, &without_pictures[n % without_pictures.len()]));
    let mut answers = stream::iter(sends).buffer_unordered(HTTP_AT_ONCE);
    while let Some(answer) = answers.next().await {
        match answer.map_err(|reason| anyhow::anyhow!("{reason}"))? {
            Posted::Problem(problem) if problem.code == Code::ImageUnsupported => {}
            Posted::Problem(problem) => anyhow::bail!(
                "a form without a picture was answered {}: {}",
                problem.status,
                problem.detail
            ),
            Posted::Recognition(_) => anyhow::bail!("a form without a picture was recognised"),
        }
    }
    let after = status(client).await?;
    let used = cpu_between(before, after.cpu_s.web);
    Ok(used.map(|used| used.div_f64(requests.max(1) as f64)))
}

/// A form with bytes that begin like no picture.
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

/// What a form was answered.
enum Posted {
    Recognition(Box<Recognition>),
    Problem(Box<Problem>),
}

/// Sends a form; fails with the reason where the answer can not be read.
async fn post(client: &Client, body: &Bytes) -> Result<Posted, String> {
    let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
    let request = client.http().post(client.at("/v1/recognize"));
    let request = request.header("content-type", content_type);
    let response = request.body(body.clone()).send().await;
    let response = response.map_err(|error| muster_base::ErrorChain(&error).to_string())?;
    let status = response.status();
    let bytes = response.bytes().await;
    let bytes = bytes.map_err(|error| muster_base::ErrorChain(&error).to_string())?;
    match status.is_success() {
        true => serde_json::from_slice(&bytes).map(Posted::Recognition),
        false => serde_json::from_slice(&bytes).map(Posted::Problem),
    }
    .map_err(|error| format!("{status}: {error}"))
}

async fn send(client: &Client, body: &Bytes) -> Answer {
    match post(client, body).await {
        Ok(Posted::Recognition(recognition)) => {
            let took = &recognition.timing_ms;
            Answer::Faces(took.detect + took.embed)
        }
        Ok(Posted::Problem(problem)) if problem.code == Code::FaceNone => Answer::NoFace,
        Ok(Posted::Problem(problem)) => {
            Answer::Error(format!("{}: {}", problem.status, problem.detail))
        }
        Err(reason) => Answer::Error(reason),
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
