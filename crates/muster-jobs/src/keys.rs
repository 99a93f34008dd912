//! Every object key there is: no other code builds one.
//!
//! A key is text whose parts a `/` divides. A part that came from a client, which only a
//! [`FileName`] is, has no `/` in it; what else is unusual in a part the object store encodes.
//!
//! On one machine each store is a folder, named by the `*_PREFIX` constants, and keys stand below
//! it; on AWS the input, the output and the state have a bucket each. The state store holds the
//! gallery, the kept photographs, the API keys, the audit log and the status.

mod gallery;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::file_name::FileName;
use crate::request_id::RequestId;

pub use gallery::{GalleryKeys, LogEntry, SegmentId, manifest_number, segments_prefix};

/// Where uploaded photographs stand.
pub const INPUT_PREFIX: &str = "input";
/// Below which the input store lists the jobs: requests that were accepted and that nobody waits for.
pub const JOBS_PREFIX: &str = "jobs";
/// Where results stand, and for a moment outcomes on their way to the web tier.
pub const OUTPUT_PREFIX: &str = "output";
/// Where the changes of the gallery stand; the people themselves stand below [`segments_prefix`] of
/// it.
pub const GALLERY_PREFIX: &str = "gallery";
/// Where the photographs of enrolled faces are kept.
pub const ENROLLED_PREFIX: &str = "enrolled";
/// Where the API keys stand.
pub const KEYS_PREFIX: &str = "keys";
/// Where the audit log stands.
pub const AUDIT_PREFIX: &str = "audit";
/// Where deletions stand that are not complete, and receipts of those that are.
pub const DELETIONS_PREFIX: &str = "deletions";
/// Where the controller says how the fleet fares.
pub const STATUS_PREFIX: &str = "status";

/// What is written to see that there is space on this machine.
pub const SPACE_PROBE: &str = "status/space-probe";
/// What the controller has learned of its load and of starting instances.
pub const LEARNED: &str = "status/learned.json";
/// How the fleet fares.
pub const FLEET_STATUS: &str = "status/fleet.json";
/// The lease of the one controller that acts.
pub const CONTROLLER_LEASE: &str = "status/controller-lease.json";
/// The record of the instances that were launched on EC2.
pub const LAUNCHES: &str = "status/launches.json";
/// The change of the model that is under way.
pub const MODEL_CHANGE: &str = "status/model-change.json";
/// Below which the faces stand of which the next model made no embedding.
pub const NOT_EMBEDDED_PREFIX: &str = "status/model-change";

/// How the objects of a request are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKeys {
    /// `<request id>/<file name>` in, `<request id>/<stem>.json` out: no two requests share one.
    #[default]
    Request,
    /// `<hash>-<request id>/<file name>` in, `<hash>-<request id>/<stem>.json` out, for a bucket that is asked
    /// for more than 3,500 writes a second, the limit of S3 for keys that begin alike: ids that are made at
    /// one time do.
    #[serde(rename = "prefix-hashed")]
    PrefixHashed,
    /// The layout of the system Muster came from: `<file name>` in, `<stem>` out with the person's
    /// name as plain text. Uploads of the same file name overwrite each other, so a request also
    /// carries the ETag of its own upload.
    Filename,
}

impl ObjectKeys {
    /// Names the photograph of a request, in the input store.
    pub fn input(self, id: RequestId, file: &FileName) -> String {
        match self {
            Self::Request => format!("{id}/{}", file.as_str()),
            Self::PrefixHashed => format!("{}/{}", hashed(id), file.as_str()),
            Self::Filename => file.as_str().to_owned(),
        }
    }

    /// Names the result of a request, in the output store.
    pub fn output(self, id: RequestId, file: &FileName) -> String {
        match self {
            Self::Request => format!("{id}/{}.json", file.stem()),
            Self::PrefixHashed => format!("{}/{}.json", hashed(id), file.stem()),
            Self::Filename => file.stem().to_owned(),
        }
    }
}

/// The id behind a hash of two digits: its last two, which are random.
fn hashed(id: RequestId) -> String {
    let id = id.to_string();
    format!("{}-{id}", &id[id.len() - 2..])
}

/// Names what the photograph and the result of a request stand below, whatever its file is called:
/// in the layout [`ObjectKeys::Request`], and in [`ObjectKeys::PrefixHashed`].
pub fn request_prefixes(id: RequestId) -> [String; 2] {
    [id.to_string(), hashed(id)]
}

/// Names the outcome of a request on its way to the web tier, where it is too large for the reply queue,
/// in the output store.
pub fn carried(id: RequestId) -> String {
    format!("{id}.reply")
}

/// Tells which request owns the object whose key begins with `first_part`, if any; in either layout.
pub fn owned_by(first_part: &str) -> Option<RequestId> {
    if let Ok(id) = first_part.parse() {
        return Some(id);
    }
    let (_, id) = first_part.split_once('-')?;
    let id = id.parse().ok()?;
    (hashed(id) == first_part).then_some(id)
}

/// Names the object without content that says that a request is a job and whose, in the input store.
///
/// It goes when the photograph goes. Ids sort by the time of submission, and so do these keys. Those of
/// earlier builds have no owner.
pub fn job(id: RequestId, owner: &str, file: &FileName) -> String {
    format!("{}/{owner}/{}", job_prefix(id), file.as_str())
}

/// Names what the object of a job stands below, whatever its file is called, in the input store.
pub fn job_prefix(id: RequestId) -> String {
    format!("{JOBS_PREFIX}/{id}")
}

/// Names what sorts after everything of a job, and before everything of the next.
pub fn after_job(id: RequestId) -> String {
    // A zero is what comes next to a slash.
    format!("{}0", job_prefix(id))
}

/// Names the photograph of an enrolled or denied face, in the store below [`ENROLLED_PREFIX`].
pub fn kept_photograph(face_id: Uuid) -> String {
    face_id.to_string()
}

/// Names the note that the next model made no embedding of a face, in the state store.
pub fn not_embedded(face_id: &str) -> String {
    format!("{NOT_EMBEDDED_PREFIX}/{face_id}")
}

/// Names a deletion of a person, a face or a denial, in the state store.
pub fn deletion(id: Uuid) -> String {
    format!("{DELETIONS_PREFIX}/{id}.json")
}

/// Names an API key, in the state store.
pub fn api_key(id: &str) -> String {
    format!("{KEYS_PREFIX}/{id}.json")
}

/// Tells the id of the API key that stands there.
pub fn id_of_api_key(key: &str) -> Option<&str> {
    let file = key.strip_prefix(KEYS_PREFIX)?.strip_prefix('/')?;
    file.strip_suffix(".json")
}

/// Names a part of the audit log, in the state store: entries that were written together on `day`,
/// which is `YYYY-MM-DD`.
pub fn audit_entries(day: &str, id: Uuid) -> String {
    format!("{}/{id}.jsonl", audit_day(day))
}

/// Names what the audit log of one day stands below.
pub fn audit_day(day: &str) -> String {
    format!("{AUDIT_PREFIX}/{day}")
}

/// Tells which day a part of the audit log is of.
pub fn day_of_audit_entries(key: &str) -> Option<&str> {
    key.strip_prefix(AUDIT_PREFIX)?
        .strip_prefix('/')?
        .split('/')
        .next()
}

#[cfg(test)]
mod tests;
