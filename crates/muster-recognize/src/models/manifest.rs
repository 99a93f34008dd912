//! Models as data: what is fetched, what of it stays, and what the service must know of each model.
//!
//! The project's own manifest is compiled in; a manifest that parses has been checked, so the rest
//! of the module relies on it.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::ModelError;

const EMBEDDED: &str = include_str!("../../../../models/manifest.toml");

/// The only layout of the manifest that is understood.
const SCHEMA: u32 = 1;

/// Packages, models, samples and the profile that the service runs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Manifest {
    schema: u32,
    /// The models that the service runs.
    pub profile: Profile,
    /// Face detectors.
    #[serde(rename = "detector", default)]
    pub detectors: Vec<Detector>,
    /// Face embedders.
    #[serde(rename = "embedder", default)]
    pub embedders: Vec<Embedder>,
    /// People of the sample photographs.
    #[serde(rename = "person", default)]
    pub people: Vec<Person>,
    /// Sample photographs of nobody in particular.
    pub samples: Samples,
    /// Packages that files come from.
    #[serde(rename = "package", default)]
    pub packages: Vec<Package>,
}

/// The names of the models that the service runs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// A [`Detector::name`].
    pub detector: String,
    /// An [`Embedder::name`].
    pub embedder: String,
}

/// A model that finds faces.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detector {
    /// Short name.
    pub name: String,
    /// What it is, for people.
    pub title: String,
    /// SPDX licence expression of the model.
    pub licence: String,
    /// The installed file.
    pub file: String,
    /// What it is fed.
    pub input: Input,
}

/// A model that turns an aligned face into numbers that are close for the same person.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embedder {
    /// Short name.
    pub name: String,
    /// What it is, for people.
    pub title: String,
    /// SPDX licence expression of the model.
    pub licence: String,
    /// The installed file.
    pub file: String,
    /// What it is fed.
    pub input: Input,
    /// Numbers of an embedding.
    pub dimensions: usize,
    /// Cosine similarity from which two faces count as one person.
    pub cutoff: f32,
    /// How alike different people are by this model.
    pub calibration: Option<Calibration>,
}

/// How alike the faces of different people are by a model: what a cutoff rests on until a gallery's
/// own faces tell.
///
/// Similarities are cosines, of one photograph to one other.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Their mean.
    pub impostor_mean: f32,
    /// Their standard deviation.
    pub impostor_std: f32,
    /// How many people were compared: the weight that the two figures have beside a gallery's own.
    pub people: u32,
    /// Where the two figures come from.
    pub source: String,
}

impl Calibration {
    /// Tells what is wrong with it.
    fn check(&self) -> Result<(), &'static str> {
        if !(-1.0..=1.0).contains(&self.impostor_mean) {
            return Err("the mean of cosines is between -1 and 1");
        }
        if !(self.impostor_std > 0.0 && self.impostor_std <= 1.0) {
            return Err("the standard deviation is above 0 and at most 1");
        }
        if self.source.trim().is_empty() {
            return Err("its source is not said");
        }
        Ok(())
    }
}

/// The tensor a model is fed: `[1, 3, height, width]`, each sample `(value - mean) * scale` of a
/// colour 0-255.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The graph input's name.
    pub name: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Order of the three planes.
    pub colour_order: ColourOrder,
    /// Subtracted first.
    pub mean: f32,
    /// Multiplied then.
    pub scale: f32,
}

/// Order of the colour planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColourOrder {
    /// Red first.
    Rgb,
    /// Blue first.
    Bgr,
}

/// A person of the samples.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
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

/// A pinned package.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Name in its registry.
    pub name: String,
    /// Exact version.
    pub version: String,
    /// Who fetches it.
    pub client: Client,
    /// What it is for.
    pub role: Role,
    /// SPDX licence expression of the package.
    pub licence: String,
    /// Its archives: one, or one a processor architecture.
    #[serde(rename = "build")]
    pub builds: Vec<Build>,
}

/// A package client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Client {
    /// Python's.
    Pip,
}

/// What a package or model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The inference runtime.
    Runtime,
    /// Holds models.
    Models,
    /// Finds faces.
    Detector,
    /// Embeds faces.
    Embedder,
    /// Sample photographs.
    Samples,
    /// Needed to fetch other packages; nothing of it stays.
    BuildTool,
}

