//! Damaged photographs of every format, as strangers may send them, against a real service: each is
//! answered in time by a sentence or with its faces, and no process ends.
//!
//! Photograph `n` of a seed is the same on every machine. One that is answered wrongly is kept below
//! `target/tmp`, under its number.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::StreamExt;
use image::codecs::bmp::BmpEncoder;
use image::codecs::gif::GifEncoder;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::codecs::webp::WebPEncoder;
use image::{DynamicImage, Frame};
use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use reqwest::multipart::Form;
use tiff::encoder::compression::DeflateLevel;
use tiff::encoder::{Compression, Predictor, TiffEncoder, colortype};

use crate::bad_input::crc32;
use crate::support::{Service, jpeg, read, samples};

/// The seed, unless `MUSTER_TEST_SEED` has another.
const SEED: u64 = 19;
/// Photographs under way at one time.
const AT_ONCE: usize = 8;
/// `processing_timeout_s` of the service.
const PROCESSING_TIMEOUT: Duration = Duration::from_secs(30);

struct Random(SplitMix64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        (self.0.next_u64() % end.max(1) as u64) as usize
    }

    /// A place, every second time within the first bytes, where headers are.
    fn place(&mut self, length: usize) -> usize {
        match self.below(2) {
            0 => self.below(length.min(512)),
            _ => self.below(length),
        }
    }
}

