//! What is deleted is gone, also where something fails on the way.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::multipart::Form;
use serde_json::Value;

use crate::bad_input::assert_problem;
use crate::support::{Answer, Service, jpeg, read, samples, until};

impl Service {
    async fn delete_person(&self, id: &Value) -> Answer {
        let path = format!("/v1/people/{}", id.as_str().unwrap());
        Answer::read(self.http.delete(self.at(&path)).send().await.unwrap()).await
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // Others write and delete here meanwhile.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// The files below the folder that hold one of these, with which.
fn holding<'a>(folder: &Path, traces: &[(&'a str, Vec<u8>)]) -> Vec<(PathBuf, &'a str)> {
    let mut found = Vec::new();
    for file in files(folder) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        for (what, trace) in traces {
            if memchr::memmem::find(&bytes, trace).is_some() {
                found.push((file.clone(), *what));
            }
        }
    }
    found
}

/// Every byte below the data folder, after everything that a person's name, photograph and embedding
/// go through: an enrolment, recognitions, a job, and a verification whose client hangs up.
#[tokio::test]
async fn nothing_of_a_deleted_person_is_left_in_any_file() {
    let Some(samples) = samples() else { return };
    let service = Service::up("max_instances = 1\nidle_grace_s = 60.0").await;
    let name = "Zebedee Quarrington";
    let (_, photos) = &samples.people[0];
    let (photo, other) = (read(&photos[0]), read(&photos[1]));
    let compare = async || {
        let form = Form::new()
            .part("image", jpeg("first.jpg", &photo))
            .part("image", jpeg("second.jpg", &photo));
        service.post("/v1/verify", form).await
    };
    // Its client hangs up once the photographs are stored.
    let input = service.data.join("objects/input");
    let stored = until("the photographs are stored", async || {
        files(&input)
            .iter()
            .filter(|path| !path.to_string_lossy().contains('#'))
            .count()
            == 2
    });
    tokio::select! {
        () = stored => {}
        answer = compare() => panic!("it was answered: {}", answer.text()),
    }
    let enrolled = service.enroll(name, &[&photo]).await;
    assert_eq!(enrolled.status, 201, "{}", enrolled.text());
    let enrolled = enrolled.json();
    let changes = files(&service.data.join("objects/gallery"));
    let change: Value = serde_json::from_slice(&read(&changes[0])).unwrap();
    let made = change["content"]["put"]["faces"][0]["embeddings"]
        .as_object()
        .unwrap();
    let text = made.values().next().unwrap().as_str().unwrap().to_owned();
    let traces = [
        ("the name", name.as_bytes().to_vec()),
        ("the photograph", photo[photo.len() / 2..][..200].to_vec()),
        ("the embedding", STANDARD.decode(&text).unwrap()),
        ("the embedding as text", text.into_bytes()),
    ];
    assert_eq!(compare().await.json()["same"], true);
    assert_eq!(service.recognize(&other).await.name(), name);
    let job = service
        .post(
            "/v1/jobs",
            Form::new().part("image", jpeg("job.jpg", &other)),
        )
        .await
        .json();
    let job = format!("/v1/jobs/{}", job["id"].as_str().unwrap());
    let job = async || Answer::read(service.http.get(service.at(&job)).send().await.unwrap()).await;
    until("the job is done", async || {
        job().await.json()["state"] == "done"
    })
    .await;
    let mut seen = holding(&service.data, &traces);
    // The deletion of another one has the embedding written into a segment.
    let ben = service.enroll("Ben", &[&other]).await.json();
    assert_eq!(service.delete_person(&ben["id"]).await.status, 200);
    seen.extend(holding(&service.data, &traces));
    for (what, _) in &traces {
        assert!(
            seen.iter().any(|(_, found)| found == what),
            "{what}: {seen:?}"
        );
    }

    let deletion = service.delete_person(&enrolled["id"]).await;
    assert_eq!(deletion.status, 200, "{}", deletion.text());
    assert_eq!(deletion.json()["receipt"]["results"], 2);
    let mut left = Vec::new();
    until("nothing of the person is left", async || {
        left = holding(&service.data, &traces);
        if !left.is_empty() {
            // A message that was under way is overwritten with the next deletion.
            let carl = service.enroll("Carl", &[&other]).await.json();
            service.delete_person(&carl["id"]).await;
        }
        left.is_empty()
    })
    .await;
    assert_eq!(left, []);
    let done = job().await.json();
    assert_eq!(done["result"]["faces"][0]["decision"], "unknown", "{done}");
}

/// The change is made, and what comes after it can not be.
#[tokio::test]
async fn a_deletion_that_was_cut_off_is_completed_by_the_same_request() {
    let Some(samples) = samples() else { return };
    let service = Service::up("max_instances = 1\nidle_grace_s = 60.0").await;
    let (name, photos) = &samples.people[0];
    let photo = read(&photos[0]);
    let enrolled = service.enroll(name, &[&photo]).await.json();
    let segments = service.data.join("objects/gallery-segments");
    std::fs::write(&segments, "no folder").unwrap();
    let cut_off = service.delete_person(&enrolled["id"]).await;
    assert_problem(&cut_off, 503, "not_ready");
    assert!(cut_off.headers.contains_key("retry-after"));
    let detail = cut_off.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("send the same request again"), "{detail}");
    assert_eq!(service.recognize(&photo).await.name(), "unknown");

    // A change that forgets nothing is made although no segment can be written.
    assert_eq!(service.enroll("Ben", &[&photo]).await.status, 201);
    std::fs::remove_file(&segments).unwrap();
    let completed = service.delete_person(&enrolled["id"]).await;
    assert_eq!(completed.status, 200, "{}", completed.text());
    let receipt = completed.json()["receipt"].clone();
    assert_eq!(
        (&receipt["embeddings"], &receipt["photographs"]),
        (&1.into(), &1.into())
    );
    let again = service.delete_person(&enrolled["id"]).await;
    assert_problem(&again, 404, "not_found");
}
