//! How fit a face is to be recognised.

use serde::{Deserialize, Serialize};

/// What was measured of a face.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quality {
    /// The shorter side of the face's box, in pixels of the upright photograph.
    pub face_px: f32,
    /// How much detail the aligned face has, against its contrast.
    pub sharpness: f32,
    /// Mean luma of the face, 0 to 255.
    pub brightness: f32,
    /// How far the head is turned away: 0 frontal, 1 in profile.
    pub turn: f32,
}
