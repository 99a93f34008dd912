//! Queue options as attributes of SQS, and which attributes of a queue differ from them.

use std::{collections::HashMap, time::Duration};

use aws_sdk_sqs::types::QueueAttributeName;

use super::time::seconds;
use crate::{
    limits::{MAX_BODY_BYTES, MAX_RETENTION},
    queue::QueueOptions,
};

/// Attributes as the service takes and returns them.
pub(super) type Attributes = HashMap<QueueAttributeName, String>;

/// Returns the attributes of a queue with these options; `dead_letter` is the ARN of its dead-letter
/// queue.
pub(super) fn wanted(options: &QueueOptions, dead_letter: Option<&str>) -> Attributes {
    let mut wanted = retained_for(options.retention);
    wanted.insert(
        QueueAttributeName::VisibilityTimeout,
        seconds(options.visibility_timeout),
    );
    if let Some((target, redrive)) = dead_letter.zip(options.redrive.as_ref()) {
        let policy = serde_json::json!({
            "deadLetterTargetArn": target,
            "maxReceiveCount": redrive.max_receives,
        });
        wanted.insert(QueueAttributeName::RedrivePolicy, policy.to_string());
    }
    wanted
}

/// Returns the attributes of a dead-letter queue that is made beside its source.
pub(super) fn dead_letter() -> Attributes {
    retained_for(MAX_RETENTION)
}

fn retained_for(retention: Duration) -> Attributes {
    HashMap::from([
        (
            QueueAttributeName::MessageRetentionPeriod,
            seconds(retention),
        ),
        (
            QueueAttributeName::MaximumMessageSize,
            MAX_BODY_BYTES.to_string(),
        ),
    ])
}

/// Returns the attributes that must be set for `found` to be as `wanted`.
pub(super) fn differing(wanted: Attributes, found: &Attributes) -> Attributes {
    let policy_name = QueueAttributeName::RedrivePolicy;
    let unwanted_policy = found
        .get(&policy_name)
        .is_some_and(|policy| !policy.is_empty())
        && !wanted.contains_key(&policy_name);
    let mut differing: Attributes = wanted
        .into_iter()
        .filter(|(name, value)| match found.get(name) {
            None => true,
            Some(found) if *name == policy_name => policy(value) != policy(found),
            Some(found) => value != found,
        })
        .collect();
    if unwanted_policy {
        // The service takes an empty policy for none.
        differing.insert(policy_name, String::new());
    }
    differing
}

/// Reads a redrive policy, whose count templates write as a number and others as a string.
pub(super) fn policy(json: &str) -> Option<(String, u64)> {
    let policy: serde_json::Value = serde_json::from_str(json).ok()?;
    let target = policy.get("deadLetterTargetArn")?.as_str()?.to_owned();
    let count = policy.get("maxReceiveCount")?;
    let count = count.as_u64().or_else(|| count.as_str()?.parse().ok())?;
    Some((target, count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Redrive;

    const ARN: &str = "arn:aws:sqs:eu-central-1:123456789012:dead";

    fn options(max_receives: u32) -> QueueOptions {
        QueueOptions {
            visibility_timeout: Duration::from_millis(1500),
            redrive: Some(Redrive {
                dead_letter: "dead".to_owned(),
                max_receives,
            }),
            retention: Duration::from_secs(3600),
        }
    }

    fn found(policy: &str) -> Attributes {
        HashMap::from([
            (QueueAttributeName::VisibilityTimeout, "2".to_owned()),
            (
                QueueAttributeName::MessageRetentionPeriod,
                "3600".to_owned(),
            ),
            (QueueAttributeName::MaximumMessageSize, "1048576".to_owned()),
            (QueueAttributeName::RedrivePolicy, policy.to_owned()),
            (QueueAttributeName::DelaySeconds, "0".to_owned()),
        ])
    }

    #[test]
    fn a_queue_as_it_should_be_differs_in_nothing() {
        for count in ["4", "\"4\""] {
            let policy =
                format!("{{\"maxReceiveCount\": {count}, \"deadLetterTargetArn\": \"{ARN}\"}}");
            let differing = differing(wanted(&options(4), Some(ARN)), &found(&policy));
            assert!(differing.is_empty(), "{differing:?}");
        }
    }

    #[test]
    fn only_what_differs_is_set() {
        let policy = format!("{{\"deadLetterTargetArn\": \"{ARN}\", \"maxReceiveCount\": 4}}");
        let other = differing(wanted(&options(5), Some(ARN)), &found(&policy));
        assert_eq!(
            other.keys().collect::<Vec<_>>(),
            [&QueueAttributeName::RedrivePolicy]
        );
        let none = QueueOptions {
            redrive: None,
            ..options(4)
        };
        let removed = differing(wanted(&none, None), &found(&policy));
        assert_eq!(removed.len(), 1);
        assert_eq!(removed[&QueueAttributeName::RedrivePolicy], "");
        assert!(differing(wanted(&none, None), &found("")).is_empty());
        let slower = QueueOptions {
            visibility_timeout: Duration::from_secs(3),
            ..options(4)
        };
        let slower = differing(wanted(&slower, Some(ARN)), &found(&policy));
        assert_eq!(slower[&QueueAttributeName::VisibilityTimeout], "3");
        assert_eq!(slower.len(), 1);
    }
}
