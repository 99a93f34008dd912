//! Photographs made hard to recognise somebody in, each by a function of the photograph, the perturbation
//! and its seed alone.

use std::fmt;

use anyhow::Context;
use image::{Rgb, RgbImage, imageops};
use jpeg_encoder::SamplingFactor;
use muster_recognize::align::{Similarity, TEMPLATE};
use muster_recognize::analysis::Face;
use muster_recognize::bounds::Bounds;

use crate::photos::jpeg;
use crate::random::Random;

/// Quality of the JPEG that a perturbed photograph is encoded as: next to nothing is lost.
const QUALITY: u8 = 100;
/// The one of a photograph that is made smaller, on which published figures rest.
const SMALLER_QUALITY: u8 = 90;

/// The corners of a mask on an aligned face of 112 x 112 pixels, a convex polygon clockwise: from ear to
/// ear over the middle of the nose and below the chin.
const MASK: [[f32; 2]; 7] = [
    [12.0, 68.0],
    [56.0, 61.0],
    [100.0, 68.0],
    [95.0, 96.0],
    [76.0, 115.0],
    [36.0, 115.0],
    [17.0, 96.0],
];
/// The light blue of surgical masks.
const MASK_COLOUR: Rgb<u8> = Rgb([160, 195, 220]);

/// What is done to a photograph.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Perturbation {
    /// Turned clockwise by so many degrees about its middle, sampled bilinearly, on a canvas that it fits
    /// on; the corners continue the pixels at the edge.
    Turned(u16),
    /// Made so much smaller that the face has so many pixels ([`muster_jobs::Quality::size_px`]): by a
    /// Lanczos filter of three lobes, which is widened so that nothing aliases. Never enlarged.
    FacePx(f32),
    /// Every value multiplied by so much, and rounded to 8 bits.
    Darkened(f32),
    /// Blurred by a Gaussian whose standard deviation is that share of the face's size.
    Blurred(f32),
    /// Encoded as a JPEG of that quality, 1 to 100, with the chroma halved both ways as cameras do.
    Compressed(u8),
    /// A plain mask over nose, mouth and chin, put on by the face's landmarks.
    Masked,
    /// Cut off on one side, which the seed and the photograph choose, so that the face's box loses that
    /// share, 0 to 1.
    Cropped {
        /// The share that is lost.
        share: f32,
        /// Chooses the side: the same one whatever the share.
        seed: u64,
    },
}

impl fmt::Display for Perturbation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Turned(degrees) => write!(f, "turned {degrees}"),
            Self::FacePx(size) => write!(f, "face {size} px"),
            Self::Darkened(factor) => write!(f, "dark {factor}"),
            Self::Blurred(share) => write!(f, "blurred {share}"),
            Self::Compressed(quality) => write!(f, "JPEG {quality}"),
            Self::Masked => f.write_str("masked"),
            Self::Cropped { share, .. } => write!(f, "cropped {share}"),
        }
    }
}

/// A perturbed photograph.
pub struct Perturbed {
    /// The file.
    pub bytes: Vec<u8>,
    /// Where the face is, or what is left of it.
    pub subject: Bounds,
}

