//! The stack's user data, run whole: by the real AWS CLI, with the archive of `scripts/bundle`.
//!
//! The server says what CloudFormation was signalled. It has no CreationPolicy: nothing is rolled back.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use muster_testbed::hypervisor::Hypervisor;
use muster_testbed::proxy::{Calls, Fault, FaultProxy, When};
use muster_testbed::{REGION, in_ci, moto};
use reqwest::multipart::Form;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;
use uuid::Uuid;

use super::installation::{Installation, bundle, prerequisites, seconds, tool, under_test};
use crate::support::{LIMIT, client, jpeg, read, until};

const REQUESTS: usize = 100;
const CONCURRENCY: usize = 10;
/// EC2's limit of user data, before it is encoded.
const USER_DATA_BYTES: u64 = 16 << 10;

/// Says what is skipped, past the capture of test output.
fn skipped(what: &str) {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {what}");
}

/// A command of the AWS CLI; `None`, said visibly, where it is not installed beside the server.
fn aws(endpoint: &str) -> Option<Command> {
    let program = tool("aws");
    if !program.exists() {
        assert!(!in_ci(), "{} is not there", program.display());
        skipped(&format!(
            "{} is not there: run `make test-servers`",
            program.display()
        ));
        return None;
    }
    let mut command = Command::new(program);
    command
        .env("AWS_ENDPOINT_URL", endpoint)
        .env("AWS_REGION", REGION)
        .env("AWS_DEFAULT_REGION", REGION)
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .stdin(Stdio::null());
    Some(command)
}

/// The script that stands for `aws` on instances: the AWS CLI itself.
fn on_instances() -> String {
    format!("#!/bin/sh\nexec '{}' \"$@\"\n", tool("aws").display())
}

/// What a command prints, which has to succeed.
async fn output(command: &mut Command) -> String {
    let ended = timeout(2 * LIMIT, command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{command:?}: {said}");
    String::from_utf8(ended.stdout).unwrap()
}

/// Packs the program under test with the installed models and runtime, for this machine's glibc.
async fn packed(folder: &Path) -> PathBuf {
    let glibc = output(Command::new("getconf").arg("GNU_LIBC_VERSION")).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/bundle");
    let begun = Instant::now();
    let said = output(
        Command::new(script)
            .args(["--glibc", glibc.trim().trim_start_matches("glibc ")])
            .arg("--into")
            .arg(folder)
            .arg(env!("CARGO_BIN_EXE_muster")),
    )
    .await;
    let line = said.lines().next().unwrap();
    println!("packed in {}: {line}", seconds(begun.elapsed()));
    PathBuf::from(line.split("  ").next().unwrap())
}

/// The id of the web instance, once it has booted.
fn web_instance(installation: &Installation) -> &str {
    &installation.outputs["WebInstance"]
}

/// Waits for the signal that the web instance sends, and returns what the stack's event says.
async fn signalled(server: &moto::Server, installation: &Installation) -> String {
    let mut said = String::new();
    until("CloudFormation is signalled", async || {
        let query = "StackEvents[?LogicalResourceId=='Web'].ResourceStatusReason";
        let events = aws(server.endpoint())
            .unwrap()
            .args([
                "cloudformation",
                "describe-stack-events",
                "--output",
                "text",
            ])
            .args(["--stack-name", &installation.outputs["Deployment"]])
            .args(["--query", query])
            .output();
        let events = events.await.unwrap();
        said = String::from_utf8(events.stdout).unwrap();
        said.contains("signal")
    })
    .await;
    said.trim().to_owned()
}

/// Checks an instance's installed units as systemd reads them, with the program that they start.
async fn verify_units(root: &Path) {
    let there = Command::new("systemd-analyze")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if there.await.is_err() {
        assert!(!in_ci(), "systemd-analyze is not there");
        skipped("units: systemd-analyze is not there");
        return;
    }
    let copies = tempfile::tempdir().unwrap();
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]);
    for unit in std::fs::read_dir(root.join("etc/systemd/system")).unwrap() {
        let unit = unit.unwrap();
        let text = std::fs::read_to_string(unit.path()).unwrap();
        let program = root.join("opt/muster/bin/muster");
        let here = text.replace("/opt/muster/bin/muster", program.to_str().unwrap());
        assert_ne!(here, text, "the unit starts the bundle's program");
        let copy = copies.path().join(unit.file_name());
        std::fs::write(&copy, here).unwrap();
        verify.arg(copy);
    }
    let said = verify.output().await.unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert_eq!(said, "", "systemd finds nothing to say");
}

