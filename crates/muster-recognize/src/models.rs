//! Installed models: fetched once as pinned packages, verified by hash, never fetched while the
//! service runs.
//!
//! An installation is one folder, named after the hashes of its files, that appears whole or not at
//! all.

mod archive;
mod entry;
mod error;
mod fetch;
mod files;
mod install;
mod installation;
mod listing;
mod literal;
mod manifest;
mod onnx;
mod own;
mod package;
mod prepare;
mod quantise;
mod verify;

pub use entry::{
    Alignment, CalibrationEntry, ColourOrder, DetectorEntry, EmbedderEntry, Input, Placement,
};
pub use error::ModelError;
pub use files::{EmbedderModel, ModelFiles};
pub use install::{Installed, Progress, install};
pub use installation::{Installation, SamplePhotographs, default_root};
pub use listing::{Listed, list};
pub use manifest::{DEFAULT_PROFILE, Manifest, Profile, SamplePerson, Samples};
pub use own::OWN_MANIFEST;
pub use package::{
    Build, BuildKind, Client, InstalledFile, Package, PackageRole, Preparation, Target,
};
pub use prepare::{PrepareError, dequantise};
pub use verify::FileState;
