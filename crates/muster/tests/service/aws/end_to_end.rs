//! 200 photographs at a time of 100, on a fleet that goes 0, 15, 0; with a quiet AWS and with one
//! on a bad day.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use muster_recognize::models::SamplePhotographs;
use muster_testbed::moto;
use muster_testbed::proxy::{Calls, Fault, FaultProxy, Service as Aws, When};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use reqwest::multipart::Form;
use serde_json::Value;
use tokio::time::timeout;

use super::installation::{Installation, objects, prerequisites, seconds};
use crate::support::{Service, jpeg, read, until};

const REQUESTS: usize = 200;
const CONCURRENCY: usize = 100;
const INSTANCES: u64 = 15;

/// For a hundred photographs that wait, the planner wants all instances at once, since they boot
/// fast here; and none a second after the last answer.
const FLEET: &str = "max_instances = 15\ntarget_wait_s = 0.05\nkeep_alive = \"fixed\"\n\
                     idle_grace_s = 1.0\nrequest_timeout_s = 300.0";
const EC2: &str = "expected_boot_s = 0.5\nbilling_minimum_s = 0.0\nboot_timeout_s = 60.0";

/// A photograph of about 512 pixels, and who is on it: the tests' point is the way, not the decoding.
struct Photo {
    jpeg: Vec<u8>,
    name: String,
}

/// The first person's other photographs, and a stranger's.
fn photos(samples: &SamplePhotographs) -> Vec<Photo> {
    let (name, own) = &samples.people[0];
    let (_, strangers) = &samples.people[1];
    let own = own[1..].iter().map(|file| (file, name.as_str()));
    own.chain([(&strangers[0], "unknown")])
        .map(|(file, name)| {
            let mut jpeg = Vec::new();
            let small = image::open(file).unwrap().thumbnail(512, 512);
            let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 85);
            small.write_with_encoder(encoder).unwrap();
            Photo {
                jpeg,
                name: name.to_owned(),
            }
        })
        .collect()
}

/// What a run came to.
struct Run {
    most: u64,
    first_submission: Instant,
    last_answer: Instant,
}

/// Sends all photographs, checks every answer, and waits until the fleet is back at zero.
async fn run(service: &Service, photos: Vec<Photo>) -> Run {
    let photos = Arc::new(photos);
    let next = Arc::new(AtomicUsize::new(0));
    let first_submission = Instant::now();
    let senders: Vec<_> = (0..CONCURRENCY)
        .map(|_| {
            let (photos, next) = (Arc::clone(&photos), Arc::clone(&next));
            let (http, url) = (service.http.clone(), service.at("/v1/recognize"));
            tokio::spawn(async move {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= REQUESTS {
                        return;
                    }
                    let photo = &photos[n % photos.len()];
                    let form = Form::new().part("image", jpeg(&format!("{n}.jpg"), &photo.jpeg));
                    let sent = http
                        .post(&url)
                        .timeout(Duration::from_secs(310))
                        .multipart(form);
                    let answer = sent.send().await.unwrap();
                    let status = answer.status();
                    let body: Value = answer.json().await.unwrap();
                    assert_eq!(status, 200, "photograph {n}: {body}");
                    let face = &body["faces"][0];
                    let name = face["person"]["name"].as_str();
                    let name = name.or(face["decision"].as_str());
                    assert_eq!(name, Some(photo.name.as_str()), "photograph {n}: {body}");
                }
            })
        })
        .collect();
    let mut last_answer = first_submission;
    let mut most = 0;
    tokio::select! {
        () = async {
            for sender in senders {
                sender.await.unwrap();
            }
            last_answer = Instant::now();
        } => {}
        () = async {
            loop {
                most = service.instances().await.max(most);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        } => {}
    }
    until("the fleet is back at zero", async || {
        service.instances().await == 0
    })
    .await;
    Run {
        most,
        first_submission,
        last_answer,
    }
}

/// Everything that was asked lies in both buckets, rightly answered.
async fn all_is_stored(installation: &Installation, server: &moto::Server, photos: &[String]) {
    let (input, output) = (
        installation.bucket(server, "InBucket"),
        installation.bucket(server, "OutBucket"),
    );
    let (inputs, outputs) = (objects(&input).await, objects(&output).await);
    // One more was enrolled: its upload is deleted, or kept until it is old where S3 failed then.
    assert!((REQUESTS..=REQUESTS + 1).contains(&inputs.len()));
    assert_eq!(outputs.len(), REQUESTS);
    for key in outputs.keys() {
        let stored = output.get(key).await.unwrap().bytes().await.unwrap();
        let result: Value = serde_json::from_slice(&stored).unwrap();
        let n: usize = key
            .filename()
            .unwrap()
            .strip_suffix(".json")
            .unwrap()
            .parse()
            .unwrap();
        let face = &result["faces"][0];
        let name = face["person"]["name"]
            .as_str()
            .or(face["decision"].as_str());
        let expected = &photos[n % photos.len()];
        assert_eq!(name, Some(expected.as_str()), "{key}");
    }
}

async fn nothing_is_queued(service: &Service) -> bool {
    let queue = &service.status().await["queue"];
    queue["visible"] == 0 && queue["in_flight"] == 0
}

