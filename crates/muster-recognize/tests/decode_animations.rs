//! Animations through the public API: which pictures come, in what order, and what they cost.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use image::codecs::gif::GifEncoder;
use image::{Frame, Rgba, RgbaImage};
use muster_recognize::decode::{DecodeLimits, Photo, open};

const GREYS: [u8; 12] = [0, 20, 40, 60, 80, 100, 120, 140, 160, 180, 200, 220];

fn gif(greys: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new(&mut bytes);
    let frame = |grey: &u8| {
        let [r, g, b] = [*grey; 3];
        Frame::new(RgbaImage::from_pixel(12, 8, Rgba([r, g, b, 255])))
    };
    encoder.encode_frames(greys.iter().map(frame)).unwrap();
    drop(encoder);
    bytes
}

/// The pictures that are handed out.
fn pictures(bytes: &[u8], limits: &DecodeLimits) -> Vec<Photo> {
    let mut picture = open(bytes, limits).unwrap();
    let mut photos = vec![picture.photo.clone()];
    while picture.advance() {
        photos.push(picture.photo.clone());
    }
    assert!(!picture.advance(), "and no more");
    photos
}

fn greys(bytes: &[u8], limits: &DecodeLimits) -> Vec<u8> {
    let photos = pictures(bytes, limits);
    photos.iter().map(|photo| photo.rgb[0]).collect()
}

#[test]
fn the_first_ten_pictures_of_a_gif_are_handed_out() {
    let limits = DecodeLimits::default();
    assert_eq!(greys(&gif(&GREYS), &limits), GREYS[..10]);
    assert_eq!(greys(&gif(&GREYS[..4]), &limits), GREYS[..4]);
    assert_eq!(greys(&gif(&GREYS[..1]), &limits), GREYS[..1]);
}

#[test]
fn a_picture_that_can_not_be_read_ends_an_animation() {
    let bytes = gif(&GREYS[..4]);
    for cut in (bytes.len() / 4 + 80..bytes.len()).step_by(7) {
        let Ok(mut picture) = open(&bytes[..cut], &DecodeLimits::default()) else {
            continue;
        };
        let mut frames = 1;
        while picture.advance() {
            assert_eq!(picture.photo.rgb.len(), 12 * 8 * 3);
            frames += 1;
        }
        assert!(frames <= 4);
    }
}

#[test]
fn an_animation_keeps_within_the_memory_or_is_its_first_picture() {
    let bytes = gif(&GREYS[..3]);
    let enough = DecodeLimits {
        max_decoded_bytes: 12 * 8 * 23,
        ..DecodeLimits::default()
    };
    assert_eq!(greys(&bytes, &enough), GREYS[..3]);
    let less = DecodeLimits {
        max_decoded_bytes: 12 * 8 * 23 - 1,
        ..enough
    };
    assert_eq!(greys(&bytes, &less), GREYS[..1]);
    // A later picture that says it is 65,535 pixels wide.
    let mut wide = bytes;
    let second = wide.iter().rposition(|byte| *byte == 0x2C).unwrap();
    wide[second + 5..second + 9].fill(0xFF);
    assert!(pictures(&wide, &enough).len() < 3);
}

#[test]
fn webp_and_png_are_animations_too() {
    let limits = DecodeLimits::default();
    let webp = include_bytes!("fixtures/quarters_animated.webp");
    let png = include_bytes!("fixtures/quarters_animated.png");
    let two = [webp.as_slice(), png].map(|bytes| pictures(bytes, &limits));
    for photos in &two {
        assert_eq!(photos.len(), 2);
        assert!(photos[0] != photos[1]);
        assert!(
            photos
                .iter()
                .all(|photo| (photo.width, photo.height) == (40, 24))
        );
    }
    // Without an announcement before it, the default picture of a PNG is none of the animation.
    let at = png.windows(4).position(|kind| kind == b"fcTL").unwrap() - 4;
    let mut apart = png.to_vec();
    apart.drain(at..at + 38);
    // One frame less is announced, and the later chunks are counted from 0.
    let actl = apart.windows(4).position(|kind| kind == b"acTL").unwrap();
    apart[actl + 7] -= 1;
    let fctl = apart.windows(4).position(|kind| kind == b"fcTL").unwrap();
    apart[fctl + 7] = 0;
    let fdat = apart.windows(4).position(|kind| kind == b"fdAT").unwrap();
    apart[fdat + 7] = 1;
    for at in [actl, fctl, fdat] {
        let length = u32::from_be_bytes(apart[at - 4..at].try_into().unwrap()) as usize;
        let mut sum = flate2::Crc::new();
        sum.update(&apart[at..at + 4 + length]);
        apart[at + 4 + length..at + 8 + length].copy_from_slice(&sum.sum().to_be_bytes());
    }
    assert_eq!(pictures(&apart, &limits), two[1]);

    for still in [
        include_bytes!("fixtures/quarters_lossy.webp").as_slice(),
        include_bytes!("fixtures/quarters_palette.png"),
        include_bytes!("fixtures/quarters_progressive.jpg"),
    ] {
        assert_eq!(pictures(still, &limits).len(), 1);
    }
}
