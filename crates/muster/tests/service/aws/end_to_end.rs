//! A hundred photographs at a time, on a fleet that goes 0, 15, 0 as the system did that Muster came
//! from; with a quiet AWS and with one on a bad day.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use muster_recognize::models::SamplePhotographs;
use muster_testbed::moto;
use muster_testbed::proxy::{Calls, Fault, FaultProxy, Service as Aws, When};
use object_store::ObjectStoreExt;
use reqwest::multipart::Form;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::timeout;

use super::installation::{Installation, objects, prerequisites, seconds};
use crate::support::{LIMIT, Service, jpeg, read, until};

const REQUESTS: usize = 200;
const CONCURRENCY: usize = 100;
const INSTANCES: u64 = 15;
/// How long after the last answer the fleet may still be there, where this test has the machine to
/// itself.
const BACK_TO_ZERO: Duration = Duration::from_secs(2);

/// An instance for each request, and none without.
const FLEET: &str = "max_instances = 15\nscaling = { requests_per_instance = 1 }\n\
                     keep_alive = \"fixed\"\nidle_grace_s = 0.0\nrequest_timeout_s = 300.0";
const EC2: &str = "billing_minimum_s = 0.0";

/// Held while a fleet of fifteen has a hundred photographs: two at one time starve each other on a small
/// machine, until photographs count as received too often.
static FULL_FLEET: Mutex<()> = Mutex::const_new(());

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

/// What a burst came to.
struct Burst {
    first_submission: Instant,
    last_answer: Instant,
    /// Most instances that EC2 had at one time, and what all of them were called.
    most: usize,
    names: BTreeSet<String>,
    /// From the last answer until EC2 had none that was pending or running.
    gone: Duration,
}

