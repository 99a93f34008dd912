//! What SQS says when it says no, as the decision a caller makes.
//!
//! Invariant: AWS's own code and sentence stand in the source chain of every refusal, and where the
//! service is in that of every call that had no answer.

use std::error::Error;

use aws_sdk_sqs::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    operation::RequestId,
    types::BatchResultErrorEntry,
};

use crate::{QueueError, SourceError};

/// What the service said.
#[derive(Debug, thiserror::Error)]
#[error("{code}: {message} (HTTP {status}, request {request})")]
struct Refusal {
    code: String,
    message: String,
    status: u16,
    request: String,
}

/// A call without an answer, or with none that can be read.
#[derive(Debug, thiserror::Error)]
#[error("no answer from {service}")]
struct NoAnswer<E: Error + 'static> {
    service: String,
    source: E,
}

/// Maps the failure of a whole call to the service that is at `service`.
pub(super) fn failure<E>(service: &str, queue: &str, error: SdkError<E, HttpResponse>) -> QueueError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match &error {
        SdkError::ServiceError(answer) => {
            let said = answer.err().meta();
            let refusal = Refusal {
                code: said.code().unwrap_or("no code").to_owned(),
                message: said.message().unwrap_or("no message").to_owned(),
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

fn classify(queue: &str, code: &str, status: u16, source: SourceError) -> QueueError {
    let queue = queue.to_owned();
    // Older servers put a namespace before the code.
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

/// Maps the failure of one entry of a batch to its place in the batch.
pub(super) fn entry_failure<T>(entry: BatchResultErrorEntry) -> (String, Result<T, QueueError>) {
    let message = entry.message.unwrap_or_default();
    let expired = entry.code == "InvalidParameterValue" && message.contains("eceipt handle");
    let error = if expired {
        QueueError::ReceiptExpired
    } else {
        let source = format!("{}: {message}", entry.code).into();
        classify(
            "",
            &entry.code,
            if entry.sender_fault { 400 } else { 500 },
            source,
        )
    };
    (entry.id, Err(error))
}

/// Puts the entries of an answer into the order of the request.
pub(super) fn outcomes<T>(
    entries: usize,
    answers: impl Iterator<Item = (String, Result<T, QueueError>)>,
) -> Vec<Result<T, QueueError>> {
    let mut outcomes: Vec<_> = (0..entries)
        .map(|_| {
            Err(QueueError::Unavailable {
                source: "the answer lacks this entry".into(),
            })
        })
        .collect();
    for (id, outcome) in answers {
        if let Some(place) = id
            .parse()
            .ok()
            .and_then(|index: usize| outcomes.get_mut(index))
        {
            *place = outcome;
        }
    }
    outcomes
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
        let of = |code, status| classify("q", code, status, "said no".into());
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

    #[test]
    fn entries_keep_the_order_of_the_request() {
        let failed = BatchResultErrorEntry::builder()
            .id("0")
            .sender_fault(true)
            .code("InvalidParameterValue")
            .message("Value x for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired.")
            .build()
            .expect("all fields are set");
        let answers = [
            ("2".to_owned(), Ok(2)),
            entry_failure(failed),
            ("9".to_owned(), Ok(9)),
        ];
        let outcomes = outcomes(3, answers.into_iter());
        assert!(matches!(outcomes[0], Err(QueueError::ReceiptExpired)));
        assert!(matches!(outcomes[1], Err(QueueError::Unavailable { .. })));
        assert!(matches!(outcomes[2], Ok(2)));
    }
}
