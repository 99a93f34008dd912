//! The whole way from a photograph's bytes to its faces' embeddings, on one thread.
//!
//! A photograph without a face is no error: whether that matters is the caller's to decide.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use muster_jobs::{MAX_FACES, Quality};

use crate::align::{ALIGNED_SIZE, Aligner, SMALL_FACE_PX};
use crate::analysis::{Analysis, Face, StageTimes};
use crate::decode::{self, DecodeLimits, ImageError, Photo};
use crate::detect::{DETECTION_CUTOFF, Detector};
use crate::detection::{Detection, SAME_FACE_OVERLAP};
use crate::embed::{Embedded, Embedder};
use crate::engine::{Engine, EngineError};
use crate::look_again::{self, Sight};
use crate::models::{EmbedderModel, ModelFiles};
use crate::quality;
use crate::retinaface::RetinaFace;
use crate::turn::Turn;
use crate::views::Plan;

/// Faces of one photograph that are looked at again at most: a crowd would take seconds.
const MAX_SECOND_LOOKS: usize = 16;

/// How carefully a photograph is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// Faces of which the detector is sure are taken as it sees them.
    Usual,
    /// Of these too it is made certain how they are turned: whoever is enrolled upside down is never
    /// recognised.
    ToEnrol,
}

/// Why a photograph could not be analysed.
#[derive(Debug, thiserror::Error)]
pub enum RecognizeError {
    /// The photograph is at fault: answer its sender.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// This installation or process is at fault: hand the photograph to another worker.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// How a recognizer works.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where compiled models are kept between starts; nowhere when `None`.
    pub cache_dir: Option<PathBuf>,
    /// Inference threads; one by default, since more workers use cores better than more threads.
    pub threads: usize,
    /// What a photograph may cost to decode.
    pub limits: DecodeLimits,
    /// The detector's score from which a face counts.
    pub detection_cutoff: f32,
    /// Faces embedded in one photograph at most, the largest.
    pub max_faces: usize,
    /// Parts that the detector looks at of a large or long photograph at most.
    pub max_tiles: u32,
}

/// The default of [`Options::max_tiles`]: enough for a face of 48 pixels in all photographs of 50
/// megapixels.
pub const MAX_TILES: u32 = 72;

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_dir: None,
            threads: 1,
            limits: DecodeLimits::default(),
            detection_cutoff: DETECTION_CUTOFF,
            max_faces: MAX_FACES as usize,
            max_tiles: MAX_TILES,
        }
    }
}

/// The models, loaded, and every buffer a photograph needs; used by one thread.
pub struct Recognizer {
    detector: Detector,
    retinaface: RetinaFace,
    /// By name; the first is asked where none is named.
    embedders: Vec<(String, Embedder)>,
    aligner: Aligner,
    /// The face at work, turned upright: planar RGB `[3, 112, 112]`, 0-255.
    aligned: Vec<f32>,
    options: Options,
    // Last, so that it outlives the models compiled with it.
    engine: Engine,
}

impl Recognizer {
    /// Loads the runtime, the detector and the embedder; the second detector when it is first needed.
    ///
    /// # Errors
    ///
    /// [`RecognizeError::Engine`] when a file is missing or not what it should be.
    pub fn load(files: &ModelFiles, options: Options) -> Result<Self, RecognizeError> {
        let start = || {
            Engine::start(
                &files.runtime_library,
                options.cache_dir.as_deref(),
                options.threads,
            )
        };
        // Compiling is most of a worker's start; each model is compiled by a core of its own.
        let (detector, embedder) = std::thread::scope(|scope| {
            let embedder = scope.spawn(|| Embedder::load(&mut start()?, &files.embedder));
            let detector = start().and_then(|mut engine| {
                let cutoff = options.detection_cutoff;
                Ok((
                    Detector::load(&mut engine, &files.detector, cutoff)?,
                    engine,
                ))
            });
            let embedder = embedder
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (detector, embedder)
        });
        let ((detector, engine), embedder) = (detector?, embedder?);
        Ok(Self {
            detector,
            retinaface: RetinaFace::new(files.second_detector.clone()),
            embedders: vec![(files.embedder.name.clone(), embedder)],
            aligner: Aligner::default(),
            aligned: vec![0.0; 3 * ALIGNED_SIZE * ALIGNED_SIZE],
            options,
            engine,
        })
    }

    /// Whether the embedder of that name is loaded.
    #[must_use]
    pub fn knows(&self, model: &str) -> bool {
        self.embedders.iter().any(|(name, _)| name == model)
    }