/// Enrols the first person, and forgets what the controller has learned from that: how fast this
/// machine boots instances is not what the tests are about.
async fn enrol(installation: &Installation, server: &moto::Server, samples: &SamplePhotographs) {
    let mut service = installation
        .start("up", &installation.settings(FLEET, EC2))
        .await;
    let (name, photos) = &samples.people[0];
    let enrolled = service.enroll(name, &[&read(&photos[0])]).await;
    assert_eq!(enrolled.status, 201, "{}", enrolled.text());
    until("the enrolment's worker is gone", async || {
        service.instances().await == 0
    })
    .await;
    service.signal("-TERM");
    assert!(service.ends().await.success());
    let state = installation.bucket(server, "StateBucket");
    state
        .delete(&Path::from("status/learned.json"))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_photographs_go_through_a_fleet_of_fifteen() {
    let Some((server, samples)) = prerequisites() else {
        return;
    };
    // Without rules it passes everything on, and tells when calls were made.
    let proxy = FaultProxy::start(server.endpoint(), 1);
    let installation = Installation::create(server, proxy.endpoint()).await;
    enrol(&installation, server, &samples).await;
    let mut service = installation
        .start("up", &installation.settings(FLEET, EC2))
        .await;
    let (launches, ends) = (
        proxy.calls("RunInstances"),
        proxy.calls("TerminateInstances"),
    );
    let photos = photos(&samples);
    let names: Vec<_> = photos.iter().map(|p| p.name.clone()).collect();
    let run = run(&service, photos).await;
    assert_eq!(run.most, INSTANCES, "0 to 15 and not beyond");
    all_is_stored(&installation, server, &names).await;
    until("the queue is empty", async || {
        nothing_is_queued(&service).await
    })
    .await;
    assert_eq!(service.status().await["queue"]["dead_letter"], 0);

    let reaction = proxy.times("RunInstances")[launches] - run.first_submission;
    let scale_in = proxy.times("TerminateInstances")[ends..]
        .iter()
        .rev()
        .find_map(|at| at.checked_duration_since(run.last_answer));
    let cpu = &service.status().await["cpu_s"];
    println!(
        "first submission to RunInstances {}, last answer to the last TerminateInstances {}, \
         {} boots, cpu_s {cpu}",
        seconds(reaction),
        scale_in.map_or("none".to_owned(), seconds),
        installation.hypervisor.booted_total(),
    );
    service.signal("-TERM");
    assert!(service.ends().await.success());
    until("every instance has drained", async || {
        installation.hypervisor.alive().is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_right_and_given_once_on_a_bad_day() {
    let Some((server, samples)) = prerequisites() else {
        return;
    };
    let proxy = FaultProxy::start(server.endpoint(), 7);
    let installation = Installation::create(server, proxy.endpoint()).await;
    enrol(&installation, server, &samples).await;
    let service = installation
        .start("up", &installation.settings(FLEET, EC2))
        .await;
    let some = When::Probability(0.02);
    let rules = [
        proxy.inject(Calls::To(Aws::S3), some, Fault::InternalError),
        proxy.inject(Calls::To(Aws::S3), some, Fault::Throttled),
        proxy.inject(Calls::To(Aws::S3), some, Fault::ResetBefore),
        proxy.inject(Calls::To(Aws::S3), some, Fault::ResetAfter),
        proxy.inject(Calls::To(Aws::S3), some, Fault::TruncatedBody),
        proxy.inject(
            Calls::To(Aws::S3),
            When::Probability(0.01),
            Fault::Delay(Duration::from_secs(2)),
        ),
        proxy.inject(Calls::To(Aws::Sqs), some, Fault::InternalError),
        proxy.inject(Calls::To(Aws::Sqs), some, Fault::Unavailable),
        proxy.inject(Calls::To(Aws::Sqs), some, Fault::Throttled),
        proxy.inject(Calls::To(Aws::Sqs), some, Fault::ResetBefore),
        proxy.inject(Calls::To(Aws::Sqs), some, Fault::ResetAfter),
        proxy.inject(
            Calls::Of("SendMessageBatch"),
            When::Probability(0.1),
            Fault::Repeated,
        ),
        proxy.inject(
            Calls::Of("DeleteMessageBatch"),
            When::Probability(0.1),
            Fault::DeletionLost,
        ),
        proxy.inject(
            Calls::Of("RunInstances"),
            When::Next(1),
            Fault::InsufficientInstanceCapacity,
        ),
        proxy.inject(
            Calls::Of("DescribeInstances"),
            When::Probability(0.1),
            Fault::Throttled,
        ),
    ];
    let photos = photos(&samples);
    let names: Vec<_> = photos.iter().map(|p| p.name.clone()).collect();
    let run = run(&service, photos).await;
    proxy.clear();
    let hits: Vec<_> = rules.iter().map(|rule| rule.hits()).collect();
    println!(
        "faults {hits:?}, most instances {}, {} to the last answer",
        run.most,
        seconds(run.last_answer - run.first_submission)
    );
    assert!(run.most <= INSTANCES, "{} instances", run.most);
    assert!(
        hits[..13].iter().sum::<usize>() > 20,
        "the day was bad: {hits:?}"
    );
    assert!(
        hits[11] > 0 && hits[12] > 0 && hits[13] > 0,
        "sent twice, deletion forgotten, no capacity: {hits:?}"
    );
    all_is_stored(&installation, server, &names).await;
    // Answered requests whose deletion was forgotten come back, and go with the next ones.
    let (name, photos) = &samples.people[0];
    let photo = read(&photos[1]);
    until("the queue is empty", async || {
        assert_eq!(service.recognize(&photo).await.name(), *name);
        // It is deleted a little after its answer.
        let empty = until("it is empty now", async || {
            nothing_is_queued(&service).await
        });
        timeout(Duration::from_secs(1), empty).await.is_ok()
    })
    .await;
    // Of requests that were answered, as was seen: they came back more often than is tolerated.
    println!(
        "set aside: {}",
        service.status().await["queue"]["dead_letter"]
    );
}
