//! Every fault of the proxy, as the SDKs see it.

use std::{
    fmt,
    time::{Duration, Instant},
};

use aws_sdk_ec2::{config::retry::RetryConfig, error::SdkError};
use aws_sdk_sqs::{
    Client,
    types::{QueueAttributeName, SendMessageBatchRequestEntry},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, body::Body, header::AUTHORIZATION};
use hyper_util::{client::legacy, rt::TokioExecutor};
use muster_testbed::{
    moto,
    proxy::{Calls, Fault, FaultProxy, Service, When},
    sdk_config,
};

use crate::{code, ec2_client, unique};

/// What makes a request to S3 the bucket owner's: the server does not verify signatures.
const SIGNED: &str = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, \
                      SignedHeaders=host, Signature=00";

fn sqs_client(endpoint: &str) -> Client {
    let config = aws_sdk_sqs::config::Builder::from(&sdk_config(endpoint))
        .retry_config(RetryConfig::disabled())
        .build();
    Client::from_conf(config)
}

async fn queue(sqs: &Client) -> String {
    let name = unique("queue");
    let queue = sqs
        .create_queue()
        .queue_name(name)
        .attributes(QueueAttributeName::VisibilityTimeout, "1")
        .send()
        .await
        .expect("make the queue");
    queue.queue_url().expect("a URL").to_owned()
}

async fn visible(sqs: &Client, queue: &str) -> usize {
    let name = QueueAttributeName::ApproximateNumberOfMessages;
    let request = sqs.get_queue_attributes().queue_url(queue);
    let answer = request.attribute_names(name.clone()).send().await;
    let answer = answer.expect("ask for the count");
    let counts = answer.attributes().expect("attributes");
    counts[&name].parse().expect("a number")
}

/// Returns the status and code of an error that the service answered.
fn answered<E>(error: &SdkError<E>) -> (u16, String)
where
    E: aws_sdk_ec2::error::ProvideErrorMetadata + fmt::Debug,
{
    let status = error.raw_response().expect("an answer").status().as_u16();
    (status, code(error))
}

#[tokio::test]
async fn ec2_answers_errors_in_xml() {
    let Some(endpoint) = moto::endpoint() else {
        return;
    };
    let proxy = FaultProxy::start(endpoint, 1);
    let ec2 = ec2_client(proxy.endpoint());
    for (fault, expected) in [
        (Fault::InternalError, (500, "InternalError")),
        (Fault::Unavailable, (503, "Unavailable")),
        (Fault::Throttled, (503, "RequestLimitExceeded")),
        (Fault::ExpiredToken, (400, "RequestExpired")),
        (Fault::RequestTimeTooSkewed, (400, "RequestExpired")),
        (
            Fault::InsufficientInstanceCapacity,
            (500, "InsufficientInstanceCapacity"),
        ),
        (Fault::UnauthorizedOperation, (403, "UnauthorizedOperation")),
        (
            Fault::LaunchTemplateNotFound,
            (400, "InvalidLaunchTemplateName.NotFoundException"),
        ),
    ] {
        let rule = proxy.inject(Calls::Of("RunInstances"), When::Next(1), fault);
        let refused = ec2.run_instances().min_count(1).max_count(1).send().await;
        let (status, code) = answered(&refused.expect_err("refused"));
        assert_eq!((status, code.as_str()), expected, "{fault:?}");
        assert_eq!(rule.hits(), 1);
    }
    let other = ec2.describe_instances().send().await;
    other.expect("no rule is about this operation");
    assert_eq!(proxy.calls("RunInstances"), 8);
    assert_eq!(proxy.calls("DescribeInstances"), 1);
    assert!(proxy.times("RunInstances").is_sorted());
}

#[tokio::test]
async fn sqs_answers_errors_in_json() {
    let Some(endpoint) = moto::endpoint() else {
        return;
    };
    let proxy = FaultProxy::start(endpoint, 1);
    let sqs = sqs_client(proxy.endpoint());
    for (fault, expected) in [
        (Fault::InternalError, (500, "InternalFailure")),
        (Fault::Unavailable, (503, "ServiceUnavailable")),
        (Fault::Throttled, (400, "ThrottlingException")),
        (Fault::ExpiredToken, (403, "ExpiredTokenException")),
        (
            Fault::RequestTimeTooSkewed,
            (403, "InvalidSignatureException"),
        ),
        (
            Fault::Error {
                status: 403,
                code: "AccessDenied",
            },
            (403, "AccessDenied"),
        ),
    ] {
        let rule = proxy.inject(Calls::To(Service::Sqs), When::Next(1), fault);
        let refused = sqs.list_queues().send().await;
        let (status, code) = answered(&refused.expect_err("refused"));
        assert_eq!((status, code.as_str()), expected, "{fault:?}");
        assert_eq!(rule.hits(), 1);
    }
}