    /// Loads one more embedder, unless it is loaded.
    ///
    /// # Errors
    ///
    /// [`RecognizeError::Engine`] when the file is missing or not what it should be.
    pub fn add_embedder(&mut self, model: &EmbedderModel) -> Result<(), RecognizeError> {
        if !self.knows(&model.name) {
            let embedder = Embedder::load(&mut self.engine, model)?;
            self.embedders.push((model.name.clone(), embedder));
        }
        Ok(())
    }

    /// Decodes a photograph and embeds every face in it; of an animation, in the first of its first ten
    /// pictures that shows one.
    ///
    /// # Errors
    ///
    /// [`RecognizeError::Image`] when the bytes are no photograph within the limits.
    pub fn analyze(&mut self, bytes: &[u8]) -> Result<Analysis, RecognizeError> {
        self.analyze_by(bytes, &[], Care::Usual)
    }

    /// Decodes a photograph and embeds every face in it with the embedders of these names, of which
    /// those that are not loaded are left out; where none is named the first is asked.
    ///
    /// # Errors
    ///
    /// As [`Self::analyze`].
    pub fn analyze_by(
        &mut self,
        bytes: &[u8],
        models: &[String],
        care: Care,
    ) -> Result<Analysis, RecognizeError> {
        let started = Instant::now();
        let mut picture = decode::open(bytes, &self.options.limits)?;
        let mut decode = started.elapsed();
        let mut analysis = self.analyze_photo_by(&picture.photo, models, care)?;
        analysis.repaired.append(&mut picture.repaired);
        // An animation may begin with a black picture, or with a title.
        let mut frame = 0;
        while analysis.faces.is_empty() {
            let started = Instant::now();
            if !picture.advance() {
                break;
            }
            decode += started.elapsed();
            frame += 1;
            let next = self.analyze_photo_by(&picture.photo, models, care)?;
            analysis.timing += next.timing;
            analysis.detector_runs.extend(next.detector_runs);
            analysis.second_looks.extend(next.second_looks);
            analysis.embedded_in_vain += next.embedded_in_vain;
            if !next.faces.is_empty() {
                (analysis.faces, analysis.frame) = (next.faces, frame);
                analysis.turn = next.turn;
            }
        }
        analysis.timing.decode = decode;
        Ok(analysis)
    }

    /// Embeds every face in a decoded photograph.
    ///
    /// # Errors
    ///
    /// [`RecognizeError::Engine`] when a model fails.
    pub fn analyze_photo(&mut self, photo: &Photo) -> Result<Analysis, RecognizeError> {
        self.analyze_photo_by(photo, &[], Care::Usual)
    }

    fn analyze_photo_by(
        &mut self,
        photo: &Photo,
        models: &[String],
        care: Care,
    ) -> Result<Analysis, RecognizeError> {
        let embedders = &self.embedders;
        let place = |model| embedders.iter().position(|(name, _)| name == model);
        let mut asked: Vec<usize> = models.iter().filter_map(place).collect();
        if asked.is_empty() {
            asked.push(0);
        }
        let mut work = Work {
            photo,
            asked: &asked,
            care,
            second_looks: 0,
            lap: Instant::now(),
            faces: Vec::new(),
            analysis: Analysis {
                width: photo.width,
                height: photo.height,
                frame: 0,
                repaired: Vec::new(),
                faces: Vec::new(),
                turn: Turn::None,
                timing: StageTimes::default(),
                detector_runs: Vec::new(),
                second_looks: Vec::new(),
                embedded_in_vain: 0,
            },
        };
        let found = self.detect(&mut work, Turn::None)?;
        if found.is_empty() {
            let seen = look_again::at_all_of(&mut self.retinaface, &mut self.engine, photo)?;
            work.looked_again(seen.runs);
            for sights in seen.faces.into_iter().take(self.options.max_faces) {
                let looks = self.look_at_each(&mut work, sights)?;
                let face = self.face(&mut work, looks)?;
                work.faces.push(Known {
                    face,
                    certain: true,
                });
            }
        }
        self.add_faces(&mut work, found, Turn::None)?;
        // What was found of a photograph that does not stand upright was found by chance.
        let turn = work.turn();
        if turn != Turn::None {
            let found = self.detect(&mut work, turn)?;
            self.add_faces(&mut work, found, turn)?;
        }
        let Work {
            mut analysis,
            faces,
            ..
        } = work;
        analysis.turn = turn;
        analysis.faces = faces.into_iter().map(|known| known.face).collect();
        let faces = &mut analysis.faces;
        faces.sort_by(|a, b| b.bounds.area().total_cmp(&a.bounds.area()));
        faces.truncate(self.options.max_faces);
        Ok(analysis)
    }

