//! TIFF by the `tiff` crate, on a first directory that was read and held against limits here.
//!
//! A TIFF can promise anything: strips that overlap, tiles larger than the picture, a JPEG inside
//! whose size nobody stated. What would make the decoder work beyond the picture's size is refused
//! on the directory alone.

use std::io::Cursor;

use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::{ColorType, TiffError};

use super::error::{ImageError, RARE, RAW};
use super::format::{Format, Header, Size};
use super::jpeg_segment::next_segment;
use super::raster;
use super::stored::Stored;
use super::tiff_directory::Directory;

const NEW_SUBFILE_TYPE: u16 = 254;
const IMAGE_WIDTH: u16 = 256;
const IMAGE_LENGTH: u16 = 257;
const BITS_PER_SAMPLE: u16 = 258;
const COMPRESSION: u16 = 259;
const PHOTOMETRIC: u16 = 262;
const STRIP_OFFSETS: u16 = 273;
const SAMPLES_PER_PIXEL: u16 = 277;
const ROWS_PER_STRIP: u16 = 278;
const STRIP_BYTE_COUNTS: u16 = 279;
const PLANAR_CONFIGURATION: u16 = 284;
const COLOR_MAP: u16 = 320;
const TILE_WIDTH: u16 = 322;
const TILE_LENGTH: u16 = 323;
const TILE_OFFSETS: u16 = 324;
const TILE_BYTE_COUNTS: u16 = 325;
const EXTRA_SAMPLES: u16 = 338;
const SAMPLE_FORMAT: u16 = 339;
const JPEG_TABLES: u16 = 347;
const DNG_VERSION: u16 = 50_706;

/// Pixels that padded tiles may have beyond four times the picture's.
const TILE_PADDING_PIXELS: u64 = 1 << 22;
/// Largest block of shared JPEG tables; they are read again for every strip, and all that a
/// baseline JPEG can have is under 2 kB.
const MAX_JPEG_TABLES: usize = 4096;
/// Bytes that the decoder may take for a field or a strip's row.
const MAX_FIELD_BYTES: usize = 1 << 20;

/// How colours are stored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Colors {
    /// Grey, black or white at zero, perhaps with alpha; the decoder inverts the latter.
    Grey,
    Rgb,
    Palette,
    Cmyk,
    YCbCr,
}

/// What the decoder does not tell: how samples become colours.
struct Layout {
    width: u32,
    height: u32,
    bits: u32,
    samples: u32,
    planar: bool,
    colors: Colors,
    /// The colours are already multiplied with the alpha.
    premultiplied: bool,
}

/// Reads the size and the bytes of a pixel's samples, having refused what is not taken and what costs
/// more than its size tells.
pub(super) fn size(bytes: &[u8]) -> Result<Option<(Size, u64)>, ImageError> {
    let Some(directory) = Directory::first(bytes) else {
        return Ok(None);
    };
    let Some(layout) = layout(&directory)? else {
        return Ok(None);
    };
    let size = (layout.width, layout.height);
    if layout.width > 0 && layout.height > 0 {
        check_pieces(&directory, &layout)?;
    }
    let samples = u64::from(layout.samples);
    let sample_bytes = u64::from(layout.bits.div_ceil(8));
    // Planes are put one behind the other in a copy, 16 bits become 8 in another.
    let copies = match (layout.planar, sample_bytes) {
        (true, _) => samples * sample_bytes,
        (false, 2) => samples,
        (false, _) => 0,
    };
    Ok(Some((size, samples * sample_bytes + copies)))
}

