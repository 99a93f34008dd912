//! The file of pairs of Labeled Faces in the Wild.

use std::path::{Path, PathBuf};

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

#[cfg(test)]
mod tests {
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
}
