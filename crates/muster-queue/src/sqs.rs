//! Amazon SQS, or any server that speaks its protocol.
//!
//! Standard queues, long polls, batch calls. Every call has a deadline, and that of a long poll
//! lies beyond its wait.
//!
//! Invariant: the caller sees the names it gave; the prefix that keeps installations apart stays
//! in here.

mod attributes;
mod failure;

use std::{error::Error, sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region, SdkConfig, timeout::TimeoutConfig};
use aws_sdk_sqs::{
    Client, Config,
    config::{StalledStreamProtectionConfig, http::HttpResponse},
    error::{ProvideErrorMetadata, SdkError},
    operation::{create_queue::CreateQueueError, send_message_batch::SendMessageBatchError},
    types::{
        ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, Message,
        MessageAttributeValue, MessageSystemAttributeName, QueueAttributeName,
        SendMessageBatchRequestEntry,
    },
};

use self::attributes::Attributes;
use self::failure::{entry_failure, failure, outcomes, unexpected};
use crate::{
    Counts, MAX_BATCH, MAX_BODY_BYTES, MAX_WAIT, MessageId, Outgoing, Queue, QueueError,
    QueueOptions, Queues, Receipt, Received,
    message::{ATTRIBUTE_TYPE, check_messages},
    queue::{check_entries, check_name, check_options, check_visibility},
};

/// How long one attempt of a call may take beyond the wait of a long poll.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a call may take with its retries, beyond the wait of a long poll.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// All queues of one account, region and prefix. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SqsQueues {
    client: Client,
    /// Where the service is, for those who read of its failures.
    service: Arc<str>,
    prefix: String,
}

impl SqsQueues {
    /// Uses a configuration that the caller has made, credentials and endpoint included.
    ///
    /// Timeouts are set here. Names given to the queues are `prefix` and the name together.
    #[must_use]
    pub fn new(config: &SdkConfig, prefix: &str) -> Self {
        let service = match (config.endpoint_url(), config.region()) {
            (Some(endpoint), _) => endpoint.to_owned(),
            (None, Some(region)) => format!("SQS in {region}"),
            (None, None) => "SQS in no region".to_owned(),
        };
        let config = aws_sdk_sqs::config::Builder::from(config)
            .timeout_config(timeouts(Duration::ZERO))
            // The attempt timeout does the same and knows of long polls.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        Self {
            client: Client::from_conf(config),
            service: service.into(),
            prefix: prefix.to_owned(),
        }
    }

    /// Configures itself from the environment: variables, profile files, container or instance.
    ///
    /// `region` and `endpoint` (a whole URL) override what stands there.
    pub async fn connect(region: Option<&str>, endpoint: Option<&str>, prefix: &str) -> Self {
        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        if let Some(region) = region {
            loader = loader.region(Region::new(region.to_owned()));
        }
        if let Some(endpoint) = endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        Self::new(&loader.load().await, prefix)
    }

    /// Opens a queue and makes it if absent; an existing one takes these options.
    ///
    /// A dead-letter queue that is absent is made too. A queue that is as it should be is only
    /// looked at (`sqs:GetQueueUrl`, `sqs:GetQueueAttributes`); only one that is absent needs
    /// `sqs:CreateQueue`, and only one that differs `sqs:SetQueueAttributes`.
    pub async fn queue(&self, name: &str, options: &QueueOptions) -> Result<SqsQueue, QueueError> {
        check_options(name, options)?;
        let dead_letter = match &options.redrive {
            None => None,
            Some(redrive) => {
                let (queue, _) = self
                    .open_or_make(&redrive.dead_letter, attributes::dead_letter())
                    .await?;
                let found = queue.attributes().await?;
                let arn = found.get(&QueueAttributeName::QueueArn).cloned();
                Some(arn.ok_or_else(|| unexpected("the answer lacks the queue's ARN"))?)
            }
        };
        let wanted = attributes::wanted(options, dead_letter.as_deref());
        let (queue, made) = self.open_or_make(name, wanted.clone()).await?;
        if made {
            return Ok(queue);
        }
        let differing = attributes::differing(wanted, &queue.attributes().await?);
        if !differing.is_empty() {
            self.client
                .set_queue_attributes()
                .queue_url(&queue.url)
                .set_attributes(Some(differing))
                .send()
                .await
                .map_err(|error| failure(&self.service, name, error))?;
        }
        Ok(queue)
    }

    /// Opens a queue that must exist. Needs `sqs:GetQueueUrl` alone.
    pub async fn existing(&self, name: &str) -> Result<SqsQueue, QueueError> {
        let found = self
            .client
            .get_queue_url()
            .queue_name(self.full_name(name)?)
            .send()
            .await
            .map_err(|error| failure(&self.service, name, error))?;
        self.handle(name, found.queue_url)
    }

    /// Lists the names of the queues that begin with `prefix`, sorted. New ones appear late.
    pub async fn names(&self, prefix: &str) -> Result<Vec<String>, QueueError> {
        let start = format!("{}{prefix}", self.prefix);
        let list = self.client.list_queues().set_queue_name_prefix(Some(start));
        let mut pages = list.max_results(1000).into_paginator().items().send();
        let mut names = Vec::new();
        while let Some(url) = pages.next().await {
            let url = url.map_err(|error| failure(&self.service, prefix, error))?;
            let name = url
                .rsplit('/')
                .next()
                .and_then(|name| name.strip_prefix(&self.prefix));
            names.extend(name.map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }

    fn full_name(&self, name: &str) -> Result<String, QueueError> {
        check_name(name)?;
        let full = format!("{}{name}", self.prefix);
        check_name(&full)?;
        Ok(full)
    }

    fn handle(&self, name: &str, url: Option<String>) -> Result<SqsQueue, QueueError> {
        let url = url.ok_or_else(|| unexpected("the answer holds no queue URL"))?;
        Ok(SqsQueue {
            client: self.client.clone(),
            service: Arc::clone(&self.service),
            name: name.to_owned(),
            url,
        })
    }

    /// Opens a queue as it is, or makes it with these attributes, and says whether it did.
    async fn open_or_make(
        &self,
        name: &str,
        attributes: Attributes,
    ) -> Result<(SqsQueue, bool), QueueError> {
        match self.existing(name).await {
            Err(QueueError::NotFound { .. }) => {}
            found => return Ok((found?, false)),
        }
        let made = self
            .client
            .create_queue()
            .queue_name(self.full_name(name)?)
            .set_attributes(Some(attributes))
            .send()
            .await;
        match made {
            Ok(made) => Ok((self.handle(name, made.queue_url)?, true)),
            // Somebody has made it in the meantime, otherwise.
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(CreateQueueError::is_queue_name_exists) =>
            {
                Ok((self.existing(name).await?, false))
            }
            Err(error) => Err(failure(&self.service, name, error)),
        }
    }
}

#[async_trait]
impl Queues for SqsQueues {
    async fn queue(
        &self,
        name: &str,
        options: &QueueOptions,
    ) -> Result<Arc<dyn Queue>, QueueError> {
        Ok(Arc::new(self.queue(name, options).await?))
    }

    async fn existing(&self, name: &str) -> Result<Arc<dyn Queue>, QueueError> {
        Ok(Arc::new(self.existing(name).await?))
    }

    async fn names(&self, prefix: &str) -> Result<Vec<String>, QueueError> {
        self.names(prefix).await
    }
}

fn timeouts(wait: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(3))
        .operation_attempt_timeout(wait + ATTEMPT_TIMEOUT)
        .operation_timeout(wait + CALL_TIMEOUT)
        .build()
}

