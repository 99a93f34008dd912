//! Where the models are, and which of them run.

use std::path::PathBuf;

use anyhow::Context;
use muster_recognize::models::{
    DEFAULT_PROFILE, Installation, Manifest, OWN_MANIFEST, default_root,
};
use serde::{Deserialize, Serialize};

/// The models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelSettings {
    /// Where `muster models install` put the models; its own default when unset.
    #[serde(rename = "models_dir")]
    pub dir: Option<PathBuf>,
    /// A manifest of the operator's own models; `models.toml` in the folder of the models, where
    /// there is one, when unset.
    #[serde(rename = "models_manifest")]
    pub own_manifest: Option<PathBuf>,
    /// Which of the manifest's profiles runs: the detector and the embedder. Each of the operator's
    /// own embedders is one.
    pub profile: String,
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            dir: None,
            own_manifest: None,
            profile: DEFAULT_PROFILE.to_owned(),
        }
    }
}

impl ModelSettings {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            !self.profile.is_empty(),
            "profile is empty: `muster models list` shows which there are"
        );
        Ok(())
    }

    /// Where the models are.
    ///
    /// # Errors
    /// When no folder is set and there is no home to put them in.
    pub fn dir(&self) -> anyhow::Result<PathBuf> {
        let dir = self.dir.clone().or_else(default_root);
        dir.context("there is no home folder for the models: set models_dir, or MUSTER_MODELS_DIR")
    }

    /// Opens the installed models with the profile that is set.
    ///
    /// # Errors
    /// When they are not installed, or there is no such profile.
    pub fn installation(&self) -> anyhow::Result<Installation> {
        let installation = Installation::open_with(self.manifest()?, &self.dir()?)?;
        Ok(installation.with_profile(&self.profile)?)
    }

    /// Reads the models' manifest, and the operator's own where there is one.
    ///
    /// # Errors
    /// When the operator's is wrong.
    pub fn manifest(&self) -> anyhow::Result<Manifest> {
        let shipped = Manifest::embedded()?;
        let own = match &self.own_manifest {
            Some(path) => Some(path.clone()),
            // A web tier on its own needs no folder for models.
            None => self.dir().ok().map(|root| root.join(OWN_MANIFEST)),
        };
        Ok(match own {
            Some(path) if self.own_manifest.is_some() || path.is_file() => {
                shipped.with_own(&path)?
            }
            _ => shipped,
        })
    }
}
