//! All queues of one account: opened, made and listed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sqs::{
    Client, config::StalledStreamProtectionConfig, operation::create_queue::CreateQueueError,
    types::QueueAttributeName,
};

use super::{
    attributes::{self, Attributes},
    failure::{failure, unexpected},
    queue::SqsQueue,
    time::timeouts,
};
use crate::{
    error::QueueError,
    limits::{check_name, check_options},
    queue::{Queue, QueueOptions, Queues},
};

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
        // What all FIFO queues are called, and no other may be.
        if name.ends_with(".fifo") {
            return Err(QueueError::Fifo {
                queue: name.to_owned(),
            });
        }
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

#[cfg(test)]
mod tests {
    use super::*;

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
