//! Taking single members out of a wheel (zip), or a source distribution or Node.js package
//! (gzipped tar).
//!
//! A member's name is only ever compared, never used as a path: where a file lands is said by the
//! manifest.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::read::GzDecoder;

use super::package::BuildKind;

/// The largest member that is read, whatever an archive announces.
const MEMBER_BYTES: u64 = 512 << 20;

/// Reads the listed members and hands each to `keep` as it comes; tells which of them are not
/// there.
pub(super) fn read_members<'a, E: From<io::Error>>(
    archive: &Path,
    kind: BuildKind,
    members: &[&'a str],
    mut keep: impl FnMut(&'a str, Vec<u8>) -> Result<(), E>,
) -> Result<Vec<&'a str>, E> {
    let file = BufReader::new(File::open(archive)?);
    let mut missing = members.to_vec();
    match kind {
        BuildKind::Wheel => {
            let mut zip = zip::ZipArchive::new(file).map_err(io::Error::other)?;
            for name in members {
                let member = match zip.by_name(name) {
                    Ok(member) if member.is_file() => member,
                    Ok(_) | Err(zip::result::ZipError::FileNotFound) => continue,
                    Err(error) => return Err(io::Error::other(error).into()),
                };
                keep(name, read(member)?)?;
                missing.retain(|left| left != name);
            }
        }
        BuildKind::Sdist | BuildKind::Tarball => {
            let mut tar = tar::Archive::new(GzDecoder::new(file));
            for entry in tar.entries()? {
                let entry = entry?;
                let path = entry.path_bytes();
                let Some(at) = missing
                    .iter()
                    .position(|name| name.as_bytes() == path.as_ref())
                else {
                    continue;
                };
                if entry.header().entry_type().is_file() {
                    let name = missing.swap_remove(at);
                    drop(path);
                    keep(name, read(entry)?)?;
                }
                if missing.is_empty() {
                    break;
                }
            }
        }
    }
    Ok(missing)
}

fn read(member: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    member.take(MEMBER_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MEMBER_BYTES {
        return Err(io::Error::other("a member is larger than any model"));
    }
    Ok(bytes)
}
