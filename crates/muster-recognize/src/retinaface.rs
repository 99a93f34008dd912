//! The second detector, which looks where the first is in doubt.
//!
//! It is RetinaFace (Deng et al., CVPR 2020) with a MobileNet of a quarter of the width, as trained by
//! the MIT-licensed PyTorch implementation of biubug6. Its landmarks hold for faces that are turned in
//! the picture by up to 45 degrees, and better for profiles; it sees fewer small faces than YuNet.

use std::path::PathBuf;

use crate::bounds::Bounds;
use crate::decode::Photo;
use crate::detection::Detection;
use crate::engine::{Engine, EngineError, Output, Session, SourceModel};
use crate::feed::place;
use crate::resample::Resampler;
use crate::views::View;

/// The name of the model's input.
const INPUT: &str = "input";

/// What is subtracted of blue, green and red: the means it was trained with.
const MEANS: [f32; 3] = [104.0, 117.0, 123.0];

/// Pixels between two cells of each of the three grids, and the sides of the two anchors of a cell
/// (`cfg_mnet` in biubug6's `data/config.py`).
const GRIDS: [(usize, [f32; 2]); 3] =
    [(8, [16.0, 32.0]), (16, [64.0, 128.0]), (32, [256.0, 512.0])];

/// The scales of an offset from an anchor's middle, and of the logarithm of a side (`variance` there).
const VARIANCES: [f32; 2] = [0.1, 0.2];

/// The second detector at the input sizes that were needed so far; it is loaded when first needed.
pub(crate) struct RetinaFace {
    file: PathBuf,
    source: Option<SourceModel>,
    sizes: Vec<Anchors>,
    resampler: Resampler,
}

impl RetinaFace {
    /// Keeps in mind where the model is.
    pub(crate) fn new(file: PathBuf) -> Self {
        Self {
            file,
            source: None,
            sizes: Vec::new(),
            resampler: Resampler::default(),
        }
    }

    /// Gives every detection of a view that reaches the cutoff, in pixels of the photograph, several of
    /// one face among them.
    ///
    /// # Errors
    ///
    /// [`EngineError::Run`], or [`EngineError::Model`] when a size is compiled.
    pub(crate) fn look(
        &mut self,
        engine: &mut Engine,
        photo: &Photo,
        view: &View,
        cutoff: f32,
    ) -> Result<Vec<Detection>, EngineError> {
        let place_of = self.compiled(engine, view.side)?;
        let Self {
            sizes, resampler, ..
        } = self;
        let anchors = &mut sizes[place_of];
        let pixels = resampler.resize_quickly(photo, &view.source, view.width, view.height);
        let input = anchors.session.input_mut()?;
        place(pixels, view, input);
        let plane = input.len() / MEANS.len();
        for (plane, mean) in input.chunks_exact_mut(plane).zip(MEANS) {
            plane.iter_mut().for_each(|value| *value -= mean);
        }
        anchors.session.run()?;
        let mut found = Vec::new();
        anchors.decode(cutoff, |seen| found.push(view.to_photo(&seen)))?;
        Ok(found)
    }

    /// Runs the model once at an input size that was looked at, on whatever its tensor holds.
    ///
    /// # Errors
    ///
    /// As [`Self::look`].
    pub(crate) fn run_alone(&mut self, engine: &mut Engine, side: u32) -> Result<(), EngineError> {
        let at = self.compiled(engine, side)?;
        self.sizes[at].session.run()
    }

    /// Loads and compiles what is not yet, and returns its place.
    fn compiled(&mut self, engine: &mut Engine, side: u32) -> Result<usize, EngineError> {
        let known = |anchors: &Anchors| anchors.side == side as usize;
        if let Some(at) = self.sizes.iter().position(known) {
            return Ok(at);
        }
        let source = match &mut self.source {
            Some(source) => source,
            none => none.insert(engine.read(&self.file)?),
        };
        self.sizes.push(Anchors::compile(engine, source, side)?);
        Ok(self.sizes.len() - 1)
    }
}

/// The model compiled for one input size.
struct Anchors {
    // Fields drop in order: the outputs go before the session they belong to.
    boxes: Output,
    scores: Output,
    landmarks: Output,
    session: Session,
    side: usize,
}

