//! The pipeline on real photographs, with the installed models.
//!
//! The models are those of the installation in `$MUSTER_MODELS_DIR`, else in the default folder.
//! Without one the tests say so and pass, except where `CI=true`: there they fail.
#![expect(
    clippy::unwrap_used,
    reason = "the functions that only tests call fail as tests do"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Cursor;
use std::path::PathBuf;

use image::imageops::FilterType;
use image::{DynamicImage, ImageFormat, RgbImage};
use muster_jobs::{Measure, QualityLimits, Requirements};
use muster_recognize::analysis::{Analysis, Face};
use muster_recognize::decode::Photo;
use muster_recognize::engine::EngineError;
use muster_recognize::models::{
    DEFAULT_PROFILE, EmbedderModel, Installation, ModelFiles, default_root,
};
use muster_recognize::recognizer::{Care, Options, RecognizeError, Recognizer};

/// SFace's published cutoff for one person in two photographs.
const SAME_PERSON: f32 = 0.363;

struct Installed {
    recognizer: Recognizer,
    installation: Installation,
}

impl Installed {
    /// Loads the installed models, or says on the terminal that there are none.
    fn load() -> Option<Self> {
        Self::of_profile(DEFAULT_PROFILE)
    }

    fn of_profile(name: &str) -> Option<Self> {
        let root = std::env::var_os("MUSTER_MODELS_DIR")
            .map(PathBuf::from)
            .or_else(default_root)?;
        let installation = Installation::open(&root).and_then(|found| found.with_profile(name));
        let installation = match installation {
            Ok(installation) => installation,
            Err(error) => {
                assert!(std::env::var("CI").as_deref() != Ok("true"), "{error}");
                eprintln!("SKIPPED: {error}");
                return None;
            }
        };
        let recognizer = Recognizer::load(&files(&installation), Options::default()).unwrap();
        Some(Self {
            recognizer,
            installation,
        })
    }

    fn photographs(&self) -> Vec<(String, DynamicImage)> {
        let people = self.installation.samples().people;
        let open = |path: &PathBuf| image::load_from_memory(&fs::read(path).unwrap()).unwrap();
        people
            .iter()
            .flat_map(|(name, paths)| paths.iter().map(move |path| (name.clone(), open(path))))
            .collect()
    }