/// One archive of a package.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// The archive's format.
    pub kind: BuildKind,
    /// `std::env::consts::ARCH` that it is for; absent: any.
    pub arch: Option<String>,
    /// The interpreter it was built for, where its own is not that of the machine.
    pub target: Option<Target>,
    /// Size of the archive.
    pub bytes: u64,
    /// Hash of the archive, lower-case hexadecimal.
    pub sha256: String,
    /// What is kept.
    #[serde(rename = "file", default)]
    pub files: Vec<InstalledFile>,
}

/// An archive's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BuildKind {
    /// A Python wheel: a zip archive.
    Wheel,
    /// A Python source distribution: a gzipped tar archive.
    Sdist,
}

/// An interpreter that a wheel was built for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Platform tag.
    pub platform: String,
    /// Python version.
    pub python: String,
    /// Implementation tag.
    pub implementation: String,
    /// ABI tag.
    pub abi: String,
}

/// A file that is installed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstalledFile {
    /// The archive's member.
    pub from: String,
    /// Path under the installation, with `/`.
    pub to: String,
    /// What is done to it.
    pub prepare: Option<Preparation>,
    /// Size when installed.
    pub bytes: u64,
    /// Hash when installed, lower-case hexadecimal.
    pub sha256: String,
}

/// What is done to a file before it is installed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Preparation {
    /// [`super::prepare::dequantise`].
    Dequantise {
        /// The graph input that stays.
        input: String,
    },
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
                if hash.len() != 64
                    || !hash
                        .bytes()
                        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
                {
                    return Err(format!(
                        "the sha256 of {} ({what}) is not 64 lower-case hexadecimal digits",
                        package.name
                    ));
                }
            }
            if let Some(file) = build.files.iter().find(|file| !stays_inside(&file.to)) {
                return Err(format!("{} leads out of the installation", file.to));
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
            if let Some(Err(reason)) = model.calibration.as_ref().map(Calibration::check) {
                return Err(format!("the calibration of {}: {reason}", model.name));
            }
        }
        self.detector()
            .ok_or("the profile's detector is not listed")?;
        self.embedder()
            .ok_or("the profile's embedder is not listed")?;
        Ok(())
    }

    pub(super) fn detector(&self) -> Option<&Detector> {
        self.detectors
            .iter()
            .find(|model| model.name == self.profile.detector)
    }

    /// The embedder that the service runs; a manifest that parsed has one.
    #[must_use]
    pub fn embedder(&self) -> Option<&Embedder> {
        self.embedders
            .iter()
            .find(|model| model.name == self.profile.embedder)
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

    /// Names the installation: the same name holds the same files.
    ///
    /// It is a hash of the installed paths and their hashes, so a change of wording or of a cutoff
    /// fetches nothing anew.
    pub(super) fn layout(&self, arch: &str) -> String {
        let mut lines: Vec<String> = self
            .files(arch)
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

impl Package {
    /// Picks the archive for a processor architecture.
    pub(super) fn build(&self, arch: &str) -> Option<&Build> {
        self.builds
            .iter()
            .find(|build| build.arch.as_deref().is_none_or(|wanted| wanted == arch))
    }
}

fn stays_inside(path: &str) -> bool {
    !path.is_empty()
        && Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_manifest_holds_together() {
        let manifest = Manifest::embedded().unwrap();
        let sface = manifest.embedder().unwrap();
        assert_eq!(
            (sface.name.as_str(), sface.dimensions, sface.cutoff),
            ("sface", 128, 0.363)
        );
        assert_eq!(
            manifest.detector().unwrap().input.colour_order,
            ColourOrder::Bgr
        );
        let runtime: u64 = manifest
            .files("x86_64")
            .filter(|(package, _)| package.role == Role::Runtime)
            .map(|(_, file)| file.bytes)
            .sum();
        assert!((85_000_000..100_000_000).contains(&runtime), "{runtime}");
        assert_ne!(manifest.layout("x86_64"), manifest.layout("aarch64"));
        assert_eq!(manifest.layout("x86_64").len(), 16);
    }

    #[test]
    fn the_layout_follows_the_files_and_nothing_else() {
        let layout = |text: &str| Manifest::parse(text).unwrap().layout("x86_64");
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
                "detector is not listed",
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
