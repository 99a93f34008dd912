//! HEIF files, which HEIC and AVIF are: their boxes, walked without decoding (ISO/IEC 14496-12 and 23008-12).

use std::collections::BTreeMap;

use super::error::{ANYTHING_ELSE, ImageError, RARE, RAW};
use super::format::{Format, Size};

/// Bytes of a pixel while libheif decodes it: the picture in `YCbCr`, as RGB, and the copy of that.
const PIXEL: u64 = 8;
/// More of them with more than 8 bits a sample, and with alpha.
const DEEP: u64 = 5;
const ALPHA: u64 = 4;

/// How many pixels what a picture is put together from may have: so many times its own, since parts overlap,
/// and some tiles more.
const OVERLAP: u64 = 4;
const TILES: u64 = 4 * 1024 * 1024;
/// How often a part may itself be put together from parts.
const DEEPEST: u32 = 8;

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
pub(super) fn size(bytes: &[u8], format: Format) -> Result<Option<(Size, u64)>, ImageError> {
    let Some(meta) = find(bytes, b"meta").and_then(|meta| meta.get(4..)) else {
        return match find(bytes, b"moov") {
            Some(_) => Err(ImageError::Unsupported {
                found: "a HEIF or AVIF film",
                remedy: RARE,
            }),
            None => Ok(None),
        };
    };
    let size = primary_size(meta);
    match size {
        Some(((width, height), _))
            if !Parts::of(meta)
                .are_within(OVERLAP * u64::from(width) * u64::from(height) + TILES) =>
        {
            let reason = "it is put together from itself, or from too much";
            Err(ImageError::unreadable(format, reason))
        }
        size => Ok(size),
    }
}

/// What pictures are put together from, which libheif follows to the end of its stack.
#[derive(Default)]
struct Parts {
    /// Of each such picture, by their ids.
    of: BTreeMap<u32, Vec<u32>>,
    /// Pixels of each picture that says its size.
    pixels: BTreeMap<u32, u64>,
}

impl Parts {
    fn of(meta: &[u8]) -> Self {
        let mut parts = Self::default();
        let references = find(meta, b"iref").unwrap_or_default();
        let id_bytes = if references.first() == Some(&0) { 2 } else { 4 };
        let ids = |list: &[u8]| -> Vec<u32> {
            let ids = list.chunks_exact(id_bytes);
            ids.filter_map(|id| number(id, 0, id_bytes)).collect()
        };
        for (_, content) in
            boxes(references.get(4..).unwrap_or_default()).filter(|(kind, _)| kind == b"dimg")
        {
            let whole = number(content, 0, id_bytes).unwrap_or_default();
            let of = ids(content.get(id_bytes + 2..).unwrap_or_default());
            parts.of.entry(whole).or_default().extend(of);
        }
        if parts.of.is_empty() {
            return parts;
        }
        let properties = find(meta, b"iprp").unwrap_or_default();
        let kinds = boxes(find(properties, b"ipco").unwrap_or_default());
        let sizes: Vec<Option<u64>> = kinds
            .map(|(kind, property)| {
                let side = |at| number(property, at, 4).map(u64::from);
                (kind == b"ispe")
                    .then(|| side(4)?.checked_mul(side(8)?))
                    .flatten()
            })
            .collect();
        for (id, indices) in associations(find(properties, b"ipma").unwrap_or_default()) {
            let size = |index: &usize| *sizes.get(index.checked_sub(1)?)?;
            if let Some(pixels) = indices.iter().find_map(size) {
                parts.pixels.insert(id, pixels);
            }
        }
        parts
    }

    /// Whether none has more pixels in all, however its parts are put together themselves.
    fn are_within(&self, most: u64) -> bool {
        let mut known = BTreeMap::new();
        (self.of.keys()).all(|whole| {
            let pixels = self.pixels_of(*whole, DEEPEST, &mut known);
            pixels.is_some_and(|pixels| pixels <= most)
        })
    }

    /// How many pixels a picture is put together from; `None` where it is so from itself, or too deeply.
    fn pixels_of(
        &self,
        id: u32,
        depth: u32,
        known: &mut BTreeMap<u32, Option<u64>>,
    ) -> Option<u64> {
        let Some(parts) = self.of.get(&id) else {
            return Some(self.pixels.get(&id).copied().unwrap_or(TILES));
        };
        if let Some(known) = known.get(&id) {
            return *known;
        }
        // Until it is known: whoever asks for it is a part of it.
        known.insert(id, None);
        let mut pixels = 0u64;
        for part in parts {
            pixels = pixels.saturating_add(self.pixels_of(*part, depth.checked_sub(1)?, known)?);
        }
        known.insert(id, Some(pixels));
        Some(pixels)
    }
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
    let mut all = associations(find(properties, b"ipma")?);
    let (_, indices) = all.find(|(id, _)| *id == primary)?;
    for index in indices {
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

/// Reads which properties, counted from 1, the pictures have, each by its id.
fn associations(table: &[u8]) -> impl Iterator<Item = (u32, Vec<usize>)> {
    let id_bytes = if table.first() == Some(&0) { 2 } else { 4 };
    let index_bytes = 1 + usize::from(table.get(3).unwrap_or(&0) & 1);
    let entries = number(table, 4, 4).unwrap_or(0);
    let mut at = 8;
    (0..entries).map_while(move |_| {
        let id = number(table, at, id_bytes)?;
        let count = usize::from(*table.get(at + id_bytes)?);
        let first = at + id_bytes + 1;
        at = first + count * index_bytes;
        let indices = table.get(first..at)?.chunks_exact(index_bytes);
        // The topmost bit tells that the property must be understood.
        let essential = 1_usize << (8 * index_bytes - 1);
        let join = |sum: usize, byte: &u8| (sum << 8) | usize::from(*byte);
        let indices = indices.map(|index| index.iter().fold(0, join) & !essential);
        Some((id, indices.collect()))
    })
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
