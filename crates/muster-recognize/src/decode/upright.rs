//! Turning pixels the way EXIF says.

use image::metadata::Orientation;

use super::photo::Photo;

/// Pixels on a side of the squares in which a quarter turn is done, so that source and target stay
/// in the cache.
const TILE: usize = 32;

/// Applies an orientation; without one the pixels are handed on untouched.
pub(super) fn turn(mut photo: Photo, orientation: Orientation) -> Photo {
    match orientation {
        Orientation::NoTransforms => photo,
        Orientation::FlipHorizontal => {
            for row in photo.rgb.chunks_exact_mut(photo.width as usize * 3) {
                row.as_chunks_mut::<3>().0.reverse();
            }
            photo
        }
        Orientation::Rotate180 => {
            photo.rgb.as_chunks_mut::<3>().0.reverse();
            photo
        }
        Orientation::FlipVertical => {
            photo.rgb.as_chunks_mut::<3>().0.reverse();
            turn(photo, Orientation::FlipHorizontal)
        }
        Orientation::Rotate90 => quarter(&photo, false, true),
        Orientation::Rotate270 => quarter(&photo, true, false),
        Orientation::Rotate90FlipH => quarter(&photo, false, false),
        Orientation::Rotate270FlipH => quarter(&photo, true, true),
    }
}

/// Swaps rows and columns, then mirrors the source's columns and rows as asked.
fn quarter(photo: &Photo, mirror_x: bool, mirror_y: bool) -> Photo {
    let (width, height) = (photo.width as usize, photo.height as usize);
    let source = photo.rgb.as_chunks::<3>().0;
    let mut rgb = vec![0; photo.rgb.len()];
    let target = rgb.as_chunks_mut::<3>().0;
    for top in (0..width).step_by(TILE) {
        for left in (0..height).step_by(TILE) {
            for y in top..width.min(top + TILE) {
                let from_x = if mirror_x { width - 1 - y } else { y };
                for x in left..height.min(left + TILE) {
                    let from_y = if mirror_y { height - 1 - x } else { x };
                    target[y * height + x] = source[from_y * width + from_x];
                }
            }
        }
    }
    Photo {
        width: photo.height,
        height: photo.width,
        rgb,
    }
}