impl Perturbation {
    /// Perturbs a photograph of that face; `None` where it stays as it is, since the face is no larger.
    ///
    /// # Errors
    /// When the landmarks do not say where a mask belongs, or the picture is too long for a JPEG.
    pub fn apply(&self, photo: &RgbImage, face: &Face) -> anyhow::Result<Option<Perturbed>> {
        let mut subject = face.bounds;
        let mut quality = QUALITY;
        let mut chroma = SamplingFactor::F_1_1;
        let picture = match *self {
            Self::Turned(degrees) => {
                subject = turned_bounds(&face.bounds, photo.dimensions(), degrees);
                turned(photo, degrees)
            }
            Self::FacePx(size) => {
                let scale = size / face.quality.size_px;
                if scale >= 1.0 {
                    return Ok(None);
                }
                subject = scaled(&face.bounds, scale);
                quality = SMALLER_QUALITY;
                smaller(photo, scale)
            }
            Self::Darkened(factor) => darkened(photo, factor),
            Self::Blurred(share) => imageops::blur(photo, share * face.quality.size_px),
            Self::Compressed(compressed) => {
                quality = compressed;
                chroma = SamplingFactor::F_2_2;
                photo.clone()
            }
            Self::Masked => masked(photo, &face.landmarks)?,
            Self::Cropped { share, seed } => {
                let kept = kept(photo, &face.bounds, share, seed);
                let [x, y, width, height] = kept;
                let [left, top, wide, tall] = kept.map(|side| side as f32);
                subject = face.bounds.intersection(&Bounds {
                    x: left,
                    y: top,
                    width: wide,
                    height: tall,
                });
                subject.x -= left;
                subject.y -= top;
                imageops::crop_imm(photo, x, y, width, height).to_image()
            }
        };
        let bytes = jpeg(&picture, quality, chroma)?;
        Ok(Some(Perturbed { bytes, subject }))
    }
}

/// The cosine and sine of an angle.
fn direction(degrees: u16) -> [f32; 2] {
    let (sin, cos) = f64::from(degrees).to_radians().sin_cos();
    [cos as f32, sin as f32]
}

/// The sides of the upright rectangle around one of these sides that is turned.
fn turned_sides([width, height]: [f32; 2], [cos, sin]: [f32; 2]) -> [f32; 2] {
    let (cos, sin) = (cos.abs(), sin.abs());
    [width * cos + height * sin, width * sin + height * cos]
}

fn turned(photo: &RgbImage, degrees: u16) -> RgbImage {
    let direction = direction(degrees);
    let [cos, sin] = direction;
    let sides = [photo.width() as f32, photo.height() as f32];
    let canvas = turned_sides(sides, direction).map(|side| side.round().max(1.0));
    RgbImage::from_fn(canvas[0] as u32, canvas[1] as u32, |x, y| {
        // From the middle of the canvas back to the photograph; pixels have their middles at halves.
        let (x, y) = (
            x as f32 + 0.5 - canvas[0] / 2.0,
            y as f32 + 0.5 - canvas[1] / 2.0,
        );
        let at = [cos * x + sin * y, cos * y - sin * x];
        let nearest = |axis: usize| {
            let at = at[axis] + sides[axis] / 2.0 - 0.5;
            at.clamp(0.0, sides[axis] - 1.0)
        };
        imageops::interpolate_bilinear(photo, nearest(0), nearest(1))
            .expect("the point is within the photograph")
    })
}

/// Where a box is after the photograph of that size is turned: the upright one around it.
fn turned_bounds(bounds: &Bounds, (width, height): (u32, u32), degrees: u16) -> Bounds {
    let direction = direction(degrees);
    let [cos, sin] = direction;
    let sides = [width as f32, height as f32];
    let canvas = turned_sides(sides, direction).map(f32::round);
    let [x, y] = bounds.centre();
    let (x, y) = (x - sides[0] / 2.0, y - sides[1] / 2.0);
    let [width, height] = turned_sides([bounds.width, bounds.height], direction);
    Bounds {
        x: cos * x - sin * y + canvas[0] / 2.0 - width / 2.0,
        y: sin * x + cos * y + canvas[1] / 2.0 - height / 2.0,
        width,
        height,
    }
}

fn smaller(photo: &RgbImage, scale: f32) -> RgbImage {
    let side = |side: u32| ((side as f32 * scale).round() as u32).max(1);
    let (width, height) = (side(photo.width()), side(photo.height()));
    imageops::resize(photo, width, height, imageops::FilterType::Lanczos3)
}

fn scaled(bounds: &Bounds, scale: f32) -> Bounds {
    Bounds {
        x: scale * bounds.x,
        y: scale * bounds.y,
        width: scale * bounds.width,
        height: scale * bounds.height,
    }
}

fn darkened(photo: &RgbImage, factor: f32) -> RgbImage {
    let mut picture = photo.clone();
    for value in picture.iter_mut() {
        *value = (f32::from(*value) * factor).round() as u8;
    }
    picture
}

