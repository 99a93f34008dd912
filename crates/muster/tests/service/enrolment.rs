//! `muster enroll`: folders of people, gone on with where it stopped, and a report of what was refused.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::support::{LIMIT, Service, muster, read, samples, until};

/// Runs `muster enroll` on a folder to its end: the exit code and the report.
async fn enroll(service: &Service, folder: &Path) -> (Option<i32>, Value) {
    let command = muster()
        .args(["enroll", "--json", "--url", &service.url])
        .arg(folder)
        .output();
    let output = tokio::time::timeout(LIMIT, command).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout).expect(&said);
    (output.status.code(), report)
}

fn put(folder: &Path, file: &str, bytes: &[u8]) {
    let path = folder.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_folder_is_enrolled_and_what_is_unfit_is_reported() {
    let Some(samples) = samples() else { return };
    let service = Service::up("max_instances = 1").await;
    let folder = tempfile::tempdir().unwrap();
    let people = &samples.people;
    let group = read(&samples.group);
    put(folder.path(), "Anna/1.jpg", &read(&people[1].1[0]));
    put(folder.path(), "Anna/six.jpg", &group);
    put(folder.path(), "Ben/1.jpg", &read(&people[0].1[0]));
    put(folder.path(), "Nobody/text.jpg", b"not a picture");
    let (code, report) = enroll(&service, folder.path()).await;
    assert_eq!(code, Some(1), "{report}");
    let fate = |person: &Value| {
        let text = |member: &str| person[member].as_str().unwrap().to_owned();
        (text("name"), text("state"), person["faces"].as_u64())
    };
    let people_then = report["people"].as_array().unwrap().iter();
    let expected = [
        ("Anna", "enrolled", Some(1)),
        ("Ben", "enrolled", Some(1)),
        ("Nobody", "refused", None),
    ];
    let expected = expected.map(|(name, state, faces)| (name.into(), state.into(), faces));
    assert_eq!(people_then.map(fate).collect::<Vec<_>>(), expected);
    let refused = report["refused_photos"].as_array().unwrap();
    let files: Vec<_> = refused.iter().map(|photo| &photo["file"]).collect();
    assert_eq!(files, ["Anna/six.jpg", "Nobody/text.jpg"]);
    assert!(refused[0]["reason"].as_str().unwrap().contains("6 faces"));

    // What is there is left as it is, and what is new is added.
    std::fs::remove_dir_all(folder.path().join("Nobody")).unwrap();
    std::fs::remove_file(folder.path().join("Anna/six.jpg")).unwrap();
    put(folder.path(), "Ben/2.jpg", &read(&people[0].1[1]));
    let (code, report) = enroll(&service, folder.path()).await;
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(report["people"][0]["state"], "already_enrolled");
    assert_eq!(report["people"][1]["state"], "extended");
    assert_eq!(report["people"][1]["faces"], 1);
}

#[tokio::test]
async fn an_enrolment_that_was_killed_goes_on_where_it_stopped() {
    let Some(samples) = samples() else { return };
    let service = Service::up("max_instances = 1").await;
    let folder = tempfile::tempdir().unwrap();
    let (people, photos) = (20, 3);
    for person in 0..people {
        for (n, photo) in samples.people[0].1.iter().take(photos).enumerate() {
            put(
                folder.path(),
                &format!("person {person}/{n}.jpg"),
                &read(photo),
            );
        }
    }
    let photos = photos.min(samples.people[0].1.len()) as u64;
    let counts = async || {
        let gallery = &service.status().await["gallery"];
        let count = |what: &str| gallery[what].as_u64().unwrap();
        (count("people"), count("faces"))
    };
    let mut cut_off = muster()
        .args(["enroll", "--url", &service.url])
        .arg(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("some are enrolled", async || counts().await.0 >= 3).await;
    cut_off.kill().await.unwrap();
    let before = counts().await;
    assert!(
        before.0 < people,
        "it was killed before its end: {before:?}"
    );
    let (code, report) = enroll(&service, folder.path()).await;
    assert_eq!(code, Some(0), "{report}");
    let already = report["people"].as_array().unwrap().iter();
    let already = already.filter(|person| person["state"] == "already_enrolled");
    assert!(already.count() as u64 >= before.0, "{report}");
    assert_eq!(counts().await, (people, people * photos), "each face once");
}
