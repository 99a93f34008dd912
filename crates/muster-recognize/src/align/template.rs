//! What an aligned face looks like.

use crate::bounds::Bounds;

/// Width and height of an aligned face, in pixels.
pub const ALIGNED_SIZE: usize = 112;

/// Where the eyes, the nose and the corners of the mouth of an aligned face are, left to right
/// as seen in the picture: the template the ArcFace family, SFace among them, was trained on.
pub const TEMPLATE: [[f32; 2]; 5] = [
    [38.2946, 51.6963],
    [73.5318, 51.5014],
    [56.0252, 71.7366],
    [41.5493, 92.3655],
    [70.7299, 92.2041],
];

/// The face's box in an aligned face, by which a face without usable landmarks is placed.
pub(super) const TEMPLATE_BOUNDS: Bounds = Bounds {
    x: 14.0,
    y: 6.0,
    width: 84.0,
    height: 106.0,
};
