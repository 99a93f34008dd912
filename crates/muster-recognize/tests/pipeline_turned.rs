//! Photographs that do not stand upright, and people who do not, with the installed models.
//!
//! The models are those of the installation in `$MUSTER_MODELS_DIR`, else in the default folder. Without one
//! the tests say so and pass, except where `CI=true`: there they fail.
#![expect(
    clippy::unwrap_used,
    reason = "the functions that only tests call fail as tests do"
)]

use std::fs;
use std::path::PathBuf;

use image::{DynamicImage, RgbImage};
use muster_recognize::analysis::Analysis;
use muster_recognize::decode::Photo;
use muster_recognize::models::{Installation, default_root};
use muster_recognize::recognizer::{Options, Recognizer};

/// SFace's published cutoff for one person in two photographs.
const SAME_PERSON: f32 = 0.363;

struct Installed {
    recognizer: Recognizer,
    people: Vec<DynamicImage>,
    group: DynamicImage,
}

impl Installed {
    /// Loads the installed models and the first photograph of each sample person, or says on the terminal that
    /// there are none.
    fn load() -> Option<Self> {
        let root = std::env::var_os("MUSTER_MODELS_DIR")
            .map(PathBuf::from)
            .or_else(default_root)?;
        let installation = match Installation::open(&root) {
            Ok(installation) => installation,
            Err(error) => {
                assert!(std::env::var("CI").as_deref() != Ok("true"), "{error}");
                eprintln!("SKIPPED: {error}");
                return None;
            }
        };
        let open = |path: &PathBuf| image::load_from_memory(&fs::read(path).unwrap()).unwrap();
        let samples = installation.samples();
        let files = installation.model_files();
        Some(Self {
            recognizer: Recognizer::load(&files, Options::default()).unwrap(),
            people: samples
                .people
                .iter()
                .map(|(_, paths)| open(&paths[0]).thumbnail(800, 800))
                .collect(),
            group: open(&samples.group),
        })
    }

    fn analyze(&mut self, image: &DynamicImage) -> Analysis {
        let rgb = image.to_rgb8();
        let photo = Photo {
            width: rgb.width(),
            height: rgb.height(),
            rgb: rgb.into_raw(),
        };
        self.recognizer.analyze_photo(&photo).unwrap()
    }
}

/// The photograph turned clockwise about its middle, with grey where nothing is known.
fn tilted(image: &DynamicImage, degrees: f32) -> DynamicImage {
    let image = image.to_rgb8();
    let (width, height) = image.dimensions();
    let side = ((width * width + height * height) as f32).sqrt().ceil() as u32;
    let (sin, cos) = degrees.to_radians().sin_cos();
    let turned = RgbImage::from_fn(side, side, |x, y| {
        let [x, y] = [x, y].map(|at| at as f32 - side as f32 / 2.0);
        let (from_x, from_y) = (x * cos + y * sin, y * cos - x * sin);
        let at = |from: f32, length: u32| (from + length as f32 / 2.0).round() as i64;
        let (x, y) = (at(from_x, width), at(from_y, height));
        if (0..i64::from(width)).contains(&x) && (0..i64::from(height)).contains(&y) {
            *image.get_pixel(x as u32, y as u32)
        } else {
            image::Rgb([128; 3])
        }
    });
    DynamicImage::ImageRgb8(turned)
}

#[test]
fn a_photograph_on_its_side_or_head_shows_who_an_upright_one_shows() {
    let Some(mut installed) = Installed::load() else {
        return;
    };
    for person in installed.people.clone() {
        let upright = installed.analyze(&person);
        let face = &upright.faces[0];
        assert_eq!(upright.turn.degrees(), 0);
        assert!(
            upright.second_looks.is_empty(),
            "an upright one costs nothing more"
        );
        for (turned, to_upright) in [
            (person.rotate90(), 270),
            (person.rotate180(), 180),
            (person.rotate270(), 90),
        ] {
            let seen = installed.analyze(&turned);
            assert_eq!(seen.turn.degrees(), to_upright);
            let found = &seen.faces[0];
            assert_eq!(found.turn.degrees(), to_upright);
            // The same landmarks, up to how the detector's cells lie.
            let cosine = found.embedding.cosine(&face.embedding);
            assert!(cosine > 0.95, "to be turned by {to_upright}: {cosine}");
            let area = found.bounds.area() / face.bounds.area();
            assert!((0.8..1.25).contains(&area), "{area}");
            assert!(found.bounds.x + found.bounds.width <= turned.width() as f32 + 0.5);
            assert!(found.bounds.y + found.bounds.height <= turned.height() as f32 + 0.5);
        }
    }
}

