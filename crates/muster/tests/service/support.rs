//! A real service in real processes, for the end-to-end tests.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use muster_recognize::models::{DEFAULT_PROFILE, Installation, SamplePhotographs, default_root};
use reqwest::header::{AUTHORIZATION, HeaderMap};
use reqwest::multipart::{Form, Part};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// Longest wait for anything that a test expects to happen.
pub const LIMIT: Duration = Duration::from_secs(60);
/// The state folder of the services and the commands that tests start.
const STATE: &str = env!("CARGO_TARGET_TMPDIR");

/// The installed sample photographs; `None`, said visibly, where the models are not installed.
pub fn samples() -> Option<SamplePhotographs> {
    installed(DEFAULT_PROFILE).map(|installation| installation.samples())
}

/// The installed models of a profile; `None`, said visibly, where they are not installed.
pub fn installed(profile: &str) -> Option<Installation> {
    let root = std::env::var_os("MUSTER_MODELS_DIR")
        .map(PathBuf::from)
        .or_else(default_root)
        .expect("a home folder");
    match Installation::open(&root).and_then(|found| found.with_profile(profile)) {
        Ok(installation) => Some(installation),
        Err(error) => {
            assert!(
                !muster_testbed::in_ci(),
                "the models are needed in CI: {error}"
            );
            eprintln!("SKIPPED: the models are not installed: run `make models` ({error})");
            None
        }
    }
}

/// A running `muster` process and its data folder. Killed when dropped; its workers end with it.
pub struct Service {
    pub url: String,
    pub child: Child,
    pub data: PathBuf,
    /// Sends the local token, where there is one.
    pub http: reqwest::Client,
    _stdout: Lines<BufReader<ChildStdout>>,
    _folder: Option<TempDir>,
}

/// A client that sends these headers with every request, where it has none of that name.
pub fn client(headers: HeaderMap) -> reqwest::Client {
    let client = reqwest::Client::builder().timeout(LIMIT);
    client.default_headers(headers).build().unwrap()
}

pub fn muster() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
    command
        // Where a service notes its local token for commands: for those of this test run.
        .env("XDG_STATE_HOME", STATE)
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .env("MUSTER_LOG", "warn")
        // What a protocol server on loopback takes; nothing else is ever called.
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

impl Service {
    /// `muster up` on a fresh data folder, with more settings from `toml`.
    pub async fn up(toml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let mut service = Self::start("up", &data, toml).await;
        service._folder = Some(folder);
        service
    }

    /// A role that listens, on that data folder.
    pub async fn start(role: &str, data: &Path, toml: &str) -> Self {
        Self::start_as(muster(), role, data, toml).await
    }

    /// Starts a service by a command that has its own environment and error output.
    pub async fn start_as(mut command: Command, role: &str, data: &Path, toml: &str) -> Self {
        let config = write_config(data, role, toml);
        let mut child = command
            .arg(role)
            .args(["--listen", "127.0.0.1:0", "--config"])
            .arg(&config)
            .arg("--data")
            .arg(data)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(LIMIT, stdout.next_line())
            .await
            .unwrap()
            .unwrap();
        let line = line.expect("the service says where it listens");
        let url = line
            .strip_prefix("muster listens on ")
            .expect("a known line")
            .to_owned();
        let mut service = Self {
            url,
            child,
            data: data.to_owned(),
            http: client(HeaderMap::new()),
            _stdout: stdout,
            _folder: None,
        };
        service.until_ready().await;
        if let Some(token) = service.local_token() {
            let bearer = format!("Bearer {token}").parse().unwrap();
            service.http = client(HeaderMap::from_iter([(AUTHORIZATION, bearer)]));
        }
        service
    }

    /// What opens the service to whoever runs it, where it has that.
    pub fn local_token(&self) -> Option<String> {
        let (_, port) = self.url.rsplit_once(':')?;
        let note = Path::new(STATE).join(format!("muster/local-token-{port}"));
        let note = std::fs::read_to_string(note).ok()?;
        let (_, token) = note.trim_end().split_once(' ')?;
        Some(token.to_owned())
    }

