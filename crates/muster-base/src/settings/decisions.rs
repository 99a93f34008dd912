//! Who is recognised as whom, and what faces are fit for it.

use muster_gallery::JudgeOptions;
use muster_gallery::calibration::DEFAULT_TARGET;
use muster_jobs::{QualityLimits, Requirements};
use serde::{Deserialize, Serialize};

/// Who is recognised as whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DecisionSettings {
    /// The share of strangers that may be taken for somebody: the cutoff follows from it, from the
    /// gallery's size and from how alike the people in it are.
    pub target_fpir: f64,
    /// Cosine similarity from which on a face is a person's, in place of what `target_fpir` gives.
    pub cutoff: Option<f32>,
    /// Whether a person is given to one face of a photograph at most.
    pub one_person_once: bool,
    /// What a face needs to be enrolled, which the web tier judges, and to be named, which workers do.
    pub quality: QualityLimits,
}

impl Default for DecisionSettings {
    fn default() -> Self {
        Self {
            target_fpir: DEFAULT_TARGET,
            cutoff: None,
            one_person_once: true,
            quality: QualityLimits::default(),
        }
    }
}

impl DecisionSettings {
    /// What a judge is to go by.
    pub fn judge_options(&self) -> JudgeOptions {
        JudgeOptions {
            target_fpir: self.target_fpir,
            cutoff: self.cutoff,
            one_person_once: self.one_person_once,
            required: self.quality.matching,
        }
    }

    pub(super) fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            (1e-9..=0.5).contains(&self.target_fpir),
            "target_fpir is {}: it must be between 1e-9 and 0.5, where 0.001 is one stranger in a \
             thousand",
            self.target_fpir
        );
        if let Some(cutoff) = self.cutoff {
            anyhow::ensure!(
                (-1.0..=1.0).contains(&cutoff),
                "cutoff is {cutoff}: a cosine similarity is between -1 and 1"
            );
        }
        check_limits("quality.enrolment", &self.quality.enrolment)?;
        check_limits("quality.matching", &self.quality.matching)
    }
}

/// Checks the limits in one table. What is not a number lies in no range.
fn check_limits(table: &str, limits: &Requirements) -> anyhow::Result<()> {
    for (name, value, highest, off) in [
        ("size_px", limits.size_px, 1000.0, 0),
        ("sharpness", limits.sharpness, 1.0, 0),
        ("brightness", limits.brightness, 255.0, 0),
        ("turn_deg", limits.turn_deg, 90.0, 90),
        ("strength", limits.strength, 1.0, 0),
    ] {
        anyhow::ensure!(
            (0.0..=highest).contains(&value),
            "{table}.{name} is {value}: it must be between 0 and {highest}, where {off} refuses nothing"
        );
    }
    Ok(())
}