fn masked(photo: &RgbImage, landmarks: &[[f32; 2]; 5]) -> anyhow::Result<RgbImage> {
    let to_aligned = Similarity::between(landmarks, &TEMPLATE)
        .context("its landmarks do not say where a mask belongs")?;
    let mut picture = photo.clone();
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        if is_masked(to_aligned.apply([x as f32, y as f32])) {
            *pixel = MASK_COLOUR;
        }
    }
    Ok(picture)
}

/// Whether a point of an aligned face lies within the mask: on the right of each edge, which run clockwise.
fn is_masked([x, y]: [f32; 2]) -> bool {
    (0..MASK.len()).all(|n| {
        let ([from_x, from_y], [to_x, to_y]) = (MASK[n], MASK[(n + 1) % MASK.len()]);
        (to_x - from_x) * (y - from_y) >= (to_y - from_y) * (x - from_x)
    })
}

/// What is left of a photograph, in pixels: left, top, width and height.
fn kept(photo: &RgbImage, face: &Bounds, share: f32, seed: u64) -> [u32; 4] {
    let (width, height) = photo.dimensions();
    let pixels = photo.as_raw().chunks(8);
    let drawn = pixels.fold(seed, |state, pixels| {
        let bits = pixels
            .iter()
            .fold(0, |bits, byte| bits << 8 | u64::from(*byte));
        Random::new(state ^ bits).bits()
    });
    let cut = |at: f32, side: u32| (at.round() as u32).min(side - 1);
    let rest = 1.0 - share;
    match drawn % 4 {
        0 => {
            let left = cut(face.x + share * face.width, width);
            [left, 0, width - left, height]
        }
        1 => {
            let top = cut(face.y + share * face.height, height);
            [0, top, width, height - top]
        }
        2 => [0, 0, cut(face.x + rest * face.width, width).max(1), height],
        _ => [0, 0, width, cut(face.y + rest * face.height, height).max(1)],
    }
}

#[cfg(test)]
mod tests {
    use muster_jobs::{Embedding, Quality};
    use muster_recognize::decode::{DecodeLimits, decode};
    use muster_recognize::turn::Turn;

    use super::*;
    use crate::photos::pixels;

    /// A face of 56 pixels, upright, whose aligned square begins at (40, 20).
    fn face() -> Face {
        Face {
            bounds: Bounds {
                x: 50.0,
                y: 30.0,
                width: 36.0,
                height: 44.0,
            },
            landmarks: TEMPLATE.map(|[x, y]| [40.0 + x / 2.0, 20.0 + y / 2.0]),
            confidence: 1.0,
            turn: Turn::None,
            quality: Quality {
                size_px: 56.0,
                sharpness: 1.0,
                brightness: 100.0,
                turn_deg: 0.0,
                strength: None,
            },
            embedding: Embedding::normalise(&[1.0, 0.0]).unwrap(),
            others: Vec::new(),
        }
    }

    /// No two of its pixels are like each other, and neighbours differ little.
    fn photo() -> RgbImage {
        RgbImage::from_fn(120, 90, |x, y| {
            Rgb([2 * x as u8, 2 * y as u8, (x + y) as u8])
        })
    }

    fn made(perturbation: Perturbation) -> Perturbed {
        perturbation.apply(&photo(), &face()).unwrap().unwrap()
    }

    fn furthest(one: &RgbImage, other: &RgbImage) -> u8 {
        assert_eq!(one.dimensions(), other.dimensions());
        let values = one.iter().zip(other.iter());
        values
            .map(|(one, other)| one.abs_diff(*other))
            .max()
            .unwrap()
    }

