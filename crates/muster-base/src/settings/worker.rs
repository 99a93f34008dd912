//! One worker.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::seconds;

/// One worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerSettings {
    /// How long a worker may work on one photograph before it gives up and restarts.
    #[serde(rename = "processing_timeout_s", with = "seconds")]
    pub processing_timeout: Duration,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            processing_timeout: Duration::from_secs(30),
        }
    }
}

impl WorkerSettings {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            !self.processing_timeout.is_zero(),
            "processing_timeout_s is 0: every photograph would end its worker; set it to more than \
             0, or leave it out"
        );
        Ok(())
    }
}
