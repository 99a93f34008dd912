//! The data folder: made where it is missing, and then for its owner alone, since it holds faces.
//!
//! One that is there is left as it is, since it may be shared on purpose (a volume that is writable by
//! a group) or be no folder of Muster's at all. What Muster makes in it is for its owner alone.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Once;
use std::time::SystemTime;

use anyhow::Context;

/// The bits that let everybody read a folder, or go through it.
const OTHERS: u32 = 0o005;

/// Makes the data folder, and a folder below it where one is named.
///
/// # Errors
/// Names the folder that can not be made.
pub fn prepare(data_dir: &Path, below: Option<&str>) -> anyhow::Result<()> {
    let made = || -> io::Result<()> {
        if let Some(parent) = data_dir.parent() {
            std::fs::create_dir_all(parent)?;
        }
        make_private(data_dir)
    };
    made().with_context(|| format!("make the data folder {}", data_dir.display()))?;
    warn_where_others_read(data_dir)?;
    let Some(below) = below else { return Ok(()) };
    let folder = data_dir.join(below);
    make_private(&folder).with_context(|| format!("make the folder {}", folder.display()))
}

/// Opens a file of the data folder for writing, and makes it where it is missing; what it holds stays.
///
/// # Errors
/// When it can not be opened, or is a link.
pub fn open_file(file: &Path) -> anyhow::Result<File> {
    refuse_link(file)?;
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(file)
        .with_context(|| format!("open {}", file.display()))
}

/// Makes an empty file of the data folder where none is, for a library to open by its name; refuses a link.
///
/// The file is never open under its name: closing it would drop the locks that SQLite has on it in
/// this process.
///
/// # Errors
/// When it can not be made, or is a link.
pub fn make_file(file: &Path) -> anyhow::Result<()> {
    refuse_link(file)?;
    if file.exists() {
        return Ok(());
    }
    let folder = file.parent().unwrap_or(Path::new("."));
    let made = tempfile::NamedTempFile::new_in(folder)
        .map(tempfile::NamedTempFile::into_temp_path)
        .and_then(|made| match made.persist_noclobber(file) {
            Err(lost) if lost.error.kind() != io::ErrorKind::AlreadyExists => Err(lost.error),
            _ => Ok(()),
        });
    made.with_context(|| format!("make {}", file.display()))
}

/// The time by which a folder's files are dated: a file system of another machine has a clock of its own.
/// Where no file can be made, as on a full disk, it is this machine's time.
pub fn time(folder: &Path) -> SystemTime {
    let made = tempfile::tempfile_in(folder).and_then(|file| file.metadata()?.modified());
    made.unwrap_or_else(|_| SystemTime::now())
}

/// Refuses a link where a library is about to open a file of the data folder by its name.
///
/// # Errors
/// When a link stands there.
pub fn refuse_link(file: &Path) -> anyhow::Result<()> {
    let is_link = std::fs::symlink_metadata(file).is_ok_and(|found| found.is_symlink());
    anyhow::ensure!(
        !is_link,
        "{} is a link, and may lead to a file of somebody else's: remove it",
        file.display()
    );
    Ok(())
}

fn make_private(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        // Also by another process that starts at the same time.
        Err(_) if folder.is_dir() => Ok(()),
        made => made,
    }
}

fn warn_where_others_read(data_dir: &Path) -> anyhow::Result<()> {
    static SAID: Once = Once::new();
    let found = std::fs::metadata(data_dir)
        .with_context(|| format!("look at the data folder {}", data_dir.display()))?;
    if found.permissions().mode() & OTHERS != 0 {
        SAID.call_once(|| {
            tracing::warn!(
                "other accounts of this machine can look into the data folder {}: unless they should, \
                 chmod o-rwx it",
                data_dir.display()
            );
        });
    }
    Ok(())
}
