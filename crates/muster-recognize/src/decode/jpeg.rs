//! JPEG by `zune-jpeg`, lenient about the headers and strict about the pixels.

use std::collections::BTreeSet;

use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;
use zune_jpeg::{JpegDecoder, errors::DecodeErrors};

use super::error::{ImageError, RARE};
use super::format::{Format, Header};
use super::jpeg_segment::{Segment, next_segment};
use super::raster;
use super::stored::Stored;
use super::tiff_directory::orientation;

/// Scans of a progressive picture that are taken; encoders write about ten, and each costs a pass
/// over all the pixels.
const MAX_SCANS: usize = 64;

/// Ones, as many as let no decoder pass: no Huffman code is all ones, so whoever misses a bit of the
/// picture and reads on meets a code that does not exist.
const ONES: [[u8; 2]; 32] = [[0xFF, 0x00]; 32];
/// Bytes of an Adobe marker's payload up to what it says of the colours, its last byte.
const ADOBE_BYTES: usize = 12;
const END: [u8; 2] = [0xFF, 0xD9];

/// Decodes to RGB as stored.
pub(super) fn decode(bytes: &[u8], header: &Header) -> Result<Stored, ImageError> {
    let layout = Layout::of(bytes).ok_or_else(|| unreadable("its end is missing"))?;
    if !layout.is_scanned() {
        return Err(unreadable("a colour is missing"));
    }
    if layout.is_misread() {
        return Err(ImageError::Unsupported {
            found: "a JPEG of a rare kind",
            remedy: RARE,
        });
    }
    let bytes = layout.closed(bytes);
    let lenient = DecoderOptions::default()
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX)
        .jpeg_set_max_scans(MAX_SCANS)
        .set_strict_mode(false);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(&bytes), lenient);
    decoder.decode_headers().map_err(refuse)?;
    if decoder.dimensions() != Some((header.width as usize, header.height as usize)) {
        return Err(unreadable("it states two sizes"));
    }

    // Inks that no Adobe marker declares inverted come out as they are and are inverted here.
    let plain_inks = decoder.input_colorspace() == Some(ColorSpace::CMYK) && !layout.is_adobe();
    let out = if plain_inks {
        ColorSpace::CMYK
    } else {
        ColorSpace::RGB
    };
    decoder.set_options(lenient.jpeg_set_out_colorspace(out).set_strict_mode(true));

    let pixels = header.width as usize * header.height as usize;
    let mut samples = vec![0; pixels * out.num_components()];
    if decoder.output_buffer_size() != Some(samples.len()) {
        return Err(unreadable("its colours are not understood"));
    }
    decoder.decode_into(&mut samples).map_err(refuse)?;
    let rgb = if plain_inks {
        raster::inks_to_rgb(&samples)
    } else {
        samples
    };
    let exif = decoder.exif().map(Vec::as_slice);
    Ok((rgb, orientation(exif)))
}

/// What a walk over the segments tells before the decoder starts.
#[derive(Default)]
struct Layout {
    /// Where the end-of-image marker stands.
    end: usize,
    /// There is a JFIF marker, and so three components are `YCbCr`.
    jfif: bool,
    /// Where the Adobe marker's payload begins, and how long it is.
    adobe: Option<(usize, usize)>,
    components: u8,
    /// The sampling factors of each, across in the high half of a byte and down in the low.
    sampling: Vec<u8>,
    progressive: bool,
    /// The components that the scans are of, by their ids; how many the largest scan is of.
    scanned: BTreeSet<u8>,
    largest_scan: u8,
}

impl Layout {
    /// Walks to the end-of-image marker; `None` when the file stops before it.
    fn of(bytes: &[u8]) -> Option<Self> {
        let mut layout = Self::default();
        let mut at = 2;
        loop {
            let segment = next_segment(bytes, at)?;
            let Segment { payload, end, .. } = segment;
            match segment.marker {
                0xD9 => {
                    layout.end = end - END.len();
                    return Some(layout);
                }
                marker @ 0xC0..=0xC2 => {
                    layout.components = *payload.get(5).unwrap_or(&0);
                    layout.progressive = marker == 0xC2;
                    let of = payload.get(6..).unwrap_or_default().as_chunks::<3>().0;
                    layout.sampling = of.iter().map(|component| component[1]).collect();
                }
                0xDA => {
                    let (count, members) = payload.split_first()?;
                    let members = &members[..members.len().min(2 * usize::from(*count))];
                    layout.scanned.extend(members.iter().step_by(2));
                    layout.largest_scan = layout.largest_scan.max(*count);
                }
                0xE0 => layout.jfif |= payload.starts_with(b"JFIF\0"),
                0xEE if payload.starts_with(b"Adobe") => {
                    layout.adobe = Some((end - payload.len(), payload.len()));
                }
                _ => {}
            }
            at = end;
        }
    }

    /// Whether there is a scan of each component: a file may stop between two of them. Where two have one id, a scan of
    /// all tells.
    fn is_scanned(&self) -> bool {
        self.scanned.len().max(self.largest_scan.into()) >= self.components.into()
    }

    /// Whether `zune-jpeg` makes other pixels of it than there are: of colours with fewer rows than brightness, in scans
    /// of their own that are not progressive; and of a first component with fewer samples than another.
    fn is_misread(&self) -> bool {
        let Some((first, others)) = self.sampling.split_first() else {
            return false;
        };
        let in_scans = !self.progressive && self.largest_scan < self.components;
        let across = |factors: &u8| factors >> 4;
        let down = |factors: &u8| factors & 0x0F;
        (in_scans && down(first) > 1)
            || (others.iter())
                .any(|other| across(other) > across(first) || down(other) > down(first))
    }

    /// Whether there is a whole Adobe marker: the inks of a CMYK picture are stored inverted.
    fn is_adobe(&self) -> bool {
        matches!(self.adobe, Some((_, ADOBE_BYTES..)))
    }

    /// Copies the file up to its end with ones before the end marker, so that a picture that is cut short is
    /// not taken for a whole one; and with an Adobe marker that says what libjpeg, and with it every
    /// viewer, makes of it.
    fn closed(&self, bytes: &[u8]) -> Vec<u8> {
        let mut closed = Vec::with_capacity(self.end + ONES.as_flattened().len() + END.len());
        closed.extend_from_slice(&bytes[..self.end]);
        closed.extend_from_slice(ONES.as_flattened());
        closed.extend_from_slice(&END);
        if let Some((at, _)) = self.adobe {
            if self.is_adobe() && self.components >= 3 {
                let transform = &mut closed[at + ADOBE_BYTES - 1];
                *transform = match (self.components, *transform) {
                    (4.., 0) => 0,
                    (4.., _) => 2,
                    (_, 0) if !self.jfif => 0,
                    _ => 1,
                };
            } else {
                closed[at..at + 5].make_ascii_lowercase();
            }
        }
        closed
    }
}

fn refuse(error: DecodeErrors) -> ImageError {
    match error {
        DecodeErrors::Unsupported(_) => ImageError::Unsupported {
            found: "a JPEG of a rare kind",
            remedy: RARE,
        },
        DecodeErrors::FormatStatic(reason) => unreadable(reason),
        DecodeErrors::ExhaustedData => unreadable("it ends in the middle"),
        _ => unreadable("its data makes no sense"),
    }
}

fn unreadable(reason: &str) -> ImageError {
    ImageError::unreadable(Format::Jpeg, reason)
}
