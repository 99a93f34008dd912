//! An installation on AWS: the stack, and what runs from its outputs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_recognize::models::{SamplePhotographs, default_root};
use muster_testbed::hypervisor::{Hypervisor, Settings};
use muster_testbed::{REGION, moto};
use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path as Key;
use tempfile::TempDir;
use tokio::process::Command;
use uuid::Uuid;

use crate::support::{LIMIT, Service, samples};

/// Creates the stack through AWS's own SDK for Python, which comes with the server.
const CREATE_STACK: &str = include_str!("stack.py");
/// Copies an object to a file, in the place of the AWS CLI: fifteen instances that boot at once would
/// wait for that to start. `boot` runs the real one. The server wants to see a signature, and does
/// not check it.
pub const AWS: &str = r#"#!/usr/bin/env python3
import os, shutil, sys, urllib.request
source, destination = sys.argv[-2:]
url = os.environ["AWS_ENDPOINT_URL"] + source.removeprefix("s3:/")
scope = f"test/20260101/{os.environ['AWS_REGION']}/s3/aws4_request"
signature = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"
request = urllib.request.Request(url, headers={"Authorization": signature})
with urllib.request.urlopen(request) as answer, open(destination, "wb") as file:
    shutil.copyfileobj(answer, file)
"#;
/// Runs the command of the unit that is to be started, below the instance's own folder: a worker as
/// what the instance is for, and then what its unit has for its end; anything else beside the user
/// data. Or notes that the instance is powered off.
const SYSTEMCTL: &str = r#"#!/bin/bash
set -euo pipefail
if [[ $1 == poweroff ]]; then exec touch "$INSTANCE_ROOT/power-off"; fi
[[ "$1 $2" == "enable --now" ]]
unit=$MUSTER_ROOT/etc/systemd/system/$3
mkdir -p "$MUSTER_ROOT/var/lib/muster"
command=$(sed -nE "s/^ExecStart=//; T; s#(^| )/(opt|etc)/#\1$MUSTER_ROOT/\2/#g; p" "$unit")
after=$(sed -n 's/^ExecStopPost=+//p' "$unit")
# A unit does not inherit it.
unset MUSTER_ROOT
if [[ $3 != muster-worker.service ]]; then
    $command &
    exit
fi
# The whole process group is told to stop: this waits for the unit.
trap : TERM
status=0
$command || status=$?
export EXIT_STATUS=$status
eval "${after//\$\$/\$}"
"#;
/// What instances boot into: their own folder, whatever it is called.
const ROOT: &str = ".";

/// What stands where on a stack of its own; gone when dropped, as far as it runs.
pub struct Installation {
    /// The stack's outputs.
    pub outputs: BTreeMap<String, String>,
    /// What instances and roles call AWS at.
    pub endpoint: String,
    /// Boots the instances.
    pub hypervisor: Hypervisor,
    settings: Settings,
    folder: TempDir,
}

/// The endpoint of the server and the sample photographs; `None`, said visibly, without either.
pub fn prerequisites() -> Option<(&'static moto::Server, SamplePhotographs)> {
    Some((moto::server()?, samples()?))
}

impl Installation {
    /// Creates the stack, whose instances and roles call AWS at `endpoint`.
    pub async fn create(server: &moto::Server, endpoint: &str) -> Self {
        Self::create_with(server, endpoint, &[]).await
    }

    /// Creates it with more environment variables for the instances.
    pub async fn create_with(
        server: &moto::Server,
        endpoint: &str,
        environment: &[(&str, &str)],
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bundle = bundle(folder.path(), &under_test());
        Self::of_bundle(server, endpoint, folder, &bundle, &[], AWS, environment).await
    }

