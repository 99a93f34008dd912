//! A model's entry in the manifest: all that the service must know of it.

use muster_jobs::{ShippedCalibration, ShippedImpostors};
use serde::Deserialize;

use crate::align::ALIGNED_SIZE;

/// What a box is widened by where nothing is said, of 160 pixels: facenet-pytorch's margin.
const BOX_MARGIN: u32 = 32;

/// A model that finds faces.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectorEntry {
    /// Short name.
    pub name: String,
    /// What it is, for people.
    pub title: String,
    /// SPDX licence expression of the model.
    pub licence: String,
    /// The installed file.
    pub file: String,
    /// What it is fed.
    pub input: Input,
}

/// A model that turns a face into numbers that are close for the same person.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbedderEntry {
    /// Short name; embeddings are kept under it.
    pub name: String,
    /// What it is, for people.
    pub title: String,
    /// SPDX licence expression of the model.
    pub licence: String,
    /// The installed file; of an operator's own model a path.
    pub file: String,
    /// Hash of an operator's own file, lower-case hexadecimal. That of an installed file stands with
    /// its package.
    pub sha256: Option<String>,
    /// How a face is cut out for it.
    pub alignment: Alignment,
    /// What a box is widened by, of the input's side: only where `alignment` is `box`.
    pub margin: Option<u32>,
    /// What it is fed.
    pub input: Input,
    /// Numbers of an embedding.
    pub dimensions: usize,
    /// Cosine similarity from which two faces count as one person.
    pub cutoff: f32,
    /// How alike different people are by this model.
    pub calibration: Option<CalibrationEntry>,
}

/// How alike the faces of different people are by a model: what a cutoff rests on until a gallery's
/// own faces tell.
///
/// Similarities are cosines, of one photograph to one other.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationEntry {
    /// Their mean.
    pub impostor_mean: f32,
    /// Their standard deviation.
    pub impostor_std: f32,
    /// Mean length of the embeddings of their faces, before they are scaled to one, where it was measured:
    /// what the strength of a face is a share of.
    pub embedding_length: Option<f32>,
    /// How many people were compared: the weight that the two figures have beside a gallery's own.
    pub people: u32,
    /// Where the two figures come from.
    pub source: String,
}

impl CalibrationEntry {
    /// Tells what is wrong with it.
    fn check(&self) -> Result<(), &'static str> {
        if !(-1.0..=1.0).contains(&self.impostor_mean) {
            return Err("the mean of cosines is between -1 and 1");
        }
        if !(self.impostor_std > 0.0 && self.impostor_std <= 1.0) {
            return Err("the standard deviation is above 0 and at most 1");
        }
        if self
            .embedding_length
            .is_some_and(|length| length.is_nan() || length <= 0.0)
        {
            return Err("the length of embeddings is above 0");
        }
        if self.source.trim().is_empty() {
            return Err("its source is not said");
        }
        Ok(())
    }
}

/// How a face is cut out for an embedder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Alignment {
    /// Turned upright by its five landmarks, 112 x 112: the ArcFace family.
    FivePoint,
    /// The detector's box with a margin, stretched to the input's size: the FaceNet family.
    Box,
}

/// The place of a face in an embedder's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// As [`Alignment::FivePoint`].
    FivePoint,
    /// As [`Alignment::Box`], widened by so many pixels of the input's side.
    Box {
        /// Both sides' together.
        margin: u32,
    },
}

impl From<&EmbedderEntry> for ShippedCalibration {
    fn from(embedder: &EmbedderEntry) -> Self {
        let calibration = embedder.calibration.as_ref();
        Self {
            cutoff: embedder.cutoff,
            impostors: calibration.map(|shipped| ShippedImpostors {
                mean: shipped.impostor_mean,
                deviation: shipped.impostor_std,
                people: shipped.people,
            }),
        }
    }
}

impl EmbedderEntry {
    /// How a face is placed in its input.
    #[must_use]
    pub fn placement(&self) -> Placement {
        match self.alignment {
            Alignment::FivePoint => Placement::FivePoint,
            Alignment::Box => Placement::Box {
                margin: self.margin.unwrap_or(BOX_MARGIN),
            },
        }
    }

    /// Tells what is wrong with it.
    pub(super) fn check(&self) -> Result<(), String> {
        let wrong = |reason: &str| Err(format!("the embedder {}: {reason}", self.name));
        let usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(usual) {
            return Err(format!(
                "the embedder's name {:?} is not of 1 to 64 letters, digits, `-`, `_` and `.`",
                self.name
            ));
        }
        if self.licence.trim().is_empty() {
            return wrong("its licence is not said");
        }
        if let Err(reason) = self.input.check() {
            return wrong(reason);
        }
        let Input { width, height, .. } = self.input;
        match (self.alignment, self.margin) {
            (Alignment::FivePoint, Some(_)) => {
                return wrong("`margin` belongs to `alignment = \"box\"`");
            }
            (Alignment::FivePoint, None) if [width, height] != [ALIGNED_SIZE as u32; 2] => {
                return wrong("a `five-point` input is 112 x 112");
            }
            (Alignment::Box, Some(margin)) if margin >= width.min(height) => {
                return wrong("its margin leaves nothing of the face");
            }
            _ => {}
        }
        if self.dimensions < 2 || self.dimensions > 8192 {
            return wrong("`dimensions` is between 2 and 8192");
        }
        if !(self.cutoff > 0.0 && self.cutoff < 1.0) {
            return wrong("`cutoff` is a cosine between 0 and 1");
        }
        match self.calibration.as_ref().map(CalibrationEntry::check) {
            Some(Err(reason)) => wrong(&format!("its calibration: {reason}")),
            _ => Ok(()),
        }
    }
}

/// The tensor a model is fed: `[1, 3, height, width]`, each sample `(value - mean) * scale` of a
/// colour 0-255.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The graph input's name.
    pub name: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Order of the three planes.
    pub colour_order: ColourOrder,
    /// Subtracted first.
    pub mean: f32,
    /// Multiplied then.
    pub scale: f32,
}

impl Input {
    /// Tells what is wrong with it.
    fn check(&self) -> Result<(), &'static str> {
        if self.name.is_empty() {
            return Err("its input has no name");
        }
        if ![self.width, self.height]
            .iter()
            .all(|side| (16..=1024).contains(side))
        {
            return Err("its input is 16 to 1024 pixels wide and high");
        }
        if !self.mean.is_finite() || !self.scale.is_normal() {
            return Err("the mean and the scale of its input are numbers, and the scale is not 0");
        }
        Ok(())
    }

    /// Whether this is what the detection code feeds, whichever of the two detectors it is.
    pub(super) fn is_a_detectors(&self) -> bool {
        (self.name.as_str(), self.width, self.height) == ("input", 320, 320)
            && self.colour_order == ColourOrder::Bgr
            && (self.mean, self.scale) == (0.0, 1.0)
    }
}

/// Order of the colour planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColourOrder {
    /// Red first.
    Rgb,
    /// Blue first.
    Bgr,
}
