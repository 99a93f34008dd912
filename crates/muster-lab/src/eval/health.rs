//! `muster eval health`: of planted faults in a gallery, how many are found.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use muster_gallery::calibration::{Cutoff, Rate};
use muster_gallery::health::{self, Extent};
use muster_jobs::ShippedCalibration;
use serde::Serialize;

use super::album::{self, Album, Draw, Eyes};
use super::identify::said;
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
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

/// What was planted and what was found of it.
#[derive(Debug, Serialize)]
struct Found {
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
    mislabelled: Found,
    duplicates: Found,
    weak: usize,
    seconds: f64,
}

impl Found {
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
fn plant(albums: &mut Vec<Album>, seed: u64) -> Planted {
    let mut draw = Draw::new(seed);
    let mut planted = Planted::default();
    let mut able: Vec<usize> = (0..albums.len())
        .filter(|n| albums[*n].photos.len() >= TO_DOUBLE)
        .collect();
    draw.shuffle(&mut able);
    for n in able.into_iter().take(DOUBLED) {
        let album = &mut albums[n];
        draw.shuffle(&mut album.photos);
        let twin = Album {
            name: format!("{} again", album.name),
            photos: album.photos.split_off(album.photos.len() / 2),
        };
        planted
            .doubled
            .insert((album.name.clone(), twin.name.clone()));
        albums.push(twin);
    }
    let doubled: BTreeSet<String> = planted
        .doubled
        .iter()
        .flat_map(|(first, second)| [first.clone(), second.clone()])
        .collect();
    let faces: usize = albums.iter().map(|album| album.photos.len()).sum();
    let mut able: Vec<(usize, usize)> = Vec::new();
    for (n, album) in albums.iter().enumerate() {
        if album.photos.len() >= TO_SWAP && !doubled.contains(&album.name) {
            let mut places: Vec<usize> = (0..album.photos.len()).collect();
            draw.shuffle(&mut places);
            let third = places.into_iter().take(album.photos.len() / TO_SWAP);
            able.extend(third.map(|place| (n, place)));
        }
    }
    draw.shuffle(&mut able);
    while planted.swapped.len() < faces / SWAPPED {
        let Some((one, place)) = able.pop() else {
            break;
        };
        let Some(other) = able.iter().rposition(|(other, _)| *other != one) else {
            break;
        };
        let (other, other_place) = able.remove(other);
        let moved = albums[one].photos[place].clone();
        let back = std::mem::replace(&mut albums[other].photos[other_place], moved.clone());
        albums[one].photos[place] = back.clone();
        planted.swapped.insert((albums[one].name.clone(), back.0));
        planted
            .swapped
            .insert((albums[other].name.clone(), moved.0));
    }
    planted
}

/// Runs the evaluation and prints its figures.
pub fn run(args: &HealthArgs, settings: &Settings) -> anyhow::Result<()> {
    let mut eyes = Eyes::open(&settings.models)?;
    let mut albums = eyes.albums(&args.images)?;
    // What no face was found in can not be swapped.
    for album in &mut albums {
        album.photos.retain(|(_, face)| face.is_some());
    }
    let planted = plant(&mut albums, args.seed);
    let embedder = eyes.installation.embedder();
    let gallery = album::gallery(&embedder.name, &albums)?;
    let cutoff = match settings.decisions.cutoff {
        Some(cutoff) => cutoff,
        None => {
            let shipped = ShippedCalibration::from(embedder);
            Cutoff::for_target(&gallery, &shipped, settings.decisions.target_fpir).value
        }
    };
    let begun = Instant::now();
    let health = health::examine(&gallery, cutoff, Extent::default());
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
    let swaps = Found::of(&planted.swapped, &mislabelled);
    let doubles = Found::of(&planted.doubled, &doubled);
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
        println!(
            "{}",
            serde_json::to_string(&figures).context("write the figures")?
        );
        return Ok(());
    }
    println!(
        "{} people with {} faces, examined in {seconds:.2} s at the cutoff {cutoff:.3}",
        health.people, health.faces
    );
    for (what, found) in [("swapped faces", &swaps), ("doubled people", &doubles)] {
        println!("{what}: {} planted", found.planted);
        println!("  precision       {}", said(&found.precision));
        println!("  recall          {}", said(&found.recall));
        for (first, second) in &found.not_planted {
            println!("  not planted     {first}, {second}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use muster_recognize::recognizer::Face;

    use super::*;

    #[test]
    fn as_many_faults_are_planted_as_are_said() {
        let mut albums: Vec<Album> = (0..100)
            .map(|n| Album {
                name: format!("p{n:02}"),
                photos: (0..4).map(|m| (format!("p{n:02}-{m}"), None)).collect(),
            })
            .collect();
        let planted = plant(&mut albums, 1);
        assert_eq!((planted.swapped.len(), planted.doubled.len()), (20, 10));
        assert_eq!(albums.len(), 110);
        let mut moved = 0;
        for album in &albums {
            let of = |(file, _): &&(String, Option<Face>)| !file.starts_with(&album.name[..3]);
            let wrong: Vec<_> = album.photos.iter().filter(of).collect();
            assert!(wrong.len() <= 1);
            moved += wrong.len();
            for (file, _) in wrong {
                assert!(
                    planted
                        .swapped
                        .contains(&(album.name.clone(), file.clone()))
                );
            }
        }
        assert_eq!(moved, 20);
    }
}
