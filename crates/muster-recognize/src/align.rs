//! Alignment: turning a face upright and to the size the embedding model was trained on.
//!
//! Whatever the landmarks are, the aligned face is finite and within 0-255.

mod pixels;
mod similarity;
mod template;

use crate::bounds::Bounds;
use crate::decode::Photo;
use crate::resample::{ALIASES_FROM, Resampler};
use pixels::{Pixels, halve, sample};

pub use similarity::Similarity;
pub use template::{ALIGNED_SIZE, TEMPLATE};

/// The side of an aligned face, in pixels of the photograph, below which a face is small: it is less than
/// half of what the embedding model sees, and what it sees is mostly the enlargement.
pub const SMALL_FACE_PX: f32 = ALIGNED_SIZE as f32 / 2.0;

/// Pixels around a face that the filter reads that enlarges it.
const FILTER_REACH: f32 = 3.0;

/// Cuts aligned faces out of photographs; keeps its buffers from face to face.
#[derive(Default)]
pub struct Aligner {
    resampler: Resampler,
    halved: Vec<u8>,
    halved_again: Vec<u8>,
    means: Vec<u8>,
}

impl Aligner {
    /// Writes the face to `out`, the tensor `[1, 3, 112, 112]`: planar RGB, 0-255.
    ///
    /// What lies outside the photo is black, as in the faces the model was trained on. Landmarks
    /// without a direction fall back to the box; without a usable box either, the face is black.
    ///
    /// # Panics
    ///
    /// When `out` does not hold 3 x 112 x 112 values.
    pub fn align(
        &mut self,
        photo: &Photo,
        landmarks: &[[f32; 2]; 5],
        bounds: &Bounds,
        out: &mut [f32],
    ) {
        let to_aligned =
            Similarity::between(landmarks, &TEMPLATE).or_else(|| Similarity::from_bounds(bounds));
        let Some(to_photo) = to_aligned.map(|found| found.inverse()) else {
            out.fill(0.0);
            return;
        };
        let scale = to_photo.scale();
        let resized = if scale * (ALIGNED_SIZE as f32) < SMALL_FACE_PX {
            self.double(photo, to_photo)
        } else if scale < ALIASES_FROM {
            Some((Pixels::of(photo), to_photo))
        } else {
            self.halve(photo, to_photo)
        };
        match resized {
            Some((pixels, to_pixels)) => sample(&pixels, &to_pixels, out),
            None => out.fill(0.0),
        }
    }

    /// Cuts a face out by its box, upright, widened by `margin` of the `width` and of the `height`
    /// that it is stretched to: interleaved RGB pixels.
    ///
    /// Rounding, and what is left out beyond the photo's edges, are those of `extract_face` of
    /// facenet-pytorch 2.6 (`models/utils/detect_face.py`): the box becomes whole pixels, by
    /// leaving out their fractions, and its aspect is not kept. A box without pixels comes out black.
    ///
    /// # Panics
    ///
    /// When the margin is not below the width and the height.
    pub fn cut(
        &mut self,
        photo: &Photo,
        bounds: &Bounds,
        margin: u32,
        width: u32,
        height: u32,
    ) -> &[u8] {
        let part = widened(bounds, [photo.width, photo.height], margin, [width, height]);
        self.resampler.resize(photo, &part, width, height)
    }

    /// Halves the part of the photo that the face lies in until less than two of its pixels are one
    /// aligned pixel; `None` when the face lies outside the photo.
    fn halve(
        &mut self,
        photo: &Photo,
        mut to_photo: Similarity,
    ) -> Option<(Pixels<'_>, Similarity)> {
        // Two aligned pixels of margin, so that sampling at the part's edge finds its neighbours.
        let margin = 2.0 * to_photo.scale();
        let [left, top, width, height] = part_of_face(photo, &to_photo, margin)?;
        let part = Pixels::of(photo).part(left, top, width, height)?;
        to_photo.tx -= left as f32;
        to_photo.ty -= top as f32;

        let (mut columns, mut rows) = halve(&part, &mut self.means, &mut self.halved);
        let mut to_halved = to_photo.halved();
        while to_halved.scale() >= ALIASES_FROM {
            let before = Pixels::packed(columns, rows, &self.halved);
            (columns, rows) = halve(&before, &mut self.means, &mut self.halved_again);
            std::mem::swap(&mut self.halved, &mut self.halved_again);
            to_halved = to_halved.halved();
        }
        Some((Pixels::packed(columns, rows, &self.halved), to_halved))
    }

