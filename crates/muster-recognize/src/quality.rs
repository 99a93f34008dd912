//! How fit a face is to be compared: its size, its sharpness, its brightness, and how far it is
//! turned away.
//!
//! Each is measured, by published formulas, on the face as the embedder gets it and on the
//! detector's landmarks.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::align::{ALIGNED_SIZE, Similarity, TEMPLATE};
use crate::detect::Bounds;

/// The part of an aligned face that is face whoever it is: columns and rows, without the last.
const INNER: [std::ops::Range<usize>; 2] = [24..88, 34..106];
const COLUMNS: usize = INNER[0].end - INNER[0].start;
const ROWS: usize = INNER[1].end - INNER[1].start;
/// Pixels that the low-pass filter of the blur measure spans, as published.
const LOW_PASS: usize = 9;

/// What was measured of a face.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quality {
    /// Side of the square that is cut out for the embedder, in pixels of the photograph: the
    /// embedder sees 112, and of fewer it sees an enlargement.
    pub size_px: f32,
    /// 1 minus the blur of F. Crete et al., "The blur effect: perception and estimation with a new
    /// no-reference perceptual blur metric" (SPIE 6492, 2007), of the face's inner part: how much
    /// of the differences between neighbouring pixels another blurring takes away, whatever the
    /// contrast. 0 to 1.
    pub sharpness: f32,
    /// Mean luma (ITU-R BT.601) of the face's inner part, 0 to 255.
    pub brightness: f32,
    /// How far it is turned to a side, in degrees, about: the angle at which a nose tip that stands
    /// as far before the eyes as half their distance appears where it does between them.
    pub turn_deg: f32,
}

impl Quality {
    /// Measures a face: its landmarks and box in the photograph, and what was cut out of it, planar
    /// RGB `[3, 112, 112]`, 0-255.
    ///
    /// # Panics
    /// When `aligned` does not hold 3 x 112 x 112 values.
    #[must_use]
    pub fn of(landmarks: &[[f32; 2]; 5], bounds: &Bounds, aligned: &[f32]) -> Self {
        let luma = inner_luma(aligned);
        let size_px = match Similarity::between(landmarks, &TEMPLATE) {
            Some(to_aligned) => ALIGNED_SIZE as f32 / to_aligned.scale(),
            None => bounds.width.max(bounds.height),
        };
        Self {
            size_px,
            sharpness: kept(&luma, true).min(kept(&luma, false)),
            brightness: luma.iter().sum::<f32>() / luma.len() as f32,
            turn_deg: turn(landmarks),
        }
    }
}

fn inner_luma(aligned: &[f32]) -> Vec<f32> {
    let (red, rest) = aligned.split_at(ALIGNED_SIZE * ALIGNED_SIZE);
    let (green, blue) = rest.split_at(ALIGNED_SIZE * ALIGNED_SIZE);
    let mut luma = Vec::with_capacity(COLUMNS * ROWS);
    for row in INNER[1].clone() {
        for at in INNER[0].clone().map(|column| row * ALIGNED_SIZE + column) {
            luma.push(0.299 * red[at] + 0.587 * green[at] + 0.114 * blue[at]);
        }
    }
    luma
}

/// The share of the differences between neighbours along the rows, or along the columns, that
/// blurring along them takes away; 0 where there are none.
fn kept(luma: &[f32], along_rows: bool) -> f32 {
    let reach = LOW_PASS / 2;
    // Neither the differences nor the means reach over an edge.
    let (columns, rows, step) = if along_rows {
        (reach + 1..COLUMNS - reach, 0..ROWS, 1)
    } else {
        (0..COLUMNS, reach + 1..ROWS - reach, COLUMNS)
    };
    // By column, so that neighbours are added up side by side.
    let mut all = [0.0; COLUMNS];
    let mut lost = [0.0; COLUMNS];
    for row in rows {
        let start = row * COLUMNS + columns.start;
        let line = |start: usize| &luma[start..start + columns.len()];
        let neighbours = line(start).iter().zip(line(start - step));
        // Of two neighbouring means over so many pixels only the outermost pixels differ.
        let outermost = line(start + reach * step)
            .iter()
            .zip(line(start - (reach + 1) * step));
        let sums = all.iter_mut().zip(&mut lost);
        for (((here, before), (first, last)), (all, lost)) in neighbours.zip(outermost).zip(sums) {
            let sharp = (here - before).abs();
            let blurred = (first - last).abs() / LOW_PASS as f32;
            *all += sharp;
            *lost += (sharp - blurred).max(0.0);
        }
    }
    let [all, lost] = [all, lost].map(|sums| sums.iter().sum::<f32>());
    if all > 0.0 { lost / all } else { 0.0 }
}

