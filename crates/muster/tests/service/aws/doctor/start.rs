//! A role that can not start: one sentence, the remedy, and the exit code of its trouble.

use muster_recognize::models::{Installation as Models, default_root};
use muster_testbed::proxy::Fault;

use super::installation::Installation;

/// Whether workers can start; said visibly where they can not.
fn models_are_installed() -> bool {
    let root = std::env::var_os("MUSTER_MODELS_DIR")
        .map(Into::into)
        .or_else(default_root);
    let installed = Models::open(&root.expect("a home folder"));
    if let Err(error) = &installed {
        assert!(
            !muster_testbed::in_ci(),
            "the models are needed in CI: {error}"
        );
        eprintln!("SKIPPED the starts of workers: run `make models` ({error})");
    }
    installed.is_ok()
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
    let workers = models_are_installed();
    starts.retain(|start| workers || start.role != "worker");
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
