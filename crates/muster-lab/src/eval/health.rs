//! `muster eval health`: how many planted faults the gallery's health finds.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use muster_gallery::calibration::{Cutoff, Rate};
use muster_gallery::health::{self, Extent};
use muster_jobs::ShippedCalibration;
use serde::Serialize;

use super::people::{LabelledPhotos, gallery, labelled};
use super::rate::with_interval;
use super::recognizers::Recognizers;
use crate::random::{self, Random};
use muster_base::print_line;
use muster_base::settings::Settings;

/// Every how many-th face gets somebody else's name: 5 %.
const SWAPPED: usize = 20;
/// People enrolled under two names.
const DOUBLED: usize = 10;
/// Photographs that a person needs for it: two under either name.
const TO_DOUBLE: usize = 4;
/// Photographs that a person needs for one of them to be swapped: of two, either could be the wrong
/// one.
const TO_SWAP: usize = 3;

/// Arguments of `muster eval health`.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// Photographs to enrol, one folder a person; 5 % of them are given a wrong name and ten people
    /// two names
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// The seed by which they are chosen
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = random::seed)]
    seed: u64,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

/// What was planted and what was found of it.
#[derive(Debug, Serialize)]
struct Detection {
    planted: usize,
    precision: Rate,
    recall: Rate,
    /// What was found and not planted: by name and file, or by two names.
    not_planted: Vec<(String, String)>,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Figures {
    people: usize,
    faces: usize,
    cutoff: f32,
    mislabelled: Detection,
    duplicates: Detection,
    weak: usize,
    seconds: f64,
}

impl Detection {
    fn of(planted: &BTreeSet<(String, String)>, found: &BTreeSet<(String, String)>) -> Self {
        let right = found.intersection(planted).count();
        Self {
            planted: planted.len(),
            precision: Rate::of(right, found.len()),
            recall: Rate::of(right, planted.len()),
            not_planted: found.difference(planted).cloned().collect(),
        }
    }
}

/// Faults put into a gallery: faces by the name they stand under and their file, and pairs of names.
#[derive(Debug, Default)]
struct Planted {
    swapped: BTreeSet<(String, String)>,
    doubled: BTreeSet<(String, String)>,
}

/// Gives ten people a second name for half of their photographs, and pairs of faces each other's
/// name: a face in twenty altogether, of a person's at most a third.
fn plant(people: &mut Vec<LabelledPhotos>, seed: u64) -> Planted {
    let mut random = Random::new(seed);
    let mut planted = Planted::default();
    let mut able: Vec<usize> = (0..people.len())
        .filter(|n| people[*n].photos.len() >= TO_DOUBLE)
        .collect();
    random.shuffle(&mut able);
    for n in able.into_iter().take(DOUBLED) {
        let person = &mut people[n];
        random.shuffle(&mut person.photos);
        let twin = LabelledPhotos {
            name: format!("{} again", person.name),
            photos: person.photos.split_off(person.photos.len() / 2),
        };
        planted
            .doubled
            .insert((person.name.clone(), twin.name.clone()));
        people.push(twin);
    }
    let doubled: BTreeSet<String> = planted
        .doubled
        .iter()
        .flat_map(|(first, second)| [first.clone(), second.clone()])
        .collect();
    let faces: usize = people.iter().map(|person| person.photos.len()).sum();
    let mut able: Vec<(usize, usize)> = Vec::new();
    for (n, person) in people.iter().enumerate() {
        if person.photos.len() >= TO_SWAP && !doubled.contains(&person.name) {
            let mut places: Vec<usize> = (0..person.photos.len()).collect();
            random.shuffle(&mut places);
            let third = places.into_iter().take(person.photos.len() / TO_SWAP);
            able.extend(third.map(|place| (n, place)));
        }
    }
    random.shuffle(&mut able);
    while planted.swapped.len() < faces / SWAPPED {
        let Some((one, place)) = able.pop() else {
            break;
        };
        let Some(other) = able.iter().rposition(|(other, _)| *other != one) else {
            break;
        };
        let (other, other_place) = able.remove(other);
        let moved = people[one].photos[place].clone();
        let back = std::mem::replace(&mut people[other].photos[other_place], moved.clone());
        people[one].photos[place] = back.clone();
        planted.swapped.insert((people[one].name.clone(), back.0));
        planted
            .swapped
            .insert((people[other].name.clone(), moved.0));
    }
    planted
}

/// Runs the evaluation and prints its figures.
pub fn run(args: &HealthArgs, settings: &Settings) -> anyhow::Result<()> {
    let mut recognizers = Recognizers::load(&settings.models)?;
    let mut people = recognizers.people(&labelled(&args.images)?)?;
    // What no face was found in can not be swapped.
    for person in &mut people {
        person.photos.retain(|(_, face)| face.is_some());
    }
    let planted = plant(&mut people, args.seed);
    let embedder = recognizers.installation.embedder();
    let gallery = gallery(&embedder.name, &people)?;
    let cutoff = match settings.decisions.cutoff {
        Some(cutoff) => cutoff,
        None => {
            let shipped = ShippedCalibration::from(embedder);
            Cutoff::for_target(&gallery, &shipped, settings.decisions.target_fpir).value
        }
    };
    let begun = Instant::now();
    let health = health::examine(
        &gallery,
        cutoff,
        &settings.decisions.quality.enrolment,
        Extent::default(),
    );
    let seconds = begun.elapsed().as_secs_f64();
    let mislabelled = health.mislabelled.iter();
    let mislabelled: BTreeSet<(String, String)> = mislabelled
        .map(|found| (found.person.name.clone(), found.file.clone()))
        .collect();
    let doubled = health.duplicates.iter();
    let doubled: BTreeSet<(String, String)> = doubled
        .map(|pair| {
            let (first, second) = (pair.first.name.clone(), pair.second.name.clone());
            (first.clone().min(second.clone()), first.max(second))
        })
        .collect();
    let swaps = Detection::of(&planted.swapped, &mislabelled);
    let doubles = Detection::of(&planted.doubled, &doubled);
    if args.json {
        let figures = Figures {
            people: health.people,
            faces: health.faces,
            cutoff,
            mislabelled: swaps,
            duplicates: doubles,
            weak: health.weak.len(),
            seconds,
        };
        print_line!(
            "{}",
            serde_json::to_string(&figures).context("write the figures")?
        )?;
        return Ok(());
    }
    print_line!(
        "{} people with {} faces, examined in {seconds:.2} s at the cutoff {cutoff:.3}",
        health.people,
        health.faces
    )?;
    for (what, found) in [("swapped faces", &swaps), ("doubled people", &doubles)] {
        print_line!("{what}: {} planted", found.planted)?;
        print_line!("  precision       {}", with_interval(&found.precision))?;
        print_line!("  recall          {}", with_interval(&found.recall))?;
        for (first, second) in &found.not_planted {
            print_line!("  not planted     {first}, {second}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use muster_recognize::analysis::Face;

    use super::*;

    #[test]
    fn as_many_faults_are_planted_as_are_said() {
        let mut people: Vec<LabelledPhotos> = (0..100)
            .map(|n| LabelledPhotos {
                name: format!("p{n:02}"),
                photos: (0..4).map(|m| (format!("p{n:02}-{m}"), None)).collect(),
            })
            .collect();
        let planted = plant(&mut people, 1);
        assert_eq!((planted.swapped.len(), planted.doubled.len()), (20, 10));
        assert_eq!(people.len(), 110);
        let mut moved = 0;
        for person in &people {
            let of = |(file, _): &&(String, Option<Face>)| !file.starts_with(&person.name[..3]);
            let wrong: Vec<_> = person.photos.iter().filter(of).collect();
            assert!(wrong.len() <= 1);
            moved += wrong.len();
            for (file, _) in wrong {
                assert!(
                    planted
                        .swapped
                        .contains(&(person.name.clone(), file.clone()))
                );
            }
        }
        assert_eq!(moved, 20);
    }
}
