//! EC2 takes a Spot instance back.

use muster_testbed::proxy::FaultProxy;

use super::installation::{Installation, prerequisites};
use crate::support::{read, until};

#[tokio::test]
async fn an_interrupted_worker_drains_and_another_takes_its_place() {
    let Some((server, samples)) = prerequisites() else {
        return;
    };
    let proxy = FaultProxy::start(server.endpoint(), 1);
    let installation = Installation::create(server, proxy.endpoint()).await;
    let settings = installation.settings(
        "min_instances = 1\nmax_instances = 2",
        "expected_boot_s = 1.0\nbilling_minimum_s = 0.0",
    );
    let service = installation.start("up", &settings).await;
    let running = async || -> Vec<String> {
        let status = service.status().await;
        let instances = status["fleet"]["instances"].as_array().unwrap();
        let running = instances.iter().filter(|i| i["state"] == "running");
        running
            .map(|i| i["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut first = String::new();
    until("a worker runs", async || {
        let now = running().await;
        first = now.first().cloned().unwrap_or_default();
        now.len() == 1
    })
    .await;
    let photo = read(&samples.people[0].1[0]);
    assert_eq!(service.recognize(&photo).await.name(), "unknown");

    assert!(installation.hypervisor.interrupt(&first));
    until("another worker runs in its place", async || {
        let now = running().await;
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
