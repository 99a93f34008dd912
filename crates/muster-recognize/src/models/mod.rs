//! Installed models: fetched once as pinned packages, verified by hash, never fetched while the
//! service runs.
//!
//! An installation is one folder, named after the hashes of its files, that appears whole or not at
//! all.

mod archive;
mod fetch;
mod install;
mod manifest;
mod onnx;
mod prepare;
mod verify;

use std::env;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::recognizer::ModelFiles;

pub use install::{Installed, Progress, install};
pub use manifest::{
    Build, BuildKind, Calibration, Client, ColourOrder, Detector, Embedder, Input, InstalledFile,
    Manifest, Package, Person, Preparation, Profile, Role, Samples, Target,
};
pub use prepare::{PrepareError, dequantise};
pub use verify::FileState;

/// The folder that the runtime's libraries are in.
const RUNTIME_LIBRARY: &str = "runtime/libopenvino_c.so";

/// What can be wrong with the models.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// Nothing, or another version, is installed.
    #[error("no models are installed in {}: run `muster models install`", root.display())]
    NotInstalled {
        /// Where they were looked for.
        root: PathBuf,
    },
    /// An installed file is not what was installed.
    #[error("{} is {}: run `muster models install` to put it right", path.display(), match state {
        FileState::Missing => "missing",
        _ => "damaged or was changed",
    })]
    Altered {
        /// The file.
        path: PathBuf,
        /// What became of it.
        state: FileState,
    },
    /// There is no runtime for this machine.
    #[error(
        "there is no inference runtime for {arch} processors in the manifest: use an x86_64 or aarch64 machine"
    )]
    Architecture {
        /// The processor architecture.
        arch: String,
    },
    /// Python cannot make a private environment.
    #[error(
        "Python 3 with its venv and pip modules is needed to fetch the models ({reason}): install it \
         (Debian and Ubuntu: `apt-get install python3-venv`) and run `muster models install` again"
    )]
    Python {
        /// What was tried and what came of it.
        reason: String,
    },
    /// The package client failed.
    #[error("pip could not fetch {package}; its last lines were:\n{tail}")]
    Fetch {
        /// Name and version.
        package: String,
        /// The last lines that pip printed.
        tail: String,
    },
    /// An archive is not the pinned one.
    #[error(
        "the archive of {package} is not the one that the manifest pins: nothing was installed"
    )]
    Archive {
        /// Name and version.
        package: String,
    },
    /// An archive lacks a file, or holds another than the manifest says.
    #[error("{member} of {package} {problem}: nothing was installed")]
    Member {
        /// Name and version.
        package: String,
        /// The archive's member.
        member: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A model could not be prepared.
    #[error("{member} could not be prepared: nothing was installed")]
    Prepare {
        /// The archive's member.
        member: String,
        /// Why.
        #[source]
        source: PrepareError,
    },
    /// The manifest is wrong.
    #[error("the models' manifest is wrong: {reason}")]
    Manifest {
        /// What is wrong with it.
        reason: String,
    },
    /// A file or folder could not be used.
    #[error("could not {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
}

impl ModelError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}

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

/// An installation that is there.
#[derive(Debug, Clone)]
pub struct Installation {
    folder: PathBuf,
    manifest: Manifest,
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
    /// Name and version of the package that it comes from.
    pub package: String,
    /// SPDX licence expression.
    pub licence: String,
    /// Size of its files.
    pub bytes: u64,
    /// The worst state of its files.
    pub state: FileState,
}

impl Installation {
    /// Finds the installation in `root`, of exactly the manifest that is compiled in.
    ///
    /// It looks at names and sizes only; [`Self::verify`] hashes.
    ///
    /// # Errors
    /// [`ModelError::NotInstalled`], or [`ModelError::Altered`] when a file is missing or has
    /// another size.
    pub fn open(root: &Path) -> Result<Self, ModelError> {
        Self::open_of(Manifest::embedded()?, root, env::consts::ARCH)
    }

    fn open_of(manifest: Manifest, root: &Path, arch: &str) -> Result<Self, ModelError> {
        let installation = Self::at(manifest, root, arch);
        if !installation.folder.is_dir() {
            return Err(ModelError::NotInstalled {
                root: root.to_owned(),
            });
        }
        for (_, file) in installation.manifest.files(arch) {
            let path = installation.path(&file.to);
            let state = match path.metadata() {
                Ok(found) if found.len() == file.bytes => continue,
                Ok(_) => FileState::Altered,
                Err(_) => FileState::Missing,
            };
            return Err(ModelError::Altered { path, state });
        }
        Ok(installation)
    }

    fn at(manifest: Manifest, root: &Path, arch: &str) -> Self {
        let folder = root.join(format!(
            "{}{}",
            install::FOLDER_PREFIX,
            manifest.layout(arch)
        ));
        Self {
            folder,
            manifest,
            arch: arch.to_owned(),
        }
    }

    /// The manifest that it was installed by.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The folder that holds it.
    pub fn folder(&self) -> &Path {
        &self.folder
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
            .detector()
            .expect("a parsed manifest has the profile's detector")
    }

    /// The profile's face embedder.
    pub fn embedder(&self) -> &Embedder {
        self.manifest
            .embedder()
            .expect("a parsed manifest has the profile's embedder")
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
            embedder: self.embedder_file(),
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

    /// Hashes every installed file.
    ///
    /// # Errors
    /// [`ModelError::Altered`] for the first file that is not what was installed.
    pub fn verify(&self) -> Result<(), ModelError> {
        self.verify_where(|_| true)
    }

    /// Hashes the files of the profile's detector and embedder only.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn verify_models(&self) -> Result<(), ModelError> {
        let models = [&self.detector().file, &self.embedder().file];
        self.verify_where(|file| models.contains(&&file.to))
    }

    fn verify_where(&self, wanted: impl Fn(&InstalledFile) -> bool) -> Result<(), ModelError> {
        let files: Vec<(PathBuf, &str)> = self
            .manifest
            .files(&self.arch)
            .filter(|(_, file)| wanted(file))
            .map(|(_, file)| (self.path(&file.to), file.sha256.as_str()))
            .collect();
        let states = verify::states(&files);
        match states
            .into_iter()
            .zip(files)
            .find(|(state, _)| *state != FileState::Intact)
        {
            Some((state, (path, _))) => Err(ModelError::Altered { path, state }),
            None => Ok(()),
        }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }
}

/// Lists what belongs in `root` and hashes what is there of it, installed or not.
///
/// # Errors
/// [`ModelError::Manifest`] only.
pub fn list(root: &Path) -> Result<Vec<Listed>, ModelError> {
    Ok(list_of(&Installation::at(
        Manifest::embedded()?,
        root,
        env::consts::ARCH,
    )))
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
                    package: package.to_string(),
                    licence: licence.clone(),
                    bytes: 0,
                    state: FileState::Intact,
                });
                rows.len() - 1
            });
        rows[at].bytes += file.bytes;
        rows[at].state = match (rows[at].state, state) {
            (FileState::Missing, _) | (_, FileState::Missing) => FileState::Missing,
            (FileState::Altered, _) | (_, FileState::Altered) => FileState::Altered,
            _ => FileState::Intact,
        };
    }
    rows
}
