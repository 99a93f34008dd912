//! Messages, on their way in and out, and what SQS lets them hold.
//!
//! Invariant: whatever one implementation refuses to carry, the other refuses too, because both
//! ask [`check_messages`] first.

use std::{collections::BTreeMap, fmt};

use crate::{QueueError, queue::check_entries};

/// Bytes of one message, its attributes included, and of all messages of one batch. SQS: 1 MiB.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Attributes of one message. SQS: 10.
pub const MAX_ATTRIBUTES: usize = 10;

/// Longest name of an attribute. SQS: 256.
const MAX_ATTRIBUTE_NAME: usize = 256;

/// The data type of every attribute. SQS counts it in the size of the message.
pub(crate) const ATTRIBUTE_TYPE: &str = "String";

/// Names a message for as long as it exists.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub(crate) String);

impl MessageId {
    /// Returns the id as the service spells it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Stands for one delivery of a message, the right to delete or extend it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Receipt(pub(crate) String);

/// A message to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// One character or more, of those that XML 1.0 allows.
    pub body: String,
    /// What goes beside the body, such as the context of a trace: at most [`MAX_ATTRIBUTES`].
    ///
    /// Names are 1 to 256 letters, digits, hyphens, underscores and dots, with no dot at an end or
    /// beside another, and begin with neither `AWS.` nor `Amazon.` in whatever case. Values hold
    /// what bodies may.
    pub attributes: BTreeMap<String, String>,
}

impl From<String> for Outgoing {
    fn from(body: String) -> Self {
        Self {
            body,
            attributes: BTreeMap::new(),
        }
    }
}

/// The same message once more, to be sent elsewhere.
impl From<&Received> for Outgoing {
    fn from(message: &Received) -> Self {
        Self {
            body: message.body.clone(),
            attributes: message.attributes.clone(),
        }
    }
}

impl Outgoing {
    /// Counts the bytes as SQS does: the body, and each attribute's name, type and value.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let attribute =
            |(name, value): (&String, &String)| name.len() + ATTRIBUTE_TYPE.len() + value.len();
        self.body.len() + self.attributes.iter().map(attribute).sum::<usize>()
    }
}

/// A message as one consumer received it.
#[derive(Debug, Clone)]
pub struct Received {
    /// The message, the same in every delivery.
    pub id: MessageId,
    /// This delivery.
    pub receipt: Receipt,
    /// What was sent.
    pub body: String,
    /// What was sent beside the body. Binary attributes, which only others send, are left out.
    pub attributes: BTreeMap<String, String>,
    /// How often the message was received, this time included.
    pub receive_count: u32,
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
