//! The queues: whether they are there and as they should be, and what may be done with them.

use std::error::Error;
use std::time::Duration;

use muster_jobs::{Report, ReportContent, WebReport};
use muster_queue::{Outgoing, Queue, QueueError, QueueOptions, SqsQueue, SqsQueues};
use uuid::Uuid;

use super::access::Context;
use super::policy::{On, Part, grants};
use super::{Found, Trials};
use muster_base::aws::Trouble;

/// What the doctor calls itself where replicas have their names.
const REPLICA: &str = "doctor";
/// How long the doctor's own reply queue keeps messages: SQS's shortest.
const RETENTION: Duration = Duration::from_secs(60);

/// The request queue.
pub(super) async fn requests(context: &Context<'_>, sqs: &SqsQueues) -> Found {
    let settings = context.settings;
    let mut trials = Tried::new(context, On::Requests, &settings.queues.requests);
    let tried = async {
        let Some(queue) = trials.open(sqs).await? else {
            return Ok(());
        };
        let timeout_s = settings.queues.visibility_timeout.as_secs_f64();
        let wanted_s = timeout_s.ceil() as u64;
        let described = queue.described().await;
        let amiss = match &described {
            Ok(is) if is.visibility_timeout_s != wanted_s => Some(Found::amiss(
                format!(
                    "{}: its visibility timeout is {} s, and visibility_timeout_s {}",
                    trials.on, is.visibility_timeout_s, timeout_s
                ),
                "set both to the same (VisibilityTimeout of the template): workers extend by the \
                 one, and a killed worker's requests wait for the other",
            )),
            Ok(is) => match &is.redrive {
                Some(redrive)
                    if redrive.dead_letter == settings.queues.dead_letters
                        && redrive.max_receives > settings.queues.max_receives =>
                {
                    None
                }
                Some(redrive) => Some(Found::amiss(
                    format!(
                        "{}: its redrive policy sends what was received {} times to {}",
                        trials.on, redrive.max_receives, redrive.dead_letter
                    ),
                    format!(
                        "let it send to {}{} after more than max_receives ({}), so that the \
                         client is answered first",
                        settings.queues.prefix,
                        settings.queues.dead_letters,
                        settings.queues.max_receives
                    ),
                )),
                None => Some(Found::amiss(
                    format!("{} has no redrive policy", trials.on),
                    format!(
                        "give it one, to {}{} with maxReceiveCount {}",
                        settings.queues.prefix,
                        settings.queues.dead_letters,
                        settings.queues.max_receives + 3
                    ),
                )),
            },
            Err(_) => None,
        };
        trials.take("sqs:GetQueueAttributes", described)?;
        if let Some(amiss) = amiss {
            return Err(amiss);
        }
        trials.send_nothing(&queue).await?;
        trials.receive(&queue).await?;
        trials.delete(&queue).await?;
        trials.extend(&queue).await
    };
    tried
        .await
        .map_or_else(|found| found, |()| trials.trials.found())
}

/// The dead-letter queue.
pub(super) async fn dead_letters(context: &Context<'_>, sqs: &SqsQueues) -> Found {
    let name = &context.settings.queues.dead_letters;
    let mut trials = Tried::new(context, On::DeadLetters, name);
    let tried = async {
        let Some(queue) = trials.open(sqs).await? else {
            return Ok(());
        };
        trials.describe(&queue).await?;
        trials.send_nothing(&queue).await
    };
    tried
        .await
        .map_or_else(|found| found, |()| trials.trials.found())
}

/// The report queue, on which one report is sent for real: that a replica `doctor` has stopped.
pub(super) async fn reports(context: &Context<'_>, sqs: &SqsQueues) -> Found {
    let mut trials = Tried::new(context, On::Reports, &context.settings.queues.reports);
    let tried = async {
        let Some(queue) = trials.open(sqs).await? else {
            return Ok(());
        };
        trials.describe(&queue).await?;
        if trials.does("sqs:SendMessage") {
            let report = Report::new(ReportContent::Web(WebReport {
                replica: REPLICA.to_owned(),
                submitted: 0,
                answered: 0,
                timed: 0,
                worked_ms: 0.0,
                stopped: true,
            }));
            let sent = queue.send(&[Outgoing::from(report.to_json())]).await;
            let sent = sent.and_then(|all| all.into_iter().collect::<Result<Vec<_>, _>>());
            trials.take("sqs:SendMessage", sent)?;
        }
        trials.receive(&queue).await?;
        trials.delete(&queue).await
    };
    tried
        .await
        .map_or_else(|found| found, |()| trials.trials.found())
}