    /// Creates it with a bundle, parameters and an AWS CLI of the test's own.
    pub async fn of_bundle(
        server: &moto::Server,
        endpoint: &str,
        folder: TempDir,
        bundle: &Path,
        parameters: &[String],
        aws: &str,
        environment: &[(&str, &str)],
    ) -> Self {
        let name = format!("m{}", &Uuid::now_v7().simple().to_string()[16..]);
        let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/aws/muster.yaml");
        let made = Command::new(tool("python3"))
            .args(["-c", CREATE_STACK, server.endpoint(), REGION, &name])
            .args([&template, bundle])
            .args(parameters)
            .output();
        let made = tokio::time::timeout(LIMIT, made).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "create the stack: {said}");
        let settings = Settings {
            endpoint: endpoint.to_owned(),
            environment: [("MUSTER_ROOT", ROOT), ("MUSTER_LOG", "info")]
                .iter()
                .chain(environment)
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            shims: vec![
                ("aws".to_owned(), aws.to_owned()),
                ("systemctl".to_owned(), SYSTEMCTL.to_owned()),
            ],
            ..Settings::new(server.endpoint(), "muster:deployment", &name)
        };
        Self {
            outputs: serde_json::from_slice(&made.stdout).unwrap(),
            endpoint: endpoint.to_owned(),
            hypervisor: Hypervisor::start(settings.clone()),
            settings,
            folder,
        }
    }

    /// Boots the stack's web instance too, until what is returned is dropped.
    pub fn boot_web(&self) -> Hypervisor {
        Hypervisor::start(Settings {
            tag: (
                "Name".to_owned(),
                self.outputs["QueuePrefix"].clone() + "web",
            ),
            ..self.settings.clone()
        })
    }

    /// The settings of every role that is about stores and queues.
    pub fn stores_and_queues(&self) -> String {
        let out = |key: &str| &self.outputs[key];
        format!(
            "region = \"{REGION}\"\nendpoint = \"{}\"\ninput_store = \"s3://{}\"\n\
             output_store = \"s3://{}\"\nstate_store = \"s3://{}\"\nqueues = \"sqs\"\n\
             queue_prefix = \"{}\"\n",
            self.endpoint,
            out("InBucket"),
            out("OutBucket"),
            out("StateBucket"),
            out("QueuePrefix"),
        )
    }

    /// The settings of the web tier and the controller of an EC2 fleet, with more of them from
    /// `toml` and for the fleet from `ec2`.
    pub fn settings(&self, toml: &str, ec2: &str) -> String {
        let out = |key: &str| &self.outputs[key];
        let subnets: Vec<&str> = out("Subnets").split(',').collect();
        format!(
            "{}fleet = \"ec2\"\n{toml}\n[ec2]\ndeployment = \"{}\"\nlaunch_template = \"{}\"\n\
             launch_template_version = \"$Latest\"\nsubnets = {subnets:?}\n{ec2}\n",
            self.stores_and_queues(),
            out("Deployment"),
            out("WorkerTemplate"),
        )
    }

    /// A data folder that no other role has.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join(Uuid::now_v7().to_string())
    }

    /// Starts a role that listens, in a data folder of its own.
    pub async fn start(&self, role: &str, settings: &str) -> Service {
        Service::start(role, &self.data(), settings).await
    }

    /// One of the stack's buckets, past the faults of any proxy.
    pub fn bucket(&self, server: &moto::Server, output: &str) -> impl ObjectStore + use<> {
        AmazonS3Builder::new()
            .with_bucket_name(&self.outputs[output])
            .with_region(REGION)
            .with_endpoint(server.endpoint())
            .with_allow_http(true)
            .with_access_key_id("test")
            .with_secret_access_key("test")
            .build()
            .unwrap()
    }
}

/// A program beside the server's: its Python, or the AWS CLI.
pub fn tool(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("MUSTER_MOTO").unwrap()).with_file_name(name)
}

/// The folder that models are installed in.
fn models() -> PathBuf {
    let set = std::env::var_os("MUSTER_MODELS_DIR").map(PathBuf::from);
    set.or_else(default_root).unwrap()
}

/// A script that is the program under test, with the installed models.
pub fn under_test() -> String {
    format!(
        "#!/bin/sh\nMUSTER_MODELS_DIR='{}' exec '{}' \"$@\"\n",
        models().display(),
        env!("CARGO_BIN_EXE_muster")
    )
}

/// An archive like that of `make bundle`, whose program is a script, without models.
pub fn bundle(folder: &Path, script: &str) -> PathBuf {
    let root = folder.join("muster-under-test");
    std::fs::create_dir_all(root.join("bin")).unwrap();
    std::fs::create_dir_all(root.join("systemd")).unwrap();
    let program = root.join("bin/muster");
    std::fs::write(&program, script).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, executable).unwrap();
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/aws");
    for unit in ["muster-web.service", "muster-worker.service"] {
        std::fs::copy(units.join(unit), root.join("systemd").join(unit)).unwrap();
    }
    let archive = folder.join("muster.tar.gz");
    let packed = std::process::Command::new("tar")
        .arg("-czf")
        .arg(&archive)
        .arg("-C")
        .arg(folder)
        .arg("muster-under-test")
        .status();
    assert!(packed.unwrap().success(), "pack the bundle");
    archive
}

/// The keys below a store's root, and how large the objects are.
pub async fn objects(store: &impl ObjectStore) -> BTreeMap<Key, u64> {
    use futures::TryStreamExt;
    store
        .list(None)
        .map_ok(|meta| (meta.location, meta.size))
        .try_collect()
        .await
        .unwrap()
}

/// How long a phase took, for the figures that a test prints.
pub fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}
