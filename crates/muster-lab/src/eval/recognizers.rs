//! The installed models on all cores, and the faces that they find in labelled photographs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use muster_recognize::models::Installation;
use muster_recognize::recognizer::{Analysis, Face, Options, RecognizeError, Recognizer};

use super::people::LabelledPhotos;
use crate::photos::photos_in;
use muster_api::progress;
use muster_base::settings::ModelSettings;

/// Why the subject of a photograph is not known.
#[derive(Debug, thiserror::Error)]
pub enum SubjectError {
    /// A photograph the pairs name cannot be read.
    #[error("cannot read the photograph {}", path.display())]
    Read {
        /// The photograph.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A photograph cannot be analysed.
    #[error("cannot analyse the photograph {}", path.display())]
    Analyze {
        /// The photograph.
        path: PathBuf,
        /// Why.
        #[source]
        source: RecognizeError,
    },
}

/// Chooses the face a portrait-like photograph is of.
///
/// Bystanders are smaller, further from the middle or both, so it is the face whose size most
/// exceeds its distance from the middle. Taking the largest would choose a bystander who stands
/// nearer to the camera, taking the nearest a small one that happens to be behind the middle.
fn subject(analysis: &Analysis) -> Option<&Face> {
    let middle = [analysis.width as f32 / 2.0, analysis.height as f32 / 2.0];
    let prominence = |face: &Face| {
        let [x, y] = face.bounds.centre();
        face.bounds.area().sqrt() - ((x - middle[0]).powi(2) + (y - middle[1]).powi(2)).sqrt()
    };
    analysis
        .faces
        .iter()
        .max_by(|a, b| prominence(a).total_cmp(&prominence(b)))
}

/// The installed models, one recognizer a core.
pub struct Recognizers {
    /// Where the models came from.
    pub installation: Installation,
    recognizers: Vec<Recognizer>,
}

impl Recognizers {
    /// Verifies and loads the models.
    ///
    /// # Errors
    /// When a model is missing or damaged.
    pub fn load(settings: &ModelSettings) -> anyhow::Result<Self> {
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

    /// Analyses photographs, one thread a recognizer, and answers of each the face that it is of.
    ///
    /// `progress` is called with the number of photographs done so far, from any of the threads.
    ///
    /// # Errors
    /// For the first photograph that can not be read or analysed.
    pub fn subjects(
        &mut self,
        photos: &[PathBuf],
        progress: impl Fn(usize) + Sync,
    ) -> Result<Vec<Option<Face>>, SubjectError> {
        let mut found: Vec<Option<Face>> = vec![None; photos.len()];
        let queue = Mutex::new((photos.iter().zip(&mut found), 0));
        let work = |recognizer: &mut Recognizer| -> Result<(), SubjectError> {
            loop {
                let (path, face) = {
                    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                    match queue.0.next() {
                        Some(next) => next,
                        None => return Ok(()),
                    }
                };
                let path = || path.clone();
                let bytes = std::fs::read(path()).map_err(|source| SubjectError::Read {
                    path: path(),
                    source,
                })?;
                let analysis =
                    recognizer
                        .analyze(&bytes)
                        .map_err(|source| SubjectError::Analyze {
                            path: path(),
                            source,
                        })?;
                *face = subject(&analysis).cloned();
                let done = {
                    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                    queue.1 += 1;
                    queue.1
                };
                progress(done);
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .recognizers
                .iter_mut()
                .map(|recognizer| {
                    let work = &work;
                    scope.spawn(move || work(recognizer))
                })
                .collect();
            threads
                .into_iter()
                .try_for_each(|thread| match thread.join() {
                    Ok(outcome) => outcome,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
        })?;
        Ok(found)
    }

    /// Reads the photographs below a folder: those in a folder of their own are that person's, by
    /// the order of the names.
    ///
    /// # Errors
    /// Names the folder or the photograph that can not be read.
    pub fn people(&mut self, folder: &Path) -> anyhow::Result<Vec<LabelledPhotos>> {
        let photos = photos_in(folder)?;
        anyhow::ensure!(
            !photos.is_empty(),
            "there are no photographs in {}: name a folder with one folder a person",
            folder.display()
        );
        let bar = progress::bar(photos.len(), "embedding");
        let faces = self.subjects(&photos, |done| {
            bar.set_position(done as u64);
        })?;
        bar.finish_and_clear();
        let mut people: BTreeMap<PathBuf, LabelledPhotos> = BTreeMap::new();
        for (path, face) in photos.iter().zip(faces) {
            let parent = path.parent().context("a photograph is in a folder")?;
            let name = |path: &Path| {
                let name = path.file_name().unwrap_or_default();
                name.to_string_lossy().into_owned()
            };
            let person = people
                .entry(parent.to_owned())
                .or_insert_with(|| LabelledPhotos {
                    name: name(parent),
                    photos: Vec::new(),
                });
            person.photos.push((name(path), face));
        }
        Ok(people.into_values().collect())
    }
}
