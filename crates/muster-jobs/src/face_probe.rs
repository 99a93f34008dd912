//! A face as it is looked for in a gallery.

use crate::embedding::Embedding;
use crate::quality::Quality;
use crate::reply::FaceBox;

/// A face of a photograph: where it is, how fit it is, and who it looks like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FaceProbe<'a> {
    /// Where the face is.
    pub bounds: FaceBox,
    /// Right eye, left eye, nose tip, right and left mouth corner (the person's right), in pixels.
    pub landmarks: [[f32; 2]; 5],
    /// The detector's score, 0 to 1.
    pub confidence: f32,
    /// How far the photograph has to be turned clockwise for the face to be upright, about: 0, 90, 180
    /// or 270 degrees.
    pub turned_deg: u16,
    /// How fit it is to be compared.
    pub quality: Quality,
    /// Who it looks like, to the gallery's model.
    pub embedding: &'a Embedding,
}
