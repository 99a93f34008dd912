//! What a photograph shows, and what it took to see it.

use std::ops::AddAssign;
use std::time::Duration;

use muster_jobs::{Embedding, FaceBox, FaceProbe, Quality, Repair};

use crate::bounds::Bounds;
use crate::turn::Turn;

/// How long each stage took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// Bytes to pixels; zero for a photograph that came decoded.
    pub decode: Duration,
    /// Finding the faces, every look together.
    pub detect: Duration,
    /// Aligning and measuring the quality, all faces together.
    pub align: Duration,
    /// Embedding, all faces together.
    pub embed: Duration,
}

impl StageTimes {
    /// Returns the sum of the stages.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.decode + self.detect + self.align + self.embed
    }
}

impl AddAssign for StageTimes {
    fn add_assign(&mut self, more: Self) {
        self.decode += more.decode;
        self.detect += more.detect;
        self.align += more.align;
        self.embed += more.embed;
    }
}

/// A face found in a photograph.
#[derive(Debug, Clone, PartialEq)]
pub struct Face {
    /// The face's box, within the photograph.
    pub bounds: Bounds,
    /// Eyes, nose, corners of the mouth, left to right as seen in the picture once it is turned;
    /// those of a face cut by the edge may lie outside the photograph.
    pub landmarks: [[f32; 2]; 5],
    /// The detector's score, from the cutoff to 1.
    pub confidence: f32,
    /// How the photograph has to be turned for the face to be upright, about.
    pub turn: Turn,
    /// How fit it is to be compared.
    pub quality: Quality,
    /// Who it looks like, to the first of the models that were asked.
    pub embedding: Embedding,
    /// Who it looks like to the other models, in the order in which they were named.
    pub others: Vec<Embedding>,
}

impl<'a> From<&'a Face> for FaceProbe<'a> {
    fn from(face: &'a Face) -> Self {
        Self {
            bounds: FaceBox::from(&face.bounds),
            landmarks: face.landmarks,
            confidence: face.confidence,
            turned_deg: face.turn.degrees(),
            quality: face.quality,
            embedding: &face.embedding,
        }
    }
}

/// What a photograph shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Analysis {
    /// The upright photograph's width in pixels.
    pub width: u32,
    /// The upright photograph's height in pixels.
    pub height: u32,
    /// Which picture of an animation the faces are in, counted from 0.
    pub frame: u32,
    /// What was wrong with the file and was put right.
    pub repaired: Vec<Repair>,
    /// The faces, largest first; empty when there is none.
    pub faces: Vec<Face>,
    /// How the photograph has to be turned to stand upright, by its faces.
    pub turn: Turn,
    /// How long each stage took.
    pub timing: StageTimes,
    /// The detector's input size, width and height, for each of its runs.
    pub detector_runs: Vec<(u32, u32)>,
    /// The side of the second detector's input for each of its runs: none where the first was sure.
    pub second_looks: Vec<u32>,
    /// Faces that were embedded to be seen as something else in the end.
    pub embedded_in_vain: usize,
}
