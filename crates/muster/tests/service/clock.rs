//! A clock that is a day off, either way, and set right again: nothing is lost, and nothing hangs.
//!
//! libfaketime gives a service and its workers another time than the files of the data folder have, as on
//! a file system of another machine.

use std::path::PathBuf;

use reqwest::multipart::Form;
use tokio::process::Command;

use crate::keys;
use crate::support::{Answer, Service, client, jpeg, muster, read, samples, until, workers_on};

const TOML: &str = "max_instances = 1\nvisibility_timeout_s = 2.0\nmax_receives = 20";

/// The library; `None`, said visibly, where it is not here.
fn library() -> Option<PathBuf> {
    let named = std::env::var_os("MUSTER_FAKETIME").map(PathBuf::from);
    let found = named.filter(|library| library.is_file());
    if found.is_none() {
        assert!(
            !muster_testbed::in_ci(),
            "libfaketime is needed in CI: set MUSTER_FAKETIME to it, as `make test` does"
        );
        eprintln!("SKIPPED: MUSTER_FAKETIME names no libfaketime: run `make test-servers`");
    }
    found
}

async fn submit(service: &Service, photo: &[u8]) -> String {
    let form = Form::new().part("image", jpeg("a.jpg", photo));
    let job = service.post("/v1/jobs", form).await;
    assert_eq!(job.status, 202, "{}", job.text());
    job.json()["id"].as_str().unwrap().to_owned()
}

async fn are_done(service: &Service, jobs: &[String], name: &str) {
    for id in jobs {
        let place = service.at(&format!("/v1/jobs/{id}"));
        until("the job is done", async || {
            let job = Answer::read(service.http.get(&place).send().await.unwrap()).await;
            assert_eq!(job.status, 200, "{}", job.text());
            let job = job.json();
            assert_ne!(job["state"], "failed", "{job}");
            if job["state"] == "done" {
                assert_eq!(job["result"]["faces"][0]["person"]["name"], *name, "{job}");
            }
            job["state"] == "done"
        })
        .await;
    }
}

async fn stop(mut service: Service) {
    service.signal("-TERM");
    assert!(service.ends().await.success());
}

/// State of the true time under the wrong clock, and state of that under the true time again.
async fn nothing_is_lost(offset: &str) {
    let (Some(library), Some(samples)) = (library(), samples()) else {
        return;
    };
    let off = || -> Command {
        let mut command = muster();
        command
            .env("LD_PRELOAD", &library)
            .env("FAKETIME", offset)
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1");
        command
    };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let key = keys::create(&data, &["--scope", "admin"]).await;
    let (name, photos) = &samples.people[0];
    let photo = read(&photos[1]);

    let service = Service::start("up", &data, TOML).await;
    assert_eq!(service.enroll(name, &[&read(&photos[0])]).await.status, 201);
    let (other, others) = &samples.people[1];
    let ben = service.enroll(other, &[&read(&others[0])]).await.json();
    let ben = format!("/v1/people/{}", ben["id"].as_str().unwrap());
    let done = [submit(&service, &photo).await];
    are_done(&service, &done, name).await;
    stop(service).await;
    // No worker comes to these.
    let service = Service::start("web", &data, TOML).await;
    let waiting = [
        submit(&service, &photo).await,
        submit(&service, &photo).await,
    ];
    stop(service).await;

    let mut service = Service::start_as(off(), "up", &data, TOML).await;
    are_done(&service, &waiting, name).await;
    are_done(&service, &done, name).await;
    assert_eq!(service.recognize(&photo).await.name(), *name);
    let people = client(Default::default()).get(service.at("/v1/people"));
    let people = Answer::read(people.bearer_auth(&key).send().await.unwrap()).await;
    assert_eq!(people.json()["total"], 2, "{}", people.text());
    let deleted = service.http.delete(service.at(&ben)).send().await.unwrap();
    let deleted = Answer::read(deleted).await;
    assert_eq!(deleted.status, 200, "{}", deleted.text());
    let mut cut_off = Vec::new();
    for _ in 0..12 {
        cut_off.push(submit(&service, &photo).await);
    }
    until("a worker has some of them", async || {
        service.status().await["queue"]["in_flight"].as_u64() > Some(0)
    })
    .await;
    service.signal("-KILL");
    service.ends().await;
    until("the workers have ended", async || {
        workers_on(&data).is_empty()
    })
    .await;

    let service = Service::start("up", &data, TOML).await;
    are_done(&service, &cut_off, name).await;
    are_done(&service, &waiting, name).await;
    let gone = service.http.get(service.at(&ben)).send().await.unwrap();
    assert_eq!(gone.status(), 404);
    let status = service.status().await;
    assert_eq!(status["gallery"]["people"], 1, "{status}");
    assert_eq!(status["queue"]["dead_letter"], 0, "{status}");
    stop(service).await;
}

#[tokio::test]
async fn a_clock_that_is_a_day_ahead_loses_nothing() {
    nothing_is_lost("+1d").await;
}

#[tokio::test]
async fn a_clock_that_is_a_day_behind_loses_nothing() {
    nothing_is_lost("-1d").await;
}
