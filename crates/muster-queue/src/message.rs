//! Messages as they are sent and as they are received.

use std::{collections::BTreeMap, fmt};

/// The data type of every attribute. SQS counts it in the size of the message.
pub(crate) const ATTRIBUTE_TYPE: &str = "String";

/// The attribute in which a copy that was handed back carries how often it had been received before.
pub(crate) const RECEIVES_ATTRIBUTE: &str = "muster.receives";

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
    /// What goes beside the body, such as the context of a trace: at most
    /// [`MAX_ATTRIBUTES`](crate::MAX_ATTRIBUTES).
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

/// A received message can be sent again, to another queue.
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
    /// The message's id, which stays through all deliveries.
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
