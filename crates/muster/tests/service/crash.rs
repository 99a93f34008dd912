//! Crashes are crashes: processes are killed, and nothing is lost or left behind.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use muster_queue::{Queue, SqliteQueues};
use reqwest::multipart::Form;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::{
    Answer, LIMIT, Service, jpeg, kill, muster, read, samples, until, workers_on, write_config,
};

/// A worker killed in the middle of a batch loses nothing: one right answer for each request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_workers_under_load_loses_nothing() {
    let Some(samples) = samples() else { return };
    const REQUESTS: usize = 300;
    let service =
        Service::up("max_instances = 2\nvisibility_timeout_s = 2.0\nmax_receives = 20").await;
    let (name, photos) = &samples.people[0];
    assert_eq!(service.enroll(name, &[&read(&photos[0])]).await.status, 201);
    let (known, stranger) = (read(&photos[1]), read(&samples.people[1].1[0]));

    let answered = AtomicUsize::new(0);
    let done = AtomicBool::new(false);
    let next = AtomicUsize::new(0);
    let sender = async || loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        if n >= REQUESTS {
            return;
        }
        let (photo, expected) = if n.is_multiple_of(3) {
            (&stranger, "unknown")
        } else {
            (&known, name.as_str())
        };
        assert_eq!(
            service.recognize(photo).await.name(),
            expected,
            "request {n}"
        );
        answered.fetch_add(1, Ordering::Relaxed);
    };
    let killer = async {
        let mut killed = 0;
        while !done.load(Ordering::Relaxed) {
            let before = answered.load(Ordering::Relaxed);
            until("answers come in", async || {
                answered.load(Ordering::Relaxed) > before + 10 || done.load(Ordering::Relaxed)
            })
            .await;
            // Only while work is in flight, so that each kill hits a batch.
            let in_flight = service.status().await["queue"]["in_flight"]
                .as_u64()
                .unwrap();
            if let Some(&pid) = service.workers().first()
                && in_flight > 0
                && !done.load(Ordering::Relaxed)
            {
                // It may have ended by itself just now.
                let _ = std::process::Command::new("kill")
                    .args(["-KILL", &pid.to_string()])
                    .stderr(std::process::Stdio::null())
                    .status();
                killed += 1;
                if killed == 6 {
                    return killed;
                }
            }
        }
        killed
    };
    let load = async {
        futures::future::join_all((0..20).map(|_| sender())).await;
        done.store(true, Ordering::Relaxed);
    };
    let (killed, ()) = tokio::join!(killer, load);
    assert!(killed >= 3, "the test kills workers: {killed}");
    assert_eq!(
        answered.load(Ordering::Relaxed),
        REQUESTS,
        "one right answer for each request"
    );
    let status = service.status().await;
    assert_eq!(status["requests"]["failed"], 0, "{status}");
    assert_eq!(status["queue"]["dead_letter"], 0, "{status}");
    until("the queue is empty", async || {
        let queue = &service.status().await["queue"];
        queue["visible"] == 0 && queue["in_flight"] == 0
    })
    .await;
}

#[tokio::test]
async fn no_worker_outlives_a_killed_parent_and_the_queue_survives() {
    let Some(samples) = samples() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let toml = "max_instances = 2\nidle_grace_s = 60.0\nvisibility_timeout_s = 2.0";
    let mut service = Service::start("up", &data, toml).await;
    let (name, photos) = &samples.people[0];
    assert_eq!(service.enroll(name, &[&read(&photos[0])]).await.status, 201);
    assert!(!service.workers().is_empty());
    service.signal("-KILL");
    service.ends().await;
    until("the workers have ended", async || {
        workers_on(&data).is_empty()
    })
    .await;

    let service = Service::start("up", &data, toml).await;
    assert_eq!(service.recognize(&read(&photos[1])).await.name(), *name);
}

