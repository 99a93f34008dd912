//! Models as data: what is fetched, what of it stays, and what the service must know of each model.
//!
//! The project's own manifest is compiled in; a manifest that parses has been checked, so the rest
//! of the module relies on it.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::entry::{DetectorEntry, EmbedderEntry};
use super::error::ModelError;
use super::package::{InstalledFile, Package};

const EMBEDDED: &str = include_str!("../../../../models/manifest.toml");

/// The only layout of the manifest that is understood.
pub(super) const SCHEMA: u32 = 1;

/// The profile of an installation where none is asked for; every installation has it.
pub const DEFAULT_PROFILE: &str = "default";

/// Packages, models, samples and the profiles that the service can run.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Manifest {
    schema: u32,
    /// What the service can run, one at a time.
    #[serde(rename = "profile", default)]
    pub profiles: Vec<Profile>,
    /// Face detectors.
    #[serde(rename = "detector", default)]
    pub detectors: Vec<DetectorEntry>,
    /// Face embedders.
    #[serde(rename = "embedder", default)]
    pub embedders: Vec<EmbedderEntry>,
    /// People of the sample photographs.
    #[serde(rename = "person", default)]
    pub people: Vec<SamplePerson>,
    /// Sample photographs of nobody in particular.
    pub samples: Samples,
    /// Packages that files come from.
    #[serde(rename = "package", default)]
    pub packages: Vec<Package>,
}

/// Two detectors and an embedder that run together.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What an operator calls it.
    pub name: String,
    /// A [`DetectorEntry::name`]: what finds the faces.
    pub detector: String,
    /// A [`DetectorEntry::name`]: what looks where the detector is in doubt.
    pub second_detector: String,
    /// An [`EmbedderEntry::name`].
    pub embedder: String,
}

/// A person of the samples.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplePerson {
    /// The person's name.
    pub name: String,
    /// Installed files, the clearest first.
    pub photographs: Vec<String>,
}

/// Sample photographs of nobody in particular.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Samples {
    /// Several people in one picture, none of them among the named ones.
    pub group: String,
}

impl Manifest {
    /// Parses the manifest that is compiled in.
    ///
    /// # Errors
    /// [`ModelError::Manifest`] if the project's own manifest is wrong, which a test rules out.
    pub fn embedded() -> Result<Self, ModelError> {
        Self::parse(EMBEDDED)
    }

