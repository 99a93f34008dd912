//! `muster bench` on a running service: its figures as JSON, repeated, at a constant rate, and compared.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::support::{LIMIT, Service, muster, samples};

/// Measures six small photographs.
async fn bench(service: &Service, flags: &[&str]) -> Output {
    let mut command = muster();
    command
        .args(["bench", "--requests", "6", "--size", "160", "--url"])
        .arg(&service.url)
        .args(flags);
    let ended = tokio::time::timeout(LIMIT, command.output());
    ended.await.unwrap().unwrap()
}

fn figures(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn a_measurement_is_a_baseline_of_the_next() {
    if samples().is_none() {
        return;
    }
    let service = Service::up("").await;
    let closed = ["--concurrency", "2", "--repetitions", "2", "--json"];
    let output = bench(&service, &closed).await;
    let measured = figures(&output);
    assert_eq!(
        (&measured["requests"], &measured["errors"]),
        (&json!(6), &json!(0))
    );
    assert_eq!(measured["settings"]["warm_up"], 2);
    assert!(
        measured["generator_cpu_ms"].as_f64().unwrap() > 0.0,
        "{measured}"
    );
    let repetitions = measured["repetitions"].as_array().unwrap();
    assert_eq!(repetitions.len(), 2);
    for one in repetitions.iter().chain([&measured]) {
        assert!(one["throughput_rps"].as_f64().unwrap() > 0.0, "{one}");
        assert!(one["latency_ms"]["p99"].as_f64().unwrap() > 0.0, "{one}");
        assert!(one["peak_instances"].as_u64().unwrap() > 0, "{one}");
        assert!(one["scale_in_s"].as_f64().unwrap() > 0.0, "{one}");
        assert_eq!(one["sending"], Value::Null);
    }

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("earlier.json");
    std::fs::write(&file, &output.stdout).unwrap();
    let baseline = |path: &Path| path.to_str().unwrap().to_owned();
    let compared = [
        "--concurrency",
        "2",
        "--repetitions",
        "1",
        "--baseline",
        &baseline(&file),
    ];
    let output = bench(&service, &compared).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("compared with") && text.contains("ratio"),
        "{text}"
    );

    let rate = [
        "--rate",
        "20",
        "--repetitions",
        "1",
        "--baseline",
        &baseline(&file),
    ];
    let output = bench(&service, &rate).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("earlier.json was measured with"), "{said}");
    assert!(said.contains("--rate not given (here: 20)"), "{said}");

    let measured =
        figures(&bench(&service, &["--rate", "20", "--repetitions", "1", "--json"]).await);
    assert_eq!(measured["settings"]["rate_rps"], 20.0);
    assert_eq!(measured["settings"]["concurrency"], Value::Null);
    assert_eq!(
        (&measured["errors"], &measured["sending"]["not_sent"]),
        (&json!(0), &json!(0))
    );
}

#[tokio::test]
async fn a_profile_says_how_much_it_did_not_run() {
    if samples().is_none() {
        return;
    }
    let mut command = muster();
    command.args(["profile", "--count", "3", "--size", "160", "--json"]);
    let ended = tokio::time::timeout(LIMIT, command.output());
    let profile = figures(&ended.await.unwrap().unwrap());
    for half in ["pipeline", "models"] {
        let share = profile["not_running"][half].as_f64().unwrap();
        assert!((0.0..1.0).contains(&share), "{profile}");
    }
    assert!(profile["cpu_ratio"].as_f64().unwrap() > 0.0, "{profile}");
    assert!(profile["disturbed_differently"].is_boolean(), "{profile}");
    assert!(profile["stages_ms"]["embed"].is_number(), "{profile}");
}
