//! `muster eval pairs`: same person or not, by the protocol of Labeled Faces in the Wild.

mod file;
mod score;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use muster_jobs::Embedding;
use serde::Serialize;

use file::{Pair, PhotoRef, parse_pairs};
use muster_api::progress;
use muster_base::print_line;
use muster_base::settings::Settings;
use score::{NO_FACE_SIMILARITY, ScoredPair, Scores, score};

use super::recognizers::{Recognizers, SubjectError};

/// Arguments of `muster eval pairs`.
#[derive(Debug, Args)]
pub struct PairsArgs {
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

/// The figures of one evaluation.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Report {
    /// How many pairs were told apart.
    pairs: usize,
    /// In how many folds.
    folds: usize,
    /// What the similarities are worth.
    #[serde(flatten)]
    scores: Scores,
    /// Photographs in which no face was found; their pairs count as different people.
    no_face: usize,
    /// Photographs analysed a second, all recognizers together.
    images_per_s: f64,
}

/// Runs the evaluation and prints its figures.
pub fn run(args: &PairsArgs, settings: &Settings) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&args.pairs)
        .with_context(|| format!("read the pairs {}", args.pairs.display()))?;
    let pairs =
        parse_pairs(&text).with_context(|| format!("read the pairs {}", args.pairs.display()))?;
    let mut recognizers = Recognizers::load(&settings.models)?;
    let photos: BTreeSet<_> = pairs
        .iter()
        .flat_map(|pair| [&pair.first, &pair.second])
        .collect();
    let bar = progress::bar(photos.len(), "embedding");
    let report = evaluate(&mut recognizers, &args.images, &pairs, |done| {
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    if args.json {
        print_line!(
            "{}",
            serde_json::to_string(&report).context("write the figures")?
        )?;
        return Ok(());
    }
    print_line!("{} pairs in {} folds", report.pairs, report.folds)?;
    print_line!(
        "accuracy          {:.2} % +- {:.2}",
        100.0 * report.scores.accuracy,
        100.0 * report.scores.std
    )?;
    print_line!("threshold         {:.3}", report.scores.threshold)?;
    print_line!(
        "TAR at FAR 0.1 %  {:.2} %",
        100.0 * report.scores.tar_at_far_1e3
    )?;
    print_line!("without a face    {}", report.no_face)?;
    print_line!("photographs/s     {:.1}", report.images_per_s)?;
    Ok(())
}

/// Analyses each photograph of `pairs` once, one thread a recognizer, and scores the pairs.
///
/// `progress` is called with the number of photographs done so far, from any of the threads.
///
/// # Errors
///
/// [`SubjectError`] for the first photograph that cannot be read or analysed.
fn evaluate(
    recognizers: &mut Recognizers,
    images: &Path,
    pairs: &[Pair],
    progress: impl Fn(usize) + Sync,
) -> Result<Report, SubjectError> {
    let both = pairs.iter().flat_map(|pair| [&pair.first, &pair.second]);
    let photos: BTreeSet<&PhotoRef> = both.collect();
    let paths: Vec<PathBuf> = photos.iter().map(|photo| photo.path(images)).collect();
    let started = Instant::now();
    let faces = recognizers.subjects(&paths, progress)?;
    let images_per_s = paths.len() as f64 / started.elapsed().as_secs_f64();
    let embeddings = faces.into_iter().map(|face| Some(face?.embedding));
    let found: BTreeMap<&PhotoRef, Option<Embedding>> =
        photos.into_iter().zip(embeddings).collect();

    let embedding = |photo: &PhotoRef| found.get(photo).and_then(Option::as_ref);
    let scored: Vec<_> = pairs
        .iter()
        .map(|pair| ScoredPair {
            fold: pair.fold,
            same: pair.same(),
            similarity: match (embedding(&pair.first), embedding(&pair.second)) {
                (Some(first), Some(second)) => first.cosine(second),
                _ => NO_FACE_SIMILARITY,
            },
        })
        .collect();
    Ok(Report {
        pairs: pairs.len(),
        folds: pairs.last().map_or(0, |pair| pair.fold + 1),
        scores: score(&scored),
        no_face: found
            .values()
            .filter(|embedding| embedding.is_none())
            .count(),
        images_per_s,
    })
}
