//! Whatever happens to the whole service or to a file of its data folder, it starts again, or says in one
//! sentence what to do.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures::{StreamExt, stream};
use reqwest::multipart::Form;
use tokio::process::Command;

use crate::support::{
    Answer, LIMIT, Service, jpeg, kill, muster, read, samples, until, workers_on, write_config,
};

const TOML: &str = "max_instances = 2\nvisibility_timeout_s = 2.0\nmax_receives = 20";

async fn submit(service: &Service, photo: &[u8]) -> Option<String> {
    let form = Form::new().part("image", jpeg("a.jpg", photo));
    let request = service.http.post(service.at("/v1/jobs")).multipart(form);
    // Whoever is killed does not answer.
    let answer = Answer::read(request.send().await.ok()?).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    Some(answer.json()["id"].as_str().unwrap().to_owned())
}

/// Every process is killed three times while jobs come in and are worked on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_job_is_lost_where_everything_is_killed_under_load() {
    let Some(samples) = samples() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (name, photos) = &samples.people[0];
    let photo = read(&photos[1]);
    let mut accepted = Vec::new();
    for round in 0..3 {
        let mut service = Service::start("up", &data, TOML).await;
        if round == 0 {
            assert_eq!(service.enroll(name, &[&read(&photos[0])]).await.status, 201);
        }
        let killed = service.child.id().unwrap();
        let before = accepted.len();
        {
            let submitting = stream::iter(0..40)
                .map(|_| submit(&service, &photo))
                .buffer_unordered(8);
            let mut submitting = std::pin::pin!(submitting);
            while let Some(id) = submitting.next().await {
                accepted.extend(id);
                if accepted.len() == before + 12 {
                    kill("-KILL", killed);
                }
            }
        }
        service.ends().await;
        until("the workers have ended", async || {
            workers_on(&data).is_empty()
        })
        .await;
    }
    assert!(accepted.len() >= 36, "{}", accepted.len());

    let service = Service::start("up", &data, TOML).await;
    for id in &accepted {
        let place = service.at(&format!("/v1/jobs/{id}"));
        until("the job is done", async || {
            let job = service.http.get(&place).send().await.unwrap();
            let job = Answer::read(job).await;
            assert_eq!(job.status, 200, "{id}: {}", job.text());
            let job = job.json();
            assert_ne!(job["state"], "failed", "{job}");
            if job["state"] == "done" {
                assert_eq!(job["result"]["faces"][0]["person"]["name"], **name, "{job}");
            }
            job["state"] == "done"
        })
        .await;
    }
    let status = service.status().await;
    assert_eq!(status["queue"]["dead_letter"], 0, "{status}");
}

#[tokio::test]
async fn a_second_service_on_a_data_folder_is_told_and_the_first_goes_on() {
    let service = Service::up("").await;
    let config = write_config(&service.data, "second", "");
    let second = ended(&service.data, &config, &mut muster()).await;
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success(), "{said}");
    assert!(said.contains("another Muster runs on"), "{said}");
    assert!(!said.contains("lock"), "{said}");
    // Nor does it say that it listens.
    assert_eq!(String::from_utf8_lossy(&second.stdout), "");
    assert_one_sentence(&said, "the second service");
    let ready = service.http.get(service.at("/readyz")).send().await;
    assert_eq!(ready.unwrap().status(), 200);
    assert!(service.local_token().is_some());
}

/// As few as a cautious shell leaves; Muster takes more where it may, and here it may not.
#[tokio::test]
async fn it_works_with_few_file_descriptors_or_says_that_it_needs_more() {
    let Some(samples) = samples() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let muster = muster();
    let mut command = Command::new("sh");
    command.kill_on_drop(true).stdin(Stdio::null());
    for (name, value) in muster.as_std().get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    let limited = "ulimit -n 64 && exec \"$0\" \"$@\"";
    command
        .args(["-c", limited])
        .arg(muster.as_std().get_program());
    let service = Service::start_as(command, "up", &data, "max_instances = 1").await;
    let (name, photos) = &samples.people[0];
    assert_eq!(service.enroll(name, &[&read(&photos[0])]).await.status, 201);
    let photo = read(&photos[1]);
    let answers = (0..40).map(|_| async {
        let form = Form::new().part("image", jpeg("a.jpg", &photo));
        let request = service
            .http
            .post(service.at("/v1/recognize"))
            .multipart(form);
        // There may be no descriptor left for a connection.
        match request.send().await {
            Ok(answer) => Some(Answer::read(answer).await),
            Err(_) => None,
        }
    });
    for answer in futures::future::join_all(answers)
        .await
        .into_iter()
        .flatten()
    {
        assert!(
            matches!(answer.status, 200 | 429 | 503),
            "{}",
            answer.text()
        );
    }
    assert_eq!(service.recognize(&photo).await.name(), *name);
}

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Flipped,
    Cut,
    Removed,
}

