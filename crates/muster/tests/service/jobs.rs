//! Jobs: photographs that nobody waits for. One that was accepted ends once, whatever dies meanwhile.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use muster_jobs::RequestId;
use reqwest::multipart::Form;
use serde_json::Value;

use crate::bad_input::{assert_problem, grey_jpeg};
use crate::support::{Answer, LIMIT, Service, jpeg, kill, read, samples, until, workers_on};

impl Service {
    async fn fetch(&self, path: &str) -> Answer {
        Answer::read(self.http.get(self.at(path)).send().await.unwrap()).await
    }

    async fn delete(&self, path: &str) -> Answer {
        Answer::read(self.http.delete(self.at(path)).send().await.unwrap()).await
    }

    async fn submit(&self, photos: &[(&str, &[u8])]) -> Answer {
        let mut form = Form::new();
        for (file, photo) in photos {
            form = form.part("image", jpeg(file, photo));
        }
        self.post("/v1/jobs", form).await
    }

    /// The job, once it has ended.
    async fn ended(&self, id: &str) -> Value {
        let mut job = Value::Null;
        until("the job has ended", async || {
            job = self.fetch(&format!("/v1/jobs/{id}")).await.json();
            job["state"] != "pending"
        })
        .await;
        job
    }
}

fn id(job: &Value) -> String {
    job["id"].as_str().unwrap().to_owned()
}

/// The objects of each request that are stored below a folder, but for those that a killed process
/// had not finished.
fn stored(folder: &Path) -> BTreeMap<String, Vec<String>> {
    let names = |folder: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.contains('#'))
            .collect()
    };
    let requests = names(folder).into_iter();
    let requests = requests.filter(|name| name.parse::<RequestId>().is_ok());
    requests
        .map(|id| (id.clone(), names(&folder.join(&id))))
        .filter(|(_, objects)| !objects.is_empty())
        .collect()
}

