//! Measuring how fit a face is to be compared: its size, its sharpness, its brightness, and how far
//! it is turned away.
//!
//! Each is measured, by published formulas, on the face as the embedder gets it and on the
//! detector's landmarks.

use muster_jobs::Quality;

use crate::align::{ALIGNED_SIZE, Similarity, TEMPLATE};
use crate::bounds::Bounds;

/// The part of an aligned face that is face whoever it is: columns and rows, without the last.
const INNER: [std::ops::Range<usize>; 2] = [24..88, 34..106];
const COLUMNS: usize = INNER[0].end - INNER[0].start;
const ROWS: usize = INNER[1].end - INNER[1].start;
/// Pixels that the low-pass filter of the blur measure spans, as published.
const LOW_PASS: usize = 9;

/// Measures a face but for its strength: its landmarks and box in the photograph, and what was cut out of it, planar
/// RGB `[3, 112, 112]`, 0-255.
///
/// # Panics
/// When `aligned` does not hold 3 x 112 x 112 values.
#[must_use]
pub fn measure(landmarks: &[[f32; 2]; 5], bounds: &Bounds, aligned: &[f32]) -> Quality {
    let luma = inner_luma(aligned);
    let size_px = match Similarity::between(landmarks, &TEMPLATE) {
        Some(to_aligned) => ALIGNED_SIZE as f32 / to_aligned.scale(),
        None => bounds.width.max(bounds.height),
    };
    Quality {
        size_px,
        sharpness: kept(&luma, true).min(kept(&luma, false)),
        brightness: luma.iter().sum::<f32>() / luma.len() as f32,
        turn_deg: turn(landmarks),
        strength: None,
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
            let quality = measure(&landmarks, &BOUNDS, &grey);
            assert!((quality.size_px - side).abs() < 1e-2 * side, "{quality:?}");
            assert!((quality.brightness - 128.0).abs() < 0.01);
            assert!(quality.turn_deg < 1.0);
        }
        let quality = measure(&[[5.0, 5.0]; 5], &BOUNDS, &grey);
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
            measure(&TEMPLATE, &BOUNDS, &aligned(step)).sharpness
        };
        assert!(edge(0.1, 30.0) > edge(2.0, 30.0) + 0.1);
        assert!((edge(1.0, 30.0) - edge(1.0, 3.0)).abs() < 1e-3);
        assert_eq!(
            measure(&TEMPLATE, &BOUNDS, &aligned(|_, _| 9.0)).sharpness,
            0.0
        );
    }
}