fn damage(file: &Path, how: Damage) {
    match how {
        Damage::Removed => std::fs::remove_file(file).unwrap(),
        Damage::Cut => {
            let bytes = std::fs::read(file).unwrap();
            std::fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
        }
        Damage::Flipped => {
            let mut bytes = std::fs::read(file).unwrap();
            let middle = bytes.len() / 2;
            if let Some(byte) = bytes.get_mut(middle) {
                *byte ^= 0xff;
            }
            std::fs::write(file, bytes).unwrap();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let place = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &place);
        } else {
            std::fs::copy(entry.path(), place).unwrap();
        }
    }
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            files_below(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

/// Starts `muster up` and waits for its end.
async fn ended(data: &Path, config: &Path, command: &mut Command) -> std::process::Output {
    let output = command
        .args(["up", "--listen", "127.0.0.1:0", "--config"])
        .arg(config)
        .arg("--data")
        .arg(data)
        .output();
    tokio::time::timeout(LIMIT, output).await.unwrap().unwrap()
}

fn assert_one_sentence(said: &str, what: &str) {
    assert!(!said.contains("panicked"), "{what}: {said}");
    let lines = said.lines().filter(|line| line.starts_with("muster: "));
    assert_eq!(lines.count(), 1, "{what}: {said}");
}

/// A folder with people in segments and in changes, a job with its result, a key and an audit log.
async fn lived_in(data: &Path) -> BTreeSet<String> {
    let samples = samples().expect("looked for before");
    let service = Service::start("up", data, TOML).await;
    let mut enrolled = Vec::new();
    for (name, photos) in &samples.people {
        let person = service.enroll(name, &[&read(&photos[0])]).await;
        assert_eq!(person.status, 201, "{}", person.text());
        enrolled.push(person.json()["id"].as_str().unwrap().to_owned());
    }
    // A removal writes segments; what comes after it is a change.
    let gone = service.at(&format!("/v1/people/{}", enrolled.pop().unwrap()));
    let gone = service.http.delete(gone).send().await.unwrap();
    assert_eq!(gone.status(), 200);
    let (name, photos) = &samples.people[samples.people.len() - 1];
    assert_eq!(service.enroll(name, &[&read(&photos[0])]).await.status, 201);
    let job = submit(&service, &read(&samples.people[0].1[1])).await;
    let place = service.at(&format!("/v1/jobs/{}", job.unwrap()));
    until("the job is done", async || {
        let job = service.http.get(&place).send().await.unwrap();
        Answer::read(job).await.json()["state"] == "done"
    })
    .await;
    let mut service = service;
    let people = people_of(&service.url, data).await.unwrap();
    service.signal("-TERM");
    service.ends().await;
    people
}

/// The names of the people that a service has; `None` while it does not answer.
async fn people_of(url: &str, data: &Path) -> Option<BTreeSet<String>> {
    let token = std::fs::read_to_string(data.join("local-token")).ok()?;
    let asked = reqwest::Client::new().get(format!("{url}/v1/people"));
    let answer = asked.bearer_auth(token.trim()).send().await.ok()?;
    let answer = Answer::read(answer).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let people = answer.json();
    let people = people["people"].as_array().unwrap().iter();
    Some(
        people
            .map(|person| person["name"].as_str().unwrap().to_owned())
            .collect(),
    )
}

/// Starts on a folder of which one file is damaged: it has all its people, or has ended with one
/// sentence.
async fn starts_or_says(data: &Path, enrolled: &BTreeSet<String>, what: &str) {
    let config = write_config(data, "up", TOML);
    let mut child = muster()
        .args(["up", "--listen", "127.0.0.1:0", "--config"])
        .arg(&config)
        .arg("--data")
        .arg(data)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = tokio::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    let reading = tokio::io::AsyncBufReadExt::read_line(&mut stdout, &mut line);
    tokio::time::timeout(LIMIT, reading).await.unwrap().unwrap();
    if let Some(url) = line.trim_end().strip_prefix("muster listens on ") {
        let people = tokio::time::timeout(LIMIT, async {
            loop {
                if let Some(people) = people_of(url, data).await {
                    return Some(people);
                }
                if child.try_wait().unwrap().is_some() {
                    return None;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        if let Some(people) = people.await.unwrap() {
            assert_eq!(people, *enrolled, "{what}");
            kill("-TERM", child.id().unwrap());
        }
    }
    let output = tokio::time::timeout(LIMIT, child.wait_with_output());
    let output = output.await.expect("it ends").unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{what}: {said}");
    if !output.status.success() {
        assert_one_sentence(&said, what);
    }
}

/// Each file of a data folder is flipped, cut or removed, one at a time, and Muster is started on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_survives_damage_to_any_file_or_says_what_to_do() {
    if samples().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let enrolled = lived_in(&whole).await;
    let mut files = Vec::new();
    files_below(&whole, &mut files);
    files.sort();
    assert!(files.len() > 10, "{files:?}");
    // Without the newest change the gallery is as it was before it: nothing else tells of it.
    let is_change = |file: &&PathBuf| file.to_string_lossy().ends_with(".change.json");
    let newest = files.iter().rfind(is_change).expect("a change");
    let damages = [Damage::Flipped, Damage::Cut, Damage::Removed];
    let all = files
        .iter()
        .flat_map(|file| damages.map(|how| (file, how)))
        .filter(|(file, how)| !(matches!(how, Damage::Removed) && *file == newest))
        .enumerate();
    let starts = all.map(|(n, (file, how))| {
        let (folder, whole, enrolled) = (folder.path(), &whole, &enrolled);
        async move {
            let data = folder.join(format!("copy-{n}"));
            copy(whole, &data);
            let inside = file.strip_prefix(whole).unwrap();
            damage(&data.join(inside), how);
            let what = format!("{} {how:?}", inside.display());
            starts_or_says(&data, enrolled, &what).await;
        }
    });
    stream::iter(starts)
        .buffer_unordered(4)
        .collect::<Vec<()>>()
        .await;
}