/// Rounds up, so that nothing is visible again before its time.
fn whole_seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(i32::MAX)
}

fn seconds(duration: Duration) -> String {
    whole_seconds(duration).to_string()
}

/// One SQS queue.
#[derive(Debug)]
pub struct SqsQueue {
    client: Client,
    service: Arc<str>,
    name: String,
    url: String,
}

impl SqsQueue {
    /// Returns the queue's URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Reads all attributes, since a standard queue refuses to be asked whether it is FIFO.
    async fn attributes(&self) -> Result<Attributes, QueueError> {
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

    fn failure<E>(&self, error: SdkError<E, HttpResponse>) -> QueueError
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        failure(&self.service, &self.name, error)
    }
}

fn received(message: Message) -> Result<Received, QueueError> {
    let attributes = message
        .message_attributes
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.string_value?)))
        .collect();
    let receive_count = message
        .attributes
        .as_ref()
        .and_then(|found| found.get(&MessageSystemAttributeName::ApproximateReceiveCount))
        .and_then(|count| count.parse().ok());
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

    async fn send(
        &self,
        messages: &[Outgoing],
    ) -> Result<Vec<Result<MessageId, QueueError>>, QueueError> {
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
        let patience = Config::builder().timeout_config(timeouts(wait));
        let answer = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(i32::try_from(max.min(MAX_BATCH)).unwrap_or(1))
            .wait_time_seconds(whole_seconds(wait))
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_attribute_names("All")
            .customize()
            .config_override(patience)
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

    async fn delete(
        &self,
        receipts: &[Receipt],
    ) -> Result<Vec<Result<(), QueueError>>, QueueError> {
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

    async fn extend(
        &self,
        receipts: &[Receipt],
        visibility: Duration,
    ) -> Result<Vec<Result<(), QueueError>>, QueueError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_rounded_up() {
        assert_eq!(whole_seconds(Duration::ZERO), 0);
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1000)), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1001)), 2);
    }

    #[test]
    fn the_prefix_counts_towards_the_length_of_the_name() {
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .build();
        let queues = SqsQueues::new(&config, "muster-");
        assert_eq!(
            queues.full_name("requests").ok().as_deref(),
            Some("muster-requests")
        );
        assert!(queues.full_name(&"x".repeat(73)).is_ok());
        assert!(queues.full_name(&"x".repeat(74)).is_err());
        assert!(queues.full_name("").is_err());
    }
}
