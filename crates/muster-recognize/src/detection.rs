//! A face as the detector gives it.

use crate::bounds::Bounds;

/// A face as the detector sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    /// The face's box, within the photograph.
    pub bounds: Bounds,
    /// Eyes, nose, corners of the mouth, left to right as seen in the picture; those of a face
    /// cut by the edge may lie outside the photograph.
    pub landmarks: [[f32; 2]; 5],
    /// The model's score, from the cutoff to 1.
    pub confidence: f32,
}
