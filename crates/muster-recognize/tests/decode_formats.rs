//! GIF, BMP and TIFF through the public API: every variety that is taken, every one that is
//! refused, and bytes meant to do harm. The files are built here, byte by byte where no encoder
//! writes them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Cursor;

use image::codecs::bmp::BmpEncoder;
use image::codecs::gif::GifEncoder;
use image::codecs::jpeg::JpegEncoder;
use image::metadata::Orientation;
use image::{DynamicImage, ExtendedColorType, Frame, Rgb, RgbImage, Rgba, RgbaImage};
use muster_jobs::FailureCode;
use muster_recognize::decode::{DecodeLimits, Format, ImageError, Photo, decode, probe};
use proptest::prelude::*;
use tiff::encoder::compression::DeflateLevel;
use tiff::encoder::{Compression, Predictor, TiffEncoder, colortype};

/// Bytes of a field: tag, type (1 byte, 3 short, 4 long), values.
type Field = (u16, u16, Vec<u32>);

fn limits() -> DecodeLimits {
    DecodeLimits {
        max_bytes: 1 << 20,
        max_pixels: 1 << 20,
        ..DecodeLimits::default()
    }
}

fn read(bytes: &[u8]) -> Photo {
    let photo = decode(bytes, &limits()).unwrap();
    let header = probe(bytes, &limits()).unwrap();
    assert_eq!(
        photo.width * photo.height,
        header.width * header.height,
        "the probe tells the size"
    );
    photo
}

fn refusal(bytes: &[u8]) -> ImageError {
    decode(bytes, &limits()).unwrap_err()
}

fn scene(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([
            (x * 255 / width) as u8,
            (y * 255 / height) as u8,
            ((x * 7 + y * 13) % 97) as u8,
        ])
    })
}

/// A TIFF of one directory, the pieces (strips or tiles) before it.
fn tiff(big_endian: bool, pieces: &[Vec<u8>], fields: &[Field]) -> Vec<u8> {
    let number = |value: u32, width: usize| -> Vec<u8> {
        let bytes = value.to_be_bytes();
        let mut bytes = bytes[4 - width..].to_vec();
        if !big_endian {
            bytes.reverse();
        }
        bytes
    };
    let magic = if big_endian { b"MM" } else { b"II" };
    let mut file = [magic.as_slice(), &number(42, 2), &[0; 4]].concat();
    let mut fields = fields.to_vec();
    let tiled = fields.iter().any(|(tag, ..)| *tag == 322);
    let (offsets, counts) = if tiled { (324, 325) } else { (273, 279) };
    let mut starts = Vec::new();
    for piece in pieces {
        starts.push(file.len() as u32);
        file.extend(piece);
    }
    let lengths = pieces.iter().map(|piece| piece.len() as u32).collect();
    for field in [(offsets, 4, starts), (counts, 4, lengths)] {
        if !fields.iter().any(|(tag, ..)| *tag == field.0) {
            fields.push(field);
        }
    }
    fields.sort();
    let mut entries = number(fields.len() as u32, 2);
    for (tag, kind, values) in fields {
        let width = [0, 1, 1, 2, 4][usize::from(kind)];
        let mut stored: Vec<u8> = values
            .iter()
            .flat_map(|value| number(*value, width))
            .collect();
        if stored.len() > 4 {
            let at = file.len() as u32;
            file.extend(&stored);
            stored = number(at, 4);
        }
        stored.resize(4, 0);
        entries.extend(number(tag.into(), 2));
        entries.extend(number(kind.into(), 2));
        entries.extend(number(values.len() as u32, 4));
        entries.extend(stored);
    }
    let directory = number(file.len() as u32, 4);
    file[4..8].copy_from_slice(&directory);
    file.extend(entries);
    file.extend([0; 4]);
    file
}

/// The fields of a picture of one strip.
fn fields(width: u32, height: u32, photometric: u32, samples: u32, bits: u32) -> Vec<Field> {
    vec![
        (256, 4, vec![width]),
        (257, 4, vec![height]),
        (258, 3, vec![bits; samples as usize]),
        (259, 3, vec![1]),
        (262, 3, vec![photometric]),
        (277, 3, vec![samples]),
        (278, 4, vec![height]),
    ]
}

