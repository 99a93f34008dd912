//! The first directory of a TIFF, and of EXIF, which is a TIFF without a picture.

use image::metadata::Orientation;

const ORIENTATION: u16 = 274;

/// The fields of the first directory.
pub(super) struct Directory<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) big_endian: bool,
    /// Where the entries, 12 bytes each, begin.
    at: usize,
    entries: &'a [u8],
}

/// The values of one field.
pub(super) struct Field<'a> {
    /// Whether they are bytes, 16-bit or 32-bit numbers.
    pub(super) width: usize,
    pub(super) values: &'a [u8],
    big_endian: bool,
    /// Where the values begin in the file.
    pub(super) at: usize,
}

impl<'a> Field<'a> {
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> + use<'a> {
        let big_endian = self.big_endian;
        self.values
            .chunks_exact(self.width)
            .map(move |value| number(value, big_endian))
    }
}

fn number(value: &[u8], big_endian: bool) -> u32 {
    let join = |sum: u32, byte: &u8| (sum << 8) | u32::from(*byte);
    if big_endian {
        value.iter().fold(0, join)
    } else {
        value.iter().rev().fold(0, join)
    }
}

impl<'a> Directory<'a> {
    /// Finds the first directory; `None` when the file stops before its end.
    pub(super) fn first(bytes: &'a [u8]) -> Option<Self> {
        let (directory, whole) = Self::start(bytes)?;
        whole.then_some(directory)
    }

    /// Finds the first directory, or as many of its entries as there are, and whether these are all.
    fn start(bytes: &'a [u8]) -> Option<(Self, bool)> {
        let big_endian = bytes.starts_with(b"MM");
        let start = number(bytes.get(4..8)?, big_endian) as usize;
        let count = number(bytes.get(start..start.checked_add(2)?)?, big_endian) as usize;
        let at = start + 2;
        let entries = &bytes[at..];
        let length = (count * 12).min(entries.len());
        let directory = Self {
            bytes,
            big_endian,
            at,
            entries: &entries[..length],
        };
        Some((directory, length == count * 12))
    }

    /// Reads the orientation, whichever kind of whole number it is.
    pub(super) fn orientation(&self) -> Orientation {
        self.first_of(ORIENTATION)
            .and_then(|value| Orientation::from_exif(u8::try_from(value).ok()?))
            .unwrap_or(Orientation::NoTransforms)
    }

    /// Finds a field of whole numbers; `None` also when its values lie outside the file.
    pub(super) fn field(&self, tag: u16) -> Option<Field<'a>> {
        let (entries, _) = self.entries.as_chunks::<12>();
        let index = entries
            .iter()
            .position(|entry| number(&entry[..2], self.big_endian) == u32::from(tag))?;
        let entry = &entries[index];
        let width = match number(&entry[2..4], self.big_endian) {
            1 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 => 4,
            _ => return None,
        };
        let count = number(&entry[4..8], self.big_endian) as usize;
        let length = count.checked_mul(width)?;
        let at = if length <= 4 {
            self.at + index * 12 + 8
        } else {
            number(&entry[8..12], self.big_endian) as usize
        };
        Some(Field {
            width,
            values: self.bytes.get(at..at.checked_add(length)?)?,
            big_endian: self.big_endian,
            at,
        })
    }

    pub(super) fn first_of(&self, tag: u16) -> Option<u32> {
        self.field(tag)?.numbers().next()
    }
}

/// Reads the orientation from an EXIF block, which is a TIFF without a picture, with or without its
/// `Exif\0\0` prefix.
pub(super) fn orientation(exif: Option<&[u8]>) -> Orientation {
    exif.map(|exif| exif.strip_prefix(b"Exif\0\0").unwrap_or(exif))
        .filter(|exif| exif.starts_with(b"II*\0") || exif.starts_with(b"MM\0*"))
        .and_then(Directory::start)
        .map_or(Orientation::NoTransforms, |(directory, _)| {
            directory.orientation()
        })
}
