//! The segments of a JPEG file, walked without decoding.

/// One marker of a JPEG and the bytes of its segment.
pub(super) struct Segment<'a> {
    pub(super) marker: u8,
    pub(super) payload: &'a [u8],
    /// Where the bytes behind the segment begin.
    pub(super) end: usize,
}

/// Finds the next JPEG marker at or behind `at`, past anything that is not one.
///
/// Stuffed bytes, fill bytes and restart markers are no segments; so the entropy-coded data of a
/// scan is skipped too.
pub(super) fn next_segment(bytes: &[u8], mut at: usize) -> Option<Segment<'_>> {
    loop {
        at += memchr::memchr(0xFF, bytes.get(at..)?)? + 1;
        let marker = *bytes.get(at)?;
        match marker {
            0xFF => {}
            0x00 | 0x01 | 0xD0..=0xD8 => at += 1,
            0xD9 => {
                return Some(Segment {
                    marker,
                    payload: &[],
                    end: at + 1,
                });
            }
            _ => {
                let length = usize::from(u16::from_be_bytes([
                    *bytes.get(at + 1)?,
                    *bytes.get(at + 2)?,
                ]));
                let payload = bytes.get(at + 3..(at + 1).checked_add(length)?)?;
                return Some(Segment {
                    marker,
                    payload,
                    end: at + 1 + length,
                });
            }
        }
    }
}
