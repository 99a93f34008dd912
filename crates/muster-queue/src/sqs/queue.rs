//! One SQS queue: messages in batches, receives as long polls.

use std::{collections::BTreeMap, error::Error, sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_sdk_sqs::{
    Client, Config,
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    operation::send_message_batch::SendMessageBatchError,
    types::{
        ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, Message,
        MessageAttributeValue, MessageSystemAttributeName, QueueAttributeName,
        SendMessageBatchRequestEntry,
    },
};

use super::{
    attributes::{self, Attributes},
    batch::{entry_failure, outcomes},
    failure::{failure, unexpected},
    time::{timeouts, whole_seconds},
};
use crate::{
    error::{BatchResult, QueueError},
    limits::{
        MAX_BATCH, MAX_BODY_BYTES, MAX_WAIT, UNSAID_MESSAGE_BYTES, check_entries, check_messages,
        check_visibility,
    },
    message::{ATTRIBUTE_TYPE, MessageId, Outgoing, RECEIVES_ATTRIBUTE, Receipt, Received},
    queue::{Counts, Queue, Redrive},
};

/// The settings of a queue that Muster depends on, as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueDescription {
    /// The visibility timeout, in the whole seconds that SQS counts in.
    pub visibility_timeout_s: u64,
    /// Where messages go that are received too often.
    pub redrive: Option<Redrive>,
}

/// One SQS queue.
#[derive(Debug)]
pub struct SqsQueue {
    pub(super) client: Client,
    /// Where the service is, for those who read of its failures.
    pub(super) service: Arc<str>,
    pub(super) name: String,
    pub(super) url: String,
}

impl SqsQueue {
    /// Returns the queue's URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Reads all attributes, since a standard queue refuses to be asked whether it is FIFO.
    pub(super) async fn attributes(&self) -> Result<Attributes, QueueError> {
        let answer = self
            .client
            .get_queue_attributes()
            .queue_url(&self.url)
            .attribute_names(QueueAttributeName::All)
            .send()
            .await
            .map_err(|error| self.failure(error))?;
        let found = answer.attributes.unwrap_or_default();
        if found
            .get(&QueueAttributeName::FifoQueue)
            .is_some_and(|fifo| fifo == "true")
        {
            return Err(QueueError::Fifo {
                queue: self.name.clone(),
            });
        }
        Ok(found)
    }

    /// Describes the queue as it is. Needs `sqs:GetQueueAttributes`.
    ///
    /// # Errors
    /// [`QueueError::Fifo`] where it is no standard queue, or what the service answered.
    pub async fn describe(&self) -> Result<QueueDescription, QueueError> {
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
        Ok(QueueDescription {
            visibility_timeout_s,
            redrive,
        })
    }

    /// Returns what stands before the name that the caller gave.
    fn prefix(&self) -> &str {
        let whole = self.url.rsplit('/').next().unwrap_or_default();
        whole.strip_suffix(&*self.name).unwrap_or_default()
    }

    pub(super) fn failure<E>(&self, error: SdkError<E, HttpResponse>) -> QueueError
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        failure(&self.service, &self.name, error)
    }
}

fn received(message: Message) -> Result<Received, QueueError> {
    let mut attributes: BTreeMap<_, _> = message
        .message_attributes
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.string_value?)))
        .collect();
    // Of a copy that was handed back.
    let before = attributes.remove(RECEIVES_ATTRIBUTE);
    let before: u32 = before.and_then(|count| count.parse().ok()).unwrap_or(0);
    let receive_count = message
        .attributes
        .as_ref()
        .and_then(|found| found.get(&MessageSystemAttributeName::ApproximateReceiveCount))
        .and_then(|count| count.parse::<u32>().ok())
        .map(|count| count.saturating_add(before));
    match (
        message.message_id,
        message.receipt_handle,
        message.body,
        receive_count,
    ) {
        (Some(id), Some(receipt), Some(body), Some(receive_count)) => Ok(Received {
            id: MessageId(id),
            receipt: Receipt(receipt),
            body,
            attributes,
            receive_count,
        }),
        _ => Err(unexpected(
            "a message lacks its id, receipt, body or receive count",
        )),
    }
}

#[async_trait]
impl Queue for SqsQueue {
    fn name(&self) -> &str {
        &self.name
    }

    async fn message_limit(&self) -> Result<usize, QueueError> {
        let found = self.attributes().await?;
        let Some(bytes) = found.get(&QueueAttributeName::MaximumMessageSize) else {
            return Ok(UNSAID_MESSAGE_BYTES);
        };
        let unreadable = |_| unexpected(format!("the queue's MaximumMessageSize is {bytes:?}"));
        bytes.parse().map_err(unreadable)
    }

