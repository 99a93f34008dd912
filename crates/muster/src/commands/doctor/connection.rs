//! The way to AWS: endpoint, credentials and clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_config::SdkConfig;
use aws_credential_types::credential_feature::AwsCredentialFeature;
use aws_credential_types::provider::ProvideCredentials;
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::DATE;

use super::context::Context;
use super::findings::{Findings, Outcome};
use muster_base::ErrorChain;
use muster_base::aws::{self, Trouble};

/// How long the endpoint may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How far a clock may be off: one that a time service keeps never is.
const SKEW: SignedDuration = SignedDuration::from_secs(60);
/// From here on AWS refuses requests: one has to arrive within five minutes of its time stamp
/// ("Signing AWS API requests").
const REFUSED_SKEW: SignedDuration = SignedDuration::from_secs(300);

/// Checks whether AWS can be spoken to at all; where it can not, the reason is returned, for which all
/// further checks are skipped.
pub(super) async fn check(context: &Context<'_>, findings: &mut Findings) -> Option<&'static str> {
    let resolved = credentials(context.config).await;
    let (url, skew) = match skew(context).await {
        Ok(answered) => answered,
        Err(outcome) => {
            let why = "the endpoint does not answer";
            let skipped = || Outcome::Skipped(why.to_owned());
            findings.add("endpoint", outcome);
            findings.add("credentials", resolved.map_or_else(|it| it, |_| skipped()));
            findings.add("clock", skipped());
            return Some(why);
        }
    };
    findings.add("endpoint", Outcome::Passed(format!("{url} answers")));
    let source = match resolved {
        Ok(source) => source,
        Err(outcome) => {
            findings.add("credentials", outcome);
            findings.add("clock", clock(skew));
            return Some("there are no credentials");
        }
    };
    let refused = first_signed_call(context).await;
    let off = skew.abs() > SKEW;
    let (credentials, clock, blocked) = match refused {
        None => (Outcome::Passed(source), clock(skew), None),
        // A signature that is refused meanwhile says nothing about the credentials.
        Some(_) if off => (
            Outcome::Skipped(format!("{source}, refused while the clock is off")),
            clock(skew),
            Some("the clock is off"),
        ),
        Some((Trouble::Clock, outcome)) => {
            (Outcome::Passed(source), outcome, Some("the clock is off"))
        }
        Some((_, outcome)) => (
            outcome,
            clock(skew),
            Some("the credentials are not accepted"),
        ),
    };
    findings.add("credentials", credentials);
    findings.add("clock", clock);
    blocked
}

/// Finds credentials, and says where without saying which.
async fn credentials(config: &SdkConfig) -> Result<String, Outcome> {
    let Some(provider) = config.credentials_provider() else {
        return Err(Outcome::failed(
            "there is no provider of credentials",
            Trouble::Credentials.remedy(),
        ));
    };
    let credentials = provider.provide_credentials().await.map_err(|error| {
        Outcome::failed(
            format!("none are found: {}", ErrorChain(&error)),
            Trouble::Credentials.remedy(),
        )
    })?;
    let sources = credentials.get_property::<Vec<AwsCredentialFeature>>();
    let source = sources.and_then(|sources| sources.iter().find_map(source));
    let source = source.unwrap_or("from a source that the SDK does not name");
    let Some(expiry) = credentials.expiry() else {
        return Ok(source.to_owned());
    };
    let left = match expiry.duration_since(SystemTime::now()) {
        Ok(left) => left.as_secs() / 60,
        Err(ago) => {
            return Err(Outcome::failed(
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
async fn skew(context: &Context<'_>) -> Result<(String, SignedDuration), Outcome> {
    let service = match context.settings.storage.remote() {
        true => aws::AwsService::S3,
        false => aws::AwsService::Sqs,
    };
    let url = aws::endpoint(context.config, service)
        .map_err(|error| Outcome::of_error("no endpoint", error.as_ref()))?;
    let asked = async {
        let client = reqwest::Client::builder()
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        client.head(&url).send().await
    };
    let answer = asked.await.map_err(|error| {
        let error = error.without_url();
        Outcome::failed(
            format!("{url} does not answer: {}", ErrorChain(&error)),
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
        return Err(Outcome::failed(
            format!("{url} does not say what time it is"),
            "this is no server that speaks S3's protocol: check endpoint in muster.toml",
        ));
    };
    let now = Timestamp::UNIX_EPOCH + now;
    Ok((url, now.duration_since(server)))
}

fn clock(skew: SignedDuration) -> Outcome {
    let seconds = skew.abs().as_secs();
    let direction = if skew.is_negative() {
        "behind"
    } else {
        "ahead"
    };
    if skew.abs() <= SKEW {
        return Outcome::Passed(format!("{seconds} s {direction} of the endpoint's"));
    }
    let consequence = if skew.abs() > REFUSED_SKEW {
        ", and AWS refuses requests that are more than five minutes off"
    } else {
        ""
    };
    Outcome::Failed {
        detail: format!("{seconds} s {direction} of the endpoint's{consequence}"),
        remedy: Trouble::Clock.remedy().to_owned(),
        trouble: Some(Trouble::Clock),
    }
}

/// Makes one call that every role makes, to see whether credentials and clock are accepted. What else
/// is wrong with it is found out later.
async fn first_signed_call(context: &Context<'_>) -> Option<(Trouble, Outcome)> {
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
        .then(|| (trouble, Outcome::of_error("refused", error.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_is_told_in_seconds() {
        let of = |seconds| clock(SignedDuration::from_secs(seconds));
        for seconds in [0, 60, -60] {
            assert!(matches!(of(seconds), Outcome::Passed(_)), "{seconds}");
        }
        for (seconds, said, refuses) in [
            (61, "61 s ahead", false),
            (-299, "299 s behind", false),
            (-301, "301 s behind", true),
        ] {
            let Outcome::Failed { detail, .. } = of(seconds) else {
                panic!("{seconds} s are too many");
            };
            assert!(detail.starts_with(said), "{detail}");
            assert_eq!(detail.contains("refuses"), refuses, "{detail}");
        }
    }
}
