//! What stands between Muster and its clients: proxies, caches and browsers.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Answer, LIMIT, Service, muster, read, samples};
use reqwest::multipart::Form;

/// Sends a request whose head is exactly this; the whole answer as text.
async fn raw(service: &Service, head: &[u8]) -> String {
    let host = service.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    stream.write_all(head).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    tokio::time::timeout(LIMIT, read).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn answers_are_kept_by_nobody_and_name_places_below_the_base_path() {
    let Some(samples) = samples() else { return };
    let service = Service::up("max_instances = 1\nbase_path = \"/faces/\"").await;
    let photo = read(&samples.people[0].1[0]);
    let enrolled = service.enroll("Anna", &[&photo]).await;
    assert_eq!(enrolled.status, 201, "{}", enrolled.text());
    let id = enrolled.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(
        enrolled.headers["location"],
        *format!("/faces/v1/people/{id}")
    );

    let get = async |path: &str| {
        let answer = service.http.get(service.at(path)).send().await.unwrap();
        Answer::read(answer).await
    };
    let person = get(&format!("/v1/people/{id}")).await;
    let face = person.json()["faces"][0]["id"].as_str().unwrap().to_owned();
    let plain = Form::new().part("inputFile", crate::support::jpeg("a.jpg", &photo));
    for answer in [
        enrolled,
        person,
        get("/v1/people").await,
        get("/v1/people/x").await,
        get(&format!("/v1/people/{id}/faces/{face}/photo")).await,
        get("/v1/status").await,
        service.recognize(&photo).await,
        service.post("/", plain).await,
    ] {
        assert_eq!(answer.headers["cache-control"], "no-store");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    }
    let page = get("/").await;
    assert_eq!(page.headers["x-content-type-options"], "nosniff");
    assert_eq!(
        get("/openapi.json").await.json()["servers"][0]["url"],
        "/faces"
    );

    // What two readers could take for two hosts.
    for hosts in [
        "Host: 127.0.0.1\r\nHost: evil.example",
        "Host: m\u{fc}nchen.example",
    ] {
        let head = format!("GET /healthz HTTP/1.1\r\n{hosts}\r\nConnection: close\r\n\r\n");
        let answer = raw(&service, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{hosts}: {answer}");
        assert!(answer.contains("Host header"), "{answer}");
    }
}

/// What two readers could take for two things, and what only looks as if it came from this machine.
#[tokio::test]
async fn heads_that_mean_two_things_or_another_host_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start("web", &folder.path().join("data"), "").await;
    let token = service.local_token().unwrap();
    let host = service.url.strip_prefix("http://").unwrap();
    let bearer = format!("Authorization: Bearer {token}");
    for (target, headers, status) in [
        ("/v1/status", format!("Host: {host}\r\n{bearer}"), 200),
        (
            "/v1/status",
            format!("Host: {host}\r\nAuthorization: Basic eA==\r\n{bearer}"),
            400,
        ),
        (
            "/v1/status",
            format!("Host: {host}\r\n{bearer}\r\n{bearer}"),
            400,
        ),
        (
            "http://evil.example/v1/status",
            format!("Host: {host}\r\n{bearer}"),
            400,
        ),
        (
            "/v1/status",
            format!("Host: evil@127.0.0.1\r\n{bearer}"),
            401,
        ),
        (
            "/v1/status",
            format!("Host: 127.0.0.1:evil\r\n{bearer}"),
            401,
        ),
        (
            "/v1/status",
            format!("Host: {host}\r\nTrue-Client-IP: 192.0.2.7\r\n{bearer}"),
            401,
        ),
    ] {
        let head = format!("GET {target} HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n");
        let answer = raw(&service, head.as_bytes()).await;
        let expected = format!("HTTP/1.1 {status}");
        assert!(answer.starts_with(&expected), "{head}{answer}");
    }
    let wrong = service.http.get(service.at("/v1/people?limit=-1"));
    let wrong = Answer::read(wrong.send().await.unwrap()).await;
    assert_eq!(wrong.status, 400);
    assert_eq!(
        wrong.json()["detail"],
        "limit is \"-1\", which it can not be: see /docs for what it takes"
    );
}

#[tokio::test]
async fn ids_of_answers_about_several_photographs_are_those_of_the_logs() {
    let Some(samples) = samples() else { return };
    let service = Service::up("max_instances = 1").await;
    let photo = read(&samples.people[0].1[0]);
    for path in ["/v1/recognize", "/v1/verify"] {
        let form = ["a.jpg", "b.jpg"]
            .into_iter()
            .fold(Form::new(), |form, name| {
                form.part("image", crate::support::jpeg(name, &photo))
            });
        let sent = service.http.post(service.at(path)).multipart(form);
        let answer = sent
            .header("x-request-id", "of-the-client")
            .send()
            .await
            .unwrap();
        let answer = Answer::read(answer).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.headers["x-request-id"], "of-the-client");
        assert_eq!(answer.json()["request_id"], "of-the-client", "{path}");
    }
}

#[tokio::test]
async fn it_listens_by_name_and_serves_whether_anybody_reads_its_output_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // Freed at once: another test could only take it by chance.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("localhost:{}", port.local_addr().unwrap().port());
    drop(port);
    let closed = || std::io::pipe().unwrap().1;
    let mut service = muster()
        .args(["web", "--listen", &address, "--data"])
        .arg(&data)
        .env("MUSTER_LOG", "trace")
        .stdout(closed())
        .stderr(closed())
        .spawn()
        .unwrap();
    let http = reqwest::Client::new();
    crate::support::until("the service is ready", async || {
        let ready = http.get(format!("http://{address}/readyz")).send().await;
        assert!(service.try_wait().unwrap().is_none(), "it goes on");
        ready.is_ok_and(|answer| answer.status().is_success())
    })
    .await;
    service.kill().await.unwrap();
}
