//! `muster eval identify`: FNIR and FPIR of searches among enrolled people.

mod score;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use muster_gallery::calibration::{Basis, Cutoff, Rate};
use muster_gallery::decide::Rules;
use muster_jobs::{Requirements, ShippedCalibration};
use muster_recognize::recognizer::Face;
use serde::Serialize;

use super::people::{LabelledPhotos, gallery};
use super::rate::with_interval;
use super::recognizers::Recognizers;
use crate::random::Random;
use muster_base::output::OutputError;
use muster_base::print_line;
use muster_base::settings::Settings;
use score::{MatedProbe, ProbePhoto, Scores, score};

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
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Enrol at most this many people; one photograph of each of the others is a stranger's
    #[arg(long, value_name = "N", requires = "images")]
    people: Option<usize>,
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

#[derive(Debug, Serialize)]
struct Counts {
    people: usize,
    faces: usize,
    probes: usize,
    strangers: usize,
    no_face: usize,
    unfit_to_enrol: usize,
    unfit_to_name: usize,
}

/// Who is enrolled, looked up, and a stranger.
struct Split {
    gallery: Vec<LabelledPhotos>,
    probes: Vec<LabelledPhotos>,
    strangers: Vec<LabelledPhotos>,
}

/// Splits everyone's photographs: of up to `limit` people with several, half of each one's (rounded
/// down) are enrolled and the others looked up; everyone else is a stranger, with one.
fn split(mut people: Vec<LabelledPhotos>, seed: u64, limit: Option<usize>) -> Split {
    let mut random = Random::new(seed);
    if limit.is_some() {
        random.shuffle(&mut people);
    }
    let limit = limit.unwrap_or(usize::MAX);
    let mut split = Split {
        gallery: Vec::new(),
        probes: Vec::new(),
        strangers: Vec::new(),
    };
    for mut person in people {
        if person.photos.len() < 2 || split.gallery.len() >= limit {
            person.photos.truncate(1);
            split.strangers.push(person);
            continue;
        }
        random.shuffle(&mut person.photos);
        let looked_up = person.photos.split_off(person.photos.len() / 2);
        split.probes.push(LabelledPhotos {
            name: person.name.clone(),
            photos: looked_up,
        });
        split.gallery.push(person);
    }
    split
}

/// Runs the evaluation and prints its figures.
pub fn run(args: &IdentifyArgs, settings: &Settings) -> anyhow::Result<()> {
    let mut recognizers = Recognizers::load(&settings.models)?;
    let split = match &args.images {
        Some(images) => split(recognizers.people(images)?, args.seed, args.people),
        None => {
            let mut read = |folder: &Option<PathBuf>| match folder {
                Some(folder) => recognizers.people(folder),
                None => Ok(Vec::new()),
            };
            Split {
                gallery: read(&args.gallery)?,
                probes: read(&args.probes)?,
                strangers: read(&args.strangers)?,
            }
        }
    };
    let embedder = recognizers.installation.embedder();
    let gallery = gallery(&embedder.name, &split.gallery)?;
    let faces = || {
        let parts = [&split.gallery, &split.probes, &split.strangers];
        let people = parts.into_iter().flatten();
        people.flat_map(|person| person.photos.iter().map(|(_, face)| face.as_ref()))
    };
    let no_face = faces().filter(Option::is_none).count();
    let unfit = |required: Requirements| {
        let unmet = |face: &&Face| !required.unmet_by(&face.quality).is_empty();
        faces().flatten().filter(unmet).count()
    };
    let (unfit_to_enrol, unfit_to_name) = (
        unfit(Requirements::for_enrolment()),
        unfit(Requirements::for_match()),
    );
    let probe = |face: Option<&Face>| ProbePhoto {
        face: face.map(|face| face.embedding.clone()),
        unmet: face.map_or_else(Vec::new, |face| {
            Requirements::for_match().unmet_by(&face.quality)
        }),
    };
    let mut probes: Vec<MatedProbe> = Vec::new();
    for person in &split.probes {
        probes.extend(person.photos.iter().map(|(_, face)| MatedProbe {
            name: person.name.clone(),
            photo: probe(face.as_ref()),
        }));
    }
    let strangers = split.strangers.iter().flat_map(|person| &person.photos);
    let strangers: Vec<ProbePhoto> = strangers.map(|(_, face)| probe(face.as_ref())).collect();
    let begun = Instant::now();
    let cutoff = match settings.decisions.cutoff {
        Some(cutoff) => Cutoff::set(cutoff),
        None => Cutoff::for_target(
            &gallery,
            &ShippedCalibration::from(embedder),
            settings.decisions.target_fpir,
        ),
    };
    let cutoff_ms = begun.elapsed().as_secs_f64() * 1e3;
    let scores = score(&gallery, &probes, &strangers, &Rules::at(cutoff.value));
    if args.json {
        let figures = Figures {
            rank1: scores.rank1.estimate,
            fnir: scores.at.fnir.estimate,
            fpir: scores.at.fpir.estimate,
            threshold: cutoff.value,
            target_fpir: settings.decisions.target_fpir,
            basis: cutoff.basis,
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
        gallery.people_count(),
        gallery.faces(),
        probes.len(),
        strangers.len()
    )?;
    print_line!("without a face    {no_face}")?;
    print_line!(
        "unfit             {unfit_to_enrol} to be enrolled (they are, here), {unfit_to_name} to be named"
    )?;
    print_line!(
        "target FPIR       {:.3} %",
        100.0 * settings.decisions.target_fpir
    )?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn person(name: &str, count: usize) -> LabelledPhotos {
        LabelledPhotos {
            name: name.to_owned(),
            photos: (0..count).map(|n| (format!("{name}{n}"), None)).collect(),
        }
    }

    fn counts(people: &[LabelledPhotos]) -> Vec<(String, usize)> {
        let people = people.iter();
        people
            .map(|person| (person.name.clone(), person.photos.len()))
            .collect()
    }

    #[test]
    fn half_of_each_persons_photographs_are_enrolled_and_people_with_one_are_strangers() {
        let people = vec![person("Ann", 5), person("Bob", 1), person("Cleo", 2)];
        let split = split(people, 1, None);
        assert_eq!(
            counts(&split.gallery),
            [("Ann".into(), 2), ("Cleo".into(), 1)]
        );
        assert_eq!(
            counts(&split.probes),
            [("Ann".into(), 3), ("Cleo".into(), 1)]
        );
        assert_eq!(counts(&split.strangers), [("Bob".into(), 1)]);
        let mut all: Vec<String> = [&split.gallery[0], &split.probes[0]]
            .iter()
            .flat_map(|person| person.photos.iter().map(|(file, _)| file.clone()))
            .collect();
        all.sort();
        assert_eq!(all, ["Ann0", "Ann1", "Ann2", "Ann3", "Ann4"]);
    }

    #[test]
    fn of_those_who_are_too_many_one_photograph_is_a_strangers() {
        let people = ["Ann", "Bob", "Cleo"].map(|name| person(name, 4));
        let split = split(people.to_vec(), 1, Some(1));
        assert_eq!(counts(&split.gallery)[0].1, 2);
        assert_eq!(counts(&split.probes)[0].1, 2);
        let strangers = counts(&split.strangers);
        assert!(matches!(&strangers[..], [(_, 1), (_, 1)]), "{strangers:?}");
    }
}
