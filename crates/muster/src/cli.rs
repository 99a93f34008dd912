//! The command line: one enum of commands, each arm calling its module.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use muster_base::local_token::{self, LocalToken};
use muster_base::settings::{KeyRule, Settings};
use muster_base::{print_line, signals};
#[cfg(feature = "lab")]
use muster_lab::{bench, eval, profile, simulate};
use muster_worker::Ended;
use tokio::net::TcpListener;

use crate::commands::{
    audit, doctor, enroll, gallery, keys, models, recognize, status, token, verify,
};
use crate::exit;
use crate::flags::Overrides;
use crate::up;

/// An elastic face-recognition service: a photograph in, a name out
#[derive(Debug, Parser)]
#[command(name = "muster", version, arg_required_else_help = true)]
pub struct Cli {
    /// Configuration file [default: muster.toml, where there is one]
    #[arg(long, global = true, value_name = "FILE", env = "MUSTER_CONFIG")]
    config: Option<PathBuf>,
    /// Models to run: a profile of `muster models list` [default: default]
    #[arg(long, global = true, value_name = "NAME")]
    profile: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything on this machine: the web tier, the controller and its workers
    Up(UpArgs),
    /// Run the web tier alone
    Web(Overrides),
    /// Run one worker
    Worker(WorkerArgs),
    /// Run the controller alone; its workers are its children
    Controller(Overrides),
    /// Print the local token of the service on this machine, for programs such as curl
    Token(token::TokenArgs),
    /// Make, list or revoke API keys
    Keys(keys::KeysArgs),
    /// Show who enrolled, changed, deleted or looked at whom, and when
    Audit(audit::AuditArgs),
    /// Install, list or verify the models
    Models(models::ModelsArgs),
    /// Enrol people: one folder a person below DIR, or NAME=FILE pairs
    Enroll(enroll::EnrollArgs),
    /// Recognise photographs
    Recognize(recognize::RecognizeArgs),
    /// Say whether two photographs show the same person
    Verify(verify::VerifyArgs),
    /// Show how well a service's people are told apart, and which of their faces are likely wrong
    Gallery(gallery::GalleryArgs),
    /// Show a running service's fleet, backlog and latencies
    Status(status::StatusArgs),
    #[cfg(feature = "lab")]
    /// Measure a service under load, beside the figures of the system it came from
    Bench(bench::BenchArgs),
    #[cfg(feature = "lab")]
    /// Measure the worker's pipeline in this process, on one thread
    Profile(profile::ProfileArgs),
    #[cfg(feature = "lab")]
    /// Measure recognition accuracy
    Eval(eval::EvalArgs),
    #[cfg(feature = "lab")]
    /// Replay a trace of arrivals under Muster's planner, other autoscalers and the best schedule that is known
    Simulate(simulate::SimulateArgs),
    /// Say what this machine and the role on AWS lack, and how to get it
    Doctor(doctor::DoctorArgs),
}

#[derive(Debug, Args)]
struct UpArgs {
    #[command(flatten)]
    overrides: Overrides,
    /// Stop when standard input ends: the parent is gone
    #[arg(long)]
    exit_with_stdin: bool,
}

#[derive(Debug, Args)]
struct WorkerArgs {
    #[command(flatten)]
    overrides: Overrides,
    /// The instance's id [default: EC2's own where fleet is "ec2"]
    #[arg(long)]
    id: Option<String>,
    /// Drain when standard input ends: the parent is gone
    #[arg(long)]
    exit_with_stdin: bool,
}

