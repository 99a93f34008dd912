//! What each IAM role of the service is allowed on AWS, as deploy/aws/muster.yaml grants it.
//!
//! Invariant, tested against the template: these are the statements of its policies, action by
//! action, and nothing else is.

use std::fmt;

/// A role of the service with a policy of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IamRole {
    /// The web tier.
    Web,
    /// The controller.
    Controller,
    /// A worker.
    Worker,
}

/// A resource that an action is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    /// The photographs.
    Input,
    /// The results.
    Output,
    /// The whole state store.
    State,
    /// The gallery in the state store.
    Gallery,
    /// The photographs of enrolled faces, in the state store.
    Enrolled,
    /// The deletions that are not complete, and receipts, in the state store.
    Deletions,
    /// The API keys, in the state store.
    Keys,
    /// The audit log, in the state store.
    Audit,
    /// What the controller knows, in the state store.
    Status,
    /// The controller's lease, in the state store.
    Lease,
    /// The request queue.
    Requests,
    /// The dead-letter queue.
    DeadLetters,
    /// The report queue.
    Reports,
    /// The reply queues.
    Replies,
    /// The list of all queues.
    Queues,
    /// The list of all instances.
    Instances,
    /// A launch.
    Launch,
    /// The instances of the deployment.
    Workers,
}

/// One action that one statement of a policy allows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub role: IamRole,
    /// The statement's `Sid`.
    pub statement: &'static str,
    pub on: Resource,
    pub action: &'static str,
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy = match self.role {
            IamRole::Web => "web tier",
            IamRole::Controller => "controller",
            IamRole::Worker => "worker",
        };
        let Self {
            statement, action, ..
        } = self;
        write!(
            f,
            "statement {statement} of the {policy}'s policy: {action}"
        )
    }
}

/// The statements that allow these roles an action on a resource; none where no role does it.
pub(super) fn grants(roles: &[IamRole], on: Resource, action: &str) -> Vec<&'static Grant> {
    let of_roles = |grant: &&Grant| roles.contains(&grant.role);
    ALL.iter()
        .filter(|grant| grant.on == on && grant.action == action)
        .filter(of_roles)
        .collect()
}

macro_rules! policies {
    ($($role:ident $statement:ident $on:ident: $($action:literal)+;)+) => {
        const ALL: &[Grant] = &[$($(Grant {
            role: IamRole::$role,
            statement: stringify!($statement),
            on: Resource::$on,
            action: $action,
        },)+)+];
    };
}

