//! The way to AWS: region, endpoint, credentials and clock; then everything that these lead to.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_config::SdkConfig;
use aws_credential_types::credential_feature::AwsCredentialFeature;
use aws_credential_types::provider::ProvideCredentials;
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use muster_queue::SqsQueues;
use reqwest::header::DATE;

use super::policy::Part;
use super::{Findings, Found, instances, queues, stores};
use muster_base::aws::{self, ThisInstance, Trouble};
use muster_base::settings::{FleetKind, QueueKind, S3Url, Settings};

/// How long the endpoint may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How far a clock may be off: one that a time service keeps never is.
const SKEW: SignedDuration = SignedDuration::from_secs(60);
/// From here on AWS refuses requests: one has to arrive within five minutes of its time stamp
/// ("Signing AWS API requests").
const REFUSED_SKEW: SignedDuration = SignedDuration::from_secs(300);

/// What all checks look at.
pub(super) struct Context<'a> {
    pub settings: &'a Settings,
    pub config: &'a SdkConfig,
    pub parts: &'a [Part],
    /// The queues, where they are on SQS.
    pub queues: Option<SqsQueues>,
}

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

/// Looks at everything that the parts use on AWS.
pub(super) async fn check(settings: &Settings, parts: &[Part], findings: &mut Findings) {
    let plan = plan(settings, parts);
    let config = match aws::sdk_config(&settings.aws).await {
        Ok(config) => config,
        Err(error) => {
            let remedy = Trouble::of(error.as_ref()).map_or("set region", Trouble::remedy);
            findings.add("region", Found::amiss(format!("{error:#}"), remedy));
            let early = ["endpoint", "credentials", "clock"].map(str::to_owned);
            let later = plan.iter().map(|check| check.name(settings));
            for name in early.into_iter().chain(later) {
                findings.add(name, Found::Skipped("there is no region".to_owned()));
            }
            return;
        }
    };
    let region = config.region().map(ToString::to_string);
    findings.add("region", Found::Well(region.unwrap_or_default()));
    let context = Context {
        settings,
        config: &config,
        parts,
        queues: (settings.queues.kind == QueueKind::Sqs)
            .then(|| SqsQueues::new(&config, &settings.queues.prefix)),
    };
    let mut blocked = speak(&context, findings).await;
    for check in plan {
        let found = match blocked {
            Some(why) => vec![(check.name(settings), Found::Skipped(why.to_owned()))],
            None => context.look(check).await,
        };
        for (name, found) in found {
            if let Found::Amiss { trouble, .. } = &found {
                blocked = blocked.or(match trouble {
                    Some(Trouble::Credentials) => Some("the credentials are not accepted"),
                    Some(Trouble::Clock) => Some("the clock is off"),
                    _ => None,
                });
            }
            findings.add(name, found);
        }
    }
}

fn plan(settings: &Settings, parts: &[Part]) -> Vec<Check> {
    let has = |part| parts.contains(&part);
    let mut plan = Vec::new();
    if settings.storage.input_store.is_some() && (has(Part::Web) || has(Part::Worker)) {
        plan.push(Check::Input);
    }
    if settings.storage.output_store.is_some() && (has(Part::Web) || has(Part::Worker)) {
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
        if has(Part::Controller) {
            plan.extend([Check::Instances, Check::Launch]);
        }
        if has(Part::Worker) {
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
            Self::Replies => "reply queues".to_owned(),
            Self::Instances => "instances".to_owned(),
            Self::Launch => "launch".to_owned(),
            Self::Metadata => "metadata".to_owned(),
        }
    }
}

impl Context<'_> {
    async fn look(&self, check: Check) -> Vec<(String, Found)> {
        let settings = self.settings;
        let found = match (check, &self.queues) {
            (Check::Input, _) => stores::input(self).await,
            (Check::Output, _) => stores::output(self).await,
            (Check::State, _) => stores::state(self).await,
            (Check::Requests, Some(sqs)) => queues::requests(self, sqs).await,
            (Check::DeadLetters, Some(sqs)) => queues::dead_letters(self, sqs).await,
            (Check::Reports, Some(sqs)) => queues::reports(self, sqs).await,
            (Check::Replies, Some(sqs)) => queues::replies(self, sqs).await,
            (Check::Instances, _) => {
                let (there, changes) = instances::there(self).await;
                let changes = ("instance changes".to_owned(), changes);
                return vec![(check.name(settings), there), changes];
            }
            (Check::Launch, _) => instances::launch(self).await,
            (Check::Metadata, _) => metadata().await,
            (_, None) => return Vec::new(),
        };
        vec![(check.name(settings), found)]
    }
}

