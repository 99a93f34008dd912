//! A picture's pixels, halved and sampled.

use multiversion::multiversion;

use super::similarity::Similarity;
use super::template::ALIGNED_SIZE;
use crate::decode::Photo;

/// Interleaved RGB pixels.
pub(super) struct Pixels<'a> {
    width: u32,
    height: u32,
    /// Bytes from a row to the next.
    stride: usize,
    rgb: &'a [u8],
}

impl<'a> Pixels<'a> {
    pub(super) fn packed(width: u32, height: u32, rgb: &'a [u8]) -> Self {
        Self {
            width,
            height,
            stride: width as usize * 3,
            rgb,
        }
    }

    pub(super) fn of(photo: &'a Photo) -> Self {
        Self::packed(photo.width, photo.height, &photo.rgb)
    }

    /// Returns a part, at least a pixel large; `None` when its rows do not lie within.
    pub(super) fn part(&self, left: u32, top: u32, width: u32, height: u32) -> Option<Self> {
        let start = top as usize * self.stride + left as usize * 3;
        let rows_before_last = height.checked_sub(1)? as usize;
        let length = rows_before_last * self.stride + width as usize * 3;
        Some(Self {
            width,
            height,
            stride: self.stride,
            rgb: self.rgb.get(start..start + length)?,
        })
    }

    /// Returns a pixel, black outside the picture.
    fn at(&self, x: i32, y: i32) -> [f32; 3] {
        let inside = x >= 0
            && y >= 0
            && i64::from(x) < self.width.into()
            && i64::from(y) < self.height.into();
        let start = if inside {
            y as usize * self.stride + x as usize * 3
        } else {
            usize::MAX
        };
        match self
            .rgb
            .get(start..)
            .and_then(|rest| rest.first_chunk::<3>())
        {
            Some(pixel) => pixel.map(f32::from),
            None => [0.0; 3],
        }
    }
}

/// Writes the means of 2 x 2 pixels and returns how many columns and rows there are of them; an odd
/// last column or row is left out.
pub(super) fn halve(from: &Pixels<'_>, means: &mut Vec<u8>, out: &mut Vec<u8>) -> (u32, u32) {
    let (columns, rows) = (from.width / 2, from.height / 2);
    let row = columns as usize * 3;
    means.resize(2 * row, 0);
    out.resize(row * rows as usize, 0);
    if row > 0 {
        let pairs = from.rgb.chunks(2 * from.stride);
        for (halved, pair) in out.chunks_exact_mut(row).zip(pairs) {
            let (upper, lower) = (&pair[..2 * row], &pair[from.stride..][..2 * row]);
            halve_rows(upper, lower, means, halved);
        }
    }
    (columns, rows)
}

/// [`halve`] of two rows, by way of the means of every pixel and the next, of which every second is
/// dropped: processors add up rows faster than neighbours.
#[multiversion(targets("x86_64+avx2"))]
fn halve_rows(upper: &[u8], lower: &[u8], means: &mut [u8], halved: &mut [u8]) {
    let here = upper.iter().zip(lower);
    let next = upper[3..].iter().zip(&lower[3..]);
    for ((mean, (a, b)), (c, d)) in means.iter_mut().zip(here).zip(next) {
        let [a, b, c, d] = [a, b, c, d].map(|value| u16::from(*value));
        *mean = ((a + b + c + d + 2) / 4) as u8;
    }
    let pairs = means.as_chunks::<6>().0;
    for (pixel, [red, green, blue, ..]) in halved.as_chunks_mut::<3>().0.iter_mut().zip(pairs) {
        *pixel = [*red, *green, *blue];
    }
}