    async fn send(&self, messages: &[Outgoing]) -> BatchResult<MessageId> {
        check_messages(messages)?;
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let mut call = self.client.send_message_batch().queue_url(&self.url);
        for (index, message) in messages.iter().enumerate() {
            let mut entry = SendMessageBatchRequestEntry::builder().id(index.to_string());
            for (name, value) in &message.attributes {
                let value = MessageAttributeValue::builder()
                    .data_type(ATTRIBUTE_TYPE)
                    .string_value(value)
                    .build()
                    .map_err(unexpected)?;
                entry = entry.message_attributes(name, value);
            }
            let entry = entry.message_body(&message.body).build();
            call = call.entries(entry.map_err(unexpected)?);
        }
        let answer = call.send().await.map_err(|error| {
            let too_long = error
                .as_service_error()
                .is_some_and(SendMessageBatchError::is_batch_request_too_long);
            if too_long {
                // By the service's own count, which nobody else can repeat to the byte.
                QueueError::TooLarge {
                    bytes: messages.iter().map(Outgoing::bytes).sum(),
                    limit: MAX_BODY_BYTES,
                }
            } else {
                self.failure(error)
            }
        })?;
        let sent = answer
            .successful
            .into_iter()
            .map(|e| (e.id, Ok(MessageId(e.message_id))));
        let failed = answer.failed.into_iter().map(entry_failure);
        Ok(outcomes(messages.len(), sent.chain(failed)))
    }

    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Received>, QueueError> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let wait = wait.min(MAX_WAIT);
        let timeouts = Config::builder().timeout_config(timeouts(wait));
        let answer = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(i32::try_from(max.min(MAX_BATCH)).unwrap_or(1))
            .wait_time_seconds(whole_seconds(wait))
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_attribute_names("All")
            .customize()
            .config_override(timeouts)
            .send()
            .await
            .map_err(|error| self.failure(error))?;
        answer
            .messages
            .unwrap_or_default()
            .into_iter()
            .map(received)
            .collect()
    }

    async fn delete(&self, receipts: &[Receipt]) -> BatchResult<()> {
        check_entries(receipts.len())?;
        if receipts.is_empty() {
            return Ok(Vec::new());
        }
        let mut call = self.client.delete_message_batch().queue_url(&self.url);
        for (index, receipt) in receipts.iter().enumerate() {
            let entry = DeleteMessageBatchRequestEntry::builder().id(index.to_string());
            let entry = entry.receipt_handle(&receipt.0).build();
            call = call.entries(entry.map_err(unexpected)?);
        }
        let answer = call.send().await.map_err(|error| self.failure(error))?;
        let deleted = answer
            .successful
            .into_iter()
            .map(|entry| (entry.id, Ok(())));
        let failed = answer.failed.into_iter().map(entry_failure);
        Ok(outcomes(receipts.len(), deleted.chain(failed)))
    }

    async fn extend(&self, receipts: &[Receipt], visibility: Duration) -> BatchResult<()> {
        check_entries(receipts.len())?;
        check_visibility(visibility)?;
        if receipts.is_empty() {
            return Ok(Vec::new());
        }
        let mut call = self
            .client
            .change_message_visibility_batch()
            .queue_url(&self.url);
        for (index, receipt) in receipts.iter().enumerate() {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(index.to_string());
            let entry = entry.receipt_handle(&receipt.0);
            let entry = entry.visibility_timeout(whole_seconds(visibility)).build();
            call = call.entries(entry.map_err(unexpected)?);
        }
        let answer = call.send().await.map_err(|error| self.failure(error))?;
        let extended = answer
            .successful
            .into_iter()
            .map(|entry| (entry.id, Ok(())));
        let failed = answer.failed.into_iter().map(entry_failure);
        Ok(outcomes(receipts.len(), extended.chain(failed)))
    }

    async fn hand_back(&self, messages: &[Received]) -> BatchResult<()> {
        let copies: Vec<_> = messages
            .iter()
            .map(|message| {
                let mut copy = Outgoing::from(message);
                let before = message.receive_count.saturating_sub(1);
                if before > 0 {
                    let name = RECEIVES_ATTRIBUTE.to_owned();
                    copy.attributes.insert(name, before.to_string());
                }
                copy
            })
            .collect();
        let sent = self.send(&copies).await?;
        let receipts: Vec<_> = sent
            .iter()
            .zip(messages)
            .filter(|(sent, _)| sent.is_ok())
            .map(|(_, message)| message.receipt.clone())
            .collect();
        let mut deleted = self.delete(&receipts).await?.into_iter();
        let outcome = |sent: Result<_, _>| sent.and_then(|_| deleted.next().unwrap_or(Ok(())));
        Ok(sent.into_iter().map(outcome).collect())
    }

    async fn purge(&self) -> Result<(), QueueError> {
        let call = self.client.purge_queue().queue_url(&self.url).send();
        call.await.map(drop).map_err(|error| self.failure(error))
    }

    async fn counts(&self) -> Result<Counts, QueueError> {
        let visible = QueueAttributeName::ApproximateNumberOfMessages;
        let in_flight = QueueAttributeName::ApproximateNumberOfMessagesNotVisible;
        let answer = self
            .client
            .get_queue_attributes()
            .queue_url(&self.url)
            .attribute_names(visible.clone())
            .attribute_names(in_flight.clone())
            .send()
            .await
            .map_err(|error| self.failure(error))?;
        let count = |name| {
            let value = answer
                .attributes
                .as_ref()
                .and_then(|attributes| attributes.get(name));
            value
                .and_then(|value: &String| value.parse().ok())
                .ok_or_else(|| unexpected("the answer lacks a count"))
        };
        Ok(Counts {
            visible: count(&visible)?,
            in_flight: count(&in_flight)?,
        })
    }

    async fn wait_for_send(&self, timeout: Duration) -> Result<(), QueueError> {
        tokio::time::sleep(timeout).await;
        Ok(())
    }

    async fn remove(&self) -> Result<(), QueueError> {
        let call = self.client.delete_queue().queue_url(&self.url).send();
        call.await.map(drop).map_err(|error| self.failure(error))
    }
}
