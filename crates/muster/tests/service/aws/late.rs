//! A client that gives up before a worker has booted.

use std::time::Duration;

use muster_testbed::proxy::{Calls, Fault, FaultProxy, When};

use super::installation::{Installation, prerequisites};
use crate::support::{Answer, read, until};

#[tokio::test]
async fn a_request_whose_client_gave_up_is_answered_all_the_same() {
    let Some((server, samples)) = prerequisites() else {
        return;
    };
    let proxy = FaultProxy::start(server.endpoint(), 1);
    let installation = Installation::create(server, proxy.endpoint()).await;
    // The queue's own count of one is within what may be a phantom.
    let settings = installation.settings(
        "max_instances = 1\nrequest_timeout_s = 3.0\nkeep_alive = \"fixed\"\nidle_grace_s = 0.0",
        "expected_boot_s = 1.0\nbilling_minimum_s = 0.0",
    );
    let service = installation.start("up", &settings).await;
    // The client waits long enough to have its photograph queued, and less than a launch takes.
    let slow = Fault::Delay(Duration::from_secs(5));
    proxy.inject(Calls::Of("RunInstances"), When::Always, slow);
    let late = service.recognize(&read(&samples.people[0].1[0])).await;
    assert_eq!(late.status, 504, "{}", late.text());
    let job = late.json()["job"].as_str().unwrap().to_owned();
    until("the job is done", async || {
        let answer = service.http.get(service.at(&job)).send().await.unwrap();
        Answer::read(answer).await.json()["state"] == "done"
    })
    .await;
    until("the fleet is back at zero", async || {
        service.instances().await == 0
    })
    .await;
}