policies! {
    Web KeepPhotographs Input: "s3:GetObject" "s3:PutObject" "s3:DeleteObject";
    Web ReadResults Output: "s3:GetObject" "s3:DeleteObject";
    Web KeepGallery Gallery: "s3:GetObject" "s3:PutObject" "s3:DeleteObject";
    Web KeepEnrolled Enrolled: "s3:GetObject" "s3:PutObject" "s3:DeleteObject";
    Web KeepDeletions Deletions: "s3:GetObject" "s3:PutObject" "s3:DeleteObject";
    Web ReadKeys Keys: "s3:GetObject";
    Web AppendAudit Audit: "s3:PutObject";
    Web KeepStatus Status: "s3:GetObject" "s3:PutObject" "s3:DeleteObject";
    Web ListStores Input: "s3:ListBucket";
    Web ListStores Output: "s3:ListBucket";
    Web ListStores State: "s3:ListBucket";
    Web SendRequests Requests: "sqs:GetQueueUrl" "sqs:GetQueueAttributes" "sqs:SendMessage";
    Web SendReports Reports: "sqs:GetQueueUrl" "sqs:GetQueueAttributes" "sqs:SendMessage";
    Web CountDeadLetters DeadLetters: "sqs:GetQueueUrl" "sqs:GetQueueAttributes";
    Web KeepReplyQueue Replies: "sqs:CreateQueue" "sqs:DeleteQueue" "sqs:GetQueueUrl"
        "sqs:GetQueueAttributes" "sqs:SetQueueAttributes" "sqs:ReceiveMessage" "sqs:DeleteMessage";
    Controller KeepStatus Status: "s3:GetObject" "s3:PutObject" "s3:DeleteObject";
    Controller ListState State: "s3:ListBucket";
    Controller CountRequests Requests: "sqs:GetQueueUrl" "sqs:GetQueueAttributes";
    Controller CountRequests DeadLetters: "sqs:GetQueueUrl" "sqs:GetQueueAttributes";
    Controller ReceiveReports Reports: "sqs:GetQueueUrl" "sqs:GetQueueAttributes"
        "sqs:ReceiveMessage" "sqs:DeleteMessage";
    Controller FindReplyQueues Queues: "sqs:ListQueues";
    Controller RemoveReplyQueues Replies: "sqs:GetQueueUrl" "sqs:GetQueueAttributes"
        "sqs:DeleteQueue";
    Controller SeeInstances Instances: "ec2:DescribeInstances" "ec2:DescribeLaunchTemplateVersions";
    Controller LaunchWorkers Launch: "ec2:RunInstances";
    Controller LaunchWorkersWith Launch: "ec2:RunInstances";
    Controller TagAtLaunch Launch: "ec2:CreateTags";
    Controller PassWorkerRole Launch: "iam:PassRole";
    Controller NameWorkers Workers: "ec2:CreateTags";
    Controller StartStopTerminateWorkers Workers: "ec2:StartInstances" "ec2:StopInstances"
        "ec2:TerminateInstances";
    Worker ReadPhotographs Input: "s3:GetObject";
    Worker PutResults Output: "s3:PutObject" "s3:DeleteObject";
    Worker ReadGallery Gallery: "s3:GetObject";
    Worker ReadLease Lease: "s3:GetObject";
    Worker ListStores Input: "s3:ListBucket";
    Worker ListStores State: "s3:ListBucket";
    Worker ReceiveRequests Requests: "sqs:GetQueueUrl" "sqs:GetQueueAttributes"
        "sqs:ReceiveMessage" "sqs:DeleteMessage" "sqs:ChangeMessageVisibility" "sqs:SendMessage";
    Worker SetRequestsAside DeadLetters: "sqs:GetQueueUrl" "sqs:GetQueueAttributes"
        "sqs:SendMessage";
    Worker SendReports Reports: "sqs:GetQueueUrl" "sqs:GetQueueAttributes" "sqs:SendMessage";
    Worker SendReplies Replies: "sqs:GetQueueUrl" "sqs:GetQueueAttributes" "sqs:SendMessage";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Statement and action of every line of a policy of the template.
    fn granted(template: &str, policy: &str) -> BTreeSet<(String, String)> {
        let (_, after) = template
            .split_once(&format!("\n  {policy}:\n"))
            .expect("the template has the policy");
        let resource = after.lines().take_while(|line| line.starts_with("   "));
        let mut statement = "";
        let mut in_actions = false;
        let mut found = BTreeSet::new();
        for line in resource.map(str::trim) {
            if let Some(sid) = line.strip_prefix("- Sid: ") {
                statement = sid;
            }
            let actions = match line.strip_prefix("Action:") {
                Some(actions) => actions,
                None if in_actions && line.starts_with("- ") => &line[2..],
                None => {
                    in_actions = false;
                    continue;
                }
            };
            in_actions = true;
            for action in actions.split(['[', ',', ']', ' ']) {
                if !action.is_empty() {
                    found.insert((statement.to_owned(), action.to_owned()));
                }
            }
        }
        found
    }

    #[test]
    fn these_are_the_statements_of_the_template() {
        let template = include_str!("../../../../../deploy/aws/muster.yaml");
        for (role, policy) in [
            (IamRole::Web, "WebPolicy"),
            (IamRole::Controller, "ControllerPolicy"),
            (IamRole::Worker, "WorkerPolicy"),
        ] {
            let own = ALL.iter().filter(|grant| grant.role == role);
            let own = own.map(|grant| (grant.statement.to_owned(), grant.action.to_owned()));
            assert_eq!(
                own.collect::<BTreeSet<_>>(),
                granted(template, policy),
                "{policy}"
            );
        }
    }
}
