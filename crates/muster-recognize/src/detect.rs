//! Detection: every face in a photograph, with five landmarks each.
//!
//! The detector is YuNet (2023mar). It runs at two fixed input sizes only, so that at most two
//! models are ever compiled: photographs are fitted into a square, and what needs more resolution
//! is read as overlapping tiles.

use std::path::Path;

use crate::bounds::Bounds;
use crate::decode::Photo;
use crate::detection::{Detection, suppress};
use crate::engine::{Engine, EngineError, Output, Session, SourceModel};
use crate::feed::place;
use crate::resample::Resampler;
use crate::views::{InputSize, Plan};

/// The score from which a detection counts as a face.
///
/// OpenCV's default for this model is 0.9, tuned for few false faces in video. Photographs are
/// looked at once, so blurred and half-hidden faces, which score 0.7 to 0.9, should count.
pub const DETECTION_CUTOFF: f32 = 0.8;

/// The name of YuNet's input.
const INPUT: &str = "input";

/// The pixels between two cells of each of YuNet's three grids.
const STRIDES: [usize; 3] = [8, 16, 32];

/// What was found in one photograph.
#[derive(Debug, Clone, Default)]
pub struct Detections {
    /// The faces, largest first.
    pub faces: Vec<Detection>,
    /// The input size, width and height, of every run of the model, in order.
    pub runs: Vec<(u32, u32)>,
}

/// The detection model at its two input sizes.
pub struct Detector {
    sizes: Sizes,
    resampler: Resampler,
    cutoff: f32,
}

impl Detector {
    /// Loads the model at `path` and compiles its smaller size.
    ///
    /// # Errors
    ///
    /// [`EngineError::Model`], or [`EngineError::Unsuitable`] when the outputs are not YuNet's.
    pub fn load(engine: &mut Engine, path: &Path, cutoff: f32) -> Result<Self, EngineError> {
        let mut source = engine.read(path)?;
        let small = Grids::compile(engine, &mut source, InputSize::Small)?;
        let sizes = Sizes {
            source,
            small,
            large: None,
        };
        Ok(Self {
            sizes,
            resampler: Resampler::default(),
            cutoff,
        })
    }

    /// Finds every face of a photograph in what the plan has it look at, largest first.
    ///
    /// # Errors
    ///
    /// [`EngineError::Run`], or [`EngineError::Model`] when the larger size is compiled.
    pub(crate) fn detect(
        &mut self,
        engine: &mut Engine,
        photo: &Photo,
        mut plan: Plan,
    ) -> Result<Detections, EngineError> {
        let mut found = Detections::default();
        let whole = Bounds {
            x: 0.0,
            y: 0.0,
            width: photo.width as f32,
            height: photo.height as f32,
        };
        if whole.area() == 0.0 {
            return Ok(found);
        }
        while let Some(views) = plan.next(&found.faces) {
            let before = std::mem::take(&mut found.faces);
            let mut candidates = before;
            for view in &views {
                let grids = self.sizes.at(engine, view.side)?;
                let pixels =
                    self.resampler
                        .resize_quickly(photo, &view.source, view.width, view.height);
                place(pixels, view, grids.session.input_mut()?);
                grids.session.run()?;
                found.runs.push((view.side, view.side));
                grids.decode(self.cutoff, |seen| {
                    if view.holds(&seen.bounds) {
                        candidates.push(view.to_photo(&seen));
                    }
                })?;
            }
            found.faces = suppress(candidates);
        }
        for face in &mut found.faces {
            face.bounds = face.bounds.intersection(&whole);
        }
        found.faces.retain(|face| face.bounds.area() >= 1.0);
        found
            .faces
            .sort_by(|a, b| b.bounds.area().total_cmp(&a.bounds.area()));
        Ok(found)
    }

    /// Runs the model once at an input size `detect` has used, on whatever its tensor holds.
    ///
    /// # Errors
    ///
    /// As `detect`.
    pub fn run_alone(
        &mut self,
        engine: &mut Engine,
        (width, _): (u32, u32),
    ) -> Result<(), EngineError> {
        self.sizes.at(engine, width)?.session.run()
    }
}

/// The model, compiled for each input size that was needed so far.
struct Sizes {
    source: SourceModel,
    small: Grids,
    /// Compiled when first needed: most small photographs never do.
    large: Option<Grids>,
}

