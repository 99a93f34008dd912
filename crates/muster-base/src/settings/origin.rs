//! Web origins, as a browser sends them.

use http::HeaderValue;
use reqwest::Url;
use serde::{Deserialize, Serialize};

/// A scheme, a host and where it is not the scheme's own a port: `https://app.example.org`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Origin {
    text: String,
    header: HeaderValue,
}

/// Why a text is not an origin.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not an origin: write it as https://app.example.org, one for each")]
pub struct NoOrigin(String);

impl Origin {
    /// The origin as it is written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The value of the header `Origin` of requests from there.
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }
}

impl TryFrom<String> for Origin {
    type Error = NoOrigin;

    fn try_from(text: String) -> Result<Self, NoOrigin> {
        let same = |url: &Url| {
            matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == text
        };
        let url = Url::parse(&text).ok().filter(same);
        match url.and_then(|_| HeaderValue::from_str(&text).ok()) {
            Some(header) => Ok(Self { text, header }),
            None => Err(NoOrigin(text)),
        }
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> Self {
        origin.text
    }
}
