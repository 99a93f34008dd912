//! HEIF files, which HEIC and AVIF are: their boxes, walked without decoding (ISO/IEC 14496-12 and 23008-12).

use super::error::{ANYTHING_ELSE, ImageError, RARE, RAW};
use super::format::{Format, Size};

/// Bytes of a pixel while libheif decodes it: the picture in `YCbCr`, as RGB, and the copy of that.
const PIXEL: u64 = 8;
/// More of them with more than 8 bits a sample, and with alpha.
const DEEP: u64 = 5;
const ALPHA: u64 = 4;

/// What a picture is called, in part, that is the alpha of another.
const ALPHAS: [&[u8]; 2] = [b"auxiliary:alpha", b"hevc:2015:auxid:1"];

/// A box: its kind and what is in it.
type Found<'a> = (&'a [u8], &'a [u8]);

/// Tells which kind of picture the brands announce: the major one, then those that it says it is compatible with, for
/// the general `mif1` stands before AVIF as before HEIC.
pub(super) fn format(bytes: &[u8]) -> Result<Format, (&'static str, &'static str)> {
    let (_, content) = boxes(bytes).next().unwrap_or_default();
    let content = if content.is_empty() {
        // The box itself may be cut.
        bytes.get(8..).unwrap_or_default()
    } else {
        content
    };
    let content = &content[..content.len().min(256)];
    let brands = || content.as_chunks::<4>().0.iter();
    let has = |names: &[&[u8; 4]]| brands().any(|brand| names.contains(&brand));
    if has(&[b"avif", b"avis"]) {
        Ok(Format::Avif)
    } else if has(&[
        b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1",
        b"mif2", b"miaf",
    ]) {
        Ok(Format::Heic)
    } else if has(&[b"crx "]) {
        Err(("a camera raw picture", RAW))
    } else {
        Err(("a video or another ISO media file", ANYTHING_ELSE))
    }
}

/// Reads the size of the primary picture, before it is turned, and the bytes of a pixel; `None` where the file stops
/// before it says so.
pub(super) fn size(bytes: &[u8]) -> Result<Option<(Size, u64)>, ImageError> {
    let Some(meta) = find(bytes, b"meta").and_then(|meta| meta.get(4..)) else {
        return match find(bytes, b"moov") {
            Some(_) => Err(ImageError::Unsupported {
                found: "a HEIF or AVIF film",
                remedy: RARE,
            }),
            None => Ok(None),
        };
    };
    Ok(primary_size(meta))
}

fn primary_size(meta: &[u8]) -> Option<(Size, u64)> {
    let primary = find(meta, b"pitm")?;
    let primary = match primary.first()? {
        0 => number(primary, 4, 2)?,
        _ => number(primary, 4, 4)?,
    };
    let properties = find(meta, b"iprp")?;
    let kinds = find(properties, b"ipco")?;
    // Of a picture beside this one, perhaps, but then it is laid over it.
    let is_alpha = |(kind, property): Found<'_>| {
        kind == b"auxC"
            && ALPHAS
                .iter()
                .any(|name| memchr::memmem::find(property, name).is_some())
    };
    let (mut size, mut bytes) = (None, PIXEL);
    if boxes(kinds).any(is_alpha) {
        bytes += ALPHA;
    }
    for index in associated(find(properties, b"ipma")?, primary)? {
        match boxes(kinds).nth(index.checked_sub(1)?) {
            Some((b"ispe", property)) => {
                size = number(property, 4, 4).zip(number(property, 8, 4));
            }
            Some((b"pixi", property)) if property.iter().skip(5).any(|bits| *bits > 8) => {
                bytes += DEEP;
            }
            _ => {}
        }
    }
    Some((size?, bytes))
}

/// Reads which properties, counted from 1, a picture has.
fn associated(table: &[u8], wanted: u32) -> Option<Vec<usize>> {
    let id_bytes = if *table.first()? == 0 { 2 } else { 4 };
    let index_bytes = 1 + usize::from(table.get(3)? & 1);
    let entries = number(table, 4, 4)?;
    let mut at = 8;
    for _ in 0..entries {
        let id = number(table, at, id_bytes)?;
        let count = usize::from(*table.get(at + id_bytes)?);
        let first = at + id_bytes + 1;
        at = first + count * index_bytes;
        if id == wanted {
            let indices = table.get(first..at)?.chunks_exact(index_bytes);
            // The topmost bit tells that the property must be understood.
            let essential = 1_usize << (8 * index_bytes - 1);
            let join = |sum: usize, byte: &u8| (sum << 8) | usize::from(*byte);
            return Some(
                indices
                    .map(|index| index.iter().fold(0, join) & !essential)
                    .collect(),
            );
        }
    }
    None
}

/// Finds the first box of a kind.
pub(super) fn find<'a>(bytes: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    boxes(bytes).find_map(|(found, content)| (found == kind).then_some(content))
}

/// Walks the boxes that are whole.
fn boxes(mut bytes: &[u8]) -> impl Iterator<Item = Found<'_>> {
    std::iter::from_fn(move || {
        let kind = bytes.get(4..8)?;
        let (head, length) = match number(bytes, 0, 4)? as usize {
            // To the end of the file.
            0 => (8, bytes.len()),
            // A length of eight bytes follows.
            1 if number(bytes, 8, 4)? == 0 => (16, number(bytes, 12, 4)? as usize),
            length => (8, length),
        };
        let content = bytes.get(head..length)?;
        bytes = &bytes[length..];
        Some((kind, content))
    })
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<u32> {
    let field = bytes.get(at..at + length)?;
    Some(
        field
            .iter()
            .fold(0, |sum, byte| (sum << 8) | u32::from(*byte)),
    )
}
