//! The request that the web tier puts on the queue for a worker.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::attributes::Attributes;
use crate::file_name::FileName;
use crate::keys::ObjectKeys;
use crate::request_id::RequestId;
use crate::trace::TraceParent;

/// The format that this build writes, and the only one it reads.
pub const MESSAGE_VERSION: u32 = 5;

/// The message attribute that names the queue to answer on.
const REPLY_TO: &str = "reply_to";

/// What a worker is to do with the photograph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Find every face and match it against the gallery.
    Recognize,
    /// Find every face and answer the embedding of one.
    Embed {
        /// Which face, counted from 0 in the order of an answer; the largest where it is not said.
        face: Option<u32>,
    },
}

/// A request: JSON in the message's body, and where to answer and which trace it belongs to in its
/// attributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`MESSAGE_VERSION`] of the sender.
    pub version: u32,
    /// The request that this is.
    pub id: RequestId,
    /// What to do.
    pub purpose: Purpose,
    /// The models that are to embed the face, the gallery's first; of a recognition none, since its
    /// worker knows the gallery's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// The client's file name.
    pub file: FileName,
    /// The ETag of the uploaded photograph, in the layout [`ObjectKeys::Filename`]: another upload may overwrite
    /// its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_etag: Option<String>,
    /// Whether its objects are in the layout [`ObjectKeys::PrefixHashed`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prefix_hashed: bool,
    /// The gallery's version that the answer must know at least; 0 where nobody was ever enrolled.
    pub gallery_version: u64,
    /// Whether nobody waits for the reply: what is stored is all that the client gets.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub job: bool,
    /// When the web tier sent this, in milliseconds since the Unix epoch.
    pub sent_at_ms: u64,
    /// Name of the queue to answer on.
    #[serde(skip)]
    pub reply_to: String,
    /// The trace that the request belongs to.
    #[serde(skip, default = "TraceParent::new")]
    pub trace: TraceParent,
}

/// Why a message is not a request (or reply) that this build can read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Not JSON of the expected shape.
    #[error("the message is not in Muster's format")]
    Malformed(#[source] serde_json::Error),
    /// In neither form of a reply.
    #[error("the message is neither JSON nor a reply in its shorter form")]
    Garbled,
    /// Written by a build with another format.
    #[error(
        "the message has format {found}, this build reads {MESSAGE_VERSION}: run one version of muster"
    )]
    Version {
        /// The format the message says it has.
        found: u32,
    },
    /// It does not say where to answer.
    #[error("the message has no attribute {REPLY_TO}: nobody could be answered")]
    NoReplyQueue,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

pub(crate) fn check_version(body: &str) -> Result<(), MessageError> {
    let VersionOnly { version } = serde_json::from_str(body).map_err(MessageError::Malformed)?;
    if version == MESSAGE_VERSION {
        Ok(())
    } else {
        Err(MessageError::Version { found: version })
    }
}

impl Request {
    /// Reads a message. One that belongs to no trace begins one.
    ///
    /// # Errors
    /// [`MessageError`] where it is not a request of this build's format.
    pub fn from_message(body: &str, attributes: &Attributes) -> Result<Self, MessageError> {
        check_version(body)?;
        let mut request: Self = serde_json::from_str(body).map_err(MessageError::Malformed)?;
        request.reply_to = attributes
            .get(REPLY_TO)
            .ok_or(MessageError::NoReplyQueue)?
            .clone();
        if let Some(trace) = TraceParent::of_message(attributes) {
            request.trace = trace;
        }
        Ok(request)
    }

    /// How its objects are named: by the settings of the web tier that accepted it, whatever they are now and
    /// elsewhere.
    pub fn layout(&self) -> ObjectKeys {
        if self.prefix_hashed {
            ObjectKeys::PrefixHashed
        } else if self.input_etag.is_some() {
            ObjectKeys::Filename
        } else {
            ObjectKeys::Request
        }
    }

    /// The message's body and attributes.
    pub fn to_message(&self) -> (String, Attributes) {
        let attributes = [
            (REPLY_TO.to_owned(), self.reply_to.clone()),
            self.trace.to_attribute(),
        ];
        (queue_json(self), attributes.into())
    }
}