fn with(mut fields: Vec<Field>, more: &[Field]) -> Vec<Field> {
    fields.retain(|(tag, ..)| !more.iter().any(|(other, ..)| tag == other));
    fields.extend_from_slice(more);
    fields
}

fn gif(frames: &[RgbaImage]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new(&mut bytes);
    for frame in frames {
        encoder.encode_frame(Frame::new(frame.clone())).unwrap();
    }
    drop(encoder);
    bytes
}

fn bmp(samples: &[u8], width: u32, height: u32, color: ExtendedColorType) -> Vec<u8> {
    let mut bytes = Vec::new();
    BmpEncoder::new(&mut bytes)
        .encode(samples, width, height, color)
        .unwrap();
    bytes
}

/// A BMP with a header of 40 bytes and what follows it.
fn bare_bmp(width: i32, height: i32, bits: u16, compression: u32, rest: &[u8]) -> Vec<u8> {
    let palette = if bits <= 8 { 4 << bits } else { 0 };
    let mut file = b"BM\0\0\0\0\0\0\0\0".to_vec();
    file.extend((54_u32 + palette).to_le_bytes());
    file.extend(40_u32.to_le_bytes());
    file.extend(width.to_le_bytes());
    file.extend(height.to_le_bytes());
    file.extend(1_u16.to_le_bytes());
    file.extend(bits.to_le_bytes());
    file.extend(compression.to_le_bytes());
    file.extend([0; 20]);
    file.extend(rest);
    file
}

#[test]
fn the_first_frame_of_a_gif_is_read_over_white() {
    let mut first = RgbaImage::from_pixel(9, 5, Rgba([200, 40, 40, 255]));
    first.put_pixel(0, 0, Rgba([0, 0, 0, 0]));
    let second = RgbaImage::from_pixel(9, 5, Rgba([0, 0, 255, 255]));
    let photo = read(&gif(&[first, second]));
    assert_eq!((photo.width, photo.height), (9, 5));
    assert_eq!(photo.rgb[..3], [255; 3]);
    assert_eq!(photo.rgb[3..6], [200, 40, 40]);
    assert!(photo.rgb[3..].chunks(3).all(|pixel| pixel == [200, 40, 40]));
}

#[test]
fn a_gif_s_frame_smaller_than_the_canvas_is_laid_on_it() {
    let mut bytes = gif(&[RgbaImage::from_pixel(4, 3, Rgba([10, 200, 30, 255]))]);
    bytes[6..10].copy_from_slice(&[6, 0, 5, 0]);
    let frame = 13 + 3 * (2 << (bytes[10] & 7)) * usize::from(bytes[10] >> 7);
    let frame = frame
        + bytes[frame..]
            .iter()
            .position(|byte| *byte == 0x2C)
            .unwrap();
    bytes[frame + 1..frame + 5].copy_from_slice(&[1, 0, 2, 0]);
    let photo = read(&bytes);
    assert_eq!((photo.width, photo.height), (6, 5));
    let at = |x: usize, y: usize| &photo.rgb[(y * 6 + x) * 3..][..3];
    assert_eq!((at(0, 2), at(1, 1)), (&[255; 3][..], &[255; 3][..]));
    assert_eq!(
        (at(1, 2), at(4, 4)),
        (&[10, 200, 30][..], &[10, 200, 30][..])
    );
}

