//! Where things are on AWS, or at what speaks AWS's protocols.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A bucket, and what all keys in it begin with: `s3://bucket` or `s3://bucket/prefix`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct S3Url {
    /// The bucket's name.
    pub bucket: String,
    /// What all keys begin with; empty for nothing.
    pub prefix: String,
}

/// Why a place in S3 was refused.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a place in S3: write s3://bucket or s3://bucket/prefix")]
pub struct NoS3Url(String);

impl TryFrom<String> for S3Url {
    type Error = NoS3Url;

    fn try_from(url: String) -> Result<Self, Self::Error> {
        let rest = url.strip_prefix("s3://").unwrap_or_default();
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let fit = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-';
        // The lengths and characters of S3's bucket names.
        if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(fit) {
            return Err(NoS3Url(url));
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            prefix: prefix.trim_matches('/').to_owned(),
        })
    }
}

impl S3Url {
    /// Whether one of two places lies in the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        let within = |inner: &Self, outer: &Self| {
            let rest = inner.prefix.strip_prefix(&outer.prefix);
            rest.is_some_and(|r| outer.prefix.is_empty() || r.is_empty() || r.starts_with('/'))
        };
        self.bucket == other.bucket && (within(self, other) || within(other, self))
    }
}

impl From<S3Url> for String {
    fn from(url: S3Url) -> Self {
        url.to_string()
    }
}

impl fmt::Display for S3Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if self.prefix.is_empty() {
            Ok(())
        } else {
            write!(f, "/{}", self.prefix)
        }
    }
}

/// Where AWS is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AwsSettings {
    /// AWS's region, for S3, SQS and EC2; as AWS's own tools find it when unset.
    pub region: Option<String>,
    /// A server that speaks the protocols of S3, SQS and EC2 in AWS's place.
    pub endpoint: Option<String>,
}

impl AwsSettings {
    #[expect(
        clippy::unnecessary_wraps,
        clippy::unused_self,
        reason = "every concern is checked alike, and AWS itself says what it does not know"
    )]
    pub(super) fn check(&self) -> anyhow::Result<()> {
        Ok(())
    }
}