#[test]
fn a_face_at_any_angle_is_whose_it_is() {
    let Some(mut installed) = Installed::load() else {
        return;
    };
    for person in installed.people.clone() {
        let face = installed.analyze(&person).faces.remove(0);
        for degrees in (15..360).step_by(15) {
            let seen = installed.analyze(&tilted(&person, degrees as f32));
            let found = seen.faces.first().expect("a face");
            let cosine = found.embedding.cosine(&face.embedding);
            assert!(cosine > SAME_PERSON, "turned by {degrees}: {cosine}");
        }
    }
}

#[test]
fn everyone_in_a_group_on_its_side_is_found() {
    let Some(mut installed) = Installed::load() else {
        return;
    };
    let group = installed.group.clone();
    let upright = installed.analyze(&group);
    for turned in [group.rotate90(), group.rotate180()] {
        let seen = installed.analyze(&turned);
        assert_eq!(seen.faces.len(), upright.faces.len());
        for face in &upright.faces {
            let alike = seen
                .faces
                .iter()
                .map(|seen| seen.embedding.cosine(&face.embedding));
            let nearest = alike.fold(f32::NEG_INFINITY, f32::max);
            // Of a face in doubt each detector has landmarks of its own.
            assert!(nearest > SAME_PERSON, "{nearest}");
        }
    }
}

/// Photographs beside and below each other, so many in a row.
fn mosaic(photos: &[DynamicImage], side: u32, in_a_row: usize) -> DynamicImage {
    let rows = photos.len().div_ceil(in_a_row) as u32;
    let mut canvas =
        RgbImage::from_pixel(side * in_a_row as u32, side * rows, image::Rgb([128; 3]));
    for (at, photo) in photos.iter().enumerate() {
        let small = photo.thumbnail(side, side).to_rgb8();
        let (column, row) = ((at % in_a_row) as i64, (at / in_a_row) as i64);
        let side = i64::from(side);
        image::imageops::replace(&mut canvas, &small, column * side, row * side);
    }
    DynamicImage::ImageRgb8(canvas)
}

#[test]
fn a_crowd_upside_down_is_turned() {
    let Some(mut installed) = Installed::load() else {
        return;
    };
    // Far more faces than are looked at again in one photograph.
    let people: Vec<DynamicImage> = installed.people.iter().cycle().take(100).cloned().collect();
    let crowd = mosaic(&people, 140, 10);
    let upright = installed.analyze(&crowd);
    assert!(upright.faces.len() >= 90, "{}", upright.faces.len());
    let seen = installed.analyze(&crowd.rotate180());
    assert_eq!(seen.turn.degrees(), 180);
    assert!(
        seen.faces.len() >= upright.faces.len() - 1,
        "{}",
        seen.faces.len()
    );
    for face in &seen.faces {
        assert_eq!(face.turn.degrees(), 180, "{:?}", face.bounds);
    }
}

#[test]
fn where_nobody_is_nobody_is_found_however_it_is_turned() {
    let Some(mut installed) = Installed::load() else {
        return;
    };
    let mut state = 1u32;
    let mut noise = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let noise = RgbImage::from_fn(500, 300, |_, _| image::Rgb([noise(), noise(), noise()]));
    let ramp = RgbImage::from_fn(500, 300, |x, y| image::Rgb([(x / 2) as u8, y as u8, 90]));
    let tiles = RgbImage::from_fn(500, 300, |x, y| {
        image::Rgb([((x / 20 + y / 20) % 2 * 200) as u8; 3])
    });
    for scene in [noise, ramp, tiles] {
        let seen = installed.analyze(&DynamicImage::ImageRgb8(scene));
        assert!(seen.faces.is_empty(), "{:?}", seen.faces);
        assert_eq!(seen.second_looks.len(), 4);
    }
}
