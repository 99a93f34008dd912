//! Data folders that earlier builds wrote and were killed over: this build takes each of them over.
//!
//! `tests/fixtures/data-folders` holds them and says what is in them; the script there writes the next.

use std::path::{Path, PathBuf};

use reqwest::Method;
use reqwest::multipart::Form;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::{Answer, Service, installed, jpeg, muster, read, until};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");

/// Settings that keep what is years old.
const SETTINGS: &str = "require_keys = true\nmax_instances = 1\nretention_s = 1e9";

fn data_folders() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(Path::new(FIXTURES).join("data-folders")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.is_dir()).collect()
}

fn photograph(name: &str) -> Vec<u8> {
    read(&Path::new(FIXTURES).join("photographs").join(name))
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (from, name) = entry
            .map(|entry| (entry.path(), entry.file_name()))
            .unwrap();
        if from.is_dir() {
            copy(&from, &to.join(name));
        } else {
            std::fs::copy(&from, to.join(name)).unwrap();
        }
    }
}

/// Makes the messages of an earlier build's queue ones of today: a queue drops those that are old.
///
/// The tables are those of the fixtures' builds, whatever later ones make of them.
fn refresh(queue: &Path) {
    let database = Connection::open(queue).unwrap();
    let now = "CAST(unixepoch('subsec') * 1000 AS INTEGER)";
    let set = format!("UPDATE messages SET sent_at = {now}, visible_at = {now}");
    assert!(
        database.execute(&set, []).unwrap() > 0,
        "{}",
        queue.display()
    );
}

/// A service on the copy of a data folder, and the key that it is asked with.
struct TakenOver {
    service: Service,
    key: String,
}

