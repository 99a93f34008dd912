//! Decoding through the public API: every kind that is taken, every kind that is refused, and bytes
//! meant to do harm.
//!
//! The fixtures are 40x24 pictures of ours with four flat quarters: red and green above, blue and
//! beige below.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::codecs::webp::WebPEncoder;
use image::metadata::Orientation;
use image::{
    DynamicImage, ExtendedColorType, ImageBuffer, ImageEncoder, Luma, LumaA, Rgb, RgbImage, Rgba,
};
use muster_jobs::FailureCode;
use muster_recognize::decode::{ACCEPTED, DecodeLimits, Format, ImageError, Photo, decode, probe};
use proptest::prelude::*;

const QUARTERS: [[u8; 3]; 4] = [[200, 40, 40], [40, 160, 60], [50, 60, 190], [180, 170, 150]];

macro_rules! fixture {
    ($name:literal) => {
        (
            $name,
            include_bytes!(concat!("fixtures/", $name)).as_slice(),
        )
    };
}

const JPEGS: [(&str, &[u8]); 5] = [
    fixture!("quarters_progressive.jpg"),
    fixture!("quarters_restart.jpg"),
    fixture!("quarters_cmyk_adobe.jpg"),
    fixture!("quarters_cmyk_plain.jpg"),
    fixture!("quarters_ycck_adobe.jpg"),
];
const RASTERS: [(&str, &[u8]); 4] = [
    fixture!("quarters_lossy.webp"),
    fixture!("quarters_animated.webp"),
    fixture!("quarters_animated.png"),
    fixture!("quarters_palette.png"),
];

fn limits() -> DecodeLimits {
    DecodeLimits::default()
}

fn read(bytes: &[u8]) -> Photo {
    let photo = decode(bytes, &limits()).unwrap();
    assert_eq!(
        photo.rgb.len(),
        photo.width as usize * photo.height as usize * 3
    );
    photo
}

fn pixel(photo: &Photo, x: u32, y: u32) -> [u8; 3] {
    let at = (y as usize * photo.width as usize + x as usize) * 3;
    photo.rgb[at..at + 3].try_into().unwrap()
}

fn assert_close(name: &str, got: [u8; 3], want: [u8; 3]) {
    let off = got
        .iter()
        .zip(want)
        .map(|(got, want)| got.abs_diff(want))
        .max()
        .unwrap();
    assert!(off <= 8, "{name}: {got:?} is not close to {want:?}");
}

/// A picture in which no two neighbourhoods are alike, so that every turn of it differs.
fn scene(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([
            (x * 255 / width) as u8,
            (y * 255 / height) as u8,
            ((x * 7 + y * 13) % 97) as u8,
        ])
    })
}

fn jpeg(picture: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 90)
        .encode_image(picture)
        .unwrap();
    bytes
}

fn png(
    width: u32,
    height: u32,
    samples: &[u8],
    color: ExtendedColorType,
    exif: Option<Vec<u8>>,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = PngEncoder::new(&mut bytes);
    if let Some(exif) = exif {
        encoder.set_exif_metadata(exif).unwrap();
    }
    encoder.write_image(samples, width, height, color).unwrap();
    bytes
}

/// A TIFF block with nothing but the orientation tag.
fn exif(orientation: u8) -> Vec<u8> {
    let mut block = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    block.extend([orientation, 0, 0, 0, 0, 0, 0]);
    block
}

fn with_exif(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let block = [b"Exif\0\0".as_slice(), &exif(orientation)].concat();
    let length = u16::try_from(block.len() + 2).unwrap().to_be_bytes();
    [&jpeg[..2], &[0xFF, 0xE1], &length, &block, &jpeg[2..]].concat()
}

#[test]
fn every_kind_comes_out_as_the_same_picture() {
    for (name, bytes) in JPEGS.into_iter().chain(RASTERS) {
        let photo = read(bytes);
        assert_eq!((photo.width, photo.height), (40, 24), "{name}");
        for (quarter, want) in QUARTERS.into_iter().enumerate() {
            let (x, y) = (5 + 30 * (quarter as u32 % 2), 4 + 16 * (quarter as u32 / 2));
            assert_close(name, pixel(&photo, x, y), want);
        }
        let header = probe(bytes, &limits()).unwrap();
        assert_eq!((header.width, header.height), (40, 24), "{name}");
    }
}

