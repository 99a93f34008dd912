//! What SQS accepts: limits of names, options, batches and messages.
//!
//! Invariant: whatever one implementation refuses, the other refuses too, because both call the
//! checks of this module first.

use std::{collections::BTreeMap, time::Duration};

use crate::{error::QueueError, message::Outgoing, queue::QueueOptions};

/// Entries in one batch and messages in one receive. SQS: 10.
pub const MAX_BATCH: usize = 10;

/// Longest wait of one receive. SQS: 20 s.
pub const MAX_WAIT: Duration = Duration::from_secs(20);

/// Longest retention. SQS: 14 days.
pub const MAX_RETENTION: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Longest visibility timeout. SQS: 12 hours.
pub(crate) const MAX_VISIBILITY: Duration = Duration::from_secs(12 * 60 * 60);

/// Longest queue name. SQS: 80.
const MAX_NAME: usize = 80;

/// Bytes of one message, its attributes included, and of all messages of one batch. SQS: 1 MiB.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Bytes of one message that every queue takes, however it is set: SQS's least `MaximumMessageSize`.
pub const LEAST_MESSAGE_BYTES: usize = 1024;

/// Bytes of one message where a service does not say how many it takes: SQS's most before 2025, and
/// that of servers that speak its protocol.
pub(crate) const UNSAID_MESSAGE_BYTES: usize = 256 * 1024;

/// Attributes of one message. SQS: 10.
pub const MAX_ATTRIBUTES: usize = 10;

/// Longest name of an attribute. SQS: 256.
const MAX_ATTRIBUTE_NAME: usize = 256;

/// Checks the name of a queue by what SQS takes.
///
/// # Errors
/// [`QueueError::InvalidName`], or [`QueueError::Fifo`] for what all FIFO queues are called.
pub fn check_name(name: &str) -> Result<(), QueueError> {
    let accepted = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(accepted) {
        return Ok(());
    }
    let name = name.to_owned();
    Err(if name.ends_with(".fifo") {
        QueueError::Fifo { queue: name }
    } else {
        QueueError::InvalidName { name }
    })
}

pub(crate) fn check_options(name: &str, options: &QueueOptions) -> Result<(), QueueError> {
    check_name(name)?;
    if options.visibility_timeout > MAX_VISIBILITY {
        return Err(QueueError::InvalidOption {
            option: "visibility_timeout",
            limits: "0 to 12 hours",
        });
    }
    if !(Duration::from_secs(60)..=MAX_RETENTION).contains(&options.retention) {
        return Err(QueueError::InvalidOption {
            option: "retention",
            limits: "60 s to 14 days",
        });
    }
    if let Some(redrive) = &options.redrive {
        check_name(&redrive.dead_letter)?;
        if redrive.dead_letter == name {
            return Err(QueueError::InvalidOption {
                option: "dead_letter",
                limits: "another queue than this one",
            });
        }
        if !(1..=1000).contains(&redrive.max_receives) {
            return Err(QueueError::InvalidOption {
                option: "max_receives",
                limits: "1 to 1000",
            });
        }
    }
    Ok(())
}

pub(crate) fn check_entries(entries: usize) -> Result<(), QueueError> {
    if entries > MAX_BATCH {
        return Err(QueueError::BatchTooLong {
            entries,
            limit: MAX_BATCH,
        });
    }
    Ok(())
}

pub(crate) fn check_visibility(visibility: Duration) -> Result<(), QueueError> {
    if visibility > MAX_VISIBILITY {
        return Err(QueueError::InvalidOption {
            option: "visibility",
            limits: "0 to 12 hours",
        });
    }
    Ok(())
}

pub(crate) fn check_messages(messages: &[Outgoing]) -> Result<(), QueueError> {
    check_entries(messages.len())?;
    let bytes = messages.iter().map(Outgoing::bytes).sum();
    if bytes > MAX_BODY_BYTES {
        return Err(QueueError::TooLarge {
            bytes,
            limit: MAX_BODY_BYTES,
        });
    }
    for (index, message) in messages.iter().enumerate() {
        if !is_text(&message.body) {
            return Err(QueueError::InvalidBody { index });
        }
        if let Some(rule) = broken_rule(&message.attributes) {
            return Err(QueueError::InvalidAttributes { index, rule });
        }
    }
    Ok(())
}

/// Returns the first rule of SQS that the attributes break.
fn broken_rule(attributes: &BTreeMap<String, String>) -> Option<&'static str> {
    if attributes.len() > MAX_ATTRIBUTES {
        return Some("there are 10 at most");
    }
    attributes.iter().find_map(|(name, value)| {
        let spelled = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        let lower = name.to_ascii_lowercase();
        if !(1..=MAX_ATTRIBUTE_NAME).contains(&name.len()) || !name.bytes().all(spelled) {
            Some("a name is 1 to 256 letters, digits, hyphens, underscores and dots")
        } else if name.starts_with('.') || name.ends_with('.') || name.contains("..") {
            Some("a dot stands between two other characters of a name")
        } else if lower.starts_with("aws.") || lower.starts_with("amazon.") {
            Some("names that begin with AWS. and Amazon. are reserved")
        } else if !is_text(value) {
            Some("a value is not empty and holds no control character")
        } else {
            None
        }
    })
}

