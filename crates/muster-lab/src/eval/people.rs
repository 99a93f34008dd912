//! Labelled photographs, one folder a person: who is enrolled, looked up and a stranger, and the gallery.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use muster_gallery::{Embeddings, EnrolledFace, Gallery, Person};
use muster_recognize::analysis::Face;

use crate::photos::photos_in;
use crate::random::Random;

/// What was seen in a photograph: the file's name and the face, `None` where none was found.
pub type SeenPhoto = (String, Option<Face>);

/// A person's photographs, labelled with the name.
#[derive(Clone, Debug)]
pub struct LabelledPhotos<P = SeenPhoto> {
    /// The folder's name.
    pub name: String,
    /// In the order of the file names.
    pub photos: Vec<P>,
}

/// The last part of a path, as it is shown.
pub fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Finds the photographs below a folder: those in a folder of their own are that person's, by the order
/// of the names.
///
/// # Errors
/// Names the folder that can not be read or has none.
pub fn labelled(folder: &Path) -> anyhow::Result<Vec<LabelledPhotos<PathBuf>>> {
    let photos = photos_in(folder)?;
    anyhow::ensure!(
        !photos.is_empty(),
        "there are no photographs in {}: name a folder with one folder a person",
        folder.display()
    );
    let mut people: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for path in photos {
        let parent = path.parent().context("a photograph is in a folder")?;
        people.entry(parent.to_owned()).or_default().push(path);
    }
    let person = |(folder, photos): (PathBuf, _)| LabelledPhotos {
        name: file_name(&folder),
        photos,
    };
    Ok(people.into_iter().map(person).collect())
}

/// Who is enrolled, looked up, and a stranger.
pub struct Split<P = SeenPhoto> {
    /// Photographs to enrol.
    pub gallery: Vec<LabelledPhotos<P>>,
    /// Others of the same people.
    pub probes: Vec<LabelledPhotos<P>>,
    /// Photographs of other people.
    pub strangers: Vec<LabelledPhotos<P>>,
}

/// Splits everyone's photographs: of up to `limit` people with several, half of each one's (rounded
/// down) are enrolled and the others looked up. Where those are fewer than the limit, people with one
/// are enrolled, too. Everyone else is a stranger, with one.
pub fn split<P>(mut people: Vec<LabelledPhotos<P>>, seed: u64, limit: Option<usize>) -> Split<P> {
    let mut random = Random::new(seed);
    if limit.is_some() {
        random.shuffle(&mut people);
    }
    let most = limit.unwrap_or(usize::MAX);
    let mut split = Split {
        gallery: Vec::new(),
        probes: Vec::new(),
        strangers: Vec::new(),
    };
    for mut person in people {
        if person.photos.len() < 2 || split.gallery.len() >= most {
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
    if let Some(limit) = limit {
        let missing = limit.saturating_sub(split.gallery.len());
        let missing = missing.min(split.strangers.len());
        split.gallery.extend(split.strangers.drain(..missing));
    }
    split
}

/// The gallery of these people, by that model; photographs without a face are left out, and people
/// without any.
///
/// The people's ids are numbers, so that a repetition has the same sample of comparisons.
pub fn gallery(model: &str, labelled: &[LabelledPhotos]) -> anyhow::Result<Gallery> {
    let mut people = Vec::with_capacity(labelled.len());
    for one in labelled {
        let faces: Vec<EnrolledFace> = one
            .photos
            .iter()
            .filter_map(|(file, face)| {
                let face = face.as_ref()?;
                let made = Embeddings::of(model, face.embedding.clone());
                let mut enrolled = EnrolledFace::new(file.clone(), made, 0);
                enrolled.quality = Some(face.quality);
                Some(enrolled)
            })
            .collect();
        if !faces.is_empty() {
            let mut person = Person::new(one.name.clone(), faces, 0);
            let number = format!("00000000-0000-7000-8000-{:012x}", people.len());
            person.id = number.parse().context("number a person")?;
            people.push(person);
        }
    }
    Ok(Gallery::of(model, people))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(name: &str, count: usize) -> LabelledPhotos<String> {
        LabelledPhotos {
            name: name.to_owned(),
            photos: (0..count).map(|n| format!("{name}{n}")).collect(),
        }
    }

    fn counts(people: &[LabelledPhotos<String>]) -> Vec<(String, usize)> {
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
            .flat_map(|person| person.photos.clone())
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

    #[test]
    fn people_with_one_photograph_fill_a_gallery() {
        let people = [("Ann", 4), ("Bob", 1), ("Cleo", 1), ("Dan", 1)];
        let people = people.map(|(name, count)| person(name, count));
        let split = |limit| split(people.to_vec(), 1, Some(limit));
        let three = split(3);
        assert!(matches!(
            &counts(&three.gallery)[..],
            [(_, 2), (_, 1), (_, 1)]
        ));
        assert_eq!(counts(&three.probes), [("Ann".into(), 2)]);
        assert_eq!(three.strangers.len(), 1);
        assert_eq!((split(9).gallery.len(), split(9).strangers.len()), (4, 0));
    }
}
