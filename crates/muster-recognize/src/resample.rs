//! Resizing a part of a photograph, into a buffer that is kept.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeError, ResizeOptions, Resizer};

use crate::bounds::Bounds;
use crate::decode::Photo;

/// From so many pixels to one on, sampling bilinearly, which reads 2 x 2 of them, loses what lies
/// between as aliasing.
pub(crate) const ALIASES_FROM: f32 = 2.0;

/// How far a part's edge may lie beyond the photograph's, in pixels, to be that edge: more than numbers of
/// 32 bits lose in a sum at the longest side that is decoded.
const EDGE: f64 = 1.0 / 16.0;

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
    /// aliases. A part that is empty, or reaches beyond the photograph by more than rounding does, comes
    /// out black.
    pub(crate) fn resize(
        &mut self,
        photo: &Photo,
        source: &Bounds,
        width: u32,
        height: u32,
    ) -> &[u8] {
        let bilinear = ResizeAlg::Convolution(FilterType::Bilinear);
        self.by(bilinear, photo, source, width, height)
    }

    /// Enlarges the part `source` of a photograph by a Lanczos filter of three lobes, which keeps more of
    /// what few pixels tell than a bilinear one.
    pub(crate) fn enlarge(
        &mut self,
        photo: &Photo,
        source: &Bounds,
        width: u32,
        height: u32,
    ) -> &[u8] {
        let lanczos = ResizeAlg::Convolution(FilterType::Lanczos3);
        self.by(lanczos, photo, source, width, height)
    }

    /// Resizes from 2 x 2 pixels alone wherever they leave none out, in two thirds of the time that
    /// [`Resampler::resize`] takes.
    pub(crate) fn resize_quickly(
        &mut self,
        photo: &Photo,
        source: &Bounds,
        width: u32,
        height: u32,
    ) -> &[u8] {
        let fold = (source.width / width as f32).max(source.height / height as f32);
        if fold < ALIASES_FROM {
            let bilinear = ResizeAlg::Interpolation(FilterType::Bilinear);
            self.by(bilinear, photo, source, width, height)
        } else {
            self.resize(photo, source, width, height)
        }
    }

    fn by(
        &mut self,
        algorithm: ResizeAlg,
        photo: &Photo,
        source: &Bounds,
        width: u32,
        height: u32,
    ) -> &[u8] {
        self.pixels.resize(width as usize * height as usize * 3, 0);
        let Self { resizer, pixels } = self;
        let (left, columns) = within(source.x, source.width, photo.width);
        let (top, rows) = within(source.y, source.height, photo.height);
        let options = ResizeOptions::new()
            .resize_alg(algorithm)
            .use_alpha(false)
            .crop(left, top, columns, rows);
        // Of nothing the resizer makes nothing, and what was there would stay.
        let empty = source.width <= 0.0 || source.height <= 0.0;
        if empty || resize(resizer, photo, &options, width, height, pixels).is_err() {
            pixels.fill(0);
        }
        pixels
    }
}

/// Where a part begins and how long it is, without what rounding has put beyond the photograph: the
/// resizer, which computes in 64 bits, makes nothing of a part that is too long by the last bit.
fn within(start: f32, length: f32, side: u32) -> (f64, f64) {
    let (start, length, side) = (f64::from(start), f64::from(length), f64::from(side));
    let beyond = start + length - side;
    if beyond > 0.0 && beyond < EDGE {
        (start, side - start)
    } else {
        (start, length)
    }
}

/// Resizes by the one instance of the generic resizer: three bytes a pixel.
fn resize(
    resizer: &mut Resizer,
    photo: &Photo,
    options: &ResizeOptions,
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
    resizer.resize_typed(&from, &mut to, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stripes as fine as pixels: what is not averaged shows.
    fn stripes(side: u32) -> Photo {
        let row = (0..side).flat_map(|x| [(x % 2) as u8 * 255; 3]);
        Photo {
            width: side,
            height: side,
            rgb: row.collect::<Vec<_>>().repeat(side as usize),
        }
    }

    #[test]
    fn what_2_x_2_pixels_do_not_cover_is_averaged() {
        let mut resampler = Resampler::default();
        for side in [200, 230, 410] {
            let photo = stripes(side);
            let whole = Bounds {
                x: 0.0,
                y: 0.0,
                width: side as f32,
                height: side as f32,
            };
            for pixels in [
                resampler.resize(&photo, &whole, 100, 100).to_vec(),
                resampler.resize_quickly(&photo, &whole, 100, 100).to_vec(),
            ] {
                let inner = &pixels[50 * 300 + 30..][..240];
                assert!(
                    inner.iter().all(|v| (60..200).contains(v)),
                    "{side}: {inner:?}"
                );
            }
        }
    }

    #[test]
    fn a_part_that_ends_where_the_photograph_does_is_seen() {
        let mut resampler = Resampler::default();
        for side in [250u32, 333, 1000] {
            let photo = Photo {
                width: side,
                height: side,
                rgb: vec![255; side as usize * side as usize * 3],
            };
            let all = side as f32;
            let whole = Bounds {
                x: 0.0,
                y: 0.0,
                width: all,
                height: all,
            };
            for step in 1..200 {
                let start = step as f32 * 0.0015 * all;
                let part = Bounds {
                    x: start,
                    y: start,
                    ..whole
                };
                // What lies in the photograph, in numbers of 32 bits.
                let part = part.intersection(&whole);
                let pixels = resampler.resize_quickly(&photo, &part, 9, 9);
                assert!(pixels.iter().all(|v| *v == 255), "{part:?} of {side}");
            }
        }
    }

    #[test]
    fn the_quick_way_gives_the_same_places() {
        let wave = |at: u32| ((at as f32 / 6.0).sin() * 120.0 + 128.0) as u8;
        let photo = Photo {
            width: 160,
            height: 160,
            rgb: (0..160 * 160)
                .flat_map(|at| [wave(at % 160), wave(at / 160), 7])
                .collect(),
        };
        let part = Bounds {
            x: 20.0,
            y: 10.0,
            width: 128.0,
            height: 112.0,
        };
        let mut resampler = Resampler::default();
        let covering = resampler.resize(&photo, &part, 80, 70).to_vec();
        let quick = resampler.resize_quickly(&photo, &part, 80, 70);
        let apart = covering
            .iter()
            .zip(quick)
            .map(|(a, b)| a.abs_diff(*b))
            .max();
        assert!(apart <= Some(3), "{apart:?}");
        let beyond = Bounds { x: 100.0, ..part };
        let empty = Bounds { width: 0.0, ..part };
        for nothing in [beyond, empty] {
            // Not what the buffer held before.
            resampler.resize_quickly(&photo, &part, 80, 70);
            let pixels = resampler.resize_quickly(&photo, &nothing, 80, 70);
            assert!(pixels.iter().all(|v| *v == 0), "{nothing:?}");
        }
    }
}
