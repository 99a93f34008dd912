//! The whole way from a photograph's bytes to its faces' embeddings, on one thread.
//!
//! A photograph without a face is no error: whether that matters is the caller's to decide.

use std::ops::AddAssign;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use muster_jobs::{Embedding, FaceBox, FaceProbe, MAX_FACES, Quality, Repair};

use crate::align::{ALIGNED_SIZE, Aligner, SMALL_FACE_PX};
use crate::bounds::Bounds;
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
pub const MAX_TILES: u32 = 48;

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

/// How long each stage took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// Bytes to pixels; zero for a photograph that came decoded.
    pub decode: Duration,
    /// Finding the faces, every look together.
    pub detect: Duration,
    /// Aligning and measuring the quality, all faces together.
    pub align: Duration,
    /// Embedding, all faces together.
    pub embed: Duration,
}

impl StageTimes {
    /// Returns the sum of the stages.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.decode + self.detect + self.align + self.embed
    }
}

impl AddAssign for StageTimes {
    fn add_assign(&mut self, more: Self) {
        self.decode += more.decode;
        self.detect += more.detect;
        self.align += more.align;
        self.embed += more.embed;
    }
}

/// A face found in a photograph.
#[derive(Debug, Clone, PartialEq)]
pub struct Face {
    /// The face's box, within the photograph.
    pub bounds: Bounds,
    /// Eyes, nose, corners of the mouth, left to right as seen in the picture once it is turned;
    /// those of a face cut by the edge may lie outside the photograph.
    pub landmarks: [[f32; 2]; 5],
    /// The detector's score, from the cutoff to 1.
    pub confidence: f32,
    /// How the photograph has to be turned for the face to be upright, about.
    pub turn: Turn,
    /// How fit it is to be compared.
    pub quality: Quality,
    /// Who it looks like, to the first of the models that were asked.
    pub embedding: Embedding,
    /// Who it looks like to the other models, in the order in which they were named.
    pub others: Vec<Embedding>,
}

impl<'a> From<&'a Face> for FaceProbe<'a> {
    fn from(face: &'a Face) -> Self {
        Self {
            bounds: FaceBox::from(&face.bounds),
            landmarks: face.landmarks,
            confidence: face.confidence,
            turned_deg: face.turn.degrees(),
            quality: face.quality,
            embedding: &face.embedding,
        }
    }
}

/// What a photograph shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Analysis {
    /// The upright photograph's width in pixels.
    pub width: u32,
    /// The upright photograph's height in pixels.
    pub height: u32,
    /// Which picture of an animation the faces are in, counted from 0.
    pub frame: u32,
    /// What was wrong with the file and was put right.
    pub repaired: Vec<Repair>,
    /// The faces, largest first; empty when there is none.
    pub faces: Vec<Face>,
    /// How the photograph has to be turned to stand upright, by its faces.
    pub turn: Turn,
    /// How long each stage took.
    pub timing: StageTimes,
    /// The detector's input size, width and height, for each of its runs.
    pub detector_runs: Vec<(u32, u32)>,
    /// The side of the second detector's input for each of its runs: none where the first was sure.
    pub second_looks: Vec<u32>,
    /// Faces that were embedded to be seen as something else in the end.
    pub embedded_in_vain: usize,
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
                let face = self.face(&mut work, &sights)?;
                work.analysis.faces.push(face);
            }
        }
        self.add_faces(&mut work, found, Turn::None)?;
        // What was found of a photograph that does not stand upright was found by chance.
        let turn = work.turn();
        if turn != Turn::None {
            let found = self.detect(&mut work, turn)?;
            self.add_faces(&mut work, found, turn)?;
        }
        let Work { mut analysis, .. } = work;
        analysis.turn = turn;
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
    /// place of what was there; anything else is looked at again unless it was there.
    fn add_faces(
        &mut self,
        work: &mut Work<'_>,
        found: Vec<Detection>,
        turn: Turn,
    ) -> Result<(), EngineError> {
        for detection in found {
            let known = |face: &Face| face.bounds.overlap(&detection.bounds) > SAME_FACE_OVERLAP;
            let trusted = look_again::is_trusted(&detection);
            if trusted {
                let before = work.analysis.faces.len();
                work.analysis.faces.retain(|face| !known(face));
                work.analysis.embedded_in_vain += before - work.analysis.faces.len();
            } else if work.analysis.faces.iter().any(known) {
                continue;
            }
            let first = Sight::first(detection, turn);
            let mut sights = vec![first];
            if !trusted || work.care == Care::ToEnrol {
                sights.extend(self.look_again(work, &first)?);
            }
            let mut face = self.face(work, &sights)?;
            if trusted && work.care == Care::Usual && look_again::is_weak(&face.quality) {
                sights.extend(self.look_again(work, &first)?);
                if sights.len() > 1 {
                    work.analysis.embedded_in_vain += 1;
                    face = self.face(work, &sights)?;
                }
            }
            work.analysis.faces.push(face);
        }
        Ok(())
    }

    /// The other ways to see a face; none where the second detector sees it as the first does, nor where enough
    /// faces of the photograph were looked at again.
    fn look_again(
        &mut self,
        work: &mut Work<'_>,
        first: &Sight,
    ) -> Result<Vec<Sight>, EngineError> {
        if work.second_looks == MAX_SECOND_LOOKS {
            return Ok(Vec::new());
        }
        work.second_looks += 1;
        let (retinaface, engine) = (&mut self.retinaface, &mut self.engine);
        let seen = look_again::at_face(retinaface, engine, work.photo, &first.detection)?;
        work.looked_again(seen.runs);
        let others: Vec<Sight> = seen.faces.into_iter().flatten().collect();
        Ok(match others.first() {
            Some(surest) if surest.agrees_with(first) => Vec::new(),
            _ => others,
        })
    }

    /// Embeds the face that may be seen in these ways, and keeps the one of which the embedding is
    /// longest by [`Sight::head_start`], of equal ones the first.
    ///
    /// # Panics
    /// When there is none.
    fn face(&mut self, work: &mut Work<'_>, sights: &[Sight]) -> Result<Face, EngineError> {
        let mut best: Option<(usize, Quality, Embedded)> = None;
        let mut most = 0.0;
        for (at, sight) in sights.iter().enumerate() {
            let quality = self.align(work, sight);
            let made = self.embed(work, sight, &quality, work.asked[0])?;
            let worth = made.length * sight.head_start;
            if best.is_none() || worth > most {
                (best, most) = (Some((at, quality, made)), worth);
            }
        }
        let (at, quality, made) = best.expect("a face is seen in some way");
        let sight = &sights[at];
        let strength = self.embedders[work.asked[0]].1.strength(&made);
        work.analysis.embedded_in_vain += sights.len() - 1;
        let mut others = Vec::with_capacity(work.asked.len() - 1);
        if work.asked.len() > 1 && at + 1 < sights.len() {
            self.align(work, sight);
        }
        for model in &work.asked[1..] {
            others.push(self.embed(work, sight, &quality, *model)?.embedding);
        }
        Ok(Face {
            bounds: sight.detection.bounds,
            landmarks: sight.detection.landmarks,
            confidence: sight.detection.confidence,
            turn: sight.turn,
            quality: Quality {
                strength,
                ..quality
            },
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

    fn turn(&self) -> Turn {
        let faces = self.analysis.faces.iter();
        look_again::turn_of(faces.map(|face| (&face.bounds, face.turn)))
    }
}

/// Whether a face is embedded twice, as it is and as its mirror image.
fn is_small(quality: &Quality) -> bool {
    quality.size_px < SMALL_FACE_PX
}