/// Sends photographs, checks every answer, and waits until the fleet is back at zero.
async fn burst(
    installation: &Installation,
    server: &'static moto::Server,
    service: &Service,
    photos: &Arc<Vec<Photo>>,
    numbers: Range<usize>,
) -> Burst {
    let deployment = installation.outputs["Deployment"].clone();
    let instances = move || server.instances("muster:deployment", &deployment);
    let before: BTreeSet<_> = instances().into_iter().map(|i| i.id).collect();
    let next = Arc::new(AtomicUsize::new(numbers.start));
    let first_submission = Instant::now();
    let senders: Vec<_> = (0..CONCURRENCY)
        .map(|_| {
            let (photos, next) = (Arc::clone(photos), Arc::clone(&next));
            let (http, url) = (service.http.clone(), service.at("/v1/recognize"));
            let end = numbers.end;
            tokio::spawn(async move {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= end {
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
    let answers = async {
        for sender in senders {
            sender.await.unwrap();
        }
        Instant::now()
    };
    let (answered, mut until_answered) = tokio::sync::oneshot::channel();
    let watch = tokio::task::spawn_blocking(move || {
        let (mut most, mut names, mut last_answer) = (0, BTreeSet::new(), None);
        loop {
            let asked = Instant::now();
            let fresh = instances().into_iter().filter(|i| !before.contains(&i.id));
            let fresh: Vec<moto::Instance> = fresh.collect();
            let up = fresh
                .iter()
                .filter(|i| ["pending", "running"].contains(&&*i.state));
            let up = up.count();
            most = most.max(up);
            names.extend(fresh.into_iter().filter_map(|i| i.name));
            if last_answer.is_none() {
                match until_answered.try_recv() {
                    Ok(at) => last_answer = Some(at),
                    Err(TryRecvError::Empty) => {}
                    // A sender has failed: the test ends, once this does.
                    Err(TryRecvError::Closed) => return (most, names, Duration::ZERO),
                }
            }
            if let Some(at) = last_answer
                && up == 0
            {
                return (most, names, asked.saturating_duration_since(at));
            }
            let since = last_answer.map_or(Duration::ZERO, |at: Instant| at.elapsed());
            assert!(
                since < LIMIT,
                "{up} instances are left {since:?} after the last answer"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let last_answer = answers.await;
    answered.send(last_answer).unwrap();
    let (most, names, gone) = watch.await.unwrap();
    until("the fleet's status says so", async || {
        service.instances().await == 0
    })
    .await;
    Burst {
        first_submission,
        last_answer,
        most,
        names,
        gone,
    }
}

/// The names of the original's instances.
fn original_names() -> BTreeSet<String> {
    let names = (1..=INSTANCES).map(|n| format!("app-tier-instance-{n}"));
    names.collect()
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

/// Enrols the first person. What the controller learns from that is kept.
async fn enrol(installation: &Installation, samples: &SamplePhotographs) {
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
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_photographs_take_the_fleet_to_fifteen_and_back_each_time() {
    let Some((server, samples)) = prerequisites() else {
        return;
    };
    let _fleet = FULL_FLEET.lock().await;
    // Without rules it passes everything on, and tells when calls were made.
    let proxy = FaultProxy::start(server.endpoint(), 1);
    let installation = Installation::create(server, proxy.endpoint()).await;
    enrol(&installation, &samples).await;
    let mut service = installation
        .start("up", &installation.settings(FLEET, EC2))
        .await;
    let photos = Arc::new(photos(&samples));
    for half in [0..REQUESTS / 2, REQUESTS / 2..REQUESTS] {
        let launches = proxy.calls("RunInstances");
        let burst = burst(&installation, server, &service, &photos, half).await;
        let reaction = proxy.times("RunInstances")[launches] - burst.first_submission;
        println!(
            "first submission to RunInstances {}, to the last answer {}, from there to zero {}",
            seconds(reaction),
            seconds(burst.last_answer - burst.first_submission),
            seconds(burst.gone),
        );
        assert_eq!(burst.most as u64, INSTANCES, "0 to 15 and not beyond");
        assert_eq!(burst.names, original_names());
    }
    let names: Vec<_> = photos.iter().map(|p| p.name.clone()).collect();
    all_is_stored(&installation, server, &names).await;
    until("the queue is empty", async || {
        nothing_is_queued(&service).await
    })
    .await;
    let status = service.status().await;
    assert_eq!(status["queue"]["dead_letter"], 0);
    println!(
        "{} boots, cpu_s {}",
        installation.hypervisor.booted_total(),
        status["cpu_s"]
    );
    service.signal("-TERM");
    assert!(service.ends().await.success());
    until("every instance has drained", async || {
        installation.hypervisor.alive().is_empty()
    })
    .await;
}

/// Ten bursts at each boot time, with whatever was learned at the one before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: run `make test-long`"]
async fn ten_bursts_of_ten_take_the_fleet_to_fifteen_and_back_at_every_boot_time() {
    let Some((server, samples)) = prerequisites() else {
        return;
    };
    let proxy = FaultProxy::start(server.endpoint(), 1);
    let installation = Installation::create(server, proxy.endpoint()).await;
    let photos = Arc::new(photos(&samples));
    installation
        .hypervisor
        .set_boot_delay(Duration::from_millis(500));
    enrol(&installation, &samples).await;
    let service = installation
        .start("up", &installation.settings(FLEET, EC2))
        .await;
    println!(
        "| boot, s | burst | instances | named 1 to 15 | first launch, s | last answer, s | last TerminateInstances, s after it | none pending or running, s after it |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let mut missed = 0;
    for boot_s in [0.5, 20.0, 5.0] {
        let boot = Duration::from_secs_f64(boot_s);
        installation.hypervisor.set_boot_delay(boot);
        for n in 1..=10 {
            let (launches, ends) = (
                proxy.calls("RunInstances"),
                proxy.calls("TerminateInstances"),
            );
            let burst = burst(&installation, server, &service, &photos, 0..100).await;
            let launch = proxy.times("RunInstances")[launches] - burst.first_submission;
            let ends = proxy.times("TerminateInstances").split_off(ends);
            let last_end = ends.last().expect("the fleet was ended");
            let last_end = last_end.saturating_duration_since(burst.last_answer);
            let named = burst.names == original_names();
            println!(
                "| {boot_s} | {n} | {} | {named} | {:.2} | {:.2} | {:.2} | {:.2} |",
                burst.most,
                launch.as_secs_f64(),
                (burst.last_answer - burst.first_submission).as_secs_f64(),
                last_end.as_secs_f64(),
                burst.gone.as_secs_f64(),
            );
            let exact = burst.most as u64 == INSTANCES && named;
            missed += u32::from(!exact || burst.gone >= BACK_TO_ZERO);
        }
    }
    assert_eq!(missed, 0, "bursts of 30");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_right_and_given_once_on_a_bad_day() {
    let Some((server, samples)) = prerequisites() else {
        return;
    };
    let _fleet = FULL_FLEET.lock().await;
    let proxy = FaultProxy::start(server.endpoint(), 7);
    let installation = Installation::create(server, proxy.endpoint()).await;
    enrol(&installation, &samples).await;
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
    let photos = Arc::new(photos(&samples));
    let names: Vec<_> = photos.iter().map(|p| p.name.clone()).collect();
    let burst = burst(&installation, server, &service, &photos, 0..REQUESTS).await;
    proxy.clear();
    let hits: Vec<_> = rules.iter().map(|rule| rule.hits()).collect();
    println!(
        "faults {hits:?}, most instances {}, {} to the last answer",
        burst.most,
        seconds(burst.last_answer - burst.first_submission)
    );
    assert!(burst.most as u64 <= INSTANCES, "{} instances", burst.most);
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
