use std::time::Duration;

use muster_fleet::{KeepAlive, Policy, Scaling};
use serde_json::json;

use super::*;

/// An environment without variables: the tests' own does not matter.
fn nothing() -> Env {
    Env::raw().only(&[])
}

fn resolve(toml: &str) -> anyhow::Result<Settings> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("muster.toml");
    std::fs::write(&file, toml).unwrap();
    Settings::layer(Some(&file), nothing(), &json!({}))
}

#[test]
fn the_sample_file_is_the_defaults() {
    let sample = include_str!("../../../../muster.example.toml");
    let settings = resolve(sample).unwrap();
    assert_eq!(settings, Settings::default());
    let commented_out = sample.replace("\n# ", "\n");
    // Each name stands in the part of the file that begins with its table's.
    let all: Dict = Settings::defaults().extract().unwrap();
    let mut names = BTreeSet::new();
    add_names("", &all, &mut names);
    for name in names {
        let (part, key) = match name.rsplit_once('.') {
            Some((table, key)) => (commented_out.split_once(&format!("\n[{table}]\n")), key),
            None => (Some(("", &*commented_out)), &*name),
        };
        let part = part.map(|(_, part)| part.split("\n[").next().unwrap());
        let there = part.is_some_and(|part| format!("\n{part}").contains(&format!("\n{key} = ")));
        let inline = name.replace('.', " = { ") + " = ";
        let inline = commented_out.contains(&format!("\n{inline}"));
        assert!(there || inline, "{name} is not in the sample");
    }
}

#[test]
fn unknown_keys_and_impossible_values_are_named() {
    for (toml, named) in [
        ("max_instance = 3", "max_instance"),
        ("max_instances = 0", "max_instances"),
        ("max_instances = 10001", "at most 10000"),
        ("[ec2]\nlocal_workers = 4000000000", "at most 10000"),
        ("idle_grace_s = -1.0", "idle_grace_s"),
        ("keep_alive = \"forever\"", "forever"),
        ("listen = \"nowhere\"", "listen"),
        ("min_instances = 9\nmax_instances = 2", "min_instances"),
        ("processing_timeout_s = 0", "processing_timeout_s is 0"),
        ("hung_timeout_s = 0.5", "hung_timeout_s is 0.5"),
        ("[ec2]\nhung_timeout_s = 0", "ec2.hung_timeout_s is 0"),
        ("[ec2]\nboot_timeout_s = 0", "ec2.boot_timeout_s is 0"),
        ("[ec2]\nexpected_boot_s = 0", "ec2.expected_boot_s is 0"),
        (
            "[ec2]\nexpected_boot_s = 400",
            "ec2.expected_boot_s is 400 and ec2.boot_timeout_s 300",
        ),
        (
            "[ec2]\norphan_timeout_s = 3",
            "at least 5, or to 0 for never",
        ),
        ("max_receives = 998", "at most 997"),
        (
            "queue_prefix = \"a.b-\"",
            "queue_prefix and reply_queue are \"a.b-resp-queue\" together",
        ),
        (
            "reply_queues = \"shared\"\nrequest_queue = \"a queue\"",
            "queue_prefix and request_queue are \"a queue\" together: a queue's name is 1 to 80",
        ),
        (
            "reply_queues = \"shared\"\nreply_queue = \"req-queue\"",
            "request_queue and reply_queue are both \"req-queue\"",
        ),
        ("reply_queues = \"own\"", "shared"),
        (
            "response_queue = \"a\"\nreply_queue = \"b\"",
            "reply_queue and response_queue are both set",
        ),
        (
            "report_queue = \"req-queue\"",
            "request_queue and report_queue are both \"req-queue\"",
        ),
        (
            "dead_letter_queue = \"report-queue\"",
            "dead_letter_queue and report_queue are both \"report-queue\"",
        ),
        (
            "request_queue = \"dead-letter-queue\"",
            "request_queue and dead_letter_queue are both \"dead-letter-queue\"",
        ),
        ("cutoff = 2.0", "cutoff"),
        ("target_fpir = 0.0", "target_fpir"),
        ("object_keys = \"hash\"", "hash"),
        ("input_store = \"bucket\"", "s3://bucket"),
        (
            "input_store = \"s3://one\"\nstate_store = \"s3://one/state\"",
            "one must not lie in the other",
        ),
        ("cors_origins = [\"*\"]", "https://"),
        ("base_path = \"muster\"", "/muster"),
        ("base_path = \"/a/../b\"", "/muster"),
        ("base_path = \"/a b\"", "/muster"),
        ("listen = \"8000\"", "ADDRESS:PORT"),
        ("cors_origins = [\"https://a.example/app\"]", "https://"),
        ("max_header_bytes = 100", "max_header_bytes"),
        ("[ec2]\nspot = true", "spot"),
        (
            "scaling = { requests_per_instance = 0 }",
            "scaling.requests_per_instance is 0",
        ),
        ("[scaling]\nrequests = 1", "requests"),
        (
            "max_dollars_per_hour = 2.0",
            "max_dollars_per_hour is set and price_per_hour is not",
        ),
        (
            "price_per_hour = 0.2\nmax_dollars_per_hour = 0.1",
            "max_dollars_per_hour is 0.1: an instance for an hour costs 0.2",
        ),
        (
            "price_per_hour = 0.2\nmax_dollars_per_day = 0.0",
            "max_dollars_per_day is 0: the launch of one instance costs",
        ),
        (
            "price_per_hour = 0.2\nmax_dollars_per_day = nan",
            "max_dollars_per_day is NaN",
        ),
        (
            "dollars_per_late_request = 0.001",
            "dollars_per_late_request needs price_per_hour",
        ),
        (
            "price_per_hour = 0.2\ndollars_per_late_request = 0.0",
            "dollars_per_late_request is 0",
        ),
        (
            "price_per_hour = 1e-300\ndollars_per_late_request = 1.0",
            "price_per_hour too small beside it",
        ),
        (
            "price_per_hour = 0.2\ndollars_per_late_request = 0.1",
            "dollars_per_late_request needs keep_alive",
        ),
        ("fleet = \"ec2\"", "input_store is not set"),
        (
            "[quality.enrolment]\nsize_px = -1",
            "quality.enrolment.size_px is -1: it must be between 0 and 1000, where 0 refuses nothing",
        ),
        (
            "[quality.matching]\nsharpness = 1.5",
            "quality.matching.sharpness is 1.5: it must be between 0 and 1",
        ),
        (
            "[quality.matching]\nbrightness = nan",
            "quality.matching.brightness is NaN: it must be between 0 and 255",
        ),
        (
            "[quality.enrolment]\nturn_deg = 91",
            "quality.enrolment.turn_deg is 91: it must be between 0 and 90, where 90 refuses nothing",
        ),
        ("[quality.enrolment]\nsize = 32", "size"),
        ("[quality.enrollment]\nsize_px = 32", "enrollment"),
        ("[quality]\nsize_px = 32", "size_px"),
    ] {
        let error = format!("{:#}", resolve(toml).unwrap_err());
        assert!(error.contains(named), "{toml}: {error}");
    }
}