fn is_text(text: &str) -> bool {
    !text.is_empty() && text.chars().all(carried)
}

/// Says whether SQS carries a character: XML 1.0's `Char`.
fn carried(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{FFFD}' | '\u{10000}'..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Redrive;

    #[test]
    fn names_are_those_of_sqs() {
        for good in ["a", "muster_requests-2", &"x".repeat(80)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a.b", "a/b", "../a", "é", "a b", "a\0", &"x".repeat(81)] {
            assert!(
                matches!(check_name(bad), Err(QueueError::InvalidName { .. })),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_fifo_queue_is_called_so() {
        let refused = check_name("muster.fifo");
        assert!(matches!(refused, Err(QueueError::Fifo { queue }) if queue == "muster.fifo"));
    }

    #[test]
    fn options_are_those_of_sqs() {
        let good = QueueOptions {
            visibility_timeout: Duration::from_secs(30),
            redrive: Some(Redrive {
                dead_letter: "dead".to_owned(),
                max_receives: 1,
            }),
            retention: MAX_RETENTION,
        };
        assert!(check_options("q", &good).is_ok());
        assert!(check_options("dead", &good).is_err());
        let short = QueueOptions {
            retention: Duration::from_secs(59),
            ..good.clone()
        };
        assert!(check_options("q", &short).is_err());
        let long = QueueOptions {
            visibility_timeout: MAX_RETENTION,
            ..good.clone()
        };
        assert!(check_options("q", &long).is_err());
        let never = Redrive {
            dead_letter: "dead".to_owned(),
            max_receives: 0,
        };
        assert!(
            check_options(
                "q",
                &QueueOptions {
                    redrive: Some(never),
                    ..good
                }
            )
            .is_err()
        );
    }

    fn with(attributes: &[(&str, &str)]) -> Outgoing {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Outgoing {
            body: "x".to_owned(),
            attributes: attributes.iter().map(owned).collect(),
        }
    }

    #[test]
    fn bodies_are_those_of_sqs() {
        let bodies = |text: &str| [Outgoing::from("ok".to_owned()), text.to_owned().into()];
        assert!(check_messages(&bodies("a\tb\r\n é 漢 🙂")).is_ok());
        for bad in ["", "\0", "a\u{1b}", "\u{fffe}", "\u{ffff}"] {
            let refused = check_messages(&bodies(bad));
            assert!(
                matches!(refused, Err(QueueError::InvalidBody { index: 1 })),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn attributes_are_those_of_sqs() {
        let long = "x".repeat(MAX_ATTRIBUTE_NAME);
        for good in ["traceparent", "a.b-c_D9", "AWSTrace", "amazonia", &long] {
            assert!(
                check_messages(&[with(&[(good, "é\t🙂")])]).is_ok(),
                "{good}"
            );
        }
        let longer = "x".repeat(MAX_ATTRIBUTE_NAME + 1);
        for bad in [
            "", "a b", "é", "a/b", ".a", "a.", "a..b", "AWS.a", "aws.a", "Amazon.a", "AMAZON.a",
            &longer,
        ] {
            let refused = check_messages(&[with(&[]), with(&[(bad, "x")])]);
            assert!(
                matches!(refused, Err(QueueError::InvalidAttributes { index: 1, .. })),
                "{bad:?}"
            );
        }
        for bad in ["", "\0", "\u{fffe}"] {
            let refused = check_messages(&[with(&[("a", bad)])]);
            assert!(
                matches!(refused, Err(QueueError::InvalidAttributes { index: 0, .. })),
                "{bad:?}"
            );
        }
        let names: Vec<_> = (0..=MAX_ATTRIBUTES).map(|n| n.to_string()).collect();
        let attributes: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
        assert!(check_messages(&[with(&attributes[1..])]).is_ok());
        assert!(check_messages(&[with(&attributes)]).is_err());
    }

    #[test]
    fn the_size_is_that_of_the_whole_batch_with_its_attributes() {
        let attributed = with(&[("ab", "cde")]);
        assert_eq!(attributed.bytes(), "x".len() + "abStringcde".len());
        let rest = MAX_BODY_BYTES - attributed.bytes();
        let filler = |bytes: usize| Outgoing::from("x".repeat(bytes));
        assert!(check_messages(&[attributed.clone(), filler(rest)]).is_ok());
        assert!(matches!(
            check_messages(&[attributed, filler(rest + 1)]),
            Err(QueueError::TooLarge {
                bytes: 1_048_577,
                limit: 1_048_576
            })
        ));
    }
}
