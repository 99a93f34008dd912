//! What can be wrong with the models, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use super::package::Client;
use super::prepare::PrepareError;
use super::verify::FileState;

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
    #[error("{} is {}: run `{}` to put it right", path.display(), match state {
        FileState::Missing => "missing",
        _ => "damaged or was changed",
    }, install_command(profile.as_deref()))]
    Altered {
        /// The file.
        path: PathBuf,
        /// What became of it.
        state: FileState,
        /// The profile that it is for; `None` for all.
        profile: Option<String>,
    },
    /// No such profile.
    #[error("there is no profile {name}: use one of {}", known.join(", "))]
    UnknownProfile {
        /// What was asked for.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// No such embedder.
    #[error(
        "the embedder {name} is in no manifest of this machine: add its entry, as `models.toml` had it \
         (docs/MODELS.md)"
    )]
    UnknownEmbedder {
        /// What was asked for.
        name: String,
    },
    /// A profile's own models were not installed.
    #[error(
        "the models of the profile {profile} are not installed in {}: run `{}`",
        root.display(), install_command(Some(profile))
    )]
    ProfileNotInstalled {
        /// The profile.
        profile: String,
        /// Where they were looked for.
        root: PathBuf,
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
    /// There is no npm.
    #[error(
        "npm, which comes with Node.js, is needed to fetch {package} (`npm` does not start: \
         {source}): install it (Debian and Ubuntu: `apt-get install npm`) and run the command again"
    )]
    Npm {
        /// Name and version.
        package: String,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The package client failed.
    #[error("{client} could not fetch {package}; its last lines were:\n{tail}")]
    Fetch {
        /// The client.
        client: Client,
        /// Name and version.
        package: String,
        /// The last lines that it printed.
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
    /// An operator's manifest is wrong.
    #[error("the models' manifest {} is wrong: {reason}", path.display())]
    OwnManifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An operator's own model is not there, or not the one that was stated.
    #[error("the file of the model {name}, {}, {}", path.display(), match state {
        FileState::Missing => "is missing: put it there, or correct `file` in the models' manifest",
        _ => "has another hash: put the right file there, or correct `sha256` in the models' manifest",
    })]
    OwnModel {
        /// The embedder.
        name: String,
        /// Its file.
        path: PathBuf,
        /// What became of it.
        state: FileState,
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
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}

/// What installs a profile's models.
fn install_command(profile: Option<&str>) -> String {
    let command = "muster models install";
    match profile {
        Some(profile) => format!("{command} --profile {profile}"),
        None => command.to_owned(),
    }
}