#[test]
fn an_installation_on_aws_is_described() {
    let toml = "
        input_store = \"s3://in-bucket\"
        output_store = \"s3://out-bucket\"
        state_store = \"s3://state-bucket/muster/\"
        queues = \"sqs\"
        fleet = \"ec2\"
        [ec2]
        launch_template = \"worker\"
    ";
    let settings = resolve(toml).unwrap();
    let state = settings.storage.state_store.clone().unwrap();
    assert_eq!(
        (state.bucket.as_str(), state.prefix.as_str()),
        ("state-bucket", "muster")
    );
    assert_eq!(settings.fleet.max_instances(), 15);
    let policy = settings.fleet.policy(settings.queues.kind);
    assert_eq!(policy.billing_minimum, Duration::from_secs(60));
    assert!(matches!(policy.keep_alive, KeepAlive::Learned { .. }));
}

#[test]
fn so_many_requests_for_an_instance_leave_nothing_else_to_say() {
    let policy = |toml: &str| {
        let stores = "input_store = \"s3://in-bucket\"\noutput_store = \"s3://out-bucket\"\nqueues = \"sqs\"\n\
                      state_store = \"s3://state-bucket\"\nfleet = \"ec2\"\n";
        let settings = resolve(&format!("{stores}{toml}")).unwrap().fleet;
        (settings.policy(QueueKind::Sqs), settings)
    };
    let (plain, settings) = policy("");
    assert_eq!(plain.scaling, Scaling::Objective);
    assert_eq!(settings.without_effect(), [""; 0]);
    let all = "min_instances = 2\nkeep_alive = \"learned\"\nidle_grace_s = 9.0\n\
               price_per_hour = 0.36\ndollars_per_late_request = 0.01\n\
               scaling = { requests_per_instance = 3 }\n[ec2]\nstopped_instances = 4\n\
               local_workers = 1";
    let (ruled, settings) = policy(all);
    assert_eq!(
        ruled,
        Policy {
            scaling: Scaling::RequestsPerInstance(3.try_into().unwrap()),
            keep_alive: KeepAlive::Fixed(Duration::ZERO),
            late_request: Some(Duration::from_secs(100)),
            budget: ruled.budget,
            ..plain
        }
    );
    assert_eq!(settings.stopped_instances(), 0);
    let because =
        "has no effect: scaling.requests_per_instance keeps no instance without a request";
    let without_effect = [
        "min_instances",
        "keep_alive = \"learned\"",
        "dollars_per_late_request",
        "ec2.stopped_instances",
        "ec2.local_workers",
    ];
    let without_effect = without_effect.map(|name| format!("{name} {because}"));
    assert_eq!(settings.without_effect(), without_effect);
    let fixed = "keep_alive = \"fixed\"\nidle_grace_s = 9.0\n[scaling]\nrequests_per_instance = 1";
    let (kept, settings) = policy(fixed);
    assert_eq!(kept.keep_alive, KeepAlive::Fixed(Duration::from_secs(9)));
    assert_eq!(settings.without_effect(), [""; 0]);
    let (_, many) = policy("max_instances = 3\n[ec2]\nstopped_instances = 4");
    let said = "ec2.stopped_instances is 4: there are never more than 3, max_instances";
    assert_eq!(many.without_effect(), [said]);
    let here = resolve("[ec2]\nstopped_instances = 4\nlocal_workers = 1").unwrap();
    let said = ["ec2.stopped_instances", "ec2.local_workers"]
        .map(|name| format!("{name} has no effect: the fleet is local"));
    assert_eq!(here.fleet.without_effect(), said);

    let (tiered, settings) = policy("[ec2]\nlocal_workers = 1");
    let local = tiered.local.unwrap();
    assert_eq!(
        (local.workers, local.idle_grace),
        (1, Duration::from_secs(60))
    );
    assert_eq!(
        Policy {
            local: None,
            ..tiered
        },
        plain
    );
    assert_eq!((settings.workers_here(), tiered.most_instances()), (1, 16));
}

