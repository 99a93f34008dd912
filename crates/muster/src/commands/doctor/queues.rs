//! The queues: whether they are there and as they should be, and what may be done with them.

use std::error::Error;
use std::time::Duration;

use muster_jobs::{Report, ReportContent, WebReport};
use muster_queue::{
    Outgoing, Queue, QueueDescription, QueueError, QueueOptions, SqsQueue, SqsQueues,
};
use uuid::Uuid;

use super::context::Context;
use super::findings::Outcome;
use super::permissions::Permissions;
use super::policy::{IamRole, Resource, grants};
use muster_base::aws::Trouble;
use muster_base::settings::{QueueSettings, ReplyQueues};

/// What the doctor calls itself where replicas have their names.
const REPLICA: &str = "doctor";
/// How long the doctor's own reply queue keeps messages: SQS's shortest.
const RETENTION: Duration = Duration::from_secs(60);

/// The request queue.
pub(super) async fn requests(context: &Context<'_>, sqs: &SqsQueues) -> Outcome {
    let settings = context.settings;
    let mut check = QueueCheck::new(context, Resource::Requests, &settings.queues.requests);
    let tried = async {
        let Some(queue) = check.open(sqs).await? else {
            return Ok(());
        };
        let described = queue.describe().await;
        let misconfigured = described
            .as_ref()
            .ok()
            .and_then(|queue| misconfigured(&settings.queues, &check.resource, queue));
        check.record("sqs:GetQueueAttributes", described)?;
        if let Some(failed) = misconfigured {
            return Err(failed);
        }
        check.send_nothing(&queue).await?;
        check.receive(&queue).await?;
        check.delete(&queue).await?;
        check.extend(&queue).await
    };
    tried
        .await
        .map_or_else(|outcome| outcome, |()| check.permissions.outcome())
}

/// What of the request queue's attributes contradicts the settings.
fn misconfigured(
    settings: &QueueSettings,
    name: &str,
    queue: &QueueDescription,
) -> Option<Outcome> {
    let timeout_s = settings.visibility_timeout.as_secs_f64();
    if queue.visibility_timeout_s != timeout_s.ceil() as u64 {
        return Some(Outcome::failed(
            format!(
                "{name}: its visibility timeout is {} s, and visibility_timeout_s {timeout_s}",
                queue.visibility_timeout_s
            ),
            "set both to the same (VisibilityTimeout of the template): workers extend by the one, \
             and a killed worker's requests wait for the other",
        ));
    }
    let dead_letters = format!("{}{}", settings.prefix, settings.dead_letters);
    let Some(redrive) = &queue.redrive else {
        return Some(Outcome::failed(
            format!("{name} has no redrive policy"),
            format!(
                "give it one, to {dead_letters} with maxReceiveCount {}",
                settings.max_receives + 3
            ),
        ));
    };
    if redrive.dead_letter == settings.dead_letters && redrive.max_receives > settings.max_receives
    {
        return None;
    }
    Some(Outcome::failed(
        format!(
            "{name}: its redrive policy sends what was received {} times to {}",
            redrive.max_receives, redrive.dead_letter
        ),
        format!(
            "let it send to {dead_letters} after more than max_receives ({}), so that the client \
             is answered first",
            settings.max_receives
        ),
    ))
}

/// The dead-letter queue.
pub(super) async fn dead_letters(context: &Context<'_>, sqs: &SqsQueues) -> Outcome {
    let name = &context.settings.queues.dead_letters;
    let mut check = QueueCheck::new(context, Resource::DeadLetters, name);
    let tried = async {
        let Some(queue) = check.open(sqs).await? else {
            return Ok(());
        };
        check.describe(&queue).await?;
        check.send_nothing(&queue).await
    };
    tried
        .await
        .map_or_else(|outcome| outcome, |()| check.permissions.outcome())
}