    async fn until_ready(&self) {
        let ready = self.at("/readyz");
        until("the service is ready", async || {
            self.http
                .get(&ready)
                .send()
                .await
                .is_ok_and(|r| r.status().is_success())
        })
        .await;
    }

    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// The status, asked for again while the service can not say.
    pub async fn status(&self) -> Value {
        let mut status = None;
        until("the status is told", async || {
            let answer = self.http.get(self.at("/v1/status")).send().await.unwrap();
            if answer.status().is_success() {
                status = Some(answer.json().await.unwrap());
            }
            status.is_some()
        })
        .await;
        status.unwrap()
    }

    pub async fn instances(&self) -> u64 {
        let fleet = &self.status().await["fleet"];
        ["pending", "running", "draining"]
            .iter()
            .filter_map(|state| fleet[*state].as_u64())
            .sum()
    }

    /// The names of the workers that take work.
    pub async fn running(&self) -> Vec<String> {
        let status = self.status().await;
        let instances = status["fleet"]["instances"].as_array().unwrap();
        let running = instances.iter().filter(|i| i["state"] == "running");
        running
            .map(|i| i["id"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Waits until one worker takes work, and says its name.
    pub async fn first_running(&self) -> String {
        let mut running = Vec::new();
        until("a worker runs", async || {
            running = self.running().await;
            running.len() == 1
        })
        .await;
        running.remove(0)
    }

    pub async fn post(&self, path: &str, form: Form) -> Answer {
        let response = self
            .http
            .post(self.at(path))
            .multipart(form)
            .send()
            .await
            .unwrap();
        Answer::read(response).await
    }

    pub async fn recognize(&self, photo: &[u8]) -> Answer {
        self.post(
            "/v1/recognize",
            Form::new().part("image", jpeg("photo.jpg", photo)),
        )
        .await
    }

    pub async fn enroll(&self, name: &str, photos: &[&[u8]]) -> Answer {
        let mut form = Form::new().text("name", name.to_owned());
        for (n, photo) in photos.iter().enumerate() {
            form = form.part("image", jpeg(&format!("{n}.jpg"), photo));
        }
        self.post("/v1/people", form).await
    }

    /// Process ids of the workers of this service, as the kernel has them.
    pub fn workers(&self) -> Vec<u32> {
        workers_on(&self.data)
    }

    pub fn signal(&self, signal: &str) {
        kill(signal, self.child.id().expect("the service runs"));
    }

    pub async fn ends(&mut self) -> std::process::ExitStatus {
        tokio::time::timeout(LIMIT, self.child.wait())
            .await
            .expect("the service ends")
            .unwrap()
    }
}

pub fn write_config(data: &Path, role: &str, toml: &str) -> PathBuf {
    let config = data.with_extension(format!("{role}.toml"));
    std::fs::write(&config, toml).unwrap();
    config
}

/// Processes whose command line says that they are workers on that data folder, the oldest first.
pub fn workers_on(data: &Path) -> Vec<u32> {
    let data = data.to_str().unwrap().as_bytes();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // A process may end while it is looked at.
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let args: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
        if args.get(1) == Some(&b"worker".as_slice()) && args.contains(&data) {
            found.push(pid);
        }
    }
    found.sort_unstable();
    found
}

pub fn kill(signal: &str, pid: u32) {
    let done = std::process::Command::new("kill")
        .arg(signal)
        .arg(pid.to_string())
        .status();
    assert!(done.unwrap().success(), "kill {signal} {pid}");
}

pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub async fn read(response: reqwest::Response) -> Self {
        Self {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.bytes().await.unwrap().to_vec(),
        }
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("not JSON ({}): {}", self.status, self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Name of the first face's person, or the decision.
    pub fn name(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.text());
        let face = &self.json()["faces"][0];
        face["person"]["name"]
            .as_str()
            .or(face["decision"].as_str())
            .unwrap()
            .to_owned()
    }
}

pub fn jpeg(file: &str, bytes: &[u8]) -> Part {
    Part::bytes(bytes.to_vec())
        .file_name(file.to_owned())
        .mime_str("image/jpeg")
        .unwrap()
}

pub fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

/// Waits until `holds`, and fails the test with `what` after [`LIMIT`].
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