/// Finds out whether AWS can be spoken to at all, and says why not.
async fn speak(context: &Context<'_>, findings: &mut Findings) -> Option<&'static str> {
    let resolved = credentials(context.config).await;
    let (url, skew) = match skew(context).await {
        Ok(answered) => answered,
        Err(found) => {
            let why = "the endpoint does not answer";
            let skipped = || Found::Skipped(why.to_owned());
            findings.add("endpoint", found);
            findings.add("credentials", resolved.map_or_else(|it| it, |_| skipped()));
            findings.add("clock", skipped());
            return Some(why);
        }
    };
    findings.add("endpoint", Found::Well(format!("{url} answers")));
    let source = match resolved {
        Ok(source) => source,
        Err(found) => {
            findings.add("credentials", found);
            findings.add("clock", clock(skew));
            return Some("there are no credentials");
        }
    };
    let refused = first_signed_call(context).await;
    let off = skew.abs() > SKEW;
    let (credentials, clock, blocked) = match refused {
        None => (Found::Well(source), clock(skew), None),
        // A signature that is refused meanwhile says nothing about the credentials.
        Some(_) if off => (
            Found::Skipped(format!("{source}, refused while the clock is off")),
            clock(skew),
            Some("the clock is off"),
        ),
        Some((Trouble::Clock, found)) => (Found::Well(source), found, Some("the clock is off")),
        Some((_, found)) => (found, clock(skew), Some("the credentials are not accepted")),
    };
    findings.add("credentials", credentials);
    findings.add("clock", clock);
    blocked
}

/// Finds credentials, and says where without saying which.
async fn credentials(config: &SdkConfig) -> Result<String, Found> {
    let Some(provider) = config.credentials_provider() else {
        return Err(Found::amiss(
            "there is no provider of credentials",
            Trouble::Credentials.remedy(),
        ));
    };
    let found = provider.provide_credentials().await.map_err(|error| {
        Found::amiss(
            format!("none are found: {}", muster_base::ErrorChain(&error)),
            Trouble::Credentials.remedy(),
        )
    })?;
    let sources = found.get_property::<Vec<AwsCredentialFeature>>();
    let source = sources.and_then(|sources| sources.iter().find_map(source));
    let source = source.unwrap_or("from a source that the SDK does not name");
    let Some(expiry) = found.expiry() else {
        return Ok(source.to_owned());
    };
    let left = match expiry.duration_since(SystemTime::now()) {
        Ok(left) => left.as_secs() / 60,
        Err(ago) => {
            return Err(Found::amiss(
                format!(
                    "{source}, expired {} minutes ago",
                    ago.duration().as_secs() / 60
                ),
                Trouble::Credentials.remedy(),
            ));
        }
    };
    Ok(format!("{source}, good for {left} minutes"))
}

fn source(feature: &AwsCredentialFeature) -> Option<&'static str> {
    use AwsCredentialFeature as Feature;
    Some(match feature {
        Feature::CredentialsEnvVars => "from environment variables",
        Feature::CredentialsEnvVarsStsWebIdToken
        | Feature::CredentialsStsAssumeRoleWebId
        | Feature::CredentialsProfileStsWebIdToken => "from a web identity token",
        Feature::CredentialsProfile
        | Feature::CredentialsProfileSourceProfile
        | Feature::CredentialsProfileNamedProvider => "from a profile",
        Feature::CredentialsProfileSso | Feature::CredentialsSso => "from a sign-in (SSO)",
        Feature::CredentialsProfileLogin | Feature::CredentialsLogin => "from a sign-in",
        Feature::CredentialsProfileProcess | Feature::CredentialsProcess => "from a process",
        Feature::CredentialsHttp => "from the container's endpoint",
        Feature::CredentialsImds => "from the instance's role",
        Feature::CredentialsStsAssumeRole => "from an assumed role",
        _ => return None,
    })
}

