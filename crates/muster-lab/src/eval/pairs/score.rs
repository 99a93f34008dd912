//! Verification accuracy by the protocol of Labeled Faces in the Wild, view 2.
//!
//! A threshold is never judged on the pairs it was chosen on: each fold is scored with the
//! threshold that is best on all the others.

use serde::Serialize;

/// The share of different people that may pass as the same in [`Scores::tar_at_far_1e3`].
const FALSE_ACCEPT_RATE: f64 = 1e-3;
/// The similarity given to a pair one of whose photographs shows no face: never the same person.
pub const NO_FACE_SIMILARITY: f32 = -1.0;

/// A pair with its similarity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredPair {
    /// The fold the pair belongs to.
    pub fold: usize,
    /// Whether it is the same person in truth.
    pub same: bool,
    /// The cosine of the two embeddings.
    pub similarity: f32,
}

/// What similarities are worth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Scores {
    /// Mean over the folds of the share of pairs told right.
    pub accuracy: f64,
    /// Standard deviation of the folds' accuracies, over all folds (not a sample's).
    pub std: f64,
    /// Mean of the thresholds chosen for the folds.
    pub threshold: f64,
    /// The share of same-person pairs above the least threshold that lets at most one in 1,000
    /// different-person pairs pass.
    pub tar_at_far_1e3: f64,
}

/// Scores similarities by the standard protocol; all zero when there are fewer than two folds.
#[must_use]
pub fn score(pairs: &[ScoredPair]) -> Scores {
    let mut folds: Vec<_> = pairs.iter().map(|pair| pair.fold).collect();
    folds.sort_unstable();
    folds.dedup();
    if folds.len() < 2 {
        return Scores::default();
    }
    let mut accuracies = Vec::with_capacity(folds.len());
    let mut thresholds = Vec::with_capacity(folds.len());
    for fold in &folds {
        let (held_out, others): (Vec<_>, Vec<_>) = pairs
            .iter()
            .partition::<Vec<ScoredPair>, _>(|pair| pair.fold == *fold);
        let threshold = best_threshold(&others);
        let right = held_out
            .iter()
            .filter(|pair| (pair.similarity > threshold) == pair.same)
            .count();
        accuracies.push(right as f64 / held_out.len() as f64);
        thresholds.push(f64::from(threshold));
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let accuracy = mean(&accuracies);
    let squares: Vec<_> = accuracies
        .iter()
        .map(|value| (value - accuracy).powi(2))
        .collect();
    Scores {
        accuracy,
        std: mean(&squares).sqrt(),
        threshold: mean(&thresholds),
        tar_at_far_1e3: true_accepts(pairs, FALSE_ACCEPT_RATE),
    }
}

/// Finds the threshold that tells most pairs right, above it the same person; of a range of
/// equally good ones, the one in the middle.
fn best_threshold(pairs: &[ScoredPair]) -> f32 {
    let mut sorted = pairs.to_vec();
    sorted.sort_by(|a, b| a.similarity.total_cmp(&b.similarity));
    // Below the first pair every pair passes as the same person.
    let mut right = sorted.iter().filter(|pair| pair.same).count();
    let mut best = right;
    let lowest = sorted.first().map_or(0.0, |pair| pair.similarity);
    let mut ranges = vec![(NO_FACE_SIMILARITY.min(lowest) - 1.0, lowest)];
    for (index, pair) in sorted.iter().enumerate() {
        right = if pair.same { right - 1 } else { right + 1 };
        let above = sorted
            .get(index + 1)
            .map_or(pair.similarity + 1.0, |next| next.similarity);
        if above > pair.similarity && right >= best {
            if right > best {
                ranges.clear();
                best = right;
            }
            ranges.push((pair.similarity, above));
        }
    }
    let (low, high) = ranges[ranges.len() / 2];
    low + (high - low) / 2.0
}

fn true_accepts(pairs: &[ScoredPair], false_accept_rate: f64) -> f64 {
    let (same, mut different): (Vec<_>, Vec<_>) = pairs
        .iter()
        .partition::<Vec<ScoredPair>, _>(|pair| pair.same);
    if same.is_empty() || different.is_empty() {
        return 0.0;
    }
    different.sort_by(|a, b| b.similarity.total_cmp(&a.similarity));
    let allowed = (different.len() as f64 * false_accept_rate) as usize;
    // The first that may not pass sets the threshold: a pair must be above it.
    let threshold = different
        .get(allowed)
        .map_or(f32::NEG_INFINITY, |pair| pair.similarity);
    same.iter()
        .filter(|pair| pair.similarity > threshold)
        .count() as f64
        / same.len() as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair(fold: usize, same: bool, similarity: f32) -> ScoredPair {
        ScoredPair {
            fold,
            same,
            similarity,
        }
    }

    #[test]
    fn separable_similarities_score_one_with_a_threshold_between() {
        let pairs: Vec<_> = (0..3)
            .flat_map(|fold| {
                [
                    pair(fold, true, 0.6),
                    pair(fold, true, 0.8),
                    pair(fold, false, 0.2),
                ]
            })
            .collect();
        let scores = score(&pairs);
        assert_eq!(
            (scores.accuracy, scores.std, scores.tar_at_far_1e3),
            (1.0, 0.0, 1.0)
        );
        assert!((scores.threshold - 0.4).abs() < 1e-6);
    }

    #[test]
    fn the_threshold_of_a_fold_is_chosen_on_the_others() {
        // Alone, fold 1 would take a threshold under 0.3 and be told wholly right.
        let pairs = [
            pair(0, true, 0.9),
            pair(0, false, 0.5),
            pair(1, true, 0.3),
            pair(1, false, 0.1),
        ];
        let scores = score(&pairs);
        assert_eq!(scores.accuracy, 0.5);
        assert_eq!(scores.std, 0.0);
    }

    #[test]
    fn one_stranger_above_a_person_costs_true_accepts() {
        let pairs = [
            pair(0, true, 0.9),
            pair(0, true, 0.5),
            pair(0, false, 0.6),
            pair(1, false, 0.1),
        ];
        assert_eq!(score(&pairs).tar_at_far_1e3, 0.5);
    }

    proptest! {
        #[test]
        fn no_other_threshold_tells_more_pairs_right(
            pairs in prop::collection::vec((any::<bool>(), -10i8..10), 1..40),
            other in -1.5f32..1.5,
        ) {
            let pairs: Vec<_> = pairs
                .into_iter()
                .map(|(same, tenths)| pair(0, same, f32::from(tenths) / 10.0))
                .collect();
            let right = |threshold: f32| {
                pairs.iter().filter(|pair| (pair.similarity > threshold) == pair.same).count()
            };
            prop_assert!(right(best_threshold(&pairs)) >= right(other));
        }
    }
}
