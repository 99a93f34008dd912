//! `muster eval`: recognition accuracy by standard protocols.

mod health;
mod identify;
mod pairs;
mod people;
mod perturbation;
mod rate;
mod recognizers;
mod robust;

use clap::{Args, Subcommand};
use muster_base::settings::Settings;

/// Arguments of `muster eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    #[command(subcommand)]
    command: EvalCommand,
}

#[derive(Debug, Subcommand)]
enum EvalCommand {
    /// Verification: same person or not, by the protocol of Labeled Faces in the Wild
    Pairs(pairs::PairsArgs),
    /// Identification: FNIR and FPIR of searches among enrolled people
    Identify(identify::IdentifyArgs),
    /// Identification where it is hard: photographs turned, small, dark, blurred, compressed, masked, cropped
    Robust(robust::RobustArgs),
    /// Gallery health: how many planted faults are found
    Health(health::HealthArgs),
}

/// Runs the evaluation and prints its figures.
///
/// # Errors
/// When the models, the pairs or a photograph can not be read.
pub fn run(args: EvalArgs, settings: &Settings) -> anyhow::Result<()> {
    match args.command {
        EvalCommand::Pairs(args) => pairs::run(&args, settings),
        EvalCommand::Identify(args) => identify::run(&args, settings),
        EvalCommand::Robust(args) => robust::run(&args, settings),
        EvalCommand::Health(args) => health::run(&args, settings),
    }
}