#[test]
fn every_depth_of_bmp_is_read() {
    let picture = scene(31, 17);
    let photo = read(&bmp(picture.as_raw(), 31, 17, ExtendedColorType::Rgb8));
    assert_eq!(photo.rgb, *picture.as_raw());
    let grey = [7, 130, 250];
    let photo = read(&bmp(&grey, 3, 1, ExtendedColorType::L8));
    assert_eq!(photo.rgb, [7, 7, 7, 130, 130, 130, 250, 250, 250]);
    let clear = [200, 100, 0, 128, 1, 2, 3, 255, 9, 9, 9, 0];
    let photo = read(&bmp(&clear, 3, 1, ExtendedColorType::Rgba8));
    assert_eq!(photo.rgb, [227, 177, 127, 1, 2, 3, 255, 255, 255]);

    // Blue, green, red; a row is padded to four bytes. The top row first, by a negative height.
    let rows = [3, 2, 1, 0, 6, 5, 4, 0];
    assert_eq!(read(&bare_bmp(1, 2, 24, 0, &rows)).rgb, [4, 5, 6, 1, 2, 3]);
    assert_eq!(read(&bare_bmp(1, -2, 24, 0, &rows)).rgb, [1, 2, 3, 4, 5, 6]);
    // The fourth byte of plain 32 bits means nothing.
    assert_eq!(read(&bare_bmp(1, 1, 32, 0, &[3, 2, 1, 0])).rgb, [1, 2, 3]);
    // Five bits a colour.
    let red = (31_u16 << 10).to_le_bytes();
    let photo = read(&bare_bmp(1, 1, 16, 0, &[red[0], red[1], 0, 0]));
    assert_eq!(photo.rgb, [255, 0, 0]);
    // One bit, by a palette of blue and beige.
    let palette = [190, 60, 50, 0, 150, 170, 180, 0];
    let one_bit = [palette.as_slice(), &[0b0100_0000, 0, 0, 0]].concat();
    let photo = read(&bare_bmp(2, 1, 1, 0, &one_bit));
    assert_eq!(photo.rgb, [50, 60, 190, 180, 170, 150]);
    // Run lengths: three of colour one, then the end.
    let mut runs = vec![0; 1024];
    runs[4..8].copy_from_slice(&[30, 20, 10, 0]);
    runs.extend([3, 1, 0, 1]);
    assert_eq!(
        read(&bare_bmp(3, 1, 8, 1, &runs)).rgb,
        [10, 20, 30].repeat(3)
    );
}

