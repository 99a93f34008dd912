//! The permissions on one resource, found out by trying each action on it.

use std::error::Error;

use muster_base::aws::Trouble;

use super::findings::Outcome;
use super::policy::Grant;

/// The actions that were tried on one resource, allowed and denied.
#[derive(Debug, Default)]
pub(super) struct Permissions {
    allowed: Vec<&'static str>,
    denied: Vec<String>,
    /// The statements that would have allowed what was denied.
    statements: Vec<String>,
    notes: Vec<String>,
}

impl Permissions {
    /// Records what AWS answered to an action, and says whether it was allowed. `grants`: the
    /// statements that allow it; all denials of a resource are one finding.
    ///
    /// # Errors
    /// The finding that ends the check: any other error has nothing to do with permissions.
    pub(super) fn record(
        &mut self,
        grants: &[&'static Grant],
        on: &str,
        answer: Result<(), &(dyn Error + 'static)>,
    ) -> Result<bool, Outcome> {
        let Some(action) = grants.first().map(|grant| grant.action) else {
            return Ok(answer.is_ok());
        };
        match answer {
            Ok(()) => {
                if !self.allowed.contains(&action) {
                    self.allowed.push(action);
                }
                Ok(true)
            }
            Err(error) if Trouble::of(error) == Some(Trouble::Denied) => {
                self.denied.push(format!("{action} on {on}"));
                self.statements
                    .extend(grants.iter().map(|grant| format!("{grant} on {on}")));
                Ok(false)
            }
            Err(error) => Err(Outcome::of_error(format!("{action} on {on}"), error)),
        }
    }

    /// Adds a remark, which stands in the finding where nothing was denied.
    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// The finding, once everything was tried.
    pub(super) fn outcome(self) -> Outcome {
        if !self.denied.is_empty() {
            return Outcome::Failed {
                detail: format!("denied: {}", self.denied.join(", ")),
                remedy: format!(
                    "allow it as deploy/aws/muster.yaml does: {}",
                    self.statements.join("; ")
                ),
                trouble: Some(Trouble::Denied),
            };
        }
        let allowed = self.allowed.into_iter().map(str::to_owned);
        let parts: Vec<String> = allowed.chain(self.notes).collect();
        Outcome::Passed(parts.join(", "))
    }
}
