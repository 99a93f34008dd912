//! The files that a recognizer loads.

use std::path::PathBuf;

use super::entry::{EmbedderEntry, Input, Placement};

/// Where the runtime and the models are.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFiles {
    /// OpenVINO's `libopenvino_c.so`, its sibling libraries beside it.
    pub runtime_library: PathBuf,
    /// YuNet, as ONNX.
    pub detector: PathBuf,
    /// RetinaFace, as ONNX.
    pub second_detector: PathBuf,
    /// The embedding model.
    pub embedder: EmbedderModel,
}

/// An embedding model's file, and what its manifest says of it.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbedderModel {
    /// Its name: embeddings are kept under it.
    pub name: String,
    /// The ONNX file.
    pub file: PathBuf,
    /// What it is fed.
    pub input: Input,
    /// How a face is cut out for it.
    pub placement: Placement,
    /// Numbers of an embedding.
    pub dimensions: usize,
    /// How long an embedding of a good face is before it is scaled to one, where that is known.
    pub embedding_length: Option<f32>,
}

impl EmbedderModel {
    /// The model of a manifest's entry, in that file.
    #[must_use]
    pub fn of(entry: &EmbedderEntry, file: PathBuf) -> Self {
        Self {
            name: entry.name.clone(),
            file,
            input: entry.input.clone(),
            placement: entry.placement(),
            dimensions: entry.dimensions,
            embedding_length: (entry.calibration.as_ref()).and_then(|known| known.embedding_length),
        }
    }
}