#[test]
fn every_kind_of_samples_in_a_tiff_is_read() {
    let bytes = |fields: &[Field], samples: &[u8]| tiff(false, &[samples.to_vec()], fields);
    let short = |values: &[u16]| {
        values
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect::<Vec<_>>()
    };
    let rgb = |fields: Vec<Field>, samples: &[u8]| read(&bytes(&fields, samples)).rgb;

    assert_eq!(
        rgb(fields(2, 1, 2, 3, 8), &[1, 2, 3, 4, 5, 6]),
        [1, 2, 3, 4, 5, 6]
    );
    assert_eq!(
        rgb(fields(2, 1, 1, 1, 8), &[7, 250]),
        [7, 7, 7, 250, 250, 250]
    );
    assert_eq!(
        rgb(fields(2, 1, 0, 1, 8), &[7, 250]),
        [248, 248, 248, 5, 5, 5]
    );
    let bits = rgb(fields(3, 2, 1, 1, 1), &[0b0100_0000, 0b1010_0000]);
    assert_eq!(bits, [0, 255, 0, 255, 0, 255].map(|v| [v; 3]).concat());
    let bits = rgb(fields(3, 1, 0, 1, 1), &[0b0100_0000]);
    assert_eq!(bits, [255, 0, 255].map(|v| [v; 3]).concat());
    let bits = rgb(fields(3, 1, 1, 1, 4), &[0x0F, 0x80]);
    assert_eq!(bits, [0, 255, 136].map(|v| [v; 3]).concat());
    assert_eq!(
        rgb(fields(1, 1, 2, 3, 16), &short(&[0, 0x8080, 0xFFFF])),
        [0, 128, 255]
    );
    assert_eq!(rgb(fields(1, 1, 1, 1, 16), &short(&[0x4040])), [64; 3]);
    assert_eq!(rgb(fields(1, 1, 0, 1, 16), &short(&[0xFFFF])), [0; 3]);

    let alpha = |kind| vec![(338, 3, vec![kind])];
    let clear = [200, 100, 0, 128, 7, 7, 7, 0];
    let plain = with(fields(2, 1, 2, 4, 8), &alpha(2));
    assert_eq!(rgb(plain, &clear), [227, 177, 127, 255, 255, 255]);
    let multiplied = with(fields(2, 1, 2, 4, 8), &alpha(1));
    let premultiplied = [100, 50, 0, 128, 0, 0, 0, 0];
    assert_eq!(
        rgb(multiplied, &premultiplied),
        [227, 177, 127, 255, 255, 255]
    );
    let grey = with(fields(2, 1, 1, 2, 8), &alpha(2));
    assert_eq!(rgb(grey, &[9, 0, 9, 255]), [255, 255, 255, 9, 9, 9]);
    let deep = with(fields(1, 1, 2, 4, 16), &alpha(2));
    assert_eq!(rgb(deep, &short(&[0, 0, 0, 0])), [255; 3]);

    assert_eq!(
        rgb(
            fields(3, 1, 5, 4, 8),
            &[0, 0, 0, 0, 255, 0, 0, 0, 0, 0, 0, 255]
        ),
        [255, 255, 255, 0, 255, 255, 0, 0, 0]
    );
    assert_eq!(
        rgb(fields(1, 1, 5, 4, 16), &short(&[0, 0, 0xFFFF, 0])),
        [255, 255, 0]
    );

    // Two planes of one strip each, red then green then blue.
    let planar = with(fields(2, 1, 2, 3, 8), &[(284, 3, vec![2])]);
    let planes = [vec![1, 4], vec![2, 5], vec![3, 6]];
    assert_eq!(read(&tiff(false, &planes, &planar)).rgb, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_tiff_s_palette_is_read_in_both_byte_orders() {
    let map = |scale: u32| -> Vec<Field> {
        let mut map = vec![0; 48];
        (map[1], map[17], map[33]) = (200 * scale, 40 * scale, 50 * scale);
        (map[15], map[31], map[47]) = (10 * scale, 20 * scale, 30 * scale);
        vec![(320, 3, map)]
    };
    for (big_endian, scale) in [(false, 257), (true, 257), (true, 1)] {
        let indices = vec![0x1F, 0x10, 0xF1, 0xF0];
        let bytes = tiff(
            big_endian,
            &[indices],
            &with(fields(3, 2, 3, 1, 4), &map(scale)),
        );
        let (one, last) = ([200, 40, 50], [10, 20, 30]);
        assert_eq!(read(&bytes).rgb, [one, last, one, last, one, last].concat());
    }
}

#[test]
fn tiles_and_strips_are_put_together() {
    let picture = scene(20, 18);
    let rows = |from: usize, to: usize| picture.as_raw()[from * 60..to * 60].to_vec();
    let strips = with(fields(20, 18, 2, 3, 8), &[(278, 4, vec![7])]);
    let bytes = tiff(true, &[rows(0, 7), rows(7, 14), rows(14, 18)], &strips);
    assert_eq!(read(&bytes).rgb, *picture.as_raw());

    let tile = |left: u32, top: u32| -> Vec<u8> {
        let at = |x: u32, y: u32| match picture.get_pixel_checked(left + x, top + y) {
            Some(pixel) => pixel.0,
            None => [0; 3],
        };
        (0..16)
            .flat_map(|y| (0..16).flat_map(move |x| at(x, y)))
            .collect()
    };
    let tiles = [tile(0, 0), tile(16, 0), tile(0, 16), tile(16, 16)];
    let mut tiled = with(
        fields(20, 18, 2, 3, 8),
        &[(322, 3, vec![16]), (323, 3, vec![16])],
    );
    tiled.retain(|(tag, ..)| *tag != 278);
    assert_eq!(read(&tiff(false, &tiles, &tiled)).rgb, *picture.as_raw());
}

#[test]
fn every_compression_of_a_tiff_is_undone() {
    let picture = scene(61, 40);
    for (name, compression) in [
        ("none", Compression::Uncompressed),
        ("LZW", Compression::Lzw),
        ("PackBits", Compression::Packbits),
        ("Deflate", Compression::Deflate(DeflateLevel::Balanced)),
    ] {
        for predictor in [Predictor::None, Predictor::Horizontal] {
            let mut bytes = Cursor::new(Vec::new());
            TiffEncoder::new(&mut bytes)
                .unwrap()
                .with_compression(compression)
                .with_predictor(predictor)
                .write_image::<colortype::RGB8>(61, 40, picture.as_raw())
                .unwrap();
            let bytes = bytes.into_inner();
            assert!(read(&bytes).rgb == *picture.as_raw(), "{name}");
            for cut in (8..bytes.len()).step_by(bytes.len() / 50) {
                let refused = refusal(&bytes[..cut]);
                assert!(
                    matches!(refused, ImageError::Unreadable { .. }),
                    "{refused}"
                );
            }
        }
    }
}

/// A strip as JPEG, in `YCbCr`.
fn jpeg_strip(picture: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 95)
        .encode_image(picture)
        .unwrap();
    bytes
}

#[test]
fn a_jpeg_in_a_tiff_is_read_and_no_larger_one() {
    let picture = RgbImage::from_fn(48, 32, |x, _| Rgb([200, 40, if x < 24 { 40 } else { 200 }]));
    let compressed = with(fields(48, 32, 6, 3, 8), &[(259, 3, vec![7])]);
    let photo = read(&tiff(false, &[jpeg_strip(&picture)], &compressed));
    for (got, want) in photo.rgb.iter().zip(picture.as_raw()) {
        assert!(got.abs_diff(*want) < 40, "{got} for {want}");
    }
    let close = |x: usize| {
        let (got, want) = (
            &photo.rgb[(16 * 48 + x) * 3..],
            &picture.as_raw()[(16 * 48 + x) * 3..],
        );
        (0..3).all(|i| got[i].abs_diff(want[i]) < 4)
    };
    assert!(close(8) && close(40));

    // The strip says 48x32; the JPEG in it says 60000x60000, 10 GB.
    let mut bomb = jpeg_strip(&picture);
    let frame = bomb.windows(2).position(|at| at == [0xFF, 0xC0]).unwrap();
    bomb[frame + 5..frame + 9].copy_from_slice(&[0xEA, 0x60, 0xEA, 0x60]);
    let bytes = tiff(false, &[bomb], &compressed);
    let refused = probe(&bytes, &limits()).unwrap_err();
    assert!(refused.to_string().contains("JPEG in it"), "{refused}");
}

#[test]
fn a_tiff_s_own_orientation_turns_it_upright() {
    let picture = scene(13, 7);
    for value in 1..=8 {
        let mut want = DynamicImage::ImageRgb8(picture.clone());
        want.apply_orientation(Orientation::from_exif(value).unwrap());
        let turned = with(fields(13, 7, 2, 3, 8), &[(274, 3, vec![value.into()])]);
        for big_endian in [false, true] {
            let photo = read(&tiff(big_endian, &[picture.as_raw().clone()], &turned));
            assert_eq!((photo.width, photo.height), (want.width(), want.height()));
            assert!(photo.rgb == want.as_bytes(), "orientation {value}");
        }
    }
}

#[test]
fn varieties_that_are_not_taken_are_named() {
    let strip = vec![0; 64];
    let base = || fields(2, 1, 2, 3, 8);
    let cases = [
        (
            with(fields(1, 1, 1, 1, 32), &[(339, 3, vec![3])]),
            "floating-point",
        ),
        (with(fields(1, 1, 1, 1, 16), &[(339, 3, vec![2])]), "signed"),
        (with(base(), &[(254, 4, vec![1])]), "camera raw"),
        (with(base(), &[(50_706, 1, vec![1, 4, 0, 0])]), "camera raw"),
        (fields(2, 1, 32_803, 1, 16), "camera raw"),
        (with(base(), &[(259, 3, vec![4])]), "rare compression"),
        (fields(2, 1, 8, 3, 8), "rare colours"),
        (fields(2, 1, 2, 3, 32), "rare colours"),
        (fields(2, 1, 2, 9, 8), "rare colours"),
    ];
    for (fields, found) in cases {
        let refused = probe(
            &tiff(false, std::slice::from_ref(&strip), &fields),
            &limits(),
        )
        .unwrap_err();
        let message = refused.to_string();
        assert_eq!(refused.code(), FailureCode::ImageUnsupported, "{message}");
        assert!(
            message.contains(found) && message.contains("JPEG"),
            "{message}"
        );
    }
    let jpeg_in_bmp = bare_bmp(1, 1, 24, 4, &strip);
    assert_eq!(refusal(&jpeg_in_bmp).code(), FailureCode::ImageUnsupported);
}

#[test]
fn what_promises_too_much_is_refused_by_the_probe() {
    let huge = [
        bare_bmp(60_000, 60_000, 24, 0, &[0; 64]),
        bare_bmp(60_000, -60_000, 24, 0, &[0; 64]),
        bare_bmp(i32::MIN, i32::MIN, 24, 0, &[0; 64]),
        tiff(false, &[vec![0; 9]], &fields(60_000, 60_000, 2, 3, 8)),
        tiff(true, &[vec![0; 9]], &fields(u32::MAX, u32::MAX, 2, 3, 8)),
        {
            let mut bytes = gif(&[RgbaImage::from_pixel(2, 2, Rgba([9, 9, 9, 255]))]);
            bytes[6..10].fill(0xFF);
            bytes
        },
    ];
    for bytes in huge {
        let refused = probe(&bytes, &limits()).unwrap_err();
        assert_eq!(refused.code(), FailureCode::ImageTooLarge, "{refused}");
    }

    let mut frame = gif(&[RgbaImage::from_pixel(2, 2, Rgba([9, 9, 9, 255]))]);
    frame[6..10].copy_from_slice(&[1, 0, 1, 0]);
    let tile = |side| {
        with(
            fields(4, 4, 2, 3, 8),
            &[(322, 4, vec![side]), (323, 4, vec![side])],
        )
    };
    let base = || fields(4, 4, 2, 3, 8);
    let strips = |offsets: Vec<u32>, counts: Vec<u32>| {
        let rows = (278, 4, vec![1]);
        with(base(), &[(273, 4, offsets), (279, 4, counts), rows])
    };
    let lies = [
        (frame, "larger than the picture"),
        (
            tiff(false, &[vec![0; 64]], &tile(1 << 30)),
            "tiles are larger",
        ),
        (tiff(false, &[vec![0; 64]], &tile(0)), "size of its tiles"),
        (
            tiff(false, &[vec![0; 64]], &strips(vec![8; 4], vec![60; 4])),
            "overlap",
        ),
        (
            tiff(
                false,
                &[vec![0; 64]],
                &strips(vec![8, 8, 8, 9999], vec![1; 4]),
            ),
            "ends in the middle",
        ),
    ];
    for (bytes, reason) in lies {
        let refused = probe(&bytes, &limits()).unwrap_err();
        assert!(refused.to_string().contains(reason), "{refused}");
        assert_eq!(refused.code(), FailureCode::ImageUnreadable);
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let picture = scene(60, 40);
    let clear = DynamicImage::ImageRgb8(picture.clone()).to_rgba8();
    let strip = [picture.as_raw().clone()];
    let files = [
        (Format::Gif, gif(&[clear])),
        (
            Format::Bmp,
            bmp(picture.as_raw(), 60, 40, ExtendedColorType::Rgb8),
        ),
        (Format::Tiff, tiff(false, &strip, &fields(60, 40, 2, 3, 8))),
    ];
    for (format, bytes) in files {
        assert_eq!(probe(&bytes, &limits()).unwrap().format, format);
        // What follows the pixels adds nothing: a GIF's trailer, a TIFF's link to the next page.
        for cut in (8..bytes.len() - 4).step_by(bytes.len() / 150) {
            let refused = decode(&bytes[..cut], &limits());
            assert!(
                matches!(refused, Err(ImageError::Unreadable { format: told, .. }) if told == format),
                "{format}, {cut} of {}: {refused:?}",
                bytes.len()
            );
        }
    }
}

/// Holds for any bytes: an answer without a panic, and as many pixels as the probe said.
fn answers(bytes: &[u8]) -> Result<(), TestCaseError> {
    match decode(bytes, &limits()) {
        Ok(photo) => {
            let header = probe(bytes, &limits()).unwrap();
            let pixels = u64::from(photo.width) * u64::from(photo.height);
            prop_assert_eq!(photo.rgb.len() as u64, pixels * 3);
            prop_assert_eq!(pixels, u64::from(header.width) * u64::from(header.height));
        }
        Err(error) => {
            prop_assert!(!error.to_string().contains('\n'));
            prop_assert!(!error.to_string().contains("gave up"), "a decoder panicked");
        }
    }
    Ok(())
}

fn wholes() -> Vec<Vec<u8>> {
    let picture = scene(24, 16);
    let pixels = picture.as_raw().clone();
    let clear = DynamicImage::ImageRgb8(picture.clone()).to_rgba8();
    let mut runs = vec![7; 1024];
    runs.extend([24, 1].repeat(16));
    runs.extend([0, 3, 1, 2, 3, 0, 0, 2, 1, 1, 0, 1]);
    let jpeg = with(fields(24, 16, 6, 3, 8), &[(259, 3, vec![7])]);
    let palette = with(fields(24, 16, 3, 1, 8), &[(320, 3, vec![9; 768])]);
    let planar = with(fields(24, 16, 2, 3, 8), &[(284, 3, vec![2])]);
    let alpha = with(fields(24, 12, 2, 4, 8), &[(338, 3, vec![2])]);
    let mut lzw = Cursor::new(Vec::new());
    TiffEncoder::new(&mut lzw)
        .unwrap()
        .with_compression(Compression::Lzw)
        .with_predictor(Predictor::Horizontal)
        .write_image::<colortype::RGB8>(24, 16, &pixels)
        .unwrap();
    vec![
        gif(&[clear.clone(), clear]),
        bmp(&pixels, 24, 16, ExtendedColorType::Rgb8),
        bmp(&pixels[..24 * 8 * 4], 24, 8, ExtendedColorType::Rgba8),
        bare_bmp(24, 16, 8, 1, &runs),
        tiff(
            false,
            std::slice::from_ref(&pixels),
            &fields(24, 16, 2, 3, 8),
        ),
        tiff(
            true,
            std::slice::from_ref(&pixels),
            &fields(24, 24, 1, 1, 16),
        ),
        tiff(true, std::slice::from_ref(&pixels), &palette),
        tiff(
            true,
            &[
                pixels[..384].into(),
                pixels[384..768].into(),
                pixels[768..].into(),
            ],
            &planar,
        ),
        tiff(false, &[pixels], &alpha),
        tiff(false, &[jpeg_strip(&picture)], &jpeg),
        lzw.into_inner(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn mutated_pictures_never_panic(
        which in 0..11_usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        near_the_ends in any::<bool>(),
    ) {
        let mut bytes = wholes().swap_remove(which);
        for (at, value) in edits {
            // Headers are at the front, but TIFF's directory is at the back.
            let at = at.index(bytes.len());
            let at = if near_the_ends && at % 2 == 0 { at % 64 } else { at };
            let back = near_the_ends && at % 2 == 1;
            let at = if back { bytes.len() - 1 - at % 160.min(bytes.len()) } else { at };
            bytes[at] = value;
        }
        answers(&bytes)?;
    }

    #[test]
    fn random_bytes_behind_a_magic_never_panic(
        magic in prop::sample::select(vec![
            b"GIF89a".as_slice(),
            b"GIF89a\x10\0\x10\0\x80\0\0\x01\x02\x03\x04\x05\x06\x2C\0\0\0\0\x08\0\x08\0\0",
            b"BM",
            b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x08\0\0\0\x08\0\0\0\x01\0",
            b"II*\0\x08\0\0\0",
            b"MM\0*\0\0\0\x08",
            b"MM\0*\0\0\0\x08\0\x04\x01\0\0\x03\0\0\0\x01\0\x08\0\0\x01\x01\0\x03\0\0\0\x01\0\x08\0\0",
            b"\0\0\0\x40ftypmif1",
        ]),
        tail in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        answers(&[magic, &tail].concat())?;
    }
}
