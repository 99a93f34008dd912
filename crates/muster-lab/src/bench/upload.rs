//! One photograph on its way to the service, and its answer.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use muster_jobs::Recognition;

use muster_api::client::{Client, ClientError};
use muster_api::problem::{Code, Problem};
use muster_api::status::StatusView;

/// Uploads by which the web tier's HTTP is measured by itself, and at one time.
const HTTP_ALONE: usize = 1000;
const HTTP_AT_ONCE: usize = 100;
/// Separates the parts of the form; no JPEG made here contains it.
const BOUNDARY: &str = "muster-bench-7f1c9a52d6e84b03";

/// What came of one photograph.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Faces, and the milliseconds that the models took for them.
    Faces(f64),
    /// No face, rightly or not.
    NoFace,
    /// An answer that the contract does not have, or none, and why.
    Error(String),
    /// Never sent: so many were under way already.
    NotSent(usize),
}

/// The service's status.
///
/// # Errors
/// When it can not be read.
pub async fn status(client: &Client) -> Result<StatusView, ClientError> {
    client.get("/v1/status").await
}

/// Processor time between two statuses, of which each has the seconds until then.
pub fn cpu_between(before: Option<f64>, after: Option<f64>) -> Option<Duration> {
    Duration::try_from_secs_f64(after? - before?).ok()
}

/// The web tier's processor time for one upload alone: forms of the same size are read to their end,
/// and refused before anything is stored or queued since they hold no picture.
///
/// # Errors
/// When an upload is answered otherwise.
pub async fn http_alone(
    client: &Client,
    bodies: &[Bytes],
    requests: usize,
) -> anyhow::Result<Option<Duration>> {
    let requests = requests.min(HTTP_ALONE);
    let before = status(client).await?.cpu_s.web;
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

/// Sends a form and reads what the service makes of it.
pub async fn send(client: &Client, body: &Bytes) -> Answer {
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

/// The form that brings a photograph.
pub fn form(photo: &Bytes) -> Bytes {
    let mut body = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"image\"; filename=\"bench.jpg\"\r\n\
         Content-Type: image/jpeg\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(photo);
    body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    body.into()
}
