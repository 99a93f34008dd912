//! The installed models on all cores, and the faces that they find in labelled photographs, as they are or
//! made smaller.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use muster_recognize::models::Installation;
use muster_recognize::recognizer::{Analysis, Face, Options, RecognizeError, Recognizer};

use super::people::LabelledPhotos;
use crate::photos::{PhotoError, photos_in, smaller};
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
    /// A photograph cannot be made smaller.
    #[error("cannot make the photograph {} smaller", path.display())]
    Resize {
        /// The photograph.
        path: PathBuf,
        /// Why.
        #[source]
        source: PhotoError,
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
        let seen = self.subjects_at(photos, &[None], progress)?;
        Ok(seen.into_iter().map(|mut sizes| sizes.remove(0)).collect())
    }

    /// [`Self::subjects`], of each photograph for each of these sizes in turn: as it is, or made so much
    /// smaller that the face has so many pixels ([`muster_jobs::Quality::size_px`]). No photograph is
    /// enlarged.
    fn subjects_at(
        &mut self,
        photos: &[PathBuf],
        sizes: &[Option<f32>],
        progress: impl Fn(usize) + Sync,
    ) -> Result<Vec<Vec<Option<Face>>>, SubjectError> {
        let mut found: Vec<Vec<Option<Face>>> = vec![Vec::new(); photos.len()];
        let queue = Mutex::new((photos.iter().zip(&mut found), 0));
        let work = |recognizer: &mut Recognizer| -> Result<(), SubjectError> {
            loop {
                let (path, faces) = {
                    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                    match queue.0.next() {
                        Some(next) => next,
                        None => return Ok(()),
                    }
                };
                *faces = subject_at(recognizer, path, sizes)?;
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
        Ok(self.people_at(folder, &[None])?.remove(0))
    }

    /// [`Self::people`] for each of these sizes in turn: with the photographs as they are, or made so
    /// much smaller that each one's face has so many pixels.
    ///
    /// # Errors
    /// As [`Self::people`].
    pub fn people_at(
        &mut self,
        folder: &Path,
        sizes: &[Option<f32>],
    ) -> anyhow::Result<Vec<Vec<LabelledPhotos>>> {
        let photos = photos_in(folder)?;
        anyhow::ensure!(
            !photos.is_empty(),
            "there are no photographs in {}: name a folder with one folder a person",
            folder.display()
        );
        let bar = progress::bar(photos.len(), "embedding");
        let mut seen = self.subjects_at(&photos, sizes, |done| {
            bar.set_position(done as u64);
        })?;
        bar.finish_and_clear();
        let mut all = Vec::with_capacity(sizes.len());
        for size in 0..sizes.len() {
            let mut people: BTreeMap<PathBuf, LabelledPhotos> = BTreeMap::new();
            for (path, faces) in photos.iter().zip(&mut seen) {
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
                person.photos.push((name(path), faces[size].take()));
            }
            all.push(people.into_values().collect());
        }
        Ok(all)
    }
}

/// The face that a photograph is of, at each of these sizes in turn.
fn subject_at(
    recognizer: &mut Recognizer,
    path: &Path,
    sizes: &[Option<f32>],
) -> Result<Vec<Option<Face>>, SubjectError> {
    let bytes = std::fs::read(path).map_err(|source| SubjectError::Read {
        path: path.to_owned(),
        source,
    })?;
    let mut analyze = |bytes: &[u8]| match recognizer.analyze(bytes) {
        Ok(analysis) => Ok(subject(&analysis).cloned()),
        Err(source) => Err(SubjectError::Analyze {
            path: path.to_owned(),
            source,
        }),
    };
    let as_it_is = analyze(&bytes)?;
    let at = |size: &Option<f32>| {
        let scale = match (size, &as_it_is) {
            (Some(size), Some(face)) => size / face.quality.size_px,
            _ => 1.0,
        };
        if scale >= 1.0 {
            return Ok(as_it_is.clone());
        }
        let made = smaller(&bytes, scale).map_err(|source| SubjectError::Resize {
            path: path.to_owned(),
            source,
        })?;
        analyze(&made)
    };
    sizes.iter().map(at).collect()
}
