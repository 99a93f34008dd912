//! The web tier: where it listens, who may ask, and how much at a time.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::base_path::BasePath;
use super::listen;
use super::origin::Origin;
use super::seconds;

/// Which calls want an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRule {
    /// Every call.
    Always,
    /// Every call but those that come straight from this machine: they may recognise and verify, and
    /// with the local token do everything.
    UnlessLocal,
    /// None: the operator has said so.
    Never,
}

/// The web tier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WebSettings {
    /// Address that the web tier listens on.
    #[serde(deserialize_with = "listen::deserialize")]
    pub listen: SocketAddr,
    /// The path below which a proxy publishes the web tier; empty where it has a host of its own.
    pub base_path: BasePath,
    /// Whether every call wants an API key, or none does; unset, see [`KeyRule`].
    pub require_keys: Option<bool>,
    /// Origins, as `https://app.example.org`, whose pages may call the web tier; none by default.
    pub cors_origins: Vec<Origin>,
    /// How long a client waits for its answer at most.
    #[serde(rename = "request_timeout_s", with = "seconds")]
    pub request_timeout: Duration,
    /// Connections to the web tier at one time, of which a client may have half; beyond that the longest
    /// idle one is cut.
    pub max_connections: usize,
    /// How long a connection may take from one answer, or its beginning, to the end of the next
    /// request's headers.
    #[serde(rename = "header_timeout_s", with = "seconds")]
    pub header_timeout: Duration,
    /// How long a client may take nothing of its answer before its connection is cut.
    #[serde(rename = "write_timeout_s", with = "seconds")]
    pub write_timeout: Duration,
    /// Longest line and headers of a request; longer ones are answered 431.
    pub max_header_bytes: usize,
    /// Requests that may wait for their answer at one time; more are answered 429.
    pub max_waiting: usize,
    /// Requests on the queue from which on no further job is taken; more are answered 429.
    pub max_jobs: usize,
    /// Memory that uploads may take at one time; more are answered 429.
    pub max_upload_memory_bytes: usize,
}

impl Default for WebSettings {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 8000).into(),
            base_path: BasePath::default(),
            require_keys: None,
            cors_origins: Vec::new(),
            request_timeout: Duration::from_secs(60),
            max_connections: 4000,
            header_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            max_header_bytes: 32 << 10,
            max_waiting: 2000,
            max_jobs: 10_000,
            max_upload_memory_bytes: 256 << 20,
        }
    }
}

impl WebSettings {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        for (name, value) in [
            ("max_waiting", self.max_waiting),
            ("max_connections", self.max_connections),
            ("max_jobs", self.max_jobs),
            ("max_upload_memory_bytes", self.max_upload_memory_bytes),
        ] {
            anyhow::ensure!(value >= 1, "{name} is 0: it must be at least 1");
        }
        anyhow::ensure!(
            (4096..=1 << 20).contains(&self.max_header_bytes),
            "max_header_bytes is {}: it must be between 4096 and 1048576",
            self.max_header_bytes
        );
        for (name, time) in [
            ("header_timeout_s", self.header_timeout),
            ("write_timeout_s", self.write_timeout),
        ] {
            anyhow::ensure!(
                time >= Duration::from_secs(1),
                "{name} is {}: it must be at least 1",
                time.as_secs_f64()
            );
        }
        Ok(())
    }

    /// Which calls want a key.
    pub fn key_rule(&self) -> KeyRule {
        match self.require_keys {
            Some(true) => KeyRule::Always,
            Some(false) => KeyRule::Never,
            None if self.listen.ip().is_loopback() => KeyRule::UnlessLocal,
            None => KeyRule::Always,
        }
    }
}