fn layout(directory: &Directory<'_>) -> Result<Option<Layout>, ImageError> {
    let rare = |found| ImageError::Unsupported {
        found,
        remedy: RARE,
    };
    let reduced = directory.first_of(NEW_SUBFILE_TYPE).unwrap_or(0) & 1 == 1;
    let photometric = directory.first_of(PHOTOMETRIC);
    let sensor = matches!(photometric, Some(32_803 | 34_892));
    let canon = directory.bytes.get(8..10) == Some(b"CR");
    if reduced || sensor || canon || directory.field(DNG_VERSION).is_some() {
        return Err(ImageError::Unsupported {
            found: "a camera raw picture, or a TIFF that begins with a thumbnail",
            remedy: RAW,
        });
    }
    let (Some(width), Some(height), Some(photometric)) = (
        directory.first_of(IMAGE_WIDTH),
        directory.first_of(IMAGE_LENGTH),
        photometric,
    ) else {
        return Ok(None);
    };
    match directory.first_of(SAMPLE_FORMAT).unwrap_or(1) {
        // Undefined (4) is what some writers say of plain numbers.
        1 | 4 => {}
        3 => return Err(rare("a TIFF with floating-point samples")),
        _ => return Err(rare("a TIFF with signed samples")),
    }
    let compression = directory.first_of(COMPRESSION).unwrap_or(1);
    if !matches!(compression, 1 | 5 | 7 | 8 | 32_773 | 32_946) {
        return Err(rare("a TIFF of a rare compression"));
    }
    let planar = directory.first_of(PLANAR_CONFIGURATION).unwrap_or(1) == 2;
    let bits = directory.first_of(BITS_PER_SAMPLE).unwrap_or(1);
    let samples = directory.first_of(SAMPLES_PER_PIXEL).unwrap_or(1);
    let extra = directory
        .field(EXTRA_SAMPLES)
        .map_or_else(Vec::new, |field| field.numbers().take(4).collect());
    let whole_bytes = matches!(bits, 8 | 16);
    let alpha = matches!(extra.as_slice(), [1 | 2]);
    let premultiplied = extra.first() != Some(&2);
    let jpeg = compression == 7;
    let taken = match (photometric, samples) {
        (0 | 1, 1) if matches!(bits, 1 | 2 | 4) || whole_bytes => Some(Colors::Grey),
        (1, 2) if whole_bytes && alpha && !planar => Some(Colors::Grey),
        (2, 3) if whole_bytes => Some(Colors::Rgb),
        (2, 4) if whole_bytes && (alpha || extra.is_empty()) => Some(Colors::Rgb),
        (3, 1) if matches!(bits, 1 | 2 | 4 | 8) && !jpeg => Some(Colors::Palette),
        (5, 4) if whole_bytes => Some(Colors::Cmyk),
        (6, 3) if bits == 8 && jpeg => Some(Colors::YCbCr),
        _ => None,
    };
    match taken {
        Some(colors) if !jpeg || (bits == 8 && !planar) => Ok(Some(Layout {
            width,
            height,
            bits,
            samples,
            planar,
            colors,
            premultiplied,
        })),
        _ => Err(rare("a TIFF of rare colours or depth")),
    }
}

/// Refuses strips or tiles that lie outside the file or overlap, tiles with more padding than
/// picture, and JPEGs inside that are larger than their strip or tile.
///
/// With that, the decoder reads each byte of the file once at most, and undoes about as many
/// pixels as the picture has.
fn check_pieces(directory: &Directory<'_>, layout: &Layout) -> Result<(), ImageError> {
    let damaged = |reason: &str| ImageError::unreadable(Format::Tiff, reason);
    let (offsets, counts, width, height) = if directory.field(TILE_OFFSETS).is_some() {
        let (Some(width), Some(height)) = (
            directory.first_of(TILE_WIDTH).filter(|width| *width > 0),
            directory.first_of(TILE_LENGTH).filter(|height| *height > 0),
        ) else {
            return Err(damaged("the size of its tiles is missing"));
        };
        let padded = |length: u32, tile: u32| u64::from(length.div_ceil(tile)) * u64::from(tile);
        let pixels = u64::from(layout.width) * u64::from(layout.height);
        let allowed = pixels.saturating_mul(4).saturating_add(TILE_PADDING_PIXELS);
        if padded(layout.width, width).saturating_mul(padded(layout.height, height)) > allowed {
            return Err(damaged("its tiles are larger than the picture"));
        }
        (TILE_OFFSETS, TILE_BYTE_COUNTS, width, height)
    } else {
        let rows = directory.first_of(ROWS_PER_STRIP).unwrap_or(u32::MAX);
        let rows = rows.min(layout.height);
        (STRIP_OFFSETS, STRIP_BYTE_COUNTS, layout.width, rows)
    };
    let (Some(offsets), Some(counts)) = (directory.field(offsets), directory.field(counts)) else {
        return Err(damaged("its header is not whole"));
    };
    let jpeg = directory.first_of(COMPRESSION) == Some(7);
    if jpeg && let Some(tables) = directory.field(JPEG_TABLES) {
        let frames = frames(tables.values).next().is_some();
        if tables.values.len() > MAX_JPEG_TABLES || frames {
            return Err(damaged("its JPEG tables make no sense"));
        }
    }
    let samples = directory.first_of(SAMPLES_PER_PIXEL).unwrap_or(1);
    let mut total = 0;
    for (offset, count) in offsets.numbers().zip(counts.numbers()) {
        let (offset, count) = (offset as usize, count as usize);
        total += count;
        if total > directory.bytes.len() {
            return Err(damaged("its strips or tiles overlap"));
        }
        let Some(piece) = directory.bytes.get(offset..offset.saturating_add(count)) else {
            return Err(damaged("it ends in the middle"));
        };
        let fits = |frame: &[u8]| match frame {
            &[8, h1, h0, w1, w0, components, ..] => {
                u32::from(u16::from_be_bytes([w1, w0])) <= width
                    && u32::from(u16::from_be_bytes([h1, h0])) <= height
                    && u32::from(components) == samples
            }
            _ => false,
        };
        if jpeg && !frames(piece).all(fits) {
            return Err(damaged("a JPEG in it is not of the size that it says"));
        }
    }
    Ok(())
}

