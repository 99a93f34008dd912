//! An installation of the models, as it stands in its folders.

use std::env;
use std::path::{Path, PathBuf};

use super::entry::{DetectorEntry, EmbedderEntry};
use super::error::ModelError;
use super::files::{EmbedderModel, ModelFiles};
use super::manifest::{DEFAULT_PROFILE, Manifest, Profile};
use super::package::{InstalledFile, Package};
use super::verify::{self, FileState};

/// Begins the name of every installation's folder; the hash of its contents follows.
pub(super) const FOLDER_PREFIX: &str = "models-";

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
    pub(super) manifest: Manifest,
    profile: Profile,
    pub(super) arch: String,
}

/// The sample photographs of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SamplePhotographs {
    /// People by name, each with at least one photograph, the clearest first.
    pub people: Vec<(String, Vec<PathBuf>)>,
    /// Several people in one picture, none of them among `people`.
    pub group: PathBuf,
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

    pub(super) fn open_of(manifest: Manifest, root: &Path, arch: &str) -> Result<Self, ModelError> {
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

    pub(super) fn known_profile(&self, name: &str) -> Result<&Profile, ModelError> {
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

    pub(super) fn at(manifest: Manifest, root: &Path, arch: &str) -> Self {
        let folder = |part| {
            let layout = manifest.layout(part, arch);
            root.join(format!("{}{layout}", FOLDER_PREFIX))
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
    pub(super) fn folder_names(&self) -> Vec<String> {
        let names = self.folders.iter().filter_map(|(_, path)| path.file_name());
        names
            .map(|name| name.to_string_lossy().into_owned())
            .collect()
    }

    /// The folder of a part: what every profile needs (`None`), or what that one needs besides.
    pub(super) fn part_folder(&self, part: Option<&str>) -> &Path {
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

    /// The profile's detector and second detector.
    pub fn detectors(&self) -> [&DetectorEntry; 2] {
        self.manifest
            .detectors_of(&self.profile)
            .expect("a parsed manifest has the profile's detectors")
    }

    /// The profile's face embedder.
    pub fn embedder(&self) -> &EmbedderEntry {
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

    /// The files of the profile's detector and second detector.
    pub fn detector_files(&self) -> [PathBuf; 2] {
        self.detectors().map(|model| self.path(&model.file))
    }

    /// The file of the profile's face embedder.
    pub fn embedder_file(&self) -> PathBuf {
        self.path(&self.embedder().file)
    }

    /// Names the files that a recognizer loads.
    pub fn model_files(&self) -> ModelFiles {
        let [detector, second_detector] = self.detector_files();
        ModelFiles {
            runtime_library: self.runtime_library(),
            detector,
            second_detector,
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

    /// Hashes the files of the profile's detectors and embedder only.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn verify_models(&self) -> Result<(), ModelError> {
        let models = self.manifest.model_files(&self.profile);
        self.verify_where(|_, file| models.contains(&file.to.as_str()))?;
        self.verify_own(self.embedder())
    }

    /// Hashes the file of an operator's own embedder.
    fn verify_own(&self, embedder: &EmbedderEntry) -> Result<(), ModelError> {
        match own_state(embedder) {
            None | Some(FileState::Intact) => Ok(()),
            Some(state) => Err(ModelError::OwnModel {
                name: embedder.name.clone(),
                path: PathBuf::from(&embedder.file),
                state,
            }),
        }
    }

    pub(super) fn verify_part(&self, part: Option<&str>) -> Result<(), ModelError> {
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

    pub(super) fn path(&self, file: &str) -> PathBuf {
        let mut files = self.manifest.files(&self.arch);
        let package = files.find(|(_, known)| known.to == file);
        let part = package.and_then(|(package, _)| package.profile.as_deref());
        self.part_folder(part).join(file)
    }
}

/// What became of the file of an operator's own embedder; `None` for one that is installed.
pub(super) fn own_state(embedder: &EmbedderEntry) -> Option<FileState> {
    let hash = embedder.sha256.as_deref()?;
    Some(verify::state(Path::new(&embedder.file), hash))
}
