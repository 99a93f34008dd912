//! API keys: who is let in, to what, how often, and until when.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use reqwest::Method;
use reqwest::header::HeaderMap;
use reqwest::multipart::Form;
use serde_json::Value;

use crate::bad_input::assert_problem;
use crate::support::{Answer, Service, client, jpeg, muster, read, samples, until};

/// What `muster keys` prints with `--json`, on a data folder.
async fn keys(data: &Path, args: &[&str]) -> Value {
    let output = muster()
        .args(["keys", "--json"])
        .args(args)
        .arg("--data")
        .arg(data)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Makes a key and returns it.
pub async fn create(data: &Path, args: &[&str]) -> String {
    let mut all = vec!["create", "--name", "a test"];
    all.extend(args);
    let made = keys(data, &all).await;
    made["key"].as_str().unwrap().to_owned()
}

impl Service {
    /// Asks with a key, or without one.
    async fn ask(&self, method: Method, path: &str, key: Option<&str>) -> Answer {
        let mut request = self.http.request(method, self.at(path));
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        Answer::read(request.send().await.unwrap()).await
    }

    async fn recognize_with(&self, key: Option<&str>, path: &str, photo: &[u8]) -> Answer {
        let field = if path == "/" { "inputFile" } else { "image" };
        let form = Form::new().part(field, jpeg("photo.jpg", photo));
        let mut request = self.http.post(self.at(path)).multipart(form);
        if let Some(key) = key {
            request = request.header("x-api-key", key);
        }
        Answer::read(request.send().await.unwrap()).await
    }

    pub async fn status_with(&self, key: &str) -> Value {
        let answer = self.ask(Method::GET, "/v1/status", Some(key)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }
}

#[tokio::test]
async fn a_key_opens_what_its_scopes_say() {
    let Some(samples) = samples() else { return };
    let service = Service::up("require_keys = true\nmax_instances = 1").await;
    let photo = read(&samples.people[0].1[0]);
    let recognize = create(&service.data, &["--scope", "recognize"]).await;
    let enroll = create(&service.data, &["--scope", "enroll"]).await;
    let both = create(&service.data, &["--scope", "recognize,enroll"]).await;
    let admin = create(&service.data, &["--scope", "admin"]).await;

    for path in ["/healthz", "/readyz", "/openapi.json", "/docs"] {
        assert_eq!(service.ask(Method::GET, path, None).await.status, 200);
    }
    // (path, keys that open it)
    let doors = [
        ("/v1/people", [false, true, true, true]),
        ("/v1/jobs", [true, false, true, true]),
        ("/v1/status", [false, false, false, true]),
    ];
    for (path, opened) in doors {
        let refused = service.ask(Method::GET, path, None).await;
        assert_problem(&refused, 401, "unauthorized");
        assert!(refused.headers.contains_key("www-authenticate"), "{path}");
        for (key, opened) in [&recognize, &enroll, &both, &admin].into_iter().zip(opened) {
            let answer = service.ask(Method::GET, path, Some(key)).await;
            match opened {
                true => assert_eq!(answer.status, 200, "{path}: {}", answer.text()),
                false => assert_problem(&answer, 403, "forbidden"),
            }
        }
    }
    for (path, key, status) in [
        ("/v1/recognize", None, 401),
        ("/v1/recognize", Some(&enroll), 403),
        ("/v1/recognize", Some(&recognize), 200),
        ("/", None, 401),
        ("/", Some(&both), 200),
    ] {
        let key = key.map(String::as_str);
        let answer = service.recognize_with(key, path, &photo).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        if (path, status) == ("/", 401) {
            assert_eq!(answer.text().lines().count(), 1, "one plain line");
        }
    }
    // The right id with another secret, and what is no key at all.
    let (id, secret) = admin.rsplit_once('_').unwrap();
    let other = format!("{id}_{}", "0".repeat(secret.len()));
    for wrong in [&*other, "muster", "Basic", ""] {
        let answer = service.ask(Method::GET, "/v1/status", Some(wrong)).await;
        assert_problem(&answer, 401, "unauthorized");
    }
}

#[tokio::test]
async fn a_revoked_key_is_refused_soon_and_no_secret_is_kept() {
    let service = Service::up("require_keys = true\nmax_instances = 1").await;
    let kept = create(&service.data, &["--scope", "admin"]).await;
    let lost = create(&service.data, &["--scope", "admin", "--expires", "90d"]).await;
    assert_eq!(
        service
            .ask(Method::GET, "/v1/status", Some(&lost))
            .await
            .status,
        200
    );
    let listed = keys(&service.data, &["list"]).await;
    assert_eq!(listed["keys"].as_array().unwrap().len(), 2);
    let secrets = [&kept, &lost].map(|key| key.rsplit_once('_').unwrap().1.to_owned());
    let mut files = 0;
    let objects = service.data.join("objects/keys");
    for entry in std::fs::read_dir(&objects).unwrap() {
        let object = String::from_utf8(read(&entry.unwrap().path())).unwrap();
        files += 1;
        for secret in &secrets {
            assert!(!object.contains(secret) && !listed.to_string().contains(secret));
        }
    }
    assert_eq!(files, 2);
    let events = service.http.get(service.at("/v1/events"));
    let mut watching = events.bearer_auth(&lost).send().await.unwrap();
    assert_eq!(watching.status(), 200);
    let id = lost.split('_').nth(1).unwrap();
    keys(&service.data, &["revoke", id]).await;
    until("the revoked key is refused", async || {
        service
            .ask(Method::GET, "/v1/status", Some(&lost))
            .await
            .status
            == 401
    })
    .await;
    service.status_with(&kept).await;
    until("whoever looks on with it is shut out", async || {
        watching.chunk().await.unwrap().is_none()
    })
    .await;
}

#[tokio::test]
async fn a_key_s_rate_is_its_own() {
    let service = Service::up("require_keys = true\nmax_instances = 1").await;
    // So slow that no token comes back within the test.
    let limits = ["--scope", "admin", "--rate-per-s", "0.01", "--burst", "3"];
    let slow = create(&service.data, &limits).await;
    let free = create(&service.data, &["--scope", "admin"]).await;
    for _ in 0..3 {
        service.status_with(&slow).await;
    }
    let refused = service.ask(Method::GET, "/v1/status", Some(&slow)).await;
    assert_problem(&refused, 429, "rate_limited");
    let wait: u64 = refused.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((50..=100).contains(&wait), "{wait} s until the next token");
    for _ in 0..10 {
        service.status_with(&free).await;
    }
}

#[tokio::test]
async fn a_job_belongs_to_the_key_that_made_it() {
    let Some(samples) = samples() else { return };
    let service = Service::up("require_keys = true\nmax_instances = 1").await;
    let photo = read(&samples.people[0].1[0]);
    let one = create(&service.data, &["--scope", "recognize"]).await;
    let other = create(&service.data, &["--scope", "recognize"]).await;
    let admin = create(&service.data, &["--scope", "admin"]).await;
    let submitted = service.recognize_with(Some(&one), "/v1/jobs", &photo).await;
    assert_eq!(submitted.status, 202, "{}", submitted.text());
    let job = submitted.headers["location"].to_str().unwrap();
    let id = submitted.json()["id"].as_str().unwrap().to_owned();
    // One of an earlier build, whose list says nothing of keys.
    let before = muster_jobs::RequestId::new().to_string();
    let listed = service.data.join("objects/input/jobs").join(&before);
    std::fs::create_dir(&listed).unwrap();
    std::fs::write(listed.join("photo.jpg"), []).unwrap();
    let of_before = format!("/v1/jobs/{before}");
    for (key, own, all) in [
        (&one, true, false),
        (&other, false, false),
        (&admin, true, true),
    ] {
        let jobs = service.ask(Method::GET, "/v1/jobs", Some(key)).await.json();
        let jobs = jobs["jobs"].as_array().unwrap().iter();
        let ids: Vec<_> = jobs.map(|job| job["id"].as_str().unwrap()).collect();
        assert_eq!((ids.contains(&&*id), ids.contains(&&*before)), (own, all));
        for (path, may) in [(job, own), (&*of_before, all)] {
            let shown = service.ask(Method::GET, path, Some(key)).await;
            assert_eq!(
                shown.status,
                if may { 200 } else { 404 },
                "{}",
                shown.text()
            );
        }
    }
    for (key, path, status) in [
        (&other, job, 404),
        (&one, &*of_before, 404),
        (&one, job, 200),
        (&one, job, 404),
        (&admin, &*of_before, 200),
    ] {
        let deleted = service.ask(Method::DELETE, path, Some(key)).await;
        assert_eq!(deleted.status, status, "{path}: {}", deleted.text());
    }
}

#[tokio::test]
async fn only_the_origins_that_are_named_may_call_from_a_page() {
    let named = "cors_origins = [\"https://app.example.org\"]\nmax_instances = 1";
    for (toml, origin, allowed) in [
        ("max_instances = 1", "https://app.example.org", false),
        (named, "https://app.example.org", true),
        (named, "https://other.example.org", false),
    ] {
        let service = Service::up(toml).await;
        let preflight = service
            .http
            .request(Method::OPTIONS, service.at("/v1/recognize"))
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .send();
        let answer = Answer::read(preflight.await.unwrap()).await;
        let header = answer.headers.get("access-control-allow-origin");
        assert_eq!(header.is_some(), allowed, "{toml} {origin}");
    }
}

#[tokio::test]
async fn without_a_key_this_machine_may_recognise_and_nothing_else() {
    let Some(samples) = samples() else { return };
    let service =
        Service::up("max_instances = 1\ncors_origins = [\"https://app.example.org\"]").await;
    let photo = read(&samples.people[0].1[0]);
    let bare = client(HeaderMap::new());
    let ask = async |method: &Method, path: &str, headers: &[(&str, &str)]| {
        let mut request = bare.request(method.clone(), service.at(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let image = || jpeg("photo.jpg", &photo);
        if *method == Method::POST {
            let form = Form::new();
            request = request.multipart(match path {
                "/" => form.part("inputFile", image()),
                "/v1/verify" => form.part("image", image()).part("image", image()),
                _ => form.part("image", image()),
            });
        }
        Answer::read(request.send().await.unwrap()).await
    };
    let token = format!("Bearer {}", service.local_token().unwrap());
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    for path in ["/", "/v1/recognize", "/v1/verify"] {
        let answer = ask(&post, path, &[]).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    let job = ask(&post, "/v1/jobs", &[]).await;
    assert_eq!(job.status, 202, "{}", job.text());
    let job = job.headers["location"].to_str().unwrap().to_owned();
    assert_eq!(ask(&get, &job, &[]).await.status, 200);
    let nobody = "/v1/people/00000000-0000-7000-8000-000000000000";
    let guarded = [
        (&get, "/v1/jobs", 200),
        (&get, "/v1/people", 200),
        (&post, "/v1/people", 400),
        (&get, nobody, 404),
        (&delete, nobody, 404),
        (&get, "/v1/status", 200),
        (&get, "/metrics", 200),
        (&get, "/v1/calibration", 200),
        (&get, "/v1/gallery/health", 200),
        (&get, "/v1/gallery/model", 200),
        (&delete, "/v1/gallery/model/other", 404),
    ];
    for (method, path, status) in guarded {
        let refused = ask(method, path, &[]).await;
        assert_problem(&refused, 401, "unauthorized");
        assert!(
            refused.text().contains("muster token"),
            "{}",
            refused.text()
        );
        let opened = ask(method, path, &[("authorization", &token)]).await;
        assert_eq!(opened.status, status, "{method} {path}: {}", opened.text());
    }
    // Behind a proxy, or under another name: keys for everything, and for pages elsewhere too.
    let key = create(&service.data, &["--scope", "admin"]).await;
    for (name, value, status) in [
        ("x-forwarded-for", "192.0.2.7", 401),
        ("forwarded", "for=192.0.2.7", 401),
        ("x-real-ip", "192.0.2.7", 401),
        ("via", "1.1 proxy", 401),
        ("host", "muster.example.org", 401),
        ("origin", "https://app.example.org", 403),
        ("origin", "https://evil.example", 403),
    ] {
        for (method, path) in [(&post, "/v1/recognize"), (&get, &*job)] {
            let refused = ask(method, path, &[(name, value)]).await;
            assert_eq!(refused.status, status, "{name} {path}: {}", refused.text());
        }
        let keyed = ask(&get, "/v1/people", &[(name, value), ("x-api-key", &key)]).await;
        assert_eq!(keyed.status, 200, "{name}: {}", keyed.text());
        if name != "origin" {
            let refused = ask(
                &get,
                "/v1/people",
                &[(name, value), ("authorization", &token)],
            )
            .await;
            assert_problem(&refused, 401, "unauthorized");
        }
    }
}

#[tokio::test]
async fn the_local_token_is_its_owner_s_and_of_one_start() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut service = Service::start("up", &data, "max_instances = 1").await;
    let file = data.join("local-token");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let first = service.local_token().unwrap();
    let said = async |args: &[&str]| {
        let output = muster().args(args).output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    };
    let folder = data.to_str().unwrap();
    for place in [["--url", &*service.url], ["--data", folder]] {
        assert_eq!(said(&["token", place[0], place[1]]).await.trim_end(), first);
    }
    let by_name = service.url.replace("127.0.0.1", "localhost");
    for url in [&service.url, &by_name] {
        assert!(said(&["status", "--url", url]).await.starts_with("muster"));
    }
    // A second Muster on the folder is refused, and leaves the token as it is.
    let second = muster()
        .args(["up", "--listen", "127.0.0.1:0", "--data", folder])
        .output();
    assert!(!second.await.unwrap().status.success());
    assert_eq!(String::from_utf8(read(&file)).unwrap().trim_end(), first);
    service.signal("-TERM");
    assert!(service.ends().await.success());
    assert!(!file.exists(), "the token goes with the service");
    assert_eq!(service.local_token(), None);
    let again = Service::start("up", &data, "max_instances = 1").await;
    let stale = again.ask(Method::GET, "/v1/status", Some(&first)).await;
    assert_problem(&stale, 401, "unauthorized");
    assert_ne!(again.local_token().unwrap(), first);
}

#[tokio::test]
async fn without_any_keys_only_its_own_pages_are_obeyed() {
    let service = Service::up("max_instances = 1\nrequire_keys = false").await;
    let ask = async |method: Method, path: &str, host: Option<&str>, origin: Option<&str>| {
        let mut request = service.http.request(method, service.at(path));
        for (name, value) in [("host", host), ("origin", origin)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        Answer::read(request.send().await.unwrap()).await
    };
    let elsewhere = Some("http://evil.example");
    for (method, path, host, origin) in [
        (Method::GET, "/v1/people", Some("evil.example"), None),
        (Method::POST, "/v1/people", None, elsewhere),
        (
            Method::POST,
            "/v1/recognize",
            Some("evil.example"),
            elsewhere,
        ),
    ] {
        let answer = ask(method, path, host, origin).await;
        assert_problem(&answer, 403, "forbidden");
        assert!(answer.text().contains("API key"), "{}", answer.text());
    }
    let own = service.at("");
    let own = own.trim_end_matches('/');
    for (method, path, host, origin, status) in [
        (Method::GET, "/v1/people", Some("localhost:80"), None, 200),
        (Method::GET, "/v1/people", None, elsewhere, 200),
        // Taken, and found not to be a form.
        (Method::POST, "/v1/people", None, Some(own), 400),
        (Method::POST, "/v1/people", None, None, 400),
    ] {
        let answer = ask(method, path, host, origin).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
}
