//! The files that a client sends: found in folders, and named as they are sent.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// Every file below a folder whose extension, in small letters, is wanted, in order of the paths;
/// hidden files and folders are left out.
///
/// # Errors
/// When a folder can not be read.
pub fn files_in(folder: &Path, wanted: impl Fn(&str) -> bool) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .with_context(|| format!("read the folder {}", folder.display()))?;
        for entry in entries {
            let path = entry
                .with_context(|| format!("read the folder {}", folder.display()))?
                .path();
            if is_hidden(&path) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .and_then(|extension| extension.to_str())
                .is_some_and(|extension| wanted(&extension.to_ascii_lowercase()))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a file or folder is hidden: its name begins with a dot, as `._photo.jpg` of a Mac does.
pub fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// A file's name without its folders, as it is sent.
pub fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(
        || "photo".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}