#[test]
fn a_jpeg_xl_is_read_bare_and_in_boxes() {
    let (bare, alpha) = (
        include_bytes!("fixtures/quarters.jxl").as_slice(),
        include_bytes!("fixtures/quarters_alpha.jxl").as_slice(),
    );
    let boxed = [
        b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl \0\0\0\0jxl \0\0\0\0jxlc".as_slice(),
        bare,
    ]
    .concat();
    for bytes in [bare, &boxed] {
        let header = probe(bytes, &limits()).unwrap();
        assert_eq!((header.width, header.height), (40, 24));
        assert_eq!(header.format, Format::JpegXl);
        let photo = read(bytes);
        for (quarter, want) in QUARTERS.into_iter().enumerate() {
            let (x, y) = (5 + 30 * (quarter as u32 % 2), 4 + 16 * (quarter as u32 / 2));
            assert_close("JPEG XL", pixel(&photo, x, y), want);
        }
        for cut in 12..bytes.len() - 1 {
            let refused = decode(&bytes[..cut], &limits());
            assert!(
                matches!(refused, Err(ImageError::Unreadable { .. })),
                "{cut} of {}: {refused:?}",
                bytes.len()
            );
        }
    }
    let photo = read(alpha);
    assert_eq!(pixel(&photo, 5, 4), [255; 3]);
    assert_eq!(pixel(&photo, 35, 20), QUARTERS[3]);
    // Two sides of 2^30.
    let huge = [
        0xFF, 0x0A, 0xFE, 0xFF, 0xFF, 0xFF, 0xF9, 0xFF, 0xFF, 0xFF, 0xFF, 0x3F,
    ];
    assert_eq!(
        probe(&huge, &limits()).unwrap_err().code(),
        FailureCode::ImageTooLarge
    );
}

#[test]
fn transparency_is_laid_over_white() {
    let photo = read(include_bytes!("fixtures/quarters_lossy_alpha.webp"));
    assert_eq!(pixel(&photo, 5, 4), [255; 3]);
    assert_close("opaque", pixel(&photo, 35, 20), QUARTERS[3]);

    let half = read(&png(
        1,
        1,
        &[200, 100, 0, 128],
        ExtendedColorType::Rgba8,
        None,
    ));
    assert_eq!(half.rgb, [227, 177, 127]);
    let grey = read(&png(2, 1, &[9, 0, 9, 255], ExtendedColorType::La8, None));
    assert_eq!(grey.rgb, [255, 255, 255, 9, 9, 9]);
}

#[test]
fn one_bit_and_sixteen_bits_become_eight() {
    let photo = read(include_bytes!("fixtures/quarters_one_bit.png"));
    assert_eq!(
        (pixel(&photo, 5, 4), pixel(&photo, 35, 20)),
        ([0; 3], [255; 3])
    );

    let save = |picture: DynamicImage| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture
            .write_to(&mut bytes, image::ImageFormat::Png)
            .unwrap();
        read(&bytes.into_inner()).rgb
    };
    let rgb = ImageBuffer::from_pixel(1, 1, Rgb([0x0000_u16, 0x8080, 0xFFFF]));
    assert_eq!(save(DynamicImage::ImageRgb16(rgb)), [0, 128, 255]);
    let grey = ImageBuffer::from_pixel(1, 1, Luma([0x4040_u16]));
    assert_eq!(save(DynamicImage::ImageLuma16(grey)), [64; 3]);
    let faint = ImageBuffer::from_pixel(1, 1, LumaA([0_u16, 0]));
    assert_eq!(save(DynamicImage::ImageLumaA16(faint)), [255; 3]);
    let solid = ImageBuffer::from_pixel(1, 1, Rgba([0x0101_u16, 0x0202, 0x0303, 0xFFFF]));
    assert_eq!(save(DynamicImage::ImageRgba16(solid)), [1, 2, 3]);
}