/// The report queue, on which one report is sent for real: that a replica `doctor` has stopped.
pub(super) async fn reports(context: &Context<'_>, sqs: &SqsQueues) -> Outcome {
    let mut check = QueueCheck::new(context, Resource::Reports, &context.settings.queues.reports);
    let tried = async {
        let Some(queue) = check.open(sqs).await? else {
            return Ok(());
        };
        check.describe(&queue).await?;
        if check.does("sqs:SendMessage") {
            let report = Report::new(ReportContent::Web(WebReport {
                replica: REPLICA.to_owned(),
                submitted: 0,
                answered: 0,
                timed: 0,
                worked_ms: 0.0,
                oldest_at_ms: None,
                stopped: true,
            }));
            let sent = queue.send(&[Outgoing::from(report.to_json())]).await;
            let sent = sent.and_then(|all| all.into_iter().collect::<Result<Vec<_>, _>>());
            check.record("sqs:SendMessage", sent)?;
        }
        check.receive(&queue).await?;
        check.delete(&queue).await
    };
    tried
        .await
        .map_or_else(|outcome| outcome, |()| check.permissions.outcome())
}

/// The reply queues, by one of the doctor's own: made, used and removed; or the one that stays.
pub(super) async fn replies(context: &Context<'_>, sqs: &SqsQueues) -> Outcome {
    let settings = context.settings;
    // No longer than a replica's own, so that its name is not too long where that is not.
    let own = Uuid::now_v7().simple().to_string();
    let name = format!("{}-{REPLICA}-{}", settings.queues.replies, &own[20..]);
    let mut check = QueueCheck::new(context, Resource::Replies, &name);
    check.resource = format!("{}{}-*", settings.queues.prefix, settings.queues.replies);
    let shared = settings.queues.reply_queues == ReplyQueues::Shared;
    let tried = async {
        if let [grant, ..] = grants(context.iam_roles, Resource::Queues, "sqs:ListQueues")[..] {
            let listed = sqs.names(&format!("{}-", settings.queues.replies)).await;
            let answer = listed.as_ref().map(drop).map_err(|error| error as _);
            check.permissions.record(&[grant], "*", answer)?;
        }
        if shared {
            check.name.clone_from(&settings.queues.replies);
            check.resource = format!("{}{}", settings.queues.prefix, settings.queues.replies);
            // The controller has nothing to do with it.
            if context.iam_roles == [IamRole::Controller] {
                return Ok(());
            }
            let Some(queue) = check.open(sqs).await? else {
                return Ok(());
            };
            check.describe(&queue).await?;
            check.send_nothing(&queue).await?;
            check.receive(&queue).await?;
            return check.delete(&queue).await;
        }
        if !context.iam_roles.contains(&IamRole::Web) {
            return Ok(());
        }
        match sqs.existing(&name).await {
            Err(QueueError::NotFound { .. }) => check.record("sqs:GetQueueUrl", Ok(()))?,
            answer => check.record("sqs:GetQueueUrl", answer)?,
        };
        let mut options = QueueOptions {
            visibility_timeout: Duration::from_secs(10),
            redrive: None,
            retention: RETENTION,
        };
        let made = sqs.queue(&name, &options).await;
        let Ok(queue) = made else {
            return check.record("sqs:CreateQueue", made).map(drop);
        };
        check.record("sqs:CreateQueue", Ok(()))?;
        options.visibility_timeout *= 2;
        let used = async {
            if check.describe(&queue).await? {
                check.record("sqs:SetQueueAttributes", sqs.queue(&name, &options).await)?;
            }
            check.send_nothing(&queue).await?;
            check.receive(&queue).await?;
            check.delete(&queue).await
        };
        let used = used.await;
        // The queue is removed whatever was found. The controller sweeps one that stays.
        check.record("sqs:DeleteQueue", queue.remove().await)?;
        used
    };
    match tried.await {
        Err(outcome) => outcome,
        Ok(()) if !shared && context.iam_roles == [IamRole::Worker] => Outcome::Skipped(
            "sqs:SendMessage to reply queues is not tried: requests name them, and there is no request here"
                .to_owned(),
        ),
        Ok(()) => {
            if !context.iam_roles.contains(&IamRole::Web) {
                let why = "sqs:DeleteQueue is not tried: only a web tier may make one";
                check.permissions.note(why);
            }
            check.permissions.outcome()
        }
    }
}

