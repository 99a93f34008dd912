//! The main job, end to end: a photograph in, a name out, on a fleet that grows from zero and
//! returns to zero.

use crate::support::{Service, jpeg, read, samples, until};
use muster_jobs::RequestId;
use reqwest::multipart::Form;
use serde_json::Value;

#[tokio::test]
async fn a_photo_goes_in_and_a_name_comes_out() {
    let Some(samples) = samples() else { return };
    let service = Service::up("max_instances = 2").await;
    assert_eq!(
        service.instances().await,
        0,
        "nothing runs before there is work"
    );
    let (name, photos) = &samples.people[0];
    let (stranger, strangers) = &samples.people[1];
    assert_ne!(name, stranger);

    let unknown = service.recognize(&read(&photos[1])).await;
    assert_eq!(unknown.name(), "unknown");
    assert_eq!(
        unknown.json()["faces"][0]["reasons"][0],
        "nobody is enrolled"
    );

    let enrolled = service.enroll(name, &[&read(&photos[0])]).await;
    assert_eq!(enrolled.status, 201, "{}", enrolled.text());
    let person = enrolled.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(enrolled.headers["location"], format!("/v1/people/{person}"));

    // Read your writes: whichever worker takes the next request.
    for photo in &photos[1..] {
        assert_eq!(service.recognize(&read(photo)).await.name(), *name);
    }
    let answer = service.recognize(&read(&strangers[0])).await;
    assert_eq!(
        answer.name(),
        "unknown",
        "a stranger is not the nearest person"
    );
    let face = &answer.json()["faces"][0];
    assert_eq!(face["decision"], "unknown");
    assert!(face["person"].is_null());
    assert_eq!(face["candidates"][0]["person"]["name"], *name);

    let full = service.recognize(&read(&photos[1])).await.json();
    assert_contract(&full, &person);

    let plain = service
        .post(
            "/",
            Form::new().part("inputFile", jpeg("anna.b.jpg", &read(&photos[1]))),
        )
        .await;
    assert_eq!(
        (plain.status, plain.text()),
        (200, format!("anna.b:{name}"))
    );
    assert!(
        plain.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain")
    );

    let group = service.recognize(&read(&samples.group)).await.json();
    assert_eq!(
        group["faces"].as_array().unwrap().len(),
        6,
        "every face is found"
    );
    assert!(
        group["faces"]
            .as_array()
            .unwrap()
            .iter()
            .all(|face| face["decision"] == "unknown")
    );

    until("the fleet is back at zero", async || {
        service.instances().await == 0
    })
    .await;
    assert!(service.workers().is_empty(), "no process is left");
    // And it grows again.
    assert_eq!(service.recognize(&read(&photos[1])).await.name(), *name);
}

fn assert_contract(result: &Value, person: &str) {
    let id: RequestId = result["request_id"].as_str().unwrap().parse().unwrap();
    assert!(id.submitted_at().is_some(), "a UUIDv7");
    assert!(result["image"]["width"].as_u64().unwrap() > 0);
    assert!(result["image"]["height"].as_u64().unwrap() > 0);
    let face = &result["faces"][0];
    for side in ["x", "y", "width", "height"] {
        assert!(face["box"][side].is_number(), "box.{side}");
    }
    assert_eq!(face["landmarks"].as_array().unwrap().len(), 5);
    assert_eq!(face["landmarks"][0].as_array().unwrap().len(), 2);
    assert!(face["confidence"].as_f64().unwrap() > 0.5);
    assert_eq!(face["decision"], "match");
    assert_eq!(face["person"]["id"], person);
    assert!(face["similarity"].as_f64().unwrap() >= 0.363);
    assert_eq!(face["candidates"][0]["person"]["id"], person);
    assert!(face["candidates"][0]["similarity"].is_number());
    assert_eq!(face["reasons"].as_array().unwrap().len(), 0);
    assert!(result["model"].is_string());
    for stage in [
        "queue", "fetch", "decode", "detect", "align", "embed", "match", "store", "total",
    ] {
        assert!(result["timing_ms"][stage].is_number(), "timing_ms.{stage}");
    }
}

