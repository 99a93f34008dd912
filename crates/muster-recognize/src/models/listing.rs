//! The list of what is installed.

use std::env;
use std::path::Path;

use serde::Serialize;

use super::installation::{Installation, own_state};
use super::manifest::Manifest;
use super::package::{InstalledFile, Package, PackageRole};
use super::verify::{self, FileState};

/// A row of the list of what is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The model's name, or the package's.
    pub name: String,
    /// What it is for.
    pub role: PackageRole,
    /// The one profile that needs it; absent where every installation has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Name and version of the package that it comes from; of an operator's own model the file.
    pub package: String,
    /// SPDX licence expression.
    pub licence: String,
    /// Size of its files.
    pub bytes: u64,
    /// The worst state of its files.
    pub state: FileState,
}

/// Lists what belongs in `root`, and an operator's own models, and hashes what is there of it,
/// installed or not.
#[must_use]
pub fn list(manifest: Manifest, root: &Path) -> Vec<Listed> {
    list_of(&Installation::at(manifest, root, env::consts::ARCH))
}

pub(super) fn list_of(installation: &Installation) -> Vec<Listed> {
    let manifest = &installation.manifest;
    let files: Vec<(&Package, &InstalledFile)> = manifest.files(&installation.arch).collect();
    let hashes: Vec<_> = files
        .iter()
        .map(|(_, file)| (installation.path(&file.to), file.sha256.as_str()))
        .collect();
    let states = verify::states(&hashes);

    let detectors = manifest.detectors.iter().map(|model| {
        (
            &model.name,
            PackageRole::Detector,
            &model.licence,
            &model.file,
        )
    });
    let embedders = manifest.embedders.iter().map(|model| {
        (
            &model.name,
            PackageRole::Embedder,
            &model.licence,
            &model.file,
        )
    });
    let models: Vec<_> = detectors.chain(embedders).collect();
    let mut rows: Vec<Listed> = Vec::new();
    for ((package, file), state) in files.into_iter().zip(states) {
        let model = models.iter().find(|(.., path)| **path == file.to);
        let (name, role, licence) = model.map_or(
            (&package.name, package.role, &package.licence),
            |&(name, role, licence, _)| (name, role, licence),
        );
        let at = rows
            .iter()
            .position(|row| row.name == *name && row.role == role)
            .unwrap_or_else(|| {
                rows.push(Listed {
                    name: name.clone(),
                    role,
                    profile: package.profile.clone(),
                    package: package.to_string(),
                    licence: licence.clone(),
                    bytes: 0,
                    state: FileState::Intact,
                });
                rows.len() - 1
            });
        rows[at].bytes += file.bytes;
        rows[at].state = match (rows[at].state, state) {
            _ if !installation
                .part_folder(package.profile.as_deref())
                .is_dir() =>
            {
                FileState::NotInstalled
            }
            (FileState::Missing, _) | (_, FileState::Missing) => FileState::Missing,
            (FileState::Altered, _) | (_, FileState::Altered) => FileState::Altered,
            _ => FileState::Intact,
        };
    }
    for embedder in &manifest.embedders {
        let Some(state) = own_state(embedder) else {
            continue;
        };
        rows.push(Listed {
            name: embedder.name.clone(),
            role: PackageRole::Embedder,
            profile: Some(embedder.name.clone()),
            package: embedder.file.clone(),
            licence: embedder.licence.clone(),
            bytes: Path::new(&embedder.file)
                .metadata()
                .map_or(0, |file| file.len()),
            state,
        });
    }
    rows
}