    /// Finds the faces of a photograph that stands upright once it is turned.
    fn detect(&mut self, work: &mut Work<'_>, turn: Turn) -> Result<Vec<Detection>, EngineError> {
        let photo = work.photo;
        let plan = Plan::new(photo.width, photo.height, turn, self.options.max_tiles);
        let mut found = self.detector.detect(&mut self.engine, photo, plan)?;
        found.faces.truncate(self.options.max_faces);
        work.analysis.detector_runs.extend(found.runs);
        work.lap(|timing| &mut timing.detect);
        Ok(found.faces)
    }

    /// Adds what was found by the detector in the photograph so turned. What it is sure of takes the
    /// place of what was there, and anything that of what was not certain.
    fn add_faces(
        &mut self,
        work: &mut Work<'_>,
        found: Vec<Detection>,
        turn: Turn,
    ) -> Result<(), EngineError> {
        for detection in found {
            let is_this =
                |known: &Known| known.face.bounds.overlap(&detection.bounds) > SAME_FACE_OVERLAP;
            let trusted = look_again::is_trusted(&detection);
            let is_known = work
                .faces
                .iter()
                .any(|known| known.certain && is_this(known));
            if !trusted && is_known {
                continue;
            }
            let first = Sight::first(detection, turn);
            let look = self.look_at(work, first)?;
            let weak = look_again::is_weak(&look.quality);
            // Nobody is left to say how it is turned.
            if weak && is_known && work.second_looks >= MAX_SECOND_LOOKS {
                work.analysis.embedded_in_vain += 1;
                continue;
            }
            let before = work.faces.len();
            work.faces.retain(|known| !is_this(known));
            work.analysis.embedded_in_vain += before - work.faces.len();
            let mut certain = trusted && !weak;
            let mut looks = vec![look];
            if (!certain || work.care == Care::ToEnrol) && work.second_looks < MAX_SECOND_LOOKS {
                let others = self.look_again(work, &first)?;
                // Landmarks of which both are sure, and a face of which much is seen.
                let confirmed = others
                    .first()
                    .is_some_and(|surest| surest.agrees_with(&first));
                if weak || !confirmed {
                    looks.extend(self.look_at_each(work, others)?);
                }
                certain = true;
            }
            let face = self.face(work, looks)?;
            work.faces.push(Known { face, certain });
        }
        Ok(())
    }

    /// The other ways to see a face, the surest first.
    fn look_again(
        &mut self,
        work: &mut Work<'_>,
        first: &Sight,
    ) -> Result<Vec<Sight>, EngineError> {
        work.second_looks += 1;
        let (retinaface, engine) = (&mut self.retinaface, &mut self.engine);
        let seen = look_again::at_face(retinaface, engine, work.photo, &first.detection)?;
        work.looked_again(seen.runs);
        Ok(seen.faces.into_iter().flatten().collect())
    }

    fn look_at_each(
        &mut self,
        work: &mut Work<'_>,
        sights: Vec<Sight>,
    ) -> Result<Vec<Look>, EngineError> {
        sights
            .into_iter()
            .map(|sight| self.look_at(work, sight))
            .collect()
    }

    /// Aligns, measures and embeds a face seen in that way.
    fn look_at(&mut self, work: &mut Work<'_>, sight: Sight) -> Result<Look, EngineError> {
        let quality = self.align(work, &sight);
        let model = work.asked[0];
        let made = self.embed(work, &sight, &quality, model)?;
        let quality = Quality {
            strength: self.embedders[model].1.strength(&made),
            ..quality
        };
        Ok(Look {
            sight,
            quality,
            made,
        })
    }

