//! `muster eval robust`: FNIR and FPIR where it is hard, a row a perturbation of the photographs looked up.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use muster_base::print_line;
use muster_base::settings::Settings;
use muster_gallery::calibration::{Basis, Rate};
use muster_recognize::analysis::Face;
use serde::Serialize;

use super::identify::By;
use super::identify::score::Scores;
use super::people::{LabelledPhotos, Split, labelled, split};
use super::perturbation::Perturbation;
use super::recognizers::Recognizers;
use crate::random::{self, Random};

/// Degrees from one turn to the next.
const TURN_STEP: usize = 15;
const FACE_PX: [f32; 6] = [48.0, 32.0, 26.0, 20.0, 16.0, 12.0];
const DARKENED: [f32; 4] = [0.5, 0.25, 0.12, 0.06];
const BLURRED: [f32; 5] = [0.01, 0.02, 0.03, 0.04, 0.05];
const COMPRESSED: [u8; 5] = [50, 30, 20, 10, 5];
const CROPPED: [f32; 5] = [0.1, 0.2, 0.3, 0.4, 0.5];

/// Arguments of `muster eval robust`.
#[derive(Debug, Args)]
pub struct RobustArgs {
    /// Photographs, one folder a person: a person with several has half of them enrolled, as they are, and
    /// the others looked up; a person with one is a stranger
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// The seed of that split, of the photographs that are looked up, and of the sides that are cut off
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = random::seed)]
    seed: u64,
    /// Look up N photographs of enrolled people and N of strangers, the same ones in every variation; all
    /// of them where there are fewer
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = probes)]
    probes: usize,
    /// Only the variations whose names begin so, as `turned` or `face 32`
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