impl TakenOver {
    async fn call(&self, method: Method, path: &str) -> Answer {
        let request = self.service.http.request(method, self.service.at(path));
        Answer::read(request.bearer_auth(&self.key).send().await.unwrap()).await
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.call(Method::GET, path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    async fn recognize(&self, photo: &str) -> Answer {
        let form = Form::new().part("image", jpeg(photo, &photograph(photo)));
        let sent = self.service.http.post(self.service.at("/v1/recognize"));
        let sent = sent.bearer_auth(&self.key).multipart(form).send().await;
        Answer::read(sent.unwrap()).await
    }
}

/// Whether everything that the earlier build said is said again; a later one may say more.
fn holds(now: &Value, before: &Value) -> bool {
    match (now, before) {
        (Value::Object(now), Value::Object(before)) => before
            .iter()
            .all(|(name, before)| holds(now.get(name).unwrap_or(&Value::Null), before)),
        (Value::Array(now), Value::Array(before)) => {
            now.len() == before.len() && now.iter().zip(before).all(|(now, was)| holds(now, was))
        }
        _ => now == before,
    }
}

#[track_caller]
fn assert_holds(now: &Value, before: &Value) {
    assert!(holds(now, before), "now {now}\nbefore {before}");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

#[tokio::test]
async fn data_folders_of_earlier_builds_are_taken_over() {
    // Their change of the model is to that profile's.
    if installed("fast").is_none() {
        return;
    }
    let folders = data_folders();
    assert!(!folders.is_empty());
    for folder in folders {
        eprintln!("taking over {}", folder.display());
        take_over(&folder).await;
    }
}

async fn take_over(folder: &Path) {
    let before: Value = serde_json::from_slice(&read(&folder.join("answers.json"))).unwrap();
    let keys = &before["keys_of_this_fixture_alone"];
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("data");
    copy(&folder.join("data"), &data);
    refresh(&data.join("queue.db"));
    let mut now = TakenOver {
        service: Service::start("up", &data, SETTINGS).await,
        key: text(&keys["revoked"]).to_owned(),
    };

    assert_eq!(now.call(Method::GET, "/v1/people").await.status, 401);
    now.key = text(&keys["recognize"]).to_owned();
    assert_eq!(now.call(Method::GET, "/v1/people").await.status, 403);
    assert_eq!(now.call(Method::GET, "/v1/jobs").await.status, 200);
    now.key = text(&keys["admin"]).to_owned();

    the_change_of_the_model_ends(&now, &before).await;
    people_are_there(&now, &before).await;
    who_was_deleted_stays_gone(&now, &before).await;
    jobs_end(&now, &before).await;

    for (photo, name) in [
        ("obama-wide.jpg", "Barack Obama"),
        ("obama-speech.jpg", "Barack Obama"),
        ("biden-wide.jpg", "Joe Biden"),
        ("einstein.jpg", "ambiguous"),
        ("collins.jpg", "unknown"),
        ("obama-hall.jpg", "unknown"),
    ] {
        let answer = now.recognize(photo).await;
        assert_eq!(answer.name(), name, "{photo}: {}", answer.text());
        assert_eq!(answer.json()["model"], "fr_feature", "{photo}");
    }

    let denied = now.recognize("obama-hall.jpg").await.json();
    let reasons = denied["faces"][0]["reasons"].to_string();
    assert!(reasons.contains("said not to be Barack Obama"), "{reasons}");

    let mut audit = muster();
    audit.args([
        "audit",
        "--json",
        "--since",
        "2026-01-01T00:00:00Z",
        "--data",
    ]);
    let audit = audit.arg(&data).output().await.unwrap();
    assert!(audit.status.success(), "{audit:?}");
    let audit = String::from_utf8(audit.stdout).unwrap();
    let entries = audit
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let entries: Vec<Value> = entries.collect();
    let earlier = list(&before["audit"]);
    assert!(earlier.len() > 10, "{earlier:?}");
    for earlier in earlier {
        let found = entries.iter().any(|entry| holds(entry, earlier));
        assert!(found, "{earlier} in {entries:?}");
    }
}

async fn the_change_of_the_model_ends(now: &TakenOver, before: &Value) {
    let half_done = &before["model"];
    assert_eq!(half_done["model"], "sface");
    assert_eq!(half_done["change"]["to"], "fr_feature");
    until("the gallery is matched by the next model", async || {
        let model = now.get("/v1/gallery/model").await;
        model["model"] == "fr_feature" && model["change"].is_null()
    })
    .await;
    let model = now.get("/v1/gallery/model").await;
    assert_eq!(model["kept"], json!(["fr_feature", "sface"]));
    assert_eq!(model["not_embedded"], json!([]));
}

async fn people_are_there(now: &TakenOver, before: &Value) {
    let people = now.get("/v1/people").await;
    assert_holds(&people["people"], &before["people"]["people"]);
    let people = list(&people["people"]);
    let names: Vec<&str> = people.iter().map(|person| text(&person["name"])).collect();
    let expected = [
        "Barack Obama",
        "Joe Biden",
        "Albert Einstein",
        "Professor Einstein",
    ];
    assert_eq!(names, expected);
    for person in people {
        let path = format!("/v1/people/{}", text(&person["id"]));
        assert_eq!(now.get(&path).await, *person);
        if let Some(external_id) = person["external_id"].as_str() {
            let found = format!("/v1/people?external_id={external_id}");
            assert_eq!(now.get(&found).await["people"], json!([person]));
        }
        for face in list(&person["faces"]) {
            let path = format!("{path}/faces/{}/photo", text(&face["id"]));
            let photo = now.call(Method::GET, &path).await;
            assert_eq!(photo.status, 200, "{path}: {}", photo.text());
            assert!(photo.body == photograph(text(&face["file"])), "{path}");
        }
    }
    let denied = &before["denied"];
    let path = format!("/v1/people/{}/denials", text(&denied["person"]));
    assert_holds(&now.get(&path).await, &denied["denials"]);
    assert_eq!(list(&denied["denials"]["denials"]).len(), 1);
}

async fn who_was_deleted_stays_gone(now: &TakenOver, before: &Value) {
    let gone = &before["gone"];
    let people = list(&gone["people"]).iter();
    let people = people.map(|id| format!("/v1/people/{}", text(id)));
    let photos = list(&gone["faces"]).iter().map(|face| {
        let (person, face) = (text(&face[0]), text(&face[1]));
        format!("/v1/people/{person}/faces/{face}/photo")
    });
    for path in people.chain(photos) {
        assert_eq!(now.call(Method::GET, &path).await.status, 404, "{path}");
    }
}

async fn jobs_end(now: &TakenOver, before: &Value) {
    let waiting = text(&before["waiting_job"]);
    let mut job = Value::Null;
    until("the job that waited is done", async || {
        job = now.get(&format!("/v1/jobs/{waiting}")).await;
        job["state"] == "done"
    })
    .await;
    assert_eq!(job["result"]["faces"][0]["person"]["name"], "Barack Obama");
    assert_eq!(job["file"], "obama-wide.jpg");

    let [done, failed] = list(&before["ended_jobs"]) else {
        panic!("{before}")
    };
    // He was renamed since.
    assert_eq!(done["result"]["faces"][0]["person"]["name"], "J. Biden");
    assert_eq!(failed["problem"]["code"], "recognition.failed");
    for ended in [done, failed] {
        let mut job = now.get(&format!("/v1/jobs/{}", text(&ended["id"]))).await;
        // By the setting.
        job["expires_at_ms"] = ended["expires_at_ms"].clone();
        assert_holds(&job, ended);
    }
    let ids = |jobs: &Value| -> Vec<Value> {
        list(&jobs["jobs"])
            .iter()
            .map(|job| job["id"].clone())
            .collect()
    };
    let jobs = now.get("/v1/jobs").await;
    assert_eq!(ids(&jobs), ids(&before["jobs"]));

    let queue = &now.get("/v1/status").await["queue"];
    assert_eq!(queue["dead_letter"], 1);
    until("nothing is left to do", async || {
        let queue = &now.get("/v1/status").await["queue"];
        queue["visible"] == 0 && queue["in_flight"] == 0
    })
    .await;
}