/// The check of one queue.
struct QueueCheck<'a> {
    context: &'a Context<'a>,
    kind: Resource,
    /// The queue's name without the prefix, and with it.
    name: String,
    /// What findings call it.
    resource: String,
    permissions: Permissions,
}

impl<'a> QueueCheck<'a> {
    fn new(context: &'a Context<'a>, kind: Resource, name: &str) -> Self {
        Self {
            context,
            kind,
            name: name.to_owned(),
            resource: format!("{}{name}", context.settings.queues.prefix),
            permissions: Permissions::default(),
        }
    }

    /// Whether a role does this.
    fn does(&self, action: &str) -> bool {
        !grants(self.context.iam_roles, self.kind, action).is_empty()
    }

    /// Records an answer; whether the action was allowed.
    fn record<T>(&mut self, action: &str, answer: Result<T, QueueError>) -> Result<bool, Outcome> {
        let grants = grants(self.context.iam_roles, self.kind, action);
        match &answer {
            Err(error @ QueueError::Fifo { .. }) => Err(Outcome::Failed {
                detail: error.to_string(),
                remedy: "use a standard queue: let deploy/aws/muster.yaml make it".to_owned(),
                trouble: Some(Trouble::Missing),
            }),
            Err(error @ QueueError::NotFound { .. }) => Err(Outcome::Failed {
                detail: format!("{} does not exist, or is not to be seen", self.resource),
                remedy: Trouble::Missing.remedy().to_owned(),
                trouble: Trouble::of(error),
            }),
            answer => {
                let answer = answer.as_ref().map(drop);
                let answer = answer.map_err(|error| error as &(dyn Error + 'static));
                self.permissions.record(&grants, &self.resource, answer)
            }
        }
    }

    async fn open(&mut self, sqs: &SqsQueues) -> Result<Option<SqsQueue>, Outcome> {
        match sqs.existing(&self.name).await {
            Ok(queue) => {
                self.record("sqs:GetQueueUrl", Ok(()))?;
                Ok(Some(queue))
            }
            Err(error) => {
                self.record::<()>("sqs:GetQueueUrl", Err(error))?;
                Ok(None)
            }
        }
    }

    async fn describe(&mut self, queue: &SqsQueue) -> Result<bool, Outcome> {
        let described = queue.describe().await;
        self.record("sqs:GetQueueAttributes", described)
    }

    async fn send_nothing(&mut self, queue: &SqsQueue) -> Result<(), Outcome> {
        if self.does("sqs:SendMessage") {
            let sent = queue.check_send_permission().await;
            if self.record("sqs:SendMessage", sent)? {
                let how = "sending was tried with an empty batch";
                self.permissions.note(how);
            }
        }
        Ok(())
    }

    async fn receive(&mut self, queue: &SqsQueue) -> Result<(), Outcome> {
        if self.does("sqs:ReceiveMessage") {
            let received = queue.check_receive_permission().await;
            if matches!(received, Ok(1..)) {
                let one = "one message was received and left there";
                self.permissions.note(one);
            }
            self.record("sqs:ReceiveMessage", received)?;
        }
        Ok(())
    }

    async fn delete(&mut self, queue: &SqsQueue) -> Result<(), Outcome> {
        if self.does("sqs:DeleteMessage") {
            let deleted = queue.check_delete_permission().await;
            self.record("sqs:DeleteMessage", deleted)?;
        }
        Ok(())
    }

    async fn extend(&mut self, queue: &SqsQueue) -> Result<(), Outcome> {
        if self.does("sqs:ChangeMessageVisibility") {
            let extended = queue.check_extend_permission().await;
            self.record("sqs:ChangeMessageVisibility", extended)?;
        }
        Ok(())
    }
}