/// Workers that drain in turn answer what they have received, so that no request is received twice,
/// which would set it aside here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_workers_answer_what_they_have() {
    let Some(samples) = samples() else { return };
    const REQUESTS: usize = 40;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let toml = "max_receives = 1\nvisibility_timeout_s = 30.0";
    let web = Service::start("web", &data, toml).await;
    let photo = read(&samples.people[0].1[0]);
    let answers = futures::future::join_all((0..REQUESTS).map(|_| web.recognize(&photo)));
    let config = write_config(&data, "worker", toml);
    let mut drained = 0;
    let workers = async {
        let answered = async || web.status().await["requests"]["answered"].as_u64();
        let left = async || answered().await < Some(REQUESTS as u64);
        while left().await {
            let before = answered().await;
            let mut worker = muster();
            worker.arg("worker").arg("--data").arg(&data);
            let mut worker = worker.arg("--config").arg(&config).spawn().unwrap();
            // It has three in hand when its first is answered.
            until("the worker answers", async || {
                answered().await > before || !left().await
            })
            .await;
            kill("-TERM", worker.id().unwrap());
            let ended = tokio::time::timeout(LIMIT, worker.wait()).await.unwrap();
            assert!(ended.unwrap().success());
            if left().await {
                drained += 1;
            }
        }
    };
    let (answers, ()) = tokio::join!(answers, workers);
    for answer in answers {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert!(drained > 0, "workers drain while requests wait");
}

/// Boots and the service time are learned from real workers, and outlive the controller.
#[tokio::test]
async fn what_the_controller_learned_survives_a_restart() {
    let Some(samples) = samples() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let photo = read(&samples.people[0].1[0]);
    let learned_after = async |requests: usize| -> serde_json::Value {
        let mut service = Service::start("up", &data, "max_instances = 1").await;
        for _ in 0..requests {
            assert_eq!(service.recognize(&photo).await.status, 200);
        }
        // A stop makes no last look; the worker is let go after one that saw all of this.
        until("the fleet is back at zero", async || {
            service.instances().await == 0
        })
        .await;
        service.signal("-TERM");
        assert!(service.ends().await.success());
        let file = data.join("objects/status/learned.json");
        serde_json::from_slice(&read(&file)).unwrap()
    };
    let count = |learned: &serde_json::Value, what: &str| learned[what].as_array().unwrap().len();

    let first = learned_after(6).await;
    let boots = count(&first, "boots");
    assert!(boots > 0, "{first}");
    let samples = first["service"]["buckets"].as_array();
    assert!(
        samples.is_some_and(|buckets| !buckets.is_empty()),
        "{first}"
    );
    let second = learned_after(1).await;
    assert_eq!(second["service"], first["service"], "kept: {second}");
    assert!(count(&second, "boots") > boots, "kept, and more: {second}");
}

#[tokio::test]
async fn a_stop_answers_what_is_in_flight_first() {
    let Some(samples) = samples() else { return };
    let mut service = Service::up("max_instances = 1").await;
    let photo = read(&samples.people[0].1[0]);
    let (http, url) = (service.http.clone(), service.at("/v1/recognize"));
    let sent: Vec<_> = (0..10)
        .map(|_| {
            let form = reqwest::multipart::Form::new()
                .part("image", crate::support::jpeg("a.jpg", &photo));
            tokio::spawn(http.post(&url).multipart(form).send())
        })
        .collect();
    until("all ten are in flight", async || {
        let status = service.status().await;
        status["requests"]["accepted"] == 10
    })
    .await;
    service.signal("-TERM");
    for answer in sent {
        let answer = answer.await.unwrap().expect("the connection is not cut");
        assert_eq!(answer.status(), 200);
    }
    assert!(service.ends().await.success());
    assert!(service.workers().is_empty());
    assert!(
        service
            .http
            .get(service.at("/healthz"))
            .send()
            .await
            .is_err()
    );
}

/// A photograph that stops every worker is set aside, and its client is told.
#[tokio::test]
async fn a_request_that_keeps_killing_workers_is_set_aside() {
    let Some(samples) = samples() else { return };
    let service = Service::up(
        "max_instances = 1\nvisibility_timeout_s = 1.0\nmax_receives = 2\nprocessing_timeout_s = 0.001",
    )
    .await;
    let answer = service.recognize(&read(&samples.people[0].1[0])).await;
    assert_eq!(answer.status, 500, "{}", answer.text());
    assert_eq!(answer.json()["code"], "recognition.failed");
    until("it is counted as a dead letter", async || {
        service.status().await["queue"]["dead_letter"] == 1
    })
    .await;
    until("the fleet is back at zero", async || {
        service.instances().await == 0
    })
    .await;
}

