//! What became of each entry of a batch call.

use aws_sdk_sqs::types::BatchResultErrorEntry;

use super::failure::classify;
use crate::error::QueueError;

/// Maps the failure of one entry of a batch to its place in the batch.
pub(super) fn entry_failure<T>(entry: BatchResultErrorEntry) -> (String, Result<T, QueueError>) {
    let message = entry.message.unwrap_or_default();
    // SQS gives an expired receipt and a visibility timeout beyond 12 hours since the receive one
    // code, and the SDK has no type for an entry's error: only the sentence tells them apart.
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

#[cfg(test)]
mod tests {
    use super::*;

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
