//! `muster doctor`: what a role lacks on this machine and on AWS, and how to get it.

mod access;
mod instances;
mod machine;
mod policy;
mod queues;
mod stores;

use std::error::Error;
use std::fmt::Display;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::json;

use muster_base::aws::Trouble;
use muster_base::settings::{FleetKind, Settings};
use policy::{Grant, Part};

/// Arguments of `muster doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// What is to run here
    #[arg(long, value_enum, default_value_t = Role::Up)]
    role: Role,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// What is to run on the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    /// The web tier and the controller in one process
    Up,
    /// The web tier alone
    Web,
    /// The controller alone
    Controller,
    /// One worker
    Worker,
}

impl Role {
    /// The parts of the service that run with this machine's credentials.
    fn parts(self, fleet: FleetKind) -> Vec<Part> {
        let mut parts = match self {
            Self::Up => vec![Part::Web, Part::Controller],
            Self::Web => vec![Part::Web],
            Self::Controller => vec![Part::Controller],
            Self::Worker => vec![Part::Worker],
        };
        // They are the controller's children.
        if parts.contains(&Part::Controller) && fleet == FleetKind::Local {
            parts.push(Part::Worker);
        }
        parts
    }
}

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

/// What came out of one check.
#[derive(Debug)]
enum Found {
    /// It is as it should be.
    Well(String),
    /// It is not.
    Amiss {
        detail: String,
        remedy: String,
        /// What the failure means, where it came from AWS.
        trouble: Option<Trouble>,
    },
    /// It was not looked at, for this reason.
    Skipped(String),
}

impl Found {
    fn amiss(detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Amiss {
            detail: detail.into(),
            remedy: remedy.into(),
            trouble: None,
        }
    }

    /// A call that failed, with the remedy for what the failure means.
    fn failed(what: impl Display, error: &(dyn Error + 'static)) -> Self {
        let trouble = Trouble::of(error);
        Self::Amiss {
            detail: format!("{what}: {}", muster_base::ErrorChain(error)),
            remedy: match trouble {
                Some(trouble) => trouble.remedy(),
                None => "this is no error that Muster knows; docs/AWS.md may",
            }
            .to_owned(),
            trouble,
        }
    }
}

/// The findings in the order in which they were made.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, name: impl Into<String>, found: Found) {
        let (ok, skipped, detail, remedy) = match found {
            Found::Well(detail) => (true, false, detail, None),
            Found::Amiss { detail, remedy, .. } => (false, false, detail, Some(remedy)),
            Found::Skipped(why) => (false, true, why, None),
        };
        self.0.push(Finding {
            name: name.into(),
            ok,
            skipped,
            detail,
            remedy,
        });
    }

    /// What was not looked at says nothing against the role.
    fn all_well(&self) -> bool {
        self.0.iter().all(|finding| finding.ok || finding.skipped)
    }

    fn print(&self) {
        let names = self.0.iter().map(|finding| finding.name.len());
        let width = names.max().unwrap_or_default();
        for finding in &self.0 {
            let mark = match finding {
                Finding { ok: true, .. } => "ok     ",
                Finding { skipped: true, .. } => "skipped",
                _ => "MISSING",
            };
            println!("{mark}  {:<width$} {}", finding.name, finding.detail);
            if let Some(remedy) = &finding.remedy {
                println!("         {:<width$} {remedy}", "");
            }
        }
    }
}

/// What was tried on one thing, action by action.
#[derive(Debug, Default)]
struct Trials {
    allowed: Vec<&'static str>,
    denied: Vec<String>,
    statements: Vec<String>,
    notes: Vec<String>,
}

impl Trials {
    /// Takes in what an action came to, and says whether it was allowed. `grants`: the statements
    /// that allow it, of which a denial is one finding with all others of the thing.
    ///
    /// # Errors
    /// The finding that ends the trials: what else went wrong has nothing to do with the action.
    fn take(
        &mut self,
        grants: &[&'static Grant],
        on: &str,
        answer: Result<(), &(dyn Error + 'static)>,
    ) -> Result<bool, Found> {
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
            Err(error) => Err(Found::failed(format!("{action} on {on}"), error)),
        }
    }

    /// The finding, once everything was tried.
    fn found(self) -> Found {
        if !self.denied.is_empty() {
            return Found::Amiss {
                detail: format!("denied: {}", self.denied.join(", ")),
                remedy: format!(
                    "allow it as deploy/aws/muster.yaml does: {}",
                    self.statements.join("; ")
                ),
                trouble: Some(Trouble::Denied),
            };
        }
        let said = self.allowed.into_iter().map(str::to_owned);
        let said: Vec<String> = said.chain(self.notes).collect();
        Found::Well(said.join(", "))
    }
}

/// Prints the findings; the exit code says whether Muster can run here.
///
/// # Errors
/// Never for what it finds: that is its output.
pub async fn run(args: DoctorArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let parts = args.role.parts(settings.fleet.kind);
    let workers = match args.role {
        Role::Worker => 1,
        _ if parts.contains(&Part::Worker) => settings.fleet.max_instances(),
        _ => 0,
    };
    let mut findings = Findings::default();
    machine::check(settings, &parts, workers, &mut findings).await;
    if settings.remote() {
        access::check(settings, &parts, &mut findings).await;
    }
    let ok = findings.all_well();
    if args.json {
        println!("{}", json!({ "ok": ok, "findings": findings.0 }));
    } else {
        findings.print();
    }
    Ok(if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