/// Asks the endpoint for the time, unsigned; how far this machine's clock is ahead of it.
async fn skew(context: &Context<'_>) -> Result<(String, SignedDuration), Found> {
    let service = match context.settings.storage.remote() {
        true => aws::AwsService::S3,
        false => aws::AwsService::Sqs,
    };
    let url = aws::endpoint(context.config, service)
        .map_err(|error| Found::failed("no endpoint", error.as_ref()))?;
    let asked = async {
        let client = reqwest::Client::builder()
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        client.head(&url).send().await
    };
    let answer = asked.await.map_err(|error| {
        let error = error.without_url();
        Found::amiss(
            format!("{url} does not answer: {}", muster_base::ErrorChain(&error)),
            "check region and endpoint in muster.toml, and the way there: a route out of the subnet, \
             port 443, DNS, a proxy",
        )
    })?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let date = answer
        .headers()
        .get(DATE)
        .and_then(|date| date.to_str().ok());
    let server = date.and_then(|date| {
        jiff::fmt::rfc2822::DateTimeParser::new()
            .parse_timestamp(date)
            .ok()
    });
    let Some(server) = server else {
        return Err(Found::amiss(
            format!("{url} does not say what time it is"),
            "this is no server that speaks S3's protocol: check endpoint in muster.toml",
        ));
    };
    let now = Timestamp::UNIX_EPOCH + now;
    Ok((url, now.duration_since(server)))
}

fn clock(skew: SignedDuration) -> Found {
    let seconds = skew.abs().as_secs();
    let direction = if skew.is_negative() {
        "behind"
    } else {
        "ahead"
    };
    if skew.abs() <= SKEW {
        return Found::Well(format!("{seconds} s {direction} of the endpoint's"));
    }
    let consequence = if skew.abs() > REFUSED_SKEW {
        ", and AWS refuses requests that are more than five minutes off"
    } else {
        ""
    };
    Found::Amiss {
        detail: format!("{seconds} s {direction} of the endpoint's{consequence}"),
        remedy: Trouble::Clock.remedy().to_owned(),
        trouble: Some(Trouble::Clock),
    }
}

/// Makes one call that every part makes, to see whether credentials and clock are accepted. What else
/// is wrong with it is found out later.
async fn first_signed_call(context: &Context<'_>) -> Option<(Trouble, Found)> {
    let settings = context.settings;
    let store = [
        &settings.storage.state_store,
        &settings.storage.input_store,
        &settings.storage.output_store,
    ]
    .into_iter()
    .find_map(Option::as_ref);
    let called: anyhow::Result<()> = match (store, &context.queues) {
        (Some(place), _) => match aws::bucket(context.config, place) {
            Ok(store) => {
                let listed = store.list(None).try_next().await;
                listed.map(drop).map_err(anyhow::Error::from)
            }
            Err(error) => Err(error),
        },
        (None, Some(sqs)) => {
            let opened = sqs.existing(&settings.queues.requests).await;
            opened.map(drop).map_err(anyhow::Error::from)
        }
        (None, None) => Ok(()),
    };
    let error = called.err()?;
    let trouble = Trouble::of(error.as_ref())?;
    matches!(trouble, Trouble::Credentials | Trouble::Clock)
        .then(|| (trouble, Found::failed("refused", error.as_ref())))
}

async fn metadata() -> Found {
    match ThisInstance::find().await {
        Ok(instance) => {
            let deployment = instance.deployment().await;
            let deployment = deployment.map_or_else(
                || "its tags are not in its metadata".to_owned(),
                |name| format!("of the deployment {name}"),
            );
            Found::Well(format!("instance {}, {deployment}", instance.id))
        }
        Err(error) => Found::amiss(
            format!("{error:#}"),
            "run the worker on an EC2 instance whose metadata service (IMDSv2) is enabled",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_is_told_in_seconds() {
        let of = |seconds| clock(SignedDuration::from_secs(seconds));
        for seconds in [0, 60, -60] {
            assert!(matches!(of(seconds), Found::Well(_)), "{seconds}");
        }
        for (seconds, said, refuses) in [
            (61, "61 s ahead", false),
            (-299, "299 s behind", false),
            (-301, "301 s behind", true),
        ] {
            let Found::Amiss { detail, .. } = of(seconds) else {
                panic!("{seconds} s are too many");
            };
            assert!(detail.starts_with(said), "{detail}");
            assert_eq!(detail.contains("refuses"), refuses, "{detail}");
        }
    }
}
