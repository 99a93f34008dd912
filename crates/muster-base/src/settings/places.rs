//! Where things are: stores, queues and fleets, on this machine, on AWS, or at what speaks AWS's
//! protocols.

use std::fmt;

use muster_fleet::Capacity;
use serde::{Deserialize, Serialize};

/// Which queues are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueKind {
    /// One SQLite file in the data folder, shared by the processes of this machine.
    #[default]
    Local,
    /// Amazon SQS, or what speaks its protocol.
    Sqs,
}

/// What the controller's workers are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FleetKind {
    /// Child processes of the controller.
    #[default]
    Local,
    /// EC2 instances.
    Ec2,
}

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

/// How instances are launched on EC2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ec2Settings {
    /// Tells this installation's instances from others': the value of their tag
    /// `muster:deployment`.
    pub deployment: String,
    /// Name or id of the launch template.
    pub launch_template: String,
    /// Its version: a number, `$Default` or `$Latest`.
    pub launch_template_version: String,
    /// What the instances' `Name` tags begin with; a slot's number follows.
    pub name_prefix: String,
    /// Instance types, tried in this order; the template's own when empty.
    pub instance_types: Vec<String>,
    /// Subnets, tried in this order; the template's own when empty.
    pub subnets: Vec<String>,
    /// Whether Spot capacity is used.
    pub capacity: Capacity,
    /// Idle instances that are stopped rather than terminated, and started again before any is
    /// launched.
    pub stopped_instances: u32,
    /// An instance that was not heard from for this long after its launch is given up.
    pub boot_timeout_s: f64,
    /// How long a boot is expected to take, until boots were seen.
    pub expected_boot_s: f64,
    /// Time that is billed for an instance at least.
    pub billing_minimum_s: f64,
}

impl Default for Ec2Settings {
    fn default() -> Self {
        Self {
            deployment: "muster".to_owned(),
            launch_template: String::new(),
            launch_template_version: "$Default".to_owned(),
            name_prefix: "app-tier-instance-".to_owned(),
            instance_types: Vec::new(),
            subnets: Vec::new(),
            capacity: Capacity::OnDemand,
            stopped_instances: 0,
            boot_timeout_s: 300.0,
            // m7i.large, cold: 25.8 s to the operating system (docs/AUTOSCALING.md), and the models.
            expected_boot_s: 30.0,
            // EC2 bills Linux by the second, 60 s at least.
            billing_minimum_s: 60.0,
        }
    }
}
