//! Verification accuracy by the protocol of Labeled Faces in the Wild, view 2.
//!
//! A threshold is never judged on the pairs it was chosen on: each fold is scored with the
//! threshold that is best on all the others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Instant;

use muster_jobs::Embedding;
use muster_recognize::recognizer::{Analysis, Face, RecognizeError, Recognizer};
use serde::Serialize;

/// The share of different people that may pass as the same in [`Scores::tar_at_far_1e3`].
const FALSE_ACCEPT_RATE: f64 = 1e-3;

/// The similarity given to a pair one of whose photographs shows no face: never the same person.
const NO_FACE_SIMILARITY: f32 = -1.0;

/// One person's photograph: the `index`th, from 1, in the folder of `name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhotoRef {
    /// The person's name, which is the folder's.
    pub name: String,
    /// The number in the file's name.
    pub index: u32,
}

impl PhotoRef {
    /// Returns the photograph's file below `images`: `<name>/<name>_<index, four digits>.jpg`.
    #[must_use]
    pub fn path(&self, images: &Path) -> PathBuf {
        images
            .join(&self.name)
            .join(format!("{}_{:04}.jpg", self.name, self.index))
    }
}

/// Two photographs to be told the same person or different ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The fold the pair belongs to, from 0.
    pub fold: usize,
    /// One photograph.
    pub first: PhotoRef,
    /// The other photograph.
    pub second: PhotoRef,
}

impl Pair {
    /// Tells whether both photographs show the same person.
    #[must_use]
    pub fn same(&self) -> bool {
        self.first.name == self.second.name
    }
}

/// What is wrong with a file of pairs; lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairsError {
    /// The first line is not `folds pairs-per-class-per-fold`, with at least two folds.
    #[error("line 1: expected the number of folds, at least 2, and of pairs per class and fold")]
    Header,
    /// A line is neither `name i j` nor `name1 i name2 j`.
    #[error("line {line}: expected `name i j` or `name1 i name2 j`")]
    Line {
        /// The line.
        line: usize,
    },
    /// A name would leave the folder of images.
    #[error("line {line}: a name cannot be a path")]
    Name {
        /// The line.
        line: usize,
    },
    /// A pair of the one kind stands where the fold has the other.
    #[error("line {line}: expected a pair of {}", if *same { "one person" } else { "two people" })]
    Kind {
        /// The line.
        line: usize,
        /// Whether a pair of the same person belongs there.
        same: bool,
    },
    /// There are not as many pairs as the first line says.
    #[error("expected {expected} pairs, found {found}")]
    Count {
        /// As the first line says.
        expected: usize,
        /// As there are.
        found: usize,
    },
}

/// Reads pairs in the standard format: a first line `folds n`, then for each fold `n` lines
/// `name i j` of the same person and `n` lines `name1 i name2 j` of different people.
///
/// # Errors
///
/// [`PairsError`] with the line at fault.
pub fn parse_pairs(text: &str) -> Result<Vec<Pair>, PairsError> {
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line));
    let header = lines.next().map_or("", |(_, line)| line);
    let counts: Vec<usize> = header
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .unwrap_or_default();
    let &[folds, per_class] = counts.as_slice() else {
        return Err(PairsError::Header);
    };
    let expected = folds
        .checked_mul(2)
        .and_then(|classes| classes.checked_mul(per_class));
    let Some(expected) = expected.filter(|count| *count > 0 && folds > 1) else {
        return Err(PairsError::Header);
    };
    let mut pairs = Vec::new();
    for (line, text) in lines.filter(|(_, text)| !text.trim().is_empty()) {
        let photo = |name: &str, index: &str| {
            if name.contains(['/', '\\']) || name.starts_with('.') {
                return Err(PairsError::Name { line });
            }
            let index = index.parse().map_err(|_| PairsError::Line { line })?;
            Ok(PhotoRef {
                name: name.to_owned(),
                index,
            })
        };
        let fields: Vec<_> = text.split_whitespace().collect();
        let (first, second) = match fields.as_slice() {
            [name, i, j] => (photo(name, i)?, photo(name, j)?),
            [one, i, other, j] => (photo(one, i)?, photo(other, j)?),
            _ => return Err(PairsError::Line { line }),
        };
        let fold = pairs.len() / (2 * per_class);
        let same = pairs.len() % (2 * per_class) < per_class;
        let pair = Pair {
            fold,
            first,
            second,
        };
        if pair.same() != same {
            return Err(PairsError::Kind { line, same });
        }
        pairs.push(pair);
    }
    if pairs.len() != expected {
        return Err(PairsError::Count {
            expected,
            found: pairs.len(),
        });
    }
    Ok(pairs)
}

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

