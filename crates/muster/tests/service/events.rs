//! Live events: what the page's Fleet view lives on.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::{LIMIT, Service, muster, read, samples, until};

/// The events of one viewer; the client ends them after [`LIMIT`], whatever is waited for.
struct Viewer {
    response: reqwest::Response,
    text: String,
}

impl Viewer {
    async fn of(service: &Service) -> Self {
        let response = service.http.get(service.at("/v1/events")).send().await;
        let response = response.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            response,
            text: String::new(),
        }
    }

    /// The next event: its name and its data; `None` at the end.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (name, data) = event.split_once('\n').unwrap();
                let told = (
                    name.strip_prefix("event: ").unwrap().to_owned(),
                    serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap(),
                );
                self.text = rest.to_owned();
                return Some(told);
            }
            let chunk = tokio::time::timeout(LIMIT, self.response.chunk()).await;
            let chunk = chunk.expect("something is told").unwrap()?;
            self.text.push_str(str::from_utf8(&chunk).unwrap());
        }
    }

    async fn sample(&mut self) -> Value {
        let (name, sample) = self.next().await.expect("the stream goes on");
        assert_eq!(name, "sample");
        sample
    }
}

#[tokio::test]
async fn viewers_see_the_fleet_come_and_go_and_what_was_before_them() {
    let Some(samples) = samples() else { return };
    let mut service = Service::up("max_instances = 1\nidle_grace_s = 5.0").await;
    let mut viewer = Viewer::of(&service).await;
    let (name, history) = viewer.next().await.unwrap();
    assert_eq!(name, "history");
    assert_eq!(history["at_ms"].as_array().unwrap().len(), 0);
    // Before the controller has published, nothing is known.
    while viewer.sample().await["fleet"]["max"] != 1 {}

    let photo = read(&samples.group);
    let (answer, ()) = tokio::join!(service.recognize(&photo), async {
        loop {
            let sample = viewer.sample().await;
            let workers = sample["fleet"]["instances"].as_array().unwrap();
            let mut answered = workers.iter().map(|worker| worker["answered"].as_u64());
            // One answer, which is not counted everywhere at the same moment.
            if answered.any(|answered| answered > Some(0))
                && sample["requests"]["answered"] == 1
                && sample["latency_ms"]["p99"].as_f64() > Some(0.0)
            {
                return;
            }
        }
    });
    assert_eq!(answer.status, 200);
    let gone =
        async { while viewer.sample().await["fleet"]["instances"] != Value::Array(Vec::new()) {} };
    tokio::time::timeout(LIMIT, gone)
        .await
        .expect("the fleet goes");

    // Another sees what was, and the same from then on.
    let mut other = Viewer::of(&service).await;
    let (name, history) = other.next().await.unwrap();
    assert_eq!(name, "history");
    let running = history["running"].as_array().unwrap();
    assert!(running.contains(&Value::from(1)), "{history}");
    assert!(!history["reasons"].as_array().unwrap().is_empty());
    let told = other.sample().await;
    while viewer.sample().await != told {}

    // Those who look do not hold up the stop.
    let begun = Instant::now();
    service.signal("-TERM");
    assert!(service.ends().await.success());
    assert!(begun.elapsed() < LIMIT / 4, "it stops at once");
    while viewer.next().await.is_some() {}
}

#[tokio::test]
async fn viewers_are_told_when_nothing_can_be_seen_and_when_it_can_again() {
    let service = Service::up("").await;
    let mut viewer = Viewer::of(&service).await;
    viewer.next().await.unwrap();
    // The controller publishes once at its start, and then not for a while.
    while viewer.sample().await["fleet"]["observed_at_ms"] == 0 {}
    let status = service.data.join("objects/status/fleet.json");
    let whole = read(&status);
    std::fs::write(&status, "{").unwrap();
    let trouble = loop {
        let (name, told) = viewer.next().await.unwrap();
        if name == "trouble" {
            break told;
        }
    };
    assert!(trouble["detail"].as_str().unwrap().contains("log"));
    std::fs::write(&status, whole).unwrap();
    while viewer.next().await.unwrap().0 != "sample" {}
}

#[tokio::test]
async fn nothing_is_sampled_while_nobody_looks() {
    let service = Service::up("").await;
    let mut viewer = Viewer::of(&service).await;
    viewer.next().await.unwrap();
    viewer.sample().await;
    viewer.sample().await;
    drop(viewer);
    // Until its absence is noticed one more sample may be taken; then time passes without any.
    let gap = |history: &Value| {
        let at: Vec<u64> = serde_json::from_value(history["at_ms"].clone()).unwrap();
        at.windows(2).map(|two| two[1] - two[0]).max().unwrap_or(0)
    };
    let mut rounds = 0;
    until("a time without samples is seen", async || {
        rounds += 1;
        tokio::time::sleep(Duration::from_secs(4)).await;
        let mut viewer = Viewer::of(&service).await;
        viewer.next().await.unwrap();
        viewer.sample().await;
        let mut later = Viewer::of(&service).await;
        gap(&later.next().await.unwrap().1) > 2500
    })
    .await;
    assert!(rounds <= 2, "{rounds} rounds");
}

#[tokio::test]
async fn a_terminal_without_a_page_sees_the_same() {
    let Some(samples) = samples() else { return };
    let service = Service::up("").await;
    let mut command = muster();
    command.args(["status", "--watch", "--json", "--url", &service.url]);
    let mut watching = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = tokio::time::timeout(LIMIT, lines.next_line()).await;
        let line = line.expect("something is told").unwrap().unwrap();
        serde_json::from_str::<Value>(&line).unwrap()
    };
    assert_eq!(next().await["requests"]["answered"], 0);
    let photo = read(&samples.group);
    assert_eq!(service.recognize(&photo).await.status, 200);
    let told = async { while next().await["requests"]["answered"] != 1 {} };
    tokio::time::timeout(LIMIT, told)
        .await
        .expect("the answer is told");
}