    fn group(&self) -> DynamicImage {
        let bytes = fs::read(self.installation.samples().group).unwrap();
        image::load_from_memory(&bytes).unwrap()
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

    fn main_face(&mut self, image: &DynamicImage) -> Face {
        self.analyze(image)
            .faces
            .into_iter()
            .next()
            .expect("a face")
    }
}

fn files(installation: &Installation) -> ModelFiles {
    installation.model_files()
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

#[test]
fn one_person_is_alike_and_two_are_not() {
    let Some(mut installed) = Installed::load() else {
        return;
    };
    let faces: Vec<_> = installed
        .photographs()
        .into_iter()
        .map(|(name, image)| (name, installed.main_face(&image)))
        .collect();
    assert!(faces.len() > 2);
    for (index, (name, face)) in faces.iter().enumerate() {
        for (other_name, other) in &faces[..index] {
            let cosine = face.embedding.cosine(&other.embedding);
            if name == other_name {
                assert!(
                    cosine > SAME_PERSON,
                    "{name} is unlike themselves: {cosine}"
                );
            } else {
                assert!(
                    cosine < SAME_PERSON,
                    "{name} is like {other_name}: {cosine}"
                );
            }
        }
    }
}

#[test]
fn everyone_in_a_group_is_found_at_any_size() {
    let Some(mut installed) = Installed::load() else {
        return;
    };
    let group = installed.group();
    for (width, height) in [(1280, 886), (512, 512), (2560, 1772), (420, 290)] {
        let analysis = installed.analyze(&group.resize_exact(width, height, FilterType::Triangle));
        assert_eq!(analysis.faces.len(), 6, "at {width}x{height}");
        let areas: Vec<_> = analysis
            .faces
            .iter()
            .map(|face| face.bounds.area())
            .collect();
        assert!(areas.is_sorted_by(|a, b| a >= b), "{areas:?}");
        for (index, face) in analysis.faces.iter().enumerate() {
            for other in &analysis.faces[..index] {
                assert!(face.embedding.cosine(&other.embedding) < SAME_PERSON);
            }
        }
    }
}

#[test]
fn small_faces_in_a_large_photograph_are_found() {
    let Some(mut installed) = Installed::load() else {
        return;
    };
    let mut scene = RgbImage::from_pixel(3000, 2000, image::Rgb([90, 110, 120]));
    let group = installed
        .group()
        .resize_exact(384, 266, FilterType::Triangle)
        .to_rgb8();
    image::imageops::overlay(&mut scene, &group, 2200, 1300);
    let analysis = installed.analyze(&DynamicImage::ImageRgb8(scene));
    assert_eq!(analysis.faces.len(), 6, "{:?}", analysis.detector_runs);
}

#[test]
fn a_face_of_48_pixels_is_found_in_a_photograph_of_any_size() {
    let Some(mut installed) = Installed::load() else {
        return;
    };
    let (_, photograph) = installed.photographs().swap_remove(0);
    let bounds = installed.main_face(&photograph).bounds;
    let of_side = |side: f32| {
        let scale = side / bounds.width.max(bounds.height);
        let [width, height] =
            [photograph.width(), photograph.height()].map(|length| (length as f32 * scale) as u32);
        photograph
            .resize_exact(width, height, FilterType::Triangle)
            .to_rgb8()
    };
    for (width, height) in [(12_000, 2000), (30_000, 1000), (8000, 6000)] {
        let mut scene = RgbImage::from_pixel(width, height, image::Rgb([90, 110, 120]));
        let sides = [48.0, 80.0, 120.0, 200.0];
        for (place, side) in sides.into_iter().enumerate() {
            let face = of_side(side);
            // Across the seams of tiles too.
            let x = place as u32 * (width - face.width()) / 3;
            let y = (height - face.height()) * (place as u32 % 2);
            image::imageops::overlay(&mut scene, &face, x.into(), y.into());
        }
        let mut found: Vec<f32> = (installed.analyze(&DynamicImage::ImageRgb8(scene)).faces)
            .iter()
            .map(|face| face.bounds.width.max(face.bounds.height))
            .collect();
        found.sort_by(f32::total_cmp);
        assert_eq!(found.len(), sides.len(), "{width}x{height}: {found:?}");
        for (found, side) in found.iter().zip(sides) {
            assert!(
                (0.7..1.4).contains(&(found / side)),
                "{width}x{height}: {found} for {side}"
            );
        }
    }
}

#[test]
fn a_face_is_itself_at_any_size_and_in_any_format() {
    let Some(mut installed) = Installed::load() else {
        return;
    };
    let (_, image) = installed.photographs().swap_remove(0);
    let face = installed.main_face(&image);
    for factor in [0.25, 0.5, 2.0] {
        let [width, height] =
            [image.width(), image.height()].map(|side| (side as f32 * factor) as u32);
        let other = installed.main_face(&image.resize_exact(width, height, FilterType::Triangle));
        let cosine = face.embedding.cosine(&other.embedding);
        assert!(cosine > 0.8, "{factor}: {cosine}");
        let expected = face.bounds.width * factor;
        assert!(
            (other.bounds.width / expected - 1.0).abs() < 0.15,
            "{factor}"
        );
    }
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
        let bytes = encoded(&DynamicImage::ImageRgb8(image.to_rgb8()), format);
        let analysis = installed.recognizer.analyze(&bytes).unwrap();
        let cosine = analysis.faces[0].embedding.cosine(&face.embedding);
        assert!(cosine > 0.95, "{format:?}: {cosine}");
        assert!(!analysis.timing.decode.is_zero());
    }
}

#[test]
fn an_image_turned_by_its_exif_orientation_is_the_same_person() {
    let Some(mut installed) = Installed::load() else {
        return;
    };
    let (_, image) = installed.photographs().swap_remove(0);
    let face = installed.main_face(&image);
    let turned = DynamicImage::ImageRgb8(image.rotate270().to_rgb8());
    let mut jpeg = encoded(&turned, ImageFormat::Jpeg);
    // An APP1 segment right after the start of the image: one big-endian TIFF entry, orientation
    // (0x0112) 6, which means that the picture must be turned clockwise.
    let exif: &[u8] =
        b"\xff\xe1\x00\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    jpeg.splice(2..2, exif.iter().copied());
    let analysis = installed.recognizer.analyze(&jpeg).unwrap();
    assert_eq!(
        (analysis.width, analysis.height),
        (image.width(), image.height())
    );
    assert!(analysis.faces[0].embedding.cosine(&face.embedding) > 0.95);
}

#[test]
fn a_face_that_fills_the_picture_or_is_cut_by_its_edge_is_found() {
    let Some(mut installed) = Installed::load() else {
        return;
    };
    for (name, image) in installed.photographs() {
        let face = installed.main_face(&image);
        let [x, y, width, height] = [
            face.bounds.x,
            face.bounds.y,
            face.bounds.width,
            face.bounds.height,
        ]
        .map(|value| value as u32);
        let tight = image.crop_imm(x, y, width, height);
        for side in [100, 320, 1500] {
            let tight = tight.resize(side, side, FilterType::Triangle);
            let found = installed.main_face(&tight);
            let cosine = found.embedding.cosine(&face.embedding);
            assert!(cosine > 0.5, "{name}, tight at {side}: {cosine}");
        }
        let cut = image.crop_imm(x, 0, image.width() - x, y + height * 4 / 5);
        let found = installed.main_face(&cut);
        assert!(found.embedding.cosine(&face.embedding) > 0.5, "{name}, cut");
        let [right, bottom] = [
            found.bounds.x + found.bounds.width,
            found.bounds.y + found.bounds.height,
        ];
        assert!(right <= cut.width() as f32 && bottom <= cut.height() as f32);
    }
}

#[test]
fn a_picture_without_a_face_is_no_error() {
    let Some(mut installed) = Installed::load() else {
        return;
    };
    for (width, height) in [(1, 1), (512, 512), (3, 2000), (1600, 1200)] {
        let grey =
            DynamicImage::ImageRgb8(RgbImage::from_pixel(width, height, image::Rgb([128; 3])));
        let analysis = installed.analyze(&grey);
        assert!(analysis.faces.is_empty());
        assert!(!analysis.detector_runs.is_empty());
    }
    let nothing = Photo {
        width: 0,
        height: 0,
        rgb: Vec::new(),
    };
    assert!(
        installed
            .recognizer
            .analyze_photo(&nothing)
            .unwrap()
            .faces
            .is_empty()
    );
}

#[test]
fn the_models_alone_can_be_run_for_an_analysis() {
    let Some(mut installed) = Installed::load() else {
        return;
    };
    let group = installed.group();
    let analysis = installed.analyze(&group);
    assert_eq!(analysis.detector_runs, [(640, 640)]);
    assert!(
        !installed
            .recognizer
            .run_models_alone(&analysis)
            .unwrap()
            .is_zero()
    );
    let again = installed.analyze(&group);
    assert_eq!(again.faces, analysis.faces, "a run left something behind");
}

#[test]
fn what_is_at_fault_is_told() {
    let Some(mut installed) = Installed::load() else {
        return;
    };
    let refused = installed.recognizer.analyze(b"no photograph");
    assert!(matches!(refused, Err(RecognizeError::Image(_))));

    let right = files(&installed.installation);
    let load = |files| match Recognizer::load(&files, Options::default()) {
        Err(RecognizeError::Engine(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("loaded"),
    };
    let missing = ModelFiles {
        detector: "nowhere.onnx".into(),
        ..right.clone()
    };
    assert!(matches!(load(missing), EngineError::Model { .. }));
    let swapped = ModelFiles {
        detector: right.embedder.file.clone(),
        ..right.clone()
    };
    assert!(matches!(
        load(swapped),
        EngineError::Model { .. } | EngineError::Unsuitable { .. }
    ));
    let swapped = ModelFiles {
        embedder: EmbedderModel {
            file: right.detector.clone(),
            ..right.embedder.clone()
        },
        ..right.clone()
    };
    assert!(matches!(load(swapped), EngineError::Unsuitable { .. }));
    let said_otherwise = |change: fn(&mut EmbedderModel)| {
        let mut files = right.clone();
        change(&mut files.embedder);
        load(files).to_string()
    };
    for (message, said) in [
        (
            said_otherwise(|model| model.dimensions = 512),
            "set `dimensions`",
        ),
        (
            said_otherwise(|model| model.input.width = 160),
            "set `width` and `height`",
        ),
        (
            said_otherwise(|model| model.input.name = "x".to_owned()),
            "it has data",
        ),
    ] {
        assert!(
            message.contains(said) && message.contains("sface.onnx"),
            "{message}"
        );
    }
    let no_library = ModelFiles {
        runtime_library: "nowhere.so".into(),
        ..right.clone()
    };
    assert!(matches!(load(no_library), EngineError::Library { .. }));
    let other = tempfile::tempdir().unwrap();
    let copy = other.path().join("libopenvino_c.so");
    fs::write(&copy, "").unwrap();
    let other_library = ModelFiles {
        runtime_library: copy,
        ..right
    };
    assert!(matches!(
        load(other_library),
        EngineError::OtherLibraryLoaded { .. }
    ));
}

/// What the manifest says of strangers is what the sample photographs show: faces of different
/// people, of one photograph left out, since they share its light.
#[test]
fn the_shipped_calibrations_are_those_of_the_sample_photographs() {
    // The upper end of the interval, where nothing else confirms the deviation.
    for (profile, bound) in [(DEFAULT_PROFILE, 1.0), ("int8", 1.0), ("fast", 1.30)] {
        if let Some(installed) = Installed::of_profile(profile) {
            calibration_is_that_of_the_sample_photographs(installed, bound);
        }
    }
}

fn calibration_is_that_of_the_sample_photographs(mut installed: Installed, bound: f64) {
    let mut named: Vec<(String, Face)> = Vec::new();
    for (name, photograph) in installed.photographs() {
        named.push((name, installed.main_face(&photograph)));
    }
    let group = installed.group();
    let group = installed.analyze(&group).faces;
    let people = named.iter().map(|(name, _)| name).collect::<BTreeSet<_>>();
    let people = people.len() + group.len();
    let strangers = named.iter().enumerate().flat_map(|(n, (name, face))| {
        let others = named[..n].iter().filter(move |(other, _)| other != name);
        let others = others.map(|(_, other)| other).chain(&group);
        others.map(|other| f64::from(face.embedding.cosine(&other.embedding)))
    });
    let similarities: Vec<f64> = strangers.collect();
    let count = similarities.len() as f64;
    let mean = similarities.iter().sum::<f64>() / count;
    let strengths = (named.iter().map(|(_, face)| face).chain(&group))
        .map(|face| face.quality.strength.expect("a shipped model has a sample"));
    let strength = strengths.sum::<f32>() / (named.len() + group.len()) as f32;
    let squares = similarities.iter().map(|value| (value - mean).powi(2));
    let deviation = (squares.sum::<f64>() / count).sqrt();
    let shipped = installed
        .installation
        .embedder()
        .calibration
        .clone()
        .unwrap();
    eprintln!(
        "{count} pairs of {people} people: mean {mean:.4}, standard deviation {deviation:.4}, \
         strength {strength:.3}"
    );
    // What the strength is a share of is their mean, between that of processors with bf16 and without.
    assert!((strength - 1.0).abs() < 0.06);
    assert_eq!(people, shipped.people as usize);
    // How a processor multiplies (f32, or bf16 with or without AMX) moves it by thousandths.
    assert!((mean - f64::from(shipped.impostor_mean)).abs() < 1e-2);
    // So few pairs tell a deviation no better than to twice its error. What is shipped may be larger, which is
    // the safe side.
    let error = deviation / (2.0 * count).sqrt();
    let range = bound * deviation - 2.0 * error..2.0 * bound * deviation;
    assert!(
        range.contains(&f64::from(shipped.impostor_std)),
        "{range:?}"
    );
}

/// On every processor: one without VNNI must not cut off the sums of a layer, and nobody's embedding may
/// depend on which worker has made it.
#[test]
fn a_face_looks_in_8_bits_as_it_does_in_32() {
    let Some(mut installed) = Installed::load() else {
        return;
    };
    let int8 = installed.installation.other_embedder("sface_int8").unwrap();
    installed.recognizer.add_embedder(&int8).unwrap();
    let both = ["sface", "sface_int8"].map(str::to_owned);
    let samples = installed.installation.samples();
    let photographs = samples.people.into_iter().flat_map(|(_, paths)| paths);
    let (mut faces, mut least) = (0, 1.0_f32);
    for path in photographs.chain([samples.group]) {
        let analysis =
            (installed.recognizer).analyze_by(&fs::read(&path).unwrap(), &both, Care::Usual);
        for face in analysis.unwrap().faces {
            faces += 1;
            least = least.min(face.embedding.cosine(&face.others[0]));
        }
    }
    eprintln!("{faces} faces: the least cosine is {least:.4}");
    assert_eq!(faces, 10);
    assert!(least > 0.97, "{least}");
}

/// A photograph whose main face is `size` pixels, as [`Quality::size_px`] measures it.
fn sized(installed: &mut Installed, photograph: &DynamicImage, size: f32) -> DynamicImage {
    let scale = size / installed.main_face(photograph).quality.size_px;
    let scaled = |side: u32| (side as f32 * scale) as u32;
    let (width, height) = (scaled(photograph.width()), scaled(photograph.height()));
    photograph.resize_exact(width, height, FilterType::Triangle)
}

#[test]
fn what_a_real_photograph_lacks_is_said() {
    let Some(mut installed) = Installed::load() else {
        return;
    };
    let (enrolment, naming) = (
        QualityLimits::default().enrolment,
        QualityLimits::default().matching,
    );
    for (name, photograph) in installed.photographs() {
        let mut lacking = |photograph: &DynamicImage, required: &Requirements| {
            let quality = installed.main_face(photograph).quality;
            let unmet = required.unmet_by(&quality);
            let measures: Vec<Measure> = unmet.iter().map(|lack| lack.measure).collect();
            (measures, quality)
        };
        let dark = |share: f32| {
            let mut dark = photograph.resize(600, 600, FilterType::Triangle).to_rgb8();
            for value in dark.iter_mut() {
                *value = (f32::from(*value) * share) as u8;
            }
            DynamicImage::ImageRgb8(dark)
        };
        let (none, as_it_is) = lacking(&photograph, &enrolment);
        assert_eq!(none, [], "{name}: {as_it_is:?}");
        let (measures, quality) = lacking(&dark(0.12), &enrolment);
        assert_eq!(measures, [Measure::Brightness], "{name}: {quality:?}");
        assert_eq!(lacking(&dark(0.12), &naming).0, [], "{name}: {quality:?}");

        // From here on of one size, so that a blur is the same for all.
        let middle = sized(&mut installed, &photograph, 224.0);
        let small = sized(&mut installed, &photograph, 22.0);
        let tiny = sized(&mut installed, &photograph, 16.0);
        let mut lacking = |photograph: &DynamicImage, required: &Requirements| {
            let quality = installed.main_face(photograph).quality;
            let unmet = required.unmet_by(&quality);
            unmet.iter().map(|lack| lack.measure).collect::<Vec<_>>()
        };
        // So small, it is hardly sharp.
        assert_eq!(lacking(&small, &enrolment)[0], Measure::Size, "{name}");
        assert_eq!(lacking(&small, &naming), [], "{name}");
        assert_eq!(lacking(&tiny, &naming), [Measure::Size], "{name}");
        // The models see less of such a face too.
        assert_eq!(
            lacking(&middle.blur(6.0), &enrolment)[0],
            Measure::Sharpness,
            "{name}"
        );
        assert_eq!(lacking(&middle.blur(6.0), &naming), [], "{name}");
        assert_eq!(
            lacking(&middle.blur(12.0), &naming)[0],
            Measure::Sharpness,
            "{name}"
        );
    }
}

#[test]
fn a_small_face_and_its_mirror_image_have_one_embedding() {
    let Some(mut installed) = Installed::load() else {
        return;
    };
    for (name, photograph) in installed.photographs() {
        let small = sized(&mut installed, &photograph, 32.0);
        let face = installed.main_face(&small);
        assert!((28.0..36.0).contains(&face.quality.size_px), "{name}");
        let mirrored = installed.main_face(&small.fliph());
        let similarity = face.embedding.cosine(&mirrored.embedding);
        eprintln!("{name}: {similarity:.3}");
        assert!(similarity > 0.95, "{name}: {similarity}");
    }
}
