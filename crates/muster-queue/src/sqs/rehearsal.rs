//! What a queue is like, and what its caller may do with it, found out without doing any of it.

use std::time::Duration;

use aws_sdk_sqs::operation::send_message_batch::SendMessageBatchError;
use aws_sdk_sqs::types::QueueAttributeName;

use super::{SqsQueue, attributes, unexpected};
use crate::{Queue, QueueError, Receipt, Redrive};

/// A queue as it is, as far as Muster depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// The visibility timeout, in the whole seconds that SQS counts in.
    pub visibility_timeout_s: u64,
    /// Where messages go that are received too often.
    pub redrive: Option<Redrive>,
}

impl SqsQueue {
    /// Describes the queue as it is. Needs `sqs:GetQueueAttributes`.
    ///
    /// # Errors
    /// [`QueueError::Fifo`] where it is no standard queue, or what the service said.
    pub async fn described(&self) -> Result<Described, QueueError> {
        let found = self.attributes().await?;
        let visibility_timeout_s = found
            .get(&QueueAttributeName::VisibilityTimeout)
            .and_then(|seconds| seconds.parse().ok())
            .ok_or_else(|| unexpected("the answer lacks the visibility timeout"))?;
        let redrive = found.get(&QueueAttributeName::RedrivePolicy);
        let redrive = redrive.and_then(|policy| attributes::policy(policy));
        let redrive = redrive.map(|(target, receives)| {
            let whole = target.rsplit(':').next().unwrap_or(&target);
            let own = whole.strip_prefix(self.prefix());
            Redrive {
                dead_letter: own.unwrap_or(whole).to_owned(),
                max_receives: u32::try_from(receives).unwrap_or(u32::MAX),
            }
        });
        Ok(Described {
            visibility_timeout_s,
            redrive,
        })
    }

    /// Finds out whether a message may be sent, by sending none: a batch of no messages is refused
    /// as empty where sending is allowed (`sqs:SendMessage`).
    ///
    /// SQS does not promise to look at permissions before it looks at the batch.
    ///
    /// # Errors
    /// What the service said otherwise.
    pub async fn try_send(&self) -> Result<(), QueueError> {
        let call = self.client.send_message_batch().queue_url(&self.url);
        match call.set_entries(Some(Vec::new())).send().await {
            Ok(_) => Ok(()),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(SendMessageBatchError::is_empty_batch_request) =>
            {
                Ok(())
            }
            Err(error) => Err(self.failure(error)),
        }
    }

    /// Finds out whether messages may be received (`sqs:ReceiveMessage`), and returns how many were:
    /// at most one, which stays visible and counts one receive more.
    ///
    /// # Errors
    /// What the service said otherwise.
    pub async fn try_receive(&self) -> Result<usize, QueueError> {
        let answer = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(1)
            .wait_time_seconds(0)
            .visibility_timeout(0)
            .send()
            .await
            .map_err(|error| self.failure(error))?;
        Ok(answer.messages.unwrap_or_default().len())
    }

    /// Finds out whether messages may be deleted (`sqs:DeleteMessage`), by a receipt that no delivery
    /// had.
    ///
    /// # Errors
    /// What the service said to the call; that it does not know the receipt is no error.
    pub async fn try_delete(&self) -> Result<(), QueueError> {
        self.delete(&[no_receipt()]).await.map(drop)
    }

    /// Finds out whether visibility timeouts may be changed (`sqs:ChangeMessageVisibility`), by a
    /// receipt that no delivery had.
    ///
    /// # Errors
    /// What the service said to the call; that it does not know the receipt is no error.
    pub async fn try_extend(&self) -> Result<(), QueueError> {
        let extended = self.extend(&[no_receipt()], Duration::from_secs(1)).await;
        extended.map(drop)
    }

    /// What stands before the name that the caller gave.
    fn prefix(&self) -> &str {
        let whole = self.url.rsplit('/').next().unwrap_or_default();
        whole.strip_suffix(&*self.name).unwrap_or_default()
    }
}

/// A receipt that no delivery had: a batch with it is accepted, and its one entry is not.
fn no_receipt() -> Receipt {
    Receipt("none".to_owned())
}