    /// Doubles the part of the photo that a small face lies in; `None` when it lies outside the photo.
    fn double(
        &mut self,
        photo: &Photo,
        mut to_photo: Similarity,
    ) -> Option<(Pixels<'_>, Similarity)> {
        let margin = 2.0 * to_photo.scale() + FILTER_REACH;
        let [left, top, width, height] = part_of_face(photo, &to_photo, margin)?;
        let [x, y, wide, tall] = [left, top, width, height].map(|side| side as f32);
        let part = Bounds {
            x,
            y,
            width: wide,
            height: tall,
        };
        let (columns, rows) = (2 * width, 2 * height);
        let doubled = self.resampler.enlarge(photo, &part, columns, rows);
        to_photo.tx -= x;
        to_photo.ty -= y;
        Some((Pixels::packed(columns, rows, doubled), to_photo.doubled()))
    }
}

/// The part of a photo that an aligned face lies in, with a margin in the photo's pixels: left, top, width
/// and height; `None` when the face lies outside the photo.
fn part_of_face(photo: &Photo, to_photo: &Similarity, margin: f32) -> Option<[u32; 4]> {
    let far = ALIGNED_SIZE as f32 - 1.0;
    let corners = [[0.0, 0.0], [far, 0.0], [0.0, far], [far, far]].map(|at| to_photo.apply(at));
    let range = |axis: usize, limit: u32| {
        let values = corners.map(|corner| corner[axis]);
        let low = values.into_iter().fold(f32::INFINITY, f32::min) - margin;
        let high = values.into_iter().fold(f32::NEG_INFINITY, f32::max) + margin + 1.0;
        let (low, high) = (low.floor() as u32, (high.ceil() as u32).min(limit));
        (high > low).then(|| (low, high - low))
    };
    let ((left, width), (top, height)) = (range(0, photo.width)?, range(1, photo.height)?);
    Some([left, top, width, height])
}

/// The part of a photo that [`Aligner::cut`] cuts out.
fn widened(bounds: &Bounds, photo: [u32; 2], margin: u32, to: [u32; 2]) -> Bounds {
    let range = |from: f32, length: f32, photo: u32, to: u32| {
        let wider = margin as f32 * length / (to - margin) as f32 / 2.0;
        let low = (from - wider).max(0.0).trunc();
        let high = (from + length + wider).min(photo as f32).trunc();
        (low, high - low)
    };
    let (x, width) = range(bounds.x, bounds.width, photo[0], to[0]);
    let (y, height) = range(bounds.y, bounds.height, photo[1], to[1]);
    Bounds {
        x,
        y,
        width,
        height,
    }
}

#[cfg(test)]
mod tests {
    use super::template::TEMPLATE_BOUNDS;
    use super::*;
    use proptest::prelude::*;

    const ANYWHERE: Bounds = Bounds {
        x: 10.0,
        y: 10.0,
        width: 50.0,
        height: 60.0,
    };

    fn similarity() -> impl Strategy<Value = Similarity> {
        (
            -3.1f32..3.1,
            0.05f32..20.0,
            -500.0f32..500.0,
            -500.0f32..500.0,
        )
            .prop_map(|(angle, scale, tx, ty)| Similarity {
                a: scale * angle.cos(),
                b: scale * angle.sin(),
                tx,
                ty,
            })
    }

    /// A picture whose red is its column, whose green its row: sampling it gives the place back.
    fn gradient(width: u32, height: u32, per_pixel: f32) -> Photo {
        let rgb = (0..height)
            .flat_map(|y| (0..width).map(move |x| (x, y)))
            .flat_map(|(x, y)| {
                [
                    (x as f32 * per_pixel) as u8,
                    (y as f32 * per_pixel) as u8,
                    128,
                ]
            })
            .collect();
        Photo { width, height, rgb }
    }

    fn aligned(photo: &Photo, landmarks: &[[f32; 2]; 5], bounds: &Bounds) -> Vec<f32> {
        let mut out = vec![f32::NAN; 3 * ALIGNED_SIZE * ALIGNED_SIZE];
        Aligner::default().align(photo, landmarks, bounds, &mut out);
        out
    }

    #[test]
    fn a_box_is_widened_as_facenet_pytorch_does() {
        // Its extract_face on these boxes, with image_size 160 and margin 32: a margin of a quarter
        // of each side (32 / 128), half of it on either end; then cut off at the photo's edges.
        let face = |x, y, width, height| Bounds {
            x,
            y,
            width,
            height,
        };
        for (seen, cut) in [
            (
                face(40.9, 50.9, 80.0, 100.0),
                face(30.0, 38.0, 100.0, 125.0),
            ),
            (face(2.0, 3.0, 80.0, 100.0), face(0.0, 0.0, 92.0, 115.0)),
            (
                face(180.0, 120.0, 20.0, 80.0),
                face(177.0, 110.0, 23.0, 90.0),
            ),
        ] {
            assert_eq!(widened(&seen, [200, 200], 32, [160, 160]), cut, "{seen:?}");
        }
        let photo = gradient(200, 200, 1.0);
        let mut aligner = Aligner::default();
        let whole = aligner.cut(&photo, &face(0.0, 0.0, 200.0, 200.0), 32, 160, 160);
        // The middle of the photo is in the middle.
        let middle = &whole[(80 * 160 + 80) * 3..][..2];
        assert!(
            middle.iter().all(|value| value.abs_diff(100) <= 1),
            "{middle:?}"
        );
        let none = face(40.2, 40.2, 0.1, 0.1);
        let nothing = aligner.cut(&photo, &none, 0, 160, 160);
        assert!(nothing.iter().all(|value| *value == 0));
    }