/// Runs the command.
///
/// # Errors
/// Whatever kept the command from doing its work, to be shown on one line.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let config = cli.config;
    let child = matches!(&cli.command, Command::Worker(args) if args.exit_with_stdin);
    let settings = |overrides: &Overrides| {
        // The controller has said so for its workers.
        if !child {
            Settings::warn_of_unknown_variables();
        }
        let overrides = Overrides {
            profile: cli.profile.clone(),
            ..overrides.clone()
        };
        Settings::resolve(config.as_deref(), &overrides)
    };
    match cli.command {
        Command::Up(args) => {
            let settings = settings(&args.overrides)?;
            let listener = muster_web::bind(settings.web.listen).await?;
            let claim = muster_controller::Claim::take(&settings)?;
            // After the claim: the token of another Muster that runs on the folder must stay.
            let token = local_token(&settings, &listener)?;
            let ready = say_where(&listener, token.as_ref())?;
            let shutdown = signals::shutdown()?;
            if args.exit_with_stdin {
                signals::stop_with_parent(shutdown.clone(), up::longest_drain(&settings))?;
            }
            up::run(settings, config, claim, listener, token, ready, shutdown).await?;
        }
        Command::Web(overrides) => {
            let settings = settings(&overrides)?;
            let listener = muster_web::bind(settings.web.listen).await?;
            let token = local_token(&settings, &listener)?;
            let ready = say_where(&listener, token.as_ref())?;
            let replica = muster_web::Replica::new(muster_web::Reporting::Totals);
            let shutdown = signals::shutdown()?;
            muster_web::run(settings, listener, token, replica, ready, shutdown).await?;
        }
        Command::Worker(args) => {
            let options = muster_worker::WorkerOptions {
                id: args.id,
                exit_with_stdin: args.exit_with_stdin,
            };
            let settings = settings(&args.overrides)?;
            let ended = muster_worker::run(settings, options, signals::shutdown()?).await?;
            if ended == Ended::Orphaned {
                return Ok(ExitCode::from(exit::ORPHANED));
            }
        }
        Command::Controller(overrides) => {
            let settings = settings(&overrides)?;
            let claim = muster_controller::Claim::take(&settings)?;
            muster_controller::run(settings, config, claim, None, signals::shutdown()?).await?;
        }
        Command::Token(args) => token::run(&args)?,
        Command::Keys(args) => {
            let settings = settings(args.overrides())?;
            keys::run(args, &settings).await?;
        }
        Command::Audit(args) => {
            let settings = settings(args.overrides())?;
            audit::run(args, &settings).await?;
        }
        Command::Models(args) => {
            return models::run(args, &settings(&Overrides::default())?.models);
        }
        Command::Enroll(args) => return enroll::run(args).await,
        Command::Recognize(args) => return recognize::run(args).await,
        Command::Verify(args) => return verify::run(args).await,
        Command::Gallery(args) => gallery::run(args).await?,
        Command::Status(args) => status::run(args).await?,
        #[cfg(feature = "lab")]
        Command::Bench(args) => {
            return bench::run(args, &settings(&Overrides::default())?, config).await;
        }
        #[cfg(feature = "lab")]
        Command::Profile(args) => profile::run(args, &settings(&Overrides::default())?)?,
        #[cfg(feature = "lab")]
        Command::Eval(args) => eval::run(args, &settings(&Overrides::default())?)?,
        #[cfg(feature = "lab")]
        Command::Simulate(args) => tokio::task::spawn_blocking(|| simulate::run(args))
            .await
            .context("simulate")??,
        Command::Doctor(args) => return doctor::run(args, &settings(&Overrides::default())?).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// What says where the web tier listens, once it does, and on a terminal shows the link that opens the page
/// with the local token.
fn say_where(
    listener: &TcpListener,
    token: Option<&LocalToken>,
) -> anyhow::Result<Box<dyn FnOnce() + Send>> {
    let address = listener
        .local_addr()
        .context("read the listener's address")?;
    let link = token.filter(|_| std::io::stdout().is_terminal());
    let link = link.map(LocalToken::link);
    Ok(Box::new(move || {
        // Muster serves, whether anybody reads this or not.
        let _ = print_line!("muster listens on http://{address}");
        if let Some(link) = link {
            let _ = print_line!("open {link}");
        }
    }))
}

/// Makes the local token where the web tier takes one.
fn local_token(settings: &Settings, listener: &TcpListener) -> anyhow::Result<Option<LocalToken>> {
    let address = listener
        .local_addr()
        .context("read the listener's address")?;
    if settings.web.key_rule() != KeyRule::UnlessLocal {
        local_token::forget(address.port())?;
        return Ok(None);
    }
    LocalToken::issue(&settings.storage.data_dir, address).map(Some)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