#[test]
fn grey_jpegs_and_odd_sizes_are_read() {
    for (width, height) in [(1, 1), (7, 5), (15, 33), (17, 8), (64, 5), (333, 77)] {
        let picture = scene(width, height);
        let photo = read(&jpeg(&picture));
        assert_eq!((photo.width, photo.height), (width, height));
        let grey = image::imageops::grayscale(&picture);
        let mut bytes = Vec::new();
        JpegEncoder::new(&mut bytes).encode_image(&grey).unwrap();
        let photo = read(&bytes);
        assert!(
            photo
                .rgb
                .as_chunks::<3>()
                .0
                .iter()
                .all(|[r, g, b]| r == g && g == b)
        );
    }
}

#[test]
fn exif_turns_the_picture_upright_in_every_format() {
    let picture = scene(70, 41);
    let plain = jpeg(&picture);
    let stored = read(&plain);
    let stored = RgbImage::from_raw(stored.width, stored.height, stored.rgb).unwrap();
    for value in 1..=8 {
        let orientation = Orientation::from_exif(value).unwrap();
        let upright = |picture: &RgbImage| {
            let mut picture = DynamicImage::ImageRgb8(picture.clone());
            picture.apply_orientation(orientation);
            picture.into_rgb8()
        };
        let want = upright(&stored);
        let got = read(&with_exif(&plain, value));
        assert_eq!(
            (got.width, got.height),
            want.dimensions(),
            "orientation {value}"
        );
        assert!(got.rgb == want.into_raw(), "JPEG, orientation {value}");

        let want = upright(&picture);
        let bytes = png(
            70,
            41,
            picture.as_raw(),
            ExtendedColorType::Rgb8,
            Some(exif(value)),
        );
        let got = read(&bytes);
        assert_eq!((got.width, got.height), want.dimensions());
        assert!(
            got.rgb == want.as_raw().as_slice(),
            "PNG, orientation {value}"
        );

        let mut bytes = Vec::new();
        let mut encoder = WebPEncoder::new_lossless(&mut bytes);
        encoder.set_exif_metadata(exif(value)).unwrap();
        encoder
            .write_image(picture.as_raw(), 70, 41, ExtendedColorType::Rgb8)
            .unwrap();
        assert!(
            read(&bytes).rgb == want.into_raw(),
            "WebP, orientation {value}"
        );
    }
    assert_eq!(
        read(&with_exif(&plain, 9)).width,
        70,
        "an orientation that does not exist turns nothing"
    );
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let picture = scene(160, 120);
    let big = [
        jpeg(&picture),
        png(160, 120, picture.as_raw(), ExtendedColorType::Rgb8, None),
        {
            let mut bytes = Vec::new();
            WebPEncoder::new_lossless(&mut bytes)
                .write_image(picture.as_raw(), 160, 120, ExtendedColorType::Rgb8)
                .unwrap();
            bytes
        },
    ];
    let files = big
        .iter()
        .map(Vec::as_slice)
        .chain(JPEGS.into_iter().chain(RASTERS).map(|(_, bytes)| bytes));
    for bytes in files {
        // A file is whole when its pixels are; what follows them (later frames, the end marker) adds nothing. Of
        // a JPEG, a last byte may hold part of one symbol, or none.
        let find = |kind: &[u8; 4]| bytes.windows(4).position(|found| found == kind);
        let four = |at: usize| bytes[at..at + 4].try_into().unwrap();
        let whole = if bytes.starts_with(b"\xFF\xD8") {
            bytes.len() - 5
        } else if let Some(at) = find(b"IDAT") {
            at - 4 + u32::from_be_bytes(four(at - 4)) as usize
        } else if let Some(at) = find(b"ANMF") {
            at + u32::from_le_bytes(four(at + 4)) as usize
        } else {
            bytes.len()
        };
        for cut in (16..whole).step_by(whole / 200 + 1) {
            let refused = decode(&bytes[..cut], &limits());
            assert!(
                matches!(refused, Err(ImageError::Unreadable { .. })),
                "{cut} of {} bytes gave {refused:?}",
                bytes.len()
            );
        }
    }
}

#[test]
fn damage_in_the_middle_of_a_jpeg_is_refused_where_it_shows() {
    let bytes = jpeg(&scene(160, 120));
    let mut damaged = bytes.clone();
    let middle = bytes.len() / 2;
    // No Huffman code is all ones, so this cannot be mistaken for pixels.
    damaged[middle..middle + 64]
        .as_chunks_mut::<2>()
        .0
        .fill([0xFF, 0x00]);
    let refused = decode(&damaged, &limits()).unwrap_err();
    assert_eq!(refused.code(), FailureCode::ImageUnreadable);
}

