//! What the checks on AWS are made with.

use aws_config::SdkConfig;
use muster_base::settings::Settings;
use muster_queue::SqsQueues;

use super::policy::IamRole;

/// What every check on AWS looks at.
pub(super) struct Context<'a> {
    pub settings: &'a Settings,
    pub config: &'a SdkConfig,
    /// The roles whose permissions are tried.
    pub iam_roles: &'a [IamRole],
    /// The queues, where they are on SQS.
    pub queues: Option<SqsQueues>,
}