    /// Parses and checks a manifest.
    ///
    /// # Errors
    /// [`ModelError::Manifest`] on unknown keys, references to nothing, paths that lead out, or
    /// malformed hashes.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        let manifest: Self = toml::from_str(text).map_err(|error| ModelError::Manifest {
            reason: error.to_string(),
        })?;
        manifest
            .check()
            .map_err(|reason| ModelError::Manifest { reason })?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), String> {
        if self.schema != SCHEMA {
            return Err(format!("schema {} is not {SCHEMA}", self.schema));
        }
        let builds = || {
            self.packages
                .iter()
                .flat_map(|package| package.builds.iter().map(move |build| (package, build)))
        };
        let architectures: BTreeSet<&str> = builds()
            .filter_map(|(_, build)| build.arch.as_deref())
            .collect();
        let architectures = if architectures.is_empty() {
            BTreeSet::from(["any"])
        } else {
            architectures
        };
        for (package, build) in builds() {
            let whole = [("archive", &build.sha256)];
            let files = build
                .files
                .iter()
                .map(|file| (file.to.as_str(), &file.sha256));
            for (what, hash) in whole.into_iter().chain(files) {
                if !is_sha256(hash) {
                    return Err(format!(
                        "the sha256 of {} ({what}) is not 64 lower-case hexadecimal digits",
                        package.name
                    ));
                }
            }
            if let Some(file) = build.files.iter().find(|file| !stays_inside(&file.to)) {
                return Err(format!("{} leads out of the installation", file.to));
            }
            if let Some(profile) = &package.profile
                && (profile == DEFAULT_PROFILE || self.profile(profile).is_none())
            {
                return Err(format!(
                    "{} is said to be for the profile {profile}: name one that is listed and not \
                     the default, or leave `profile` out",
                    package.name
                ));
            }
        }
        let mut named = vec![&self.samples.group];
        named.extend(self.detectors.iter().map(|model| &model.file));
        named.extend(self.embedders.iter().map(|model| &model.file));
        named.extend(self.people.iter().flat_map(|person| &person.photographs));
        for arch in architectures {
            let files: Vec<&str> = self.files(arch).map(|(_, file)| file.to.as_str()).collect();
            if BTreeSet::from_iter(&files).len() != files.len() {
                return Err(format!("two files of {arch} have the same path"));
            }
            if let Some(missing) = named.iter().find(|name| !files.contains(&name.as_str())) {
                return Err(format!("no package has {missing} for {arch}"));
            }
        }
        for model in &self.embedders {
            model.check()?;
            if model.sha256.is_some() {
                return Err(format!(
                    "the sha256 of {} stands with its package",
                    model.name
                ));
            }
        }
        for model in &self.detectors {
            if !model.input.is_a_detectors() {
                return Err(format!(
                    "the detector {}: only YuNet and RetinaFace are known, which are fed `input`, \
                     320 x 320, bgr, mean 0, scale 1",
                    model.name
                ));
            }
        }
        for profile in &self.profiles {
            if self.detectors_of(profile).is_none() {
                return Err(format!(
                    "a detector of profile {} is not listed",
                    profile.name
                ));
            }
            if self.embedder(profile).is_none() {
                return Err(format!(
                    "the embedder of profile {} is not listed",
                    profile.name
                ));
            }
            let elsewhere = builds()
                .filter(|(package, _)| {
                    let only = package.profile.as_ref();
                    only.is_some_and(|only| *only != profile.name)
                })
                .flat_map(|(_, build)| &build.files)
                .find(|file| self.model_files(profile).contains(&file.to.as_str()));
            if let Some(file) = elsewhere {
                return Err(format!(
                    "{} is installed for another profile than {} only",
                    file.to, profile.name
                ));
            }
        }
        let unique = |names: Vec<&String>| BTreeSet::from_iter(&names).len() == names.len();
        if !unique(self.embedders.iter().map(|model| &model.name).collect())
            || !unique(self.profiles.iter().map(|profile| &profile.name).collect())
        {
            return Err("two embedders or two profiles have the same name".to_owned());
        }
        self.profile(DEFAULT_PROFILE)
            .ok_or_else(|| format!("there is no profile {DEFAULT_PROFILE}"))?;
        Ok(())
    }

    /// Finds a profile by its name.
    #[must_use]
    pub fn profile(&self, name: &str) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.name == name)
    }

    /// The files of a profile's models.
    pub(super) fn model_files(&self, profile: &Profile) -> Vec<&str> {
        let detectors = self.detectors_of(profile).into_iter().flatten();
        let embedder = self.embedder(profile).map(|model| model.file.as_str());
        detectors
            .map(|model| model.file.as_str())
            .chain(embedder)
            .collect()
    }

    /// The detector and the second detector of a profile; a manifest that parsed has both.
    pub(super) fn detectors_of(&self, profile: &Profile) -> Option<[&DetectorEntry; 2]> {
        let named = |name: &String| self.detectors.iter().find(|model| model.name == *name);
        Some([named(&profile.detector)?, named(&profile.second_detector)?])
    }

    /// The embedder of a profile; a manifest that parsed has one.
    #[must_use]
    pub fn embedder(&self, profile: &Profile) -> Option<&EmbedderEntry> {
        self.embedder_named(&profile.embedder)
    }

    /// Finds an embedder by its name.
    #[must_use]
    pub fn embedder_named(&self, name: &str) -> Option<&EmbedderEntry> {
        self.embedders.iter().find(|model| model.name == name)
    }

    /// Lists what is installed on a processor architecture, with the package that it comes from.
    pub(super) fn files<'a>(
        &'a self,
        arch: &'a str,
    ) -> impl Iterator<Item = (&'a Package, &'a InstalledFile)> {
        self.packages
            .iter()
            .filter_map(move |package| Some((package, package.build(arch)?)))
            .flat_map(|(package, build)| build.files.iter().map(move |file| (package, file)))
    }

    /// Lists what is installed together: what every installation has (`None`), or what one profile
    /// needs besides.
    pub(super) fn part<'a>(
        &'a self,
        part: Option<&'a str>,
        arch: &'a str,
    ) -> impl Iterator<Item = (&'a Package, &'a InstalledFile)> {
        self.files(arch)
            .filter(move |(package, _)| package.profile.as_deref() == part)
    }

    /// The parts: what every installation has, and the profiles that need more.
    pub(super) fn parts(&self) -> Vec<Option<&str>> {
        let mut parts = vec![None];
        for package in &self.packages {
            if !parts.contains(&package.profile.as_deref()) {
                parts.push(package.profile.as_deref());
            }
        }
        parts
    }

    /// Names the installation of a part: the same name holds the same files.
    ///
    /// It is a hash of the installed paths and their hashes, so a change of wording or of a cutoff
    /// fetches nothing anew.
    pub(super) fn layout(&self, part: Option<&str>, arch: &str) -> String {
        let mut lines: Vec<String> = self
            .part(part, arch)
            .map(|(_, file)| format!("{} {}\n", file.sha256, file.to))
            .collect();
        lines.sort();
        let digest = Sha256::digest(lines.concat());
        digest[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// Whether this is a SHA-256 in lower-case hexadecimal.
pub(super) fn is_sha256(hash: &str) -> bool {
    let digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    hash.len() == 64 && hash.bytes().all(digit)
}

fn stays_inside(path: &str) -> bool {
    !path.is_empty()
        && Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::super::PackageRole;
    use super::*;

    #[test]
    fn the_embedded_manifest_holds_together() {
        let manifest = Manifest::embedded().unwrap();
        let default = manifest.profile(DEFAULT_PROFILE).unwrap();
        let sface = manifest.embedder(default).unwrap();
        assert_eq!(
            (sface.name.as_str(), sface.dimensions, sface.cutoff),
            ("sface", 128, 0.363)
        );
        let int8 = manifest.profile("int8").unwrap();
        let int8 = manifest.embedder(int8).unwrap();
        assert_eq!((int8.name.as_str(), int8.dimensions), ("sface_int8", 128));
        assert_eq!(int8.input, sface.input);
        let fast = manifest.profile("fast").unwrap();
        assert_eq!(manifest.embedder(fast).unwrap().dimensions, 512);
        assert_eq!(manifest.parts(), [None, Some("fast")]);
        let runtime: u64 = manifest
            .files("x86_64")
            .filter(|(package, _)| package.role == PackageRole::Runtime)
            .map(|(_, file)| file.bytes)
            .sum();
        assert!((85_000_000..100_000_000).contains(&runtime), "{runtime}");
        assert_ne!(
            manifest.layout(None, "x86_64"),
            manifest.layout(None, "aarch64")
        );
        assert_eq!(manifest.layout(None, "x86_64").len(), 16);
    }

    #[test]
    fn the_layout_follows_the_files_and_nothing_else() {
        let layout = |text: &str| Manifest::parse(text).unwrap().layout(None, "x86_64");
        assert_eq!(
            layout(EMBEDDED),
            layout(&EMBEDDED.replace("cutoff = 0.363", "cutoff = 0.4"))
        );
        assert_ne!(
            layout(EMBEDDED),
            layout(&EMBEDDED.replace("runtime/libtbb", "runtime/other"))
        );
    }

    #[test]
    fn a_wrong_manifest_is_refused_with_the_reason() {
        let cases = [
            ("schema = 1", "schema = 2", "schema 2"),
            (
                "schema = 1",
                "schema = 1\nflavour = 3",
                "unknown field `flavour`",
            ),
            (
                "cutoff = 0.363",
                "cut_off = 0.363",
                "unknown field `cut_off`",
            ),
            (
                "to = \"models/sface.onnx\"",
                "to = \"../sface.onnx\"",
                "leads out",
            ),
            (
                "to = \"models/sface.onnx\"",
                "to = \"models/other.onnx\"",
                "no package has models/sface.onnx",
            ),
            (
                "to = \"runtime/libtbb.so.12\"",
                "to = \"runtime/libhwloc.so.15\"",
                "same path",
            ),
            (
                "detector = \"yunet\"",
                "detector = \"other\"",
                "detector of profile default is not listed",
            ),
            (
                "alignment = \"five-point\"",
                "alignment = \"five-points\"",
                "unknown variant `five-points`",
            ),
            (
                "alignment = \"five-point\"",
                "alignment = \"five-point\"\nmargin = 32",
                "`margin` belongs to",
            ),
            (
                "name = \"data\", width = 112",
                "name = \"data\", width = 160",
                "112 x 112",
            ),
            (
                "colour_order = \"rgb\"",
                "colour_order = \"grey\"",
                "unknown variant `grey`",
            ),
            (
                "width = 320",
                "width = 640",
                "only YuNet and RetinaFace are",
            ),
            ("scale = 0.0078125", "scale = 0.0", "the scale is not 0"),
            ("dimensions = 512", "dimensions = 0", "`dimensions`"),
            (
                "name = \"fast\"\n",
                "name = \"quick\"\n",
                "for the profile fast",
            ),
            (
                "impostor_std = 0.088",
                "impostor_std = 0.0",
                "its calibration",
            ),
            (
                "_mulscalar0 = [-0.99609375, ",
                "_mulscalar0 = [",
                "length 1",
            ),
            (
                "dequantise = { input",
                "dequantise = { output",
                "available keys: input",
            ),
        ];
        for (right, wrong, reason) in cases {
            assert!(EMBEDDED.contains(right), "{right}");
            let message = Manifest::parse(&EMBEDDED.replace(right, wrong))
                .unwrap_err()
                .to_string();
            assert!(message.contains(reason), "{message} should tell {reason}");
        }
        let (before, hash) = EMBEDDED.split_once("sha256 = \"").unwrap();
        let message = Manifest::parse(&format!("{before}sha256 = \"Z{}", &hash[1..]))
            .unwrap_err()
            .to_string();
        assert!(message.contains("hexadecimal"), "{message}");
    }
}