#[tokio::test]
async fn a_job_is_accepted_polled_listed_and_deleted() {
    let Some(samples) = samples() else { return };
    let service = Service::up("max_instances = 1\nidle_grace_s = 60.0").await;
    let (name, photos) = &samples.people[0];
    assert_eq!(service.enroll(name, &[&read(&photos[0])]).await.status, 201);
    let (known, stranger) = (read(&photos[1]), read(&samples.people[1].1[0]));

    let accepted = service.submit(&[("za\u{17c} #1.jpg", &known)]).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let job = accepted.json();
    assert_eq!(job["state"], "pending");
    assert_eq!(job["file"], "za\u{17c} #1.jpg");
    let first = id(&job);
    assert_eq!(
        accepted.headers["location"],
        format!("/v1/jobs/{first}").as_str()
    );
    let submitted = job["submitted_at_ms"].as_u64().unwrap();
    assert_eq!(job["expires_at_ms"], submitted + 3_600_000);
    let done = service.ended(&first).await;
    assert_eq!((&done["state"], &done["id"]), (&"done".into(), &job["id"]));
    assert_eq!(done["result"]["faces"][0]["person"]["name"], *name);
    assert_eq!(done["result"]["request_id"], job["id"]);
    assert_eq!(done["file"], job["file"]);

    // Several photographs: one job each, in their order.
    let cut = &known[..known.len() / 2];
    let grey = grey_jpeg();
    let several = [
        ("a.jpg", &*stranger),
        ("b.jpg", cut),
        ("c.jpg", &*grey),
        ("d.jpg", &*known),
    ];
    let accepted = service.submit(&several).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let jobs = accepted.json()["jobs"].as_array().unwrap().clone();
    let mut ends = Vec::new();
    for (job, (file, _)) in jobs.iter().zip(&several) {
        assert_eq!(job["file"], *file);
        ends.push(service.ended(&id(job)).await);
    }
    assert_eq!(ends[0]["result"]["faces"][0]["decision"], "unknown");
    assert_eq!(ends[1]["state"], "failed");
    assert_eq!(ends[1]["problem"]["code"], "image.unreadable");
    assert_eq!(ends[2]["problem"]["code"], "face.none");
    assert_eq!(ends[3]["result"]["faces"][0]["person"]["name"], *name);

    // All of them or none.
    let mixed = service
        .submit(&[("a.jpg", &known), ("b.jpg", b"text")])
        .await;
    assert_problem(&mixed, 415, "image.unsupported");
    assert_problem(
        &service.post("/v1/jobs", Form::new()).await,
        400,
        "request.invalid",
    );

    // The list: the oldest first, page by page, and by state.
    let all: Vec<String> = [first.clone()]
        .into_iter()
        .chain(jobs.iter().map(id))
        .collect();
    let listed = async |query: &str| {
        let mut ids = Vec::new();
        let mut after = String::new();
        loop {
            let page = service.fetch(&format!("/v1/jobs?{query}{after}")).await;
            assert_eq!(page.status, 200, "{}", page.text());
            let page = page.json();
            let jobs = page["jobs"].as_array().unwrap();
            assert!(jobs.iter().all(|job| job.get("result").is_none()));
            ids.extend(jobs.iter().map(id));
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return ids,
            }
        }
    };
    for query in ["", "limit=1", "limit=2", "limit=5"] {
        assert_eq!(listed(query).await, all, "{query}");
    }
    let [one, a, cut, grey, d] = [0, 1, 2, 3, 4].map(|n: usize| all[n].clone());
    assert_eq!(
        listed("state=failed&limit=1").await,
        [cut.clone(), grey.clone()]
    );
    assert_eq!(listed("state=done&limit=2").await, [&*one, &*a, &*d]);
    assert!(listed("state=pending").await.is_empty());
    for bad in ["limit=0", "limit=1001", "after=x", "state=lost", "page=2"] {
        let answer = service.fetch(&format!("/v1/jobs?{bad}")).await;
        assert_problem(&answer, 400, "request.invalid");
    }

    let deleted = service.delete(&format!("/v1/jobs/{one}")).await;
    assert_eq!(deleted.status, 200, "{}", deleted.text());
    assert_eq!(deleted.json()["photographs"], 1);
    assert_eq!(deleted.json()["results"], 1);
    for folder in ["input", "output", "input/jobs"] {
        let folder = service.data.join("objects").join(folder).join(&one);
        assert!(!folder.exists(), "{}", folder.display());
    }
    let path = format!("/v1/jobs/{one}");
    assert_problem(&service.fetch(&path).await, 404, "not_found");
    assert_problem(&service.delete(&path).await, 404, "not_found");
    assert_eq!(listed("").await, all[1..]);
    // A recognition with an answer is found as well, without being listed as a job.
    let answer = service.recognize(&known).await.json();
    let same = service.ended(answer["request_id"].as_str().unwrap()).await;
    assert_eq!(same["result"]["faces"][0]["person"]["name"], *name);
    assert_eq!(listed("").await.len(), 4);
}