/// The angle to a side, in degrees: 0 where the landmarks do not tell.
fn turn(landmarks: &[[f32; 2]; 5]) -> f32 {
    let [left, right, nose, ..] = landmarks;
    let across = [right[0] - left[0], right[1] - left[1]];
    let square = across[0] * across[0] + across[1] * across[1];
    let from_middle = [
        nose[0] - (left[0] + right[0]) / 2.0,
        nose[1] - (left[1] + right[1]) / 2.0,
    ];
    let along = from_middle[0] * across[0] + from_middle[1] * across[1];
    let turn = (2.0 * along / square).atan().to_degrees().abs();
    if turn.is_finite() { turn } else { 0.0 }
}

/// What a face needs to be compared.
///
/// Size, sharpness and brightness come from the installed sample photographs, made worse step by
/// step: how alike a face then is to itself as it was. To be enrolled, about 0.85 must be left of
/// it, to be named, about 0.5: below that it falls under the cutoff of its own person. (At 48
/// pixels 0.89 to 0.94 were left, at 20 0.47 to 0.68, at 16 0.22 to 0.51; at a sharpness of 0.25
/// to 0.31 0.82 to 0.88, at about 0.12 0.34 to 0.63; at a brightness of 20 0.91 to 0.92, below 8
/// 0.37 to 0.74 or no face was found.)
///
/// The turn is a convention, not measured: from about 45 degrees on, the nose begins to hide the
/// far cheek, and beyond 70 a face is a profile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Requirements {
    /// The least [`Quality::size_px`].
    pub size_px: f32,
    /// The least [`Quality::sharpness`].
    pub sharpness: f32,
    /// The least [`Quality::brightness`].
    pub brightness: f32,
    /// The greatest [`Quality::turn_deg`].
    pub turn_deg: f32,
}

impl Requirements {
    /// For a face to be named.
    #[must_use]
    pub fn for_match() -> Self {
        Self {
            size_px: 20.0,
            sharpness: 0.12,
            brightness: 8.0,
            turn_deg: 70.0,
        }
    }

    /// For a face to be enrolled: it stands for the person in every comparison to come.
    #[must_use]
    pub fn for_enrolment() -> Self {
        Self {
            size_px: 48.0,
            sharpness: 0.25,
            brightness: 20.0,
            turn_deg: 45.0,
        }
    }

    /// What a face lacks; empty where it is fit.
    #[must_use]
    pub fn lacking(&self, quality: &Quality) -> Vec<Lack> {
        let measures = [
            (Measure::Size, quality.size_px, self.size_px),
            (Measure::Sharpness, quality.sharpness, self.sharpness),
            (Measure::Brightness, quality.brightness, self.brightness),
            (Measure::Turn, quality.turn_deg, self.turn_deg),
        ];
        let lacks = measures.map(|(measure, measured, required)| Lack {
            measure,
            measured,
            required,
        });
        lacks.into_iter().filter(Lack::is_one).collect()
    }
}

/// What is measured of a face.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// [`Quality::size_px`].
    Size,
    /// [`Quality::sharpness`].
    Sharpness,
    /// [`Quality::brightness`].
    Brightness,
    /// [`Quality::turn_deg`].
    Turn,
}

/// A requirement that a face does not meet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lack {
    /// Of what.
    pub measure: Measure,
    /// As it is.
    pub measured: f32,
    /// As it should be at least, or of the turn at most.
    pub required: f32,
}