/// What each instance of a hypervisor has as its folder.
fn roots(hypervisor: &Hypervisor) -> Vec<PathBuf> {
    let alive = hypervisor.alive();
    alive.iter().map(|id| hypervisor.root(id)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bundle_boots_by_the_stacks_user_data_and_recognises() {
    let Some((server, samples)) = prerequisites() else {
        return;
    };
    if aws(server.endpoint()).is_none() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let bundle = packed(folder.path()).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    // The web instance's own worker would leave it nothing.
    let parameters = [
        format!("Port={port}"),
        "MinInstances=1".to_owned(),
        "MaxInstances=1".to_owned(),
    ];
    let endpoint = server.endpoint();
    let installation = Installation::of_bundle(
        server,
        endpoint,
        folder,
        &bundle,
        &parameters,
        &on_instances(),
        &[],
    )
    .await;
    drop(free);
    let url = format!("http://127.0.0.1:{port}");
    let booted = Instant::now();
    let machine = installation.boot_web();
    let http = client(reqwest::header::HeaderMap::new());
    until("/readyz says 200", async || {
        let answer = http.get(format!("{url}/readyz")).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    let ready = booted.elapsed();
    let signal = signalled(server, &installation).await;
    let instance = web_instance(&installation);
    let console = machine.console(instance);
    assert_eq!(
        signal,
        format!("Received SUCCESS signal with UniqueId {instance}"),
        "{console}"
    );
    println!(
        "from the boot to /readyz {}, to the signal seen {}: {signal}",
        seconds(ready),
        seconds(booted.elapsed())
    );
    let root = machine.root(instance);
    let doctor = console.lines().filter(|line| line.starts_with("ok "));
    println!("{}", doctor.collect::<Vec<_>>().join("\n"));

    // As docs/AWS.md has it, with the program of the bundle.
    let muster = |arguments: &[&str]| {
        let mut command = Command::new(root.join("opt/muster/bin/muster"));
        command
            .args(arguments)
            .env(
                "MUSTER_STATE_STORE",
                format!("s3://{}", installation.outputs["StateBucket"]),
            )
            .env("MUSTER_ENDPOINT", endpoint)
            .env("MUSTER_REGION", REGION)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test");
        command
    };
    let key = output(&mut muster(&[
        "keys", "create", "--name", "me", "--scope", "admin",
    ]))
    .await;
    let (name, photos) = &samples.people[0];
    let face = format!("{name}={}", photos[0].display());
    let begun = Instant::now();
    output(muster(&["enroll", "--url", &url, &face]).env("MUSTER_API_KEY", key.trim())).await;
    println!(
        "the first enrolment, with the worker's boot: {}",
        seconds(begun.elapsed())
    );

    let photos: Arc<Vec<_>> = Arc::new(photos[1..].iter().map(|file| read(file)).collect());
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let senders: Vec<_> = (0..CONCURRENCY)
        .map(|_| {
            let (photos, next) = (Arc::clone(&photos), Arc::clone(&next));
            let (http, url, name) = (http.clone(), format!("{url}/v1/recognize"), name.clone());
            tokio::spawn(async move {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= REQUESTS {
                        return;
                    }
                    let photo = &photos[n % photos.len()];
                    let form = Form::new().part("image", jpeg(&format!("{n}.jpg"), photo));
                    let answer = http.post(&url).multipart(form).send().await.unwrap();
                    let body: Value = answer.json().await.unwrap();
                    assert_eq!(body["faces"][0]["person"]["name"], *name, "{n}: {body}");
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    println!("{REQUESTS} photographs in {}", seconds(begun.elapsed()));

    let workers = roots(&installation.hypervisor);
    assert_eq!(
        workers.len(),
        1,
        "one worker has booted by its own user data"
    );
    for root in workers.iter().chain([&root]) {
        let bytes = std::fs::metadata(root.join("user-data")).unwrap().len();
        assert!(bytes < USER_DATA_BYTES, "{bytes} bytes of user data");
        verify_units(root).await;
    }
}

/// Names that begin with a digit, a kilobyte for a message, one queue for all replies, no keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_ones_own_boot() {
    let Some((server, samples)) = prerequisites() else {
        return;
    };
    if aws(server.endpoint()).is_none() {
        return;
    }
    let name = format!("1{}", &Uuid::now_v7().simple().to_string()[20..]);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    let parameters = [
        format!("Name={name}"),
        format!("Port={port}"),
        format!("InBucketName={name}-in-bucket"),
        format!("OutBucketName={name}-out-bucket"),
        format!("StateBucketName={name}-state-bucket"),
        "ReportQueueName=reports".to_owned(),
        "ReplyQueues=shared".to_owned(),
        "MaximumMessageSize=1024".to_owned(),
        "RequireKeys=false".to_owned(),
        "WorkerNamePrefix=worker-".to_owned(),
        "MaxInstances=1".to_owned(),
        "RequestsPerInstance=1".to_owned(),
        "PricePerHour=0.0116".to_owned(),
        "MaxDollarsPerHour=0.2".to_owned(),
        "MaxDollarsPerDay=2".to_owned(),
    ];
    let folder = TempDir::new().unwrap();
    let archive = bundle(folder.path(), &under_test());
    let (endpoint, aws_cli) = (server.endpoint(), on_instances());
    let installation = Installation::of_bundle(
        server,
        endpoint,
        folder,
        &archive,
        &parameters,
        &aws_cli,
        &[],
    )
    .await;
    assert_eq!(
        installation.outputs["InBucket"],
        format!("{name}-in-bucket")
    );
    let queue = &installation.outputs["ReplyQueueUrl"];
    assert!(queue.ends_with(&format!("/{name}-resp-queue")), "{queue}");
    drop(free);
    let machine = installation.boot_web();
    let signal = signalled(server, &installation).await;
    let console = machine.console(web_instance(&installation));
    assert!(signal.contains("SUCCESS"), "{console}");
    // Whoever reaches it may do everything, and the reply fits.
    let http = client(reqwest::header::HeaderMap::new());
    let url = format!("http://127.0.0.1:{port}");
    let photo = read(&samples.people[0].1[0]);
    let form = Form::new()
        .text("name", "Anna")
        .part("image", jpeg("a.jpg", &photo));
    let enrolled = http.post(format!("{url}/v1/people")).multipart(form).send();
    assert_eq!(enrolled.await.unwrap().status(), 201);
    let form = Form::new().part("image", jpeg("a.jpg", &photo));
    let answer = http.post(format!("{url}/v1/recognize")).multipart(form);
    let answer: Value = answer.send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["faces"][0]["person"]["name"], "Anna", "{answer}");
    let queues = output(
        aws(endpoint)
            .unwrap()
            .args([
                "sqs",
                "list-queues",
                "--endpoint-url",
                endpoint,
                "--output",
                "text",
                "--queue-name-prefix",
            ])
            .arg(format!("{name}-"))
            .args(["--query", "QueueUrls"]),
    )
    .await;
    let queues = queues.split_whitespace().count();
    assert_eq!(queues, 4, "the web tier has made none for itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_that_is_not_the_right_one_is_signalled_as_a_failure() {
    let zeros = format!("BundleSha256={}", "0".repeat(64));
    fails("#!/bin/sh\n", &[zeros], "check that s3://").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_does_not_run_is_signalled_as_a_failure() {
    let script = "#!/bin/sh\necho \"version 'GLIBC_2.99' not found\"\nexit 1\n";
    fails(script, &[], "run ./opt/muster/bin/muster --version").await;
}

/// Boots a bundle that fails at a step, after S3 has denied it once.
async fn fails(script: &str, parameters: &[String], step: &str) {
    let Some(server) = moto::server() else {
        return;
    };
    if aws(server.endpoint()).is_none() {
        return;
    }
    let proxy = FaultProxy::start(server.endpoint(), 1);
    let denied = Fault::Error {
        status: 403,
        code: "AccessDenied",
    };
    let once = proxy.inject(Calls::Of("HeadObject"), When::Next(1), denied);
    let folder = TempDir::new().unwrap();
    let archive = bundle(folder.path(), script);
    let endpoint = proxy.endpoint();
    let installation = Installation::of_bundle(
        server,
        endpoint,
        folder,
        &archive,
        parameters,
        &on_instances(),
        &[],
    )
    .await;
    let machine = installation.boot_web();
    let signal = signalled(server, &installation).await;
    let instance = web_instance(&installation);
    let console = machine.console(instance);
    println!("{signal}\n{console}");
    assert_eq!(
        signal,
        format!("Received FAILURE signal with UniqueId {instance}")
    );
    assert!(
        console.contains(&format!("muster: the start failed: {step}")),
        "{console}"
    );
    assert_eq!(once.hits(), 1);
    assert!(
        console.contains("muster: again in 1 s: aws s3 cp"),
        "{console}"
    );
    assert_eq!(proxy.calls("SignalResource"), 1);
    tokio::time::timeout(Duration::from_secs(5), async {
        until("the user data has ended", async || {
            machine.alive().is_empty()
        })
        .await;
    })
    .await
    .unwrap();
}
