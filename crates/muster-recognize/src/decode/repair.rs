//! The second reading: a file whose pixels are all there, brought into the form that the first reading asks.
//!
//! It is tried only after the first, and what it makes is read by the same rules, so that a picture of which
//! something is missing stays refused.

use flate2::Crc;
use muster_jobs::Repair;

use super::chunks::{PNG_MAGIC, png_chunks, riff_chunks};
use super::format::Format;
use super::jpeg_segment::{Segment, next_segment};

/// The mark of a webcam's frame (`APP0` of AVI), to which the decoder gives the tables of ITU T.81, annex K.
const WEBCAM: &[u8] = b"\xFF\xE0\0\x07AVI1\0";

/// What the extended header of a WebP says is in it.
const EXIF: u8 = 0x08;
const XMP: u8 = 0x04;

/// A file put right, and what was wrong with it.
pub(super) struct Mended {
    pub(super) bytes: Vec<u8>,
    pub(super) repaired: Vec<Repair>,
}

/// Mends a file; `None` where nothing is wrong with it that can be put right.
pub(super) fn mend(bytes: &[u8], format: Format) -> Option<Mended> {
    match format {
        Format::Jpeg => mend_jpeg(bytes),
        Format::Png => mend_png(bytes),
        Format::WebP => mend_webp(bytes),
        _ => None,
    }
}

/// Writes a JPEG's header anew, with one beginning and with Huffman tables, and closes what follows.
fn mend_jpeg(bytes: &[u8]) -> Option<Mended> {
    let mut mended = bytes.get(..2)?.to_vec();
    let mut repaired = Vec::new();
    let mut tables = false;
    let mut progressive = None;
    let mut at = mended.len();
    loop {
        let Segment {
            marker,
            payload,
            end,
        } = next_segment(bytes, at)?;
        if marker == 0xD9 {
            return None;
        }
        let start = end - payload.len() - 4;
        if bytes[at..start].windows(2).any(|pair| pair == [0xFF, 0xD8]) {
            repaired.push(Repair::Start);
        }
        match marker {
            0xC2 => progressive = Some(*payload.get(5)?),
            0xC4 => tables = true,
            0xDA if !tables && progressive.is_none() => {
                mended.extend_from_slice(WEBCAM);
                repaired.push(Repair::HuffmanTables);
            }
            _ => {}
        }
        if marker == 0xDA {
            at = start;
            break;
        }
        mended.extend_from_slice(&bytes[start..end]);
        at = end;
    }
    repaired.dedup();
    let scans = &bytes[at..];
    if ends(scans) {
        mended.extend_from_slice(scans);
    } else if progressive.is_none_or(|components| is_refined(scans, components)) {
        mended.extend_from_slice(without_padding(scans));
        mended.extend_from_slice(&[0xFF, 0xD9]);
        repaired.push(Repair::End);
    } else {
        return None;
    }
    (!repaired.is_empty()).then_some(Mended {
        bytes: mended,
        repaired,
    })
}

/// Whether there is an end-of-image marker.
fn ends(scans: &[u8]) -> bool {
    segments(scans).any(|segment| segment.marker == 0xD9)
}

fn segments(scans: &[u8]) -> impl Iterator<Item = Segment<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let segment = next_segment(scans, at)?;
        at = segment.end;
        Some(segment)
    })
}

/// Whether the scans of a progressive picture bring every coefficient down to its last bit: where the file
/// stops between two scans, nothing else tells that there were more.
fn is_refined(scans: &[u8], components: u8) -> bool {
    let mut lacking: Vec<(u8, u64)> = Vec::new();
    for segment in segments(scans).filter(|segment| segment.marker == 0xDA) {
        let Some((&count, rest)) = segment.payload.split_first() else {
            return false;
        };
        let (members, spectral) = rest.split_at(rest.len().min(2 * usize::from(count)));
        let &[first, last @ 0..=63, bits] = spectral else {
            return false;
        };
        let band = (u64::MAX >> (63 - last)) & (u64::MAX << first.min(63));
        for member in members.as_chunks::<2>().0 {
            let at = lacking.iter().position(|(id, _)| *id == member[0]);
            let at = at.unwrap_or_else(|| {
                lacking.push((member[0], u64::MAX));
                lacking.len() - 1
            });
            if bits & 0x0F == 0 {
                lacking[at].1 &= !band;
            }
        }
    }
    lacking.len() == usize::from(components) && lacking.iter().all(|(_, bits)| *bits == 0)
}

/// Leaves out what may stand in the end marker's place: half of it, or the zeros of a file that was given
/// its length beforehand. Ones go too; the decoder is given as many again.
fn without_padding(scans: &[u8]) -> &[u8] {
    let before = |padding: u8, scans: &[u8]| {
        let last = scans.iter().rposition(|byte| *byte != padding);
        last.map_or(0, |last| last + 1)
    };
    let data = &scans[..before(0, scans)];
    let one_zero = scans.len() == data.len() + 1 && !data.ends_with(&[0xFF]);
    let scans = if one_zero { scans } else { data };
    &scans[..before(0xFF, scans)]
}

/// Closes a PNG behind its last piece of pixels, or that part of it which is there.
fn mend_png(bytes: &[u8]) -> Option<Mended> {
    let mut end = PNG_MAGIC.len();
    for (kind, payload) in png_chunks(bytes) {
        if kind == b"IEND" {
            return None;
        }
        end += payload.len() + 12;
    }
    let (whole, rest) = bytes.split_at_checked(end)?;
    let mut mended = whole.to_vec();
    if let Some((head, payload)) = rest.split_at_checked(8)
        && &head[4..] == b"IDAT"
    {
        let length = u32::from_be_bytes(head[..4].try_into().ok()?) as usize;
        push_chunk(&mut mended, b"IDAT", &payload[..payload.len().min(length)]);
    }
    push_chunk(&mut mended, b"IEND", &[]);
    Some(Mended {
        bytes: mended,
        repaired: vec![Repair::End],
    })
}

fn push_chunk(png: &mut Vec<u8>, kind: &[u8], payload: &[u8]) {
    let mut sum = Crc::new();
    sum.update(kind);
    sum.update(payload);
    png.extend((payload.len() as u32).to_be_bytes());
    png.extend_from_slice(kind);
    png.extend_from_slice(payload);
    png.extend(sum.sum().to_be_bytes());
}

/// Has a WebP end where its last whole piece does.
fn mend_webp(bytes: &[u8]) -> Option<Mended> {
    let body = bytes.get(12..)?;
    let (mut length, mut metadata) = (0, 0);
    for (kind, payload) in riff_chunks(body) {
        length += 8 + payload.len().next_multiple_of(2);
        match kind {
            b"EXIF" => metadata |= EXIF,
            b"XMP " => metadata |= XMP,
            _ => {}
        }
    }
    let mut mended = bytes[..12 + length.min(body.len())].to_vec();
    mended.resize(12 + length, 0);
    mended[4..8].copy_from_slice(&u32::try_from(4 + length).ok()?.to_le_bytes());
    if body.starts_with(b"VP8X") {
        *mended.get_mut(20)? &= !(EXIF | XMP) | metadata;
    }
    Some(Mended {
        bytes: mended,
        repaired: vec![Repair::End],
    })
}
