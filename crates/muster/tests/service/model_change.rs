//! A change of the model that a gallery is matched by, in real processes: to the installed SFace fed
//! the colours the other way round, whose embeddings are others.

use std::path::Path;

use crate::own_model::own_copy;
use crate::support::{Service, read, samples, until};
use reqwest::Method;
use serde_json::{Value, json};

impl Service {
    async fn model(&self) -> Value {
        let answer = self.http.get(self.at("/v1/gallery/model")).send().await;
        answer.unwrap().json().await.unwrap()
    }

    async fn change_to(&self, model: &str) -> (u16, Value) {
        let body = json!({ "model": model });
        let sent = self.http.post(self.at("/v1/gallery/model")).json(&body);
        let answer = sent.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn forget(&self, model: &str) -> u16 {
        let path = self.at(&format!("/v1/gallery/model/{model}"));
        let answer = self.http.request(Method::DELETE, path).send().await;
        answer.unwrap().status().as_u16()
    }

    async fn until_matched_by(&self, model: &str) {
        until("the gallery is matched by the next model", async || {
            let now = self.model().await;
            now["model"] == model && now["change"].is_null()
        })
        .await;
    }
}

/// Whoever is asked for on each photograph must be named, whichever model answers; tells which did.
async fn asked(service: &Service, people: &[(String, Vec<u8>)]) -> Vec<String> {
    let mut models = Vec::new();
    for (name, photo) in people {
        let answer = service.recognize(photo).await;
        assert_eq!(answer.name(), *name);
        models.push(answer.json()["model"].as_str().unwrap().to_owned());
    }
    models
}

fn swapped(folder: &Path) -> String {
    let settings = own_copy(folder, "swapped");
    let manifest = folder.join("models.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("\"rgb\"", "\"bgr\"")).unwrap();
    settings
}

#[tokio::test]
async fn a_model_is_changed_while_queries_are_answered_and_back() {
    let Some(samples) = samples() else { return };
    let folder = tempfile::tempdir().unwrap();
    let toml = format!("{}max_instances = 2\n", swapped(folder.path()));
    let service = Service::up(&toml).await;
    let probes: Vec<(String, Vec<u8>)> = samples
        .people
        .iter()
        .map(|(name, photos)| (name.clone(), read(photos.last().unwrap())))
        .collect();
    for (name, photos) in &samples.people {
        let made = service.enroll(name, &[&read(&photos[0])]).await;
        assert_eq!(made.status, 201, "{}", made.text());
    }
    // More faces, so that the change takes a while: each person has one and is never asked for.
    let other = read(&samples.people[0].1[1]);
    for n in 0..20 {
        let made = service.enroll(&format!("Other {n}"), &[&other]).await;
        assert_eq!(made.status, 201, "{}", made.text());
    }
    // One whose photograph is lost.
    let lost = service.enroll("Lost", &[&other]).await.json();
    let face = lost["faces"][0]["id"].as_str().unwrap();
    std::fs::remove_file(service.data.join("objects/enrolled").join(face)).unwrap();
    let before = service.model().await;
    assert_eq!(
        (&before["model"], &before["change"]),
        (&json!("sface"), &Value::Null)
    );

    let (status, error) = service.change_to("nonsense").await;
    assert!(
        status == 400 && error["detail"].as_str().unwrap().contains("swapped"),
        "{error}"
    );
    let (status, begun) = service.change_to("swapped").await;
    assert_eq!((status, &begun["model"]), (202, &json!("sface")), "{begun}");
    assert_eq!(begun["change"]["to"], "swapped");
    let mut seen = Vec::new();
    until("the gallery is matched by the next model", async || {
        seen.extend(asked(&service, &probes[1..]).await);
        let now = service.model().await;
        now["model"] == "swapped" && now["change"].is_null()
    })
    .await;
    assert!(
        seen.iter().any(|model| model == "sface"),
        "it was asked meanwhile: {seen:?}"
    );
    assert!(
        asked(&service, &probes[1..])
            .await
            .iter()
            .all(|model| model == "swapped")
    );
    let after = service.model().await;
    assert_eq!(after["kept"], json!(["sface", "swapped"]));
    let not_embedded = after["not_embedded"].as_array().unwrap();
    assert_eq!(
        (not_embedded.len(), &not_embedded[0]["id"]),
        (1, &json!(face))
    );

    // Someone who is enrolled now is known on either side, and the way back is no work.
    let newly = &samples.people[0];
    let made = service.enroll("Newly", &[&read(&newly.1[2])]).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let (status, back) = service.change_to("default").await;
    assert_eq!((status, &back["model"]), (200, &json!("sface")), "{back}");
    assert!(
        asked(&service, &probes[1..])
            .await
            .iter()
            .all(|model| model == "sface")
    );
    let answer = service.recognize(&read(&newly.1[2])).await;
    assert_eq!(answer.name(), "Newly");

    assert_eq!(service.forget("sface").await, 400, "it is in use");
    assert_eq!(service.forget("swapped").await, 200);
    assert_eq!(service.forget("swapped").await, 404);
    assert_eq!(service.model().await["kept"], json!(["sface"]));
    let change = std::fs::read_dir(service.data.join("objects/gallery")).unwrap();
    for object in change {
        let bytes = read(&object.unwrap().path());
        let holds = bytes.windows(7).any(|part| part == b"swapped");
        assert!(!holds || bytes.len() < 200, "its embeddings are gone");
    }
    assert!(
        asked(&service, &probes[1..])
            .await
            .iter()
            .all(|model| model == "sface")
    );
}

#[tokio::test]
async fn a_change_of_the_model_survives_a_kill() {
    let Some(samples) = samples() else { return };
    let folder = tempfile::tempdir().unwrap();
    let toml = format!("{}max_instances = 2\n", swapped(folder.path()));
    let data = folder.path().join("data");
    let mut service = Service::start("up", &data, &toml).await;
    let photo = read(&samples.people[0].1[0]);
    for n in 0..24 {
        let made = service.enroll(&format!("Person {n}"), &[&photo]).await;
        assert_eq!(made.status, 201, "{}", made.text());
    }
    assert_eq!(service.change_to("swapped").await.0, 202);
    until("some faces are embedded", async || {
        let change = &service.model().await["change"];
        change["embedded"]
            .as_u64()
            .is_some_and(|embedded| embedded > 0)
    })
    .await;
    service.signal("-KILL");
    // The folder is free once the kernel has taken its lock back.
    service.ends().await;
    drop(service);
    let service = Service::start("up", &data, &toml).await;
    service.until_matched_by("swapped").await;
    let answer = service.recognize(&photo).await;
    assert_eq!(answer.json()["model"], "swapped");
    assert_eq!(service.model().await["not_embedded"], json!([]));
}
