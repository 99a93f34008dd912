//! An instance whose worker is alive and does nothing.

use std::time::Duration;

use super::installation::{Installation, prerequisites};
use crate::support::{read, until};

#[tokio::test]
async fn a_stopped_worker_is_replaced_and_its_requests_are_answered() {
    let Some((server, samples)) = prerequisites() else {
        return;
    };
    let timeout = [("MUSTER_EC2__HUNG_TIMEOUT_S", "2")];
    let installation = Installation::create_with(server, server.endpoint(), &timeout).await;
    let settings = installation.settings(
        "min_instances = 1\nmax_instances = 2\nvisibility_timeout_s = 2.0",
        "expected_boot_s = 1.0\nbilling_minimum_s = 0.0\nhung_timeout_s = 2.0",
    );
    let service = installation.start("up", &settings).await;
    let first = service.first_running().await;
    let photo = read(&samples.people[0].1[0]);
    assert!(installation.hypervisor.freeze(&first));
    let answers = futures::future::join_all((0..3).map(|_| service.recognize(&photo)));
    let answers = tokio::time::timeout(Duration::from_secs(40), answers).await;
    for answer in answers.expect("within the time that a client waits") {
        assert_eq!(answer.name(), "unknown");
    }
    until("the stopped one has ended", async || {
        !installation.hypervisor.alive().contains(&first)
    })
    .await;
    assert!(!service.running().await.contains(&first));
}