/// A photograph that ends every worker takes one receive of those that were in hand with it, at most:
/// here a second would set them aside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_keeps_killing_workers_takes_no_other_with_it() {
    let Some(samples) = samples() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let toml = "visibility_timeout_s = 1.0\nmax_receives = 2";
    let web = Service::start("web", &data, toml).await;
    let config = write_config(&data, "worker", toml);
    let worker = |limit: Option<u64>| {
        // Of any size, the memory of a decoded poison is not there: the process aborts.
        let limit = limit.map_or("unlimited".to_owned(), |limit| limit.to_string());
        let mut worker = tokio::process::Command::new("prlimit");
        worker
            .arg(format!("--as={limit}"))
            .arg(env!("CARGO_BIN_EXE_muster"))
            .args(["worker", "--data"])
            .arg(&data)
            .arg("--config")
            .arg(&config)
            .env("MUSTER_LOG", "warn")
            .env("MALLOC_ARENA_MAX", "2")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        worker.spawn().unwrap()
    };
    let idle = {
        let mut worker = worker(None);
        let mut lines = BufReader::new(worker.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(LIMIT, lines.next_line()).await;
        assert_eq!(line.unwrap().unwrap().as_deref(), Some("ready"));
        let status = format!("/proc/{}/status", worker.id().unwrap());
        let status = std::fs::read_to_string(status).unwrap();
        let peak = status.lines().find(|line| line.starts_with("VmPeak:"));
        let peak = peak.unwrap().split_whitespace().nth(1).unwrap();
        peak.parse::<u64>().unwrap() << 10
    };
    let mut poison = Vec::new();
    image::GrayImage::new(7000, 7000)
        .write_to(
            &mut std::io::Cursor::new(&mut poison),
            image::ImageFormat::Png,
        )
        .unwrap();
    let photo = read(&samples.people[0].1[0]);
    let (poison, photo) = (&poison, &photo);
    let innocent = futures::future::join_all((0..2).map(|_| web.recognize(photo)));
    let mut answers = std::pin::pin!(async { tokio::join!(web.recognize(poison), innocent) });
    // All are there before the first worker is.
    let mut ended = 0;
    let waiting = until("all three wait", async || {
        web.status().await["queue"]["visible"] == 3
    });
    tokio::select! {
        _ = &mut answers => panic!("answered by nobody"),
        () = waiting => {}
    }
    let (poison, innocent) = loop {
        let mut worker = worker(Some(idle + (100 << 20)));
        tokio::select! {
            answers = &mut answers => break answers,
            _ = worker.wait() => ended += 1,
        }
    };
    assert_eq!(poison.status, 500, "{}", poison.text());
    assert_eq!(ended, 2, "by the poison, each time that it was received");
    for answer in innocent {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// Somebody removes the reply queue of a web tier that runs, and puts on the request queue what is no
/// request.
#[tokio::test]
async fn a_reply_queue_that_is_removed_is_made_anew_and_what_is_no_request_is_set_aside() {
    let Some(samples) = samples() else { return };
    let service =
        Service::up("max_instances = 1\nmin_instances = 1\nrequest_timeout_s = 20.0").await;
    let photo = read(&samples.people[0].1[0]);
    assert_eq!(service.recognize(&photo).await.status, 200);
    let queues = SqliteQueues::open(&service.data.join("queue.db")).unwrap();
    let names = async || queues.names("resp-queue-").await.unwrap();
    let before = names().await;
    assert_eq!(before.len(), 1);
    queues
        .existing(&before[0])
        .await
        .unwrap()
        .remove()
        .await
        .unwrap();
    until("it is made anew", async || names().await == before).await;
    // The worker knows the one that was removed.
    assert_eq!(service.recognize(&photo).await.status, 200);

    let requests = queues.existing("req-queue").await.unwrap();
    requests
        .send(&["no request".to_owned().into()])
        .await
        .unwrap();
    until("it is set aside", async || {
        let queue = &service.status().await["queue"];
        queue["dead_letter"] == 1 && queue["visible"] == 0 && queue["in_flight"] == 0
    })
    .await;
    assert_eq!(service.recognize(&photo).await.status, 200);
}

#[tokio::test]
async fn a_shared_reply_queue_stays_and_a_job_outlives_the_kill_of_its_web_tier() {
    let Some(samples) = samples() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let toml = "reply_queues = \"shared\"\nmax_instances = 1\nmin_instances = 1";
    let mut service = Service::start("up", &data, toml).await;
    let photo = read(&samples.people[0].1[0]);
    assert_eq!(service.recognize(&photo).await.status, 200);
    let queues = SqliteQueues::open(&data.join("queue.db")).unwrap();
    let names = async || queues.names("resp-queue").await.unwrap();
    assert_eq!(names().await, ["resp-queue"]);
    let form = Form::new().part("image", jpeg("photo.jpg", &photo));
    let job = service.post("/v1/jobs", form).await.json();
    service.signal("-KILL");
    service.ends().await;

    let mut service = Service::start("up", &data, toml).await;
    let job = service.at(&format!("/v1/jobs/{}", job["id"].as_str().unwrap()));
    until("the job is done", async || {
        let answer = service.http.get(&job).send().await.unwrap();
        Answer::read(answer).await.json()["state"] == "done"
    })
    .await;
    assert_eq!(service.recognize(&photo).await.status, 200);
    service.signal("-TERM");
    assert!(service.ends().await.success());
    assert_eq!(names().await, ["resp-queue"]);
}

#[tokio::test]
async fn a_stored_result_is_not_replaced_by_a_failure() {
    let Some(samples) = samples() else { return };
    let service = Service::up(
        "max_instances = 1\nvisibility_timeout_s = 1.0\nmax_receives = 2\nprocessing_timeout_s = 0.001",
    )
    .await;
    let photo = read(&samples.people[0].1[0]);
    let objects = service.data.join("objects");
    let stored = async {
        let mut id = None;
        until("the photograph is stored", async || {
            let mut found = std::fs::read_dir(objects.join("input"))
                .into_iter()
                .flatten();
            id = found.next().map(|entry| entry.unwrap().file_name());
            id.is_some()
        })
        .await;
        let id = id.unwrap().into_string().unwrap();
        // As if a worker had answered and its deletion of the request had been lost.
        let mut result = json!({
            "request_id": id, "image": { "width": 1, "height": 1 }, "model": "sface",
            "faces": [{
                "box": { "x": 0.0, "y": 0.0, "width": 1.0, "height": 1.0 },
                "landmarks": [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]],
                "confidence": 0.9, "decision": "unknown", "person": null, "similarity": null,
                "margin": null, "cutoff": null, "candidates": [], "reasons": ["as stored"],
            }],
            "timing_ms": {},
        });
        for stage in [
            "queue", "fetch", "decode", "detect", "align", "embed", "match", "store", "total",
        ] {
            result["timing_ms"][stage] = json!(0.0);
        }
        let body = result.to_string();
        let folder = objects.join("output").join(id);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("photo.json"), &body).unwrap();
        (folder.join("photo.json"), body)
    };
    let (answer, (file, body)) = tokio::join!(service.recognize(&photo), stored);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["faces"][0]["reasons"][0], "as stored");
    assert_eq!(std::fs::read_to_string(file).unwrap(), body);
}

