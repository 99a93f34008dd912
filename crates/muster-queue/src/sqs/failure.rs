//! SQS's errors, mapped by their codes to the decision that a caller makes.
//!
//! Invariant: the source chain of every refusal holds AWS's own code and message, and that of every
//! call without an answer names the service.

use std::error::Error;

use aws_sdk_sqs::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    operation::RequestId,
};

use crate::error::{QueueError, SourceError};

/// An error that the service answered; it stands in the source chain of the [`QueueError`].
#[derive(Debug, thiserror::Error)]
#[error("{code}: {message} (HTTP {status}, request {request})")]
pub struct SqsRefusal {
    /// AWS's code, as `AccessDenied`.
    pub code: String,
    /// AWS's sentence.
    pub message: String,
    /// The HTTP status.
    pub status: u16,
    /// AWS's id of the request.
    pub request: String,
}

/// A call without an answer, or with none that can be read.
#[derive(Debug, thiserror::Error)]
#[error("no answer from {service}")]
struct NoAnswer<E: Error + 'static> {
    service: String,
    source: E,
}

/// Maps the failure of a whole call; `service` says where the service is.
pub(super) fn failure<E>(service: &str, queue: &str, error: SdkError<E, HttpResponse>) -> QueueError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match &error {
        SdkError::ServiceError(answer) => {
            let meta = answer.err().meta();
            let refusal = SqsRefusal {
                code: meta.code().unwrap_or("no code").to_owned(),
                message: meta.message().unwrap_or("no message").to_owned(),
                status: answer.raw().status().as_u16(),
                request: error.request_id().unwrap_or("without id").to_owned(),
            };
            let (code, status) = (refusal.code.clone(), refusal.status);
            classify(queue, &code, status, refusal.into())
        }
        SdkError::ConstructionFailure(_) => QueueError::Refused {
            source: error.into(),
        },
        _ => {
            let service = service.to_owned();
            let source = NoAnswer {
                service,
                source: error,
            };
            QueueError::Unavailable {
                source: source.into(),
            }
        }
    }
}

/// Maps an error code of SQS, and the HTTP status where the code is another.
pub(super) fn classify(queue: &str, code: &str, status: u16, source: SourceError) -> QueueError {
    let queue = queue.to_owned();
    // SQS also answers the code of its former query protocol, which has a namespace before it, and
    // the SDK prefers that.
    match code.rsplit(['.', '#']).next().unwrap_or(code) {
        "QueueDoesNotExist" | "NonExistentQueue" => QueueError::NotFound {
            queue,
            source: Some(source),
        },
        "QueueDeletedRecently" => QueueError::RemovedRecently { queue },
        "PurgeQueueInProgress" => QueueError::PurgeInProgress { queue },
        "ReceiptHandleIsInvalid" | "MessageNotInflight" => QueueError::ReceiptExpired,
        // `OverLimit`: 120,000 messages are in flight.
        "RequestThrottled"
        | "KmsThrottled"
        | "ThrottlingException"
        | "Throttling"
        | "OverLimit" => QueueError::Throttled { source },
        _ if status >= 500 || status == 408 => QueueError::Unavailable { source },
        _ if status == 429 => QueueError::Throttled { source },
        _ => QueueError::Refused { source },
    }
}

/// An answer that the protocol does not allow.
pub(super) fn unexpected(what: impl Into<SourceError>) -> QueueError {
    QueueError::Refused {
        source: what.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_decisions() {
        let of = |code, status| classify("q", code, status, "refused".into());
        for code in [
            "QueueDoesNotExist",
            "AWS.SimpleQueueService.NonExistentQueue",
        ] {
            assert!(matches!(of(code, 400), QueueError::NotFound { queue, .. } if queue == "q"));
        }
        assert!(matches!(
            of("RequestThrottled", 400),
            QueueError::Throttled { .. }
        ));
        assert!(matches!(
            of("InternalError", 500),
            QueueError::Unavailable { .. }
        ));
        for code in [
            "AccessDenied",
            "ExpiredToken",
            "InvalidClientTokenId",
            "SignatureDoesNotMatch",
            "RequestExpired",
            "RequestTimeTooSkewed",
            "InvalidAddress",
            "AWS.SimpleQueueService.UnsupportedOperation",
        ] {
            let error = of(code, 403);
            assert!(matches!(error, QueueError::Refused { .. }), "{code}");
            assert!(!error.is_transient());
        }
        assert!(matches!(
            of("MessageNotInflight", 400),
            QueueError::ReceiptExpired
        ));
        let purge = of("AWS.SimpleQueueService.PurgeQueueInProgress", 403);
        assert!(matches!(purge, QueueError::PurgeInProgress { .. }));
    }
}