    #[test]
    fn quarter_turns_move_every_pixel_to_its_place() {
        let photo = photo();
        assert!(furthest(&turned(&photo, 90), &imageops::rotate90(&photo)) <= 1);
        assert!(furthest(&turned(&photo, 180), &imageops::rotate180(&photo)) <= 1);
        assert!(furthest(&turned(&photo, 270), &imageops::rotate270(&photo)) <= 1);
        // What was 50 from the left and 30 from the top is that far from the top and from the right.
        let subject = made(Perturbation::Turned(90)).subject;
        let expected = [90.0 - 30.0 - 44.0, 50.0, 44.0, 36.0];
        let found = [subject.x, subject.y, subject.width, subject.height];
        let near = found
            .iter()
            .zip(expected)
            .all(|(a, b)| (a - b).abs() < 1e-3);
        assert!(near, "{subject:?}");
    }

    #[test]
    fn a_turned_photograph_is_whole_and_its_corners_continue_its_edge() {
        let mut photo = RgbImage::from_pixel(100, 60, Rgb([200, 200, 200]));
        photo.put_pixel(50, 30, Rgb([0, 0, 0]));
        let picture = turned(&photo, 30);
        // 100 cos 30 + 60 sin 30, and 100 sin 30 + 60 cos 30.
        assert_eq!(picture.dimensions(), (117, 102));
        assert_eq!(picture.get_pixel(0, 0), &Rgb([200, 200, 200]));
        let darkest = picture
            .enumerate_pixels()
            .min_by_key(|(.., pixel)| pixel[0]);
        let (x, y, _) = darkest.unwrap();
        assert!(x.abs_diff(58) <= 1 && y.abs_diff(51) <= 1, "{x}, {y}");
    }

    #[test]
    fn a_photograph_is_made_smaller_and_keeps_its_mean() {
        let stripes = RgbImage::from_fn(200, 80, |x, _| Rgb([(x % 2) as u8 * 200; 3]));
        let picture = smaller(&stripes, 0.3);
        assert_eq!(picture.dimensions(), (60, 24));
        // Neither stripe is chosen over the other.
        let worst = picture.iter().map(|value| value.abs_diff(100)).max();
        assert!(worst < Some(12), "{worst:?}");
        // The face of 56 pixels has 28 at half the size, and is not enlarged.
        let half = made(Perturbation::FacePx(28.0));
        assert_eq!(pixels(&half.bytes).unwrap().dimensions(), (60, 45));
        assert_eq!((half.subject.x, half.subject.width), (25.0, 18.0));
        let larger = Perturbation::FacePx(56.0).apply(&photo(), &face()).unwrap();
        assert!(larger.is_none());
    }

    #[test]
    fn a_dark_photograph_is_dark_by_the_factor() {
        let photo = RgbImage::from_pixel(8, 8, Rgb([200, 101, 3]));
        let dark = darkened(&photo, 0.06);
        assert_eq!(dark.get_pixel(4, 4), &Rgb([12, 6, 0]));
        assert_eq!(darkened(&photo, 0.5).get_pixel(4, 4), &Rgb([100, 51, 2]));
        // The file has what was made, but for a JPEG's own rounding.
        let file = pixels(&made(Perturbation::Darkened(0.25)).bytes).unwrap();
        assert!(furthest(&file, &darkened(&self::photo(), 0.25)) <= 4);
        let mean = |picture: &RgbImage| {
            let sum: u32 = picture.iter().map(|value| u32::from(*value)).sum();
            sum as f32 / picture.len() as f32
        };
        let factor = mean(&file) / mean(&self::photo());
        assert!((factor - 0.25).abs() < 0.003, "{factor}");
    }

    #[test]
    fn a_blurred_edge_is_as_wide_as_the_gaussian() {
        let edge = RgbImage::from_fn(120, 90, |x, _| Rgb([if x < 60 { 0 } else { 200 }; 3]));
        // 0.05 of 56 pixels.
        let blurred = Perturbation::Blurred(0.05).apply(&edge, &face()).unwrap();
        let blurred = pixels(&blurred.unwrap().bytes).unwrap();
        // One standard deviation, 2.8, beyond the edge at 59.5: 84 % of the way.
        let value = |x: u32| i32::from(blurred.get_pixel(x, 45)[0]);
        assert!((value(62) - 163).abs() < 6, "{}", value(62));
        assert!((value(57) - 37).abs() < 6, "{}", value(57));
        assert!(value(20) < 3 && value(100) > 197);
    }

