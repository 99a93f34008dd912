//! HEIC and AVIF through the public API, by the libheif of this machine.
//!
//! The fixtures are the 40x24 picture of the other formats, of four flat quarters, and a grid of four tiles, written by
//! libheif. Without libheif the tests that decode say so and pass, except where `CI=true`: there they fail.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use muster_jobs::FailureCode;
use muster_recognize::decode::{DecodeLimits, Format, ImageError, Photo, decode, libheif, probe};
use proptest::prelude::*;

const QUARTERS: [[u8; 3]; 4] = [[200, 40, 40], [40, 160, 60], [50, 60, 190], [180, 170, 150]];

macro_rules! fixtures {
    ($($name:literal),*) => {
        [$(($name, include_bytes!(concat!("fixtures/", $name)).as_slice())),*]
    };
}

const OPAQUE: [(&str, &[u8]); 6] = fixtures![
    "quarters.heic",
    "quarters_turned.heic",
    "quarters_deep.heic",
    "quarters_grid.heic",
    "quarters.avif",
    "quarters_turned.avif"
];
const CLEAR: [(&str, &[u8]); 2] = fixtures!["quarters_alpha.heic", "quarters_alpha.avif"];

fn all() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    OPAQUE.into_iter().chain(CLEAR)
}

fn limits() -> DecodeLimits {
    DecodeLimits {
        max_bytes: 1 << 20,
        max_pixels: 1 << 20,
        ..DecodeLimits::default()
    }
}

fn is_missing() -> bool {
    let found = libheif();
    let missing = !found.is_some_and(|found| found.heic && found.avif);
    if missing {
        let why = "there is no libheif with decoders of HEIC and AVIF (Debian: libheif1)";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
        eprintln!("SKIPPED: {why}");
    }
    missing
}

/// The middles of the four quarters.
fn quarters(photo: &Photo) -> [[u8; 3]; 4] {
    std::array::from_fn(|quarter| {
        let at = |quarter: usize, side: u32| (1 + 2 * quarter) * side as usize / 4;
        let (x, y) = (at(quarter % 2, photo.width), at(quarter / 2, photo.height));
        let at = (y * photo.width as usize + x) * 3;
        photo.rgb[at..at + 3].try_into().unwrap()
    })
}

fn assert_close(name: &str, got: [u8; 3], want: [u8; 3]) {
    let off = got.iter().zip(want).map(|(got, want)| got.abs_diff(want));
    assert!(
        off.max() <= Some(8),
        "{name}: {got:?} is not close to {want:?}"
    );
}

/// Turned ones have an EXIF orientation as well, which is not applied again.
#[test]
fn every_kind_comes_out_upright() {
    if is_missing() {
        return;
    }
    for (name, bytes) in OPAQUE {
        let photo = decode(bytes, &limits()).unwrap();
        let size = if name.contains("grid") {
            (128, 128)
        } else {
            (40, 24)
        };
        assert_eq!((photo.width, photo.height), size, "{name}");
        assert_eq!(photo.rgb.len(), size.0 as usize * size.1 as usize * 3);
        for (got, want) in quarters(&photo).into_iter().zip(QUARTERS) {
            assert_close(name, got, want);
        }
    }
    for (name, bytes) in CLEAR {
        let photo = decode(bytes, &limits()).unwrap();
        let [clear, .., opaque] = quarters(&photo);
        assert_close(name, clear, [255; 3]);
        assert_close(name, opaque, QUARTERS[3]);
    }
}

