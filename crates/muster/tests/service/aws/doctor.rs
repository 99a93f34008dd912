//! What an installation on AWS lacks: `muster doctor` says it, and a role says it at its start.

mod installation;
mod start;

use std::time::Duration;

use aws_sdk_ec2::types::{
    Filter, InstanceStateName, LaunchTemplateSpecification, ResourceType, Tag, TagSpecification,
};
use muster_queue::{Outgoing, QueueOptions, SqsQueues};
use muster_testbed::imds::Imds;
use muster_testbed::proxy::{Calls, Fault, Service, When};
use muster_testbed::{REGION, moto, sdk_config};

use installation::{Installation, objects};

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
    let requests = installation.requests().await;
    assert_eq!(requests.counts().await.unwrap().visible, 0);
    assert_eq!(installation.proxy.calls("RunInstances"), 2);
    // What nobody may delete stays: an entry of the audit log from each who has the web tier's part.
    for (part, entries) in [("in", 0), ("out", 0), ("state", 2)] {
        let left = objects(&installation, part).await;
        assert_eq!(
            left.matches("<Key>audit/").count(),
            entries,
            "{part}: {left}"
        );
        assert_eq!(left.matches("<Key>").count(), entries, "{part}: {left}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_looked_at_from_its_instance() {
    let Some(installation) = Installation::new().await else {
        return;
    };
    let requests = installation.requests().await;
    requests
        .send(&[Outgoing::from("waits".to_owned())])
        .await
        .unwrap();
    // A worker deletes the result of a job that was deleted meanwhile.
    let denied = Fault::Error {
        status: 403,
        code: "AccessDenied",
    };
    installation.always("DeleteObjects", denied);
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
    assert!(
        tried.contains("one message was received and left there"),
        "{tried}"
    );
    let counts = requests.counts().await.unwrap();
    assert_eq!((counts.visible, counts.in_flight), (1, 0));
    let results = findings.of(&format!("bucket {}-out", installation.name));
    assert_eq!(results["ok"], false);
    let said = results["remedy"].as_str().unwrap();
    let missing = "statement PutResults of the worker's policy: s3:DeleteObject";
    assert!(said.contains(missing), "{said}");
    let elsewhere = installation.doctor("worker").await;
    assert_eq!(elsewhere.of("metadata")["ok"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_of_this_machine_are_looked_at_with_their_controller() {
    let Some(installation) = Installation::new().await else {
        return;
    };
    let installation = installation.with("fleet = \"ec2\"", "fleet = \"local\"");
    let installation =
        installation.with("launch_template =", "local_workers = 1\nlaunch_template =");
    let findings = installation.doctor("up").await;
    let unused = "ec2.local_workers has no effect: the fleet is local";
    assert_eq!(findings.of("settings")["detail"], unused);
    assert!(findings.has("models") && findings.has("data folder"));
    assert!(!findings.has("launch") && !findings.has("metadata"));
    let replies = findings.of("reply queues");
    assert_eq!(replies["ok"], true);
    let tried = replies["detail"].as_str().unwrap();
    assert!(tried.contains("sqs:SendMessage"), "{tried}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workers_before_a_fleet_on_ec2_are_looked_at_with_their_controller() {
    let Some(installation) = Installation::new().await else {
        return;
    };
    assert!(!installation.doctor("up").await.has("models"));
    let installation =
        installation.with("launch_template =", "local_workers = 1\nlaunch_template =");
    let denied = Fault::Error {
        status: 403,
        code: "AccessDenied",
    };
    installation.always("ChangeMessageVisibilityBatch", denied);
    let findings = installation.doctor("up").await;
    assert!(findings.has("models") && findings.has("launch"));
    assert!(
        !findings.has("metadata"),
        "its children need no instance of their own"
    );
    let processor = findings.of("processor")["detail"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        processor.contains("% of what was asked for since the start was withheld"),
        "{processor}"
    );
    let memory = findings.of("memory")["detail"].as_str().unwrap().to_owned();
    assert!(memory.ends_with("250 MiB for 1 workers"), "{memory}");
    let missing = "statement ReceiveRequests of the worker's policy: sqs:ChangeMessageVisibility";
    let remedies = findings.remedies();
    assert!(remedies.contains(missing), "{remedies}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_queue_that_is_shared_is_looked_at_as_it_is() {
    let Some(installation) = Installation::new().await else {
        return;
    };
    let shared = "queues = \"sqs\"\nreply_queues = \"shared\"";
    let installation = installation.with("queues = \"sqs\"", shared);
    let queue = format!("queue {}-resp-queue", installation.name);
    let (found, text) = installation.doctor("web").await.only();
    assert_eq!(found, queue, "{text}");
    assert!(text.contains("does not exist"), "{text}");

    let prefix = format!("{}-", installation.name);
    let queues = SqsQueues::new(&sdk_config(moto::endpoint().unwrap()), &prefix);
    let options = QueueOptions {
        visibility_timeout: Duration::from_secs(10),
        redrive: None,
        retention: Duration::from_secs(3600),
    };
    queues.queue("resp-queue", &options).await.unwrap();
    for role in ["up", "web", "controller"] {
        installation.doctor(role).await.assert_well();
    }
    assert_eq!(installation.proxy.calls("CreateQueue"), 0);
    assert_eq!(queues.names("resp-queue").await.unwrap(), ["resp-queue"]);
    // Unlike replicas' own, a worker can try it.
    let denied = Fault::Error {
        status: 403,
        code: "AccessDenied",
    };
    installation.always("SendMessageBatch", denied);
    let remedies = installation.doctor("worker").await.remedies();
    assert!(remedies.contains("statement SendReplies of"), "{remedies}");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_have_expired_are_told_before_they_are_used() {
    let Some(installation) = Installation::new().await else {
        return;
    };
    let profile = installation.folder.path().join("config");
    let found = r#"{"Version": 1, "AccessKeyId": "test", "SecretAccessKey": "very-secret",
        "Expiration": "2020-01-01T00:00:00Z"}"#;
    let found = found.replace('\n', "");
    let answer = installation.folder.path().join("credentials.json");
    std::fs::write(&answer, found).unwrap();
    let process = format!("[default]\ncredential_process = cat {}", answer.display());
    std::fs::write(&profile, process).unwrap();
    let findings = installation
        .doctor_with(
            "controller",
            &[
                ("AWS_ACCESS_KEY_ID", ""),
                ("AWS_SECRET_ACCESS_KEY", ""),
                ("AWS_CONFIG_FILE", profile.to_str().unwrap()),
            ],
        )
        .await;
    let (name, text) = findings.only();
    assert_eq!(name, "credentials");
    assert!(text.contains("from a process, expired"), "{text}");
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
            "queues = \"sqs\"\ndead_letter_queue = \"report-queue\"\n\
             report_queue = \"dead-letter-queue\"",
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
            "KeepPhotographs ReadResults KeepGallery KeepEnrolled KeepDeletions ReadKeys KeepStatus",
        ),
        (
            "web",
            "PutObject",
            denied,
            "KeepPhotographs KeepGallery KeepEnrolled KeepDeletions AppendAudit KeepStatus",
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
            "worker",
            "GetObject",
            denied,
            "ReadPhotographs ReadGallery ReadLease",
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
    installation.proxy.clear();
    let keeps = "stopped_instances = 1\nlaunch_template =";
    let installation = installation.with("launch_template =", keeps);
    let versions = "DescribeLaunchTemplateVersions";
    installation.always(versions, Fault::UnauthorizedOperation);
    let (name, text) = installation.doctor("controller").await.only();
    assert_eq!(name, "instances");
    let missing =
        "statement SeeInstances of the controller's policy: ec2:DescribeLaunchTemplateVersions";
    assert!(text.contains(missing), "{text}");
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

/// A URL at which nothing listens.
fn closed_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}
