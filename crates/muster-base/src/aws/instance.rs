//! This machine as an EC2 instance.

use std::time::Duration;

use anyhow::Context;
use aws_config::imds;

use crate::ErrorChain;

/// This machine as an EC2 instance, by its metadata service (version 2).
#[derive(Debug)]
pub struct ThisInstance {
    metadata: imds::Client,
    /// The instance's id.
    pub id: String,
}

impl ThisInstance {
    /// Asks the metadata service who this is.
    ///
    /// # Errors
    /// Where this is no EC2 instance, or its metadata service is turned off.
    pub async fn find() -> anyhow::Result<Self> {
        let metadata = imds::Client::builder().build();
        let id = metadata
            .get("/latest/meta-data/instance-id")
            .await
            .context(
                "ask the metadata service for this instance's id: run the worker on an EC2 \
                 instance, or name it with --id",
            )?;
        Ok(Self {
            id: String::from(id),
            metadata,
        })
    }

    /// The deployment that the instance is tagged with, where its metadata shows tags: that has to be
    /// enabled for it.
    pub async fn deployment(&self) -> Option<String> {
        let tag = "/latest/meta-data/tags/instance/muster:deployment";
        self.metadata.get(tag).await.ok().map(String::from)
    }

    /// Returns once EC2 has announced that it will take this Spot instance back, two minutes
    /// ahead.
    ///
    /// Asks as often as EC2 recommends. A metadata service that does not answer says nothing.
    pub async fn interrupted(&self) {
        /// "We recommend that you check for these interruption notices every 5 seconds."
        const EVERY: Duration = Duration::from_secs(5);
        loop {
            match self
                .metadata
                .get("/latest/meta-data/spot/instance-action")
                .await
            {
                Ok(_) => return,
                Err(error) => {
                    tracing::debug!(error = %ErrorChain(&error), "no Spot interruption")
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}
