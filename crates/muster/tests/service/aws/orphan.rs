//! Instances whose controller is gone.

use aws_sdk_ec2::types::Filter;
use muster_testbed::proxy::{Calls, Fault, FaultProxy, Rule, When};
use muster_testbed::{moto, sdk_config};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use reqwest::multipart::Form;
use serde_json::Value;

use super::installation::{Installation, objects, prerequisites};
use crate::support::{Service, jpeg, read, until};

/// Looks at the lease that a worker has in more than the time after which it counts as orphaned.
const MANY: usize = 20;

/// The ids and states of the installation's instances, those that were terminated too.
async fn states(installation: &Installation, server: &moto::Server) -> Vec<(String, String)> {
    let ours = Filter::builder()
        .name("tag:muster:deployment")
        .values(&installation.outputs["Deployment"]);
    let ec2 = aws_sdk_ec2::Client::new(&sdk_config(server.endpoint()));
    let listed = ec2.describe_instances().filters(ours.build()).send().await;
    let listed = listed.unwrap();
    let instances = listed.reservations().iter().flat_map(|r| r.instances());
    instances
        .map(|instance| {
            let state = instance.state().unwrap().name().unwrap();
            let id = instance.instance_id().unwrap();
            (id.to_owned(), state.as_str().to_owned())
        })
        .collect()
}

async fn count(installation: &Installation, server: &moto::Server, state: &str) -> usize {
    let states = states(installation, server).await;
    states.iter().filter(|(_, now)| now == state).count()
}

/// An installation whose workers alone call AWS through a proxy, and its service with so many workers.
async fn installed(
    server: &moto::Server,
    proxy: &FaultProxy,
    workers: usize,
) -> (Installation, String, Service) {
    let timeout = [("MUSTER_EC2__ORPHAN_TIMEOUT_S", "5")];
    let installation = Installation::create_with(server, proxy.endpoint(), &timeout).await;
    let settings = installation.settings(
        &format!("min_instances = {workers}\nmax_instances = {workers}"),
        "expected_boot_s = 1.0\nbilling_minimum_s = 0.0",
    );
    let settings = settings.replace(proxy.endpoint(), server.endpoint());
    let service = installation.start("up", &settings).await;
    until("the workers run", async || {
        service.running().await.len() == workers
    })
    .await;
    (installation, settings, service)
}

async fn until_hit(rule: &Rule, times: usize) {
    until("there were so many calls", async || rule.hits() >= times).await;
}

#[tokio::test]
async fn idle_instances_without_a_controller_power_off_and_a_busy_one_finishes_first() {
    let Some((server, samples)) = prerequisites() else {
        return;
    };
    let proxy = FaultProxy::start(server.endpoint(), 1);
    let (installation, _, mut service) = installed(server, &proxy, 2).await;
    // One of them is at it for as long as its result can not be stored.
    let storing = proxy.inject(Calls::Of("PutObject"), When::Always, Fault::Unavailable);
    let photo = read(&samples.people[0].1[0]);
    let form = Form::new().part("image", jpeg("photo.jpg", &photo));
    assert_eq!(service.post("/v1/jobs", form).await.status, 202);
    until_hit(&storing, 1).await;
    service.signal("-KILL");
    service.ends().await;

    until("the idle one is terminated", async || {
        count(&installation, server, "terminated").await == 1
    })
    .await;
    let output = installation.bucket(server, "OutBucket");
    assert!(objects(&output).await.is_empty());
    assert_eq!(count(&installation, server, "running").await, 1);
    proxy.clear();
    until("the busy one has finished and is terminated", async || {
        count(&installation, server, "terminated").await == 2
    })
    .await;
    assert_eq!(objects(&output).await.len(), 1);
    for (id, _) in states(&installation, server).await {
        let console = installation.hypervisor.console(&id);
        assert!(console.contains("no controller acted"), "{console}");
    }
}

#[tokio::test]
async fn an_instance_stays_where_the_lease_can_not_be_read_and_where_a_controller_acts() {
    let Some((server, _)) = prerequisites() else {
        return;
    };
    let proxy = FaultProxy::start(server.endpoint(), 1);
    let (installation, settings, mut service) = installed(server, &proxy, 1).await;
    let denied = Fault::Error {
        status: 403,
        code: "AccessDenied",
    };
    let reading = proxy.inject(Calls::Of("GetObject"), When::Always, denied);
    // So that the next controller need not wait.
    service.signal("-TERM");
    assert!(service.ends().await.success());
    until_hit(&reading, MANY).await;
    assert_eq!(count(&installation, server, "running").await, 1);

    let _service = installation.start("up", &settings).await;
    let state = installation.bucket(server, "StateBucket");
    let lease = Path::from("status/controller-lease.json");
    until("another controller acts", async || {
        let lease = state.get(&lease).await.unwrap().bytes().await.unwrap();
        let lease: Value = serde_json::from_slice(&lease).unwrap();
        lease["released"] == false
    })
    .await;
    proxy.clear();
    let looks = proxy.calls("GetObject");
    until("it has looked often", async || {
        proxy.calls("GetObject") >= looks + MANY
    })
    .await;
    assert_eq!(count(&installation, server, "running").await, 1);
    assert_eq!(installation.hypervisor.booted_total(), 1);
}