/// Walks the frame headers of a JPEG.
fn frames(jpeg: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let segment = next_segment(jpeg, at)?;
            at = segment.end;
            if matches!(segment.marker, 0xC0..=0xCF)
                && !matches!(segment.marker, 0xC4 | 0xC8 | 0xCC)
            {
                return Some(segment.payload);
            }
        }
    })
}

/// Decodes the first picture of a TIFF to RGB as stored.
pub(super) fn decode(bytes: &[u8], header: &Header) -> Result<Stored, ImageError> {
    let whole = || ImageError::unreadable(Format::Tiff, "its header is not whole");
    let directory = Directory::first(bytes).ok_or_else(whole)?;
    let layout = layout(&directory)?.ok_or_else(whole)?;
    let rgb = if layout.colors == Colors::Palette {
        let indices = indices(&directory, header)?;
        let palette = palette(&directory)?;
        let deepest = (1_usize << layout.bits) - 1;
        unpack(&indices, &layout)
            .flat_map(|index| {
                palette
                    .get(usize::from(index).min(deepest))
                    .copied()
                    .unwrap_or_default()
            })
            .collect()
    } else {
        let (pixels, color) = read(bytes, header)?;
        to_rgb(pixels, color, &layout)?
    };
    let pixels = header.width as usize * header.height as usize;
    if rgb.len() != pixels * 3 {
        return Err(ImageError::unreadable(
            Format::Tiff,
            "it ends in the middle",
        ));
    }
    Ok((rgb, directory.orientation()))
}

/// Runs the decoder; of planes it puts one behind the other.
fn read(bytes: &[u8], header: &Header) -> Result<(DecodingResult, ColorType), ImageError> {
    let pixels = header.width as usize * header.height as usize;
    let limits = {
        let mut limits = Limits::default();
        // 16-bit RGB with alpha, or CMYK.
        limits.decoding_buffer_size = pixels.saturating_mul(8);
        limits.intermediate_buffer_size = bytes.len();
        limits.ifd_value_size = MAX_FIELD_BYTES;
        limits
    };
    let mut decoder = Decoder::new(Cursor::new(bytes))
        .map_err(|error| refuse(&error))?
        .with_limits(limits);
    if decoder.dimensions().map_err(|error| refuse(&error))? != (header.width, header.height) {
        return Err(ImageError::unreadable(Format::Tiff, "it states two sizes"));
    }
    let color = decoder.colortype().map_err(|error| refuse(&error))?;
    let mut samples = DecodingResult::U8(Vec::new());
    let stored = decoder
        .read_image_to_buffer(&mut samples)
        .map_err(|error| refuse(&error))?;
    if samples.as_buffer(0).byte_len() < stored.complete_len {
        return Err(ImageError::unreadable(
            Format::Tiff,
            "its planes do not fit",
        ));
    }
    if stored.planes > 1 {
        let planes = usize::from(color.num_samples());
        samples = match samples {
            DecodingResult::U8(planar) => DecodingResult::U8(interleave(&planar, planes)),
            DecodingResult::U16(planar) => DecodingResult::U16(interleave(&planar, planes)),
            other => other,
        };
    }
    Ok((samples, color))
}

/// Reads the indices of a palette's colours. The decoder knows no palettes; told that the picture
/// is grey it hands over the samples as they are.
fn indices(directory: &Directory<'_>, header: &Header) -> Result<Vec<u8>, ImageError> {
    let damaged = || ImageError::unreadable(Format::Tiff, "its data makes no sense");
    let field = directory.field(PHOTOMETRIC).ok_or_else(damaged)?;
    let mut grey = directory.bytes.to_vec();
    let black_is_zero: &[u8] = match (field.width, directory.big_endian) {
        (2, true) => &[0, 1],
        (2, false) => &[1, 0],
        _ => return Err(damaged()),
    };
    grey.get_mut(field.at..field.at + 2)
        .ok_or_else(damaged)?
        .copy_from_slice(black_is_zero);
    match read(&grey, header)? {
        (DecodingResult::U8(indices), _) => Ok(indices),
        _ => Err(damaged()),
    }
}

