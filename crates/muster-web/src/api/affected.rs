//! The people that a call affects, for the audit log.

use muster_gallery::PersonId;

/// The people that a handler has shown or changed, beyond the one that the path names: an extension
/// of its response.
#[derive(Clone, Debug, Default)]
pub struct AffectedPeople(pub Vec<PersonId>);