/// The web tier asks this, which has no libheif.
#[test]
fn a_header_is_read_without_libheif() {
    for (name, bytes) in all() {
        let header = probe(bytes, &limits()).unwrap();
        let format = if name.ends_with("avif") {
            Format::Avif
        } else {
            Format::Heic
        };
        assert_eq!(header.format, format, "{name}");
        let size = (header.width, header.height);
        match name {
            "quarters_grid.heic" => assert_eq!(size, (128, 128)),
            "quarters.avif" | "quarters_alpha.avif" => assert_eq!(size, (40, 24)),
            "quarters_turned.avif" => assert_eq!(size, (24, 40)),
            // The encoder says what is coded, and cuts the picture out of that.
            _ => assert!(
                size.0 >= 24 && size.1 >= 24 && size.0.max(size.1) <= 64,
                "{name}: {size:?}"
            ),
        }
        let bytes_of_a_pixel = header.decoded_bytes / (u64::from(size.0) * u64::from(size.1));
        let expected = match name {
            "quarters_deep.heic" => 13,
            _ if name.contains("alpha") => 12,
            _ => 8,
        };
        assert_eq!(bytes_of_a_pixel, expected, "{name}");
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    if is_missing() {
        return;
    }
    for (name, bytes) in all() {
        for cut in (16..bytes.len()).step_by(7) {
            let refused = decode(&bytes[..cut], &limits());
            assert!(
                matches!(refused, Err(ImageError::Unreadable { .. })),
                "{name}, {cut} of {}: {refused:?}",
                bytes.len()
            );
        }
    }
}

#[test]
fn a_size_that_is_not_the_picture_s_is_refused() {
    let with_size = |bytes: &[u8], width: u32, height: u32| {
        let mut bytes = bytes.to_vec();
        let at: Vec<_> = (0..bytes.len() - 4)
            .filter(|at| bytes[*at..].starts_with(b"ispe"))
            .collect();
        for at in at {
            bytes[at + 8..at + 12].copy_from_slice(&width.to_be_bytes());
            bytes[at + 12..at + 16].copy_from_slice(&height.to_be_bytes());
        }
        bytes
    };
    for (name, bytes) in OPAQUE {
        for (width, height) in [
            (40_000, 2000),
            (30_000, 30_000),
            (u32::MAX, 1),
            (7000, 7000),
        ] {
            let refused = probe(&with_size(bytes, width, height), &limits()).unwrap_err();
            assert_eq!(
                refused.code(),
                FailureCode::ImageTooLarge,
                "{name}: {refused}"
            );
        }
        let refused = probe(&with_size(bytes, 0, 8), &limits()).unwrap_err();
        assert_eq!(
            refused.code(),
            FailureCode::ImageUnreadable,
            "{name}: {refused}"
        );
        if !is_missing() {
            let refused = decode(&with_size(bytes, 8, 8), &limits()).unwrap_err();
            assert_eq!(
                refused.code(),
                FailureCode::ImageUnreadable,
                "{name}: {refused}"
            );
        }
    }
}

fn boxed(kind: &[u8; 4], content: &[&[u8]]) -> Vec<u8> {
    let content = content.concat();
    let length = u32::try_from(8 + content.len()).unwrap();
    [&length.to_be_bytes(), kind.as_slice(), &content].concat()
}

/// A picture of 224 x 224 pixels, number 1, put together from others by these references: each of one to several.
fn derived(references: &[(u16, Vec<u16>)]) -> Vec<u8> {
    let short = |value: u16| value.to_be_bytes().to_vec();
    let dimg = |(whole, parts): &(u16, Vec<u16>)| {
        let parts: Vec<u8> = parts.iter().flat_map(|part| short(*part)).collect();
        let count = parts.len() as u16 / 2;
        boxed(b"dimg", &[&short(*whole), &short(count), &parts])
    };
    let references: Vec<u8> = references.iter().flat_map(dimg).collect();
    let ispe = boxed(
        b"ispe",
        &[&[0; 4], &224u32.to_be_bytes(), &224u32.to_be_bytes()],
    );
    let ipma = boxed(b"ipma", &[&[0; 4], &1u32.to_be_bytes(), &short(1), &[1, 1]]);
    let meta = boxed(
        b"meta",
        &[
            &[0; 4],
            &boxed(b"pitm", &[&[0; 4], &short(1)]),
            &boxed(b"iref", &[&[0; 4], &references]),
            &boxed(b"iprp", &[&boxed(b"ipco", &[&ispe]), &ipma]),
        ],
    );
    [boxed(b"ftyp", &[b"heic\0\0\0\0mif1heic"]), meta].concat()
}

/// libheif follows such references to the end of its stack, or of all patience.
#[test]
fn a_picture_put_together_from_itself_or_from_too_much_is_refused() {
    let several = |parts: u16| -> Vec<u16> { (2..2 + parts).collect() };
    let levels = |depth: u16| -> Vec<(u16, Vec<u16>)> {
        (1..=depth)
            .map(|level| (level, vec![level + 1; 60]))
            .collect()
    };
    let chain = |depth: u16| -> Vec<(u16, Vec<u16>)> {
        (1..=depth).map(|level| (level, vec![level + 1])).collect()
    };
    for (name, references) in [
        ("from itself", vec![(1, vec![1])]),
        (
            "from what is of it",
            vec![(1, vec![2]), (2, vec![3]), (3, vec![1])],
        ),
        ("from too many", vec![(1, several(2000))]),
        ("sixty times sixty", levels(2)),
        ("sixty to the seventh", levels(7)),
        ("too deep", chain(9)),
        ("as deep as the file is long", chain(60_000)),
    ] {
        let refused = probe(&derived(&references), &limits()).unwrap_err();
        assert!(
            refused.to_string().contains("put together"),
            "{name}: {refused}"
        );
    }
    assert!(probe(&derived(&chain(1)), &limits()).is_ok());
}

#[test]
fn a_film_is_refused_by_name() {
    let film = b"\0\0\0\x14ftypavis\0\0\0\0avis\0\0\0\x08moov";
    let refused = probe(film, &limits()).unwrap_err();
    assert_eq!(refused.code(), FailureCode::ImageUnsupported);
    assert!(refused.to_string().contains("film"), "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn mutated_pictures_are_answered(
        which in 0..OPAQUE.len() + CLEAR.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<prop::sample::Index>(),
        keep_whole in any::<bool>(),
    ) {
        let mut bytes = all().nth(which).unwrap().1.to_vec();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if !keep_whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        match decode(&bytes, &limits()) {
            Ok(photo) => {
                let pixels = u64::from(photo.width) * u64::from(photo.height);
                prop_assert_eq!(photo.rgb.len() as u64, pixels * 3);
            }
            Err(error) => prop_assert!(!error.to_string().contains('\n')),
        }
    }
}