/// The figures of one evaluation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PairsReport {
    /// How many pairs were told apart.
    pub pairs: usize,
    /// In how many folds.
    pub folds: usize,
    /// What the similarities are worth.
    #[serde(flatten)]
    pub scores: Scores,
    /// Photographs in which no face was found; their pairs count as different people.
    pub no_face: usize,
    /// Photographs analysed a second, all recognizers together.
    pub images_per_s: f64,
}

/// Why an evaluation stopped.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// A photograph the pairs name cannot be read.
    #[error("cannot read the photograph {}", path.display())]
    Read {
        /// The photograph.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A photograph cannot be analysed.
    #[error("cannot analyse the photograph {}", path.display())]
    Analyze {
        /// The photograph.
        path: PathBuf,
        /// Why.
        #[source]
        source: RecognizeError,
    },
}

/// Chooses the face a portrait-like photograph is of.
///
/// Bystanders are smaller, further from the middle or both, so it is the face whose size most
/// exceeds its distance from the middle. Taking the largest would choose a bystander who stands
/// nearer to the camera, taking the nearest a small one that happens to be behind the middle.
#[must_use]
pub fn subject(analysis: &Analysis) -> Option<&Face> {
    let middle = [analysis.width as f32 / 2.0, analysis.height as f32 / 2.0];
    let prominence = |face: &Face| {
        let [x, y] = face.bounds.centre();
        face.bounds.area().sqrt() - ((x - middle[0]).powi(2) + (y - middle[1]).powi(2)).sqrt()
    };
    analysis
        .faces
        .iter()
        .max_by(|a, b| prominence(a).total_cmp(&prominence(b)))
}

