//! The names, queues and message sizes of the system that Muster came from: everything is named by the
//! operator and may begin with a digit, messages have a kilobyte, and the one web tier is answered on one
//! queue that stays.

use std::collections::BTreeMap;

use muster_recognize::models::SamplePhotographs;
use muster_testbed::proxy::FaultProxy;
use muster_testbed::{REGION, moto};
use object_store::ObjectStoreExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use reqwest::multipart::Form;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use super::installation::{objects, prerequisites};
use crate::support::{Answer, Service, jpeg, muster, read, until};

/// SQS's least `MaximumMessageSize`.
const KILOBYTE: &str = "1024";

/// Buckets and queues that somebody has made.
struct Names {
    server: &'static moto::Server,
    /// What the service calls AWS at: it tells which calls there were.
    proxy: FaultProxy,
    /// All digits.
    prefix: String,
    http: reqwest::Client,
    folder: TempDir,
}

impl Names {
    async fn make(server: &'static moto::Server) -> Self {
        let random = Uuid::now_v7().as_u128() % 1_000_000_000_000;
        let names = Self {
            server,
            proxy: FaultProxy::start(server.endpoint(), 1),
            prefix: format!("1{random:012}"),
            http: reqwest::Client::new(),
            folder: tempfile::tempdir().unwrap(),
        };
        for bucket in ["in", "out", "state"] {
            names.bucket(bucket).await;
        }
        for queue in ["req", "resp", "report", "dead"] {
            let attributes = json!({ "MaximumMessageSize": KILOBYTE, "VisibilityTimeout": "10" });
            let queue = json!({ "QueueName": names.queue(queue), "Attributes": attributes });
            names.sqs("CreateQueue", &queue).await;
        }
        names
    }

    fn authorization(&self, service: &str) -> String {
        let scope = format!("Credential=test/20260101/{REGION}/{service}/aws4_request");
        format!("AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0")
    }

    async fn bucket(&self, part: &str) {
        let url = format!("{}/{}-{part}-bucket", self.server.endpoint(), self.prefix);
        let constraint = format!(
            "<CreateBucketConfiguration><LocationConstraint>{REGION}</LocationConstraint>\
             </CreateBucketConfiguration>"
        );
        let made = self.http.put(url).body(constraint);
        let made = made.header("authorization", self.authorization("s3"));
        made.send().await.unwrap().error_for_status().unwrap();
    }

    fn queue(&self, part: &str) -> String {
        format!("{}{part}-queue", self.prefix)
    }

    async fn sqs(&self, action: &str, body: &Value) -> Value {
        let call = self
            .http
            .post(self.server.endpoint())
            .header("x-amz-target", format!("AmazonSQS.{action}"))
            .header("content-type", "application/x-amz-json-1.0")
            .header("authorization", self.authorization("sqs"))
            .body(body.to_string());
        let answer = call.send().await.unwrap().error_for_status().unwrap();
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }

    /// The queue's messages, visible or not, and what one may have.
    async fn depth(&self, part: &str) -> (u64, String) {
        let found = self
            .sqs("GetQueueUrl", &json!({ "QueueName": self.queue(part) }))
            .await;
        let asked = json!({ "QueueUrl": found["QueueUrl"], "AttributeNames": ["All"] });
        let found = self.sqs("GetQueueAttributes", &asked).await;
        let of = |name: &str| found["Attributes"][name].as_str().unwrap().to_owned();
        let counts = [
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
        ];
        let depth = counts.map(|name| of(name).parse::<u64>().unwrap());
        (depth.iter().sum(), of("MaximumMessageSize"))
    }

    async fn queues(&self) -> Vec<String> {
        let listed = self
            .sqs("ListQueues", &json!({ "QueueNamePrefix": self.prefix }))
            .await;
        let urls = listed["QueueUrls"].as_array().unwrap().iter();
        let names = urls.map(|url| url.as_str().unwrap().rsplit('/').next().unwrap());
        let mut names: Vec<_> = names.map(str::to_owned).collect();
        names.sort();
        names
    }

