//! `muster eval`: recognition accuracy by standard protocols.

mod album;
mod health;
mod identify;

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::evaluate;
use anyhow::Context;
use clap::{Args, Subcommand};

use album::Eyes;
use muster_api::progress;
use muster_base::settings::Settings;

/// Arguments of `muster eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    #[command(subcommand)]
    command: EvalCommand,
}

#[derive(Debug, Subcommand)]
enum EvalCommand {
    /// Same person or not, by the protocol of Labeled Faces in the Wild
    Pairs(PairsArgs),
    /// Who is it, among everyone enrolled, and is it anybody
    Identify(identify::IdentifyArgs),
    /// Of planted faults in a gallery, how many are found
    Health(health::HealthArgs),
}

#[derive(Debug, Args)]
struct PairsArgs {
    /// Folder with one folder a person: NAME/NAME_0001.jpg
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// The pairs, in the protocol's format
    #[arg(long, value_name = "FILE")]
    pairs: PathBuf,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the evaluation and prints its figures.
///
/// # Errors
/// When the models, the pairs or a photograph can not be read.
pub fn run(args: EvalArgs, settings: &Settings) -> anyhow::Result<()> {
    match args.command {
        EvalCommand::Pairs(args) => pairs(&args, settings),
        EvalCommand::Identify(args) => identify::run(&args, settings),
        EvalCommand::Health(args) => health::run(&args, settings),
    }
}

fn pairs(args: &PairsArgs, settings: &Settings) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&args.pairs)
        .with_context(|| format!("read the pairs {}", args.pairs.display()))?;
    let pairs = evaluate::parse_pairs(&text)
        .with_context(|| format!("read the pairs {}", args.pairs.display()))?;
    let mut eyes = Eyes::open(&settings.models)?;
    let photos: BTreeSet<_> = pairs
        .iter()
        .flat_map(|pair| [&pair.first, &pair.second])
        .collect();
    let bar = progress::bar(photos.len(), "embedding");
    let report = evaluate::evaluate_pairs(eyes.recognizers(), &args.images, &pairs, |done| {
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    if args.json {
        println!(
            "{}",
            serde_json::to_string(&report).context("write the figures")?
        );
        return Ok(());
    }
    println!("{} pairs in {} folds", report.pairs, report.folds);
    println!(
        "accuracy          {:.2} % +- {:.2}",
        100.0 * report.scores.accuracy,
        100.0 * report.scores.std
    );
    println!("threshold         {:.3}", report.scores.threshold);
    println!(
        "TAR at FAR 0.1 %  {:.2} %",
        100.0 * report.scores.tar_at_far_1e3
    );
    println!("without a face    {}", report.no_face);
    println!("photographs/s     {:.1}", report.images_per_s);
    Ok(())
}
