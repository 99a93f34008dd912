//! The audit log: who did what to whom, and how it is read.

use std::path::Path;

use reqwest::Method;
use reqwest::multipart::Form;
use serde_json::{Value, json};

use crate::bad_input::assert_problem;
use crate::keys;
use crate::support::{Answer, Service, jpeg, muster, read, samples, until};

/// What `muster audit --json` prints.
async fn audit(data: &Path, args: &[&str]) -> Vec<Value> {
    let mut command = muster();
    command.args(["audit", "--json"]).args(args);
    let output = command.arg("--data").arg(data).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

fn actions(entries: &[Value]) -> Vec<&str> {
    let actions = entries
        .iter()
        .map(|entry| entry["action"].as_str().unwrap());
    actions.collect()
}

/// Every object of the log, as it stands in the data folder.
fn stored(data: &Path) -> Vec<String> {
    let days = std::fs::read_dir(data.join("objects/audit")).unwrap();
    let days = days.map(|day| day.unwrap().path());
    let files = days.flat_map(|day| std::fs::read_dir(day).unwrap());
    let files = files.map(|file| file.unwrap().path());
    files
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect()
}

#[tokio::test]
async fn who_did_what_to_whom_is_told_and_outlives_the_person() {
    let Some(samples) = samples() else { return };
    let data = tempfile::tempdir().unwrap();
    let admin = keys::create(data.path(), &["--scope", "admin"]).await;
    let service = Service::start("up", data.path(), "require_keys = true").await;
    let ask = async |method: Method, path: &str| {
        let request = service.http.request(method, service.at(path));
        Answer::read(request.bearer_auth(&admin).send().await.unwrap()).await
    };
    let photo = read(&samples.people[0].1[0]);
    let form = Form::new()
        .text("name", "Quendolin Vastergaard")
        .part("image", jpeg("q.jpg", &photo));
    let sent = service.http.post(service.at("/v1/people")).multipart(form);
    let sent = sent.bearer_auth(&admin).header("x-request-id", "enrol-7");
    let enrolled = Answer::read(sent.send().await.unwrap()).await;
    assert_eq!(enrolled.status, 201, "{}", enrolled.text());
    // A change is in the log before it is answered.
    let changes = audit(data.path(), &["--action", "enrolled"]).await;
    let person = enrolled.json()["id"].clone();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0]["people"], json!([person]));
    assert_eq!(changes[0]["request_id"], "enrol-7");
    let key = admin.split('_').nth(1).unwrap();
    assert_eq!(changes[0]["who"]["key"]["id"], key);
    assert_eq!(changes[0]["who"]["key"]["name"], "a test");

    let id = person.as_str().unwrap();
    let face = enrolled.json()["faces"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let one = format!("/v1/people/{id}");
    assert_eq!(ask(Method::GET, "/v1/people").await.status, 200);
    assert_eq!(ask(Method::GET, &one).await.status, 200);
    let kept = format!("{one}/faces/{face}/photo");
    assert_eq!(ask(Method::GET, &kept).await.status, 200);
    // What was refused was not done.
    assert_eq!(
        ask(Method::DELETE, &format!("{one}/faces/{face}"))
            .await
            .status,
        409
    );
    let gone = "/v1/people/01900000-0000-7000-8000-000000000000";
    assert_eq!(ask(Method::DELETE, gone).await.status, 404);
    assert_eq!(ask(Method::DELETE, &one).await.status, 200);

    until("the looks are in the log", async || {
        let looks = ["--action", "listed,looked_at,photo_looked_at"];
        audit(data.path(), &looks).await.len() == 3
    })
    .await;
    let all = audit(data.path(), &[]).await;
    let expected = [
        "key_created",
        "enrolled",
        "listed",
        "looked_at",
        "photo_looked_at",
        "deleted",
    ];
    assert_eq!(actions(&all), expected);
    assert_eq!(all[2]["people"], json!([person]), "whom the list showed");
    assert_eq!(all[4]["thing"], face);
    let of_person = audit(data.path(), &["--person", id]).await;
    assert_eq!(actions(&of_person), expected[1..], "by id, though deleted");
    assert!(
        audit(data.path(), &["--key", "0000000000000000"])
            .await
            .is_empty()
    );
    let names = stored(data.path());
    assert!(!names.is_empty() && names.iter().all(|log| !log.contains("Quendolin")));

    // By name, nobody is found any more, and the error says what to do.
    let mut command = muster();
    command.args(["audit", "--person", "Quendolin Vastergaard", "--data"]);
    let output = command.arg(data.path()).output().await.unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("give the id"), "{said}");
}

