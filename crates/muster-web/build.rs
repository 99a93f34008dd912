//! Takes the built page, where there is one, into the binary.
//!
//! `rust-embed` would, but its macro is not run again when the page is built for the first time after
//! the binary was, and it has one ETag for a file and its gzipped form.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let folder = |name: &str| env::var_os(name).map(PathBuf::from).expect("cargo sets it");
    // It is there without the page too, so that cargo has something to watch.
    let page = folder("CARGO_MANIFEST_DIR").join("../../page/dist");
    let out = folder("OUT_DIR");
    println!("cargo::rerun-if-changed={}", page.display());
    let mut files = Vec::new();
    find(&page.join("files"), "", &mut files)?;
    files.sort();
    let mut source = String::from("&[\n");
    for (name, path) in &files {
        if name.ends_with(".gz") {
            continue;
        }
        let gzip = format!("{name}.gz");
        let gzip = files.iter().find(|(other, _)| *other == gzip);
        let gzip = gzip.map(|(_, path)| include(path, &out)).transpose()?;
        let mut hasher = DefaultHasher::new();
        fs::read(path)?.hash(&mut hasher);
        writeln!(
            source,
            "File {{ name: {name:?}, etag: \"\\\"{:016x}\\\"\", plain: {}, gzip: {} }},",
            hasher.finish(),
            include(path, &out)?,
            gzip.map_or("None".to_owned(), |gzip| format!("Some({gzip})")),
        )
        .expect("a string takes everything");
    }
    source.push(']');
    fs::write(out.join("page.rs"), source)
}

/// Keeps a copy beside the generated source: the page may be built anew while that is compiled.
fn include(path: &Path, out: &Path) -> io::Result<String> {
    let copy = out.join(path.file_name().expect("a file has a name"));
    fs::copy(path, &copy)?;
    Ok(format!("include_bytes!({copy:?})"))
}

/// Finds every file below a folder, with its path within it; nothing where there is no folder.
fn find(folder: &Path, within: &str, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{within}{}", entry.file_name().display());
        if entry.file_type()?.is_dir() {
            find(&entry.path(), &format!("{name}/"), files)?;
        } else {
            files.push((name, entry.path()));
        }
    }
    Ok(())
}
