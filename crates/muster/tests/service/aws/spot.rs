//! EC2 takes a Spot instance back, and what a worker that drains does across a network.

use std::process::Stdio;

use muster_testbed::proxy::FaultProxy;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use super::installation::{Installation, prerequisites};
use crate::support::{LIMIT, kill, muster, read, until, write_config};

#[tokio::test]
async fn an_interrupted_worker_drains_and_another_takes_its_place() {
    let Some((server, samples)) = prerequisites() else {
        return;
    };
    let proxy = FaultProxy::start(server.endpoint(), 1);
    let installation = Installation::create(server, proxy.endpoint()).await;
    // Nothing but the interruption ends a worker here.
    let settings = installation.settings(
        "min_instances = 1\nmax_instances = 2\nkeep_alive = \"fixed\"\nidle_grace_s = 60.0",
        "expected_boot_s = 1.0\nbilling_minimum_s = 0.0",
    );
    let service = installation.start("up", &settings).await;
    let first = service.first_running().await;
    let photo = read(&samples.people[0].1[0]);
    assert_eq!(service.recognize(&photo).await.name(), "unknown");

    assert!(installation.hypervisor.interrupt(&first));
    until("another worker runs in its place", async || {
        let now = service.running().await;
        !now.is_empty() && !now.contains(&first)
    })
    .await;
    let console = installation.hypervisor.console(&first);
    assert!(console.contains("reclaims this Spot instance"), "{console}");
    until("the interrupted one has drained", async || {
        !installation.hypervisor.alive().contains(&first)
    })
    .await;
    assert_eq!(service.recognize(&photo).await.name(), "unknown");
}

/// What its last long poll brings is another's.
#[tokio::test]
async fn a_worker_that_drains_takes_nothing_more() {
    let Some((server, samples)) = prerequisites() else {
        return;
    };
    let installation = Installation::create(server, server.endpoint()).await;
    let settings = installation.stores_and_queues() + "visibility_timeout_s = 10.0\n";
    let web = installation.start("web", &settings).await;
    // Before the workers alone: it tells when one polls.
    let proxy = FaultProxy::start(server.endpoint(), 1);
    let settings = settings.replace(server.endpoint(), proxy.endpoint());
    let worker = async || -> Child {
        let data = installation.data();
        let config = write_config(&data, "worker", &settings);
        let mut worker = muster();
        worker.arg("worker").arg("--data").arg(&data);
        worker.arg("--config").arg(&config).stdout(Stdio::piped());
        let mut worker = worker.spawn().unwrap();
        let mut lines = BufReader::new(worker.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(LIMIT, lines.next_line()).await;
        assert_eq!(line.unwrap().unwrap().as_deref(), Some("ready"));
        worker
    };
    let mut first = worker().await;
    until("it polls", async || proxy.calls("ReceiveMessage") == 1).await;
    kill("-TERM", first.id().unwrap());
    let photo = read(&samples.people[0].1[0]);
    let mut answer = std::pin::pin!(web.recognize(&photo));
    tokio::select! {
        _ = &mut answer => panic!("a worker that drains has answered it"),
        ended = first.wait() => assert!(ended.unwrap().success()),
    }
    let _second = worker().await;
    assert_eq!(answer.await.name(), "unknown");
}
