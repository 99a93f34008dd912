//! Several web replicas and one controller, each a process of its own, over S3 and SQS.

use muster_queue::{Queues, SqsQueues};
use muster_testbed::sdk_config;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde_json::Value;

use super::installation::{Installation, prerequisites};
use crate::support::{LIMIT, kill, muster, read, until, write_config};

#[tokio::test]
async fn replicas_share_the_work_and_each_gets_its_own_replies() {
    let Some((server, samples)) = prerequisites() else {
        return;
    };
    let installation = Installation::create(server, server.endpoint()).await;
    let settings = installation.stores_and_queues();
    let data = installation.data();
    let toml = format!("{settings}max_instances = 2\nidle_grace_s = 1.0\n");
    let mut controller = muster()
        .args(["controller", "--config"])
        .arg(write_config(&data, "controller", &toml))
        .arg("--data")
        .arg(&data)
        .spawn()
        .unwrap();
    let mut one = installation.start("web", &settings).await;
    let two = installation.start("web", &settings).await;
    let prefix = &installation.outputs["QueuePrefix"];
    let queues = SqsQueues::new(&sdk_config(server.endpoint()), prefix);
    let reply_queues = async || Queues::names(&queues, "resp-queue-").await.unwrap();
    assert_eq!(reply_queues().await.len(), 2);

    let (name, photos) = &samples.people[0];
    let enrolled = one.enroll(name, &[&read(&photos[0])]).await;
    assert_eq!(enrolled.status, 201, "{}", enrolled.text());
    // Read your writes, at the other replica too.
    let photo = read(&photos[1]);
    for replica in [&two, &one, &two, &one, &two] {
        assert_eq!(replica.recognize(&photo).await.name(), *name);
    }
    for replica in [&one, &two] {
        let status = replica.status().await;
        assert_eq!(status["requests"]["failed"], 0, "{status}");
        until("the fleet is back at zero", async || {
            replica.instances().await == 0
        })
        .await;
    }

    one.signal("-TERM");
    assert!(one.ends().await.success());
    until("its reply queue is gone", async || {
        reply_queues().await.len() == 1
    })
    .await;
    assert_eq!(two.recognize(&photo).await.name(), *name);

    // Photographs are deleted by the bucket's own rule, whose time a receipt does not know.
    let path = format!("/v1/people/{}", enrolled.json()["id"].as_str().unwrap());
    let deleted = two.http.delete(two.at(&path)).send().await.unwrap();
    let deleted: Value = deleted.json().await.unwrap();
    let receipt = &deleted["receipt"];
    assert_eq!(receipt["embeddings"], 1, "{deleted}");
    assert_eq!(receipt.get("uploads_kept_s"), Some(&Value::Null));

    kill("-TERM", controller.id().unwrap());
    let ended = tokio::time::timeout(LIMIT, controller.wait()).await;
    assert!(ended.unwrap().unwrap().success());
    // Without a web tier of its own it has learned from what the replicas reported.
    let state = installation.bucket(server, "StateBucket");
    let learned = state.get(&Path::from("status/learned.json")).await.unwrap();
    let learned: Value = serde_json::from_slice(&learned.bytes().await.unwrap()).unwrap();
    let samples = learned["service"]["buckets"].as_array();
    assert!(
        samples.is_some_and(|buckets| !buckets.is_empty()),
        "{learned}"
    );
}

/// As behind the stack's load balancer: no single machine is the service.
#[tokio::test]
async fn of_two_that_do_everything_one_acts_and_the_other_takes_over() {
    let Some((server, samples)) = prerequisites() else {
        return;
    };
    let installation = Installation::create(server, server.endpoint()).await;
    let toml = "max_instances = 1\nkeep_alive = \"fixed\"\nidle_grace_s = 0.5";
    let settings = installation.settings(toml, "expected_boot_s = 0.5\nbilling_minimum_s = 0.0");
    let mut acts = installation.start("up", &settings).await;
    let photo = read(&samples.people[0].1[0]);
    // So its controller has the lease.
    assert_eq!(acts.recognize(&photo).await.name(), "unknown");
    let stands_by = installation.start("up", &settings).await;
    assert_eq!(stands_by.recognize(&photo).await.name(), "unknown");
    until("the fleet is back at zero", async || {
        stands_by.instances().await == 0
    })
    .await;
    acts.signal("-TERM");
    assert!(acts.ends().await.success());
    let booted = installation.hypervisor.booted_total();
    assert_eq!(stands_by.recognize(&photo).await.name(), "unknown");
    assert_eq!(installation.hypervisor.booted_total(), booted + 1);
}
