//! How fit a face is to be compared, and how fit it has to be.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What was measured of a face.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quality {
    /// Side of the square that is cut out for the embedder, in pixels of the photograph: the
    /// embedder sees 112, and of fewer it sees an enlargement.
    pub size_px: f32,
    /// 1 minus the blur of F. Crete et al., "The blur effect: perception and estimation with a new
    /// no-reference perceptual blur metric" (SPIE 6492, 2007), of the face's inner part: how much
    /// of the differences between neighbouring pixels another blurring takes away, whatever the
    /// contrast. 0 to 1.
    pub sharpness: f32,
    /// Mean luma (ITU-R BT.601) of the face's inner part, 0 to 255.
    pub brightness: f32,
    /// How far it is turned to a side, in degrees, about: the angle at which a nose tip that stands
    /// as far before the eyes as half their distance appears where it does between them.
    pub turn_deg: f32,
    /// How much of a face the model sees in it: the length of the embedding before it is scaled to one, as a
    /// share of what the faces of the sample photographs have, about 1. What hides a face shortens it, and so
    /// does what is no face, or one with its landmarks in wrong places. `None` of a model without a sample,
    /// and of faces that were enrolled before it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strength: Option<f32>,
}

/// What a face needs. Each limit can be switched off: a least by 0, the turn by 90.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Requirements {
    /// The least side of the square that is cut out for the embedder, in pixels of the photograph.
    pub size_px: f32,
    /// The least sharpness, 0 to 1.
    pub sharpness: f32,
    /// The least mean brightness of the face's inner part, 0 to 255.
    pub brightness: f32,
    /// The most that it is turned to a side, in degrees.
    pub turn_deg: f32,
    /// The least strength, where it is measured.
    pub strength: f32,
}

/// The limits of quality.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QualityLimits {
    /// For a face to be enrolled: it stands for the person in every comparison to come.
    pub enrolment: Requirements,
    /// For a face to be named.
    pub matching: Requirements,
}

impl Default for QualityLimits {
    /// Sharpness and brightness come from the installed sample photographs, made worse step by step: how
    /// alike a face then is to itself as it was. To be enrolled, about 0.85 must be left of it, to be named,
    /// about 0.5: below that it falls under the cutoff of its own person. (At a sharpness of 0.25 to 0.31
    /// 0.82 to 0.88 were left, at about 0.12 0.34 to 0.63; at a brightness of 20 0.91 to 0.92, below 8 0.37
    /// to 0.74 or no face was found.) The size comes from the error rates of small faces: docs/ACCURACY.md.
    ///
    /// The strength comes from the sample photographs too, blurred, darkened, shrunk, masked and cropped. Below
    /// a strength of 0.6 at most 0.37 was left of a face, of SFace as of fr_feature, and where more than half
    /// was left it was above 0.64; where more than 0.75 was left, above 0.75.
    ///
    /// The turn is a convention, not measured: from about 45 degrees on, the nose begins to hide the far
    /// cheek, and beyond 70 a face is a profile.
    fn default() -> Self {
        Self {
            enrolment: Requirements {
                size_px: 26.0,
                sharpness: 0.25,
                brightness: 20.0,
                turn_deg: 45.0,
                strength: 0.7,
            },
            matching: Requirements {
                size_px: 20.0,
                sharpness: 0.12,
                brightness: 8.0,
                turn_deg: 70.0,
                strength: 0.6,
            },
        }
    }
}

impl Requirements {
    /// The requirements that a face does not meet; empty where it is fit.
    #[must_use]
    pub fn unmet_by(&self, quality: &Quality) -> Vec<UnmetRequirement> {
        let measures = [
            (Measure::Size, quality.size_px, self.size_px),
            (Measure::Sharpness, quality.sharpness, self.sharpness),
            (Measure::Brightness, quality.brightness, self.brightness),
            (Measure::Turn, quality.turn_deg, self.turn_deg),
        ];
        let strength = quality.strength;
        let strength = strength.map(|strength| (Measure::Strength, strength, self.strength));
        let all = measures.into_iter().chain(strength);
        all.map(|(measure, measured, required)| UnmetRequirement {
            measure,
            measured,
            required,
        })
        .filter(UnmetRequirement::is_unmet)
        .collect()
    }
}