    /// Keeps of the ways in which one face was seen that of which the embedding is longest by
    /// [`Sight::head_start`], of equal ones the first.
    ///
    /// # Panics
    /// When there is none.
    fn face(&mut self, work: &mut Work<'_>, looks: Vec<Look>) -> Result<Face, EngineError> {
        work.analysis.embedded_in_vain += looks.len() - 1;
        let worth = |look: &Look| look.made.length * look.sight.head_start;
        let last = looks.len() - 1;
        let (at, best) = looks
            .into_iter()
            .enumerate()
            .reduce(|best, next| {
                if worth(&next.1) > worth(&best.1) {
                    next
                } else {
                    best
                }
            })
            .expect("a face is seen in some way");
        let Look {
            sight,
            quality,
            made,
        } = best;
        let mut others = Vec::with_capacity(work.asked.len() - 1);
        if work.asked.len() > 1 && at < last {
            self.align(work, &sight);
        }
        for model in &work.asked[1..] {
            others.push(self.embed(work, &sight, &quality, *model)?.embedding);
        }
        Ok(Face {
            bounds: sight.detection.bounds,
            landmarks: sight.detection.landmarks,
            confidence: sight.detection.confidence,
            turn: sight.turn,
            quality,
            embedding: made.embedding,
            others,
        })
    }

    /// Turns a face upright and measures it.
    fn align(&mut self, work: &mut Work<'_>, sight: &Sight) -> Quality {
        let Detection {
            landmarks, bounds, ..
        } = &sight.detection;
        let (aligner, aligned) = (&mut self.aligner, &mut self.aligned);
        aligner.align(work.photo, landmarks, bounds, aligned);
        let quality = quality::measure(landmarks, bounds, aligned);
        work.lap(|timing| &mut timing.align);
        quality
    }

    /// Embeds the face that was aligned last.
    fn embed(
        &mut self,
        work: &mut Work<'_>,
        sight: &Sight,
        quality: &Quality,
        model: usize,
    ) -> Result<Embedded, EngineError> {
        let (_, embedder) = &mut self.embedders[model];
        let (aligner, bounds) = (&mut self.aligner, &sight.detection.bounds);
        embedder.feed(aligner, work.photo, bounds, sight.turn, &self.aligned)?;
        let made = if is_small(quality) {
            embedder.embed_with_mirror_image()?
        } else {
            embedder.embed()?
        };
        work.lap(|timing| &mut timing.embed);
        Ok(made)
    }

    /// Runs the models as often and at the sizes that `analysis` needed, on ready tensors, and
    /// nothing else: the least time any pipeline with these models can take.
    ///
    /// # Errors
    ///
    /// [`RecognizeError::Engine`] when a model fails.
    pub fn run_models_alone(&mut self, analysis: &Analysis) -> Result<Duration, RecognizeError> {
        let started = Instant::now();
        for size in &analysis.detector_runs {
            self.detector.run_alone(&mut self.engine, *size)?;
        }
        for side in &analysis.second_looks {
            self.retinaface.run_alone(&mut self.engine, *side)?;
        }
        let runs = |face: &Face| if is_small(&face.quality) { 2 } else { 1 };
        let needed = analysis.faces.iter().map(runs).sum::<usize>();
        for _ in 0..needed + analysis.embedded_in_vain {
            self.embedders[0].1.run_alone()?;
        }
        Ok(started.elapsed())
    }
}

/// A face as it was seen in one way.
struct Look {
    sight: Sight,
    quality: Quality,
    made: Embedded,
}

/// A face of the photograph at work.
struct Known {
    face: Face,
    /// Whether it is known how the face is turned: the first detector was sure, or the second was asked.
    certain: bool,
}

/// A photograph at work.
struct Work<'a> {
    photo: &'a Photo,
    /// The places of the embedders that are asked; at least one.
    asked: &'a [usize],
    care: Care,
    /// Faces that were looked at again.
    second_looks: usize,
    /// When the last stage ended.
    lap: Instant,
    faces: Vec<Known>,
    /// All but its faces.
    analysis: Analysis,
}

impl Work<'_> {
    /// Adds the time since the last stage ended to a stage.
    fn lap(&mut self, stage: impl FnOnce(&mut StageTimes) -> &mut Duration) {
        let now = Instant::now();
        *stage(&mut self.analysis.timing) += now - std::mem::replace(&mut self.lap, now);
    }

    fn looked_again(&mut self, runs: Vec<u32>) {
        self.analysis.second_looks.extend(runs);
        self.lap(|timing| &mut timing.detect);
    }

    /// How the photograph stands, by the faces of which it is known.
    fn turn(&self) -> Turn {
        let certain = self.faces.iter().filter(|known| known.certain);
        look_again::turn_of(certain.map(|Known { face, .. }| (&face.bounds, face.turn)))
    }
}

/// Whether a face is embedded twice, as it is and as its mirror image.
fn is_small(quality: &Quality) -> bool {
    quality.size_px < SMALL_FACE_PX
}
