//! Installed models: fetched once as pinned packages, verified by hash, never fetched while the
//! service runs.
//!
//! An installation is one folder, named after the hashes of its files, that appears whole or not at
//! all.

mod archive;
mod entry;
mod error;
mod fetch;
mod install;
mod manifest;
mod onnx;
mod own;
mod package;
mod prepare;
mod verify;

use std::env;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::embed::EmbedderModel;
use crate::recognizer::ModelFiles;

pub use entry::{Alignment, Calibration, ColourOrder, Detector, Embedder, Input, Placement};
pub use error::ModelError;
pub use install::{Installed, Progress, install};
pub use manifest::{DEFAULT_PROFILE, Manifest, Person, Profile, Samples};
pub use own::OWN_MANIFEST;
pub use package::{Build, BuildKind, Client, InstalledFile, Package, Preparation, Role, Target};
pub use prepare::{PrepareError, dequantise};
pub use verify::FileState;

/// The folder that the runtime's libraries are in.
const RUNTIME_LIBRARY: &str = "runtime/libopenvino_c.so";

/// Names the folder that models are installed in unless told otherwise: `$XDG_DATA_HOME/muster`,
/// else `~/.local/share/muster`; `None` without a home.
pub fn default_root() -> Option<PathBuf> {
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_DATA_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".local/share")))
        .map(|data| data.join("muster"))
}

/// An installation that is there, and the profile that is used of it.
///
/// What every profile needs is in one folder; what a profile needs besides is in one of its own.
#[derive(Debug, Clone)]
pub struct Installation {
    root: PathBuf,
    /// The folder of each of the manifest's parts.
    folders: Vec<(Option<String>, PathBuf)>,
    manifest: Manifest,
    profile: Profile,
    arch: String,
}

/// The sample photographs of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SamplePhotographs {
    /// People by name, each with at least one photograph, the clearest first.
    pub people: Vec<(String, Vec<PathBuf>)>,
    /// Several people in one picture, none of them among `people`.
    pub group: PathBuf,
}

/// A row of the list of what is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The model's name, or the package's.
    pub name: String,
    /// What it is for.
    pub role: Role,
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

impl Installation {
    /// Finds the installation in `root`, of exactly the manifest that is compiled in; it has the
    /// default profile.
    ///
    /// It looks at names and sizes only; [`Self::verify`] hashes.
    ///
    /// # Errors
    /// [`ModelError::NotInstalled`], or [`ModelError::Altered`] when a file is missing or has
    /// another size.
    pub fn open(root: &Path) -> Result<Self, ModelError> {
        Self::open_with(Manifest::embedded()?, root)
    }