#[test]
fn other_kinds_are_named() {
    let cases: [(&[u8], &str, &str); 10] = [
        (b"%PDF-1.7\n", "PDF", "convert it to JPEG"),
        (b"\0\0\0\x1cftypisom\0\0\0\0", "video", ACCEPTED),
        (b"\0\0\0\x18ftypcrx \0\0\0\x01", "camera raw", "JPEG"),
        (b"PK\x03\x04\x14\0", "ZIP", ACCEPTED),
        (b"II\x2b\0\x08\0\0\0", "BigTIFF", "JPEG"),
        (b"<!doctype html><title>not found</title>", "text", ACCEPTED),
        ("Grüße, kein Bild".as_bytes(), "text", ACCEPTED),
        (b"BMI is 21", "text", ACCEPTED),
        (
            b"BM, a text longer than any header of a bitmap",
            "text",
            ACCEPTED,
        ),
        (b"\x01\x02\x03\x04", "not a picture", ACCEPTED),
    ];
    for (bytes, kind, remedy) in cases {
        let refused = decode(bytes, &limits()).unwrap_err();
        let message = refused.to_string();
        assert_eq!(refused.code(), FailureCode::ImageUnsupported, "{message}");
        assert!(
            message.contains(kind) && message.contains(remedy),
            "{message}"
        );
        assert!(!message.contains('\n'));
    }
    assert_eq!(decode(b"", &limits()), Err(ImageError::Empty));
    let rare = [
        b"\xFF\xD8\xFF\xC9\0\x0b\x08".as_slice(),
        &[0, 16, 0, 16, 1, 1, 17, 0],
    ]
    .concat();
    assert_eq!(
        decode(&rare, &limits()).unwrap_err().code(),
        FailureCode::ImageUnsupported
    );
}

/// The first 33 bytes of a PNG of that size, depth and kind of colours.
fn png_header(width: u32, height: u32, depth: u8, color: u8) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    bytes.extend(width.to_be_bytes());
    bytes.extend(height.to_be_bytes());
    bytes.extend([depth, color, 0, 0, 0, 0, 0, 0, 0]);
    bytes
}

#[test]
fn extreme_sides_ratios_and_depths_are_refused_with_the_figures() {
    for (bytes, figures) in [
        (
            png_header(1, 50_000_000, 8, 2),
            "1x50000000 and at most 32768",
        ),
        (
            png_header(50_000_000, 1, 8, 2),
            "50000000x1 and at most 32768",
        ),
        (
            png_header(10, 5_000_000, 8, 2),
            "10x5000000 and at most 32768",
        ),
        (
            png_header(32_769, 1000, 8, 2),
            "32769x1000 and at most 32768",
        ),
        (png_header(400, 20_000, 1, 0), ""),
        (
            png_header(399, 20_000, 8, 2),
            "399x20000 and a side of at most 50 times",
        ),
        // 8 bytes of samples and 3 of RGB.
        (
            png_header(7000, 7000, 16, 6),
            "(7000x7000) takes 539000000 bytes and at most 536870912",
        ),
        (png_header(7000, 7000, 8, 6), ""),
        (png_header(12_000, 2000, 8, 2), ""),
        (png_header(30_000, 1000, 8, 2), ""),
    ] {
        match probe(&bytes, &limits()) {
            Ok(_) => assert_eq!(figures, "", "taken"),
            Err(refused) => {
                assert_eq!(refused.code(), FailureCode::ImageTooLarge);
                let said = refused.to_string();
                assert!(!figures.is_empty() && said.contains(figures), "{said}");
            }
        }
    }
}

#[test]
fn a_header_tells_what_a_pixel_takes() {
    let (_, progressive) = fixture!("quarters_progressive.jpg");
    let sizes = |bytes: &[u8]| {
        let header = probe(bytes, &limits()).unwrap();
        header.decoded_bytes / (u64::from(header.width) * u64::from(header.height))
    };
    assert_eq!(sizes(&jpeg(&scene(64, 64))), 6, "and turned");
    assert_eq!(sizes(progressive), 9);
    assert_eq!(sizes(&png_header(8, 8, 8, 0)), 6);
    assert_eq!(sizes(&png_header(8, 8, 16, 2)), 11);
}

