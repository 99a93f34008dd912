//! From files as people have them to faces, with the installed models: files with faults that every viewer passes over,
//! and animations.
//!
//! The models are those of the installation in `$MUSTER_MODELS_DIR`, else in the default folder. Without one,
//! or without the inputs in `../shared`, the tests say so and pass, except where `CI=true`: there they fail.
#![expect(
    clippy::unwrap_used,
    reason = "the functions that only tests call fail as tests do"
)]

use std::fs;
use std::path::{Path, PathBuf};

use image::codecs::gif::GifEncoder;
use image::{Frame, Rgba, RgbaImage};
use muster_jobs::Repair;
use muster_recognize::analysis::Analysis;
use muster_recognize::decode::libheif;
use muster_recognize::models::{Installation, default_root};
use muster_recognize::recognizer::{Options, Recognizer};

/// Says that something is missing, and fails where nothing may be.
fn skip(why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
    eprintln!("SKIPPED: {why}");
}

fn recognizer() -> Option<(Recognizer, Installation)> {
    let root = std::env::var_os("MUSTER_MODELS_DIR")
        .map(PathBuf::from)
        .or_else(default_root)?;
    match Installation::open(&root) {
        Ok(found) => {
            let recognizer = Recognizer::load(&found.model_files(), Options::default()).unwrap();
            Some((recognizer, found))
        }
        Err(error) => {
            skip(&error.to_string());
            None
        }
    }
}

fn inputs() -> Option<PathBuf> {
    let inputs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/inputs");
    if inputs.is_dir() {
        return Some(inputs);
    }
    skip(&format!("there is no {}", inputs.display()));
    None
}

#[test]
fn a_file_with_a_fault_shows_its_face() {
    let (Some((mut recognizer, _)), Some(inputs)) = (recognizer(), inputs()) else {
        return;
    };
    let mut seen: Option<Analysis> = None;
    if !libheif().is_some_and(|found| found.heic) {
        return skip("there is no libheif that decodes HEIC (Debian: libheif1)");
    }
    for (file, faults) in [
        ("jpeg_noeoi.jpg", vec![Repair::End]),
        ("cut_eoi_half.jpg", vec![Repair::End]),
        ("jpeg_two_soi.jpg", vec![Repair::Start]),
        ("mjpeg_no_dht.jpg", vec![Repair::HuffmanTables]),
        ("png_no_iend.png", vec![Repair::End]),
        ("jpeg_longtype_6.jpg", vec![]),
        ("x.heic", vec![]),
    ] {
        let bytes = fs::read(inputs.join(file)).unwrap();
        let analysis = recognizer.analyze(&bytes).unwrap();
        assert_eq!(analysis.repaired, faults, "{file}");
        assert_eq!(analysis.faces.len(), 1, "{file}");
        if let Some(first) = &seen {
            let cosine = first.faces[0]
                .embedding
                .cosine(&analysis.faces[0].embedding);
            assert!(cosine > 0.9, "{file}: one photograph, {cosine}");
        }
        seen.get_or_insert(analysis);
    }
}

fn gif(frames: impl IntoIterator<Item = RgbaImage>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new_with_speed(&mut bytes, 30);
    encoder
        .encode_frames(frames.into_iter().map(Frame::new))
        .unwrap();
    drop(encoder);
    bytes
}

#[test]
fn an_animation_shows_the_face_of_its_first_ten_pictures() {
    let Some((mut recognizer, installation)) = recognizer() else {
        return;
    };
    let people = installation.samples().people;
    let photo = fs::read(&people[0].1[0]).unwrap();
    let photo = image::load_from_memory(&photo).unwrap();
    let photo = photo.thumbnail(320, 320).into_rgba8();
    let (width, height) = photo.dimensions();
    let black = RgbaImage::from_pixel(width, height, Rgba([0, 0, 0, 255]));
    let mut analyze = |before: usize| {
        let dark = std::iter::repeat_n(black.clone(), before);
        let bytes = gif(dark.chain([photo.clone(), black.clone()]));
        recognizer.analyze(&bytes).unwrap()
    };
    for before in [0, 1, 9] {
        let analysis = analyze(before);
        assert_eq!(analysis.frame as usize, before);
        assert_eq!(analysis.faces.len(), 1, "{before} black pictures");
        assert_eq!((analysis.width, analysis.height), (width, height));
    }
    let late = analyze(10);
    assert!(late.faces.is_empty());
    assert_eq!(late.frame, 0);
}
