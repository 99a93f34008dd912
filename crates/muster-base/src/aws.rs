//! AWS, or what speaks its protocols: one configuration for S3, SQS and EC2, what their failures mean,
//! and this machine as an EC2 instance.

mod config;
mod credentials;
mod instance;
mod trouble;

pub use config::{AwsService, bucket, endpoint, region_of, sdk_config};
pub use instance::ThisInstance;
pub use trouble::{Trouble, failed, failures};