    proptest! {
        #[test]
        fn the_similarity_of_moved_points_is_the_one_that_moved_them(moved in similarity()) {
            let from = TEMPLATE;
            let to = from.map(|point| moved.apply(point));
            let found = Similarity::between(&from, &to).unwrap();
            for point in from {
                let ([x, y], [fx, fy]) = (moved.apply(point), found.apply(point));
                prop_assert!((x - fx).abs() < 0.02 && (y - fy).abs() < 0.02);
            }
        }

        #[test]
        fn the_inverse_brings_points_back(moved in similarity(), x in -100f32..100.0, y in -100f32..100.0) {
            let [bx, by] = moved.inverse().apply(moved.apply([x, y]));
            prop_assert!((bx - x).abs() < 0.05 && (by - y).abs() < 0.05, "{bx} {by}");
        }

        #[test]
        fn no_other_similarity_fits_noisy_points_better(
            noise in prop::array::uniform10(-3.0f32..3.0),
            by in prop::array::uniform4(-0.01f32..0.01),
        ) {
            let mut to = TEMPLATE;
            for (value, noise) in to.iter_mut().flatten().zip(noise) {
                *value += noise;
            }
            let error = |of: Similarity| -> f32 {
                TEMPLATE.iter().zip(&to).map(|(from, to)| {
                    let [x, y] = of.apply(*from);
                    (x - to[0]).powi(2) + (y - to[1]).powi(2)
                }).sum()
            };
            let best = Similarity::between(&TEMPLATE, &to).unwrap();
            let other = Similarity {
                a: best.a + by[0], b: best.b + by[1], tx: best.tx + by[2], ty: best.ty + by[3],
            };
            prop_assert!(error(best) <= error(other) + 1e-2);
        }

        #[test]
        fn any_landmarks_give_a_finite_face(values in prop::array::uniform10(prop_oneof![
            Just(f32::NAN), Just(f32::INFINITY), Just(0.0f32), Just(f32::MAX), -1e4f32..1e4, any::<f32>(),
        ])) {
            let photo = gradient(64, 48, 2.0);
            let mut landmarks = TEMPLATE;
            landmarks.iter_mut().flatten().zip(values).for_each(|(at, value)| *at = value);
            let face = aligned(&photo, &landmarks, &ANYWHERE);
            prop_assert!(face.iter().all(|value| (0.0..=255.0).contains(value)));
        }
    }

    #[test]
    fn a_face_already_in_place_is_copied() {
        let photo = gradient(112, 112, 2.0);
        let face = aligned(&photo, &TEMPLATE, &ANYWHERE);
        for (index, value) in face.iter().enumerate() {
            let (channel, pixel) = (index / (112 * 112), index % (112 * 112));
            let expected = f32::from(photo.rgb[pixel * 3 + channel]);
            assert!(
                (value - expected).abs() < 0.1,
                "{index}: {value} for {expected}"
            );
        }
    }

    #[test]
    fn a_large_face_is_shrunk_to_the_same_places() {
        for scale in [1.7f32, 2.1, 3.3, 5.0] {
            let side = (112.0 * scale) as u32 + 40;
            let photo = gradient(side, side, 255.0 / side as f32);
            let landmarks = TEMPLATE.map(|[x, y]| [x * scale + 20.0, y * scale + 20.0]);
            let face = aligned(&photo, &landmarks, &ANYWHERE);
            let per_pixel = 255.0 / side as f32;
            for (x, y) in [(5, 7), (56, 56), (100, 20), (30, 108)] {
                let at = y * 112 + x;
                let expected = [x as f32, y as f32].map(|v| (v * scale + 20.0) * per_pixel);
                assert!(
                    (face[at] - expected[0]).abs() < 1.5,
                    "{scale}: {} {expected:?}",
                    face[at]
                );
                assert!((face[at + 112 * 112] - expected[1]).abs() < 1.5, "{scale}");
            }
        }
    }