    #[test]
    fn stronger_compression_leaves_fewer_bytes() {
        let sizes = [50, 30, 20, 10, 5].map(|quality| {
            let bytes = made(Perturbation::Compressed(quality)).bytes;
            let photo = decode(&bytes, &DecodeLimits::default()).unwrap();
            assert_eq!((photo.width, photo.height), (120, 90));
            bytes.len()
        });
        assert!(sizes.is_sorted_by(|a, b| a > b), "{sizes:?}");
    }

    #[test]
    fn a_mask_covers_nose_mouth_and_chin_and_not_the_eyes() {
        let face = face();
        let picture = masked(&photo(), &face.landmarks).unwrap();
        let at = |[x, y]: [f32; 2]| *picture.get_pixel(x as u32, y as u32);
        let [left_eye, right_eye, nose, left_mouth, right_mouth] = face.landmarks;
        for covered in [nose, left_mouth, right_mouth, [68.0, 20.0 + 110.0 / 2.0]] {
            assert_eq!(at(covered), MASK_COLOUR, "{covered:?}");
        }
        for eye in [left_eye, right_eye] {
            // With four pixels, an eighth of the distance of the eyes and more, below it.
            for shown in [eye, [eye[0], eye[1] + 4.0]] {
                assert_ne!(at(shown), MASK_COLOUR, "{shown:?}");
            }
        }
        let nowhere = [[30.0, 30.0]; 5];
        let refused = masked(&photo(), &nowhere).unwrap_err().to_string();
        assert!(refused.contains("landmarks"), "{refused}");
    }

    #[test]
    fn a_crop_takes_its_share_of_the_face_from_one_side() {
        let (photo, face) = (photo(), face());
        let mut sides = std::collections::BTreeSet::new();
        for seed in 0..40 {
            let mut side = None;
            for share in [0.1, 0.3, 0.5] {
                let cropped = Perturbation::Cropped { share, seed };
                let made = cropped.apply(&photo, &face).unwrap().unwrap();
                let left = made.subject;
                let whole = (left.width * left.height) / (face.bounds.width * face.bounds.height);
                // Up to a pixel of 36.
                assert!((whole - (1.0 - share)).abs() < 0.03, "{share}: {left:?}");
                let kept = kept(&photo, &face.bounds, share, seed);
                let cut = [kept[0] > 0, kept[1] > 0, kept[2] < 120, kept[3] < 90];
                // Of the four exactly one, where the first two also lose width or height.
                let cut = match cut {
                    [true, false, true, false] => "left",
                    [false, true, false, true] => "top",
                    [false, false, true, false] => "right",
                    [false, false, false, true] => "bottom",
                    other => panic!("{other:?}"),
                };
                assert_eq!(*side.get_or_insert(cut), cut, "whatever the share");
                let size = pixels(&made.bytes).unwrap().dimensions();
                assert_eq!(size, (kept[2], kept[3]));
            }
            sides.extend(side);
        }
        assert_eq!(sides.len(), 4, "{sides:?}");
    }

    #[test]
    fn the_same_seed_makes_the_same_bytes() {
        let cropped = |seed| made(Perturbation::Cropped { share: 0.3, seed }).bytes;
        assert_eq!(cropped(1), cropped(1));
        assert!((2..20).any(|seed| cropped(seed) != cropped(1)));
        for perturbation in [
            Perturbation::Turned(15),
            Perturbation::FacePx(20.0),
            Perturbation::Blurred(0.03),
            Perturbation::Masked,
        ] {
            assert_eq!(made(perturbation).bytes, made(perturbation).bytes);
        }
        // Another photograph is cut on another side by one seed or another.
        let mut other = photo();
        other.put_pixel(0, 0, Rgb([9, 9, 9]));
        let differs = |seed| {
            kept(&photo(), &face().bounds, 0.3, seed) != kept(&other, &face().bounds, 0.3, seed)
        };
        assert!((0..20).any(differs));
    }
}
