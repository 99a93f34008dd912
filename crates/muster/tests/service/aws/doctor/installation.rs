//! A complete installation on moto, and the real program on it.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_ec2::types::{InstanceType, RequestLaunchTemplateData};
use muster_queue::{Queue, QueueOptions, Redrive, SqsQueues};
use muster_testbed::proxy::{Calls, Fault, FaultProxy, Rule, When};
use muster_testbed::{REGION, moto, sdk_config};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use uuid::Uuid;

/// Longest wait for a command that ends by itself.
const LIMIT: Duration = Duration::from_secs(60);

/// A complete installation of its own, behind a proxy that can make its calls fail.
pub struct Installation {
    pub proxy: FaultProxy,
    pub name: String,
    pub folder: TempDir,
    pub settings: String,
}

/// What a program said before it ended.
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Installation {
    /// `None`, said visibly, where there is no moto.
    pub async fn new() -> Option<Self> {
        let server = moto::endpoint()?;
        let name = format!("doctor-{}", &Uuid::now_v7().simple().to_string()[20..]);
        for part in ["in", "out", "state"] {
            make_bucket(server, &format!("{name}-{part}")).await;
        }
        let config = sdk_config(server);
        let queues = SqsQueues::new(&config, &format!("{name}-"));
        let mut options = QueueOptions {
            visibility_timeout: Duration::from_secs(10),
            redrive: None,
            retention: Duration::from_secs(3600),
        };
        for queue in ["report-queue", "dead-letter-queue"] {
            queues.queue(queue, &options).await.unwrap();
        }
        options.redrive = Some(Redrive {
            dead_letter: "dead-letter-queue".to_owned(),
            max_receives: 7,
        });
        queues.queue("req-queue", &options).await.unwrap();
        aws_sdk_ec2::Client::new(&config)
            .create_launch_template()
            .launch_template_name(&name)
            .launch_template_data(
                RequestLaunchTemplateData::builder()
                    .image_id("ami-12c6146b")
                    .instance_type(InstanceType::C7iLarge)
                    .build(),
            )
            .send()
            .await
            .unwrap();
        let proxy = FaultProxy::start(server, 1);
        let settings = format!(
            "endpoint = \"{}\"
            region = \"{REGION}\"
            listen = \"127.0.0.1:0\"
            input_store = \"s3://{name}-in\"
            output_store = \"s3://{name}-out\"
            state_store = \"s3://{name}-state\"
            queues = \"sqs\"
            queue_prefix = \"{name}-\"
            fleet = \"ec2\"
            [ec2]
            deployment = \"{name}\"
            launch_template = \"{name}\"",
            proxy.endpoint()
        );
        Some(Self {
            proxy,
            name,
            folder: tempfile::tempdir().unwrap(),
            settings,
        })
    }

    /// This installation with one setting that is other than it should be.
    pub fn with(mut self, setting: &str, wrong: &str) -> Self {
        assert!(self.settings.contains(setting), "{setting}");
        self.settings = self.settings.replace(setting, wrong);
        self
    }

    pub async fn requests(&self) -> Arc<dyn Queue> {
        let config = sdk_config(moto::endpoint().unwrap());
        let queues = SqsQueues::new(&config, &format!("{}-", self.name));
        Arc::new(queues.existing("req-queue").await.unwrap())
    }

    pub fn always(&self, operation: &'static str, fault: Fault) -> Rule {
        let calls = Calls::Of(operation);
        self.proxy.inject(calls, When::Always, fault)
    }

    pub fn config(&self) -> PathBuf {
        let config = self.folder.path().join("muster.toml");
        std::fs::write(&config, &self.settings).unwrap();
        config
    }

    pub async fn muster(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        command
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .current_dir(self.folder.path())
            .arg("--config")
            .arg(self.config())
            .args(arguments)
            .env("MUSTER_LOG", "off");
        for (name, value) in [
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "very-secret"),
            ("AWS_CONFIG_FILE", "/dev/null"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ] {
            command.env(name, value);
        }
        for (name, value) in environment {
            match *value {
                "" => command.env_remove(name),
                value => command.env(name, value),
            };
        }
        let ended = tokio::time::timeout(LIMIT, command.output()).await;
        let output = ended.expect("the program ends by itself").unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    pub async fn doctor(&self, role: &str) -> Findings {
        self.doctor_with(role, &[]).await
    }

    pub async fn doctor_with(&self, role: &str, environment: &[(&str, &str)]) -> Findings {
        let said = self
            .muster(&["doctor", "--role", role, "--json"], environment)
            .await;
        assert!(!said.stdout.contains("very-secret"));
        let said_it: Value = serde_json::from_str(&said.stdout)
            .unwrap_or_else(|_| panic!("{}\n{}", said.stdout, said.stderr));
        assert_eq!(said.code, Some(i32::from(said_it["ok"] != true)));
        Findings(said_it["findings"].as_array().unwrap().clone())
    }
}

pub struct Findings(pub Vec<Value>);

impl Findings {
    pub fn of(&self, name: &str) -> &Value {
        let found = self.0.iter().find(|finding| finding["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {:#?}", self.0))
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|finding| finding["name"] == name)
    }

    pub fn remedies(&self) -> String {
        let remedies = self.0.iter().filter_map(|it| it["remedy"].as_str());
        remedies.collect::<Vec<_>>().join("\n")
    }

    pub fn skipped(&self, name: &str) -> bool {
        self.of(name)["skipped"] == true
    }

    /// The one thing that is amiss: its name, and detail and remedy together.
    pub fn only(&self) -> (String, String) {
        let amiss: Vec<_> = self
            .0
            .iter()
            .filter(|finding| finding["ok"] == false && finding["skipped"] != true)
            .collect();
        let [one] = amiss[..] else {
            panic!("not one finding: {:#?}", self.0);
        };
        let text = |key: &str| one[key].as_str().unwrap().to_owned();
        (
            text("name"),
            format!("{} | {}", text("detail"), text("remedy")),
        )
    }

    pub fn assert_well(&self) {
        for finding in &self.0 {
            let well = finding["ok"] == true || finding["skipped"] == true;
            assert!(well, "{:#?}", self.0);
        }
    }
}

async fn make_bucket(server: &str, name: &str) {
    let constraint = format!(
        "<CreateBucketConfiguration><LocationConstraint>{REGION}</LocationConstraint>\
         </CreateBucketConfiguration>"
    );
    let scope = format!("Credential=test/20260101/{REGION}/s3/aws4_request");
    reqwest::Client::new()
        .put(format!("{server}/{name}"))
        .header(
            "authorization",
            format!("AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0"),
        )
        .body(constraint)
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap();
}

/// The names of the objects in a bucket.
pub async fn objects(installation: &Installation, part: &str) -> String {
    let url = format!(
        "{}/{}-{part}?list-type=2",
        moto::endpoint().unwrap(),
        installation.name
    );
    reqwest::get(url).await.unwrap().text().await.unwrap()
}