#[tokio::test]
async fn people_are_listed_added_to_and_deleted_and_survive_a_restart() {
    let Some(samples) = samples() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut service = Service::start("up", &data, "").await;
    let (name, photos) = &samples.people[0];
    let created = service
        .enroll(name, &[&read(&photos[0]), &read(&photos[1])])
        .await;
    assert_eq!(created.status, 201, "{}", created.text());
    assert_eq!(created.json()["faces"].as_array().unwrap().len(), 2);
    let person = created.json()["id"].as_str().unwrap().to_owned();

    let twice = service.enroll(name, &[&read(&photos[0])]).await;
    assert_eq!(
        (twice.status, twice.json()["code"].as_str().unwrap()),
        (409, "person.exists")
    );
    let faces = format!("/v1/people/{person}/faces");
    let added = service
        .post(
            &faces,
            Form::new().part("image", jpeg("c.jpg", &read(&photos[2]))),
        )
        .await;
    assert_eq!(added.status, 201, "{}", added.text());
    assert_eq!(added.json()["faces"].as_array().unwrap().len(), 3);

    service.signal("-TERM");
    assert!(service.ends().await.success());
    let service = Service::start("up", &data, "").await;
    let listed = service
        .http
        .get(service.at("/v1/people"))
        .send()
        .await
        .unwrap();
    let listed: Value = listed.json().await.unwrap();
    assert_eq!(listed["people"][0]["name"], *name);
    assert_eq!(listed["people"][0]["faces"].as_array().unwrap().len(), 3);
    assert_eq!(service.recognize(&read(&photos[1])).await.name(), *name);

    let url = service.at(&format!("/v1/people/{person}"));
    assert_eq!(service.http.get(&url).send().await.unwrap().status(), 200);
    assert_eq!(
        service.http.delete(&url).send().await.unwrap().status(),
        200
    );
    assert_eq!(
        service.http.delete(&url).send().await.unwrap().status(),
        404
    );
    assert_eq!(service.http.get(&url).send().await.unwrap().status(), 404);
    assert_eq!(service.recognize(&read(&photos[1])).await.name(), "unknown");
    let status = service.status().await;
    assert_eq!(
        (&status["gallery"]["people"], &status["gallery"]["faces"]),
        (&0.into(), &0.into())
    );
}

#[tokio::test]
async fn the_roles_run_as_processes_of_their_own() {
    let Some(samples) = samples() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let web = Service::start("web", &data, "").await;
    let second = Service::start("web", &data, "").await;
    let mut controller = crate::support::muster()
        .arg("controller")
        .arg("--data")
        .arg(&data)
        .spawn()
        .unwrap();
    let (name, photos) = &samples.people[0];
    let enrolled = web.enroll(name, &[&read(&photos[0])]).await;
    assert_eq!(enrolled.status, 201, "{}", enrolled.text());
    // Enrolled through one replica, seen through the other.
    assert_eq!(second.recognize(&read(&photos[1])).await.name(), *name);
    until("the fleet is back at zero", async || {
        web.instances().await == 0
    })
    .await;

    let rival = crate::support::muster()
        .arg("controller")
        .arg("--data")
        .arg(&data)
        .stderr(std::process::Stdio::piped())
        .output()
        .await
        .unwrap();
    assert!(!rival.status.success());
    assert!(String::from_utf8_lossy(&rival.stderr).contains("another Muster runs on"));

    crate::support::kill("-TERM", controller.id().unwrap());
    let ended = tokio::time::timeout(crate::support::LIMIT, controller.wait())
        .await
        .unwrap()
        .unwrap();
    assert!(ended.success());
    // A worker can be run by hand, too.
    let mut worker = crate::support::muster()
        .arg("worker")
        .arg("--data")
        .arg(&data)
        .spawn()
        .unwrap();
    assert_eq!(web.recognize(&read(&photos[1])).await.name(), *name);
    crate::support::kill("-TERM", worker.id().unwrap());
    assert!(
        tokio::time::timeout(crate::support::LIMIT, worker.wait())
            .await
            .unwrap()
            .unwrap()
            .success()
    );
}

#[tokio::test]
async fn the_layout_by_file_name_is_kept() {
    let Some(samples) = samples() else { return };
    let service = Service::up("object_keys = \"filename\"").await;
    let (name, photos) = &samples.people[0];
    assert_eq!(service.enroll(name, &[&read(&photos[0])]).await.status, 201);
    let form = Form::new().part("inputFile", jpeg("anna.jpg", &read(&photos[1])));
    assert_eq!(service.post("/", form).await.text(), format!("anna:{name}"));
    let objects = service.data.join("objects");
    assert_eq!(read(&objects.join("input/anna.jpg")), read(&photos[1]));
    assert_eq!(read(&objects.join("output/anna")), name.as_bytes());

    // Many clients with one file name: each gets its own photograph's answer, or is told.
    let stranger = read(&samples.people[1].1[0]);
    let known = read(&photos[1]);
    let answers = futures::future::join_all((0..20).map(async |n| {
        let photo = if n % 2 == 0 { &known } else { &stranger };
        let form = Form::new().part("inputFile", jpeg("same.jpg", photo));
        (n, service.post("/", form).await)
    }))
    .await;
    let mut answered = 0;
    for (n, answer) in answers {
        match answer.status {
            200 => {
                answered += 1;
                let expected = if n % 2 == 0 { name.as_str() } else { "unknown" };
                assert_eq!(answer.text(), format!("same:{expected}"));
            }
            409 => assert!(answer.text().contains("same.jpg"), "{}", answer.text()),
            other => panic!("{other}: {}", answer.text()),
        }
    }
    assert!(answered > 0, "the last upload at least is answered");
}
