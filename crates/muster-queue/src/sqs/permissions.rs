//! What the caller may do with a queue, found out without changing what is in it.

use std::time::Duration;

use aws_sdk_sqs::operation::send_message_batch::SendMessageBatchError;

use super::queue::SqsQueue;
use crate::{error::QueueError, message::Receipt, queue::Queue};

impl SqsQueue {
    /// Finds out whether a message may be sent, by sending none: a batch of no messages is refused
    /// as empty where sending is allowed (`sqs:SendMessage`).
    ///
    /// SQS does not promise to look at permissions before it looks at the batch.
    ///
    /// # Errors
    /// What the service answered otherwise.
    pub async fn check_send_permission(&self) -> Result<(), QueueError> {
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

    /// Finds out whether messages may be received (`sqs:ReceiveMessage`), and returns how many were
    /// received: at most one, which stays visible and whose receive count grows by one.
    ///
    /// # Errors
    /// What the service answered otherwise.
    pub async fn check_receive_permission(&self) -> Result<usize, QueueError> {
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
    /// What the service answered to the call; that it does not know the receipt is no error.
    pub async fn check_delete_permission(&self) -> Result<(), QueueError> {
        self.delete(&[no_receipt()]).await.map(drop)
    }

    /// Finds out whether visibility timeouts may be changed (`sqs:ChangeMessageVisibility`), by a
    /// receipt that no delivery had.
    ///
    /// # Errors
    /// What the service answered to the call; that it does not know the receipt is no error.
    pub async fn check_extend_permission(&self) -> Result<(), QueueError> {
        let extended = self.extend(&[no_receipt()], Duration::from_secs(1)).await;
        extended.map(drop)
    }
}

/// Returns a receipt that no delivery had: a batch with it is accepted, and its one entry is not.
fn no_receipt() -> Receipt {
    Receipt("none".to_owned())
}
