//! Files that every viewer shows though something of them is missing: their faults are made here, one kind after
//! the other, and the pixels that come out are those of the file without the fault.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder, Rgb, RgbImage};
use muster_jobs::Repair;
use muster_recognize::decode::{DecodeLimits, ImageError, decode, open};

/// A scan for each component; of the second the colours have half the rows and columns.
const SCANS: &[u8] = include_bytes!("fixtures/quarters_scans.jpg");
const SCANS_420: &[u8] = include_bytes!("fixtures/quarters_scans_420.jpg");
const PROGRESSIVE: &[u8] = include_bytes!("fixtures/quarters_progressive.jpg");
const RESTART: &[u8] = include_bytes!("fixtures/quarters_restart.jpg");
const CMYK: &[u8] = include_bytes!("fixtures/quarters_cmyk_adobe.jpg");
const YCCK: &[u8] = include_bytes!("fixtures/quarters_ycck_adobe.jpg");
const START: [u8; 2] = [0xFF, 0xD8];
const END: [u8; 2] = [0xFF, 0xD9];

fn scene() -> RgbImage {
    RgbImage::from_fn(160, 120, |x, y| {
        Rgb([
            (x * 255 / 160) as u8,
            (y * 255 / 120) as u8,
            ((x * 7 + y * 13) % 97) as u8,
        ])
    })
}

fn jpeg() -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 90)
        .encode_image(&scene())
        .unwrap();
    bytes
}

fn grey_jpeg() -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new(&mut bytes)
        .encode_image(&image::imageops::grayscale(&scene()))
        .unwrap();
    bytes
}

fn png() -> Vec<u8> {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(scene().as_raw(), 160, 120, ExtendedColorType::Rgb8)
        .unwrap();
    bytes
}

/// The segments of a JPEG before its scans, and the rest.
fn segments(jpeg: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let (mut found, mut at) = (Vec::new(), 2);
    while jpeg[at + 1] != 0xDA {
        let length = usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
        found.push(&jpeg[at..at + 2 + length]);
        at += 2 + length;
    }
    (found, &jpeg[at..])
}

fn without_tables(jpeg: &[u8]) -> Vec<u8> {
    let (mut kept, scans) = segments(jpeg);
    kept.retain(|segment| segment[1] != 0xC4);
    [&START, kept.concat().as_slice(), scans].concat()
}

/// A JPEG with a segment behind its first marker.
fn with_segment(jpeg: &[u8], marker: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 2).unwrap().to_be_bytes();
    [&jpeg[..2], &[0xFF, marker], &length, payload, &jpeg[2..]].concat()
}

fn same(name: &str, whole: &[u8], faulty: &[u8], faults: &[Repair]) {
    let limits = DecodeLimits::default();
    let want = decode(whole, &limits).unwrap();
    let got = open(faulty, &limits).unwrap_or_else(|refused| panic!("{name}: {refused}"));
    assert!(got.photo == want, "{name}");
    assert_eq!(got.repaired, faults, "{name}");
}

fn assert_refused(name: &str, bytes: &[u8]) {
    let refused = decode(bytes, &DecodeLimits::default());
    assert!(
        matches!(refused, Err(ImageError::Unreadable { .. })),
        "{name}: {refused:?}"
    );
}

#[test]
fn a_jpeg_without_its_end_is_read_when_its_pixels_are_there() {
    let grey = grey_jpeg();
    let plain = jpeg();
    for (name, whole) in [
        ("plain", plain.as_slice()),
        ("grey", &grey),
        ("progressive", PROGRESSIVE),
        ("restarts", RESTART),
        ("inks", CMYK),
        ("inks in YCCK", YCCK),
    ] {
        let open = whole.strip_suffix(&END).unwrap();
        let tails: [&[u8]; 5] = [b"", b"\xFF", &[0; 700], b"\r\n--frame--\r\n", b"\xFF\xFF"];
        for tail in tails {
            same(name, whole, &[open, tail].concat(), &[Repair::End]);
        }
        same(name, whole, whole, &[]);
        same(name, whole, &[whole, b"more".as_slice()].concat(), &[]);
    }
}

/// A half-grey face would be matched as if it were one, whatever the file ends with.
#[test]
fn a_jpeg_without_some_pixels_is_refused_whatever_it_ends_with() {
    let (plain, grey) = (jpeg(), grey_jpeg());
    for (name, whole) in [
        ("plain", plain.as_slice()),
        ("grey", &grey),
        ("progressive", PROGRESSIVE),
        ("restarts", RESTART),
        ("inks", CMYK),
    ] {
        let (_, scans) = segments(whole);
        let first = whole.len() - scans.len() + 14;
        // The last symbol alone may stand in the last bytes; and what the last scan of a progressive picture adds is
        // no more than the last bit of its coefficients.
        let last = match name {
            "progressive" => whole
                .windows(2)
                .rposition(|pair| pair == [0xFF, 0xDA])
                .unwrap(),
            _ => whole.len() - 5,
        };
        for cut in (first..last).step_by(whole.len() / 900 + 1) {
            let cut = &whole[..cut];
            let name = &format!("{name}, {} of {}", cut.len(), whole.len());
            assert_refused(name, cut);
            assert_refused(name, &[cut, &[0; 900]].concat());
            assert_refused(name, &[cut, &[0xFF]].concat());
            // The scans of a progressive picture that are whole are a picture, less sharp, if the file says that
            // it ends there.
            if name.starts_with("progressive") {
                continue;
            }
            assert_refused(name, &[cut, &END].concat());
        }
    }
}