    #[test]
    fn a_small_face_is_enlarged_to_the_same_places() {
        for scale in [0.2f32, 0.3, 0.49, 0.51, 0.8] {
            let side = (112.0 * scale) as u32 + 40;
            let per_pixel = 255.0 / side as f32;
            let photo = gradient(side, side, per_pixel);
            let landmarks = TEMPLATE.map(|[x, y]| [x * scale + 20.0, y * scale + 20.0]);
            let face = aligned(&photo, &landmarks, &ANYWHERE);
            for (x, y) in [(5, 7), (56, 56), (100, 20), (30, 108)] {
                let at = y * 112 + x;
                let expected = [x as f32, y as f32].map(|v| (v * scale + 20.0) * per_pixel);
                assert!((face[at] - expected[0]).abs() < 1.5, "{scale}");
                assert!((face[at + 112 * 112] - expected[1]).abs() < 1.5, "{scale}");
            }
        }
        // At the photograph's corner the face's part that lies outside is black.
        let photo = gradient(60, 60, 4.0);
        let landmarks = TEMPLATE.map(|[x, y]| [x * 0.3 - 10.0, y * 0.3 - 10.0]);
        let face = aligned(&photo, &landmarks, &ANYWHERE);
        assert_eq!(face[0], 0.0);
        let at = 80 * 112 + 90;
        assert!(
            (face[at] - 4.0 * (90.0 * 0.3 - 10.0)).abs() < 1.5,
            "{}",
            face[at]
        );
    }

    #[test]
    fn a_face_twice_or_four_times_as_large_is_the_same() {
        let wave = |at: u32| ((at as f32 / 9.0).sin() * 120.0 + 128.0) as u8;
        let side = 260;
        let of_every = |times: u32| Photo {
            width: side * times,
            height: side * times,
            rgb: (0..side * times * side * times)
                .flat_map(|at| {
                    let (x, y) = (at % (side * times) / times, at / (side * times) / times);
                    [wave(x), wave(y), wave(x + y)]
                })
                .collect(),
        };
        let mut aligner = Aligner::default();
        for shift in [0.0f32, 40.0] {
            let landmarks = TEMPLATE.map(|[x, y]| [x * 1.3 + shift, y * 1.3 + shift]);
            let face = aligned(&of_every(1), &landmarks, &ANYWHERE);
            // From large to small, so that buffers hold more than is needed.
            for times in [4u32, 2] {
                let larger = of_every(times);
                let centre = (times as f32 - 1.0) / 2.0;
                let landmarks = landmarks.map(|at| at.map(|v| v * times as f32 + centre));
                let mut out = vec![f32::NAN; face.len()];
                aligner.align(&larger, &landmarks, &ANYWHERE, &mut out);
                let apart = face.iter().zip(&out).map(|(a, b)| (a - b).abs());
                let apart = apart.fold(0.0, f32::max);
                // Exactly but where the part begins within a pixel of the small photo. A quarter of
                // one beside it would be 3.
                assert!(apart < 1.5, "{shift} {times}: {apart}");
            }
        }
    }

    #[test]
    fn a_large_face_is_averaged_not_aliased() {
        let side = 600;
        let rgb = (0..side * side * 3)
            .map(|i| if (i / 3) % 2 == 0 { 0 } else { 255 })
            .collect();
        let photo = Photo {
            width: side,
            height: side,
            rgb,
        };
        let landmarks = TEMPLATE.map(|[x, y]| [x * 5.0 + 10.0, y * 5.0 + 10.0]);
        let face = aligned(&photo, &landmarks, &ANYWHERE);
        let centre = &face[50 * 112..60 * 112];
        assert!(
            centre.iter().all(|value| (90.0..165.0).contains(value)),
            "{centre:?}"
        );
    }

    #[test]
    fn outside_the_photo_is_black() {
        let photo = Photo {
            width: 40,
            height: 40,
            rgb: vec![255; 40 * 40 * 3],
        };
        let face = aligned(&photo, &TEMPLATE, &ANYWHERE);
        assert_eq!(face[20 * 112 + 20], 255.0);
        assert_eq!(face[80 * 112 + 80], 0.0);
        let nowhere = TEMPLATE.map(|[x, y]| [x * 9.0 + 9000.0, y * 9.0]);
        assert!(
            aligned(&photo, &nowhere, &ANYWHERE)
                .iter()
                .all(|value| *value == 0.0)
        );
    }

    #[test]
    fn landmarks_in_one_place_fall_back_to_the_box() {
        let photo = gradient(112, 112, 2.0);
        let face = aligned(&photo, &[[30.0, 30.0]; 5], &TEMPLATE_BOUNDS);
        assert!((face[50 * 112 + 60] - 120.0).abs() < 0.5);
    }
}
