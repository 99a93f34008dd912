//! Pinned packages: which archive a client fetches, and which of its files stay.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A pinned package.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Name in its registry.
    pub name: String,
    /// Exact version.
    pub version: String,
    /// Who fetches it.
    pub client: Client,
    /// What it is for.
    pub role: PackageRole,
    /// The one profile that needs it; absent: every installation has it.
    pub profile: Option<String>,
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
    /// Node.js's.
    Npm,
}

/// What a package or model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PackageRole {
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
#[derive(Debug, Clone, PartialEq, Deserialize)]
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
    /// A Node.js package: a gzipped tar archive as well.
    Tarball,
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
#[derive(Debug, Clone, PartialEq, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Preparation {
    /// [`super::prepare::dequantise`].
    Dequantise {
        /// The graph input that stays.
        input: String,
    },
    /// As `dequantise`; then its layers compute in 8 bits.
    Quantise {
        /// The graph input that stays.
        input: String,
        /// By the name of a tensor that layers read: the least and the greatest value that becomes a byte.
        ranges: BTreeMap<String, [f32; 2]>,
    },
    /// Vanishing weights become zero: a processor computes with them slowly.
    Flush {
        /// Weights nearer to zero than this become zero.
        below: f32,
    },
    /// Of a Python module, what it assigns to a name stays: a bytes literal.
    Literal {
        /// The name.
        name: String,
    },
}

impl Package {
    /// Picks the archive for a processor architecture.
    pub(super) fn build(&self, arch: &str) -> Option<&Build> {
        self.builds
            .iter()
            .find(|build| build.arch.as_deref().is_none_or(|wanted| wanted == arch))
    }
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pip => "pip",
            Self::Npm => "npm",
        })
    }
}
