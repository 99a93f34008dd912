//! The order of the house: crates depend on lower ones alone, no two files of a crate import each
//! other in a circle, the layers of the web tier only look down, and commands print by one way. docs/ARCHITECTURE.md has the map.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use syn::visit::{self, Visit};

/// The crates from the top down; those of a row know nothing of each other.
const ROWS: &[&[&str]] = &[
    &["muster"],
    &["muster-lab"],
    &["muster-web", "muster-worker", "muster-controller"],
    &["muster-api"],
    &["muster-base"],
    &["muster-gallery", "muster-recognize", "muster-fleet"],
    &["muster-queue"],
    &["muster-jobs"],
];
/// What only tests depend on.
const TESTBED: &str = "muster-testbed";

/// The modules of `muster-web` from the top down; those of a row know nothing of each other.
const WEB_LAYERS: &[&[&str]] = &[
    &["role"],
    &["routes"],
    &["app"],
    &[
        "page",
        "recognize",
        "verify",
        "jobs",
        "people",
        "gallery",
        "observe",
        "document",
    ],
    &["dispatch"],
    &[
        "replica",
        "quota",
        "retention",
        "server",
        "metrics",
        "proxy",
    ],
    &["access"],
    &["forms"],
    &["api"],
    &["exchange"],
];

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn row_of(rows: &[&[&str]], name: &str) -> Option<usize> {
    rows.iter().position(|row| row.contains(&name))
}

#[test]
fn crates_depend_on_lower_ones_alone() {
    let metadata = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
            "--locked",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{metadata:?}");
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let mut met = 0;
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let row = row_of(ROWS, name);
        assert!(
            row.is_some() || name == TESTBED,
            "{name} has no row: give it one"
        );
        met += 1;
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            if !on.starts_with("muster") {
                continue;
            }
            if on == TESTBED {
                assert_eq!(dependency["kind"], "dev", "{name} depends on {TESTBED}");
                continue;
            }
            let lower = row_of(ROWS, on);
            assert!(
                row.is_some() && lower > row,
                "{name} depends on {on}, which is no lower crate"
            );
        }
    }
    assert_eq!(met, ROWS.concat().len() + 1);
}

#[test]
fn no_two_files_import_each_other_in_a_circle() {
    for name in ROWS.concat().iter().chain([&TESTBED]) {
        let imports = Imports::of(&crates().join(name).join("src"));
        assert!(!imports.files.is_empty(), "{name} has no files");
        let circles = imports.circles();
        assert!(circles.is_empty(), "in {name}: {circles:#?}");
        let old_style = imports.files.values().find(|file| file.ends_with("mod.rs"));
        assert_eq!(
            old_style, None,
            "module files are called x.rs, beside the folder x"
        );
    }
}

#[test]
fn the_layers_of_the_web_tier_look_down() {
    let imports = Imports::of(&crates().join("muster-web/src"));
    fn layer(module: &Module) -> Option<&str> {
        module.first().map(String::as_str)
    }
    for (from, targets) in &imports.of {
        let Some(name) = layer(from) else { continue };
        let row = row_of(WEB_LAYERS, name);
        assert!(row.is_some(), "{name} has no layer: give it one");
        for (to, names) in targets {
            let lower = layer(to).and_then(|lower| row_of(WEB_LAYERS, lower));
            let within = layer(to) == Some(name);
            assert!(
                within || lower > row,
                "{from:?} imports {names:?} of {to:?}"
            );
        }
    }
}

#[test]
fn what_is_printed_goes_by_way_of_the_output() {
    for name in ["muster", "muster-lab"] {
        let mut files = BTreeMap::new();
        find(
            &crates().join(name).join("src"),
            &mut Vec::new(),
            &mut files,
        );
        for file in files.values() {
            let text = std::fs::read_to_string(file).unwrap();
            let raw = ["println!", "print!("]
                .iter()
                .any(|name| text.contains(name));
            assert!(
                !raw,
                "{}: print with print_line! or print_error_line!, which muster_base::output makes safe",
                file.display()
            );
        }
    }
}

/// A module by its path within its crate, the root without any.
type Module = Vec<String>;