impl Sizes {
    fn at(&mut self, engine: &mut Engine, side: u32) -> Result<&mut Grids, EngineError> {
        if side == InputSize::Small.side() {
            return Ok(&mut self.small);
        }
        match &mut self.large {
            Some(large) => Ok(large),
            slot => {
                let large = Grids::compile(engine, &mut self.source, InputSize::Large)?;
                Ok(slot.insert(large))
            }
        }
    }
}

/// The model compiled for one input size.
struct Grids {
    // Fields drop in order: the outputs go before the session they belong to.
    /// The outputs `cls`, `obj`, `bbox` and `kps` of each stride.
    outputs: [[Output; 4]; STRIDES.len()],
    session: Session,
    side: usize,
}

impl Grids {
    fn compile(
        engine: &mut Engine,
        source: &mut SourceModel,
        input: InputSize,
    ) -> Result<Self, EngineError> {
        let side = i64::from(input.side());
        let session = engine.compile(source, INPUT, [1, 3, side, side])?;
        let output = |kind, stride| session.output(&format!("{kind}_{stride}"));
        let at = |stride| -> Result<[Output; 4], EngineError> {
            Ok([
                output("cls", stride)?,
                output("obj", stride)?,
                output("bbox", stride)?,
                output("kps", stride)?,
            ])
        };
        let [small, middle, large] = STRIDES.map(at);
        let (Ok(small), Ok(middle), Ok(large)) = (small, middle, large) else {
            return Err(source.unsuitable(
                "YuNet's outputs cls, obj, bbox and kps at strides 8, 16, 32 were expected",
            ));
        };
        Ok(Self {
            outputs: [small, middle, large],
            session,
            side: input.side() as usize,
        })
    }

    /// Gives every detection of the last run that reaches the cutoff, in input pixels.
    ///
    /// The formulas are those of OpenCV's `FaceDetectorYN` (`face_detect.cpp`): a cell's score is
    /// the geometric mean of `cls` and `obj`, its box's centre and its landmarks are offsets from
    /// the cell's corner in strides, its box's sides are exponents of e in strides.
    fn decode(&self, cutoff: f32, mut each: impl FnMut(Detection)) -> Result<(), EngineError> {
        for (stride, [cls, obj, bbox, kps]) in STRIDES.into_iter().zip(&self.outputs) {
            let boxes = bbox.values()?.as_chunks::<4>().0;
            let points = kps.values()?.as_chunks::<10>().0;
            let scores = cls.values()?.iter().zip(obj.values()?);
            let columns = self.side / stride;
            for (cell, ((cls, obj), (shape, points))) in
                scores.zip(boxes.iter().zip(points)).enumerate()
            {
                let confidence = (cls.clamp(0.0, 1.0) * obj.clamp(0.0, 1.0)).sqrt();
                if confidence >= cutoff {
                    let corner = [(cell % columns) as f32, (cell / columns) as f32];
                    each(decode_cell(
                        stride as f32,
                        corner,
                        confidence,
                        shape,
                        points,
                    ));
                }
            }
        }
        Ok(())
    }
}

fn decode_cell(
    stride: f32,
    [column, row]: [f32; 2],
    confidence: f32,
    shape: &[f32; 4],
    points: &[f32; 10],
) -> Detection {
    let [x, y, width, height] = *shape;
    let (width, height) = (width.exp() * stride, height.exp() * stride);
    let mut landmarks = [[0.0; 2]; 5];
    for (landmark, point) in landmarks.iter_mut().zip(points.as_chunks::<2>().0) {
        *landmark = [(point[0] + column) * stride, (point[1] + row) * stride];
    }
    Detection {
        bounds: Bounds {
            x: (x + column) * stride - width / 2.0,
            y: (y + row) * stride - height / 2.0,
            width,
            height,
        },
        landmarks,
        confidence,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_decodes_to_its_place() {
        let seen = decode_cell(
            16.0,
            [3.0, 2.0],
            0.9,
            &[0.5, 0.25, 0.0, 2f32.ln()],
            &[0.0, 1.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0],
        );
        assert_eq!(seen.bounds.centre(), [56.0, 36.0]);
        assert_eq!(
            (seen.bounds.width, seen.bounds.height.round()),
            (16.0, 32.0)
        );
        assert_eq!(seen.landmarks[0], [48.0, 48.0]);
        assert_eq!(seen.landmarks[1], [56.0, 32.0]);
        assert_eq!(seen.landmarks[4], [32.0, 32.0]);
    }
}
