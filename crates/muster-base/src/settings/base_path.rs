//! The path below which a proxy publishes Muster.

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

/// A path like `/muster`, or nothing where Muster has a host of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BasePath(String);

/// Why a text is not a base path.
#[derive(Debug, thiserror::Error)]
#[error("base_path is {0}: write it as /muster, as it stands in the addresses")]
pub struct NoBasePath(String);

impl BasePath {
    /// What is put before a path of Muster's; empty where nothing is.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for BasePath {
    type Error = NoBasePath;

    fn try_from(text: String) -> Result<Self, NoBasePath> {
        let path = text.trim_end_matches('/');
        let segment = |part: &str| {
            !matches!(part, "" | "." | "..")
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-._~%".contains(c))
                && percent_decode_str(part).decode_utf8().is_ok()
        };
        let fit = match path.strip_prefix('/') {
            Some(below) => below.split('/').all(segment),
            None => text.is_empty() || text == "/",
        };
        if fit {
            Ok(Self(path.to_owned()))
        } else {
            Err(NoBasePath(text))
        }
    }
}

impl From<BasePath> for String {
    fn from(path: BasePath) -> Self {
        path.0
    }
}