/// Reads the palette: all reds, then all greens, then all blues, of 16 bits.
fn palette(directory: &Directory<'_>) -> Result<Vec<[u8; 3]>, ImageError> {
    let map: Vec<u32> = directory
        .field(COLOR_MAP)
        .filter(|field| field.width == 2)
        .map_or_else(Vec::new, |field| field.numbers().collect());
    if map.is_empty() || !map.len().is_multiple_of(3) {
        return Err(ImageError::unreadable(
            Format::Tiff,
            "its palette is missing",
        ));
    }
    // Some writers put 8-bit values into the 16-bit fields; libtiff looks for them the same way.
    let eight = map.iter().all(|value| *value < 256);
    let sample = |value: u32| {
        if eight {
            value as u8
        } else {
            raster::rounded(value as u16)
        }
    };
    let (reds, rest) = map.split_at(map.len() / 3);
    let (greens, blues) = rest.split_at(map.len() / 3);
    Ok(reds
        .iter()
        .zip(greens)
        .zip(blues)
        .map(|((red, green), blue)| [sample(*red), sample(*green), sample(*blue)])
        .collect())
}

/// Unpacks samples of 1, 2, 4 or 8 bits, rows of which begin at whole bytes.
fn unpack(packed: &[u8], layout: &Layout) -> impl Iterator<Item = u8> {
    let (bits, width) = (layout.bits as usize, layout.width as usize);
    let row = (width * bits).div_ceil(8).max(1);
    let mask = (0xFF_u16 >> (8 - bits)) as u8;
    packed.chunks_exact(row).flat_map(move |row| {
        (0..width).map(move |x| {
            let bit = x * bits;
            (row[bit / 8] >> (8 - bits - bit % 8)) & mask
        })
    })
}

fn to_rgb(
    samples: DecodingResult,
    color: ColorType,
    layout: &Layout,
) -> Result<Vec<u8>, ImageError> {
    let eight = |samples: Vec<u16>| samples.into_iter().map(raster::rounded).collect();
    let samples: Vec<u8> = match samples {
        DecodingResult::U8(samples) => samples,
        DecodingResult::U16(samples) => eight(samples),
        _ => {
            return Err(ImageError::unreadable(
                Format::Tiff,
                "its data makes no sense",
            ));
        }
    };
    let blend = if layout.premultiplied {
        raster::premultiplied_over_white
    } else {
        raster::over_white
    };
    Ok(match (layout.colors, color.num_samples()) {
        (Colors::Grey, 1) if layout.bits < 8 => {
            let white = (1_u16 << layout.bits) - 1;
            unpack(&samples, layout)
                .flat_map(|grey| [(u16::from(grey) * 255 / white) as u8; 3])
                .collect()
        }
        (Colors::Grey, 1) => samples.iter().flat_map(|&grey| [grey; 3]).collect(),
        (Colors::Grey, 2) => (samples.as_chunks::<2>().0.iter())
            .flat_map(|&[grey, alpha]| [blend(grey, alpha); 3])
            .collect(),
        (Colors::Rgb, 3) => samples,
        (Colors::Rgb, 4) => raster::rgba_to_rgb(&samples, blend),
        (Colors::Cmyk, 4) => raster::inks_to_rgb(&samples),
        (Colors::YCbCr, 3) => (samples.as_chunks::<3>().0.iter())
            .flat_map(|&ycbcr| ycbcr_to_rgb(ycbcr))
            .collect(),
        _ => {
            return Err(ImageError::unreadable(
                Format::Tiff,
                "its colours are not understood",
            ));
        }
    })
}

/// Turns full-range `YCbCr` into RGB, by the formula of JFIF 1.02.
fn ycbcr_to_rgb([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let (y, cb, cr) = (f32::from(y), f32::from(cb) - 128.0, f32::from(cr) - 128.0);
    [
        y + 1.402 * cr,
        y - 0.344_136 * cb - 0.714_136 * cr,
        y + 1.772 * cb,
    ]
    .map(|color| color.round().clamp(0.0, 255.0) as u8)
}

fn interleave<T: Copy>(planar: &[T], planes: usize) -> Vec<T> {
    let length = planar.len() / planes.max(1);
    (0..length)
        .flat_map(|at| (0..planes).map(move |plane| planar[plane * length + at]))
        .collect()
}

fn refuse(error: &TiffError) -> ImageError {
    let reason = match error {
        TiffError::IoError(_) => "it ends in the middle",
        TiffError::UnsupportedError(_) => {
            return ImageError::Unsupported {
                found: "a TIFF of a rare kind",
                remedy: RARE,
            };
        }
        TiffError::LimitsExceeded => "its data is larger than its header says",
        _ => "its data makes no sense",
    };
    ImageError::unreadable(Format::Tiff, reason)
}
