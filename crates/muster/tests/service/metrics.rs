//! `/metrics`, and the dashboard and alerts that are made for it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::support::{Answer, Service, read, samples, until};

/// The samples of one scrape: name and labels as they are written, and the value.
struct Scrape {
    samples: BTreeMap<String, f64>,
    text: String,
}

impl Scrape {
    async fn of(service: &Service) -> Self {
        let response = service.http.get(service.at("/metrics")).send().await;
        let response = response.unwrap();
        let content_type = response.headers()["content-type"].to_str().unwrap();
        assert!(content_type.starts_with("text/plain; version=0.0.4"));
        let answer = Answer::read(response).await;
        assert_eq!(answer.status, 200);
        let text = answer.text();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            (name.to_owned(), value.parse().expect("a number"))
        });
        Self {
            samples: samples.collect(),
            text,
        }
    }

    fn get(&self, name: &str) -> f64 {
        let found = self.samples.get(name);
        *found.unwrap_or_else(|| panic!("no {name} in\n{}", self.text))
    }

    /// The names that a query may use.
    fn names(&self) -> BTreeSet<&str> {
        let names = self.samples.keys();
        names.filter_map(|name| name.split('{').next()).collect()
    }
}

/// Everything in the text that is named as Muster's metrics are.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let words = words.filter(|word| word.starts_with("muster_"));
    words.map(str::to_owned).collect()
}

fn deployed(file: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/grafana");
    let file: PathBuf = folder.join(file);
    std::fs::read_to_string(&file).unwrap()
}

#[tokio::test]
async fn what_happens_is_told_to_prometheus() {
    let Some(samples) = samples() else { return };
    let service = Service::up("max_instances = 1\nprice_per_hour = 3600.0").await;
    let before = Scrape::of(&service).await;
    assert_eq!(
        before.get("muster_requests_total{outcome=\"accepted\"}"),
        0.0
    );
    let recognised = "muster_request_duration_seconds_count{purpose=\"recognize\"}";
    assert_eq!(
        before.get(recognised),
        0.0,
        "known before anything happened"
    );
    assert_eq!(before.get("muster_oldest_request_age_seconds"), 0.0);

    let photo = read(&samples.group);
    let answer = service.recognize(&photo).await;
    assert_eq!(answer.status, 200);
    let faces = answer.json()["faces"].as_array().unwrap().len();
    assert_eq!(service.recognize(b"no photograph").await.status, 415);
    service
        .http
        .get(service.at("/v1/nothing/of/mine"))
        .send()
        .await
        .unwrap();
    // Down to zero again.
    let mut after = Scrape::of(&service).await;
    until("the fleet is gone, and that was told", async || {
        after = Scrape::of(&service).await;
        after.get("muster_scale_in_seconds_count") > 0.0
    })
    .await;
    assert_eq!(
        after.get("muster_requests_total{outcome=\"answered\"}"),
        1.0
    );
    assert_eq!(after.get(recognised), 1.0);
    assert!(after.get("muster_request_duration_seconds_sum{purpose=\"recognize\"}") > 0.0);
    for stage in [
        "queue", "fetch", "decode", "detect", "align", "embed", "match", "store",
    ] {
        let labels = format!("{{stage=\"{stage}\"}}");
        assert_eq!(
            after.get(&format!("muster_stage_duration_seconds_count{labels}")),
            1.0
        );
        let last = format!("muster_stage_duration_seconds_bucket{{stage=\"{stage}\",le=\"+Inf\"}}");
        assert_eq!(after.get(&last), 1.0);
    }
    assert_eq!(
        after.get("muster_faces_total{decision=\"unknown\"}"),
        faces as f64
    );
    let calls = |status: &str, route: &str| {
        let call = format!("route=\"{route}\",method=\"POST\",status=\"{status}\"");
        after.get(&format!("muster_http_requests_total{{{call}}}"))
    };
    assert_eq!(calls("200", "/v1/recognize"), 1.0);
    assert_eq!(calls("415", "/v1/recognize"), 1.0);
    assert!(
        !after.text.contains("/v1/nothing"),
        "no client names a label"
    );

    let launched = after.get("muster_fleet_launches_total");
    assert!(launched >= 1.0);
    assert_eq!(after.get("muster_fleet_boot_seconds_count"), launched);
    assert!(after.get("muster_fleet_boot_seconds_sum") > 0.0);
    let last = after.get("muster_fleet_boot_seconds_bucket{le=\"+Inf\"}");
    assert_eq!(last, launched);
    assert!(
        !after.text.contains("e+"),
        "no bound is a number beyond use"
    );
    assert_eq!(after.get("muster_fleet_drains_total"), launched);
    assert!(after.get("muster_scale_out_seconds_count") >= 1.0);
    assert!(after.get("muster_plans_total{decision=\"launch\"}") >= 1.0);
    for state in ["pending", "running", "draining"] {
        assert_eq!(
            after.get(&format!("muster_fleet_instances{{state=\"{state}\"}}")),
            0.0
        );
    }
    let seconds = after.get("muster_fleet_instance_seconds_total");
    assert!(seconds > 0.0);
    assert!((after.get("muster_fleet_cost_dollars_total") - seconds).abs() < 1e-6);
    for part in ["queue", "status", "gallery"] {
        assert_eq!(
            after.get(&format!("muster_reachable{{part=\"{part}\"}}")),
            1.0
        );
    }

    // The dashboard and the alerts ask for nothing else.
    let names = after.names();
    for file in ["muster.json", "alerts.yaml"] {
        let asked = named(&deployed(file));
        assert!(asked.len() > 10, "{file} names metrics");
        for name in asked {
            assert!(
                names.contains(&*name),
                "{file} asks for {name}, which is not told"
            );
        }
    }
}

#[tokio::test]
async fn what_does_not_answer_is_left_out_and_said() {
    let service = Service::up("").await;
    until("the controller has published", async || {
        Scrape::of(&service)
            .await
            .get("muster_controller_last_seen_timestamp_seconds")
            > 0.0
    })
    .await;
    let status = service.data.join("objects/status/fleet.json");
    std::fs::write(&status, "{").unwrap();
    let scrape = Scrape::of(&service).await;
    assert_eq!(scrape.get("muster_reachable{part=\"status\"}"), 0.0);
    assert_eq!(scrape.get("muster_reachable{part=\"queue\"}"), 1.0);
    assert!(!scrape.names().contains("muster_fleet_max_instances"));
    assert!(scrape.names().contains("muster_queue_messages"));
    assert!(
        !scrape.names().contains("muster_fleet_cost_dollars_total"),
        "no price is set"
    );
}

#[test]
fn every_alert_says_what_to_do() {
    let rules = deployed("alerts.yaml");
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() >= 10);
    for alert in alerts {
        let name = alert.lines().next().unwrap();
        for line in ["expr: ", "severity: ", "summary: ", "advice: "] {
            assert!(alert.contains(line), "{name} has no {line}");
        }
    }
}