#[tokio::test]
async fn s3_answers_errors_in_xml() {
    let Some(endpoint) = moto::endpoint() else {
        return;
    };
    let proxy = FaultProxy::start(endpoint, 1);
    let http = legacy::Client::builder(TokioExecutor::new()).build_http();
    let bucket = format!("{}/{}", proxy.endpoint(), unique("bucket"));
    let call = async |method: Method, uri: String, body: &'static [u8]| {
        let request = Request::builder().method(method).uri(uri);
        let request = request.header(AUTHORIZATION, SIGNED);
        let request = request.body(Full::new(Bytes::from_static(body)));
        let answer = http.request(request.expect("a request")).await;
        let answer = answer.expect("an answer");
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a body");
        (status, body.to_bytes())
    };
    let made = call(Method::PUT, bucket.clone(), b"").await;
    assert_eq!(made.0, 200, "{made:?}");
    for (fault, status, code) in [
        (Fault::InternalError, 500, "InternalError"),
        (Fault::Unavailable, 503, "ServiceUnavailable"),
        (Fault::Throttled, 503, "SlowDown"),
        (Fault::ExpiredToken, 400, "ExpiredToken"),
        (Fault::RequestTimeTooSkewed, 403, "RequestTimeTooSkewed"),
    ] {
        proxy.inject(Calls::Of("PutObject"), When::Next(1), fault);
        let photo = &[7; 50_000];
        let refused = call(Method::PUT, format!("{bucket}/a/b%20c.jpg"), photo).await;
        let body = String::from_utf8_lossy(&refused.1);
        assert_eq!(refused.0, status, "{fault:?}");
        assert!(body.contains(&format!("<Code>{code}</Code>")), "{body}");
    }
    let put = call(Method::PUT, format!("{bucket}/a/b%20c.jpg"), b"photo").await;
    assert_eq!(put.0, 200);
    let got = call(Method::GET, format!("{bucket}/a/b%20c.jpg"), b"").await;
    assert_eq!(got, (200, Bytes::from_static(b"photo")));

    let rule = proxy.inject(Calls::Of("GetObject"), When::Always, Fault::TruncatedBody);
    let request = Request::get(format!("{bucket}/a/b%20c.jpg")).header(AUTHORIZATION, SIGNED);
    let request = request.body(Full::default());
    let read = match http.request(request.expect("a request")).await {
        Ok(answer) => {
            assert_eq!(answer.body().size_hint().exact(), Some(5));
            answer.into_body().collect().await.is_ok()
        }
        Err(_) => false,
    };
    assert!(!read, "the body breaks off");
    assert_eq!(rule.hits(), 1);
}

#[tokio::test]
async fn a_reset_comes_before_or_after_the_server() {
    let Some(endpoint) = moto::endpoint() else {
        return;
    };
    let proxy = FaultProxy::start(endpoint, 1);
    let [direct, sqs] = [endpoint, proxy.endpoint()].map(sqs_client);
    let queue = queue(&direct).await;
    for (fault, arrived) in [(Fault::ResetBefore, 0), (Fault::ResetAfter, 1)] {
        proxy.inject(Calls::Of("SendMessage"), When::Next(1), fault);
        let send = sqs.send_message().queue_url(&queue).message_body("one");
        let error = send.send().await.expect_err("the connection is reset");
        assert!(matches!(error, SdkError::DispatchFailure(_)), "{error:?}");
        assert_eq!(visible(&direct, &queue).await, arrived, "{fault:?}");
    }
    let send = sqs.send_message().queue_url(&queue).message_body("two");
    send.send().await.expect("the rules are used up");
    assert_eq!(visible(&direct, &queue).await, 2);
}

#[tokio::test]
async fn calls_are_delayed_and_repeated() {
    let Some(endpoint) = moto::endpoint() else {
        return;
    };
    let proxy = FaultProxy::start(endpoint, 1);
    let sqs = sqs_client(proxy.endpoint());
    let queue = queue(&sqs).await;
    let delay = Duration::from_millis(200);
    proxy.inject(
        Calls::Of("SendMessageBatch"),
        When::Next(1),
        Fault::Delay(delay),
    );
    proxy.inject(Calls::Of("SendMessageBatch"), When::Always, Fault::Repeated);
    let send = async || {
        let entry = SendMessageBatchRequestEntry::builder()
            .id("0")
            .message_body("one");
        let entry = entry.build().expect("an entry");
        let request = sqs.send_message_batch().queue_url(&queue).entries(entry);
        request.send().await.expect("send");
    };
    let start = Instant::now();
    send().await;
    assert!(start.elapsed() >= delay);
    assert_eq!(visible(&sqs, &queue).await, 1);
    send().await;
    assert_eq!(visible(&sqs, &queue).await, 3);
}

