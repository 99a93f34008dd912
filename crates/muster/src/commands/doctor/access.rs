//! What the service uses on AWS: which checks there are, and their order.

use muster_queue::SqsQueues;

use super::connection;
use super::context::Context;
use super::findings::{Findings, Outcome};
use super::policy::IamRole;
use super::{instances, queues, stores};
use muster_base::aws::{self, ThisInstance, Trouble};
use muster_base::settings::{FleetKind, QueueKind, ReplyQueues, S3Url, Settings};

/// What is looked at once AWS can be spoken to, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Input,
    Output,
    State,
    Requests,
    DeadLetters,
    Reports,
    Replies,
    Instances,
    Launch,
    Metadata,
}

/// Checks everything that these roles use on AWS.
pub(super) async fn check(settings: &Settings, iam_roles: &[IamRole], findings: &mut Findings) {
    let plan = plan(settings, iam_roles);
    let config = match aws::sdk_config(&settings.aws).await {
        Ok(config) => config,
        Err(error) => {
            let remedy = Trouble::of(error.as_ref()).map_or("set region", Trouble::remedy);
            findings.add("region", Outcome::failed(format!("{error:#}"), remedy));
            let early = ["endpoint", "credentials", "clock"].map(str::to_owned);
            let later = plan.iter().map(|check| check.name(settings));
            for name in early.into_iter().chain(later) {
                findings.add(name, Outcome::Skipped("there is no region".to_owned()));
            }
            return;
        }
    };
    let region = config.region().map(ToString::to_string);
    findings.add("region", Outcome::Passed(region.unwrap_or_default()));
    let context = Context {
        settings,
        config: &config,
        iam_roles,
        queues: (settings.queues.kind == QueueKind::Sqs)
            .then(|| SqsQueues::new(&config, &settings.queues.prefix)),
    };
    let mut blocked = connection::check(&context, findings).await;
    for check in plan {
        let outcomes = match blocked {
            Some(why) => vec![(check.name(settings), Outcome::Skipped(why.to_owned()))],
            None => check.run(&context).await,
        };
        for (name, outcome) in outcomes {
            if let Outcome::Failed { trouble, .. } = &outcome {
                blocked = blocked.or(match trouble {
                    Some(Trouble::Credentials) => Some("the credentials are not accepted"),
                    Some(Trouble::Clock) => Some("the clock is off"),
                    _ => None,
                });
            }
            findings.add(name, outcome);
        }
    }
}

fn plan(settings: &Settings, iam_roles: &[IamRole]) -> Vec<Check> {
    let has = |role| iam_roles.contains(&role);
    let mut plan = Vec::new();
    if settings.storage.input_store.is_some() && (has(IamRole::Web) || has(IamRole::Worker)) {
        plan.push(Check::Input);
    }
    if settings.storage.output_store.is_some() && (has(IamRole::Web) || has(IamRole::Worker)) {
        plan.push(Check::Output);
    }
    if settings.storage.state_store.is_some() {
        plan.push(Check::State);
    }
    if settings.queues.kind == QueueKind::Sqs {
        plan.extend([
            Check::Requests,
            Check::DeadLetters,
            Check::Reports,
            Check::Replies,
        ]);
    }
    if settings.fleet.kind == FleetKind::Ec2 {
        if has(IamRole::Controller) {
            plan.extend([Check::Instances, Check::Launch]);
        }
        // Its children do not ask who they are.
        if has(IamRole::Worker) && !has(IamRole::Controller) {
            plan.push(Check::Metadata);
        }
    }
    plan
}

impl Check {
    fn name(self, settings: &Settings) -> String {
        let bucket = |place: &Option<S3Url>| match place {
            Some(place) => format!("bucket {}", place.bucket),
            None => "bucket".to_owned(),
        };
        let queue = |name: &str| format!("queue {}{name}", settings.queues.prefix);
        match self {
            Self::Input => bucket(&settings.storage.input_store),
            Self::Output => bucket(&settings.storage.output_store),
            // It may share its bucket with the results.
            Self::State => match &settings.storage.state_store {
                Some(place) if !place.prefix.is_empty() => format!("state {place}"),
                place => bucket(place),
            },
            Self::Requests => queue(&settings.queues.requests),
            Self::DeadLetters => queue(&settings.queues.dead_letters),
            Self::Reports => queue(&settings.queues.reports),
            Self::Replies => match settings.queues.reply_queues {
                ReplyQueues::Replica => "reply queues".to_owned(),
                ReplyQueues::Shared => queue(&settings.queues.replies),
            },
            Self::Instances => "instances".to_owned(),
            Self::Launch => "launch".to_owned(),
            Self::Metadata => "metadata".to_owned(),
        }
    }

    /// Runs the check; its findings by name.
    async fn run(self, context: &Context<'_>) -> Vec<(String, Outcome)> {
        let settings = context.settings;
        let outcome = match (self, &context.queues) {
            (Check::Input, _) => stores::input(context).await,
            (Check::Output, _) => stores::output(context).await,
            (Check::State, _) => stores::state(context).await,
            (Check::Requests, Some(sqs)) => queues::requests(context, sqs).await,
            (Check::DeadLetters, Some(sqs)) => queues::dead_letters(context, sqs).await,
            (Check::Reports, Some(sqs)) => queues::reports(context, sqs).await,
            (Check::Replies, Some(sqs)) => queues::replies(context, sqs).await,
            (Check::Instances, _) => {
                let (there, changes) = instances::there(context).await;
                let changes = ("instance changes".to_owned(), changes);
                return vec![(self.name(settings), there), changes];
            }
            (Check::Launch, _) => instances::launch(context).await,
            (Check::Metadata, _) => metadata().await,
            (_, None) => return Vec::new(),
        };
        vec![(self.name(settings), outcome)]
    }
}

async fn metadata() -> Outcome {
    match ThisInstance::find().await {
        Ok(instance) => {
            let deployment = instance.deployment().await;
            let deployment = deployment.map_or_else(
                || "its tags are not in its metadata".to_owned(),
                |name| format!("of the deployment {name}"),
            );
            Outcome::Passed(format!("instance {}, {deployment}", instance.id))
        }
        Err(error) => Outcome::failed(
            format!("{error:#}"),
            "run the worker on an EC2 instance whose metadata service (IMDSv2) is enabled",
        ),
    }
}