impl Anchors {
    fn compile(
        engine: &mut Engine,
        source: &mut SourceModel,
        side: u32,
    ) -> Result<Self, EngineError> {
        let length = i64::from(side);
        let session = engine.compile(source, INPUT, [1, 3, length, length])?;
        let outputs = ["loc", "conf", "landmarks"].map(|name| session.output(name));
        let [Ok(boxes), Ok(scores), Ok(landmarks)] = outputs else {
            return Err(
                source.unsuitable("RetinaFace's outputs loc, conf and landmarks were expected")
            );
        };
        Ok(Self {
            boxes,
            scores,
            landmarks,
            session,
            side: side as usize,
        })
    }

    /// Gives every detection of the last run that reaches the cutoff, in input pixels.
    fn decode(&self, cutoff: f32, mut each: impl FnMut(Detection)) -> Result<(), EngineError> {
        let boxes = self.boxes.values()?.as_chunks::<4>().0;
        let points = self.landmarks.values()?.as_chunks::<10>().0;
        let scores = self.scores.values()?.as_chunks::<2>().0;
        let all = scores.iter().zip(boxes.iter().zip(points));
        for (anchor, ([_, confidence], (shape, points))) in anchors(self.side).zip(all) {
            if *confidence >= cutoff {
                each(decode_anchor(anchor, *confidence, shape, points));
            }
        }
        Ok(())
    }
}

/// The anchors of an input of that side, in the order of the outputs: the middle, and the side.
fn anchors(side: usize) -> impl Iterator<Item = ([f32; 2], f32)> {
    GRIDS.into_iter().flat_map(move |(stride, sides)| {
        let cells = side.div_ceil(stride);
        (0..cells * cells).flat_map(move |cell| {
            let at = |index: usize| (index as f32 + 0.5) * stride as f32;
            let middle = [at(cell % cells), at(cell / cells)];
            sides.into_iter().map(move |side| (middle, side))
        })
    })
}

fn decode_anchor(
    ([x, y], side): ([f32; 2], f32),
    confidence: f32,
    shape: &[f32; 4],
    points: &[f32; 10],
) -> Detection {
    let [offset, growth] = VARIANCES;
    let [width, height] = [shape[2], shape[3]].map(|by| side * (growth * by).exp());
    let moved = |[right, down]: [f32; 2]| [x + right * offset * side, y + down * offset * side];
    let middle = moved([shape[0], shape[1]]);
    let mut landmarks = [[0.0; 2]; 5];
    for (landmark, point) in landmarks.iter_mut().zip(points.as_chunks::<2>().0) {
        *landmark = moved(*point);
    }
    Detection {
        bounds: Bounds {
            x: middle[0] - width / 2.0,
            y: middle[1] - height / 2.0,
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
    fn anchors_are_in_the_order_of_the_outputs() {
        let all: Vec<_> = anchors(64).collect();
        assert_eq!(all.len(), 2 * (64 + 16 + 4));
        assert_eq!(all[0], ([4.0, 4.0], 16.0));
        assert_eq!(all[3], ([12.0, 4.0], 32.0));
        assert_eq!(all[2 * 64 + 2 * 4], ([8.0, 24.0], 64.0));
        assert_eq!(all[2 * 80 + 7], ([48.0, 48.0], 512.0));
    }

    #[test]
    fn an_anchor_decodes_to_its_place() {
        // Offsets of 0.1 of the side, sides that grow by e to the 0.2.
        let mut points = [0.0; 10];
        points[..4].copy_from_slice(&[-10.0, 0.0, 0.0, 5.0]);
        let shape = [1.0, -2.0, 0.0, 5.0 * 2f32.ln()];
        let seen = decode_anchor(([100.0, 50.0], 20.0), 0.9, &shape, &points);
        assert_eq!(seen.bounds.centre(), [102.0, 46.0]);
        assert_eq!(seen.bounds.width, 20.0);
        assert!((seen.bounds.height - 40.0).abs() < 1e-4);
        assert_eq!(seen.landmarks[..2], [[80.0, 50.0], [100.0, 60.0]]);
        assert_eq!(seen.landmarks[4], [100.0, 50.0]);
    }
}