impl Lack {
    fn is_one(&self) -> bool {
        match self.measure {
            Measure::Turn => self.measured > self.required,
            _ => self.measured < self.required,
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (measured, required) = (self.measured, self.required);
        match self.measure {
            Measure::Size => write!(
                f,
                "the face is too small: {measured:.0} pixels, {required:.0} required"
            ),
            Measure::Sharpness => write!(
                f,
                "the face is blurred: sharpness {measured:.2}, {required:.2} required"
            ),
            Measure::Brightness => write!(
                f,
                "the face is too dark: brightness {measured:.0} of 255, {required:.0} required"
            ),
            Measure::Turn => write!(
                f,
                "the face is turned away: about {measured:.0} degrees, {required:.0} at most"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        x: 0.0,
        y: 0.0,
        width: 84.0,
        height: 106.0,
    };

    /// An aligned face whose pixels are those values.
    fn aligned(value: impl Fn(usize, usize) -> f32) -> Vec<f32> {
        let pixels = (0..3 * ALIGNED_SIZE * ALIGNED_SIZE).map(|n| {
            let at = n % (ALIGNED_SIZE * ALIGNED_SIZE);
            value(at % ALIGNED_SIZE, at / ALIGNED_SIZE)
        });
        pixels.collect()
    }

    #[test]
    fn what_blurring_takes_away_is_that_of_a_blurred_picture() {
        let luma: Vec<f32> = (0..ROWS * COLUMNS)
            .map(|at| (at * at % 251) as f32)
            .collect();
        let by_definition = |lines: usize, length: usize, value: &dyn Fn(usize, usize) -> f32| {
            let reach = LOW_PASS / 2;
            let (mut all, mut lost) = (0.0, 0.0);
            for line in 0..lines {
                let mean = |at: usize| {
                    let window = at - reach..=at + reach;
                    window.map(|at| value(line, at)).sum::<f32>() / LOW_PASS as f32
                };
                for at in reach + 1..length - reach {
                    let sharp = (value(line, at) - value(line, at - 1)).abs();
                    all += sharp;
                    lost += (sharp - (mean(at) - mean(at - 1)).abs()).max(0.0);
                }
            }
            lost / all
        };
        let rows = by_definition(ROWS, COLUMNS, &|row, column| luma[row * COLUMNS + column]);
        let columns = by_definition(COLUMNS, ROWS, &|column, row| luma[row * COLUMNS + column]);
        assert!((kept(&luma, true) - rows).abs() < 1e-3, "{rows}");
        assert!((kept(&luma, false) - columns).abs() < 1e-3, "{columns}");
    }

    #[test]
    fn size_is_how_much_of_the_photograph_is_cut_out() {
        let grey = aligned(|_, _| 128.0);
        for side in [20.0, 112.0, 500.0] {
            let landmarks = TEMPLATE.map(|at| at.map(|value| value * side / 112.0 + 40.0));
            let quality = Quality::of(&landmarks, &BOUNDS, &grey);
            assert!((quality.size_px - side).abs() < 1e-2 * side, "{quality:?}");
            assert!((quality.brightness - 128.0).abs() < 0.01);
            assert!(quality.turn_deg < 1.0);
        }
        let quality = Quality::of(&[[5.0, 5.0]; 5], &BOUNDS, &grey);
        assert_eq!((quality.size_px, quality.turn_deg), (106.0, 0.0));
    }

    #[test]
    fn turning_moves_the_nose_between_the_eyes() {
        // Eyes at one half to either side, a nose tip one half before them.
        for degrees in [-80.0f32, -45.0, -10.0, 0.0, 30.0, 60.0] {
            for roll in [0.0f32, 25.0, 180.0] {
                let (sin, cos) = degrees.to_radians().sin_cos();
                let seen = [[-cos, 0.0], [cos, 0.0], [sin, 0.6], [-0.5, 1.0], [0.5, 1.0]];
                let (s, c) = roll.to_radians().sin_cos();
                let rolled = seen.map(|[x, y]| [c * x - s * y, s * x + c * y]);
                let turned = turn(&rolled);
                assert!((turned - degrees.abs()).abs() < 0.1, "{degrees}: {turned}");
            }
        }
    }

    #[test]
    fn blurring_an_edge_lowers_the_sharpness_and_contrast_does_not() {
        let edge = |width: f32, contrast: f32| {
            let step = move |x: usize, y: usize| {
                let wave = |at: usize| ((at % 16) as f32 - 8.0) / width;
                128.0 + contrast * (wave(x).tanh() + wave(y).tanh())
            };
            Quality::of(&TEMPLATE, &BOUNDS, &aligned(step)).sharpness
        };
        assert!(edge(0.1, 30.0) > edge(2.0, 30.0) + 0.1);
        assert!((edge(1.0, 30.0) - edge(1.0, 3.0)).abs() < 1e-3);
        assert_eq!(
            Quality::of(&TEMPLATE, &BOUNDS, &aligned(|_, _| 9.0)).sharpness,
            0.0
        );
    }

    #[test]
    fn what_is_lacking_names_the_measured_and_the_required() {
        let fit = Quality {
            size_px: 200.0,
            sharpness: 0.5,
            brightness: 100.0,
            turn_deg: 5.0,
        };
        for required in [Requirements::for_match(), Requirements::for_enrolment()] {
            assert_eq!(required.lacking(&fit), []);
        }
        let unfit = Quality {
            size_px: 10.0,
            sharpness: 0.01,
            brightness: 3.2,
            turn_deg: 80.0,
        };
        let required = Requirements {
            size_px: 24.0,
            sharpness: 0.1,
            brightness: 12.0,
            turn_deg: 70.0,
        };
        let lacking: Vec<_> = required
            .lacking(&unfit)
            .iter()
            .map(Lack::to_string)
            .collect();
        assert_eq!(
            lacking,
            [
                "the face is too small: 10 pixels, 24 required",
                "the face is blurred: sharpness 0.01, 0.10 required",
                "the face is too dark: brightness 3 of 255, 12 required",
                "the face is turned away: about 80 degrees, 70 at most",
            ]
        );
    }
}
