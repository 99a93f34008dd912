//! Who calls, as far as the routes have to know.

use muster_base::audit::Who;

/// The owner of the jobs that were submitted without an API key.
const LOCAL: &str = "local";

/// Who calls. Every guarded request carries one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// For the audit log.
    pub who: Who,
    /// Whether everything is allowed, and what others have made belongs to them too.
    pub is_admin: bool,
}

impl Caller {
    /// The owner of what the caller submits: a key's id, or one name for whoever has none.
    pub fn owner(&self) -> &str {
        match &self.who {
            Who::Key { id, .. } => id.as_str(),
            Who::LocalToken | Who::Anybody | Who::Account(_) => LOCAL,
        }
    }

    /// Whether what that owner has submitted is the caller's to see and to delete; what has no owner is
    /// of an earlier build, and an administrator's.
    pub fn may_have(&self, owner: Option<&str>) -> bool {
        self.is_admin || owner == Some(self.owner())
    }
}
