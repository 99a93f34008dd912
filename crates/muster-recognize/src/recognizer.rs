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
use crate::embed::Embedder;
use crate::engine::{Engine, EngineError};
use crate::models::{EmbedderModel, ModelFiles};
use crate::quality;

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
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_dir: None,
            threads: 1,
            limits: DecodeLimits::default(),
            detection_cutoff: DETECTION_CUTOFF,
            max_faces: MAX_FACES as usize,
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
    /// Eyes, nose, corners of the mouth, left to right as seen in the picture; those of a face
    /// cut by the edge may lie outside the photograph.
    pub landmarks: [[f32; 2]; 5],
    /// The detector's score, from the cutoff to 1.
    pub confidence: f32,
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
    /// How long each stage took.
    pub timing: StageTimes,
    /// The detector's input size, width and height, for each of its runs.
    pub detector_runs: Vec<(u32, u32)>,
}

/// The models, loaded, and every buffer a photograph needs; used by one thread.
pub struct Recognizer {
    detector: Detector,
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
    /// Loads the runtime and both models.
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
        self.analyze_by(bytes, &[])
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
    ) -> Result<Analysis, RecognizeError> {
        let started = Instant::now();
        let mut picture = decode::open(bytes, &self.options.limits)?;
        let mut decode = started.elapsed();
        let mut analysis = self.analyze_photo_by(&picture.photo, models)?;
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
            let next = self.analyze_photo_by(&picture.photo, models)?;
            analysis.timing += next.timing;
            analysis.detector_runs.extend(next.detector_runs);
            if !next.faces.is_empty() {
                (analysis.faces, analysis.frame) = (next.faces, frame);
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
        self.analyze_photo_by(photo, &[])
    }

    fn analyze_photo_by(
        &mut self,
        photo: &Photo,
        models: &[String],
    ) -> Result<Analysis, RecognizeError> {
        let embedders = &self.embedders;
        let place = |model| embedders.iter().position(|(name, _)| name == model);
        let mut asked: Vec<usize> = models.iter().filter_map(place).collect();
        if asked.is_empty() {
            asked.push(0);
        }
        let mut timing = StageTimes::default();
        let mut started = Instant::now();
        let mut lap = || {
            let now = Instant::now();
            now - std::mem::replace(&mut started, now)
        };
        let found = self
            .detector
            .detect(&mut self.engine, photo, self.options.max_faces)?;
        timing.detect = lap();
        let mut faces = Vec::with_capacity(found.faces.len());
        for seen in found.faces {
            let (aligner, aligned) = (&mut self.aligner, &mut self.aligned);
            aligner.align(photo, &seen.landmarks, &seen.bounds, aligned);
            let quality = quality::measure(&seen.landmarks, &seen.bounds, aligned);
            timing.align += lap();
            let mut made = Vec::with_capacity(asked.len());
            for place in &asked {
                let (_, embedder) = &mut self.embedders[*place];
                embedder.feed(aligner, photo, &seen.bounds, aligned)?;
                made.push(if is_small(&quality) {
                    embedder.embed_with_mirror_image()?
                } else {
                    embedder.embed()?
                });
            }
            timing.embed += lap();
            let mut made = made.into_iter();
            let Some(embedding) = made.next() else {
                continue;
            };
            faces.push(Face {
                bounds: seen.bounds,
                landmarks: seen.landmarks,
                confidence: seen.confidence,
                quality,
                embedding,
                others: made.collect(),
            });
        }
        Ok(Analysis {
            width: photo.width,
            height: photo.height,
            frame: 0,
            repaired: Vec::new(),
            faces,
            timing,
            detector_runs: found.runs,
        })
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
        for face in &analysis.faces {
            let runs = if is_small(&face.quality) { 2 } else { 1 };
            for _ in 0..runs {
                self.embedders[0].1.run_alone()?;
            }
        }
        Ok(started.elapsed())
    }
}

/// Whether a face is embedded twice, as it is and as its mirror image.
fn is_small(quality: &Quality) -> bool {
    quality.size_px < SMALL_FACE_PX
}