/// A number of photographs on the command line.
fn probes(text: &str) -> anyhow::Result<usize> {
    let count = text.parse().ok().filter(|count| *count > 0);
    count.with_context(|| format!("{text} is no number of photographs: name a whole one from 1 on"))
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Figures {
    people: usize,
    faces: usize,
    probes: usize,
    strangers: usize,
    seed: u64,
    target_fpir: f64,
    threshold: f32,
    basis: Basis,
    variations: Vec<Row>,
}

/// How one variation fared.
#[derive(Debug, Serialize)]
struct Row {
    variation: String,
    /// Photographs in which the face was found, of both kinds together.
    found: Rate,
    /// Of the faces found, those that are unfit to be named.
    unfit: usize,
    scores: Scores,
}

/// The photographs as they are, and every variation of them.
fn variations(seed: u64) -> Vec<Option<Perturbation>> {
    let mut all = vec![None];
    all.extend((1..360 / TURN_STEP).map(|n| Some(Perturbation::Turned((n * TURN_STEP) as u16))));
    all.extend(FACE_PX.map(|size| Some(Perturbation::FacePx(size))));
    all.extend(DARKENED.map(|factor| Some(Perturbation::Darkened(factor))));
    all.extend(BLURRED.map(|share| Some(Perturbation::Blurred(share))));
    all.extend(COMPRESSED.map(|quality| Some(Perturbation::Compressed(quality))));
    all.push(Some(Perturbation::Masked));
    all.extend(CROPPED.map(|share| Some(Perturbation::Cropped { share, seed })));
    all
}

/// What a variation is called in the table.
fn name(variation: Option<Perturbation>) -> String {
    variation.map_or_else(|| "as it is".to_owned(), |made| made.to_string())
}

/// Chooses `limit` of people's photographs; a person stands there once for each of theirs.
fn sample(
    people: Vec<LabelledPhotos<PathBuf>>,
    limit: usize,
    random: &mut Random,
) -> Vec<LabelledPhotos<PathBuf>> {
    let mut all = Vec::new();
    for LabelledPhotos { name, photos } in people {
        all.extend(photos.into_iter().map(|photo| LabelledPhotos {
            name: name.clone(),
            photos: vec![photo],
        }));
    }
    random.shuffle(&mut all);
    all.truncate(limit);
    all
}

/// Runs the evaluation and prints its figures.
pub fn run(args: &RobustArgs, settings: &Settings) -> anyhow::Result<()> {
    let mut variations = variations(args.seed);
    if let Some(only) = &args.only {
        variations.retain(|variation| name(*variation).starts_with(only));
        anyhow::ensure!(
            !variations.is_empty(),
            "no variation's name begins with {only:?}: run it without --only to see them all"
        );
    }
    let Split {
        gallery,
        probes,
        strangers,
    } = split(labelled(&args.images)?, args.seed, None);
    anyhow::ensure!(
        !gallery.is_empty(),
        "nobody in {} has two photographs, one to enrol and one to look up: add some",
        args.images.display()
    );
    let mut random = Random::new(args.seed);
    let probes = sample(probes, args.probes, &mut random);
    let strangers = sample(strangers, args.probes, &mut random);
    let mut recognizers = Recognizers::load(&settings.models)?;
    let enrolled = recognizers.people(&gallery)?;
    let probes = recognizers.people_as(&probes, &variations)?;
    let strangers = recognizers.people_as(&strangers, &variations)?;
    let by = By::new(&recognizers.installation, &settings.decisions);
    let limits = &settings.decisions.quality.matching;
    let mut figures: Option<Figures> = None;
    for ((variation, probes), strangers) in variations.iter().zip(probes).zip(strangers) {
        let outcome = by.judge(&enrolled, &probes, &strangers)?;
        let both = probes.iter().chain(&strangers);
        let faces: Vec<Option<&Face>> = both
            .flat_map(|one| one.photos.iter().map(|(_, face)| face.as_ref()))
            .collect();
        let unfit = |face: &&&Face| !limits.unmet_by(&face.quality).is_empty();
        let row = Row {
            variation: name(*variation),
            found: Rate::count(&faces, Option::is_some),
            unfit: faces.iter().flatten().filter(unfit).count(),
            scores: outcome.scores,
        };
        let figures = figures.get_or_insert_with(|| Figures {
            people: outcome.counts.people,
            faces: outcome.counts.faces,
            probes: probes.len(),
            strangers: strangers.len(),
            seed: args.seed,
            target_fpir: settings.decisions.target_fpir,
            threshold: outcome.cutoff.value,
            basis: outcome.cutoff.basis,
            variations: Vec::new(),
        });
        figures.variations.push(row);
    }
    let figures = figures.context("there are variations")?;
    if args.json {
        let figures = serde_json::to_string(&figures).context("write the figures")?;
        print_line!("{figures}")?;
        return Ok(());
    }
    print_line!(
        "{} people with {} faces enrolled as they are; in each row {} photographs of them and {} of strangers, \
         the same ones",
        figures.people,
        figures.faces,
        figures.probes,
        figures.strangers
    )?;
    print_line!(
        "seed {}, target FPIR {:.3} %, cutoff {:.3}",
        figures.seed,
        100.0 * figures.target_fpir,
        figures.threshold
    )?;
    print_line!("")?;
    print_line!(
        "{:34}decided                        at the cutoff alone",
        ""
    )?;
    print_line!(
        "{:<14}{:>9}{:>8}{:>15}{:>15}{:>15}{:>15}",
        "variation",
        "found %",
        "unfit",
        "FNIR %",
        "FPIR %",
        "FNIR %",
        "FPIR %"
    )?;
    for row in &figures.variations {
        print_line!("{}", line(row))?;
    }
    Ok(())
}

/// A row of the table: each rate with how often it happened.
fn line(row: &Row) -> String {
    let percent = |rate: &Rate| match rate.estimate {
        Some(share) => format!("{:.2}", 100.0 * share),
        None => "-".to_owned(),
    };
    let counted =
        |rate: &Rate| format!("{:>9}{:>6}", percent(rate), format!("({})", rate.happened));
    let Scores { at, decided, .. } = &row.scores;
    format!(
        "{:<14}{:>9}{:>8}{}{}{}{}",
        row.variation,
        percent(&row.found),
        row.unfit,
        counted(&decided.fnir),
        counted(&decided.fpir),
        counted(&at.fnir),
        counted(&at.fpir)
    )
}

#[cfg(test)]
mod tests {
    use super::super::identify::score::AtThreshold;
    use super::*;

    #[test]
    fn every_variation_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<String> = variations(1)
            .iter()
            .map(|made| made.map_or_else(String::new, |made| made.to_string()))
            .collect();
        assert_eq!(names.len(), 24 + 6 + 4 + 5 + 5 + 1 + 5);
        for name in [
            "turned 345",
            "face 12 px",
            "dark 0.06",
            "JPEG 5",
            "cropped 0.5",
        ] {
            assert!(names.contains(name), "{name}");
        }
    }

    #[test]
    fn the_sample_is_the_seeds() {
        let people = |name: &str| LabelledPhotos {
            name: name.to_owned(),
            photos: (0..9)
                .map(|n| PathBuf::from(format!("{name}/{n}.jpg")))
                .collect(),
        };
        let sampled = |seed| {
            let people = vec![people("Ann"), people("Bob")];
            let sample = sample(people, 5, &mut Random::new(seed));
            assert!(
                sample
                    .iter()
                    .all(|one| one.photos[0].starts_with(&one.name))
            );
            let photos: Vec<PathBuf> = sample.into_iter().flat_map(|one| one.photos).collect();
            assert_eq!(photos.len(), 5);
            photos
        };
        assert_eq!(sampled(1), sampled(1));
        assert_ne!(sampled(1), sampled(2));
    }

    #[test]
    fn a_row_has_rates_and_counts() {
        let at = |fnir, fpir| AtThreshold {
            threshold: 0.5,
            fnir,
            fpir,
        };
        let row = Row {
            variation: "turned 180".to_owned(),
            found: Rate::of(3, 4),
            unfit: 1,
            scores: Scores {
                rank1: Rate::of(1, 2),
                at: at(Rate::of(1, 2), Rate::of(1, 8)),
                decided: at(Rate::of(2, 2), Rate::of(0, 0)),
                ambiguous_probes: 0,
                ambiguous_strangers: 0,
                table: Vec::new(),
            },
        };
        let words: Vec<String> = line(&row).split_whitespace().map(str::to_owned).collect();
        assert_eq!(
            words,
            [
                "turned", "180", "75.00", "1", "100.00", "(2)", "-", "(0)", "50.00", "(1)",
                "12.50", "(1)"
            ]
        );
    }

    #[test]
    fn a_number_of_photographs_is_above_zero() {
        assert_eq!(probes("7").unwrap(), 7);
        let refused = probes("0").unwrap_err().to_string();
        let said = "0 is no number of photographs: name a whole one from 1 on";
        assert_eq!(refused, said);
    }
}