/// Which files of a crate import what of which others, test modules aside.
#[derive(Default)]
struct Imports {
    files: BTreeMap<Module, PathBuf>,
    of: BTreeMap<Module, BTreeMap<Module, BTreeSet<String>>>,
}

impl Imports {
    fn of(source: &Path) -> Self {
        let mut files = BTreeMap::new();
        find(source, &mut Vec::new(), &mut files);
        let mut uses = BTreeMap::new();
        for (module, file) in &files {
            let parsed = syn::parse_file(&std::fs::read_to_string(file).unwrap()).unwrap();
            let mut found = Uses::default();
            found.visit_file(&parsed);
            uses.insert(module.clone(), found);
        }
        // A test's file is one whose `mod` is a test's.
        let tests: BTreeSet<Module> = uses
            .iter()
            .flat_map(|(module, uses)| {
                uses.tests.iter().map(|test| {
                    let mut path = module.clone();
                    path.push(test.clone());
                    path
                })
            })
            .collect();
        let is_test = |module: &Module| tests.iter().any(|test| module.starts_with(test));
        let mut imports = Self {
            files: files.clone(),
            of: BTreeMap::new(),
        };
        for (module, found) in &uses {
            if is_test(module) {
                continue;
            }
            for path in found.paths.iter().chain(found.imported.values()) {
                let Some(absolute) = absolute(module, path, &files) else {
                    continue;
                };
                let Some(owner) = owner(&absolute, &files, &uses, 0) else {
                    continue;
                };
                if owner != *module && !is_test(&owner) {
                    let targets = imports.of.entry(module.clone()).or_default();
                    targets
                        .entry(owner)
                        .or_default()
                        .insert(absolute.join("::"));
                }
            }
        }
        imports
    }

    /// Every set of files that reach each other, with what makes them.
    fn circles(&self) -> Vec<String> {
        let reaches = |from: &Module| {
            let mut reached = BTreeSet::new();
            let mut next = vec![from];
            while let Some(module) = next.pop() {
                for target in self.of.get(module).into_iter().flat_map(BTreeMap::keys) {
                    if reached.insert(target) {
                        next.push(target);
                    }
                }
            }
            reached
        };
        let reached: BTreeMap<&Module, _> = self.of.keys().map(|m| (m, reaches(m))).collect();
        let mut circles = Vec::new();
        for (from, targets) in &self.of {
            for (to, names) in targets {
                if reached.get(to).is_some_and(|back| back.contains(from)) {
                    circles.push(format!(
                        "{} -> {}: {names:?}",
                        from.join("::"),
                        to.join("::")
                    ));
                }
            }
        }
        circles
    }
}

/// Finds the modules below a folder by their files.
fn find(folder: &Path, within: &mut Module, files: &mut BTreeMap<Module, PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            within.push(stem);
            find(&path, within, files);
            within.pop();
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let mut module = within.clone();
            let root = within.is_empty() && (stem == "lib" || stem == "main");
            if !root && stem != "mod" {
                module.push(stem);
            }
            files.insert(module, path);
        }
    }
}

/// What a file names.
#[derive(Default)]
struct Uses {
    /// Whatever is named with its path.
    paths: Vec<Vec<String>>,
    /// What is imported, by the name that it has here.
    imported: BTreeMap<String, Vec<String>>,
    /// The modules that are tests.
    tests: Vec<String>,
}

impl Uses {
    fn import(&mut self, tree: &syn::UseTree, prefix: &mut Vec<String>) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.import(&path.tree, prefix);
                prefix.pop();
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, prefix);
                }
            }
            syn::UseTree::Name(name) => {
                let mut path = prefix.clone();
                let name = match name.ident.to_string() {
                    name if name == "self" => path.last().cloned().unwrap_or_default(),
                    name => {
                        path.push(name.clone());
                        name
                    }
                };
                self.imported.insert(name, path);
            }
            syn::UseTree::Rename(rename) => {
                let mut path = prefix.clone();
                path.push(rename.ident.to_string());
                // As `_` a trait is imported without a name.
                let name = format!("{} of {}", rename.rename, path.join("::"));
                self.imported.insert(name, path);
            }
            syn::UseTree::Glob(_) => self.paths.push(prefix.clone()),
        }
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Ident>()
                .is_ok_and(|flag| flag == "test")
    })
}