/// A whole photograph, and what it is.
type Original = (&'static str, Vec<u8>);

/// Photographs of every format and of what they have within, with a face and small.
fn originals(photo: &[u8]) -> Vec<Original> {
    let photo = image::load_from_memory(photo).unwrap();
    let photo = photo.resize(240, 240, image::imageops::FilterType::Triangle);
    let (rgb, grey) = (photo.to_rgb8(), photo.to_luma8());
    let (width, height) = rgb.dimensions();
    let written = |write: &dyn Fn(&mut Cursor<Vec<u8>>)| {
        let mut bytes = Cursor::new(Vec::new());
        write(&mut bytes);
        bytes.into_inner()
    };
    let progressive = |to: &mut Cursor<Vec<u8>>| {
        let mut encoder = jpeg_encoder::Encoder::new(to, 85);
        encoder.set_progressive(true);
        let (width, height) = (width as u16, height as u16);
        let colour = jpeg_encoder::ColorType::Rgb;
        encoder.encode(rgb.as_raw(), width, height, colour).unwrap();
    };
    let tiff = |compression, predictor| {
        written(&|to| {
            let encoder = TiffEncoder::new(to).unwrap();
            let mut encoder = encoder
                .with_compression(compression)
                .with_predictor(predictor);
            let pixels = rgb.as_raw();
            encoder
                .write_image::<colortype::RGB8>(width, height, pixels)
                .unwrap();
        })
    };
    let recognizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../muster-recognize");
    let fixture = |name: &str| read(&recognizer.join("tests/fixtures").join(name));
    let png = |photo: &DynamicImage| {
        written(&|to| photo.write_with_encoder(PngEncoder::new(to)).unwrap())
    };
    vec![
        (
            "JPEG",
            written(&|to| rgb.write_with_encoder(JpegEncoder::new(to)).unwrap()),
        ),
        (
            "JPEG, grey",
            written(&|to| grey.write_with_encoder(JpegEncoder::new(to)).unwrap()),
        ),
        ("JPEG, progressive", written(&progressive)),
        ("PNG", png(&photo)),
        (
            "PNG, 16 bits",
            png(&DynamicImage::ImageRgba16(photo.to_rgba16())),
        ),
        ("PNG, grey", png(&DynamicImage::ImageLuma8(grey.clone()))),
        (
            "WebP, lossless",
            written(&|to| {
                rgb.write_with_encoder(WebPEncoder::new_lossless(to))
                    .unwrap()
            }),
        ),
        ("WebP, lossy", fixture("quarters_lossy.webp")),
        ("WebP, lossy, alpha", fixture("quarters_lossy_alpha.webp")),
        ("WebP, animated", fixture("quarters_animated.webp")),
        ("PNG, animated", fixture("quarters_animated.png")),
        ("HEIC", fixture("quarters.heic")),
        ("HEIC, alpha", fixture("quarters_alpha.heic")),
        ("HEIC, 10 bits", fixture("quarters_deep.heic")),
        ("HEIC, tiles", fixture("quarters_grid.heic")),
        ("HEIC, turned", fixture("quarters_turned.heic")),
        ("AVIF", fixture("quarters.avif")),
        ("AVIF, alpha", fixture("quarters_alpha.avif")),
        ("JPEG XL", fixture("quarters.jxl")),
        ("JPEG XL, lossless, alpha", fixture("quarters_alpha.jxl")),
        (
            "GIF",
            written(&|to| {
                let frames = [photo.to_rgba8(), photo.fliph().to_rgba8()].map(Frame::new);
                GifEncoder::new(to).encode_frames(frames).unwrap();
            }),
        ),
        (
            "BMP",
            written(&|to| rgb.write_with_encoder(BmpEncoder::new(to)).unwrap()),
        ),
        (
            "BMP, alpha",
            written(&|to| {
                photo
                    .to_rgba8()
                    .write_with_encoder(BmpEncoder::new(to))
                    .unwrap()
            }),
        ),
        ("TIFF", tiff(Compression::Uncompressed, Predictor::None)),
        ("TIFF, LZW", tiff(Compression::Lzw, Predictor::Horizontal)),
        (
            "TIFF, Deflate",
            tiff(
                Compression::Deflate(DeflateLevel::Balanced),
                Predictor::None,
            ),
        ),
        (
            "TIFF, PackBits",
            tiff(Compression::Packbits, Predictor::None),
        ),
    ]
}

/// Photograph `number` of a seed: what it was, and its bytes now.
fn mutated(originals: &[Original], seed: u64, number: usize) -> (&'static str, Vec<u8>) {
    let mut random = Random(SplitMix64::seed_from_u64(seed.wrapping_add(number as u64)));
    let (kind, bytes) = &originals[number % originals.len()];
    let mut bytes = bytes.clone();
    for _ in 0..1 + random.below(3) {
        mutate(&mut bytes, originals, &mut random);
    }
    // Without this a decoder sees little of a damaged PNG but its check sums.
    if kind.starts_with("PNG") && random.below(2) == 0 {
        mend_check_sums(&mut bytes);
    }
    (*kind, bytes)
}

fn mutate(bytes: &mut Vec<u8>, originals: &[Original], random: &mut Random) {
    const SPECIAL: [u32; 9] = [
        0,
        1,
        2,
        0x7f,
        0x80,
        0xff,
        0x7fff_ffff,
        0x8000_0000,
        u32::MAX,
    ];
    let at = random.place(bytes.len());
    let most = 1 << (1 + random.below(10));
    let length = 1 + random.below((bytes.len() - at).min(most));
    let run = at..(at + length).min(bytes.len());
    match random.below(8) {
        0 => {
            for _ in 0..1 + random.below(16) {
                let at = random.place(bytes.len());
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
        1 => bytes[run].fill_with(|| random.below(256) as u8),
        2 => {
            let value = [0, 0x7f, 0xff][random.below(3)];
            bytes[run].fill(value);
        }
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(run)),
        5 => {
            let run = bytes[run].to_vec();
            bytes.splice(at..at, run);
        }
        6 => {
            let (_, other) = &originals[random.below(originals.len())];
            bytes.truncate(at);
            bytes.extend(&other[random.place(other.len())..]);
        }
        _ => {
            let value = SPECIAL[random.below(SPECIAL.len())];
            let width = [1, 2, 4][random.below(3)];
            let value = match random.below(2) {
                0 => value.to_be_bytes()[4 - width..].to_vec(),
                _ => value.to_le_bytes()[..width].to_vec(),
            };
            let end = (at + width).min(bytes.len());
            bytes[at..end].copy_from_slice(&value[..end - at]);
        }
    }
}

/// Gives each chunk of a PNG the check sum of what it holds now.
fn mend_check_sums(png: &mut [u8]) {
    let mut at = 8;
    while let Some(length) = png.get(at..at + 4) {
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let end = at.saturating_add(8).saturating_add(length);
        let Some(held) = png.get(at + 4..end) else {
            return;
        };
        let sum = crc32(held).to_be_bytes();
        let Some(sum_of) = png.get_mut(end..end + 4) else {
            return;
        };
        sum_of.copy_from_slice(&sum);
        at = end + 4;
    }
}

/// Sends so many damaged photographs; prints what they were answered.
async fn are_answered(count: usize) {
    let Some(samples) = samples() else { return };
    let seed = std::env::var("MUSTER_TEST_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    let originals = originals(&read(&samples.people[0].1[0]));
    let toml =
        "min_instances = 2\nmax_instances = 2\nretention_s = 60.0\nprocessing_timeout_s = 30.0";
    let mut service = Service::up(toml).await;
    crate::support::until("both workers run", async || {
        service.status().await["fleet"]["running"] == 2
    })
    .await;
    for (kind, bytes) in &originals {
        let answer = service.recognize(bytes).await;
        assert!(
            matches!(answer.status, 200 | 422),
            "{kind}: {}",
            answer.text()
        );
    }
    let workers = service.workers();
    let mut answers: BTreeMap<(&str, u16), usize> = BTreeMap::new();
    let mut slowest = (Duration::ZERO, 0);
    let mut wrong = Vec::new();
    let sending = futures::stream::iter(0..count).map(async |number| {
        let (kind, bytes) = mutated(&originals, seed, number);
        let form = Form::new().part("image", jpeg("photo", &bytes));
        let begun = Instant::now();
        let answer = service.post("/v1/recognize", form).await;
        (number, kind, bytes, answer, begun.elapsed())
    });
    let mut sending = sending.buffer_unordered(AT_ONCE);
    while let Some((number, kind, bytes, answer, took)) = sending.next().await {
        *answers.entry((kind, answer.status)).or_default() += 1;
        slowest = slowest.max((took, number));
        if !matches!(answer.status, 200 | 413 | 415 | 422) || took >= PROCESSING_TIMEOUT {
            let kept = format!("{}/mutated-{seed}-{number}", env!("CARGO_TARGET_TMPDIR"));
            std::fs::write(&kept, bytes).unwrap();
            wrong.push(format!("{kept} ({kind}) in {took:?}: {}", answer.text()));
        }
    }
    drop(sending);
    for ((kind, status), count) in &answers {
        println!("{kind:<20} {status} {count:>6}");
    }
    println!(
        "{count} of seed {seed}; the slowest took {:?}, number {}",
        slowest.0, slowest.1
    );
    assert_eq!(wrong, [""; 0]);
    assert_eq!(service.workers(), workers, "no worker ended");
    assert!(
        service.child.try_wait().unwrap().is_none(),
        "the service runs"
    );
}

#[tokio::test]
async fn damaged_photographs_of_every_format_are_answered() {
    are_answered(170).await;
}

#[tokio::test]
#[ignore = "takes minutes: run `make test-long`"]
async fn twenty_thousand_damaged_photographs_of_every_format_are_answered() {
    are_answered(20_000).await;
}
