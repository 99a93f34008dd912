//! What is full, away or damaged is named, and ends nothing else.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use reqwest::multipart::Form;
use serde_json::Value;
use tokio::io::AsyncReadExt;

use crate::bad_input::{assert_problem, grey_jpeg};
use crate::support::{Answer, Service, jpeg, muster, read, samples, until};

impl Service {
    async fn job(&self, photo: &[u8]) -> Answer {
        self.post("/v1/jobs", Form::new().part("image", jpeg("a.jpg", photo)))
            .await
    }

    async fn readiness(&self) -> Answer {
        Answer::read(self.http.get(self.at("/readyz")).send().await.unwrap()).await
    }

    async fn remove(&self, path: &str) -> Answer {
        Answer::read(self.http.delete(self.at(path)).send().await.unwrap()).await
    }
}

fn detail(answer: &Answer) -> String {
    answer.json()["detail"].as_str().unwrap().to_owned()
}

/// Neither models nor workers are needed here.
#[tokio::test]
async fn a_data_folder_that_vanished_takes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let service = Service::start("web", &data, "").await;
    let photo = grey_jpeg();
    assert_eq!(service.job(&photo).await.status, 202);
    let away = folder.path().join("away");
    std::fs::rename(&data, &away).unwrap();
    for answer in [service.job(&photo).await, service.readiness().await] {
        assert_problem(&answer, 503, "not_ready");
        assert!(detail(&answer).contains("is gone"), "{}", answer.text());
    }
    assert!(!data.exists());
    std::fs::rename(&away, &data).unwrap();
    assert_eq!(service.job(&photo).await.status, 202);
    assert_eq!(service.readiness().await.status, 200);
}

/// Nothing can be saved any more, which is said once.
#[tokio::test]
async fn a_stop_without_its_data_folder_says_so_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut command = muster();
    command.stderr(std::process::Stdio::piped());
    let mut service = Service::start_as(command, "up", &data, "").await;
    std::fs::remove_dir_all(&data).unwrap();
    service.signal("-TERM");
    let ended = service.ends().await;
    assert_eq!(ended.code(), Some(1));
    let mut said = String::new();
    let mut stderr = service.child.stderr.take().unwrap();
    stderr.read_to_string(&mut said).await.unwrap();
    let lines: Vec<_> = said
        .lines()
        .filter(|line| line.starts_with("muster: "))
        .collect();
    let [line] = &lines[..] else {
        panic!("{said}");
    };
    assert!(
        line.contains("is gone") && !line.contains("Generic"),
        "{line}"
    );
}

/// Runs the service with a data folder on a small disk of its own, which only it sees.
fn on_a_small_disk(folder: &Path) -> Option<tokio::process::Command> {
    let mount = "mount -t tmpfs -o size=32m,mode=700 tmpfs \"$0\" && exec \"$@\"";
    let unshared = ["--user", "--map-root-user", "--mount", "sh", "-c", mount];
    let mut probe = std::process::Command::new("unshare");
    let probe = probe.args(unshared).arg(folder).arg("true").output();
    if !probe.is_ok_and(|done| done.status.success()) {
        eprintln!("SKIPPED: this machine lets nobody mount a disk of their own");
        return None;
    }
    let muster = muster();
    let mut command = tokio::process::Command::new("unshare");
    command
        .kill_on_drop(true)
        .stdin(std::process::Stdio::null());
    for (name, value) in muster.as_std().get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command
        .args(unshared)
        .arg(folder)
        .arg(muster.as_std().get_program());
    Some(command)
}

#[tokio::test]
async fn a_full_disk_is_named_and_people_and_jobs_can_still_be_deleted() {
    let Some(samples) = samples() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let Some(command) = on_a_small_disk(&data) else {
        return;
    };
    let service = Service::start_as(command, "up", &data, "max_instances = 1").await;
    let (name, photos) = &samples.people[0];
    let photo = read(&photos[0]);
    let anna = service.enroll(name, &[&photo]).await;
    assert_eq!(anna.status, 201, "{}", anna.text());
    let job = service.job(&photo).await;
    assert_eq!(job.status, 202);
    let job = format!("/v1/jobs/{}", job.json()["id"].as_str().unwrap());
    until("the job is done", async || {
        let answer = service.http.get(service.at(&job)).send().await.unwrap();
        Answer::read(answer).await.json()["state"] == "done"
    })
    .await;

    let inside = format!("/proc/{}/root", service.child.id().unwrap());
    let fill = PathBuf::from(format!("{inside}{}/fill", data.display()));
    let mut filling = std::fs::File::create(&fill).unwrap();
    while filling.write_all(&[0; 4096]).is_ok() {}
    drop(filling);
    for answer in [
        service.recognize(&photo).await,
        service.job(&photo).await,
        service.enroll("Ben", &[&photo]).await,
    ] {
        assert_problem(&answer, 503, "not_ready");
        assert!(answer.headers.contains_key("retry-after"));
        assert!(detail(&answer).contains("no space"), "{}", answer.text());
    }
    let unready = service.readiness().await;
    assert_problem(&unready, 503, "not_ready");
    assert!(detail(&unready).contains("no space"), "{}", unready.text());

    // A deletion makes the space that it needs.
    let person = format!("/v1/people/{}", anna.json()["id"].as_str().unwrap());
    let deleted = service.remove(&person).await;
    assert_eq!(deleted.status, 200, "{}", deleted.text());
    assert_eq!(service.remove(&job).await.status, 200);

    std::fs::remove_file(&fill).unwrap();
    until("it is ready again", async || {
        service.readiness().await.status == 200
    })
    .await;
    assert_eq!(service.recognize(&photo).await.name(), "unknown");
}

/// By something else than Muster, in the files that all processes of a machine map.
#[tokio::test]
async fn a_damaged_copy_of_the_gallery_is_fetched_again() {
    let Some(samples) = samples() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let settings = "max_instances = 1\nidle_grace_s = 60.0";
    let mut service = Service::start("up", &data, settings).await;
    let (name, photos) = &samples.people[0];
    let photo = read(&photos[0]);
    assert_eq!(service.enroll(name, &[&photo]).await.status, 201);
    let ben = service.enroll("Ben", &[&photo]).await.json();
    // A deletion has segments written.
    let path = format!("/v1/people/{}", ben["id"].as_str().unwrap());
    assert_eq!(service.remove(&path).await.status, 200);
    let damage = |how: &str| {
        let mut files = std::fs::read_dir(data.join("gallery-cache")).unwrap();
        let file = files.next().unwrap().unwrap().path();
        let mut bytes = std::fs::read(&file).unwrap();
        match how {
            "cut" => bytes.truncate(bytes.len() / 2),
            "emptied" => bytes.clear(),
            _ => bytes.iter_mut().skip(200).for_each(|byte| *byte ^= 1),
        }
        std::fs::write(&file, bytes).unwrap();
    };
    for how in ["cut", "flipped", "emptied"] {
        assert_eq!(service.recognize(&photo).await.name(), *name);
        damage(how);
        assert_eq!(
            service.recognize(&photo).await.name(),
            *name,
            "{how} while it ran"
        );
        let people = service
            .http
            .get(service.at("/v1/people"))
            .send()
            .await
            .unwrap();
        let people: Value = people.json().await.unwrap();
        assert_eq!(people["people"][0]["name"], *name, "{how} while it ran");
        service.signal("-TERM");
        service.ends().await;
        damage(how);
        service = Service::start("up", &data, settings).await;
    }
    assert_eq!(service.recognize(&photo).await.name(), *name);
}