#[tokio::test]
async fn a_call_happens_although_its_answer_is_late_or_an_error() {
    let Some(endpoint) = moto::endpoint() else {
        return;
    };
    let proxy = FaultProxy::start(endpoint, 1);
    let sqs = sqs_client(proxy.endpoint());
    let queue = queue(&sqs).await;
    let send = || sqs.send_message().queue_url(&queue).message_body("one");
    let late = Calls::Of("SendMessage");
    let delay = Duration::from_secs(60);
    proxy.inject(late, When::Next(1), Fault::DelayAfter(delay));
    tokio::select! {
        _ = send().send() => panic!("the answer comes at once"),
        () = async { while visible(&sqs, &queue).await < 1 {} } => {}
    }
    proxy.inject(late, When::Next(1), Fault::InternalErrorAfter);
    let refused = send().send().await.expect_err("refused");
    assert_eq!(answered(&refused), (500, "InternalFailure".to_owned()));
    assert_eq!(visible(&sqs, &queue).await, 2);
}

#[tokio::test]
async fn a_listing_of_instances_is_empty() {
    let Some(endpoint) = moto::endpoint() else {
        return;
    };
    let proxy = FaultProxy::start(endpoint, 1);
    let ec2 = ec2_client(proxy.endpoint());
    let run = ec2.run_instances().min_count(1).max_count(1);
    let run = run.image_id("ami-12345678").send().await.expect("run");
    let id = run.instances()[0].instance_id().expect("an id");
    let listing = Calls::Of("DescribeInstances");
    proxy.inject(listing, When::Next(1), Fault::EmptyListing);
    let listed = async || {
        let listed = ec2.describe_instances().instance_ids(id).send().await;
        listed.expect("a listing").reservations().len()
    };
    assert_eq!(listed().await, 0);
    assert_eq!(listed().await, 1);
}

#[tokio::test]
async fn a_message_whose_deletion_is_lost_returns() {
    let Some(endpoint) = moto::endpoint() else {
        return;
    };
    let proxy = FaultProxy::start(endpoint, 1);
    let sqs = sqs_client(proxy.endpoint());
    let queue = queue(&sqs).await;
    let send = sqs.send_message().queue_url(&queue).message_body("one");
    send.send().await.expect("send");
    proxy.inject(
        Calls::Of("DeleteMessage"),
        When::Next(1),
        Fault::DeletionLost,
    );
    let receive = async || {
        let request = sqs.receive_message().queue_url(&queue);
        let answer = request.wait_time_seconds(10).send().await;
        let message = answer.expect("receive").messages()[0].clone();
        message.receipt_handle().expect("a receipt").to_owned()
    };
    for _ in 0..2 {
        let receipt = receive().await;
        let delete = sqs.delete_message().queue_url(&queue);
        delete
            .receipt_handle(receipt)
            .send()
            .await
            .expect("the deletion is answered as done");
    }
    assert_eq!(proxy.calls("DeleteMessage"), 2);
    let request = sqs.receive_message().queue_url(&queue);
    let answer = request.wait_time_seconds(2).send().await;
    assert_eq!(answer.expect("receive").messages().len(), 0);
}

#[tokio::test]
async fn retries_outlast_a_fault() {
    let Some(endpoint) = moto::endpoint() else {
        return;
    };
    let proxy = FaultProxy::start(endpoint, 1);
    let ec2 = aws_sdk_ec2::Client::new(&sdk_config(proxy.endpoint()));
    proxy.inject(
        Calls::Of("DescribeInstances"),
        When::Next(2),
        Fault::Throttled,
    );
    let described = ec2.describe_instances().send().await;
    described.expect("the third attempt succeeds");
    assert_eq!(proxy.calls("DescribeInstances"), 3);
}

#[tokio::test]
async fn a_seed_decides_which_calls_have_a_fault() {
    let Some(endpoint) = moto::endpoint() else {
        return;
    };
    let pattern_of = async |seed: u64| {
        let proxy = FaultProxy::start(endpoint, seed);
        let sqs = sqs_client(proxy.endpoint());
        let often = When::Probability(0.5);
        let rule = proxy.inject(Calls::To(Service::Sqs), often, Fault::InternalError);
        let mut pattern = Vec::new();
        for _ in 0..20 {
            pattern.push(sqs.list_queues().send().await.is_err());
        }
        assert_eq!(pattern.iter().filter(|&&it| it).count(), rule.hits());
        pattern
    };
    let one = pattern_of(1).await;
    assert_eq!(one, pattern_of(1).await);
    assert_ne!(one, pattern_of(2).await);
}
