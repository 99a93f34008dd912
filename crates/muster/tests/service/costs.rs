//! What the fleet costs, and the limits of that.

use serde_json::Value;

use crate::support::{Service, muster, read, samples, until};

/// A dollar for a second of a worker.
const PRICE: &str = "price_per_hour = 3600.0\ndrain_timeout_s = 1.0\n";

async fn fleet(service: &Service) -> Value {
    service.status().await["fleet"].take()
}

#[tokio::test]
async fn the_limit_of_an_hour_bounds_the_fleet_and_is_said() {
    let Some(samples) = samples() else { return };
    let toml = "max_instances = 3\nmin_instances = 2\nmax_dollars_per_hour = 4000.0\n\
                idle_grace_s = 60.0";
    let service = Service::up(&format!("{PRICE}{toml}")).await;
    let photo = read(&samples.people[0].1[0]);
    assert_eq!(service.recognize(&photo).await.status, 200);
    let fleet = fleet(&service).await;
    assert_eq!(
        (&fleet["running"], &fleet["pending"], &fleet["max"]),
        (&1.into(), &0.into(), &3.into())
    );
    let reason = fleet["reason"].as_str().unwrap();
    assert!(
        reason.ends_with("; the limit of $4000.00 an hour allows 1"),
        "{reason}"
    );
    assert_eq!(fleet["dollars_per_hour"], 3600.0);
    assert_eq!(fleet["max_dollars_per_hour"], 4000.0);
    assert!(fleet["dollars_today"].as_f64().unwrap() > 0.0);
    assert_eq!(fleet.get("max_dollars_per_day"), None);
    let status = muster().args(["status", "--url", &service.url]).output();
    let said = String::from_utf8(status.await.unwrap().stdout).unwrap();
    let line = said.lines().find(|line| line.starts_with("cost "));
    let line = line.unwrap_or_else(|| panic!("no cost in {said}"));
    assert!(
        line.starts_with("cost      $3600.00 an hour (at most $4000.00), $"),
        "{line}"
    );
}

/// What was spent before a restart is spent.
#[tokio::test]
async fn the_limit_of_a_day_holds_across_controllers() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let toml = format!("{PRICE}max_instances = 2\nmin_instances = 1\nmax_dollars_per_day = 9.0");
    let mut spent = 0.0;
    for start in 0..2 {
        let mut service = Service::start("up", &data, &toml).await;
        until(
            "the day's money is spent and the fleet is gone",
            async || {
                let fleet = fleet(&service).await;
                let today = fleet["dollars_today"].as_f64().unwrap_or_default();
                assert!(today <= 9.0, "{fleet}");
                let reason = fleet["reason"].as_str().unwrap();
                let said = reason.contains("the limit of $9.00 a day allows 0");
                said && fleet["instances"].as_array().unwrap().is_empty()
            },
        )
        .await;
        let metrics = service
            .http
            .get(service.at("/metrics"))
            .send()
            .await
            .unwrap();
        let metrics = metrics.text().await.unwrap();
        let get = |name: &str| -> f64 {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name} in {metrics}"))
                .trim()
                .parse()
                .unwrap()
        };
        assert_eq!(get("muster_fleet_dollars_per_hour "), 0.0);
        assert_eq!(get("muster_fleet_max_dollars_per_day "), 9.0);
        let today = get("muster_fleet_dollars_today ");
        // What was written last may be one look older than what was told: some tenths of a second.
        assert!(today > spent - 0.5 && today > 4.0, "{today} after {spent}");
        spent = today;
        let launches = get("muster_fleet_launches_total ");
        assert_eq!(
            launches > 0.0,
            start == 0,
            "{launches} launches of start {start}"
        );
        service.signal("-KILL");
        assert!(!service.ends().await.success());
    }
}