/// Every process is killed at several moments, and every job ends with one output and its name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_jobs_survive_the_end_of_every_process() {
    const CRASHES: usize = 4;
    const JOBS: usize = 12;
    let Some(samples) = samples() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let toml = "max_instances = 2\nvisibility_timeout_s = 2.0\nmax_receives = 20";
    let (name, photos) = &samples.people[0];
    let (known, stranger) = (read(&photos[1]), read(&samples.people[1].1[0]));
    let mut expected: BTreeMap<String, &str> = BTreeMap::new();
    let mut submitted = 0;
    let mut service = Service::start("up", &data, toml).await;
    assert_eq!(service.enroll(name, &[&read(&photos[0])]).await.status, 201);
    for crash in 0..CRASHES {
        // They die while photographs come in (those without an answer were not accepted), when the
        // last was accepted, and when some have ended.
        let form = |n: usize| {
            let (photo, person) = match n % 3 {
                0 => (&stranger, "unknown"),
                _ => (&known, name.as_str()),
            };
            (Form::new().part("image", jpeg("a.jpg", photo)), person)
        };
        let sends = (submitted..submitted + JOBS).map(|n| {
            let (form, person) = form(n);
            let sent = service.http.post(service.at("/v1/jobs")).multipart(form);
            (tokio::spawn(sent.send()), person)
        });
        let sends: Vec<_> = sends.collect();
        submitted += JOBS;
        if crash == 0 {
            until("some have come in", async || {
                let jobs = service.fetch("/v1/jobs").await.json();
                jobs["jobs"].as_array().unwrap().len() >= JOBS / 3
            })
            .await;
            end_everything(&mut service, &data).await;
        }
        for (sent, person) in sends {
            // A connection that was cut is no acceptance.
            if let Ok(answer) = sent.await.unwrap()
                && answer.status() == 202
                && let Ok(job) = answer.json::<Value>().await
            {
                expected.insert(id(&job), person);
            }
        }
        if crash > 1 {
            let before = stored(&data.join("objects/output")).len();
            until("some have ended", async || {
                stored(&data.join("objects/output")).len() > before + crash
            })
            .await;
        }
        if crash > 0 {
            end_everything(&mut service, &data).await;
        }
        service = Service::start("up", &data, toml).await;
    }
    assert!(expected.len() > JOBS * (CRASHES - 1), "{}", expected.len());

    // A fleet starts for them, although nobody waits for them any more.
    for (id, person) in &expected {
        let job = service.ended(id).await;
        assert_eq!(job["state"], "done", "{job}");
        let face = &job["result"]["faces"][0];
        let found = face["person"]["name"].as_str().unwrap_or("unknown");
        assert_eq!(found, *person, "{job}");
    }
    until("the queue is empty and the fleet is gone", async || {
        let status = service.status().await;
        let queue = &status["queue"];
        queue["visible"] == 0 && queue["in_flight"] == 0 && service.instances().await == 0
    })
    .await;
    let outputs = stored(&data.join("objects/output"));
    for id in expected.keys() {
        assert_eq!(outputs[id], ["a.json"], "exactly one output: {id}");
    }
    assert_eq!(service.status().await["queue"]["dead_letter"], 0);
}

/// Kills the web tier with its controller, and the workers.
async fn end_everything(service: &mut Service, data: &Path) {
    for worker in service.workers() {
        // It may have ended by itself just now.
        let _ = std::process::Command::new("kill")
            .args(["-KILL", &worker.to_string()])
            .stderr(std::process::Stdio::null())
            .status();
    }
    service.signal("-KILL");
    service.ends().await;
    until("the workers have ended", async || {
        workers_on(data).is_empty()
    })
    .await;
}

/// Submitted to one replica, a job is seen from another, and outlives the one it was submitted to.
#[tokio::test]
async fn any_replica_answers_for_a_job() {
    let Some(samples) = samples() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut first = Service::start("web", &data, "").await;
    let second = Service::start("web", &data, "").await;
    let photo = read(&samples.people[0].1[0]);
    let jobs = first.submit(&[("a.jpg", &photo), ("b.jpg", &photo)]).await;
    assert_eq!(jobs.status, 202, "{}", jobs.text());
    let jobs = jobs.json();
    let [kept, deleted] = [0, 1].map(|n: usize| id(&jobs["jobs"][n]));
    let path = format!("/v1/jobs/{deleted}");
    assert_eq!(second.fetch(&path).await.json()["state"], "pending");
    let pending = second.fetch("/v1/jobs?state=pending").await.json();
    assert_eq!(pending["jobs"].as_array().unwrap().len(), 2);
    // One that is deleted before a worker comes to it leaves nothing behind.
    let deletion = second.delete(&path).await.json();
    assert_eq!(
        (&deletion["photographs"], &deletion["results"]),
        (&1.into(), &0.into())
    );
    assert_problem(&second.fetch(&path).await, 404, "not_found");

    first.signal("-KILL");
    first.ends().await;
    let mut controller = crate::support::muster()
        .arg("controller")
        .arg("--data")
        .arg(&data)
        .spawn()
        .unwrap();
    let done = second.ended(&kept).await;
    assert_eq!(done["state"], "done", "{done}");
    until("both requests are settled", async || {
        let queue = &second.status().await["queue"];
        queue["visible"] == 0 && queue["in_flight"] == 0
    })
    .await;
    assert_problem(&second.fetch(&path).await, 404, "not_found");
    let outputs = stored(&data.join("objects/output"));
    assert_eq!(outputs.into_keys().collect::<Vec<_>>(), [kept]);
    kill("-TERM", controller.id().unwrap());
    let ended = tokio::time::timeout(LIMIT, controller.wait()).await;
    assert!(ended.unwrap().unwrap().success());
}

