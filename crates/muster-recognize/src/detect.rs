//! Detection: every face in a photograph, with five landmarks each.
//!
//! The detector is YuNet (2023mar). It runs at two fixed input sizes only, so that at most two
//! models are ever compiled: photographs are fitted into a square, and what needs more resolution
//! is read as overlapping tiles.

use std::path::Path;

use multiversion::multiversion;

use crate::bounds::Bounds;
use crate::decode::Photo;
use crate::detection::Detection;
use crate::engine::{Engine, EngineError, Output, Session, SourceModel};
use crate::resample::Resampler;
use crate::views::{self, InputSize, View};

/// The score from which a detection counts as a face.
///
/// OpenCV's default for this model is 0.9, tuned for few false faces in video. Photographs are
/// looked at once, so blurred and half-hidden faces, which score 0.7 to 0.9, should count.
pub const DETECTION_CUTOFF: f32 = 0.8;

/// The overlap, as intersection over union, from which two boxes are one face; OpenCV's default
/// for this model.
const SAME_FACE_OVERLAP: f32 = 0.3;

/// The overlap from which two detections tell of the same landmarks: the measure by which objects
/// count as found since the PASCAL VOC challenge (Everingham et al. 2010).
const SAME_LANDMARKS_OVERLAP: f32 = 0.5;