    /// As [`Self::open`], of a manifest that an operator's own models were added to.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(manifest: Manifest, root: &Path) -> Result<Self, ModelError> {
        Self::open_of(manifest, root, env::consts::ARCH)
    }

    fn open_of(manifest: Manifest, root: &Path, arch: &str) -> Result<Self, ModelError> {
        let installation = Self::at(manifest, root, arch);
        if !installation.folder().is_dir() {
            return Err(ModelError::NotInstalled {
                root: root.to_owned(),
            });
        }
        installation.check_sizes(None)?;
        Ok(installation)
    }

    /// Uses another profile's models.
    ///
    /// # Errors
    /// [`ModelError::UnknownProfile`], [`ModelError::ProfileNotInstalled`], or
    /// [`ModelError::Altered`] when a file is missing or has another size.
    pub fn with_profile(mut self, name: &str) -> Result<Self, ModelError> {
        let profile = self.known_profile(name)?.clone();
        if self.manifest.parts().contains(&Some(name)) {
            if !self.part_folder(Some(name)).is_dir() {
                return Err(ModelError::ProfileNotInstalled {
                    profile: name.to_owned(),
                    root: self.root,
                });
            }
            self.check_sizes(Some(name))?;
        }
        self.profile = profile;
        Ok(self)
    }

    fn known_profile(&self, name: &str) -> Result<&Profile, ModelError> {
        let profiles = || self.manifest.profiles.iter();
        self.manifest
            .profile(name)
            .ok_or_else(|| ModelError::UnknownProfile {
                name: name.to_owned(),
                known: profiles().map(|profile| profile.name.clone()).collect(),
            })
    }

    fn check_sizes(&self, part: Option<&str>) -> Result<(), ModelError> {
        for (_, file) in self.manifest.part(part, &self.arch) {
            let path = self.part_folder(part).join(&file.to);
            let state = match path.metadata() {
                Ok(found) if found.len() == file.bytes => continue,
                Ok(_) => FileState::Altered,
                Err(_) => FileState::Missing,
            };
            return Err(ModelError::Altered {
                path,
                state,
                profile: part.map(str::to_owned),
            });
        }
        Ok(())
    }

    fn at(manifest: Manifest, root: &Path, arch: &str) -> Self {
        let folder = |part| {
            let layout = manifest.layout(part, arch);
            root.join(format!("{}{layout}", install::FOLDER_PREFIX))
        };
        let folders = manifest
            .parts()
            .into_iter()
            .map(|part| (part.map(str::to_owned), folder(part)))
            .collect();
        let profile = manifest
            .profile(DEFAULT_PROFILE)
            .expect("a parsed manifest has the default profile")
            .clone();
        Self {
            root: root.to_owned(),
            folders,
            manifest,
            profile,
            arch: arch.to_owned(),
        }
    }

    /// The names of the parts' folders.
    fn folder_names(&self) -> Vec<String> {
        let names = self.folders.iter().filter_map(|(_, path)| path.file_name());
        names
            .map(|name| name.to_string_lossy().into_owned())
            .collect()
    }

    /// The folder of a part: what every profile needs (`None`), or what that one needs besides.
    fn part_folder(&self, part: Option<&str>) -> &Path {
        let mut folders = self.folders.iter();
        let found = folders.find(|(of, _)| of.as_deref() == part);
        &found.expect("every part has a folder").1
    }

    /// The manifest that it was installed by.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The folder that holds what every profile needs.
    pub fn folder(&self) -> &Path {
        self.part_folder(None)
    }

    /// The profile that is used.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The folder for the models as the runtime has compiled them for this processor; it holds
    /// nothing that can not be made again, and is not verified.
    pub fn compiled(&self) -> PathBuf {
        self.path("compiled")
    }

    /// The inference runtime's C library; what it needs stands beside it.
    pub fn runtime_library(&self) -> PathBuf {
        self.path(RUNTIME_LIBRARY)
    }

    /// The profile's face detector.
    pub fn detector(&self) -> &Detector {
        self.manifest
            .detector(&self.profile)
            .expect("a parsed manifest has the profile's detector")
    }

    /// The profile's face embedder.
    pub fn embedder(&self) -> &Embedder {
        self.manifest
            .embedder(&self.profile)
            .expect("a parsed manifest has the profile's embedder")
    }

    /// An embedder of any profile, whose file has been hashed.
    ///
    /// # Errors
    /// [`ModelError::UnknownEmbedder`], [`ModelError::ProfileNotInstalled`], or that its file is not
    /// what it should be.
    pub fn other_embedder(&self, name: &str) -> Result<EmbedderModel, ModelError> {
        let profiles = self.manifest.profiles.iter();
        let profile = profiles
            .clone()
            .find(|profile| profile.embedder == name)
            .ok_or_else(|| ModelError::UnknownEmbedder {
                name: name.to_owned(),
            })?;
        let installation = self.clone().with_profile(&profile.name)?;
        installation.verify_models()?;
        Ok(installation.model_files().embedder)
    }

    /// The file of the profile's face detector.
    pub fn detector_file(&self) -> PathBuf {
        self.path(&self.detector().file)
    }

    /// The file of the profile's face embedder.
    pub fn embedder_file(&self) -> PathBuf {
        self.path(&self.embedder().file)
    }

    /// Names the files that a recognizer loads.
    pub fn model_files(&self) -> ModelFiles {
        ModelFiles {
            runtime_library: self.runtime_library(),
            detector: self.detector_file(),
            embedder: EmbedderModel::of(self.embedder(), self.embedder_file()),
        }
    }

    /// The sample photographs.
    pub fn samples(&self) -> SamplePhotographs {
        let paths = |files: &[String]| files.iter().map(|file| self.path(file)).collect();
        let people = &self.manifest.people;
        SamplePhotographs {
            people: people
                .iter()
                .map(|person| (person.name.clone(), paths(&person.photographs)))
                .collect(),
            group: self.path(&self.manifest.samples.group),
        }
    }

    /// Hashes every installed file, those of profiles that are not used as well.
    ///
    /// # Errors
    /// [`ModelError::Altered`] for the first file that is not what was installed.
    pub fn verify(&self) -> Result<(), ModelError> {
        self.verify_where(|package, _| {
            package.profile.is_none() || self.part_folder(package.profile.as_deref()).is_dir()
        })?;
        self.verify_own(self.embedder())
    }

    /// Hashes the files of the profile's detector and embedder only.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn verify_models(&self) -> Result<(), ModelError> {
        let models = self.manifest.model_files(&self.profile);
        self.verify_where(|_, file| models.contains(&file.to.as_str()))?;
        self.verify_own(self.embedder())
    }

    /// Hashes the file of an operator's own embedder.
    fn verify_own(&self, embedder: &Embedder) -> Result<(), ModelError> {
        match own_state(embedder) {
            None | Some(FileState::Intact) => Ok(()),
            Some(state) => Err(ModelError::OwnModel {
                name: embedder.name.clone(),
                path: PathBuf::from(&embedder.file),
                state,
            }),
        }
    }

    fn verify_part(&self, part: Option<&str>) -> Result<(), ModelError> {
        self.verify_where(|package, _| package.profile.as_deref() == part)
    }

    fn verify_where(
        &self,
        wanted: impl Fn(&Package, &InstalledFile) -> bool,
    ) -> Result<(), ModelError> {
        let wanted: Vec<(&Package, &InstalledFile)> = self
            .manifest
            .files(&self.arch)
            .filter(|(package, file)| wanted(package, file))
            .collect();
        let files: Vec<(PathBuf, &str)> = wanted
            .iter()
            .map(|(_, file)| (self.path(&file.to), file.sha256.as_str()))
            .collect();
        let states = verify::states(&files).into_iter();
        match states
            .zip(files.iter().zip(&wanted))
            .find(|(state, _)| *state != FileState::Intact)
        {
            Some((state, ((path, _), (package, _)))) => Err(ModelError::Altered {
                path: path.clone(),
                state,
                profile: package.profile.clone(),
            }),
            None => Ok(()),
        }
    }

    fn path(&self, file: &str) -> PathBuf {
        let mut files = self.manifest.files(&self.arch);
        let package = files.find(|(_, known)| known.to == file);
        let part = package.and_then(|(package, _)| package.profile.as_deref());
        self.part_folder(part).join(file)
    }
}

/// What became of the file of an operator's own embedder; `None` for one that is installed.
fn own_state(embedder: &Embedder) -> Option<FileState> {
    let hash = embedder.sha256.as_deref()?;
    Some(verify::state(Path::new(&embedder.file), hash))
}

/// Lists what belongs in `root`, and an operator's own models, and hashes what is there of it,
/// installed or not.
#[must_use]
pub fn list(manifest: Manifest, root: &Path) -> Vec<Listed> {
    list_of(&Installation::at(manifest, root, env::consts::ARCH))
}

fn list_of(installation: &Installation) -> Vec<Listed> {
    let manifest = &installation.manifest;
    let files: Vec<(&Package, &InstalledFile)> = manifest.files(&installation.arch).collect();
    let hashes: Vec<_> = files
        .iter()
        .map(|(_, file)| (installation.path(&file.to), file.sha256.as_str()))
        .collect();
    let states = verify::states(&hashes);

    let detectors = manifest
        .detectors
        .iter()
        .map(|model| (&model.name, Role::Detector, &model.licence, &model.file));
    let embedders = manifest
        .embedders
        .iter()
        .map(|model| (&model.name, Role::Embedder, &model.licence, &model.file));
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
            role: Role::Embedder,
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
