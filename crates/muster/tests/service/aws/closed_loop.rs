//! Clients that each wait for their answer before they send the next photograph, on workers that are
//! slower than their models.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use muster_testbed::proxy::{Calls, Fault, FaultProxy, When};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use reqwest::multipart::Form;
use serde_json::Value;

use super::installation::{Installation, prerequisites};
use crate::support::{LIMIT, Service, jpeg, read, until};

/// Clients, until they are told to stop.
struct Clients {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    /// How long the last answer took, in milliseconds.
    latency_ms: Arc<AtomicU64>,
    all: Vec<tokio::task::JoinHandle<()>>,
}

impl Clients {
    fn start(service: &Service, number: usize, photo: &[u8]) -> Self {
        let (stop, answers, latency_ms): (Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>) =
            Default::default();
        let all = (0..number)
            .map(|_| {
                let (http, url) = (service.http.clone(), service.at("/v1/recognize"));
                let (stop, answers) = (Arc::clone(&stop), Arc::clone(&answers));
                let (latency_ms, photo) = (Arc::clone(&latency_ms), photo.to_vec());
                tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        let form = Form::new().part("image", jpeg("a.jpg", &photo));
                        let begun = Instant::now();
                        let sent = http.post(&url).timeout(LIMIT * 5).multipart(form);
                        let answer = sent.send().await.unwrap();
                        let status = answer.status();
                        let body: Value = answer.json().await.unwrap();
                        assert_eq!(status, 200, "{body}");
                        answers.fetch_add(1, Ordering::Relaxed);
                        let took_ms = begun.elapsed().as_millis() as u64;
                        latency_ms.store(took_ms, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        Self {
            stop,
            answers,
            latency_ms,
            all,
        }
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.all {
            client.await.unwrap();
        }
    }
}

/// A store that takes half a second for each photograph makes a sixth of it of the slot, where the models
/// take a few hundredths.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_loop_on_a_slow_store_takes_the_fleet_to_its_limit() {
    let Some((server, samples)) = prerequisites() else {
        return;
    };
    let proxy = FaultProxy::start(server.endpoint(), 1);
    let installation = Installation::create(server, proxy.endpoint()).await;
    let settings = installation.settings(
        "max_instances = 3\ntarget_wait_s = 0.3\nrequest_timeout_s = 300.0",
        "expected_boot_s = 1.0\nbilling_minimum_s = 0.0",
    );
    let service = installation.start("up", &settings).await;
    let photo = read(&samples.people[0].1[0]);
    // The first instance boots with a store that is quick.
    service.recognize(&photo).await;
    let slow = Fault::Delay(Duration::from_millis(500));
    let delayed = proxy.inject(Calls::Of("GetObject"), When::Always, slow);
    let clients = Clients::start(&service, 24, &photo);
    until("the fleet is at its limit", async || {
        service.running().await.len() == 3
    })
    .await;
    assert!(delayed.hits() > 0);
    proxy.clear();
    clients.stop().await;
}

/// A deletion of three seconds would make half a second of the slot, if one of the six places in hand waited
/// for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_deletion_is_no_time_of_the_slot() {
    let Some((server, samples)) = prerequisites() else {
        return;
    };
    let deletion = Duration::from_secs(3);
    let proxy = FaultProxy::start(server.endpoint(), 1);
    let installation = Installation::create(server, proxy.endpoint()).await;
    let settings = installation.stores_and_queues() + "max_instances = 1\n";
    let mut service = installation.start("up", &settings).await;
    let photo = read(&samples.people[0].1[0]);
    service.recognize(&photo).await;
    let deletions = Calls::Of("DeleteMessageBatch");
    let delayed = proxy.inject(deletions, When::Always, Fault::Delay(deletion));
    let begun = Instant::now();
    let answers = (0..24).map(|_| service.recognize(&photo));
    futures::future::join_all(answers).await;
    // Four times six.
    assert!(begun.elapsed() < 2 * deletion, "{:?}", begun.elapsed());
    assert!(delayed.hits() > 0);
    proxy.clear();
    until("all are deleted", async || {
        service.status().await["queue"]["in_flight"] == 0
    })
    .await;
    service.signal("-TERM");
    service.ends().await;
    let state = installation.bucket(server, "StateBucket");
    let learned = state.get(&Path::from("status/learned.json")).await.unwrap();
    let learned: Value = serde_json::from_slice(&learned.bytes().await.unwrap()).unwrap();
    let samples = learned["service"]["buckets"].as_array().unwrap();
    let sum = |of: &str| samples.iter().filter_map(|s| s[of].as_f64()).sum::<f64>();
    let service_s = sum("total") / sum("length");
    assert!(
        service_s < deletion.as_secs_f64() / 6.0 / 2.0,
        "{service_s}"
    );
}

/// Prints what a hundred clients see.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes two minutes: run `make test-long`"]
async fn a_closed_loop_of_a_hundred_takes_the_fleet_to_fifteen() {
    let Some((server, samples)) = prerequisites() else {
        return;
    };
    let installation = Installation::create(server, server.endpoint()).await;
    let settings = installation.settings(
        "max_instances = 15\ntarget_wait_s = 1.0\nrequest_timeout_s = 300.0",
        "expected_boot_s = 5.0",
    );
    let service = installation.start("up", &settings).await;
    let clients = Clients::start(&service, 100, &read(&samples.people[0].1[0]));
    println!(
        "| s | visible | in flight | running | pending | answers a second | last answer, s | plan |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let (begun, mut before, mut most) = (Instant::now(), 0, 0);
    while begun.elapsed() < Duration::from_secs(120) {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let status = service.status().await;
        let answers = clients.answers.load(Ordering::Relaxed);
        let fleet = &status["fleet"];
        println!(
            "| {:.0} | {} | {} | {} | {} | {:.1} | {:.1} | {} |",
            begun.elapsed().as_secs_f64(),
            status["queue"]["visible"],
            status["queue"]["in_flight"],
            fleet["running"],
            fleet["pending"],
            (answers - before) as f64 / 5.0,
            clients.latency_ms.load(Ordering::Relaxed) as f64 / 1e3,
            fleet["reason"],
        );
        before = answers;
        most = most.max(fleet["running"].as_u64().unwrap_or(0));
    }
    clients.stop().await;
    assert_eq!(most, 15);
}