#[test]
fn a_huge_header_is_refused_before_any_pixel() {
    let mut bomb = png(1, 1, &[0], ExtendedColorType::L8, None);
    bomb[16..24].copy_from_slice(&[0, 0, 0x4A, 0x38, 0, 0, 0x4A, 0x38]);
    let refused = ImageError::TooManyPixels {
        width: 19_000,
        height: 19_000,
        max: 50_000_000,
    };
    assert_eq!(probe(&bomb, &limits()), Err(refused.clone()));
    assert_eq!(decode(&bomb, &limits()), Err(refused.clone()));
    assert_eq!(refused.code(), FailureCode::ImageTooLarge);

    let mut wide = jpeg(&scene(16, 16));
    let frame = wide
        .windows(2)
        .position(|pair| pair == [0xFF, 0xC0])
        .unwrap();
    wide[frame + 5..frame + 9].fill(0xFF);
    assert_eq!(
        decode(&wide, &limits()).unwrap_err().code(),
        FailureCode::ImageTooLarge
    );

    // The canvas is small and the frame in it is not.
    let mut webp = include_bytes!("fixtures/quarters_lossy_alpha.webp").to_vec();
    let frame = webp
        .windows(3)
        .position(|start| start == [0x9D, 0x01, 0x2A])
        .unwrap();
    webp[frame + 3..frame + 7].copy_from_slice(&[0xFF, 0x3F, 0xFF, 0x3F]);
    assert_eq!(
        decode(&webp, &limits()).unwrap_err().code(),
        FailureCode::ImageUnreadable
    );

    let small = DecodeLimits {
        max_bytes: 100,
        ..limits()
    };
    let bytes = jpeg(&scene(16, 16));
    assert_eq!(
        probe(&bytes, &small),
        Err(ImageError::TooLargeBytes {
            got: bytes.len(),
            max: 100
        })
    );
    let small = DecodeLimits {
        max_pixels: 16 * 16 - 1,
        ..limits()
    };
    assert_eq!(
        probe(&bytes, &small).unwrap_err().code(),
        FailureCode::ImageTooLarge
    );
    let enough = DecodeLimits {
        max_bytes: bytes.len(),
        max_pixels: 16 * 16,
        max_side: 16,
        max_ratio: 1,
        max_decoded_bytes: 16 * 16 * 6,
    };
    assert_eq!(probe(&bytes, &enough).unwrap().format, Format::Jpeg);
}

/// Holds for any bytes: an answer, in bounds, and the same pixels that the header promised.
fn answers(bytes: &[u8]) -> Result<(), TestCaseError> {
    let limits = DecodeLimits {
        max_bytes: 1 << 20,
        max_pixels: 1 << 20,
        ..limits()
    };
    match decode(bytes, &limits) {
        Ok(photo) => {
            let header = probe(bytes, &limits).unwrap();
            prop_assert_eq!(
                photo.rgb.len() as u64,
                u64::from(photo.width) * u64::from(photo.height) * 3
            );
            prop_assert_eq!(photo.width * photo.height, header.width * header.height);
        }
        Err(error) => {
            prop_assert!(!error.to_string().contains('\n'));
            prop_assert!(!error.to_string().contains("gave up"), "a decoder panicked");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn mutated_pictures_never_panic(
        which in 0..JPEGS.len() + RASTERS.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<prop::sample::Index>(),
        keep_whole in any::<bool>(),
    ) {
        let mut bytes = JPEGS.into_iter().chain(RASTERS).nth(which).unwrap().1.to_vec();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if !keep_whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        answers(&bytes)?;
    }

    #[test]
    fn random_bytes_behind_a_magic_never_panic(
        magic in prop::sample::select(vec![
            b"".as_slice(),
            b"\xFF\xD8\xFF",
            b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR",
            b"RIFF\x40\0\0\0WEBPVP8X",
            b"RIFF\x40\0\0\0WEBPVP8L",
            b"\xFF\x0A",
            b"\xFF\x0A\x05\xC8\0",
        ]),
        tail in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        answers(&[magic, &tail].concat())?;
    }
}
