//! Filling a detector's input with a view of a photograph.

use multiversion::multiversion;

use crate::turn::Turn;
use crate::views::View;

/// Fills an input tensor `[1, 3, side, side]`, planar BGR 0-255, with a view's interleaved RGB
/// pixels, turned as the view is; the rest is black.
pub(crate) fn place(pixels: &[u8], view: &View, input: &mut [f32]) {
    if view.turn == Turn::None {
        place_upright(pixels, view, input);
    } else {
        place_turned(pixels, view, input);
    }
}

fn place_turned(pixels: &[u8], view: &View, input: &mut [f32]) {
    let side = view.side as usize;
    let (left, top, columns) = (view.left as usize, view.top as usize, view.width as usize);
    input.fill(0.0);
    let (blue, rest) = input.split_at_mut(side * side);
    let (green, red) = rest.split_at_mut(side * side);
    for (row, pixels) in pixels.chunks_exact(columns * 3).enumerate() {
        for (column, pixel) in pixels.as_chunks::<3>().0.iter().enumerate() {
            let [x, y] = view.turn.pixel([left + column, top + row], [side, side]);
            let at = y * side + x;
            [red[at], green[at], blue[at]] = pixel.map(f32::from);
        }
    }
}

fn place_upright(pixels: &[u8], view: &View, input: &mut [f32]) {
    let side = view.side as usize;
    let (left, top) = (view.left as usize, view.top as usize);
    let (columns, rows) = (view.width as usize, view.height as usize);
    let (blue, rest) = input.split_at_mut(side * side);
    let (green, red) = rest.split_at_mut(side * side);
    let mut planes = [blue, green, red].map(|plane| {
        let (above, rest) = plane.split_at_mut(top * side);
        let (within, below) = rest.split_at_mut(rows * side);
        above.fill(0.0);
        below.fill(0.0);
        within.chunks_exact_mut(side)
    });
    for pixels in pixels.chunks_exact(columns * 3) {
        let pixels = pixels.as_chunks::<3>().0;
        let [Some(blue), Some(green), Some(red)] = planes.each_mut().map(|rows| {
            let (before, rest) = rows.next()?.split_at_mut(left);
            let (row, after) = rest.split_at_mut(columns);
            before.fill(0.0);
            after.fill(0.0);
            Some(row)
        }) else {
            return;
        };
        spread(pixels, [blue, green, red]);
    }
}

/// Copies the channels of a row of pixels into their planes.
#[multiversion(targets("x86_64+avx2"))]
fn spread(pixels: &[[u8; 3]], [blue, green, red]: [&mut [f32]; 3]) {
    channel::<2>(pixels, blue);
    channel::<1>(pixels, green);
    channel::<0>(pixels, red);
}

#[inline(always)]
fn channel<const CHANNEL: usize>(pixels: &[[u8; 3]], plane: &mut [f32]) {
    for (value, pixel) in plane.iter_mut().zip(pixels) {
        *value = f32::from(pixel[CHANNEL]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_placed_as_planes_with_black_around() {
        let mut view = View::whole(2, 1, 4, 1.0);
        (view.left, view.top, view.width, view.height) = (1, 1, 2, 1);
        let mut input = vec![f32::NAN; 3 * 16];
        place(&[1, 2, 3, 4, 5, 6], &view, &mut input);
        assert_eq!(input[4..8], [0.0, 3.0, 6.0, 0.0]);
        assert_eq!(input[16 + 4..16 + 8], [0.0, 2.0, 5.0, 0.0]);
        assert_eq!(input[32 + 4..32 + 8], [0.0, 1.0, 4.0, 0.0]);
        assert_eq!(input.iter().sum::<f32>(), 21.0);

        // A quarter clockwise: the row becomes a column, its left end on top.
        input.fill(f32::NAN);
        place(&[1, 2, 3, 4, 5, 6], &view.turned(Turn::Right), &mut input);
        assert_eq!([input[6], input[10]], [3.0, 6.0]);
        assert_eq!([input[32 + 6], input[32 + 10]], [1.0, 4.0]);
        assert_eq!(input.iter().sum::<f32>(), 21.0);
    }
}