/// The only worker that there may be is stopped while it holds requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_worker_is_replaced_and_its_requests_are_answered() {
    let Some(samples) = samples() else { return };
    let service = Service::up(
        "max_instances = 1\nmin_instances = 1\nvisibility_timeout_s = 1.0\nhung_timeout_s = 1.0",
    )
    .await;
    let photo = read(&samples.people[0].1[0]);
    assert_eq!(service.recognize(&photo).await.status, 200);
    let stopped = service.workers();
    let stop = async {
        until("requests are in hand", async || {
            let queue = &service.status().await["queue"];
            queue["in_flight"].as_u64() > Some(0)
        })
        .await;
        kill("-STOP", stopped[0]);
    };
    let answers = futures::future::join_all((0..40).map(|_| service.recognize(&photo)));
    let answers = tokio::time::timeout(Duration::from_secs(20), answers);
    let (answers, ()) = tokio::join!(answers, stop);
    for answer in answers.expect("well within the time that a client waits") {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    until("another has its place", async || {
        let workers = service.workers();
        workers.len() == 1 && workers != stopped
    })
    .await;
}

/// A worker that can speak and waits for a disk for ever: here for the other end of a pipe, which
/// stands where the photograph stood.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_disk_hangs_is_replaced() {
    let Some(samples) = samples() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let toml = "max_instances = 1\nvisibility_timeout_s = 1.0\nhung_timeout_s = 1.0\n\
                processing_timeout_s = 2.0\nmax_receives = 1";
    let photo = read(&samples.people[0].1[0]);
    let web = Service::start("web", &data, toml).await;
    let config = write_config(&data, "controller", toml);
    let hang = async {
        until("the request waits for a worker", async || {
            web.status().await["queue"]["visible"] == 1
        })
        .await;
        let mut requests = std::fs::read_dir(data.join("objects/input")).unwrap();
        let file = requests.next().unwrap().unwrap().path().join("photo.jpg");
        std::fs::remove_file(&file).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&file).status();
        assert!(made.unwrap().success());
        let mut controller = muster();
        controller.arg("controller").arg("--data").arg(&data);
        controller.arg("--config").arg(&config).spawn().unwrap()
    };
    // The second worker that receives it sets it aside.
    let (answer, _controller) = tokio::join!(web.recognize(&photo), hang);
    assert_eq!(answer.status, 500, "{}", answer.text());
    assert_eq!(answer.json()["code"], "recognition.failed");
    assert_eq!(web.recognize(&photo).await.status, 200);
}