/// Analyses photographs, one thread a recognizer, and answers of each the face that it is of.
///
/// `progress` is called with the number of photographs done so far, from any of the threads.
///
/// # Errors
///
/// [`EvaluateError`] for the first photograph that cannot be read or analysed.
pub fn subjects(
    recognizers: &mut [Recognizer],
    photos: &[PathBuf],
    progress: impl Fn(usize) + Sync,
) -> Result<Vec<Option<Face>>, EvaluateError> {
    let mut found: Vec<Option<Face>> = vec![None; photos.len()];
    let queue = Mutex::new((photos.iter().zip(&mut found), 0));
    let work = |recognizer: &mut Recognizer| -> Result<(), EvaluateError> {
        loop {
            let (path, face) = {
                let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                match queue.0.next() {
                    Some(next) => next,
                    None => return Ok(()),
                }
            };
            let path = || path.clone();
            let bytes = std::fs::read(path()).map_err(|source| EvaluateError::Read {
                path: path(),
                source,
            })?;
            let analysis = recognizer
                .analyze(&bytes)
                .map_err(|source| EvaluateError::Analyze {
                    path: path(),
                    source,
                })?;
            *face = subject(&analysis).cloned();
            let done = {
                let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                queue.1 += 1;
                queue.1
            };
            progress(done);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = recognizers
            .iter_mut()
            .map(|recognizer| {
                let work = &work;
                scope.spawn(move || work(recognizer))
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| match thread.join() {
                Ok(outcome) => outcome,
                Err(panic) => std::panic::resume_unwind(panic),
            })
    })?;
    Ok(found)
}

/// Analyses each photograph of `pairs` once, one thread a recognizer, and scores the pairs.
///
/// `progress` is called with the number of photographs done so far, from any of the threads.
///
/// # Errors
///
/// [`EvaluateError`] for the first photograph that cannot be read or analysed.
pub fn evaluate_pairs(
    recognizers: &mut [Recognizer],
    images: &Path,
    pairs: &[Pair],
    progress: impl Fn(usize) + Sync,
) -> Result<PairsReport, EvaluateError> {
    let both = pairs.iter().flat_map(|pair| [&pair.first, &pair.second]);
    let photos: BTreeSet<&PhotoRef> = both.collect();
    let paths: Vec<PathBuf> = photos.iter().map(|photo| photo.path(images)).collect();
    let started = Instant::now();
    let faces = subjects(recognizers, &paths, progress)?;
    let images_per_s = paths.len() as f64 / started.elapsed().as_secs_f64();
    let embeddings = faces.into_iter().map(|face| Some(face?.embedding));
    let found: BTreeMap<&PhotoRef, Option<Embedding>> =
        photos.into_iter().zip(embeddings).collect();

    let embedding = |photo: &PhotoRef| found.get(photo).and_then(Option::as_ref);
    let scored: Vec<_> = pairs
        .iter()
        .map(|pair| ScoredPair {
            fold: pair.fold,
            same: pair.same(),
            similarity: match (embedding(&pair.first), embedding(&pair.second)) {
                (Some(first), Some(second)) => first.cosine(second),
                _ => NO_FACE_SIMILARITY,
            },
        })
        .collect();
    Ok(PairsReport {
        pairs: pairs.len(),
        folds: pairs.last().map_or(0, |pair| pair.fold + 1),
        scores: score(&scored),
        no_face: found
            .values()
            .filter(|embedding| embedding.is_none())
            .count(),
        images_per_s,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TWO_FOLDS: &str = "2 1\nAda 1 2\nAda\t1\tBob\t1\nBob 1 3\nBob 2 Cleo 1\n";

    #[test]
    fn pairs_are_read_fold_by_fold() {
        let pairs = parse_pairs(TWO_FOLDS).unwrap();
        assert_eq!(
            pairs.iter().map(|pair| pair.fold).collect::<Vec<_>>(),
            [0, 0, 1, 1]
        );
        assert_eq!(
            pairs.iter().map(Pair::same).collect::<Vec<_>>(),
            [true, false, true, false]
        );
        assert_eq!(
            pairs[2].second,
            PhotoRef {
                name: "Bob".into(),
                index: 3
            }
        );
        assert_eq!(
            pairs[2].second.path(Path::new("i")),
            Path::new("i/Bob/Bob_0003.jpg")
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let wrong = |text: &str| parse_pairs(text).unwrap_err();
        for header in [
            "",
            "two 1",
            "300",
            "1 300",
            "2 0",
            "99999999999999 99999999999999",
        ] {
            assert_eq!(wrong(header), PairsError::Header);
        }
        assert_eq!(wrong("2 1\nAda 1\n"), PairsError::Line { line: 2 });
        assert_eq!(
            wrong("2 1\nAda 1 2\nAda 1 Bob x\n"),
            PairsError::Line { line: 3 }
        );
        assert_eq!(
            wrong("2 1\n\nAda 1 2\n../Ada 1 Bob 1\n"),
            PairsError::Name { line: 4 }
        );
        assert_eq!(
            wrong("2 1\nAda 1 Bob 2\n"),
            PairsError::Kind {
                line: 2,
                same: true
            }
        );
        assert_eq!(
            wrong("2 1\nAda 1 2\nAda 1 Bob 1\n"),
            PairsError::Count {
                expected: 4,
                found: 2
            }
        );
        assert_eq!(
            wrong("2 1\nAda 1\n").to_string(),
            "line 2: expected `name i j` or `name1 i name2 j`"
        );
    }

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
