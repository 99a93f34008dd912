//! Every object key there is: no other code builds one.

use serde::{Deserialize, Serialize};

use crate::{FileName, RequestId};

/// Where uploaded photographs stand.
pub const INPUT_PREFIX: &str = "input";
/// Below which the input store lists the jobs: requests that were accepted and that nobody waits for.
pub const JOBS_PREFIX: &str = "jobs";
/// Where results stand.
pub const OUTPUT_PREFIX: &str = "output";
/// Where the changes of the gallery stand; the people themselves stand below
/// `muster_gallery::segments_prefix` of it.
pub const GALLERY_PREFIX: &str = "gallery";
/// Where the photographs of enrolled faces are kept.
pub const ENROLLED_PREFIX: &str = "enrolled";
/// Where the API keys stand.
pub const KEYS_PREFIX: &str = "keys";
/// Where the audit log stands.
pub const AUDIT_PREFIX: &str = "audit";
/// Where the controller says how the fleet fares.
pub const STATUS_PREFIX: &str = "status";

/// How the objects of a request are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKeys {
    /// `<request id>/<file name>` in, `<request id>/<stem>.json` out: no two requests share one.
    #[default]
    Request,
    /// The layout of the system Muster came from: `<file name>` in, `<stem>` out with the person's
    /// name as plain text. Uploads of the same file name overwrite each other, so a request also
    /// carries the ETag of its own upload.
    Filename,
}

impl ObjectKeys {
    /// The components of the key that a request's photograph is uploaded to.
    pub fn input(self, id: RequestId, file: &FileName) -> Vec<String> {
        match self {
            Self::Request => vec![id.to_string(), file.as_str().to_owned()],
            Self::Filename => vec![file.as_str().to_owned()],
        }
    }

    /// The components of the key that a request's result is written to.
    pub fn output(self, id: RequestId, file: &FileName) -> Vec<String> {
        match self {
            Self::Request => vec![id.to_string(), format!("{}.json", file.stem())],
            Self::Filename => vec![file.stem().to_owned()],
        }
    }
}

/// The components of the key whose object says that a request is a job. It has no content.
///
/// It stands in the input store, below [`JOBS_PREFIX`], and goes when the photograph goes. Ids sort
/// by the time of submission, and so do these keys.
pub fn job(id: RequestId, file: &FileName) -> [String; 3] {
    [
        JOBS_PREFIX.to_owned(),
        id.to_string(),
        file.as_str().to_owned(),
    ]
}

/// The request that owns the object whose key begins with `first_component`, if any.
pub fn owned_by(first_component: &str) -> Option<RequestId> {
    first_component.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_are_as_documented() {
        let id = RequestId::new();
        let file = FileName::from_client("anna.b.jpg");
        assert_eq!(
            ObjectKeys::Request.input(id, &file),
            [id.to_string(), "anna.b.jpg".into()]
        );
        assert_eq!(
            ObjectKeys::Request.output(id, &file),
            [id.to_string(), "anna.b.json".into()]
        );
        assert_eq!(ObjectKeys::Filename.input(id, &file), ["anna.b.jpg"]);
        assert_eq!(ObjectKeys::Filename.output(id, &file), ["anna.b"]);
        assert_eq!(job(id, &file), ["jobs", &id.to_string(), "anna.b.jpg"]);
        assert_eq!(owned_by(&id.to_string()), Some(id));
        assert_eq!(owned_by("anna.jpg"), None);
    }
}