/// A worker that hangs without work in hand is the one to go, and not the one that works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fleet_shrinks_by_the_worker_that_hangs() {
    let Some(samples) = samples() else { return };
    let service = Service::up(
        "max_instances = 2\nmin_instances = 1\nidle_grace_s = 4.0\nvisibility_timeout_s = 1.0\n\
         hung_timeout_s = 1.0",
    )
    .await;
    let photo = read(&samples.people[0].1[0]);
    let load = futures::future::join_all((0..40).map(|_| service.recognize(&photo)));
    let (_, ()) = tokio::join!(
        load,
        until("two workers run", async || {
            service.status().await["fleet"]["running"] == 2
        })
    );
    let workers = service.workers();
    // The older: a fleet without a sign of it lets the younger go first.
    let (hung, good) = (workers[0], workers[1]);
    kill("-STOP", hung);
    until("one is left", async || service.workers().len() == 1).await;
    assert_eq!(service.workers(), [good]);
    assert_eq!(service.recognize(&photo).await.status, 200);
}

/// A worker that is told to drain ends cleanly, whether its models are loaded, being loaded or not
/// even looked at yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_drains_cleanly_at_any_point_of_its_life() {
    if samples().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for after in [None, None, None, None, Some(50), Some(150), Some(300)] {
        let mut worker = muster()
            .args(["worker", "--data"])
            .arg(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        match after {
            Some(milliseconds) => tokio::time::sleep(Duration::from_millis(milliseconds)).await,
            None => {
                let mut lines = BufReader::new(worker.stdout.take().unwrap()).lines();
                let line = tokio::time::timeout(LIMIT, lines.next_line()).await;
                assert_eq!(line.unwrap().unwrap().as_deref(), Some("ready"));
            }
        }
        kill("-TERM", worker.id().unwrap());
        let status = tokio::time::timeout(LIMIT, worker.wait()).await.unwrap();
        let status = status.unwrap();
        // Before it listens for the signal, the signal itself ends it.
        let ended = status.success() || after.is_some() && status.signal() == Some(15);
        assert!(ended, "{status} after {after:?} ms");
    }
}