    fn store(&self, part: &str) -> AmazonS3 {
        AmazonS3Builder::new()
            .with_bucket_name(format!("{}-{part}-bucket", self.prefix))
            .with_region(REGION)
            .with_endpoint(self.server.endpoint())
            .with_allow_http(true)
            .with_access_key_id("test")
            .with_secret_access_key("test")
            .build()
            .unwrap()
    }

    async fn keys(&self, part: &str) -> Vec<String> {
        let found: BTreeMap<Path, u64> = objects(&self.store(part)).await;
        found.into_keys().map(String::from).collect()
    }

    async fn up(&self, object_keys: &str) -> Service {
        let prefix = &self.prefix;
        let toml = format!(
            "endpoint = \"{}\"\nregion = \"{REGION}\"\ninput_store = \"s3://{prefix}-in-bucket\"\n\
             output_store = \"s3://{prefix}-out-bucket\"\nstate_store = \"s3://{prefix}-state-bucket\"\n\
             queues = \"sqs\"\nrequest_queue = \"req-queue\"\nreply_queue = \"resp-queue\"\n\
             report_queue = \"report-queue\"\ndead_letter_queue = \"dead-queue\"\n\
             reply_queues = \"shared\"\nobject_keys = \"{object_keys}\"\n\
             min_instances = 1\nmax_instances = 1",
            self.proxy.endpoint()
        );
        let mut command = muster();
        // A number to whoever guesses.
        command.env("MUSTER_QUEUE_PREFIX", prefix);
        Service::start_as(command, "up", &self.folder.path().join("data"), &toml).await
    }
}

/// Everything that a worker is asked and answers, from the shortest to what no kilobyte holds.
async fn everything_is_answered(service: &Service, samples: &SamplePhotographs) {
    let (name, photos) = &samples.people[0];
    let [first, second] = [&photos[0], &photos[1]].map(|photo| read(photo));
    let enrolled = service.enroll(name, &[&first]).await;
    assert_eq!(enrolled.status, 201, "{}", enrolled.text());
    for (other, photos) in &samples.people[1..] {
        let enrolled = service.enroll(other, &[&read(&photos[0])]).await;
        assert_eq!(enrolled.status, 201, "{}", enrolled.text());
    }

    let line = service.post(
        "/",
        Form::new().part("inputFile", jpeg("test_00.jpg", &second)),
    );
    assert_eq!(line.await.text(), format!("test_00:{name}"));
    let long = format!("{}.jpg", "ż".repeat(125));
    let form = Form::new().part("image", jpeg(&long, &second));
    assert_eq!(service.post("/v1/recognize", form).await.name(), *name);
    let group = read(&samples.group);
    let form = Form::new().part("image", jpeg("group.jpg", &group));
    let group = service.post("/v1/recognize", form).await.json();
    assert_eq!(group["faces"].as_array().unwrap().len(), 6, "{group}");
    let cut = &first[..first.len() / 2];
    let form = Form::new()
        .part("image", jpeg("one.jpg", &first))
        .part("image", jpeg(&format!("{}.jpg", "\"".repeat(250)), cut))
        .part("image", jpeg("two.jpg", &second));
    let several = service.post("/v1/recognize", form).await.json();
    let results = &several["results"];
    assert_eq!(results[0]["faces"][0]["person"]["name"], *name, "{several}");
    assert_eq!(
        results[1]["problem"]["code"], "image.unreadable",
        "{several}"
    );
    assert_eq!(results[2]["faces"][0]["person"]["name"], *name, "{several}");
    let form = Form::new()
        .part("image", jpeg("one.jpg", &first))
        .part("image", jpeg("two.jpg", &second));
    let verified = service.post("/v1/verify", form).await;
    assert_eq!(verified.json()["same"], true, "{}", verified.text());
}

async fn all_is_quiet(names: &Names) {
    for queue in ["req", "resp", "dead"] {
        until("nothing is queued", async || {
            names.depth(queue).await.0 == 0
        })
        .await;
    }
    assert_eq!(names.depth("resp").await.1, KILOBYTE, "as it was made");
    let queues = ["dead", "report", "req", "resp"].map(|part| names.queue(part));
    assert_eq!(names.queues().await, queues, "and no other");
}

