//! JPEG by `zune-jpeg`, lenient about the headers and strict about the pixels.

use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;
use zune_jpeg::{JpegDecoder, errors::DecodeErrors};

use super::error::{ImageError, RARE};
use super::format::{Format, Header};
use super::jpeg_segment::next_segment;
use super::raster;
use super::stored::{Stored, orientation};

/// Scans of a progressive picture that are taken; encoders write about ten, and each costs a pass
/// over all the pixels.
const MAX_SCANS: usize = 64;

/// Decodes to RGB as stored.
pub(super) fn decode(bytes: &[u8], header: &Header) -> Result<Stored, ImageError> {
    let layout = Layout::of(bytes).ok_or_else(|| unreadable("its end is missing"))?;
    let lenient = DecoderOptions::default()
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX)
        .jpeg_set_max_scans(MAX_SCANS)
        .set_strict_mode(false);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), lenient);
    decoder.decode_headers().map_err(refuse)?;
    if decoder.dimensions() != Some((header.width as usize, header.height as usize)) {
        return Err(unreadable("it states two sizes"));
    }

    // Inks that no Adobe marker declares inverted come out as they are and are inverted here.
    let plain_inks = decoder.input_colorspace() == Some(ColorSpace::CMYK) && !layout.adobe;
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
    Ok((rgb, orientation(decoder.exif().map(Vec::as_slice))))
}

/// What a walk over the segments tells before the decoder starts.
struct Layout {
    /// There is an Adobe marker: the inks of a CMYK picture are stored inverted.
    adobe: bool,
}

impl Layout {
    /// Walks to the end-of-image marker; `None` when the file stops before it.
    fn of(bytes: &[u8]) -> Option<Self> {
        let mut layout = Self { adobe: false };
        let mut at = 2;
        loop {
            let segment = next_segment(bytes, at)?;
            match segment.marker {
                0xD9 => return Some(layout),
                0xEE => layout.adobe |= segment.payload.starts_with(b"Adobe"),
                _ => {}
            }
            at = segment.end;
        }
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
