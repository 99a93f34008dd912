//! Faces as a detector gives them, several detections of one face merged.

use crate::bounds::Bounds;

/// The overlap, as intersection over union, from which two boxes are one face; OpenCV's default
/// for this model.
pub(crate) const SAME_FACE_OVERLAP: f32 = 0.3;

/// The overlap from which two detections tell of the same landmarks: the measure by which objects
/// count as found since the PASCAL VOC challenge (Everingham et al. 2010).
const SAME_LANDMARKS_OVERLAP: f32 = 0.5;

/// Detections kept before overlapping ones are merged; OpenCV's default for this model.
const MAX_CANDIDATES: usize = 5_000;

/// A face as the detector sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    /// The face's box, within the photograph.
    pub bounds: Bounds,
    /// Eyes, nose, corners of the mouth, left to right as seen in the picture; those of a face
    /// cut by the edge may lie outside the photograph.
    pub landmarks: [[f32; 2]; 5],
    /// The model's score, from the cutoff to 1.
    pub confidence: f32,
}

/// Keeps of each set of overlapping detections the surest, surest first, with the landmarks averaged
/// over those that overlap it well: several cells see one face, each with an error of its own.
pub(crate) fn suppress(mut candidates: Vec<Detection>) -> Vec<Detection> {
    candidates.retain(|seen| {
        let Bounds {
            x,
            y,
            width,
            height,
        } = seen.bounds;
        [x, y, width, height]
            .iter()
            .chain(seen.landmarks.as_flattened())
            .all(|v| v.is_finite())
    });
    candidates.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    candidates.truncate(MAX_CANDIDATES);
    let mut kept: Vec<Detection> = Vec::new();
    for seen in &candidates {
        if kept
            .iter()
            .all(|other| other.bounds.overlap(&seen.bounds) <= SAME_FACE_OVERLAP)
        {
            let mut face = *seen;
            face.landmarks = averaged_landmarks(seen, &candidates);
            kept.push(face);
        }
    }
    kept
}

/// The landmarks of the detections that overlap `seen`, which is one of them, averaged by their
/// scores.
fn averaged_landmarks(seen: &Detection, candidates: &[Detection]) -> [[f32; 2]; 5] {
    let mut landmarks = [[0.0; 2]; 5];
    let mut weight = 0.0;
    for other in candidates {
        if other.bounds.overlap(&seen.bounds) > SAME_LANDMARKS_OVERLAP {
            weight += other.confidence;
            for (sum, value) in landmarks.iter_mut().zip(&other.landmarks) {
                sum[0] += other.confidence * value[0];
                sum[1] += other.confidence * value[1];
            }
        }
    }
    if weight <= 0.0 {
        return seen.landmarks;
    }
    landmarks.map(|sum| sum.map(|value| value / weight))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn detection() -> impl Strategy<Value = Detection> {
        (
            0f32..500.0,
            0f32..500.0,
            1f32..200.0,
            1f32..200.0,
            0f32..1.0,
        )
            .prop_map(|(x, y, width, height, confidence)| Detection {
                bounds: Bounds {
                    x,
                    y,
                    width,
                    height,
                },
                landmarks: [[x, y]; 5],
                confidence,
            })
    }

    proptest! {
        #[test]
        fn suppression_keeps_the_surest_of_what_overlaps(
            seen in prop::collection::vec(detection(), 0..40),
        ) {
            let kept = suppress(seen.clone());
            for (index, face) in kept.iter().enumerate() {
                prop_assert!(seen.iter().any(|seen| seen.bounds == face.bounds));
                for other in &kept[index + 1..] {
                    prop_assert!(face.bounds.overlap(&other.bounds) <= SAME_FACE_OVERLAP);
                    prop_assert!(face.confidence >= other.confidence);
                }
            }
            for face in &seen {
                let covered = |other: &Detection| {
                    other.confidence >= face.confidence
                        && other.bounds.overlap(&face.bounds) > SAME_FACE_OVERLAP
                };
                prop_assert!(kept.contains(face) || kept.iter().any(covered));
            }
            let again = suppress(kept.clone());
            let places = |faces: &[Detection]| faces.iter().map(|face| face.bounds).collect::<Vec<_>>();
            prop_assert_eq!(places(&again), places(&kept));
        }

        #[test]
        fn overlap_is_symmetric_and_a_share(a in detection(), b in detection()) {
            let overlap = a.bounds.overlap(&b.bounds);
            prop_assert!((0.0..=1.0).contains(&overlap));
            prop_assert_eq!(overlap, b.bounds.overlap(&a.bounds));
            prop_assert!((a.bounds.overlap(&a.bounds) - 1.0).abs() < 1e-4);
        }
    }

    #[test]
    fn detections_that_are_no_numbers_are_dropped() {
        let mut seen = Detection {
            bounds: Bounds {
                x: 8.0,
                y: 8.0,
                width: f32::INFINITY,
                height: 8.0,
            },
            landmarks: [[8.0; 2]; 5],
            confidence: 0.9,
        };
        assert!(suppress(vec![seen]).is_empty());
        seen.bounds.width = 8.0;
        seen.bounds.x = 0.0;
        assert_eq!(suppress(vec![seen]).len(), 1);
        seen.landmarks[3][1] = f32::NAN;
        assert!(suppress(vec![seen]).is_empty());
    }

    #[test]
    fn landmarks_are_averaged_over_what_overlaps_well_by_the_scores() {
        let seen = |x: f32, confidence: f32, at: f32| Detection {
            bounds: Bounds {
                x,
                y: 0.0,
                width: 100.0,
                height: 100.0,
            },
            landmarks: [[at, 2.0 * at]; 5],
            confidence,
        };
        // The third overlaps the first by less than half, the last not at all.
        let all = [
            seen(0.0, 0.9, 10.0),
            seen(10.0, 0.6, 20.0),
            seen(40.0, 0.8, 99.0),
            seen(300.0, 0.8, 50.0),
        ];
        let kept = suppress(all.to_vec());
        assert_eq!((kept.len(), kept[0].bounds), (2, all[0].bounds));
        let [x, y] = kept[0].landmarks[4];
        assert!(
            (x - 14.0).abs() < 1e-4 && (y - 28.0).abs() < 1e-4,
            "{x} {y}"
        );
        assert_eq!(kept[1].landmarks, all[3].landmarks);
    }
}
