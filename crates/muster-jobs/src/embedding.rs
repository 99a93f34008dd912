//! Embeddings: the numbers that stand for a face.
//!
//! An [`Embedding`] always has length one, so that a dot product is the cosine.

/// Why numbers or bytes are no embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EmbeddingError {
    /// The bytes do not divide into 32-bit floats.
    #[error("{length} bytes are not a row of 32-bit floats")]
    Length {
        /// How many bytes there were.
        length: usize,
    },
    /// Empty, not finite, or all zero: no direction.
    #[error("the values have no direction")]
    NoDirection,
    /// The values have a direction but not the length one.
    #[error("the values do not have the length one")]
    NotUnit,
}

/// Sums that a dot product keeps apart.
const LANES: usize = 16;

/// A face as a unit vector: the cosine of two tells how alike they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding(Box<[f32]>);

impl Embedding {
    /// How far a stored vector's length may be from one.
    const UNIT_TOLERANCE: f32 = 1e-3;

    /// Scales `values` to length one.
    ///
    /// # Errors
    ///
    /// [`EmbeddingError::NoDirection`] when they are empty, not finite or all zero.
    pub fn normalise(values: &[f32]) -> Result<Self, EmbeddingError> {
        let length = length(values);
        if !length.is_normal() {
            return Err(EmbeddingError::NoDirection);
        }
        Ok(Self(
            values
                .iter()
                .map(|value| (f64::from(*value) / length) as f32)
                .collect(),
        ))
    }

    /// Takes values that already have length one, as they are.
    ///
    /// # Errors
    ///
    /// [`EmbeddingError::NoDirection`] or, when the length is off by more than a thousandth,
    /// [`EmbeddingError::NotUnit`].
    pub fn from_unit(values: impl Into<Box<[f32]>>) -> Result<Self, EmbeddingError> {
        let values = values.into();
        let length = length(&values);
        if !length.is_normal() {
            return Err(EmbeddingError::NoDirection);
        }
        if (length - 1.0).abs() > f64::from(Self::UNIT_TOLERANCE) {
            return Err(EmbeddingError::NotUnit);
        }
        Ok(Self(values))
    }

    /// Reads little-endian 32-bit floats, as written by [`Embedding::to_bytes`].
    ///
    /// # Errors
    ///
    /// [`EmbeddingError`] when the bytes are not a unit vector.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EmbeddingError> {
        let (rows, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(EmbeddingError::Length {
                length: bytes.len(),
            });
        }
        Self::from_unit(
            rows.iter()
                .map(|row| f32::from_le_bytes(*row))
                .collect::<Vec<_>>(),
        )
    }

    /// Writes the values as little-endian 32-bit floats, without a header.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }

    /// Returns the cosine of the angle to `other`, -1 to 1.
    ///
    /// Embeddings of different dimensions come from different models and say nothing of each
    /// other: their cosine is 0.
    #[must_use]
    pub fn cosine(&self, other: &Self) -> f32 {
        cosine(&self.0, &other.0)
    }

    /// Lends the values.
    #[must_use]
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }

    /// Returns how many values there are.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.0.len()
    }
}

/// The cosine of two unit vectors; 0 where their dimensions differ.
#[inline]
#[must_use]
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    if a.len() != b.len() {
        return 0.0;
    }
    // Independent sums, so that the compiler may use whole vector registers.
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    (sums.iter().sum::<f32>() + rest).clamp(-1.0, 1.0)
}

/// The cosine of a stored vector, whose values are little-endian, and another; the very number that
/// [`cosine`] gives.
#[inline]
#[must_use]
pub fn cosine_le(a: &[[u8; 4]], b: &[f32]) -> f32 {
    if a.len() != b.len() {
        return 0.0;
    }
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += f32::from_le_bytes(a[lane]) * b[lane];
        }
    }
    let products = a_rest
        .iter()
        .zip(b_rest)
        .map(|(a, b)| f32::from_le_bytes(*a) * b);
    let rest: f32 = products.sum();
    (sums.iter().sum::<f32>() + rest).clamp(-1.0, 1.0)
}

fn length(values: &[f32]) -> f64 {
    values
        .iter()
        .map(|value| f64::from(*value).powi(2))
        .sum::<f64>()
        .sqrt()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values() -> impl Strategy<Value = Vec<f32>> {
        prop::collection::vec(-100.0f32..100.0, 1..200)
            .prop_filter("needs a direction", |values| length(values) > 1e-3)
    }

    proptest! {
        #[test]
        fn normalised_values_have_length_one_and_cosine_one_with_themselves(values in values()) {
            let embedding = Embedding::normalise(&values).unwrap();
            prop_assert!((length(embedding.as_slice()) - 1.0).abs() < 1e-5);
            prop_assert!((embedding.cosine(&embedding) - 1.0).abs() < 1e-5);
        }

        #[test]
        fn bytes_bring_back_the_same_embedding(values in values()) {
            let embedding = Embedding::normalise(&values).unwrap();
            prop_assert_eq!(Embedding::from_bytes(&embedding.to_bytes()).unwrap(), embedding);
        }

        #[test]
        fn scaling_the_values_does_not_change_the_direction(values in values(), by in 0.01f32..50.0) {
            let scaled: Vec<_> = values.iter().map(|value| value * by).collect();
            let cosine = Embedding::normalise(&values)
                .unwrap()
                .cosine(&Embedding::normalise(&scaled).unwrap());
            prop_assert!(cosine > 0.9999);
        }

        #[test]
        fn bytes_of_any_kind_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(embedding) = Embedding::from_bytes(&bytes) {
                prop_assert!((length(embedding.as_slice()) - 1.0).abs() < 2e-3);
            }
        }
    }

    #[test]
    fn values_without_a_direction_are_refused() {
        for values in [
            vec![],
            vec![0.0; 4],
            vec![f32::NAN, 1.0],
            vec![f32::INFINITY, 1.0],
        ] {
            assert_eq!(
                Embedding::normalise(&values),
                Err(EmbeddingError::NoDirection)
            );
            assert_eq!(
                Embedding::from_unit(values),
                Err(EmbeddingError::NoDirection)
            );
        }
        assert_eq!(
            Embedding::from_unit(vec![2.0, 0.0]),
            Err(EmbeddingError::NotUnit)
        );
        assert_eq!(
            Embedding::from_bytes(&[0; 5]),
            Err(EmbeddingError::Length { length: 5 })
        );
    }

    #[test]
    fn embeddings_of_different_models_are_unlike() {
        let short = Embedding::normalise(&[1.0, 0.0]).unwrap();
        let long = Embedding::normalise(&[1.0, 0.0, 0.0]).unwrap();
        assert_eq!(short.cosine(&long), 0.0);
    }
}
