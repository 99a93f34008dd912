//! `muster eval identify`: FNIR and FPIR of searches among enrolled people.

pub mod score;
mod table;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use clap::{Args, value_parser};
use muster_gallery::calibration::{Basis, Cutoff, Rate};
use muster_gallery::decide::Rules;
use muster_jobs::{Requirements, ShippedCalibration};
use muster_recognize::analysis::Face;
use muster_recognize::models::Installation;
use serde::Serialize;

use super::people::{LabelledPhotos, Split, gallery, labelled, split};
use super::perturbation::Perturbation;
use super::rate::with_interval;
use super::recognizers::Recognizers;
use crate::random;
use muster_base::output::OutputError;
use muster_base::print_line;
use muster_base::settings::{DecisionSettings, Settings};
use score::{MatedProbe, ProbePhoto, Scores, score};
use table::{Cell, Of};

/// Arguments of `muster eval identify`.
#[derive(Debug, Args)]
pub struct IdentifyArgs {
    /// Photographs to enrol, one folder a person
    #[arg(
        long,
        value_name = "DIR",
        requires = "probes",
        required_unless_present = "images"
    )]
    gallery: Option<PathBuf>,
    /// Photographs of the same people to look up, one folder a person
    #[arg(long, value_name = "DIR", requires = "gallery")]
    probes: Option<PathBuf>,
    /// Photographs of other people
    #[arg(long, value_name = "DIR", requires = "gallery")]
    strangers: Option<PathBuf>,
    /// Photographs, one folder a person, to be split: a person with several has half of them enrolled
    /// and the others looked up; a person with one is a stranger
    #[arg(long, value_name = "DIR", conflicts_with = "gallery")]
    images: Option<PathBuf>,
    /// The seed of that split
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = random::seed)]
    seed: u64,
    /// Enrol N people, those with several photographs first; one photograph of each of the others is a
    /// stranger's. Of several N the rates of each are printed
    #[arg(long, value_name = "N", requires = "images", value_delimiter = ',')]
    people: Vec<usize>,
    /// Average over this many splits, with the seeds from --seed on
    #[arg(long, value_name = "N", requires = "images", default_value_t = 1, value_parser = value_parser!(u64).range(1..))]
    splits: u64,
    /// Make the photographs to enrol so much smaller that each one's face has N pixels (quality.size_px);
    /// of several N the rates of each are printed
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = face_px)]
    gallery_face_px: Vec<f32>,
    /// Make the photographs that are looked up, and the strangers', so much smaller
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = face_px)]
    probe_face_px: Vec<f32>,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

/// What is printed as JSON: the shares, and with counts and intervals in `scores`.
#[derive(Debug, Serialize)]
struct Figures {
    rank1: Option<f64>,
    fnir: Option<f64>,
    fpir: Option<f64>,
    threshold: f32,
    target_fpir: f64,
    basis: Basis,
    cutoff_ms: f64,
    counts: Counts,
    scores: Scores,
}

/// Who was enrolled and looked up.
#[derive(Debug, Serialize)]
pub struct Counts {
    /// People enrolled.
    pub people: usize,
    /// Their faces.
    pub faces: usize,
    probes: usize,
    strangers: usize,
    no_face: usize,
    unfit_to_enrol: usize,
    unfit_to_name: usize,
}

/// A face's size on the command line.
fn face_px(text: &str) -> anyhow::Result<f32> {
    let size = text.parse().ok();
    let size = size.filter(|size| (8.0..=4096.0).contains(size));
    size.with_context(|| format!("{text} is no size of a face: name 8 to 4096 pixels"))
}

/// What one search came to: of one split, each side's photographs of one kind.
pub struct Outcome {
    /// From which similarity on a face is somebody's.
    pub cutoff: Cutoff,
    cutoff_ms: f64,
    /// Who was enrolled and looked up.
    pub counts: Counts,
    /// How they fared.
    pub scores: Scores,
}

/// What is judged by.
pub struct By<'a> {
    model: &'a str,
    shipped: ShippedCalibration,
    decisions: &'a DecisionSettings,
}

impl<'a> By<'a> {
    /// The installed model and the rules of decision that are set.
    pub fn new(installation: &'a Installation, decisions: &'a DecisionSettings) -> Self {
        let embedder = installation.embedder();
        Self {
            model: &embedder.name,
            shipped: ShippedCalibration::from(embedder),
            decisions,
        }
    }

