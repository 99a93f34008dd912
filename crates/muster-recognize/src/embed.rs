//! Embeddings: the numbers that stand for a face, and the model that makes them.
//!
//! An [`Embedding`] always has length one, so that a dot product is the cosine.

use std::path::PathBuf;

use crate::align::{ALIGNED_SIZE, Aligner};
use crate::decode::Photo;
use crate::detect::Bounds;
use crate::engine::{Engine, EngineError, Session};
use crate::models::{self, ColourOrder, Input, Placement};

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
pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f32 {
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

/// The same of a stored vector, whose values are little-endian; gives the very same result.
pub(crate) fn cosine_le(a: &[[u8; 4]], b: &[f32]) -> f32 {
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

/// An embedding model's file, and what its manifest says of it.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbedderModel {
    /// Its name: embeddings are kept under it.
    pub name: String,
    /// The ONNX file.
    pub file: PathBuf,
    /// What it is fed.
    pub input: Input,
    /// How a face is cut out for it.
    pub placement: Placement,
    /// Numbers of an embedding.
    pub dimensions: usize,
}

impl EmbedderModel {
    /// The model of a manifest's entry, in that file.
    #[must_use]
    pub fn of(entry: &models::Embedder, file: PathBuf) -> Self {
        Self {
            name: entry.name.clone(),
            file,
            input: entry.input.clone(),
            placement: entry.placement(),
            dimensions: entry.dimensions,
        }
    }
}

/// The embedding model, on one face at a time.
pub struct Embedder {
    session: Session,
    input: Input,
    placement: Placement,
}

impl Embedder {
    /// Compiles a model for its input, `[1, 3, height, width]`.
    ///
    /// # Errors
    ///
    /// [`EngineError::Model`], or [`EngineError::Unsuitable`] when its one input or its one output,
    /// `[1, dimensions]`, is not as the manifest says.
    pub fn load(engine: &mut Engine, model: &EmbedderModel) -> Result<Self, EngineError> {
        let (width, height) = (model.input.width, model.input.height);
        let shape = [1, 3, i64::from(height), i64::from(width)];
        let mut source = engine.read(&model.file)?;
        let own = source.input_shape()?;
        let fits = |(own, wanted): (&Option<i64>, i64)| own.is_none_or(|own| own == wanted);
        if own.len() != shape.len() || !own.iter().zip(shape).all(fits) {
            let own = own
                .iter()
                .map(|side| side.map_or("?".to_owned(), |side| side.to_string()));
            return Err(source.unsuitable(format!(
                "the manifest says that its input is {shape:?}, and it is [{}]: set `width` and \
                 `height` as the model was exported, with the colours before them",
                own.collect::<Vec<_>>().join(", ")
            )));
        }
        if source.outputs()? != 1 {
            return Err(source.unsuitable(format!(
                "one output, the embedding, was expected, and it has {}: export it with that alone",
                source.outputs()?
            )));
        }
        let mut session = engine.compile(&mut source, &model.input.name, shape)?;
        // What depends on the values is known only after a run.
        session.input_mut()?.fill(0.0);
        session.run()?;
        let output = session.only_output()?;
        let (expected, found) = ([1, model.dimensions as i64], output.shape()?);
        if found != expected {
            return Err(source.unsuitable(format!(
                "the manifest says that its output is {expected:?}, and it is {found:?}: set \
                 `dimensions` to what the model gives, or export it with an output of two axes"
            )));
        }
        if !output.is_f32()? {
            return Err(source.unsuitable("an output of 32-bit floats was expected"));
        }
        Ok(Self {
            session,
            input: model.input.clone(),
            placement: model.placement,
        })
    }

    /// Fills the input tensor with a face: of `aligned`, planar RGB `[3, 112, 112]`, 0-255, or cut
    /// out of the photograph by its box.
    ///
    /// # Errors
    ///
    /// [`EngineError::Run`].
    pub fn feed(
        &mut self,
        aligner: &mut Aligner,
        photo: &Photo,
        bounds: &Bounds,
        aligned: &[f32],
    ) -> Result<(), EngineError> {
        let Self {
            session,
            input,
            placement,
        } = self;
        let tensor = session.input_mut()?;
        match placement {
            Placement::FivePoint => {
                let planes: Vec<_> = aligned.chunks_exact(ALIGNED_SIZE * ALIGNED_SIZE).collect();
                fill(input, tensor, |colour| planes[colour].iter().copied());
            }
            Placement::Box { margin } => {
                let (width, height) = (input.width, input.height);
                let pixels = aligner
                    .cut(photo, bounds, *margin, width, height)
                    .as_chunks::<3>()
                    .0;
                fill(input, tensor, |colour| {
                    pixels.iter().map(move |pixel| f32::from(pixel[colour]))
                });
            }
        }
        Ok(())
    }

    /// Runs the model on the face in the input tensor.
    ///
    /// # Errors
    ///
    /// [`EngineError::Run`], or [`EngineError::Meaningless`] when the values have no direction.
    pub fn embed(&mut self) -> Result<Embedding, EngineError> {
        self.run_alone()?;
        Embedding::normalise(self.session.only_output()?.values()?)
            .map_err(EngineError::Meaningless)
    }

    /// Runs the model on whatever the input tensor holds, and reads nothing.
    ///
    /// # Errors
    ///
    /// [`EngineError::Run`].
    pub fn run_alone(&mut self) -> Result<(), EngineError> {
        self.session.run()
    }
}

/// Fills a planar tensor with the colours red, green and blue (0, 1, 2), 0-255, in the order, with
/// the mean and at the scale of the input.
fn fill<I: Iterator<Item = f32>>(input: &Input, tensor: &mut [f32], plane: impl Fn(usize) -> I) {
    let order = match input.colour_order {
        ColourOrder::Rgb => [0, 1, 2],
        ColourOrder::Bgr => [2, 1, 0],
    };
    let pixels = input.width as usize * input.height as usize;
    for (to, colour) in tensor.chunks_exact_mut(pixels).zip(order) {
        for (to, value) in to.iter_mut().zip(plane(colour)) {
            *to = (value - input.mean) * input.scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
    fn a_tensor_has_the_colours_in_order_shifted_and_scaled() {
        let mut input = Input {
            name: "x".to_owned(),
            width: 2,
            height: 1,
            colour_order: ColourOrder::Bgr,
            mean: 127.5,
            scale: 2.0,
        };
        let colours = [[0.0, 1.0], [10.0, 11.0], [20.0, 21.0]];
        let mut tensor = [f32::NAN; 6];
        fill(&input, &mut tensor, |colour| colours[colour].into_iter());
        assert_eq!(tensor, [-215.0, -213.0, -235.0, -233.0, -255.0, -253.0]);
        (input.colour_order, input.mean, input.scale) = (ColourOrder::Rgb, 0.0, 1.0);
        fill(&input, &mut tensor, |colour| colours[colour].into_iter());
        assert_eq!(tensor, [0.0, 1.0, 10.0, 11.0, 20.0, 21.0]);
    }

    #[test]
    fn embeddings_of_different_models_are_unlike() {
        let short = Embedding::normalise(&[1.0, 0.0]).unwrap();
        let long = Embedding::normalise(&[1.0, 0.0, 0.0]).unwrap();
        assert_eq!(short.cosine(&long), 0.0);
    }
}