/// A photograph that stops every worker ends its job.
#[tokio::test]
async fn a_job_that_is_set_aside_has_failed() {
    let Some(samples) = samples() else { return };
    let service = Service::up(
        "max_instances = 1\nvisibility_timeout_s = 1.0\nmax_receives = 2\nprocessing_timeout_s = 0.001",
    )
    .await;
    let photo = read(&samples.people[0].1[0]);
    let job = service.submit(&[("a.jpg", &photo)]).await.json();
    let ended = service.ended(&id(&job)).await;
    assert_eq!(ended["state"], "failed");
    assert_eq!(ended["problem"]["code"], "recognition.failed");
    assert_eq!(ended["problem"]["status"], 500);
    until("it is counted as a dead letter", async || {
        service.status().await["queue"]["dead_letter"] == 1
    })
    .await;
}

/// Neither models nor workers are needed here: nothing is ever worked on.
#[tokio::test]
async fn jobs_are_refused_over_the_limit_and_by_file_name() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let service = Service::start("web", &data, "max_jobs = 3\nmax_images = 2").await;
    let photo = grey_jpeg();
    let one: [(&str, &[u8]); 1] = [("a.jpg", &photo)];
    let two = [one[0], one[0]];
    for _ in 0..2 {
        assert_eq!(service.submit(&one).await.status, 202);
    }
    let refused = service.submit(&two).await;
    assert_problem(&refused, 429, "overloaded");
    let after = refused.headers["retry-after"].to_str().unwrap();
    assert!(after.parse::<u64>().unwrap() >= 1);
    assert_eq!(
        service.submit(&one).await.status,
        202,
        "there is room for one"
    );
    let three = service.submit(&[one[0], one[0], one[0]]).await;
    assert_problem(&three, 413, "image.too_many");
    let jobs = service.fetch("/v1/jobs").await.json();
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 3);

    let data = folder.path().join("by-name");
    let service = Service::start("web", &data, "object_keys = \"filename\"").await;
    let path = format!("/v1/jobs/{}", RequestId::new());
    for answer in [
        service.submit(&one).await,
        service.fetch("/v1/jobs").await,
        service.fetch(&path).await,
        service.delete(&path).await,
    ] {
        assert_problem(&answer, 409, "jobs.unavailable");
    }
}

/// Neither time nor a stop takes a job that has no answer.
#[tokio::test]
async fn a_job_outlives_a_stop_that_is_longer_than_the_retention() {
    let Some(samples) = samples() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let settings = "max_instances = 1\nretention_s = 1.0\nrequest_timeout_s = 1.0";
    let mut web = Service::start("web", &data, settings).await;
    let photo = read(&samples.people[0].1[0]);
    let job = web.submit(&[("a.jpg", &photo)]).await.json();
    web.signal("-TERM");
    web.ends().await;
    let submitted = job["submitted_at_ms"].as_u64().unwrap();
    until("it is older than the retention", async || {
        muster_jobs::now_ms() > submitted + 1500
    })
    .await;
    let service = Service::start("up", &data, settings).await;
    let ended = service.ended(&id(&job)).await;
    assert_eq!(ended["state"], "done", "{ended}");
    assert!(ended["expires_at_ms"].as_u64().unwrap() > submitted + 1500);
}