    /// Enrols people and looks up others' photographs: theirs, and those of strangers.
    pub fn judge(
        &self,
        enrolled: &[LabelledPhotos],
        looked_up: &[LabelledPhotos],
        strangers: &[LabelledPhotos],
    ) -> anyhow::Result<Outcome> {
        let gallery = gallery(self.model, enrolled)?;
        let faces = || {
            let people = [enrolled, looked_up, strangers].into_iter().flatten();
            people.flat_map(|person| person.photos.iter().map(|(_, face)| face.as_ref()))
        };
        let no_face = faces().filter(Option::is_none).count();
        let limits = &self.decisions.quality;
        let unfit = |required: &Requirements| {
            let unmet = |face: &&Face| !required.unmet_by(&face.quality).is_empty();
            faces().flatten().filter(unmet).count()
        };
        let (unfit_to_enrol, unfit_to_name) = (unfit(&limits.enrolment), unfit(&limits.matching));
        let probe = |face: Option<&Face>| ProbePhoto {
            face: face.map(|face| face.embedding.clone()),
            unmet: face.map_or_else(Vec::new, |face| limits.matching.unmet_by(&face.quality)),
        };
        let mut probes: Vec<MatedProbe> = Vec::new();
        for person in looked_up {
            probes.extend(person.photos.iter().map(|(_, face)| MatedProbe {
                name: person.name.clone(),
                photo: probe(face.as_ref()),
            }));
        }
        let strangers = strangers.iter().flat_map(|person| &person.photos);
        let strangers: Vec<ProbePhoto> = strangers.map(|(_, face)| probe(face.as_ref())).collect();
        let begun = Instant::now();
        let cutoff = match self.decisions.cutoff {
            Some(cutoff) => Cutoff::set(cutoff),
            None => Cutoff::for_target(&gallery, &self.shipped, self.decisions.target_fpir),
        };
        let cutoff_ms = begun.elapsed().as_secs_f64() * 1e3;
        Ok(Outcome {
            cutoff,
            cutoff_ms,
            counts: Counts {
                people: gallery.people_count(),
                faces: gallery.faces(),
                probes: probes.len(),
                strangers: strangers.len(),
                no_face,
                unfit_to_enrol,
                unfit_to_name,
            },
            scores: score(&gallery, &probes, &strangers, &Rules::at(cutoff.value)),
        })
    }
}

/// Runs the evaluation and prints its figures.
pub fn run(args: &IdentifyArgs, settings: &Settings) -> anyhow::Result<()> {
    let mut recognizers = Recognizers::load(&settings.models)?;
    let sizes = |asked: &[f32]| match asked {
        [] => vec![None],
        asked => asked.iter().copied().map(Some).collect(),
    };
    let (of_gallery, of_probes) = (sizes(&args.gallery_face_px), sizes(&args.probe_face_px));
    let mut of_either: Vec<Option<f32>> = Vec::new();
    for size in of_gallery.iter().chain(&of_probes) {
        if !of_either.contains(size) {
            of_either.push(*size);
        }
    }
    let galleries: Vec<Option<usize>> = match &*args.people {
        [] => vec![None],
        asked => asked.iter().copied().map(Some).collect(),
    };
    let made: Vec<_> = of_either
        .iter()
        .map(|size| size.map(Perturbation::FacePx))
        .collect();
    // By number of people and by size.
    let splits: Vec<Vec<Vec<Split>>> = match &args.images {
        Some(images) => {
            let seeds = args.seed..args.seed.saturating_add(args.splits);
            let people = recognizers.people_as(&labelled(images)?, &made)?;
            let of_size = |people: &Vec<LabelledPhotos>, limit: Option<usize>| {
                let splits = seeds.clone();
                let splits = splits.map(|seed| split(people.clone(), seed, limit));
                splits.collect()
            };
            let of_gallery = |limit: &Option<usize>| {
                let sizes = people.iter();
                sizes.map(|people| of_size(people, *limit)).collect()
            };
            galleries.iter().map(of_gallery).collect()
        }
        None => {
            let mut read = |folder: &Option<PathBuf>| match folder {
                Some(folder) => recognizers.people_as(&labelled(folder)?, &made),
                None => Ok(vec![Vec::new(); made.len()]),
            };
            let (gallery, probes) = (read(&args.gallery)?, read(&args.probes)?);
            let strangers = read(&args.strangers)?;
            let sides = gallery.into_iter().zip(probes).zip(strangers);
            let split = sides.map(|((gallery, probes), strangers)| Split {
                gallery,
                probes,
                strangers,
            });
            vec![split.map(|split| vec![split]).collect()]
        }
    };
    let by = By::new(&recognizers.installation, &settings.decisions);
    let place = |size: &Option<f32>| of_either.iter().position(|known| known == size);
    let only = galleries.len() * of_gallery.len() * of_probes.len() == 1 && args.splits == 1;
    let mut cells = Vec::new();
    for (people, splits) in galleries.iter().zip(&splits) {
        let splits_at = |size| place(size).map_or(&[][..], |place| &splits[place]);
        for gallery_face_px in &of_gallery {
            for probe_face_px in &of_probes {
                let sides = splits_at(gallery_face_px)
                    .iter()
                    .zip(splits_at(probe_face_px));
                let outcomes = sides.map(|(enrolled, looked_up)| {
                    by.judge(&enrolled.gallery, &looked_up.probes, &looked_up.strangers)
                });
                let mut outcomes = outcomes.collect::<anyhow::Result<Vec<Outcome>>>()?;
                if only {
                    return print_one(outcomes.remove(0), &settings.decisions, args.json);
                }
                let scores: Vec<Scores> = outcomes.into_iter().map(|one| one.scores).collect();
                let target = settings.decisions.target_fpir;
                let of = Of {
                    people: *people,
                    gallery_face_px: *gallery_face_px,
                    probe_face_px: *probe_face_px,
                };
                cells.push(Cell::new(of, &scores, target));
            }
        }
    }
    table::print(&cells, args.splits, args.json)
}

