//! What a log says and what it must not: who and which request, and nothing of who is in a picture.

use std::path::Path;
use std::process::Stdio;

use base64::Engine as _;
use reqwest::Method;
use reqwest::multipart::Form;
use serde_json::Value;

use crate::support::{Answer, LIMIT, Service, jpeg, muster, read, samples, until};

const NAME: &str = "Zephyrine Quillfeather";
const FILE: &str = "quillfeather-at-home.jpg";
/// Characters by which something is known again.
const KNOWN_BY: usize = 24;

impl Service {
    /// A call under an id of the client's own.
    async fn call_as(&self, id: &str, method: Method, path: &str, form: Option<Form>) -> Answer {
        let mut request = self.http.request(method, self.at(path));
        request = request.header("x-request-id", id);
        if let Some(form) = form {
            request = request.multipart(form);
        }
        Answer::read(request.send().await.unwrap()).await
    }
}

fn photo(bytes: &[u8]) -> Form {
    Form::new().part("image", jpeg(FILE, bytes))
}

/// Every base64 text of a document that is long enough to be an embedding.
fn embeddings(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) if text.len() > 500 => found.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| embeddings(value, found)),
        Value::Object(members) => members.values().for_each(|value| embeddings(value, found)),
        _ => {}
    }
}

/// The embeddings in the gallery's log.
fn enrolled(data: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(data.join("objects/gallery")).unwrap() {
        let text = read(&entry.unwrap().path());
        if let Ok(value) = serde_json::from_slice(&text) {
            embeddings(&value, &mut found);
        }
    }
    found
}

/// Puts a file where a folder of objects is, so that nothing can be written there.
fn break_store(data: &Path, part: &str) {
    let folder = data.join("objects").join(part);
    if folder.is_dir() {
        std::fs::rename(&folder, data.join(format!("{part}.away"))).unwrap();
    }
    std::fs::write(folder, "in the way").unwrap();
}

#[tokio::test]
async fn logs_say_which_process_and_request_and_nothing_of_anybody() {
    let Some(samples) = samples() else { return };
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut command = muster();
    command
        .env("MUSTER_LOG", "muster=trace")
        .stderr(Stdio::from(std::fs::File::create(&log).unwrap()));
    let data = folder.path().join("data");
    let toml = "max_instances = 1\nidle_grace_s = 600.0\nmax_receives = 1";
    let mut service = Service::start_as(command, "up", &data, toml).await;
    let pictures = &samples.people[0].1;
    let (first, second) = (read(&pictures[0]), read(&pictures[1]));

    let form = photo(&first).text("name", NAME);
    let made = service.call_as("enrol-1", Method::POST, "/v1/people", Some(form));
    let made = made.await;
    assert_eq!(made.status, 201, "{}", made.text());
    let person = made.json()["id"].as_str().unwrap().to_owned();
    let known = service.call_as("see-1", Method::POST, "/v1/recognize", Some(photo(&second)));
    let known = known.await;
    assert_eq!(known.name(), NAME);
    let request = known.json()["request_id"].as_str().unwrap().to_owned();
    let path = format!("/v1/people/{person}/denials");
    let wrong = serde_json::json!({ "request_id": request, "face": 0 });
    let denying = service.http.post(service.at(&path)).json(&wrong);
    let denying = denying.header("x-request-id", "deny-1").send().await;
    let denied = Answer::read(denying.unwrap()).await;
    assert_eq!(denied.status, 201, "{}", denied.text());
    let embeddings = enrolled(&data);
    assert!(embeddings.len() >= 2, "an enrolled face and a denied one");
    let form = photo(b"no picture").text("name", format!("{NAME} II"));
    let refused = service.call_as("enrol-2", Method::POST, "/v1/people", Some(form));
    assert_eq!(refused.await.status, 415);
    let again = photo(&first).text("name", NAME);
    let again = service.call_as("enrol-3", Method::POST, "/v1/people", Some(again));
    assert_eq!(again.await.status, 409);

    // What fails is logged with its cause, which knows paths.
    break_store(&data, "output");
    let unstored = service.call_as("see-2", Method::POST, "/v1/recognize", Some(photo(&second)));
    assert!(unstored.await.status >= 500);
    let job = service.call_as("job-1", Method::POST, "/v1/jobs", Some(photo(&second)));
    assert_eq!(job.await.status, 202);
    until("workers have given up on something", async || {
        let said = std::fs::read_to_string(&log).unwrap();
        said.contains("could not be answered and is")
    })
    .await;
    break_store(&data, "input");
    let refused = service.call_as("see-3", Method::POST, "/v1/recognize", Some(photo(&second)));
    assert_eq!(refused.await.status, 503);
    let path = format!("/v1/people/{person}");
    let gone = service
        .call_as("forget-1", Method::DELETE, &path, None)
        .await;
    assert!((200..300).contains(&gone.status), "{}", gone.text());
    service.signal("-TERM");
    tokio::time::timeout(LIMIT, service.child.wait())
        .await
        .expect("the service ends")
        .unwrap();

    let said = std::fs::read_to_string(&log).unwrap();
    let small = said.to_lowercase();
    assert!(!small.contains("zephyrine"), "a name: {said}");
    assert!(
        !small.contains("quillfeather"),
        "a name or a file's: {said}"
    );
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let mut private = embeddings;
    for picture in [&first, &second] {
        // Beyond the header, which all pictures of a camera share.
        private.push(base64(&picture[600..660]));
        private.push(picture[600..612].iter().map(|b| format!("{b}, ")).collect());
        private.push(
            picture[600..620]
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect(),
        );
    }
    for text in private {
        let part = &text[..KNOWN_BY.min(text.len())];
        assert!(!said.contains(part), "a picture or an embedding: {said}");
    }

    let lines: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
        .collect();
    let target = |line: &Value| line["target"].as_str().unwrap_or_default().to_owned();
    let workers: Vec<_> = lines
        .iter()
        .filter(|line| target(line).starts_with("muster_worker"))
        .collect();
    assert!(!workers.is_empty());
    for line in &workers {
        let instance = line["instance.id"].as_str().unwrap_or_default();
        assert!(instance.starts_with("worker-"), "{line}");
    }
    for line in lines
        .iter()
        .filter(|line| target(line).starts_with("muster_web"))
    {
        assert!(line["replica.id"].is_string(), "{line}");
    }
    let answered = |id: &str| {
        let mut of = lines
            .iter()
            .filter(|line| line["span"]["http.request_id"] == id);
        of.any(|line| line["message"] == "answered" && line["span"]["trace_id"].is_string())
    };
    for id in [
        "enrol-1", "see-1", "deny-1", "enrol-2", "see-2", "see-3", "forget-1",
    ] {
        assert!(answered(id), "{id} in {said}");
    }
    let mut worked = workers
        .iter()
        .filter(|line| line["span"]["request.id"] == request);
    assert!(worked.any(|line| line["message"] == "a request was answered"));
    // Whatever a worker says of a request, and whatever the web tier answers 5xx for.
    for line in &lines {
        let message = line["message"].as_str().unwrap_or_default();
        if message.contains("request could not") || message.contains("job could not") {
            assert!(line["span"]["request.id"].is_string(), "{line}");
        }
        if message.contains("photograph could not") {
            assert_eq!(line["span"]["http.request_id"], "see-3", "{line}");
        }
    }
    for expected in [
        "request could not be answered",
        "photograph could not be stored",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}