/// JSON as queues carry it: SQS refuses two characters that JSON has no need to escape.
pub(crate) fn queue_json(message: &impl Serialize) -> String {
    let json = serde_json::to_string(message).expect("a message has only string keys");
    json.replace('\u{FFFE}', "\\ufffe")
        .replace('\u{FFFF}', "\\uffff")
}

/// Milliseconds since the Unix epoch, by this machine's clock.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::TRACEPARENT;

    fn request() -> Request {
        Request {
            version: MESSAGE_VERSION,
            id: RequestId::new(),
            purpose: Purpose::Recognize,
            models: Vec::new(),
            file: FileName::from_client("anna.jpg"),
            input_etag: None,
            prefix_hashed: false,
            gallery_version: 7,
            job: false,
            sent_at_ms: now_ms(),
            reply_to: "replies-1".into(),
            trace: TraceParent::new(),
        }
    }

    #[test]
    fn a_request_survives_the_queue() {
        let sent = request();
        let (body, mut attributes) = sent.to_message();
        assert_eq!(Request::from_message(&body, &attributes).unwrap(), sent);
        attributes.remove(TRACEPARENT);
        let job = Request {
            job: true,
            ..sent.clone()
        };
        let (job_body, job_attributes) = job.to_message();
        let read = Request::from_message(&job_body, &job_attributes).unwrap();
        assert!(read.job && !body.contains("job"));
        // Workers of earlier builds know no such field.
        assert!(!body.contains("prefix_hashed"));
        let traceless = Request::from_message(&body, &attributes).unwrap();
        assert_ne!(traceless.trace, sent.trace);
        assert!(matches!(
            Request::from_message(&body, &Attributes::new()),
            Err(MessageError::NoReplyQueue)
        ));
    }

    #[test]
    fn a_request_says_how_its_objects_are_named() {
        assert_eq!(request().layout(), ObjectKeys::Request);
        let hashed = Request {
            prefix_hashed: true,
            ..request()
        };
        assert_eq!(hashed.layout(), ObjectKeys::PrefixHashed);
        let by_name = Request {
            input_etag: Some("\"1\"".to_owned()),
            ..request()
        };
        assert_eq!(by_name.layout(), ObjectKeys::Filename);
    }

    #[test]
    fn another_format_is_named_and_garbage_is_refused() {
        let other = Request {
            version: 1,
            ..request()
        };
        let (other, attributes) = other.to_message();
        assert!(matches!(
            Request::from_message(&other, &attributes),
            Err(MessageError::Version { found: 1 })
        ));
        let empty = format!("{{\"version\":{MESSAGE_VERSION}}}");
        let list = format!("[{MESSAGE_VERSION}]");
        for garbage in ["", "hello", "{}", &empty, &list] {
            assert!(matches!(
                Request::from_message(garbage, &attributes),
                Err(MessageError::Malformed(_))
            ));
        }
    }

    /// SQS's least `MaximumMessageSize`, which counts attributes too: name, type and value.
    #[test]
    fn the_longest_request_fits_every_queue() {
        for name in ["x".repeat(300), "\"".repeat(300), "\u{e000}".repeat(300)] {
            let longest = Request {
                purpose: Purpose::Embed {
                    face: Some(u32::MAX),
                },
                // A model's name has 64 characters at most, and a gallery is changed from one to another.
                models: vec!["m".repeat(64); 3],
                file: FileName::from_client(&name),
                input_etag: Some(format!("\"{}-10000\"", "e".repeat(32))),
                prefix_hashed: true,
                gallery_version: u64::MAX,
                job: true,
                reply_to: "q".repeat(80),
                ..request()
            };
            let (body, attributes) = longest.to_message();
            let attributes = attributes
                .iter()
                .map(|(name, value)| name.len() + value.len() + 6);
            // A copy that is handed back carries its receives.
            let receives = "muster.receives".len() + 6 + 3;
            let bytes = body.len() + attributes.sum::<usize>() + receives;
            assert!(bytes <= 1024, "{bytes}: {body}");
        }
    }

    #[test]
    fn what_sqs_refuses_is_escaped() {
        let mut odd = request();
        odd.reply_to = "replies".into();
        odd.models = vec!["a\u{fffe}b\u{ffff}".to_owned()];
        let (body, attributes) = odd.to_message();
        assert!(!body.contains(['\u{fffe}', '\u{ffff}']), "{body}");
        let read = Request::from_message(&body, &attributes).unwrap();
        assert_eq!(read.models, odd.models);
    }
}