/// Prints what one pair of sizes came to in one split.
fn print_one(
    Outcome {
        cutoff,
        cutoff_ms,
        counts,
        scores,
    }: Outcome,
    decisions: &DecisionSettings,
    as_json: bool,
) -> anyhow::Result<()> {
    if as_json {
        let figures = Figures {
            rank1: scores.rank1.estimate,
            fnir: scores.at.fnir.estimate,
            fpir: scores.at.fpir.estimate,
            threshold: cutoff.value,
            target_fpir: decisions.target_fpir,
            basis: cutoff.basis,
            cutoff_ms,
            counts,
            scores,
        };
        print_line!(
            "{}",
            serde_json::to_string(&figures).context("write the figures")?
        )?;
        return Ok(());
    }
    print_line!(
        "{} people with {} faces enrolled, {} photographs of them and {} of strangers looked up",
        counts.people,
        counts.faces,
        counts.probes,
        counts.strangers
    )?;
    print_line!("without a face    {}", counts.no_face)?;
    print_line!(
        "unfit             {} to be enrolled (they are, here), {} to be named",
        counts.unfit_to_enrol,
        counts.unfit_to_name
    )?;
    print_line!("target FPIR       {:.3} %", 100.0 * decisions.target_fpir)?;
    print_line!(
        "threshold         {:.3}, worked out in {cutoff_ms:.2} ms",
        cutoff.value
    )?;
    show(&scores)?;
    Ok(())
}

fn show(scores: &Scores) -> Result<(), OutputError> {
    print_line!("rank 1            {}", with_interval(&scores.rank1))?;
    print_line!("FNIR              {}", with_interval(&scores.at.fnir))?;
    print_line!("FPIR              {}", with_interval(&scores.at.fpir))?;
    print_line!("decided:")?;
    print_line!("  not named       {}", with_interval(&scores.decided.fnir))?;
    print_line!("  wrongly named   {}", with_interval(&scores.decided.fpir))?;
    print_line!(
        "  ambiguous       {} photographs of enrolled people, {} of strangers",
        scores.ambiguous_probes,
        scores.ambiguous_strangers
    )?;
    print_line!("threshold      FPIR %    FNIR %")?;
    for at in &scores.table {
        let share = |rate: &Rate| match rate.estimate {
            Some(share) => format!("{:8.3}", 100.0 * share),
            None => format!("{:>8}", "-"),
        };
        print_line!(
            "  {:<9.2} {}  {}",
            at.threshold,
            share(&at.fpir),
            share(&at.fnir)
        )?;
    }
    Ok(())
}
