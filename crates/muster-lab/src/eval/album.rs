//! Folders of photographs, one folder a person, as faces to enrol and to look up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::evaluate;
use anyhow::Context;
use muster_gallery::{Embeddings, EnrolledFace, Gallery, Person};
use muster_recognize::models::Installation;
use muster_recognize::recognizer::{Face, Options, Recognizer};

use crate::photos::photos_in;
use muster_api::progress;
use muster_base::settings::ModelSettings;

/// A person's photographs: of each the file's name and the face, `None` where none was found.
#[derive(Clone, Debug)]
pub struct Album {
    /// The folder's name.
    pub name: String,
    /// In the order of the file names.
    pub photos: Vec<(String, Option<Face>)>,
}

/// The installed models, one recognizer a core.
pub struct Eyes {
    /// Where the models came from.
    pub installation: Installation,
    recognizers: Vec<Recognizer>,
}

impl Eyes {
    /// Verifies and loads the models.
    ///
    /// # Errors
    /// When a model is missing or damaged.
    pub fn open(settings: &ModelSettings) -> anyhow::Result<Self> {
        let installation = settings.installation()?;
        installation.verify_models()?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let recognizers = (0..threads)
            .map(|_| Recognizer::load(&installation.model_files(), Options::default()))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            installation,
            recognizers,
        })
    }

    /// Lends the recognizers.
    pub fn recognizers(&mut self) -> &mut [Recognizer] {
        &mut self.recognizers
    }

    /// Reads the photographs below a folder: those in a folder of their own are that person's, by
    /// the order of the names.
    ///
    /// # Errors
    /// Names the folder or the photograph that can not be read.
    pub fn albums(&mut self, folder: &Path) -> anyhow::Result<Vec<Album>> {
        let photos = photos_in(folder)?;
        anyhow::ensure!(
            !photos.is_empty(),
            "there are no photographs in {}: name a folder with one folder a person",
            folder.display()
        );
        let bar = progress::bar(photos.len(), "embedding");
        let faces = evaluate::subjects(&mut self.recognizers, &photos, |done| {
            bar.set_position(done as u64);
        })?;
        bar.finish_and_clear();
        let mut albums: BTreeMap<PathBuf, Album> = BTreeMap::new();
        for (path, face) in photos.iter().zip(faces) {
            let parent = path.parent().context("a photograph is in a folder")?;
            let name = |path: &Path| {
                let name = path.file_name().unwrap_or_default();
                name.to_string_lossy().into_owned()
            };
            let album = albums.entry(parent.to_owned()).or_insert_with(|| Album {
                name: name(parent),
                photos: Vec::new(),
            });
            album.photos.push((name(path), face));
        }
        Ok(albums.into_values().collect())
    }
}

/// The gallery of these people, by that model; photographs without a face are left out, and people
/// without any.
///
/// The people's ids are numbers, so that a repetition has the same sample of comparisons.
pub fn gallery(model: &str, albums: &[Album]) -> anyhow::Result<Gallery> {
    let mut people = Vec::with_capacity(albums.len());
    for album in albums {
        let faces: Vec<EnrolledFace> = album
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
            let mut person = Person::new(album.name.clone(), faces, 0);
            let number = format!("00000000-0000-7000-8000-{:012x}", people.len());
            person.id = number.parse().context("number a person")?;
            people.push(person);
        }
    }
    Ok(Gallery::of(model, people))
}

/// Numbers that look random and are the same for the same seed, on every machine: SplitMix64
/// (Steele, Lea, Flood 2014).
pub struct Draw(u64);

impl Draw {
    /// Begins at a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`, which is above 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) % end as u64) as usize
    }

    /// Shuffles (Fisher and Yates).
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            all.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_repeatable_and_lose_nothing() {
        let shuffled = |seed| {
            let mut all: Vec<usize> = (0..50).collect();
            Draw::new(seed).shuffle(&mut all);
            all
        };
        assert_eq!(shuffled(1), shuffled(1));
        assert_ne!(shuffled(1), shuffled(2));
        let mut sorted = shuffled(1);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
    }
}
