//! The pieces that PNG and WebP files consist of, walked without decoding.

/// What a PNG begins with.
pub(super) const PNG_MAGIC: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Walks the chunks of a PNG that are whole: four letters and the payload.
pub(super) fn png_chunks(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = bytes.get(PNG_MAGIC.len()..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (head, body) = rest.split_at_checked(8)?;
        let length = u32::from_be_bytes(head[..4].try_into().ok()?) as usize;
        let (payload, after) = body.split_at_checked(length)?;
        (_, rest) = after.split_at_checked(4)?;
        Some((&head[4..], payload))
    })
}

/// Walks RIFF chunks: four letters, the length, the payload, a padding byte after an odd one.
pub(super) fn riff_chunks(mut bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        let length = little_endian(bytes, 4, 4)? as usize;
        let kind = bytes.get(..4)?;
        let payload = bytes.get(8..length.checked_add(8)?)?;
        bytes = bytes.get(8 + length + length % 2..).unwrap_or_default();
        Some((kind, payload))
    })
}

/// Whether a WebP is shorter than it says; the byte that pads an odd chunk is left out by some encoders.
pub(super) fn webp_is_short(bytes: &[u8]) -> bool {
    let announced = little_endian(bytes, 4, 4).unwrap_or(0);
    announced as usize > bytes.len().saturating_sub(8) + 1
}

/// Reads a number, its lowest byte first.
pub(super) fn little_endian(bytes: &[u8], at: usize, length: usize) -> Option<u32> {
    let field = bytes.get(at..at + length)?;
    Some(
        field
            .iter()
            .rev()
            .fold(0, |value, &byte| (value << 8) | u32::from(byte)),
    )
}
