//! The metadata service, as the SDK and as a script see it.

use aws_config::imds;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode};
use hyper_util::{client::legacy, rt::TokioExecutor};
use muster_testbed::{REGION, imds::Imds};

fn client(imds: &Imds) -> imds::Client {
    let client = imds::Client::builder().endpoint(imds.endpoint());
    client.expect("an endpoint").max_attempts(1).build()
}

async fn get(imds: &Imds, path: &str) -> String {
    let value = client(imds).get(path).await;
    value
        .unwrap_or_else(|error| panic!("{path}: {error:?}"))
        .into()
}

fn is_missing(error: &imds::client::error::ImdsError) -> bool {
    use imds::client::error::ImdsError::ErrorResponse;
    matches!(error, ErrorResponse(answer) if answer.response().status().as_u16() == 404)
}

#[tokio::test]
async fn an_instance_learns_who_it_is() {
    let imds = Imds::start("i-0123", "#!/bin/sh\necho hello\n");
    assert_eq!(get(&imds, "/latest/meta-data/instance-id").await, "i-0123");
    assert_eq!(
        get(&imds, "/latest/meta-data/placement/region").await,
        REGION
    );
    assert!(get(&imds, "/latest/user-data").await.contains("hello"));
    let document = get(&imds, "/latest/dynamic/instance-identity/document").await;
    let document: serde_json::Value = serde_json::from_str(&document).expect("JSON");
    assert_eq!(document["region"], REGION);

    let roles = "/latest/meta-data/iam/security-credentials/";
    let role = get(&imds, roles).await;
    let credentials = get(&imds, &format!("{roles}{role}")).await;
    let credentials: serde_json::Value = serde_json::from_str(&credentials).expect("JSON");
    assert_eq!(credentials["Code"], "Success");
}

#[tokio::test]
async fn an_interruption_is_announced() {
    let imds = Imds::start("i-0123", "");
    let path = "/latest/meta-data/spot/instance-action";
    let none = client(&imds).get(path).await.expect_err("not interrupted");
    assert!(is_missing(&none), "{none:?}");
    imds.interrupt();
    let notice = get(&imds, path).await;
    let notice: serde_json::Value = serde_json::from_str(&notice).expect("JSON");
    assert_eq!(notice["action"], "terminate");
    assert!(notice["time"].as_str().expect("a time").ends_with('Z'));
}

#[tokio::test]
async fn version_1_is_refused() {
    let imds = Imds::start("i-0123", "");
    let http = legacy::Client::builder(TokioExecutor::new()).build_http();
    let send = async |request: hyper::http::request::Builder| {
        let request = request.body(Full::<Bytes>::default()).expect("a request");
        let answer = http.request(request).await.expect("an answer");
        let status = answer.status();
        let body = answer.into_body().collect().await.expect("a body");
        (status, body.to_bytes())
    };
    let id = format!("{}/latest/meta-data/instance-id", imds.endpoint());
    assert_eq!(send(Request::get(&id)).await.0, StatusCode::UNAUTHORIZED);
    let token = format!("{}/latest/api/token", imds.endpoint());
    assert_eq!(send(Request::put(&token)).await.0, StatusCode::BAD_REQUEST);
    let ttl = "x-aws-ec2-metadata-token-ttl-seconds";
    let (status, value) = send(Request::put(&token).header(ttl, 60)).await;
    assert_eq!(status, StatusCode::OK);
    let shown = |value: &[u8]| Request::get(&id).header("x-aws-ec2-metadata-token", value);
    assert_eq!(send(shown(&value)).await, (StatusCode::OK, "i-0123".into()));
    assert_eq!(send(shown(b"other")).await.0, StatusCode::UNAUTHORIZED);
}
