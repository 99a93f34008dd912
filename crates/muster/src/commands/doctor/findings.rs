//! What the doctor finds: one finding a check, each passed, failed or skipped.

use std::error::Error;
use std::fmt::Display;

use muster_base::ErrorChain;
use muster_base::aws::Trouble;
use muster_base::output::OutputError;
use muster_base::print_line;
use serde::Serialize;

/// The outcome of one check.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is as it should be.
    Passed(String),
    /// It is not.
    Failed {
        detail: String,
        remedy: String,
        /// What the failure means, where it came from AWS.
        trouble: Option<Trouble>,
    },
    /// It was not looked at, for this reason.
    Skipped(String),
}

impl Outcome {
    /// A failure that has nothing to do with what AWS answered.
    pub(super) fn failed(detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Failed {
            detail: detail.into(),
            remedy: remedy.into(),
            trouble: None,
        }
    }

    /// A call that failed, with the remedy for what the failure means.
    pub(super) fn of_error(what: impl Display, error: &(dyn Error + 'static)) -> Self {
        let trouble = Trouble::of(error);
        Self::Failed {
            detail: format!("{what}: {}", ErrorChain(error)),
            remedy: match trouble {
                Some(trouble) => trouble.remedy(),
                None => {
                    "Muster does not know this error: docs/AWS.md lists what a deployment needs"
                }
            }
            .to_owned(),
            trouble,
        }
    }
}

/// A finding as it is printed.
#[derive(Debug, Serialize)]
struct Finding {
    name: String,
    ok: bool,
    /// Whether this was not looked at, for the reason in `detail`: then nothing is known of it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    skipped: bool,
    detail: String,
    /// What to do about it, where it is not as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// The findings in the order in which they were made.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    /// Adds the outcome of a check; whether it passed.
    pub(super) fn add(&mut self, name: impl Into<String>, outcome: Outcome) -> bool {
        let (ok, skipped, detail, remedy) = match outcome {
            Outcome::Passed(detail) => (true, false, detail, None),
            Outcome::Failed { detail, remedy, .. } => (false, false, detail, Some(remedy)),
            Outcome::Skipped(why) => (false, true, why, None),
        };
        self.0.push(Finding {
            name: name.into(),
            ok,
            skipped,
            detail,
            remedy,
        });
        ok
    }

    /// Whether no check failed: one that was skipped says nothing against the role.
    pub(super) fn none_failed(&self) -> bool {
        self.0.iter().all(|finding| finding.ok || finding.skipped)
    }

    /// Prints a line for each finding, and one for its remedy.
    pub(super) fn print(&self) -> Result<(), OutputError> {
        let names = self.0.iter().map(|finding| finding.name.len());
        let width = names.max().unwrap_or_default();
        for finding in &self.0 {
            let mark = match finding {
                Finding { ok: true, .. } => "ok     ",
                Finding { skipped: true, .. } => "skipped",
                _ => "MISSING",
            };
            print_line!("{mark}  {:<width$} {}", finding.name, finding.detail)?;
            if let Some(remedy) = &finding.remedy {
                print_line!("         {:<width$} {remedy}", "")?;
            }
        }
        Ok(())
    }
}
