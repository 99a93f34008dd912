//! What an installation on AWS lacks: `muster doctor` says it, and a role says it at its start.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use aws_sdk_ec2::types::{
    Filter, InstanceStateName, InstanceType, LaunchTemplateSpecification,
    RequestLaunchTemplateData, ResourceType, Tag, TagSpecification,
};
use muster_queue::{Queue, QueueOptions, Redrive, SqsQueues};
use muster_testbed::imds::Imds;
use muster_testbed::proxy::{Calls, Fault, FaultProxy, Rule, Service, When};
use muster_testbed::{REGION, moto, sdk_config};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use uuid::Uuid;

/// Longest wait for a command that ends by itself.
const LIMIT: Duration = Duration::from_secs(60);

/// A complete installation of its own, behind a proxy that can make its calls fail.
struct Installation {
    proxy: FaultProxy,
    name: String,
    folder: TempDir,
    settings: String,
}

/// What a program said before it ended.
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Installation {
    /// `None`, said visibly, where there is no moto.
    async fn new() -> Option<Self> {
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

    /// The same installation with one setting that is other than it should be.
    fn with(mut self, setting: &str, wrong: &str) -> Self {
        assert!(self.settings.contains(setting), "{setting}");
        self.settings = self.settings.replace(setting, wrong);
        self
    }

    fn always(&self, operation: &'static str, fault: Fault) -> Rule {
        let calls = Calls::Of(operation);
        self.proxy.inject(calls, When::Always, fault)
    }

    fn config(&self) -> PathBuf {
        let config = self.folder.path().join("muster.toml");
        std::fs::write(&config, &self.settings).unwrap();
        config
    }

    async fn muster(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Said {
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

    async fn doctor(&self, role: &str) -> Findings {
        self.doctor_with(role, &[]).await
    }

    async fn doctor_with(&self, role: &str, environment: &[(&str, &str)]) -> Findings {
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

struct Findings(Vec<Value>);

impl Findings {
    fn of(&self, name: &str) -> &Value {
        let found = self.0.iter().find(|finding| finding["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {:#?}", self.0))
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|finding| finding["name"] == name)
    }

    fn remedies(&self) -> String {
        let remedies = self.0.iter().filter_map(|it| it["remedy"].as_str());
        remedies.collect::<Vec<_>>().join("\n")
    }

    fn skipped(&self, name: &str) -> bool {
        self.of(name)["skipped"] == true
    }

    /// The one thing that is amiss: its name, and detail and remedy together.
    fn only(&self) -> (String, String) {
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

    fn assert_well(&self) {
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
async fn objects(installation: &Installation, part: &str) -> String {
    let url = format!(
        "{}/{}-{part}?list-type=2",
        moto::endpoint().unwrap(),
        installation.name
    );
    reqwest::get(url).await.unwrap().text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_complete_installation_is_well() {
    let Some(installation) = Installation::new().await else {
        return;
    };
    for role in ["up", "web", "controller"] {
        let findings = installation.doctor(role).await;
        findings.assert_well();
        assert_eq!(findings.has("launch"), role != "web");
        for local in ["models", "memory", "python"] {
            assert!(!findings.has(local), "no worker runs here");
        }
    }
    let queues = SqsQueues::new(
        &sdk_config(moto::endpoint().unwrap()),
        &format!("{}-", installation.name),
    );
    assert!(queues.names("resp-queue").await.unwrap().is_empty());
    let requests = queues.existing("req-queue").await.unwrap();
    let requests: &dyn Queue = &requests;
    assert_eq!(requests.counts().await.unwrap().visible, 0);
    assert_eq!(installation.proxy.calls("RunInstances"), 2);
    for part in ["in", "out", "state"] {
        let left = objects(&installation, part).await;
        assert!(!left.contains("<Key>"), "{part}: {left}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_looked_at_from_its_instance() {
    let Some(installation) = Installation::new().await else {
        return;
    };
    let imds = Imds::start("i-0123456789abcdef0", "");
    let there = [
        ("AWS_EC2_METADATA_DISABLED", ""),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds.endpoint()),
    ];
    let findings = installation.doctor_with("worker", &there).await;
    let metadata = findings.of("metadata");
    assert!(
        metadata["detail"]
            .as_str()
            .unwrap()
            .contains("i-0123456789abcdef0")
    );
    assert!(findings.skipped("reply queues"));
    assert!(findings.has("models") && !findings.has("address"));
    // Only what this test is about: the machine that it runs on may lack memory.
    for name in ["clock", "metadata"] {
        assert_eq!(findings.of(name)["ok"], true);
    }
    let queue = format!("queue {}-req-queue", installation.name);
    let tried = findings.of(&queue)["detail"].as_str().unwrap().to_owned();
    assert!(tried.contains("sqs:ChangeMessageVisibility"), "{tried}");
    let elsewhere = installation.doctor("worker").await;
    assert_eq!(elsewhere.of("metadata")["ok"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_named() {
    for (role, setting, wrong, name, said) in [
        (
            "web",
            "-in\"",
            "-gone\"",
            "bucket NAME-gone",
            "there is no bucket",
        ),
        (
            "controller",
            "-state\"",
            "-gone\"",
            "bucket NAME-gone",
            "there is no bucket",
        ),
        (
            "web",
            "queues = \"sqs\"",
            "queues = \"sqs\"\nrequest_queue = \"gone\"",
            "queue NAME-gone",
            "NAME-gone does not exist",
        ),
        (
            "web",
            "queues = \"sqs\"",
            "queues = \"sqs\"\nreport_queue = \"reports.fifo\"",
            "queue NAME-reports.fifo",
            "is a FIFO queue",
        ),
        (
            "web",
            "queues = \"sqs\"",
            "queues = \"sqs\"\nvisibility_timeout_s = 20.0",
            "queue NAME-req-queue",
            "its visibility timeout is 10 s",
        ),
        (
            "web",
            "queues = \"sqs\"",
            "queues = \"sqs\"\ndead_letter_queue = \"report-queue\"",
            "queue NAME-req-queue",
            "to dead-letter-queue",
        ),
        (
            "up",
            "launch_template = \"NAME\"",
            "launch_template = \"gone\"",
            "launch",
            "launch template gone does not exist",
        ),
        (
            "controller",
            "launch_template = \"NAME\"",
            "launch_template = \"NAME\"\nlaunch_template_version = \"9\"",
            "launch",
            "launch template NAME",
        ),
        (
            "controller",
            "launch_template = \"NAME\"",
            "launch_template = \"NAME\"\nsubnets = [\"subnet-00000000\"]",
            "launch",
            "subnet subnet-00000000 does not exist",
        ),
    ] {
        let Some(installation) = Installation::new().await else {
            return;
        };
        let own = |text: &str| text.replace("NAME", &installation.name);
        let (setting, wrong, name, said) = (own(setting), own(wrong), own(name), own(said));
        let installation = installation.with(&setting, &wrong);
        let (found, text) = installation.doctor(role).await.only();
        assert_eq!(found, name, "{text}");
        assert!(text.contains(&said), "{said}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_denied_is_named_with_its_statement() {
    let denied = Fault::Error {
        status: 403,
        code: "AccessDenied",
    };
    for (role, operation, fault, statements) in [
        (
            "web",
            "GetObject",
            denied,
            "ReadResults KeepGallery KeepStatus",
        ),
        ("controller", "ListObjectsV2", denied, "ListState"),
        ("controller", "PutObject", denied, "KeepStatus"),
        ("controller", "DeleteObjects", denied, "KeepStatus"),
        ("controller", "ReceiveMessage", denied, "ReceiveReports"),
        ("controller", "DeleteMessageBatch", denied, "ReceiveReports"),
        ("controller", "ListQueues", denied, "FindReplyQueues"),
        ("web", "CreateQueue", denied, "KeepReplyQueue"),
        (
            "up",
            "DeleteQueue",
            denied,
            "KeepReplyQueue RemoveReplyQueues",
        ),
        (
            "web",
            "SendMessageBatch",
            denied,
            "SendRequests SendReports",
        ),
        (
            "worker",
            "ChangeMessageVisibilityBatch",
            denied,
            "ReceiveRequests",
        ),
        (
            "controller",
            "DescribeInstances",
            Fault::UnauthorizedOperation,
            "SeeInstances",
        ),
        (
            "controller",
            "RunInstances",
            Fault::UnauthorizedOperation,
            "LaunchWorkers LaunchWorkersWith",
        ),
    ] {
        let Some(installation) = Installation::new().await else {
            return;
        };
        let rule = installation.always(operation, fault);
        let findings = installation.doctor(role).await;
        assert!(rule.hits() > 0, "{operation}");
        let remedies = findings.remedies();
        for statement in statements.split(' ') {
            let said = format!("statement {statement} of");
            assert!(remedies.contains(&said), "{operation}: {remedies}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_of_the_deployment_shows_what_may_be_done_with_it() {
    let Some(installation) = Installation::new().await else {
        return;
    };
    let ec2 = aws_sdk_ec2::Client::new(&sdk_config(moto::endpoint().unwrap()));
    let tag = Tag::builder()
        .key("muster:deployment")
        .value(&installation.name);
    ec2.run_instances()
        .launch_template(
            LaunchTemplateSpecification::builder()
                .launch_template_name(&installation.name)
                .build(),
        )
        .min_count(1)
        .max_count(1)
        .tag_specifications(
            TagSpecification::builder()
                .resource_type(ResourceType::Instance)
                .tags(tag.build())
                .build(),
        )
        .send()
        .await
        .unwrap();
    let findings = installation.doctor("controller").await;
    assert_eq!(findings.of("instance changes")["ok"], true);
    for operation in ["StartInstances", "StopInstances", "TerminateInstances"] {
        assert_eq!(installation.proxy.calls(operation), 1, "{operation}");
    }
    installation.always("StopInstances", Fault::UnauthorizedOperation);
    let (name, text) = installation.doctor("controller").await.only();
    assert_eq!(name, "instance changes");
    assert!(
        text.contains(
            "statement StartStopTerminateWorkers of the controller's policy: ec2:StopInstances"
        ),
        "{text}"
    );
    let there = ec2.describe_instances().filters(
        Filter::builder()
            .name("tag:muster:deployment")
            .values(&installation.name)
            .build(),
    );
    let there = there.send().await.unwrap();
    let instance = &there.reservations()[0].instances()[0];
    let state = instance.state().unwrap().name().unwrap();
    assert_eq!(*state, InstanceStateName::Running, "dry runs do nothing");
    ec2.terminate_instances()
        .instance_ids(instance.instance_id().unwrap())
        .send()
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_from_aws_at_all_is_one_finding() {
    let Some(installation) = Installation::new().await else {
        return;
    };
    let requests = format!("queue {}-req-queue", installation.name);
    for service in [Service::S3, Service::Sqs, Service::Ec2] {
        installation
            .proxy
            .inject(Calls::To(service), When::Always, Fault::ExpiredToken);
    }
    let findings = installation.doctor("up").await;
    let (name, text) = findings.only();
    assert_eq!(name, "credentials");
    assert!(text.contains("ExpiredToken"), "{text}");
    assert!(findings.skipped(&requests) && findings.skipped("launch"));

    installation.proxy.clear();
    installation.always("ListObjectsV2", Fault::RequestTimeTooSkewed);
    let findings = installation.doctor("up").await;
    let (name, text) = findings.only();
    assert_eq!(name, "clock");
    assert!(text.contains("RequestTimeTooSkewed"), "{text}");
    assert!(findings.skipped(&requests));

    installation.proxy.clear();
    installation.always("HeadBucket", Fault::Date("Wed, 01 Jan 2020 00:00:00 GMT"));
    let (name, text) = installation.doctor("up").await.only();
    assert_eq!(name, "clock");
    assert!(
        text.contains("s ahead of the endpoint's, and AWS refuses"),
        "{text}"
    );

    installation.proxy.clear();
    installation.always("PutObject", Fault::Unconditional);
    let (name, text) = installation.doctor("controller").await.only();
    assert_eq!(name, format!("bucket {}-state", installation.name));
    assert!(text.contains("ignores If-None-Match"), "{text}");

    installation.proxy.clear();
    let none = [("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")];
    let findings = installation.doctor_with("up", &none).await;
    assert_eq!(findings.only().0, "credentials");
    assert!(findings.skipped(&requests));

    let elsewhere = installation.with(REGION, "us-east-1");
    elsewhere.always(
        "ListObjectsV2",
        Fault::Error {
            status: 301,
            code: "PermanentRedirect",
        },
    );
    let findings = elsewhere.doctor("controller").await;
    let bucket = format!("bucket {}-state", elsewhere.name);
    let said = findings.of(&bucket)["detail"].as_str().unwrap().to_owned();
    assert!(
        said.contains("is in eu-central-1, and region is us-east-1"),
        "{said}"
    );

    let nowhere = elsewhere.with("region = \"us-east-1\"", "");
    let findings = nowhere.doctor("up").await;
    assert_eq!(findings.only().0, "region");
    assert!(findings.skipped("clock") && findings.skipped(&requests));

    let endpoint = nowhere.proxy.endpoint().to_owned();
    let closed = closed_port();
    let unreachable = nowhere
        .with("endpoint =", "region = \"eu-central-1\"\nendpoint =")
        .with(&endpoint, &closed);
    let findings = unreachable.doctor("up").await;
    let (name, text) = findings.only();
    assert_eq!(name, "endpoint");
    assert!(text.contains(&closed), "{text}");
    assert!(findings.skipped("credentials") && findings.skipped(&requests));
}

/// What a role is started with, and how it is to end.
struct Start {
    role: &'static str,
    setting: Option<(&'static str, &'static str)>,
    fault: Option<(&'static str, Fault)>,
    code: i32,
    /// Names the thing.
    said: &'static str,
    /// Begins the remedy.
    remedy: &'static str,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_can_not_start_ends_with_the_code_of_its_trouble() {
    let denied = Fault::Error {
        status: 403,
        code: "AccessDenied",
    };
    let elsewhere = Fault::Error {
        status: 301,
        code: "PermanentRedirect",
    };
    let start = |role, code, said, remedy| Start {
        role,
        setting: None,
        fault: None,
        code,
        said,
        remedy,
    };
    let set = |mut start: Start, setting, wrong| {
        start.setting = Some((setting, wrong));
        start
    };
    let broken = |mut start: Start, operation, fault| {
        start.fault = Some((operation, fault));
        start
    };
    let (create, allow) = ("create what is named", "allow the action");
    let (renew, clock) = (
        "renew or correct the AWS credentials",
        "set this machine's clock",
    );
    let (absent, fifo) = (
        "queues = \"sqs\"\nrequest_queue = \"gone\"",
        "queues = \"sqs\"\nrequest_queue = \"gone.fifo\"",
    );
    let mut starts = vec![
        set(start("web", 78, "NAME-gone", create), "-in\"", "-gone\""),
        set(
            start("controller", 78, "NAME-gone", create),
            "-state\"",
            "-gone\"",
        ),
        set(start("worker", 78, "NAME-gone", create), "-in\"", "-gone\""),
        set(
            start("worker", 78, "NAME-gone", create),
            "queues = \"sqs\"",
            absent,
        ),
        set(
            start("controller", 78, "gone does not exist", create),
            "template = \"NAME",
            "template = \"gone",
        ),
        broken(
            start("controller", 77, "launch", allow),
            "RunInstances",
            Fault::UnauthorizedOperation,
        ),
        broken(
            start("controller", 77, "look for the workers", allow),
            "DescribeInstances",
            Fault::UnauthorizedOperation,
        ),
    ];
    starts.push(broken(
        start("web", 75, "s3://NAME-", "check the network"),
        "ListObjectsV2",
        Fault::ResetBefore,
    ));
    for role in ["web", "controller", "worker"] {
        let bucket = if role == "controller" {
            "s3://NAME-state"
        } else {
            "s3://NAME-"
        };
        starts.extend([
            set(
                start(role, 78, "gone.fifo is a FIFO queue", create),
                "queues = \"sqs\"",
                fifo,
            ),
            set(
                start(role, 78, "no AWS region is set", "set region"),
                "region = \"eu-central-1\"",
                "",
            ),
            broken(start(role, 77, bucket, allow), "ListObjectsV2", denied),
            broken(start(role, 77, "NAME-", allow), "GetQueueUrl", denied),
            broken(
                start(role, 77, bucket, renew),
                "ListObjectsV2",
                Fault::ExpiredToken,
            ),
            broken(
                start(role, 77, "NAME-", renew),
                "GetQueueUrl",
                Fault::ExpiredToken,
            ),
            broken(
                start(role, 75, bucket, clock),
                "ListObjectsV2",
                Fault::RequestTimeTooSkewed,
            ),
            broken(
                start(role, 78, bucket, "set region"),
                "ListObjectsV2",
                elsewhere,
            ),
        ]);
    }
    for start in starts {
        let Some(mut installation) = Installation::new().await else {
            return;
        };
        let own = |text: &str| text.replace("NAME", &installation.name);
        let said = own(start.said);
        if let Some((setting, wrong)) = start.setting {
            let (setting, wrong) = (own(setting), own(wrong));
            installation = installation.with(&setting, &wrong);
        }
        let rule = start
            .fault
            .map(|(operation, fault)| installation.always(operation, fault));
        let mut arguments = vec![start.role];
        if start.role == "worker" {
            arguments.extend(["--id", "i-0123456789abcdef0"]);
        }
        let ended = installation.muster(&arguments, &[]).await;
        let what = format!("{} {said} {:?}:\n{}", start.role, start.fault, ended.stderr);
        println!("{what}");
        assert!(rule.is_none_or(|rule| rule.hits() > 0), "{what}");
        let lines: Vec<_> = ended.stderr.lines().collect();
        assert_eq!(ended.code, Some(start.code), "{what}");
        let [sentence, remedy] = lines[..] else {
            panic!("not a sentence and its remedy: {what}");
        };
        assert!(sentence.contains(&said), "{what}");
        assert!(
            remedy.starts_with(&format!("muster: {}", start.remedy)),
            "{what}"
        );
    }
}

/// A URL at which nothing listens.
fn closed_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}
