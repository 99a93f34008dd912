//! The answers of the EC2 Query API, as much of them as the fleet reads.
//!
//! Invariant: what is not an answer to the call is an error and never an empty answer.

use quick_xml::Reader;
use quick_xml::de::{self, DeError};
use quick_xml::events::Event;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::ec2::failure::ErrorAnswer;

/// Why an answer can not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnreadableAnswer {
    /// It is not even text.
    #[error("the answer is not UTF-8")]
    Text(#[source] std::str::Utf8Error),
    /// It answers something else.
    #[error("the answer is not a {expected}")]
    Root {
        /// The element that it should begin with.
        expected: String,
    },
    /// It is damaged, or lacks what it must have.
    #[error("the answer can not be read")]
    Xml(#[source] DeError),
}

/// Reads an answer whose first element is `root`. Elements that nobody asks for are passed over.
pub(super) fn read<T: DeserializeOwned>(body: &[u8], root: &str) -> Result<T, UnreadableAnswer> {
    let text = std::str::from_utf8(body).map_err(UnreadableAnswer::Text)?;
    if root_of(text).as_deref() != Some(root) {
        let expected = root.to_owned();
        return Err(UnreadableAnswer::Root { expected });
    }
    de::from_str(text).map_err(UnreadableAnswer::Xml)
}

/// The name of the first element.
fn root_of(text: &str) -> Option<String> {
    let mut reader = Reader::from_str(text);
    loop {
        match reader.read_event().ok()? {
            Event::Start(element) | Event::Empty(element) => {
                let name = element.local_name();
                return String::from_utf8(name.as_ref().to_vec()).ok();
            }
            Event::Eof => return None,
            _ => {}
        }
    }
}

/// What `DescribeInstances` answers: one page.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DescribeInstances {
    reservation_set: Items<Reservation>,
    next_token: Option<String>,
}

impl DescribeInstances {
    /// The page's instances, and where the next page begins.
    pub fn into_parts(self) -> (Vec<Instance>, Option<String>) {
        let reservations = self.reservation_set.item.into_iter();
        let instances = reservations.flat_map(|reservation| reservation.instances_set.item);
        let next = self.next_token.filter(|token| !token.is_empty());
        (instances.collect(), next)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reservation {
    instances_set: Items<Instance>,
}

/// What `RunInstances` answers.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunInstances {
    instances_set: Items<Instance>,
}

impl RunInstances {
    /// The instances of the launch.
    pub fn into_instances(self) -> Vec<Instance> {
        self.instances_set.item
    }
}

/// What `DescribeLaunchTemplateVersions` answers.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DescribeLaunchTemplateVersions {
    launch_template_version_set: Items<TemplateVersion>,
}

impl DescribeLaunchTemplateVersions {
    /// The number of the first version.
    pub fn number(&self) -> Option<u64> {
        let first = self.launch_template_version_set.item.first();
        first.map(|version| version.version_number)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TemplateVersion {
    version_number: u64,
}

/// An answer that says no more than that the call was taken.
#[derive(Debug, Deserialize)]
pub(crate) struct Acknowledged {}

/// One instance as EC2 shows it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Instance {
    pub instance_id: String,
    pub instance_state: State,
    pub ami_launch_index: Option<u32>,
    /// When it was launched or last started, ISO 8601.
    pub launch_time: Option<String>,
    /// `spot`, or absent.
    pub instance_lifecycle: Option<String>,
    #[serde(default)]
    tag_set: Items<Tag>,
}

impl Instance {
    /// The value of a tag.
    pub fn tag(&self, key: &str) -> Option<&str> {
        let found = self.tag_set.item.iter().find(|tag| tag.key == key);
        found.map(|tag| tag.value.as_str())
    }
}

/// The state of an instance.
#[derive(Debug, Deserialize)]
pub(crate) struct State {
    /// `pending`, `running`, `shutting-down`, `terminated`, `stopping` or `stopped`.
    pub name: String,
}

#[derive(Debug, Deserialize)]
struct Tag {
    key: String,
    #[serde(default)]
    value: String,
}

/// A list, in EC2's way of writing one.
#[derive(Debug, Deserialize)]
struct Items<T> {
    #[serde(default = "Vec::new")]
    item: Vec<T>,
}

impl<T> Default for Items<T> {
    fn default() -> Self {
        Self { item: Vec::new() }
    }
}

/// Reads the answer to a call that was refused; `None` when it is not EC2's.
pub(super) fn read_error(body: &[u8]) -> Option<ErrorAnswer> {
    #[derive(Deserialize)]
    struct Response {
        #[serde(rename = "Errors")]
        errors: Errors,
        #[serde(rename = "RequestID")]
        request_id: Option<String>,
    }
    #[derive(Deserialize)]
    struct Errors {
        #[serde(rename = "Error")]
        error: Vec<Error>,
    }
    #[derive(Deserialize)]
    struct Error {
        #[serde(rename = "Code")]
        code: String,
        #[serde(rename = "Message", default)]
        message: String,
    }

    let response: Response = read(body, "Response").ok()?;
    let first = response.errors.error.into_iter().next()?;
    Some(ErrorAnswer {
        code: first.code,
        message: first.message,
        request_id: response.request_id,
    })
}

#[cfg(test)]
mod tests;
