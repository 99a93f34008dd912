//! The faults of calls, and the errors by which each service answers them.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode, header::CONTENT_TYPE};

use super::call::Service;

/// The id of every request that is answered with an error.
const REQUEST_ID: &str = "request-of-the-testbed";

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 500 with the service's code, before the call reaches the server.
    InternalError,
    /// 503 with the service's code, before the call reaches the server.
    Unavailable,
    /// `SlowDown`, `ThrottlingException` or `RequestLimitExceeded`.
    Throttled,
    /// What the service says to credentials that have expired.
    ExpiredToken,
    /// What the service says to a request whose clock is wrong.
    RequestTimeTooSkewed,
    /// EC2 has no instance of this kind to give.
    InsufficientInstanceCapacity,
    /// EC2's refusal of a call that the credentials do not allow.
    UnauthorizedOperation,
    /// The launch template does not exist.
    LaunchTemplateNotFound,
    /// Any other error in the place of the service's answer.
    Error {
        /// The HTTP status.
        status: u16,
        /// The service's error code.
        code: &'static str,
    },
    /// The connection is reset before the call reaches the server.
    ResetBefore,
    /// The connection is reset after the server has done what the call asks.
    ResetAfter,
    /// 500 with the service's code, after the server has done what the call asks.
    InternalErrorAfter,
    /// The connection is reset in the middle of the answer's body.
    TruncatedBody,
    /// The call reaches the server only after this long.
    Delay(Duration),
    /// The answer carries this `Date`: the server's clock differs from the client's.
    Date(&'static str),
    /// The call reaches the server without its `If-Match` and `If-None-Match`, as with servers that
    /// ignore them.
    Unconditional,
    /// The server does what the call asks at once, and its answer comes only after this long.
    DelayAfter(Duration),
    /// The server is called twice; the second answer is passed on.
    Repeated,
    /// A deletion of messages is answered as done but never reaches the server, so that the
    /// messages return after their visibility timeout.
    DeletionLost,
    /// EC2 lists no instances: its listing does not show yet what there is.
    EmptyListing,
}

impl Fault {
    /// Returns the status and code that a service answers, for the faults that are answers.
    pub(super) fn answer(self, service: Service) -> Option<(u16, &'static str)> {
        use Service::{Ec2, S3, Sqs};
        // https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
        // https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonErrors.html
        // https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
        Some(match (self, service) {
            (Fault::InternalError, S3 | Ec2) => (500, "InternalError"),
            (Fault::InternalError, Sqs) => (500, "InternalFailure"),
            (Fault::Unavailable, S3 | Sqs) => (503, "ServiceUnavailable"),
            (Fault::Unavailable, Ec2) => (503, "Unavailable"),
            (Fault::Throttled, S3) => (503, "SlowDown"),
            (Fault::Throttled, Sqs) => (400, "ThrottlingException"),
            (Fault::Throttled, Ec2) => (503, "RequestLimitExceeded"),
            (Fault::ExpiredToken, S3) => (400, "ExpiredToken"),
            (Fault::ExpiredToken, Sqs) => (403, "ExpiredTokenException"),
            (Fault::ExpiredToken | Fault::RequestTimeTooSkewed, Ec2) => (400, "RequestExpired"),
            (Fault::RequestTimeTooSkewed, S3) => (403, "RequestTimeTooSkewed"),
            (Fault::RequestTimeTooSkewed, Sqs) => (403, "InvalidSignatureException"),
            (Fault::InsufficientInstanceCapacity, _) => (500, "InsufficientInstanceCapacity"),
            (Fault::UnauthorizedOperation, _) => (403, "UnauthorizedOperation"),
            (Fault::LaunchTemplateNotFound, _) => {
                (400, "InvalidLaunchTemplateName.NotFoundException")
            }
            (Fault::Error { status, code }, _) => (status, code),
            (
                Fault::ResetBefore
                | Fault::ResetAfter
                | Fault::TruncatedBody
                | Fault::InternalErrorAfter
                | Fault::Delay(_)
                | Fault::Date(_)
                | Fault::Unconditional
                | Fault::DelayAfter(_)
                | Fault::Repeated
                | Fault::DeletionLost
                | Fault::EmptyListing,
                _,
            ) => return None,
        })
    }
}

/// Writes an error as a service writes it.
pub(super) fn error(service: Service, status: u16, code: &str) -> Response<Full<Bytes>> {
    let message = format!("The testbed answers {code}.");
    let (content_type, body) = match service {
        Service::S3 => (
            "application/xml",
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>\
                 <Message>{message}</Message><RequestId>{REQUEST_ID}</RequestId></Error>"
            ),
        ),
        Service::Sqs => (
            "application/x-amz-json-1.0",
            serde_json::json!({
                "__type": format!("com.amazonaws.sqs#{code}"),
                "message": message,
            })
            .to_string(),
        ),
        Service::Ec2 => (
            "text/xml;charset=UTF-8",
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error>\
                 <Code>{code}</Code><Message>{message}</Message></Error></Errors>\
                 <RequestID>{REQUEST_ID}</RequestID></Response>"
            ),
        ),
    };
    let mut answer = Response::builder()
        .status(StatusCode::from_u16(status).unwrap())
        .header(CONTENT_TYPE, content_type);
    if service == Service::Sqs {
        let whose = if status < 500 { "Sender" } else { "Receiver" };
        answer = answer
            .header("x-amzn-query-error", format!("{code};{whose}"))
            .header("x-amzn-requestid", REQUEST_ID);
    }
    answer.body(Full::from(body)).unwrap()
}

/// Writes EC2's answer to a listing that finds nothing.
pub(super) fn empty_listing() -> Response<Full<Bytes>> {
    let body = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<DescribeInstancesResponse>\
                <requestId>testbed</requestId><reservationSet/></DescribeInstancesResponse>";
    Response::builder()
        .header(CONTENT_TYPE, "text/xml;charset=UTF-8")
        .body(Full::from(body))
        .unwrap()
}

/// Writes SQS's answer to a deletion that succeeded.
pub(super) fn deleted(request: &[u8]) -> Response<Full<Bytes>> {
    let request: serde_json::Value = serde_json::from_slice(request).unwrap_or_default();
    let body = match request["Entries"].as_array() {
        Some(entries) => {
            let ids = entries
                .iter()
                .map(|it| serde_json::json!({ "Id": it["Id"] }));
            serde_json::json!({ "Successful": ids.collect::<Vec<_>>(), "Failed": [] })
        }
        None => serde_json::json!({}),
    };
    Response::builder()
        .header(CONTENT_TYPE, "application/x-amz-json-1.0")
        .body(Full::from(body.to_string()))
        .unwrap()
}