impl<'ast> Visit<'ast> for Uses {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if is_test(&item.attrs) {
            self.tests.push(item.ident.to_string());
        } else {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_test(&item.attrs) {
            self.import(&item.tree, &mut Vec::new());
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            let segments = path
                .segments
                .iter()
                .map(|segment| segment.ident.to_string());
            self.paths.push(segments.collect());
        }
        visit::visit_path(self, path);
    }
}

/// A path from the crate's root; `None` where it leads out of the crate.
fn absolute(
    module: &Module,
    path: &[String],
    files: &BTreeMap<Module, PathBuf>,
) -> Option<Vec<String>> {
    let first = path.first()?.as_str();
    let above = path.iter().take_while(|part| *part == "super").count();
    let (base, rest) = match first {
        "crate" => (&[][..], &path[1..]),
        "self" => (&module[..], &path[1..]),
        "super" => (&module[..module.len().checked_sub(above)?], &path[above..]),
        _ => {
            let child: Module = module.iter().chain([&path[0]]).cloned().collect();
            if !files.contains_key(&child) {
                return None;
            }
            (&module[..], path)
        }
    };
    Some(base.iter().chain(rest).cloned().collect())
}

/// The module whose file defines what a path names: what another one re-exports is followed.
fn owner(
    path: &[String],
    files: &BTreeMap<Module, PathBuf>,
    uses: &BTreeMap<Module, Uses>,
    depth: usize,
) -> Option<Module> {
    let length = (0..=path.len())
        .rev()
        .find(|n| files.contains_key(&path[..*n]))?;
    let (module, rest) = path.split_at(length);
    let reexported = rest
        .first()
        .and_then(|name| uses[module].imported.get(name));
    if let Some(origin) = reexported
        && depth < 8
        && let Some(origin) = absolute(&module.to_vec(), origin, files)
        && origin != path
    {
        let further: Vec<String> = origin.iter().chain(&rest[1..]).cloned().collect();
        return owner(&further, files, uses, depth + 1);
    }
    Some(module.to_vec())
}

/// Writes the files of a crate and finds its circles.
fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, source) in files {
        let file = folder.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, source).unwrap();
    }
    Imports::of(folder.path()).circles()
}

#[test]
fn a_circle_is_found_and_a_diamond_is_none() {
    let root = ("lib.rs", "mod a; mod b; pub use a::A;");
    // A parent that uses its child, which uses the parent.
    assert_eq!(
        circles_of(&[
            ("lib.rs", "mod a; pub struct Root; fn f() { a::g(); }"),
            ("a.rs", "use super::Root; pub fn g() {}"),
        ])
        .len(),
        2
    );
    // By a name that the root hands on, and by a path in an expression.
    let circle = circles_of(&[
        root,
        ("a.rs", "pub struct A; fn f() { crate::b::g() }"),
        ("b.rs", "use crate::A; pub fn g() {}"),
    ]);
    assert_eq!(circle.len(), 2, "{circle:?}");
    let diamond = circles_of(&[
        ("lib.rs", "mod a; mod b; mod c; mod d;"),
        ("a.rs", "use super::{b::B, c::C};"),
        ("b.rs", "use crate::d::D; pub struct B;"),
        ("c.rs", "use crate::d::D; pub struct C;"),
        ("d.rs", "pub struct D;"),
    ]);
    assert!(diamond.is_empty(), "{diamond:?}");
    // Test modules, in a file or in one of their own, may look up.
    let tests = circles_of(&[
        root,
        (
            "a.rs",
            "pub struct A; #[cfg(test)] mod tests { use crate::b::B; }",
        ),
        (
            "b.rs",
            "use crate::A; pub struct B; #[cfg(test)] mod tests;",
        ),
        ("b/tests.rs", "use super::B;"),
    ]);
    assert!(tests.is_empty(), "{tests:?}");
}
