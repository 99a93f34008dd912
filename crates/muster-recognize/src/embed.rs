//! The embedding model, which makes an [`Embedding`] of a face.

use std::borrow::Cow;

use muster_jobs::Embedding;

use crate::align::{ALIGNED_SIZE, Aligner};
use crate::bounds::Bounds;
use crate::decode::Photo;
use crate::engine::{Engine, EngineError, Session};
use crate::models::{ColourOrder, EmbedderModel, Input, Placement};
use crate::turn::Turn;

/// What the model makes of a face.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedded {
    /// Who it looks like.
    pub embedding: Embedding,
    /// The embedding's length before it was scaled to one: the more of a face the model saw, the longer
    /// it is. Of a model that scales it itself, 1.
    pub length: f32,
}

/// The embedding model, on one face at a time.
pub struct Embedder {
    session: Session,
    input: Input,
    placement: Placement,
    /// How long an embedding of a good face is, where that is known.
    good_length: Option<f32>,
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
            good_length: model.embedding_length,
        })
    }

    /// Fills the input tensor with a face: of `aligned`, planar RGB `[3, 112, 112]`, 0-255, or cut
    /// out of the photograph by its box, and turned as the photograph has to be.
    ///
    /// # Errors
    ///
    /// [`EngineError::Run`].
    pub fn feed(
        &mut self,
        aligner: &mut Aligner,
        photo: &Photo,
        bounds: &Bounds,
        turn: Turn,
        aligned: &[f32],
    ) -> Result<(), EngineError> {
        let Self {
            session,
            input,
            placement,
            ..
        } = self;
        let tensor = session.input_mut()?;
        match placement {
            Placement::FivePoint => {
                let planes: Vec<_> = aligned.chunks_exact(ALIGNED_SIZE * ALIGNED_SIZE).collect();
                fill(input, tensor, |colour| planes[colour].iter().copied());
            }
            Placement::Box { margin } => {
                let (width, height) = (input.width, input.height);
                let [wide, tall] = if turn.is_quarter() {
                    [height, width]
                } else {
                    [width, height]
                };
                let cut = aligner.cut(photo, bounds, *margin, wide, tall);
                let (cut, _) = cut.as_chunks::<3>();
                let mut pixels = Cow::Borrowed(cut);
                if turn != Turn::None {
                    let pixels = pixels.to_mut();
                    for (at, pixel) in cut.iter().enumerate() {
                        let [wide, tall] = [wide, tall].map(|side| side as usize);
                        let [x, y] = turn.pixel([at % wide, at / wide], [wide, tall]);
                        pixels[y * width as usize + x] = *pixel;
                    }
                }
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
    pub fn embed(&mut self) -> Result<Embedded, EngineError> {
        self.run_alone()?;
        let output = self.session.only_output()?;
        let values = output.values()?;
        let embedding = Embedding::normalise(values).map_err(EngineError::Meaningless)?;
        let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
        Ok(Embedded { embedding, length })
    }

    /// Runs the model on the face in the input tensor and on its mirror image, and answers the mean of the
    /// two: what is chance in a face of few pixels is another chance in its mirror image.
    ///
    /// # Errors
    ///
    /// As [`Self::embed`].
    pub fn embed_with_mirror_image(&mut self) -> Result<Embedded, EngineError> {
        let seen = self.embed()?;
        let width = self.input.width as usize;
        for row in self.session.input_mut()?.chunks_exact_mut(width) {
            row.reverse();
        }
        let mirrored = self.embed()?;
        let both = (seen.embedding.as_slice().iter()).zip(mirrored.embedding.as_slice());
        let sum: Vec<f32> = both.map(|(one, other)| one + other).collect();
        Ok(Embedded {
            embedding: Embedding::normalise(&sum).map_err(EngineError::Meaningless)?,
            length: (seen.length + mirrored.length) / 2.0,
        })
    }

    /// Tells how much of a face was seen, by what was made of it ([`strength`](muster_jobs::Quality::strength)).
    pub fn strength(&self, made: &Embedded) -> Option<f32> {
        self.good_length.map(|good| made.length / good)
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
}
