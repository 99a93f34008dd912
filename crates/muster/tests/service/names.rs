//! People's names: compared as people read them, and fit to be shown.

use std::sync::Arc;

use muster_gallery::{Change, Gallery, GalleryStore, Person, Written};
use muster_jobs::keys::GALLERY_PREFIX;
use object_store::local::LocalFileSystem;
use reqwest::multipart::Form;
use serde_json::{Value, json};

use crate::bad_input::assert_problem;
use crate::support::{Answer, LIMIT, Service, jpeg, muster, read, samples};

async fn rename(service: &Service, id: &str, to: Value) -> Answer {
    let path = service.at(&format!("/v1/people/{id}"));
    let patch = service.http.patch(path).json(&to);
    Answer::read(patch.send().await.unwrap()).await
}

async fn listed(service: &Service, name: &str) -> Vec<String> {
    let url = reqwest::Url::parse_with_params(&service.at("/v1/people"), [("name", name)]);
    let asked = service.http.get(url.unwrap()).send().await;
    let answer = Answer::read(asked.unwrap()).await;
    let people = answer.json()["people"].as_array().unwrap().clone();
    let names = people.iter().map(|person| person["name"].as_str().unwrap());
    names.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_name_is_somebodys_however_it_is_written() {
    let Some(samples) = samples() else { return };
    let service = Service::up("max_instances = 1\nidle_grace_s = 30.0").await;
    let (first, second) = (read(&samples.people[0].1[0]), read(&samples.people[1].1[0]));
    let jose = service.enroll("José  Ångström", &[&first]).await;
    assert_eq!(jose.status, 201, "{}", jose.text());
    let jose = jose.json();
    let id = jose["id"].as_str().unwrap();
    for name in [
        "JOSE\u{301} A\u{30a}NGSTRÖM",
        " josé\u{a0}ångström ",
        "Jo\u{200d}sé Ångström",
    ] {
        let again = service.enroll(name, &[&second]).await;
        assert_problem(&again, 409, "person.exists");
        assert_eq!(again.json()["person_id"], *id, "{name}");
    }
    assert_eq!(
        service.enroll("Jose Angstrom", &[&second]).await.status,
        201
    );
    assert_eq!(listed(&service, "jose\u{301} å").await, ["José  Ångström"]);
    assert_eq!(
        rename(&service, id, json!({"name": "JOSÉ Ångström"}))
            .await
            .status,
        200
    );
    let taken = rename(&service, id, json!({"name": "jose  angstrom"})).await;
    assert_problem(&taken, 409, "person.exists");

    for name in [
        "unknown",
        "\u{a0}UNKNOWN ",
        "Eve\u{202e}",
        "Eve\u{1b}[2J",
        "E\u{9b}ve",
        "E\u{ad}ve",
        "\u{3164}",
        "Eve\u{200d}",
    ] {
        assert_problem(
            &service.enroll(name, &[&second]).await,
            400,
            "request.invalid",
        );
        let renamed = rename(&service, id, json!({"name": name})).await;
        assert_problem(&renamed, 400, "request.invalid");
    }
    // Joiners between letters are part of how Persian is written.
    let persian = rename(&service, id, json!({"name": "نیک\u{200c}نام"})).await;
    assert_eq!(persian.status, 200, "{}", persian.text());
    assert_eq!(
        rename(&service, id, json!({"name": "José Ångström"}))
            .await
            .status,
        200
    );

    let folder = tempfile::tempdir().unwrap();
    let of_jose = folder.path().join("JOSE\u{301} ÅNGSTRÖM");
    std::fs::create_dir(&of_jose).unwrap();
    std::fs::copy(&samples.people[0].1[1], of_jose.join("2.jpg")).unwrap();
    let command = muster()
        .args(["enroll", "--json", "--url", &service.url])
        .arg(folder.path())
        .output();
    let output = tokio::time::timeout(LIMIT, command).await.unwrap().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["people"][0]["state"], "extended", "{report}");
}

#[tokio::test]
async fn people_of_before_who_have_one_name_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let objects = data.join("objects");
    std::fs::create_dir_all(&objects).unwrap();
    let objects = LocalFileSystem::new_with_prefix(&objects).unwrap();
    let store = GalleryStore::new(Arc::new(objects), GALLERY_PREFIX);
    let mut gallery = Gallery::default();
    let names = ["Anna", "ANNA", "unknown", "Eve\u{202e}"];
    let people = names.map(|name| Person::new(name.to_owned(), Vec::new(), 1));
    for person in &people {
        let change = Change::Put(person.clone());
        let decide = |_: &Gallery| Ok::<_, ()>(change.clone());
        let written = store.write(&mut gallery, decide).await.unwrap();
        assert_eq!(written, Written::Settled);
    }
    // The models are not needed: nothing is recognised.
    let service = Service::start("web", &data, "").await;
    assert_eq!(listed(&service, "").await.len(), 4);
    assert_eq!(listed(&service, "anna").await, ["Anna", "ANNA"]);
    let ids = people.each_ref().map(|person| person.id.to_string());
    // What is not changed is no matter; a further double is.
    for id in &ids {
        let noted = rename(&service, id, json!({"metadata": {"seen": "yes"}})).await;
        assert_eq!(noted.status, 200, "{}", noted.text());
    }
    assert_problem(
        &rename(&service, &ids[2], json!({"name": "aNNa"})).await,
        409,
        "person.exists",
    );
    let form = Form::new()
        .text("name", "anna")
        .part("image", jpeg("a.jpg", b"no photograph"));
    assert_problem(
        &service.post("/v1/people", form).await,
        415,
        "image.unsupported",
    );
    assert_eq!(
        rename(&service, &ids[1], json!({"name": "Anna B"}))
            .await
            .status,
        200
    );
    assert_eq!(listed(&service, "anna").await, ["Anna", "Anna B"]);
    assert_eq!(
        rename(&service, &ids[2], json!({"name": "Zoe"}))
            .await
            .status,
        200
    );
}
