//! The audit log: who enrolled, changed, deleted or looked at whom, and when.
//!
//! It is kept in the state store: a change as an object of its own, looks in objects that grow. No
//! code here changes an entry or loses one. An entry names people by their id, never by name, so that the log does not
//! keep what a deletion deletes.

use std::fmt;

use muster_gallery::PersonId;
use muster_jobs::now_ms;
use serde::{Deserialize, Serialize};

use crate::api_keys::{ApiKey, KeyId};

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// The holder of an API key.
    Key {
        /// The key's id.
        id: KeyId,
        /// What the operator called it.
        name: String,
    },
    /// Somebody with the local token.
    LocalToken,
    /// Somebody without a key, where none is required.
    Anybody,
    /// Somebody at the command line, by their account there.
    Account(String),
}

impl Who {
    /// Whoever runs this process, by the environment's word or by the number of the account.
    pub fn account() -> Self {
        let name = ["USER", "LOGNAME"]
            .into_iter()
            .find_map(|variable| std::env::var(variable).ok().filter(|name| !name.is_empty()));
        // A service manager sets neither.
        Self::Account(name.unwrap_or_else(|| match rustix::process::geteuid() {
            uid if uid.is_root() => "root".to_owned(),
            uid => format!("uid {}", uid.as_raw()),
        }))
    }
}

impl From<&ApiKey> for Who {
    fn from(key: &ApiKey) -> Self {
        Self::Key {
            id: key.id.clone(),
            name: key.name.clone(),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key { id, name } => write!(f, "key {id} ({name})"),
            Self::LocalToken => f.write_str("local token"),
            Self::Anybody => f.write_str("anybody"),
            Self::Account(name) => write!(f, "account {name}"),
        }
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Action {
    /// A person was enrolled.
    Enrolled,
    /// Faces of a person were added.
    FacesAdded,
    /// A face of a person was deleted.
    FaceDeleted,
    /// A person's name, external id or metadata was changed.
    Changed,
    /// A person, the second one named, became part of the first.
    Merged,
    /// A person was deleted.
    Deleted,
    /// A face was said not to be a person.
    Denied,
    /// That was taken back.
    DenialRemoved,
    /// People were listed.
    Listed,
    /// What is known of a person was looked at.
    LookedAt,
    /// A kept photograph of a person was looked at.
    PhotoLookedAt,
    /// The gallery was examined for faces that are likely wrong.
    Examined,
    /// A change of the model that faces are matched by was begun, or was made.
    ModelChanged,
    /// The embeddings of a model that is not used any more were deleted.
    ModelForgotten,
    /// An API key was made.
    KeyCreated,
    /// An API key was revoked.
    KeyRevoked,
    /// `muster doctor` tried whether entries can be written.
    Tried,
}

impl Action {
    /// Whether it leaves everything as it was.
    pub fn is_look(self) -> bool {
        matches!(
            self,
            Self::Listed | Self::LookedAt | Self::PhotoLookedAt | Self::Examined
        )
    }
}

impl Action {
    /// Whether it deletes what is kept of somebody.
    pub fn is_deletion(self) -> bool {
        matches!(
            self,
            Self::Deleted | Self::FaceDeleted | Self::DenialRemoved
        )
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It was done.
    #[default]
    Done,
    /// The client hung up, or was answered that Muster failed: it may have been done.
    Unknown,
}

impl End {
    /// Whether it is known to have been done.
    pub fn is_done(&self) -> bool {
        *self == Self::Done
    }
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Who did it.
    pub who: Who,
    /// What they did.
    pub action: Action,
    /// To whom.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub people: Vec<PersonId>,
    /// The face, denial or key that it was done to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thing: Option<String>,
    /// The id of the HTTP request that did it, as in the logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "End::is_done")]
    pub end: End,
}

impl Entry {
    /// What was done just now, to nobody in particular.
    pub fn now(who: Who, action: Action) -> Self {
        Self {
            at_ms: now_ms(),
            who,
            action,
            people: Vec::new(),
            thing: None,
            request_id: None,
            end: End::Done,
        }
    }
}