/// Detections kept before overlapping ones are merged; OpenCV's default for this model.
const MAX_CANDIDATES: usize = 5_000;

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

    /// Finds every face, at most `max_faces` of them, the largest.
    ///
    /// # Errors
    ///
    /// [`EngineError::Run`], or [`EngineError::Model`] when the larger size is compiled.
    pub fn detect(
        &mut self,
        engine: &mut Engine,
        photo: &Photo,
        max_faces: usize,
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
        let mut plan = views::Plan::new(photo.width, photo.height);
        while let Some(views) = plan.next(&found.faces) {
            let before = std::mem::take(&mut found.faces);
            let mut candidates = before;
            for view in &views {
                let grids = self.sizes.at(engine, view.input)?;
                let pixels =
                    self.resampler
                        .resize_quickly(photo, &view.source, view.width, view.height);
                place(pixels, view, grids.side, grids.session.input_mut()?);
                grids.session.run()?;
                let side = view.input.side();
                found.runs.push((side, side));
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
        found.faces.truncate(max_faces);
        Ok(found)
    }

    /// Runs the model once at an input size `detect` has used, on whatever its tensor holds.
    ///
    /// # Errors
    ///
    /// As [`Detector::detect`].
    pub fn run_alone(
        &mut self,
        engine: &mut Engine,
        (width, _): (u32, u32),
    ) -> Result<(), EngineError> {
        let input = if width == InputSize::Small.side() {
            InputSize::Small
        } else {
            InputSize::Large
        };
        self.sizes.at(engine, input)?.session.run()
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
    fn at(&mut self, engine: &mut Engine, input: InputSize) -> Result<&mut Grids, EngineError> {
        match input {
            InputSize::Small => Ok(&mut self.small),
            InputSize::Large => match &mut self.large {
                Some(large) => Ok(large),
                slot => Ok(slot.insert(Grids::compile(engine, &mut self.source, input)?)),
            },
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

/// Keeps of each set of overlapping detections the surest, surest first, with the landmarks averaged
/// over those that overlap it well: several cells see one face, each with an error of its own.
fn suppress(mut candidates: Vec<Detection>) -> Vec<Detection> {
    candidates.retain(|seen| {
        let Bounds {
            x,
            y,
            width,
            height,
        } = seen.bounds;
        [x, y, width, height]
            .iter()
            .chain(seen.landmarks.as_flattened())
            .all(|v| v.is_finite())
    });
    candidates.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    candidates.truncate(MAX_CANDIDATES);
    let mut kept: Vec<Detection> = Vec::new();
    for seen in &candidates {
        if kept
            .iter()
            .all(|other| other.bounds.overlap(&seen.bounds) <= SAME_FACE_OVERLAP)
        {
            let mut face = *seen;
            face.landmarks = averaged_landmarks(seen, &candidates);
            kept.push(face);
        }
    }
    kept
}

/// The landmarks of the detections that overlap `seen`, which is one of them, averaged by their
/// scores.
fn averaged_landmarks(seen: &Detection, candidates: &[Detection]) -> [[f32; 2]; 5] {
    let mut landmarks = [[0.0; 2]; 5];
    let mut weight = 0.0;
    for other in candidates {
        if other.bounds.overlap(&seen.bounds) > SAME_LANDMARKS_OVERLAP {
            weight += other.confidence;
            for (sum, value) in landmarks.iter_mut().zip(&other.landmarks) {
                sum[0] += other.confidence * value[0];
                sum[1] += other.confidence * value[1];
            }
        }
    }
    if weight <= 0.0 {
        return seen.landmarks;
    }
    landmarks.map(|sum| sum.map(|value| value / weight))
}

/// Fills an input tensor `[1, 3, side, side]`, planar BGR 0-255, with a view's interleaved RGB
/// pixels; the rest is black.
fn place(pixels: &[u8], view: &View, side: usize, input: &mut [f32]) {
    let (left, top) = (view.left as usize, view.top as usize);
    let (columns, rows) = (view.width as usize, view.height as usize);
    let (blue, rest) = input.split_at_mut(side * side);
    let (green, red) = rest.split_at_mut(side * side);
    let mut planes = [blue, green, red].map(|plane| {
        let (above, rest) = plane.split_at_mut(top * side);
        let (within, below) = rest.split_at_mut(rows * side);
        above.fill(0.0);
        below.fill(0.0);
        within.chunks_exact_mut(side)
    });
    for pixels in pixels.chunks_exact(columns * 3) {
        let pixels = pixels.as_chunks::<3>().0;
        let [Some(blue), Some(green), Some(red)] = planes.each_mut().map(|rows| {
            let (before, rest) = rows.next()?.split_at_mut(left);
            let (row, after) = rest.split_at_mut(columns);
            before.fill(0.0);
            after.fill(0.0);
            Some(row)
        }) else {
            return;
        };
        spread(pixels, [blue, green, red]);
    }
}

/// Copies the channels of a row of pixels into their planes.
#[multiversion(targets("x86_64+avx2"))]
fn spread(pixels: &[[u8; 3]], [blue, green, red]: [&mut [f32]; 3]) {
    channel::<2>(pixels, blue);
    channel::<1>(pixels, green);
    channel::<0>(pixels, red);
}

#[inline(always)]
fn channel<const CHANNEL: usize>(pixels: &[[u8; 3]], plane: &mut [f32]) {
    for (value, pixel) in plane.iter_mut().zip(pixels) {
        *value = f32::from(pixel[CHANNEL]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn detection() -> impl Strategy<Value = Detection> {
        (
            0f32..500.0,
            0f32..500.0,
            1f32..200.0,
            1f32..200.0,
            0f32..1.0,
        )
            .prop_map(|(x, y, width, height, confidence)| Detection {
                bounds: Bounds {
                    x,
                    y,
                    width,
                    height,
                },
                landmarks: [[x, y]; 5],
                confidence,
            })
    }

    proptest! {
        #[test]
        fn suppression_keeps_the_surest_of_what_overlaps(
            seen in prop::collection::vec(detection(), 0..40),
        ) {
            let kept = suppress(seen.clone());
            for (index, face) in kept.iter().enumerate() {
                prop_assert!(seen.iter().any(|seen| seen.bounds == face.bounds));
                for other in &kept[index + 1..] {
                    prop_assert!(face.bounds.overlap(&other.bounds) <= SAME_FACE_OVERLAP);
                    prop_assert!(face.confidence >= other.confidence);
                }
            }
            for face in &seen {
                let covered = |other: &Detection| {
                    other.confidence >= face.confidence
                        && other.bounds.overlap(&face.bounds) > SAME_FACE_OVERLAP
                };
                prop_assert!(kept.contains(face) || kept.iter().any(covered));
            }
            let again = suppress(kept.clone());
            let places = |faces: &[Detection]| faces.iter().map(|face| face.bounds).collect::<Vec<_>>();
            prop_assert_eq!(places(&again), places(&kept));
        }

        #[test]
        fn overlap_is_symmetric_and_a_share(a in detection(), b in detection()) {
            let overlap = a.bounds.overlap(&b.bounds);
            prop_assert!((0.0..=1.0).contains(&overlap));
            prop_assert_eq!(overlap, b.bounds.overlap(&a.bounds));
            prop_assert!((a.bounds.overlap(&a.bounds) - 1.0).abs() < 1e-4);
        }
    }

    #[test]
    fn detections_that_are_no_numbers_are_dropped() {
        let mut seen = decode_cell(8.0, [1.0, 1.0], 0.9, &[0.0, 0.0, 1e9, 0.0], &[0.0; 10]);
        assert!(suppress(vec![seen]).is_empty());
        seen.bounds.width = 8.0;
        seen.bounds.x = 0.0;
        assert_eq!(suppress(vec![seen]).len(), 1);
        seen.landmarks[3][1] = f32::NAN;
        assert!(suppress(vec![seen]).is_empty());
    }

    #[test]
    fn landmarks_are_averaged_over_what_overlaps_well_by_the_scores() {
        let seen = |x: f32, confidence: f32, at: f32| Detection {
            bounds: Bounds {
                x,
                y: 0.0,
                width: 100.0,
                height: 100.0,
            },
            landmarks: [[at, 2.0 * at]; 5],
            confidence,
        };
        // The third overlaps the first by less than half, the last not at all.
        let all = [
            seen(0.0, 0.9, 10.0),
            seen(10.0, 0.6, 20.0),
            seen(40.0, 0.8, 99.0),
            seen(300.0, 0.8, 50.0),
        ];
        let kept = suppress(all.to_vec());
        assert_eq!((kept.len(), kept[0].bounds), (2, all[0].bounds));
        let [x, y] = kept[0].landmarks[4];
        assert!(
            (x - 14.0).abs() < 1e-4 && (y - 28.0).abs() < 1e-4,
            "{x} {y}"
        );
        assert_eq!(kept[1].landmarks, all[3].landmarks);
    }

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

    #[test]
    fn pixels_are_placed_as_planes_with_black_around() {
        let mut view = View::whole(2, 1, InputSize::Small, 1.0);
        (view.left, view.top, view.width, view.height) = (1, 1, 2, 1);
        let mut input = vec![f32::NAN; 3 * 16];
        place(&[1, 2, 3, 4, 5, 6], &view, 4, &mut input);
        assert_eq!(input[4..8], [0.0, 3.0, 6.0, 0.0]);
        assert_eq!(input[16 + 4..16 + 8], [0.0, 2.0, 5.0, 0.0]);
        assert_eq!(input[32 + 4..32 + 8], [0.0, 1.0, 4.0, 0.0]);
        assert_eq!(input.iter().sum::<f32>(), 21.0);
    }
}