/// What is measured of a face, by its name among the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum Measure {
    /// [`Quality::size_px`].
    #[serde(rename = "size_px")]
    Size,
    /// [`Quality::sharpness`].
    #[serde(rename = "sharpness")]
    Sharpness,
    /// [`Quality::brightness`].
    #[serde(rename = "brightness")]
    Brightness,
    /// [`Quality::turn_deg`].
    #[serde(rename = "turn_deg")]
    Turn,
    /// [`Quality::strength`].
    #[serde(rename = "strength")]
    Strength,
}

impl Measure {
    /// Its name in the settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Size => "size_px",
            Self::Sharpness => "sharpness",
            Self::Brightness => "brightness",
            Self::Turn => "turn_deg",
            Self::Strength => "strength",
        }
    }
}

/// A requirement that a face does not meet.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UnmetRequirement {
    /// Of what.
    pub measure: Measure,
    /// As it is.
    pub measured: f32,
    /// As it should be at least, or of the turn at most.
    pub required: f32,
}

impl UnmetRequirement {
    fn is_unmet(&self) -> bool {
        match self.measure {
            Measure::Turn => self.measured > self.required,
            _ => self.measured < self.required,
        }
    }
}

impl fmt::Display for UnmetRequirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (measured, required) = (self.measured, self.required);
        match self.measure {
            Measure::Size => write!(
                f,
                "the face is too small: {measured:.0} pixels, {required:.0} required"
            ),
            Measure::Sharpness => write!(
                f,
                "the face is blurred: sharpness {measured:.2}, {required:.2} required"
            ),
            Measure::Brightness => write!(
                f,
                "the face is too dark: brightness {measured:.0} of 255, {required:.0} required"
            ),
            Measure::Turn => write!(
                f,
                "the face is turned away: about {measured:.0} degrees, {required:.0} at most"
            ),
            Measure::Strength => write!(
                f,
                "little of a face is seen: strength {measured:.2}, {required:.2} required"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unmet_names_the_measured_and_the_required() {
        let fit = Quality {
            size_px: 200.0,
            sharpness: 0.5,
            brightness: 100.0,
            turn_deg: 5.0,
            strength: Some(1.0),
        };
        let limits = QualityLimits::default();
        for required in [limits.matching, limits.enrolment] {
            assert_eq!(required.unmet_by(&fit), []);
        }
        let unfit = Quality {
            size_px: 10.0,
            sharpness: 0.01,
            brightness: 3.2,
            turn_deg: 80.0,
            strength: Some(0.4),
        };
        let required = Requirements {
            size_px: 24.0,
            sharpness: 0.1,
            brightness: 12.0,
            turn_deg: 70.0,
            strength: 0.6,
        };
        let unmet: Vec<_> = required
            .unmet_by(&unfit)
            .iter()
            .map(UnmetRequirement::to_string)
            .collect();
        for lack in required.unmet_by(&unfit) {
            let name = serde_json::to_value(lack.measure).unwrap();
            assert_eq!(name, lack.measure.name());
        }
        assert_eq!(
            unmet,
            [
                "the face is too small: 10 pixels, 24 required",
                "the face is blurred: sharpness 0.01, 0.10 required",
                "the face is too dark: brightness 3 of 255, 12 required",
                "the face is turned away: about 80 degrees, 70 at most",
                "little of a face is seen: strength 0.40, 0.60 required",
            ]
        );
        // A face whose strength nobody measured is fit as before.
        let unmeasured = Quality {
            strength: None,
            ..fit
        };
        assert_eq!(limits.enrolment.unmet_by(&unmeasured), []);
        assert!(
            !serde_json::to_string(&unmeasured)
                .unwrap()
                .contains("strength")
        );
    }
}
