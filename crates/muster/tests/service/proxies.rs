//! Real proxies on the same machine, which call from loopback for everybody.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use reqwest::Method;
use reqwest::header::HeaderMap;
use reqwest::multipart::Form;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::bad_input::assert_problem;
use crate::keys::create;
use crate::support::{Answer, Service, client, jpeg, read, samples, until};

/// A proxy's program; `None`, said visibly, where it is not here.
fn program(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("MUSTER_PROXIES").into_iter();
    let folders = folders.chain(std::env::var_os("PATH"));
    let found = folders
        .flat_map(|folders| std::env::split_paths(&folders).collect::<Vec<_>>())
        .map(|folder| folder.join(name))
        .find(|program| program.is_file());
    if found.is_none() {
        assert!(
            !muster_testbed::in_ci(),
            "{name} is needed in CI: install it, or set MUSTER_PROXIES, as `make test` does"
        );
        eprintln!("SKIPPED: there is no {name}: run `make test-servers`");
    }
    found
}

/// A proxy in front of a service. Killed when dropped.
struct Proxy {
    url: String,
    _process: Child,
    _folder: TempDir,
}

impl Proxy {
    /// nginx with this in its `http` block.
    async fn nginx(program: &Path, listen: u16, servers: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|what| format!("{what}_temp_path {what};\n"))
            .collect();
        let config = format!(
            "daemon off; master_process off; pid nginx.pid; events {{}}\n\
             http {{ access_log off; {temporary} {servers} }}"
        );
        std::fs::write(folder.path().join("nginx.conf"), config).unwrap();
        let mut command = Command::new(program);
        command.args(["-e", "stderr", "-c", "nginx.conf", "-p"]);
        command.arg(folder.path());
        Self::start(command, folder, listen).await
    }

    /// Caddy with this Caddyfile.
    async fn caddy(program: &Path, listen: u16, config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("Caddyfile");
        let global = "{\n admin off\n auto_https off\n log {\n level ERROR\n }\n}\n";
        std::fs::write(&file, format!("{global}{config}")).unwrap();
        let mut command = Command::new(program);
        command
            .args(["run", "--adapter", "caddyfile", "--config"])
            .arg(&file)
            .env("XDG_DATA_HOME", folder.path())
            .env("XDG_CONFIG_HOME", folder.path())
            .stderr(Stdio::null());
        Self::start(command, folder, listen).await
    }

    async fn start(mut command: Command, folder: TempDir, listen: u16) -> Self {
        let process = command
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let url = format!("http://127.0.0.1:{listen}");
        let bare = client(HeaderMap::new());
        until("the proxy passes calls on", async || {
            let answer = bare.get(format!("{url}/healthz")).send().await;
            answer.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        Self {
            url,
            _process: process,
            _folder: folder,
        }
    }

    async fn ask(&self, method: Method, path: &str, key: Option<&str>) -> Answer {
        let bare = client(HeaderMap::new());
        let mut request = bare.request(method, format!("{}{path}", self.url));
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        Answer::read(request.send().await.unwrap()).await
    }

    async fn recognize(&self, key: Option<&str>, photo: &[u8]) -> Answer {
        let form = Form::new().part("image", jpeg("photo.jpg", photo));
        let mut request = client(HeaderMap::new())
            .post(format!("{}/v1/recognize", self.url))
            .multipart(form);
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        Answer::read(request.send().await.unwrap()).await
    }

    /// Asks for everything that shows or changes people or the service, as anybody may.
    async fn is_shut(&self) {
        let person = "/v1/people/00000000-0000-7000-8000-000000000000";
        for (method, path) in [
            (Method::GET, "/v1/people"),
            (Method::POST, "/v1/people"),
            (Method::GET, person),
            (Method::DELETE, person),
            (Method::GET, "/v1/jobs"),
            (Method::GET, "/v1/status"),
            (Method::GET, "/v1/events"),
            (Method::GET, "/v1/gallery/health"),
            (Method::GET, "/metrics"),
        ] {
            let refused = self.ask(method, path, None).await;
            assert_problem(&refused, 401, "unauthorized");
        }
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn port_of(service: &Service) -> &str {
    service.url.rsplit_once(':').unwrap().1
}

/// A configuration of deploy/, for a service and an address of a test's own, without TLS.
fn deployed(file: &str, changes: &[(&str, &str)]) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy")
        .join(file);
    let mut config = std::fs::read_to_string(&file).unwrap();
    for (from, to) in changes {
        assert!(config.contains(from), "{} has no {from}", file.display());
        config = config.replace(from, to);
    }
    let with_key = |line: &&str| !line.trim_start().starts_with("ssl_certificate");
    config
        .lines()
        .filter(with_key)
        .collect::<Vec<_>>()
        .join("\n")
}

#[tokio::test]
async fn behind_nginx_as_it_comes_nobody_gets_at_the_people() {
    let (Some(nginx), Some(samples)) = (program("nginx"), samples()) else {
        return;
    };
    let service = Service::up("max_instances = 1").await;
    let listen = free_port();
    let to = port_of(&service);
    let server = format!(
        "server {{ listen 127.0.0.1:{listen}; location / {{ proxy_pass http://127.0.0.1:{to}; }} }}"
    );
    let proxy = Proxy::nginx(&nginx, listen, &server).await;
    proxy.is_shut().await;
    let key = create(&service.data, &["--scope", "admin"]).await;
    let people = proxy.ask(Method::GET, "/v1/people", Some(&key)).await;
    assert_eq!(people.status, 200, "{}", people.text());
    // It can not be told from a program on this machine, which may do this much.
    let photo = read(&samples.people[0].1[0]);
    assert_eq!(proxy.recognize(None, &photo).await.status, 200);
}

#[tokio::test]
async fn the_configurations_for_proxies_want_a_key_for_everything() {
    let (Some(nginx), Some(caddy), Some(samples)) = (program("nginx"), program("caddy"), samples())
    else {
        return;
    };
    // Also without the setting that their first lines ask for.
    let service = Service::up("max_instances = 1").await;
    let key = create(&service.data, &["--scope", "admin"]).await;
    let to = format!("127.0.0.1:{}", port_of(&service));
    let ports = [free_port(), free_port()];
    let [for_nginx, for_caddy] = ports.map(|port| format!("127.0.0.1:{port}"));
    let proxies = [
        Proxy::nginx(
            &nginx,
            ports[0],
            &deployed(
                "nginx/muster.conf",
                &[("443 ssl", &for_nginx), ("127.0.0.1:8000", &to)],
            ),
        )
        .await,
        Proxy::caddy(
            &caddy,
            ports[1],
            &deployed(
                "caddy/Caddyfile",
                &[
                    ("muster.example.org", &format!("http://{for_caddy}")),
                    ("127.0.0.1:8000", &to),
                ],
            ),
        )
        .await,
    ];
    let photo = read(&samples.people[0].1[0]);
    let token = service.local_token().unwrap();
    for proxy in proxies {
        proxy.is_shut().await;
        for key in [None, Some(&*token)] {
            let refused = proxy.recognize(key, &photo).await;
            assert_problem(&refused, 401, "unauthorized");
        }
        assert_eq!(proxy.recognize(Some(&key), &photo).await.status, 200);
        // More than nginx takes by itself, and for Muster to refuse.
        let large = proxy.recognize(Some(&key), &vec![0; 2 << 20]).await;
        assert_problem(&large, 415, "image.unsupported");
        let page = proxy.ask(Method::GET, "/healthz", None).await;
        assert_eq!(page.status, 200);
    }
}