#[test]
fn a_jpeg_that_ends_before_it_shows_anything_is_refused() {
    assert_refused("two markers", &[&START[..], &END].concat());
    assert_refused("no scan", &[&jpeg()[..30], &END].concat());
    assert_refused("and twice", &[&START[..], &jpeg()[..30], &END].concat());
}

/// A file that stops between the scans of its colours has false ones.
#[test]
fn a_jpeg_without_one_of_its_colours_is_refused() {
    let scans: Vec<usize> = (0..SCANS.len())
        .filter(|at| SCANS[*at..].starts_with(&[0xFF, 0xDA]))
        .collect();
    assert_eq!(scans.len(), 3);
    assert!(decode(SCANS, &DecodeLimits::default()).is_ok());
    for cut in &scans[1..] {
        assert_refused("cut", &SCANS[..*cut]);
        assert_refused("closed", &[&SCANS[..*cut], &END].concat());
    }
}

/// It is whole, but what the decoder makes of it is another picture.
#[test]
fn a_jpeg_that_would_be_misread_is_refused_by_name() {
    let refused = decode(SCANS_420, &DecodeLimits::default());
    assert!(
        matches!(refused, Err(ImageError::Unsupported { .. })),
        "{refused:?}"
    );
    // Brightness of fewer samples than colour.
    let mut coarse = jpeg();
    let at = coarse
        .windows(2)
        .position(|pair| pair == [0xFF, 0xC0])
        .unwrap();
    coarse[at + 11] = 0x11;
    coarse[at + 14] = 0x22;
    let refused = decode(&coarse, &DecodeLimits::default());
    assert!(
        matches!(refused, Err(ImageError::Unsupported { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_jpeg_may_begin_twice() {
    let whole = jpeg();
    same(
        "twice",
        &whole,
        &[&START, &whole[..]].concat(),
        &[Repair::Start],
    );
    let thrice = [&START, &START, &whole[..]].concat();
    same("thrice", &whole, &thrice, &[Repair::Start]);
    let (segments, _) = segments(&whole);
    let (head, rest) = whole.split_at(2 + segments[0].len());
    let within = [head, &START, rest].concat();
    same("within", &whole, &within, &[Repair::Start]);
    let both = [&START, whole.strip_suffix(&END).unwrap()].concat();
    same(
        "and ends nowhere",
        &whole,
        &both,
        &[Repair::Start, Repair::End],
    );
}

#[test]
fn a_webcam_s_frame_is_read_with_the_standard_tables() {
    for (name, whole) in [("colour", jpeg()), ("grey", grey_jpeg())] {
        let bare = without_tables(&whole);
        same(name, &whole, &bare, &[Repair::HuffmanTables]);
        let open = bare.strip_suffix(&END).unwrap();
        same(name, &whole, open, &[Repair::HuffmanTables, Repair::End]);
        let marked = with_segment(&bare, 0xE0, b"AVI1\0\0\0\0");
        same(name, &whole, &marked, &[]);
        for cut in (bare.len() / 2..bare.len() - 5).step_by(97) {
            assert_refused(name, &bare[..cut]);
        }
    }
    // Its scans have tables of their own: the standard ones are not theirs.
    assert_refused("progressive", &without_tables(PROGRESSIVE));
}

#[test]
fn an_adobe_marker_means_what_libjpeg_takes_it_to_mean() {
    let whole = jpeg();
    let adobe = |transform| [b"Adobe\0\x64\0\0\0\0".as_slice(), &[transform]].concat();
    // The encoder writes a JFIF marker, and with that the colours are YCbCr.
    for transform in [0, 1, 2, 7] {
        let marked = with_segment(&whole, 0xEE, &adobe(transform));
        same("JFIF", &whole, &marked, &[]);
    }
    same(
        "short",
        &whole,
        &with_segment(&whole, 0xEE, b"Adobe\0\x64"),
        &[],
    );
    let grey = grey_jpeg();
    same("grey", &grey, &with_segment(&grey, 0xEE, &adobe(0)), &[]);

    let (parts, scans) = segments(&whole);
    let bare = [&START, parts[1..].concat().as_slice(), scans].concat();
    same("no JFIF", &whole, &bare, &[]);
    same("YCbCr", &whole, &with_segment(&bare, 0xEE, &adobe(1)), &[]);
    same(
        "unknown",
        &whole,
        &with_segment(&bare, 0xEE, &adobe(9)),
        &[],
    );
    let rgb = with_segment(&bare, 0xEE, &adobe(0));
    let limits = DecodeLimits::default();
    assert!(decode(&rgb, &limits).unwrap() != decode(&whole, &limits).unwrap());
}

#[test]
fn a_png_without_its_end_is_read_when_its_rows_are_there() {
    let whole = png();
    let ends = whole.len() - 12;
    // The end itself, the checksum of the pixels, and the four bytes that end their stream.
    for cut in ends - 8..whole.len() - 4 {
        let name = format!("{cut} of {}", whole.len());
        same(&name, &whole, &whole[..cut], &[Repair::End]);
    }
    for cut in (60..ends - 12).step_by(whole.len() / 150) {
        assert_refused("cut", &whole[..cut]);
    }
    let mut wrong = whole.clone();
    wrong[ends / 2] ^= 0x55;
    assert_refused("damaged", &wrong);
    assert_refused("damaged and cut", &wrong[..ends]);
}

#[test]
fn a_webp_is_read_when_only_what_follows_its_pixels_is_cut() {
    let mut whole = Vec::new();
    let mut encoder = WebPEncoder::new_lossless(&mut whole);
    encoder.set_exif_metadata(exif(1, 3, true)).unwrap();
    encoder
        .write_image(scene().as_raw(), 160, 120, ExtendedColorType::Rgb8)
        .unwrap();
    let exif = whole.windows(4).position(|kind| kind == b"EXIF").unwrap();
    for cut in exif..whole.len() - 1 {
        same("cut", &whole, &whole[..cut], &[Repair::End]);
    }
    for cut in (40..exif - 1).step_by(exif / 50) {
        assert_refused("pixels", &whole[..cut]);
    }
    let mut long = whole.clone();
    long[5] += 9;
    same("says more", &whole, &long, &[Repair::End]);
}

/// A TIFF block with nothing but the orientation, as a number of that type.
fn exif(orientation: u8, kind: u8, big_endian: bool) -> Vec<u8> {
    let width = match kind {
        1 | 6 => 1,
        3 | 8 => 2,
        _ => 4,
    };
    let number = |value: u8, width: usize| {
        let mut bytes = vec![0; width];
        bytes[if big_endian { width - 1 } else { 0 }] = value;
        bytes
    };
    let mut block = if big_endian { b"MM\0*" } else { b"II*\0" }.to_vec();
    block.extend(number(8, 4));
    block.extend(number(1, 2));
    block.extend(if big_endian { [1, 0x12] } else { [0x12, 1] });
    block.extend(number(kind, 2));
    block.extend(number(1, 4));
    let mut value = number(orientation, width);
    value.resize(4, 0);
    block.extend(value);
    block.extend([0; 4]);
    block
}

#[test]
fn an_orientation_of_any_whole_number_turns_in_every_format() {
    let limits = DecodeLimits::default();
    let picture = scene();
    let upright = image::imageops::rotate90(&picture).into_raw();
    let plain = jpeg();
    let jpeg_upright = {
        let stored = decode(&plain, &limits).unwrap();
        let stored = RgbImage::from_raw(160, 120, stored.rgb).unwrap();
        image::imageops::rotate90(&stored).into_raw()
    };
    for kind in [1, 3, 4, 6, 8, 9] {
        for big_endian in [false, true] {
            let block = exif(6, kind, big_endian);
            let name = format!("type {kind}, big-endian: {big_endian}");
            let app1 = [b"Exif\0\0".as_slice(), &block].concat();
            let photo = decode(&with_segment(&plain, 0xE1, &app1), &limits).unwrap();
            assert_eq!((photo.width, photo.height), (120, 160), "JPEG, {name}");
            assert!(photo.rgb == jpeg_upright, "JPEG, {name}");
            // The list of fields is cut, the one that matters is there.
            let mut cut = app1.clone();
            cut[14 + usize::from(big_endian)] = 9;
            let photo = decode(&with_segment(&plain, 0xE1, &cut), &limits).unwrap();
            assert_eq!(photo.width, 120, "cut, {name}");

            let mut bytes = Vec::new();
            let mut encoder = PngEncoder::new(&mut bytes);
            encoder.set_exif_metadata(block.clone()).unwrap();
            encoder
                .write_image(picture.as_raw(), 160, 120, ExtendedColorType::Rgb8)
                .unwrap();
            assert!(
                decode(&bytes, &limits).unwrap().rgb == upright,
                "PNG, {name}"
            );
            // The chunk may stand behind the pixels.
            let at = bytes.windows(4).position(|kind| kind == b"eXIf").unwrap() - 4;
            let chunk: Vec<u8> = bytes.drain(at..at + 12 + block.len()).collect();
            bytes.splice(bytes.len() - 12..bytes.len() - 12, chunk);
            assert!(
                decode(&bytes, &limits).unwrap().rgb == upright,
                "late, {name}"
            );

            let mut bytes = Vec::new();
            let mut encoder = WebPEncoder::new_lossless(&mut bytes);
            encoder.set_exif_metadata(block).unwrap();
            encoder
                .write_image(picture.as_raw(), 160, 120, ExtendedColorType::Rgb8)
                .unwrap();
            assert!(
                decode(&bytes, &limits).unwrap().rgb == upright,
                "WebP, {name}"
            );
        }
    }
}