/// What was accepted under one layout of the object keys is answered, listed, enrolled and deleted under the
/// other.
#[tokio::test]
async fn the_layout_of_the_keys_may_be_changed_while_jobs_wait() {
    let Some(samples) = samples() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let photo = read(&samples.people[0].1[0]);
    let mut web = Service::start("web", &data, "max_instances = 1").await;
    let plain = id(&web.submit(&[("a.jpg", &photo)]).await.json());
    web.signal("-TERM");
    web.ends().await;
    let settings = "max_instances = 1\nobject_keys = \"prefix-hashed\"";
    let mut web = Service::start("web", &data, settings).await;
    let hashed = id(&web.submit(&[("a.jpg", &photo)]).await.json());
    web.signal("-TERM");
    web.ends().await;

    // And back: the worker's settings are those of neither request.
    for settings in ["max_instances = 1", settings] {
        let mut service = Service::start("up", &data, settings).await;
        for job in [&plain, &hashed] {
            let ended = service.ended(job).await;
            assert_eq!(ended["state"], "done", "{ended}");
        }
        let listed = service.fetch("/v1/jobs").await.json();
        let ids: Vec<_> = listed["jobs"].as_array().unwrap().iter().map(id).collect();
        assert_eq!(ids, [plain.clone(), hashed.clone()]);
        service.signal("-TERM");
        service.ends().await;
    }
    let service = Service::start("up", &data, settings).await;
    let form = Form::new().part("image", jpeg("b.jpg", &photo));
    let answer = service.post("/v1/recognize", form).await.json();
    let recognized = answer["request_id"].as_str().unwrap();
    let objects = service.data.join("objects");
    let prefix = |id: &str| format!("{}-{id}", &id[id.len() - 2..]);
    for (request, file) in [
        (plain.clone(), "a"),
        (prefix(&hashed), "a"),
        (prefix(recognized), "b"),
    ] {
        assert!(objects.join(format!("input/{request}/{file}.jpg")).exists());
        assert!(
            objects
                .join(format!("output/{request}/{file}.json"))
                .exists()
        );
    }
    for (request, person) in [(&plain, "Anna"), (&hashed, "Ben")] {
        let form = Form::new()
            .text("name", person)
            .text("request_id", request.clone())
            .text("face", "0");
        let enrolled = service.post("/v1/people", form).await;
        assert_eq!(enrolled.status, 201, "{}", enrolled.text());
    }
    for job in [&plain, &hashed] {
        let gone = service.delete(&format!("/v1/jobs/{job}")).await.json();
        assert_eq!(
            (&gone["photographs"], &gone["results"]),
            (&1.into(), &1.into())
        );
        assert_eq!(service.fetch(&format!("/v1/jobs/{job}")).await.status, 404);
    }
    for folder in [plain, prefix(&hashed)] {
        assert!(!objects.join("input").join(&folder).exists());
        assert!(!objects.join("output").join(&folder).exists());
    }
}

/// A job is gone when its photograph and its result are.
#[tokio::test]
async fn jobs_expire() {
    let Some(samples) = samples() else { return };
    let service =
        Service::up("max_instances = 1\nretention_s = 3.0\nrequest_timeout_s = 3.0").await;
    let photo = read(&samples.people[0].1[0]);
    let job = service.submit(&[("a.jpg", &photo)]).await.json();
    let submitted = job["submitted_at_ms"].as_u64().unwrap();
    assert_eq!(job["expires_at_ms"], submitted + 3000);
    let path = format!("/v1/jobs/{}", id(&job));
    until("the job is gone", async || {
        service.fetch(&path).await.status == 404
    })
    .await;
    let now = Duration::from_millis(muster_jobs::now_ms());
    assert!(now >= Duration::from_millis(submitted + 3000), "not before");
    until("nothing of it is left", async || {
        let objects = service.data.join("objects");
        ["input", "output", "input/jobs"]
            .iter()
            .all(|folder| stored(&objects.join(folder)).is_empty())
    })
    .await;
}