#[tokio::test]
async fn a_change_that_can_not_be_written_down_is_not_made() {
    let Some(samples) = samples() else { return };
    let service = Service::up("").await;
    let photo = read(&samples.people[0].1[0]);
    let enrolled = service.enroll("Anna", &[&photo]).await;
    assert_eq!(enrolled.status, 201);
    // A file where the log's folder was.
    let folder = service.data.join("objects/audit");
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::write(&folder, "in the way").unwrap();
    let path = format!("/v1/people/{}", enrolled.json()["id"].as_str().unwrap());
    let response = service.http.delete(service.at(&path)).send().await.unwrap();
    let answer = Answer::read(response).await;
    assert_problem(&answer, 503, "not_ready");
    assert!(answer.headers.contains_key("retry-after"));
    let said = answer.text();
    assert!(
        said.contains("nothing was done") && said.contains("audit log"),
        "{said}"
    );
    let there = service.http.get(service.at(&path)).send().await.unwrap();
    assert_eq!(there.status(), 200);
    // Looks do not fail, and are written once they can be.
    let list = service.http.get(service.at("/v1/people")).send().await;
    assert_eq!(list.unwrap().status(), 200);
    std::fs::remove_file(&folder).unwrap();
    until("the look is in the log", async || {
        actions(&audit(&service.data, &["--action", "listed"]).await) == ["listed"]
    })
    .await;
    let deleted = service.http.delete(service.at(&path)).send().await.unwrap();
    assert_eq!(deleted.status(), 200);
    let entries = audit(&service.data, &["--action", "deleted"]).await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].get("end"), None, "{entries:?}");
}

#[tokio::test]
async fn a_change_of_which_the_end_is_not_known_is_marked() {
    let Some(samples) = samples() else { return };
    let service = Service::up("max_instances = 1").await;
    let photo = read(&samples.people[0].1[0]);
    let anna = service.enroll("Anna", &[&photo]).await.json();
    let ben = service.enroll("Ben", &[&photo]).await.json();
    let id = anna["id"].as_str().unwrap();
    // No segment can be written once she is gone from the changes.
    std::fs::write(service.data.join("objects/gallery-segments"), "in the way").unwrap();
    let path = service.at(&format!("/v1/people/{id}"));
    let answer = Answer::read(service.http.delete(&path).send().await.unwrap()).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(service.http.get(&path).send().await.unwrap().status(), 404);
    let deleted = audit(&service.data, &["--action", "deleted"]).await;
    assert_eq!(deleted.len(), 1);
    assert_eq!(deleted[0]["people"], json!([id]));
    assert_eq!(deleted[0]["end"], "unknown");

    // What was not done is not said to be because that can not be written down.
    for folder in ["objects/gallery", "objects/audit"] {
        let folder = service.data.join(folder);
        std::fs::rename(&folder, folder.with_extension("away")).unwrap();
        std::fs::write(&folder, "in the way").unwrap();
    }
    let path = service.at(&format!("/v1/people/{}", ben["id"].as_str().unwrap()));
    let answer = Answer::read(service.http.delete(&path).send().await.unwrap()).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(!answer.text().contains("it was done"), "{}", answer.text());
}