/// The reply queues, by one of the doctor's own: made, used and removed.
pub(super) async fn replies(context: &Context<'_>, sqs: &SqsQueues) -> Found {
    let settings = context.settings;
    // No longer than a replica's own, so that its name is not too long where that is not.
    let own = Uuid::now_v7().simple().to_string();
    let name = format!("{}-{REPLICA}-{}", settings.queues.responses, &own[20..]);
    let mut trials = Tried::new(context, On::Replies, &name);
    trials.on = format!("{}{}-*", settings.queues.prefix, settings.queues.responses);
    let tried = async {
        if let [grant, ..] = grants(context.parts, On::Queues, "sqs:ListQueues")[..] {
            let listed = sqs.names(&format!("{}-", settings.queues.responses)).await;
            let answer = listed.as_ref().map(drop).map_err(|error| error as _);
            trials.trials.take(&[grant], "*", answer)?;
        }
        if !context.parts.contains(&Part::Web) {
            return Ok(());
        }
        match sqs.existing(&name).await {
            Err(QueueError::NotFound { .. }) => trials.take("sqs:GetQueueUrl", Ok(()))?,
            found => trials.take("sqs:GetQueueUrl", found)?,
        };
        let mut options = QueueOptions {
            visibility_timeout: Duration::from_secs(10),
            redrive: None,
            retention: RETENTION,
        };
        let made = sqs.queue(&name, &options).await;
        let Ok(queue) = made else {
            return trials.take("sqs:CreateQueue", made).map(drop);
        };
        trials.take("sqs:CreateQueue", Ok(()))?;
        options.visibility_timeout *= 2;
        let used = async {
            if trials.describe(&queue).await? {
                trials.take("sqs:SetQueueAttributes", sqs.queue(&name, &options).await)?;
            }
            trials.send_nothing(&queue).await?;
            trials.receive(&queue).await?;
            trials.delete(&queue).await
        };
        let used = used.await;
        // Whatever was found: the queue goes again. The controller sweeps one that stays.
        trials.take("sqs:DeleteQueue", queue.remove().await)?;
        used
    };
    let tried = tried.await;
    match tried {
        Err(found) => found,
        Ok(()) if context.parts == [Part::Worker] => Found::Skipped(
            "a worker knows reply queues from requests alone: sqs:SendMessage to them is not tried"
                .to_owned(),
        ),
        Ok(()) => {
            if !context.parts.contains(&Part::Web) {
                let why = "sqs:DeleteQueue is not tried: only a web tier may make one";
                trials.trials.notes.push(why.to_owned());
            }
            trials.trials.found()
        }
    }
}

/// What is tried on one queue.
struct Tried<'a> {
    context: &'a Context<'a>,
    thing: On,
    /// The queue's name without the prefix, and with it.
    name: String,
    on: String,
    trials: Trials,
}

impl<'a> Tried<'a> {
    fn new(context: &'a Context<'a>, thing: On, name: &str) -> Self {
        Self {
            context,
            thing,
            name: name.to_owned(),
            on: format!("{}{name}", context.settings.queues.prefix),
            trials: Trials::default(),
        }
    }

    /// Whether a part does this.
    fn does(&self, action: &str) -> bool {
        !grants(self.context.parts, self.thing, action).is_empty()
    }

    /// Takes in an answer; whether the action was allowed.
    fn take<T>(&mut self, action: &str, answer: Result<T, QueueError>) -> Result<bool, Found> {
        let grants = grants(self.context.parts, self.thing, action);
        match &answer {
            Err(error @ QueueError::Fifo { .. }) => Err(Found::Amiss {
                detail: error.to_string(),
                remedy: "use a standard queue: let deploy/aws/muster.yaml make it".to_owned(),
                trouble: Some(Trouble::Missing),
            }),
            Err(error @ QueueError::NotFound { .. }) => Err(Found::Amiss {
                detail: format!("{} does not exist, or is not to be seen", self.on),
                remedy: Trouble::Missing.remedy().to_owned(),
                trouble: Trouble::of(error),
            }),
            answer => {
                let answer = answer.as_ref().map(drop);
                let answer = answer.map_err(|error| error as &(dyn Error + 'static));
                self.trials.take(&grants, &self.on, answer)
            }
        }
    }

    async fn open(&mut self, sqs: &SqsQueues) -> Result<Option<SqsQueue>, Found> {
        match sqs.existing(&self.name).await {
            Ok(queue) => {
                self.take("sqs:GetQueueUrl", Ok(()))?;
                Ok(Some(queue))
            }
            Err(error) => {
                self.take::<()>("sqs:GetQueueUrl", Err(error))?;
                Ok(None)
            }
        }
    }

    async fn describe(&mut self, queue: &SqsQueue) -> Result<bool, Found> {
        let described = queue.described().await;
        self.take("sqs:GetQueueAttributes", described)
    }

    async fn send_nothing(&mut self, queue: &SqsQueue) -> Result<(), Found> {
        if self.does("sqs:SendMessage") {
            let sent = queue.try_send().await;
            if self.take("sqs:SendMessage", sent)? {
                let how = "sending was tried with an empty batch";
                self.trials.notes.push(how.to_owned());
            }
        }
        Ok(())
    }

    async fn receive(&mut self, queue: &SqsQueue) -> Result<(), Found> {
        if self.does("sqs:ReceiveMessage") {
            let received = queue.try_receive().await;
            if matches!(received, Ok(1..)) {
                let one = "one message was received and left there";
                self.trials.notes.push(one.to_owned());
            }
            self.take("sqs:ReceiveMessage", received)?;
        }
        Ok(())
    }

    async fn delete(&mut self, queue: &SqsQueue) -> Result<(), Found> {
        if self.does("sqs:DeleteMessage") {
            let deleted = queue.try_delete().await;
            self.take("sqs:DeleteMessage", deleted)?;
        }
        Ok(())
    }

    async fn extend(&mut self, queue: &SqsQueue) -> Result<(), Found> {
        if self.does("sqs:ChangeMessageVisibility") {
            let extended = queue.try_extend().await;
            self.take("sqs:ChangeMessageVisibility", extended)?;
        }
        Ok(())
    }
}
