//! The data folder: made where it is missing, and for its owner alone, since it holds faces.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;

/// Makes the data folder, and a folder below it where one is named, and lets nobody else in.
///
/// # Errors
/// Names the folder that can not be made or restricted.
pub fn prepare(data_dir: &Path, below: Option<&str>) -> anyhow::Result<()> {
    let folder = match below {
        Some(name) => data_dir.join(name),
        None => data_dir.to_owned(),
    };
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("make the data folder {}", data_dir.display()))?;
    std::fs::set_permissions(data_dir, std::fs::Permissions::from_mode(0o700)).with_context(|| {
        format!(
            "restrict the data folder {} to its owner",
            data_dir.display()
        )
    })
}
