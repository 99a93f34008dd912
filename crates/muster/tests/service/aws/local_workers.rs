//! The web machine's own workers, which answer before any instance has booted.

use std::time::{Duration, Instant};

use futures::future::join_all;
use muster_testbed::proxy::FaultProxy;

use super::installation::{AWS, Installation, bundle, prerequisites, seconds, under_test};
use crate::support::{Service, kill, read, until, workers_on};

/// No instance boots within a test.
const NEVER: Duration = Duration::from_secs(3600);

fn settings(installation: &Installation, local_workers: u32) -> String {
    installation.settings(
        "max_instances = 2\ntarget_wait_s = 0.1\nkeep_alive = \"fixed\"\nidle_grace_s = 0.5\n\
         visibility_timeout_s = 3.0",
        &format!("local_workers = {local_workers}\nbilling_minimum_s = 0.0\nexpected_boot_s = 1.0"),
    )
}

/// The worker of that machine, once it takes work.
async fn worker(service: &Service) -> u32 {
    let mut found = Vec::new();
    until("its worker runs", async || {
        found = workers_on(&service.data);
        found.len() == 1 && service.running().await.len() == 1
    })
    .await;
    found[0]
}

/// How nice a process is to others.
fn nice(pid: u32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.split(' ').nth(18).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_web_machine_answers_before_any_instance_has_booted() {
    let Some((server, samples)) = prerequisites() else {
        return;
    };
    let proxy = FaultProxy::start(server.endpoint(), 1);
    let folder = tempfile::tempdir().unwrap();
    let archive = bundle(folder.path(), &under_test());
    // As in the settings: what a killed worker had comes back after it.
    let short = ["VisibilityTimeout=3".to_owned()];
    let endpoint = proxy.endpoint();
    let installation =
        Installation::of_bundle(server, endpoint, folder, &archive, &short, AWS, &[]).await;
    installation.hypervisor.set_boot_delay(NEVER);
    let mut service = installation.start("up", &settings(&installation, 1)).await;
    let photo = read(&samples.people[0].1[0]);
    let begun = Instant::now();
    assert_eq!(service.recognize(&photo).await.name(), "unknown");
    println!("the first answer from zero: {}", seconds(begun.elapsed()));
    assert!(
        installation.hypervisor.alive().is_empty(),
        "none has booted"
    );
    // A bigger burst is begun here while instances boot. One that is killed loses nothing.
    let burst = (0..12).map(|_| service.recognize(&photo));
    let burst = join_all(burst);
    let killed = async {
        let pid = worker(&service).await;
        let there = service.status().await["fleet"].clone();
        let instances = there["instances"].as_array().unwrap();
        let local = instances.iter().find(|one| one["tier"] == "local");
        assert_eq!(local.unwrap()["state"], "running", "{there}");
        assert_eq!(there["max"], 3, "{there}");
        assert_eq!(nice(pid), nice(service.child.id().unwrap()) + 5);
        kill("-KILL", pid);
        pid
    };
    let (answers, pid) = tokio::join!(burst, killed);
    assert!(answers.iter().all(|answer| answer.name() == "unknown"));
    assert!(proxy.calls("RunInstances") > 0, "instances would help");
    assert!(
        installation.hypervisor.alive().is_empty(),
        "none has booted"
    );
    assert!(!workers_on(&service.data).contains(&pid));

    assert_eq!(service.recognize(&photo).await.name(), "unknown");
    service.signal("-TERM");
    assert!(service.ends().await.success());
    assert!(workers_on(&service.data).is_empty());
}

#[tokio::test]
async fn a_controller_that_is_killed_leaves_no_worker() {
    let Some((server, samples)) = prerequisites() else {
        return;
    };
    let installation = Installation::create(server, server.endpoint()).await;
    installation.hypervisor.set_boot_delay(NEVER);
    let mut service = installation.start("up", &settings(&installation, 1)).await;
    let photo = read(&samples.people[0].1[0]);
    assert_eq!(service.recognize(&photo).await.name(), "unknown");
    service.signal("-KILL");
    service.ends().await;
    until("no worker is left", async || {
        workers_on(&service.data).is_empty()
    })
    .await;
}

/// Figures for the documentation: with and without, on a machine that does nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures: run `make test-long`"]
async fn what_the_web_machines_worker_costs_and_gains() {
    let Some((server, samples)) = prerequisites() else {
        return;
    };
    let photo = read(&samples.people[0].1[0]);
    for local_workers in [0, 1] {
        let installation = Installation::create(server, server.endpoint()).await;
        let service = installation
            .start("up", &settings(&installation, local_workers))
            .await;
        let begun = Instant::now();
        assert_eq!(service.recognize(&photo).await.name(), "unknown");
        println!(
            "{local_workers} local workers: the first answer from zero, instances that boot at once: {}",
            seconds(begun.elapsed())
        );
        if local_workers == 0 {
            continue;
        }
        installation.hypervisor.set_boot_delay(NEVER);
        let p99 = async || {
            let mut took = Vec::new();
            for _ in 0..500 {
                let begun = Instant::now();
                let answer = service.http.get(service.at("/healthz")).send().await;
                assert!(answer.unwrap().status().is_success());
                took.push(begun.elapsed());
            }
            took.sort_unstable();
            took[494]
        };
        let idle = p99().await;
        let burst = async { join_all((0..100).map(|_| service.recognize(&photo))).await };
        let (_, busy) = tokio::join!(burst, p99());
        println!("p99 of /healthz: {idle:?} while it is idle, {busy:?} while it works");
    }
}