#[tokio::test]
async fn a_kilobyte_and_the_originals_names_do_for_everything() {
    let Some((server, samples)) = prerequisites() else {
        return;
    };
    let names = Names::make(server).await;
    let mut service = names.up("filename").await;
    everything_is_answered(&service, &samples).await;
    all_is_quiet(&names).await;
    // Photographs by their names, results by their stems, and nothing else: what went by the store is gone.
    let (input, output) = (names.keys("in").await, names.keys("out").await);
    // Besides embeddings, each of which has an upload to delete as well, only the answer about six faces.
    let embedded = samples.people.len() + 2;
    assert_eq!(names.proxy.calls("DeleteObjects"), 2 * embedded + 1);
    assert_eq!(input.len(), 6, "{input:?}");
    assert!(input.contains(&"test_00.jpg".to_owned()), "{input:?}");
    let stems: Vec<&str> = output.iter().map(String::as_str).collect();
    assert_eq!(stems.len(), 5, "{stems:?}");
    assert!(
        stems.contains(&"group") && stems.contains(&"test_00"),
        "{stems:?}"
    );
    let stored = names
        .store("out")
        .get(&Path::from("test_00"))
        .await
        .unwrap();
    let stored = stored.bytes().await.unwrap();
    assert_eq!(stored, samples.people[0].0.as_bytes());

    service.signal("-TERM");
    assert!(service.ends().await.success());
    all_is_quiet(&names).await;
}

#[tokio::test]
async fn a_kilobyte_does_for_results_under_their_requests_and_for_jobs() {
    let Some((server, samples)) = prerequisites() else {
        return;
    };
    let names = Names::make(server).await;
    let mut service = names.up("request").await;
    everything_is_answered(&service, &samples).await;
    let first = job_done(&service, &read(&samples.group)).await;
    all_is_quiet(&names).await;
    // A result each, and of what was enrolled and verified none.
    let output = names.keys("out").await;
    assert_eq!(output.len(), 7, "{output:?}");
    assert!(
        output.iter().all(|key| key.ends_with(".json")),
        "{output:?}"
    );

    // In a bucket too, the layout may be changed: jobs of either are listed and deleted.
    service.signal("-TERM");
    assert!(service.ends().await.success());
    let service = names.up("prefix-hashed").await;
    let second = job_done(&service, &read(&samples.group)).await;
    let hashed = format!("{}-{second}", &second[second.len() - 2..]);
    for (part, file) in [("in", "job.jpg"), ("out", "job.json")] {
        let keys = names.keys(part).await;
        for folder in [&first, &hashed] {
            assert!(keys.contains(&format!("{folder}/{file}")), "{keys:?}");
        }
    }
    let get = service.http.get(service.at("/v1/jobs")).send().await;
    let listed = Answer::read(get.unwrap()).await.json();
    let ids = listed["jobs"].as_array().unwrap().iter();
    let ids: Vec<_> = ids.map(|job| job["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [&first, &second]);
    for job in [&first, &second] {
        let path = service.at(&format!("/v1/jobs/{job}"));
        let gone = service.http.delete(path).send().await.unwrap();
        let gone = Answer::read(gone).await.json();
        assert_eq!(
            (&gone["photographs"], &gone["results"]),
            (&json!(1), &json!(1))
        );
    }
}

/// Submits a photograph as a job and waits until it is done; its id.
async fn job_done(service: &Service, photo: &[u8]) -> String {
    let form = Form::new().part("image", jpeg("job.jpg", photo));
    let job = service.post("/v1/jobs", form).await.json();
    let id = job["id"].as_str().unwrap().to_owned();
    let path = service.at(&format!("/v1/jobs/{id}"));
    until("the job is done", async || {
        let answer = service.http.get(&path).send().await.unwrap();
        Answer::read(answer).await.json()["state"] == "done"
    })
    .await;
    id
}
