//! JPEG XL by `jxl-oxide`; of an animation, its first picture.

use jxl_oxide::{AllocTracker, ExtraChannelType, JxlImage, PixelFormat};

use super::error::{ImageError, RARE};
use super::format::{Format, Header, Size};
use super::iso;
use super::photo::Photo;
use super::raster::{over_white, premultiplied_over_white, rgba_to_rgb};

/// Bytes of a pixel: the decoder works on numbers of 32 bits.
pub(super) const PIXEL: u64 = 32;
/// Bytes that it may take besides.
const TABLES: usize = 32 << 20;

/// Whether a file is a JPEG XL, bare or in boxes.
pub(super) fn is_jxl(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xFF, 0x0A]) || bytes.starts_with(b"\0\0\0\x0cJXL \r\n\x87\n")
}

/// Reads the size, before the picture is turned (ISO/IEC 18181-1, `SizeHeader`).
pub(super) fn size(bytes: &[u8]) -> Option<Size> {
    let stream = if bytes.starts_with(&[0xFF, 0x0A]) {
        bytes
    } else {
        iso::find(bytes, b"jxlc").or_else(|| iso::find(bytes, b"jxlp")?.get(4..))?
    };
    let mut bits = Bits {
        bytes: stream.strip_prefix(&[0xFF, 0x0A])?,
        at: 0,
    };
    let small = bits.read(1)? == 1;
    let height = bits.side(small)?;
    let ratio = bits.read(3)?;
    let (across, down) = match ratio {
        0 => return Some((bits.side(small)?, height)),
        1 => (1, 1),
        2 => (12, 10),
        3 => (4, 3),
        4 => (3, 2),
        5 => (16, 9),
        6 => (5, 4),
        _ => (2, 1),
    };
    let width = u64::from(height) * across / down;
    Some((u32::try_from(width).ok()?, height))
}

/// Bits, the lowest of a byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn read(&mut self, count: usize) -> Option<u32> {
        let mut value = 0;
        for bit in 0..count {
            let byte = *self.bytes.get(self.at / 8)?;
            value |= u32::from(byte >> (self.at % 8) & 1) << bit;
            self.at += 1;
        }
        Some(value)
    }

    /// Reads one side of a picture.
    fn side(&mut self, small: bool) -> Option<u32> {
        if small {
            return Some((self.read(5)? + 1) * 8);
        }
        let width = [9, 13, 18, 30][self.read(2)? as usize];
        Some(self.read(width)? + 1)
    }
}

/// Decodes to upright RGB: the decoder turns the picture as the file says.
pub(super) fn decode(bytes: &[u8], header: &Header) -> Result<Photo, ImageError> {
    let refused = |reason: &str| ImageError::unreadable(Format::JpegXl, reason);
    let senseless = |_| refused("its data makes no sense");
    let memory = usize::try_from(header.decoded_bytes).unwrap_or(usize::MAX);
    let image = JxlImage::builder()
        .alloc_tracker(AllocTracker::with_limit(memory.saturating_add(TABLES)))
        .read(bytes)
        .map_err(senseless)?;
    let (width, height) = (image.width(), image.height());
    let stored = (header.width, header.height);
    if (width, height) != stored && (height, width) != stored {
        return Err(refused("it states two sizes"));
    }
    let channels = match image.pixel_format() {
        PixelFormat::Gray => 1,
        PixelFormat::Graya => 2,
        PixelFormat::Rgb => 3,
        PixelFormat::Rgba => 4,
        PixelFormat::Cmyk | PixelFormat::Cmyka => {
            return Err(ImageError::Unsupported {
                found: "a JPEG XL of four inks",
                remedy: RARE,
            });
        }
    };
    if !image.is_loading_done() {
        return Err(refused("it ends in the middle"));
    }
    let picture = image.render_frame(0).map_err(senseless)?;
    let mut samples = vec![0_u8; width as usize * height as usize * channels];
    if picture.stream().write_to_buffer(&mut samples) != samples.len() {
        return Err(refused("it ends in the middle"));
    }
    drop(picture);
    let premultiplied = image.image_header().metadata.ec_info.iter().any(|channel| {
        matches!(
            channel.ty,
            ExtraChannelType::Alpha {
                alpha_associated: true
            }
        )
    });
    let blend = if premultiplied {
        premultiplied_over_white
    } else {
        over_white
    };
    let rgb = match channels {
        1 => samples.iter().flat_map(|grey| [*grey; 3]).collect(),
        2 => (samples.as_chunks::<2>().0.iter())
            .flat_map(|&[grey, alpha]| [blend(grey, alpha); 3])
            .collect(),
        3 => samples,
        _ => rgba_to_rgb(&samples, blend),
    };
    Ok(Photo { width, height, rgb })
}
