//! An operator's own embedders: a manifest beside the one that is compiled in.
//!
//! Each entry is a profile of its own name, with the detectors of the default one.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::entry::{CalibrationEntry, EmbedderEntry};
use super::error::ModelError;
use super::manifest::{DEFAULT_PROFILE, Manifest, Profile, SCHEMA, is_sha256};

/// The name of the manifest in the folder of the models.
pub const OWN_MANIFEST: &str = "models.toml";

/// What a normal distribution exceeds once in a thousand times, in standard deviations.
const ONE_IN_A_THOUSAND: f32 = 3.09;

/// People that a calibration counts as which nobody measured: as many as those of the shipped ones.
const SUPPOSED_PEOPLE: u32 = 8;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnManifest {
    schema: u32,
    #[serde(rename = "embedder", default)]
    embedders: Vec<EmbedderEntry>,
}

impl Manifest {
    /// Adds the embedders of an operator's manifest, whose files are looked for beside it.
    ///
    /// An entry without a calibration gets a cautious one: its cutoff is taken for what only one
    /// comparison of different people in a thousand exceeds, about a mean of 0.
    ///
    /// # Errors
    /// [`ModelError::OwnManifest`] with what is wrong with it.
    pub fn with_own(mut self, path: &Path) -> Result<Self, ModelError> {
        let wrong = |reason: String| ModelError::OwnManifest {
            path: path.to_owned(),
            reason,
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| wrong(format!("it can not be read ({error})")))?;
        let own: OwnManifest = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if own.schema != SCHEMA {
            return Err(wrong(format!("schema {} is not {SCHEMA}", own.schema)));
        }
        let folder = std::path::absolute(path)
            .ok()
            .and_then(|path| path.parent().map(PathBuf::from))
            .unwrap_or_default();
        for mut embedder in own.embedders {
            embedder.check().map_err(wrong)?;
            let name = &embedder.name;
            if self.embedder_named(name).is_some() || self.profile(name).is_some() {
                return Err(wrong(format!(
                    "the name {name} is taken: call the embedder otherwise"
                )));
            }
            match embedder.sha256.as_deref() {
                Some(hash) if is_sha256(hash) => {}
                Some(_) => {
                    return Err(wrong(format!(
                        "the sha256 of {name} is not 64 lower-case hexadecimal digits"
                    )));
                }
                None => {
                    return Err(wrong(format!(
                        "the embedder {name} has no sha256: state what `sha256sum {}` says",
                        embedder.file
                    )));
                }
            }
            embedder.file = folder.join(&embedder.file).to_string_lossy().into_owned();
            let cutoff = embedder.cutoff;
            embedder
                .calibration
                .get_or_insert_with(|| CalibrationEntry {
                    impostor_mean: 0.0,
                    impostor_std: cutoff / ONE_IN_A_THOUSAND,
                    embedding_length: None,
                    people: SUPPOSED_PEOPLE,
                    source: "supposed, from the cutoff".to_owned(),
                });
            let default = self.profile(DEFAULT_PROFILE);
            let profile = Profile {
                name: name.clone(),
                detector: default.map(|p| p.detector.clone()).unwrap_or_default(),
                second_detector: default
                    .map(|p| p.second_detector.clone())
                    .unwrap_or_default(),
                embedder: name.clone(),
            };
            self.profiles.push(profile);
            self.embedders.push(embedder);
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
