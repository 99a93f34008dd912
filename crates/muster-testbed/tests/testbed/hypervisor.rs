//! Instances that boot, stop, crash and are cleaned up.

use std::{
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use aws_sdk_ec2::{
    Client,
    types::{InstanceStateName, ResourceType, Tag, TagSpecification},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use muster_testbed::{
    hypervisor::{Hypervisor, Settings},
    moto::{self, Server, Transitions},
};
use rustix::process::{Pid, test_kill_process};

use crate::{ec2_client, unique};

/// How long a condition may take to come about on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// Drains on SIGTERM, and writes so into a file that outlives the boot.
const WORKER: &str = r#"
trap 'echo "drained" >> events; exit 0' TERM
echo "booted $INSTANCE_BOOT" >> events
worker
while true; do sleep 0.05; done
"#;

/// Does not stop when asked to.
const STUBBORN: &str = "trap '' TERM; while true; do sleep 0.05; done";

async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn launch(ec2: &Client, deployment: &str, user_data: &str) -> String {
    let tags = TagSpecification::builder()
        .resource_type(ResourceType::Instance)
        .tags(Tag::builder().key("deployment").value(deployment).build())
        .build();
    let launched = ec2
        .run_instances()
        .image_id("ami-12345678")
        .min_count(1)
        .max_count(1)
        .user_data(BASE64_STANDARD.encode(user_data))
        .tag_specifications(tags)
        .send()
        .await
        .expect("launch");
    let id = launched.instances()[0].instance_id();
    id.expect("an id").to_owned()
}

async fn stop(ec2: &Client, id: &str) {
    let stop = ec2.stop_instances().instance_ids(id).send().await;
    stop.expect("stop");
}

#[tokio::test]
async fn an_instance_boots_drains_restarts_and_ends() {
    let Some(server) = moto::server() else {
        return;
    };
    let ec2 = ec2_client(server.endpoint());
    let deployment = unique("deployment");
    let mut settings = Settings::new(server.endpoint(), "deployment", &deployment);
    let shim = "#!/bin/sh\necho \"worker of $TEAM\"\n";
    settings.shims = vec![("worker".to_owned(), shim.to_owned())];
    settings.environment = vec![("TEAM".to_owned(), deployment.clone())];
    let hypervisor = Hypervisor::start(settings);
    let id = launch(&ec2, &deployment, WORKER).await;
    let other = launch(&ec2, &unique("other"), WORKER).await;

    let output = format!("worker of {deployment}");
    until("it works", || hypervisor.console(&id).contains(&output)).await;
    assert_eq!(hypervisor.alive(), [id.as_str()]);
    stop(&ec2, &id).await;
    until("it has stopped", || hypervisor.alive().is_empty()).await;
    let start = ec2.start_instances().instance_ids(&id).send().await;
    start.expect("start");
    until("it is back", || hypervisor.booted_total() == 2).await;
    let again = || hypervisor.console(&id).matches(&output).count() == 2;
    until("it works again", again).await;
    let end = ec2.terminate_instances().instance_ids(&id).send().await;
    end.expect("terminate");
    until("it has ended", || hypervisor.alive().is_empty()).await;
    let events = hypervisor.root(&id).join("events");
    let events = std::fs::read_to_string(events).expect("read the events");
    assert_eq!(events, "booted 1\ndrained\nbooted 2\ndrained\n");
    assert_eq!(hypervisor.booted_total(), 2);
    assert!(!hypervisor.root(&other).exists(), "another deployment's");
}

#[tokio::test]
async fn ec2_does_not_learn_of_a_crash() {
    let Some(server) = moto::server() else {
        return;
    };
    let ec2 = ec2_client(server.endpoint());
    let deployment = unique("deployment");
    let settings = Settings::new(server.endpoint(), "deployment", &deployment);
    let hypervisor = Hypervisor::start(settings);
    let one = launch(&ec2, &deployment, WORKER).await;
    until("it has booted", || hypervisor.booted_total() == 1).await;
    assert!(hypervisor.interrupt(&one));
    assert!(hypervisor.crash(&one));
    until("it is dead", || hypervisor.alive().is_empty()).await;
    assert!(!hypervisor.crash(&one));

    let two = launch(&ec2, &deployment, WORKER).await;
    until("another boots", || hypervisor.alive() == [two.as_str()]).await;
    assert_eq!(hypervisor.booted_total(), 2);
    let described = ec2.describe_instances().instance_ids(&one).send().await;
    let described = described.expect("describe the instance");
    let state = described.reservations()[0].instances()[0].state();
    let state = state.and_then(|state| state.name());
    assert_eq!(state, Some(&InstanceStateName::Running));
}

#[tokio::test]
async fn only_what_runs_boots_and_what_does_not_stop_is_killed() {
    let Some(server) = Server::start() else {
        return;
    };
    let ec2 = ec2_client(server.endpoint());
    server.set_transitions(Transitions {
        pending: Duration::from_secs(3600),
        ..Transitions::default()
    });
    let mut settings = Settings::new(server.endpoint(), "deployment", "stubborn");
    settings.stop_timeout = Duration::from_millis(300);
    let hypervisor = Hypervisor::start(settings);
    let pending = launch(&ec2, "stubborn", WORKER).await;
    server.set_transitions(Transitions::default());
    let id = launch(&ec2, "stubborn", STUBBORN).await;
    until("it has booted", || hypervisor.alive() == [id.as_str()]).await;
    stop(&ec2, &id).await;
    until("it is killed", || hypervisor.alive().is_empty()).await;
    assert!(!hypervisor.root(&pending).exists());
}

/// The test binary, told to run only the next function.
#[tokio::test]
async fn nothing_outlives_a_test_that_is_killed() {
    if moto::endpoint().is_none() {
        return;
    }
    let itself = env::current_exe().expect("the test binary");
    let mut test = Command::new(itself)
        .args(["--ignored", "--exact", "--nocapture", "hypervisor::waits"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start a test");
    let stdout = BufReader::new(test.stdout.take().expect("stdout is piped"));
    let instance = stdout
        .lines()
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once("instance: ")?.1.to_owned()))
        .expect("the instance");
    let (pid, root) = instance.split_once(' ').expect("a process and a folder");
    let pid = Pid::from_raw(pid.parse().expect("a number")).expect("a process");
    assert!(test_kill_process(pid).is_ok());
    test.kill().expect("kill the test");
    test.wait().expect("reap the test");
    until("the instance is gone", || test_kill_process(pid).is_err()).await;
    until("its folder is gone", || !Path::new(root).exists()).await;
}

#[tokio::test]
#[ignore = "is started and killed by nothing_outlives_a_test_that_is_killed"]
async fn waits() {
    let Some(server) = moto::server() else {
        return;
    };
    let ec2 = ec2_client(server.endpoint());
    let settings = Settings::new(server.endpoint(), "deployment", "waits");
    let hypervisor = Hypervisor::start(settings);
    let id = launch(&ec2, "waits", "trap '' TERM; echo $$ > pid; sleep 3600").await;
    let pid = hypervisor.root(&id).join("pid");
    let read = || std::fs::read_to_string(&pid).unwrap_or_default();
    until("it has booted", || !read().is_empty()).await;
    let root = hypervisor.root(&id);
    println!("instance: {} {}", read().trim(), root.display());
    tokio::time::sleep(LIMIT).await;
}
