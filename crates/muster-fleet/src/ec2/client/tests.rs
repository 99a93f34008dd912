//! Calls over a transport of the test's own.

use std::sync::{Arc, Mutex};

use aws_config::Region;
use aws_sdk_ec2::config::Credentials;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::http::StatusCode;
use aws_types::sdk_config::{Builder, SharedCredentialsProvider};

use super::*;
use crate::ec2::failure::Refusal;

/// A server that gives one answer to everything, or none, and keeps what it was asked.
#[derive(Clone, Debug)]
struct Server {
    answer: Option<(u16, Vec<u8>)>,
    requests: Arc<Mutex<Vec<HttpRequest>>>,
}

impl HttpConnector for Server {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        self.requests.lock().unwrap().push(request);
        HttpConnectorFuture::ready(match &self.answer {
            Some((status, body)) => {
                let status = StatusCode::try_from(*status).unwrap();
                Ok(HttpResponse::new(status, SdkBody::from(body.clone())))
            }
            None => Err(ConnectorError::io("no route to host".into())),
        })
    }
}

impl Server {
    fn new(answer: Option<(u16, &str)>) -> Self {
        Self {
            answer: answer.map(|(status, body)| (status, body.as_bytes().to_vec())),
            requests: Arc::default(),
        }
    }

    fn config(&self) -> Builder {
        let connector = SharedHttpConnector::new(self.clone());
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .http_client(http_client_fn(move |_, _| connector.clone()))
    }

    async fn ask(&self, config: Builder) -> Result<Acknowledged, Failure> {
        let query = Query::new("StopInstances").with_list("InstanceId", ["i-1"]);
        Client::new(&config.build()).call(query).await
    }
}

fn credentials() -> SharedCredentialsProvider {
    let own = Credentials::new("AKID", "secret", Some("session".into()), None, "tests");
    SharedCredentialsProvider::new(own)
}

const STOPPED: &str = "<StopInstancesResponse><instancesSet/></StopInstancesResponse>";

#[tokio::test]
async fn a_call_is_a_signed_form() {
    let server = Server::new(Some((200, STOPPED)));
    let config = server.config().credentials_provider(credentials());
    server.ask(config).await.unwrap();
    let requests = server.requests.lock().unwrap();
    let [request] = &requests[..] else {
        panic!("{requests:?}");
    };
    assert_eq!(request.method(), "POST");
    assert_eq!(request.uri(), "https://ec2.eu-central-1.amazonaws.com/");
    let body = "Action=StopInstances&Version=2016-11-15&InstanceId.1=i-1";
    assert_eq!(request.body().bytes(), Some(body.as_bytes()));
    let header = |name| request.headers().get(name).unwrap_or_default();
    assert_eq!(header("content-type"), "application/x-www-form-urlencoded");
    assert_eq!(header("content-length"), body.len().to_string());
    assert_eq!(header("x-amz-security-token"), "session");
    let signature = header("authorization");
    assert!(
        signature.starts_with("AWS4-HMAC-SHA256 Credential=AKID/")
            && signature.contains("/eu-central-1/ec2/aws4_request"),
        "{signature}"
    );
    assert!(header("user-agent").starts_with("aws-sdk-rust/"));
}

#[tokio::test]
async fn what_is_not_ec2s_answer_leaves_open_whether_the_call_happened() {
    let too_long = " ".repeat(MAX_ANSWER_BYTES) + STOPPED;
    for (answer, refusal, says) in [
        (None, Refusal::Unknown, "dispatch failure"),
        (
            Some((200, "<html/>")),
            Refusal::Unknown,
            "StopInstancesResponse",
        ),
        (Some((200, "")), Refusal::Unknown, "StopInstancesResponse"),
        (Some((200, &*too_long)), Refusal::Unknown, "length limit"),
        (Some((502, "<html/>")), Refusal::Unknown, "HTTP 502"),
        (Some((429, "")), Refusal::Throttled, "HTTP 429"),
        (Some((403, "<html/>")), Refusal::Refused, "HTTP 403"),
    ] {
        let server = Server::new(answer);
        let config = server.config().credentials_provider(credentials());
        let failure = server.ask(config).await.unwrap_err();
        assert_eq!(failure.refusal, refusal, "{}", failure.said);
        assert!(failure.said.contains(says), "{}", failure.said);
        assert_eq!(failure.code, "");
        assert_eq!(
            server.requests.lock().unwrap().len(),
            1,
            "nothing is repeated"
        );
    }
}

#[tokio::test]
async fn a_refusal_is_said_with_its_code_and_its_request() {
    let refused = "<Response><Errors><Error><Code>UnauthorizedOperation</Code>\
        <Message>You are not authorized.</Message></Error></Errors>\
        <RequestID>r-1</RequestID></Response>";
    let server = Server::new(Some((403, refused)));
    let config = server.config().credentials_provider(credentials());
    let failure = server.ask(config).await.unwrap_err();
    assert_eq!(failure.refusal, Refusal::NotPermitted);
    assert_eq!(failure.code, "UnauthorizedOperation");
    let said = "UnauthorizedOperation: You are not authorized.";
    assert_eq!(failure.said, said);
    let error = failure.into_error("stop instances", "template", None);
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, format!("{said} (request r-1)"));
}

#[tokio::test]
async fn without_credentials_or_region_nothing_is_sent() {
    let server = Server::new(Some((200, STOPPED)));
    let no_region = server
        .config()
        .region(None)
        .credentials_provider(credentials());
    for (config, refusal, says) in [
        (server.config(), Refusal::Refused, "identity_resolvers"),
        (no_region, Refusal::Unknown, "region"),
    ] {
        let failure = server.ask(config).await.unwrap_err();
        assert_eq!(failure.refusal, refusal);
        assert!(failure.said.contains(says), "{}", failure.said);
    }
    assert!(server.requests.lock().unwrap().is_empty());
}
