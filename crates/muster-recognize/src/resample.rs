//! Resizing a part of a photograph, into a buffer that is kept.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeError, ResizeOptions, Resizer};

use crate::decode::Photo;
use crate::detect::Bounds;

/// Resizes parts of photographs; keeps its buffers from one to the next.
#[derive(Default)]
pub(crate) struct Resampler {
    resizer: Resizer,
    pixels: Vec<u8>,
}

impl Resampler {
    /// Resizes the part `source` of a photograph to interleaved RGB pixels, bilinearly.
    ///
    /// When it shrinks, the kernel widens to cover every pixel of the part, so that nothing
    /// aliases. A part that does not lie within the photograph comes out black.
    pub(crate) fn resize(
        &mut self,
        photo: &Photo,
        source: &Bounds,
        width: u32,
        height: u32,
    ) -> &[u8] {
        self.pixels.resize(width as usize * height as usize * 3, 0);
        let Self { resizer, pixels } = self;
        if resize(resizer, photo, source, width, height, pixels).is_err() {
            pixels.fill(0);
        }
        pixels
    }
}

/// Resizes by the one instance of the generic resizer: three bytes a pixel.
fn resize(
    resizer: &mut Resizer,
    photo: &Photo,
    source: &Bounds,
    width: u32,
    height: u32,
    pixels: &mut [u8],
) -> Result<(), ResizeError> {
    let (Ok(from), Ok(mut to)) = (
        TypedImageRef::<U8x3>::from_buffer(photo.width, photo.height, &photo.rgb),
        TypedImage::<U8x3>::from_buffer(width, height, pixels),
    ) else {
        return Err(ResizeError::PixelTypesAreDifferent);
    };
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
        .use_alpha(false)
        .crop(
            source.x.into(),
            source.y.into(),
            source.width.into(),
            source.height.into(),
        );
    resizer.resize_typed(&from, &mut to, &options)
}