/// Fills an aligned face by bilinear sampling; pixel centres are at whole coordinates.
#[multiversion(targets("x86_64+avx2"))]
pub(super) fn sample(from: &Pixels<'_>, to_source: &Similarity, out: &mut [f32]) {
    let (red, rest) = out.split_at_mut(ALIGNED_SIZE * ALIGNED_SIZE);
    let (green, blue) = rest.split_at_mut(ALIGNED_SIZE * ALIGNED_SIZE);
    let stride = from.stride;
    let (last_x, last_y) = (from.width as i32 - 1, from.height as i32 - 1);
    let rows = red
        .chunks_exact_mut(ALIGNED_SIZE)
        .zip(green.chunks_exact_mut(ALIGNED_SIZE))
        .zip(blue.chunks_exact_mut(ALIGNED_SIZE));
    // A fourth value beside red, green and blue fills the vector register; it is left behind.
    let mut blended = [[0.0; 4]; ALIGNED_SIZE];
    let columns: [f32; ALIGNED_SIZE] = std::array::from_fn(|column| column as f32);
    // Where a row's values come from, each thing by itself: so they are worked out side by side.
    let (mut left, mut top) = ([0; ALIGNED_SIZE], [0; ALIGNED_SIZE]);
    let (mut fx, mut fy) = ([0.0; ALIGNED_SIZE], [0.0; ALIGNED_SIZE]);
    for (row, ((red, green), blue)) in rows.enumerate() {
        for at in 0..ALIGNED_SIZE {
            let [x, y] = to_source.apply([columns[at], row as f32]);
            (left[at], fx[at]) = floor(x);
            (top[at], fy[at]) = floor(y);
        }
        for (at, blended) in blended.iter_mut().enumerate() {
            let (left, top, fx, fy) = (left[at], top[at], fx[at], fy[at]);
            let inside = left >= 0 && top >= 0 && left < last_x && top < last_y;
            let start = if inside {
                top as usize * stride + left as usize * 3
            } else {
                usize::MAX
            };
            let pair = |start: usize| from.rgb.get(start..)?.first_chunk::<7>();
            let corners = match (pair(start), pair(start.saturating_add(stride))) {
                (Some([a, b, c, d, e, f, g]), Some([h, i, j, k, l, m, n])) => {
                    [[a, b, c, d], [d, e, f, g], [h, i, j, k], [k, l, m, n]]
                        .map(|four| four.map(|value| f32::from(*value)))
                }
                _ => at_the_edge(from, left, top),
            };
            let [a, b, c, d] = corners;
            for (i, blended) in blended.iter_mut().enumerate() {
                let upper = a[i] + (b[i] - a[i]) * fx;
                let lower = c[i] + (d[i] - c[i]) * fx;
                *blended = upper + (lower - upper) * fy;
            }
        }
        for (((red, green), blue), [r, g, b, _]) in
            red.iter_mut().zip(green).zip(blue).zip(&blended)
        {
            (*red, *green, *blue) = (*r, *g, *b);
        }
    }
}

/// The four pixels to blend where some may lie outside the picture, or the bytes end behind them;
/// rarely needed.
#[cold]
fn at_the_edge(from: &Pixels<'_>, left: i32, top: i32) -> [[f32; 4]; 4] {
    [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(right, down)| {
        let [red, green, blue] = from.at(left + right, top + down);
        [red, green, blue, 0.0]
    })
}

/// Returns the whole number at or below `value`, and how far above it `value` is, 0 to 1; of what is
/// beyond four million, those of four million.
///
/// Beside so large a number no fraction fits, which rounds: in a few instructions that processors
/// do for several values at once, where the library's `floor` is a call on x86-64.
fn floor(value: f32) -> (i32, f32) {
    const LARGE: f32 = (3 << 22) as f32;
    let value = value.clamp(-4e6, 4e6);
    let sum = value + LARGE;
    let nearest = sum.to_bits() as i32 - LARGE.to_bits() as i32;
    let whole = nearest - i32::from(sum - LARGE > value);
    (whole, value - whole as f32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn floor_is_that_of_the_library(value in -4e6f32..4e6, near in -300i32..300) {
            for value in [value, value / 1e4, near as f32, near as f32 + 0.5, near as f32 - 1e-5] {
                let (whole, above) = floor(value);
                prop_assert_eq!(whole as f32, value.floor());
                prop_assert_eq!(above, value - value.floor());
            }
        }

        #[test]
        fn halving_takes_the_mean_of_four(
            (width, height) in (1u32..40, 1u32..9),
            (left, top) in (0u32..5, 0u32..3),
            bytes in prop::collection::vec(any::<u8>(), 43 * 10 * 3),
        ) {
            let photo = Photo { width: 43, height: 10, rgb: bytes };
            let part = Pixels::of(&photo).part(left, top, width, height).unwrap();
            let mut halved = vec![1; 4096];
            let (columns, rows) = halve(&part, &mut vec![2; 4096], &mut halved);
            prop_assert_eq!((columns, rows), (width / 2, height / 2));
            prop_assert_eq!(halved.len(), (columns * rows * 3) as usize);
            let halved = Pixels::packed(columns, rows, &halved);
            for (x, y) in (0..columns as i32).flat_map(|x| (0..rows as i32).map(move |y| (x, y))) {
                let four = [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(dx, dy)| part.at(2 * x + dx, 2 * y + dy));
                for channel in 0..3 {
                    let mean = four.iter().map(|pixel| pixel[channel]).sum::<f32>() / 4.0;
                    prop_assert!((halved.at(x, y)[channel] - mean).abs() <= 0.5);
                }
            }
        }
    }
}