#[test]
fn flags_win_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("muster.toml");
    std::fs::write(&file, "max_instances = 15\nidle_grace_s = 2").unwrap();
    let overrides = json!({ "max_instances": 3 });
    let settings = Settings::layer(Some(&file), nothing(), &overrides).unwrap();
    assert_eq!(
        (settings.fleet.max_instances(), settings.fleet.idle_grace),
        (3, Duration::from_secs(2))
    );
    let missing = folder.path().join("other.toml");
    assert!(Settings::layer(Some(&missing), nothing(), &overrides).is_err());
}

#[test]
fn names_may_begin_with_a_digit_and_one_has_a_former_name() {
    let toml = "
        input_store = \"s3://1229-in-bucket\"
        request_queue = \"1229-req-queue\"
        response_queue = \"1229-resp-queue\"
        dead_letter_queue = \"1\"
        [ec2]
        name_prefix = \"1229-app-tier-instance-\"
    ";
    let settings = resolve(toml).unwrap();
    assert_eq!(settings.queues.replies, "1229-resp-queue");
    let variables = [
        ("queue_prefix", "1229"),
        ("request_queue", "0012"),
        ("reply_queue", "true"),
        ("ec2.deployment", "7"),
        ("report_queue", "1229-report-queue"),
        ("max_instances", "3"),
        ("min_instances", "3"),
    ];
    let variables = variables.map(|(key, text)| (key, text.to_owned()));
    let texts = texts(&Settings::defaults(), variables.into_iter());
    let texts: Vec<_> = texts.iter().map(|(key, _)| key.as_str()).collect();
    let names = [
        "queue_prefix",
        "request_queue",
        "reply_queue",
        "ec2.deployment",
    ];
    assert_eq!(texts, names);
}

#[test]
fn a_limit_of_quality_is_set_by_itself() {
    let settings =
        resolve("[quality.enrolment]\nsize_px = 24\n[quality.matching]\nturn_deg = 60.5");
    let limits = settings.unwrap().decisions.quality;
    let by_default = Settings::default().decisions.quality;
    assert_eq!(
        (limits.enrolment.size_px, limits.matching.turn_deg),
        (24.0, 60.5)
    );
    assert_eq!(limits.enrolment.sharpness, by_default.enrolment.sharpness);
    assert_eq!(limits.matching.size_px, by_default.matching.size_px);
    // As it can stand above another table.
    let settings = resolve("quality.enrolment.size_px = 30\n[ec2]\ncapacity = \"spot\"");
    assert_eq!(settings.unwrap().decisions.quality.enrolment.size_px, 30.0);
    let known = names(&Settings::defaults());
    assert!(known.contains("quality.enrolment.size_px"));
    assert_eq!(
        variable("quality.enrolment.size_px"),
        "MUSTER_QUALITY__ENROLMENT__SIZE_PX"
    );
}

#[test]
fn limits_that_can_just_be_kept_are_taken() {
    let longest = "q".repeat(47);
    let longest = format!("queue_prefix = \"\"\nreply_queue = \"{longest}\"");
    assert!(resolve(&longest.replace("\"\"", "\"q\"")).is_err());
    for toml in [
        longest.as_str(),
        "request_queue = \"jobs.fifo\"",
        "[ec2]\norphan_timeout_s = 0",
        "max_receives = 997",
        "processing_timeout_s = 0.001",
        "idle_grace_s = 0",
    ] {
        assert!(resolve(toml).is_ok(), "{toml}");
    }
}
