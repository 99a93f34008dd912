//! The installed models on all cores, and the faces that they find in labelled photographs, as they are or
//! perturbed.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use muster_recognize::analysis::{Analysis, Face};
use muster_recognize::bounds::Bounds;
use muster_recognize::models::Installation;
use muster_recognize::recognizer::{Options, RecognizeError, Recognizer};

use super::people::{LabelledPhotos, SeenPhoto, file_name};
use super::perturbation::Perturbation;
use crate::photos::pixels;
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
    /// A photograph cannot be perturbed.
    #[error("cannot make \"{perturbation}\" of the photograph {}", path.display())]
    Perturb {
        /// The photograph.
        path: PathBuf,
        /// What was to be made of it.
        perturbation: Perturbation,
        /// Why.
        #[source]
        source: anyhow::Error,
    },
}

/// Chooses the face a portrait-like photograph is of.
///
/// Bystanders are smaller, further from the middle or both, so it is the face whose size most
/// exceeds its distance from the middle. Taking the largest would choose a bystander who stands
/// nearer to the camera, taking the nearest a small one that happens to be behind the middle.
fn subject(analysis: &Analysis) -> Option<&Face> {
    let whole = Bounds {
        x: 0.0,
        y: 0.0,
        width: analysis.width as f32,
        height: analysis.height as f32,
    };
    subject_within(analysis, &whole)
}

/// Chooses the subject among the faces whose middles lie in a part of the photograph.
fn subject_within<'a>(analysis: &'a Analysis, part: &Bounds) -> Option<&'a Face> {
    let prominence = |face: &Face| {
        let ([x, y], middle) = (face.bounds.centre(), part.centre());
        face.bounds.area().sqrt() - ((x - middle[0]).powi(2) + (y - middle[1]).powi(2)).sqrt()
    };
    let within = |face: &&Face| {
        let [x, y] = face.bounds.centre();
        (part.x..=part.x + part.width).contains(&x) && (part.y..=part.y + part.height).contains(&y)
    };
    let faces = analysis.faces.iter().filter(within);
    faces.max_by(|a, b| prominence(a).total_cmp(&prominence(b)))
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
        let seen = self.subjects_as(photos, &[None], progress)?;
        Ok(seen.into_iter().map(|mut only| only.remove(0)).collect())
    }

    /// [`Self::subjects`], of each photograph perturbed in each of these ways in turn, or as it is.
    fn subjects_as(
        &mut self,
        photos: &[PathBuf],
        made: &[Option<Perturbation>],
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
                *faces = subject_as(recognizer, path, made)?;
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

    /// Looks at people's photographs.
    ///
    /// # Errors
    /// Names the photograph that can not be read.
    pub fn people(
        &mut self,
        people: &[LabelledPhotos<PathBuf>],
    ) -> anyhow::Result<Vec<LabelledPhotos>> {
        Ok(self.people_as(people, &[None])?.remove(0))
    }

    /// [`Self::people`] with their photographs perturbed in each of these ways in turn, or as they are.
    ///
    /// # Errors
    /// As [`Self::people`].
    pub fn people_as(
        &mut self,
        people: &[LabelledPhotos<PathBuf>],
        made: &[Option<Perturbation>],
    ) -> anyhow::Result<Vec<Vec<LabelledPhotos>>> {
        let photos: Vec<PathBuf> = people.iter().flat_map(|one| one.photos.clone()).collect();
        let bar = progress::bar(photos.len(), "embedding");
        let mut seen = self.subjects_as(&photos, made, |done| {
            bar.set_position(done as u64);
        })?;
        bar.finish_and_clear();
        let mut all = Vec::with_capacity(made.len());
        for place in 0..made.len() {
            let mut faces = seen.iter_mut().map(|faces| faces[place].take());
            let person = |one: &LabelledPhotos<PathBuf>| LabelledPhotos {
                name: one.name.clone(),
                photos: one
                    .photos
                    .iter()
                    .zip(&mut faces)
                    .map(|(path, face)| (file_name(path), face))
                    .collect::<Vec<SeenPhoto>>(),
            };
            all.push(people.iter().map(person).collect());
        }
        Ok(all)
    }
}

/// The face that a photograph is of, with the photograph perturbed in each of these ways in turn, or as it
/// is.
///
/// In a perturbed photograph it is looked for where it must be. A photograph that shows no face as it is
/// has no subject to be made hard to find, and is not perturbed.
fn subject_as(
    recognizer: &mut Recognizer,
    path: &Path,
    made: &[Option<Perturbation>],
) -> Result<Vec<Option<Face>>, SubjectError> {
    let bytes = std::fs::read(path).map_err(|source| SubjectError::Read {
        path: path.to_owned(),
        source,
    })?;
    let refused = |source| SubjectError::Analyze {
        path: path.to_owned(),
        source,
    };
    let as_it_is = recognizer.analyze(&bytes).map_err(refused)?;
    let Some(as_it_is) = subject(&as_it_is) else {
        return Ok(vec![None; made.len()]);
    };
    let photo = made.iter().any(Option::is_some).then(|| pixels(&bytes));
    let photo = photo.transpose().map_err(|source| refused(source.into()))?;
    let mut faces = Vec::with_capacity(made.len());
    for perturbation in made {
        let perturbed = match (perturbation, &photo) {
            (Some(perturbation), Some(photo)) => {
                let made = perturbation.apply(photo, as_it_is);
                made.map_err(|source| SubjectError::Perturb {
                    path: path.to_owned(),
                    perturbation: *perturbation,
                    source,
                })?
            }
            _ => None,
        };
        faces.push(match perturbed {
            Some(perturbed) => {
                let seen = recognizer.analyze(&perturbed.bytes).map_err(refused)?;
                subject_within(&seen, &perturbed.subject).cloned()
            }
            None => Some(as_it_is.clone()),
        });
    }
    Ok(faces)
}
