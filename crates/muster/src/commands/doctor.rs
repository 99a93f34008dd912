//! `muster doctor`: what a role lacks on this machine and on AWS, and how to get it.

mod access;
mod connection;
mod context;
mod findings;
mod instances;
mod machine;
mod permissions;
mod policy;
mod queues;
mod stores;

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::json;

use findings::Findings;
use muster_base::print_line;
use muster_base::settings::{FleetSettings, Settings};
use policy::IamRole;

/// Arguments of `muster doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// What is to run here
    #[arg(long, value_enum, default_value_t = Process::Up)]
    role: Process,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// What is to run on the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Process {
    /// The web tier and the controller in one process
    Up,
    /// The web tier alone
    Web,
    /// The controller alone
    Controller,
    /// One worker
    Worker,
}

impl Process {
    /// The IAM roles whose work is done with this machine's credentials.
    fn iam_roles(self, fleet: &FleetSettings) -> Vec<IamRole> {
        let mut roles = match self {
            Self::Up => vec![IamRole::Web, IamRole::Controller],
            Self::Web => vec![IamRole::Web],
            Self::Controller => vec![IamRole::Controller],
            Self::Worker => vec![IamRole::Worker],
        };
        // They are the controller's children.
        if roles.contains(&IamRole::Controller) && fleet.workers_here() > 0 {
            roles.push(IamRole::Worker);
        }
        roles
    }
}

/// Prints the findings; the exit code says whether Muster can run here.
///
/// # Errors
/// Never for what it finds: that is its output.
pub async fn run(args: DoctorArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let iam_roles = args.role.iam_roles(&settings.fleet);
    let workers = match args.role {
        Process::Worker => 1,
        _ if iam_roles.contains(&IamRole::Worker) => settings.fleet.workers_here(),
        _ => 0,
    };
    let mut findings = Findings::default();
    machine::check(settings, &iam_roles, workers, &mut findings).await;
    if settings.remote() {
        access::check(settings, &iam_roles, &mut findings).await;
    }
    let ok = findings.none_failed();
    if args.json {
        print_line!("{}", json!({ "ok": ok, "findings": findings }))?;
    } else {
        findings.print()?;
    }
    Ok(if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
