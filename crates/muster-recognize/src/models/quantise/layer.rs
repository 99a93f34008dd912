//! A convolution or fully connected layer, while it is made one of 8 bits.

use std::collections::HashMap;

use super::super::onnx::{Node, Tensor};
use super::super::prepare::{PrepareError, refuse};

/// The largest quantised weight: 7 bits of the 8.
///
/// Processors without VNNI add two products of a byte and a weight in 16 bits, and what does not fit is cut
/// off without a word: 2 x 255 x 64 fits, 2 x 255 x 127 does not. OpenVINO's documentation calls it the
/// saturation issue, and has this remedy. With it, all processors compute the same sums.
pub(super) const MOST: f64 = 64.0;

/// The `epsilon` of a `BatchNormalization` that says none (ONNX's operator).
const EPSILON: f32 = 1e-5;

/// The weights and biases of a `Conv`, or of a `Gemm` with its weights transposed.
pub(super) struct Layer {
    /// The weights' shape: output channels first.
    pub dims: Vec<i64>,
    weights: Vec<f64>,
    /// One an output channel.
    biases: Vec<f64>,
}

/// What a batch norm does to each channel: `value * factor + offset`.
pub(super) struct BatchNorm {
    channels: Vec<(f64, f64)>,
}

/// The floats of a node's input, if it is stored.
fn floats(node: &Node, at: usize, stored: &HashMap<&str, &Tensor>) -> Option<Vec<f64>> {
    let tensor = stored.get(node.input.get(at)?.as_str())?;
    Some(tensor.floats()?.iter().copied().map(f64::from).collect())
}

impl Layer {
    /// Reads a layer.
    ///
    /// # Errors
    /// [`PrepareError::Node`] when its weights or biases are not stored, or it scales or transposes them.
    pub(super) fn of(node: &Node, stored: &HashMap<&str, &Tensor>) -> Result<Self, PrepareError> {
        if node.op_type == "Gemm" {
            let as_they_are = |name| node.float(name).is_none_or(|factor| factor == 1.0);
            if !as_they_are("alpha") || !as_they_are("beta") || node.int("transB") != Some(1) {
                return Err(refuse(node, "its weights are scaled or not transposed"));
            }
        }
        let weights = floats(node, 1, stored).filter(|weights| {
            !weights.is_empty() && weights.iter().all(|weight| weight.is_finite())
        });
        let Some(weights) = weights else {
            return Err(refuse(node, "its weights are not whole fp32"));
        };
        let dims = stored[node.input[1].as_str()].dims.clone();
        let channels = dims.first().map_or(1, |&channels| channels as usize);
        let biases = match node.input.len() {
            2 => Some(vec![0.0; channels]),
            _ => floats(node, 2, stored).filter(|biases| biases.len() == channels),
        };
        let biases = biases.ok_or_else(|| refuse(node, "its biases are not one a channel"))?;
        Ok(Self {
            dims,
            weights,
            biases,
        })
    }

    /// How many output channels it has.
    pub(super) fn channels(&self) -> usize {
        self.biases.len()
    }

    /// Takes in the batch norm behind it.
    pub(super) fn fold(&mut self, norm: &BatchNorm) {
        let a_channel = self.weights.len() / self.channels();
        for ((weights, bias), (factor, offset)) in (self.weights.chunks_exact_mut(a_channel))
            .zip(&mut self.biases)
            .zip(&norm.channels)
        {
            for weight in weights {
                *weight *= factor;
            }
            *bias = *bias * factor + offset;
        }
    }

    /// The weights in whole steps of their channel, -64 to 64, and the channels' steps.
    pub(super) fn quantised(&self) -> (Vec<i8>, Vec<f32>) {
        let a_channel = self.weights.len() / self.channels();
        let (mut steps, mut scales) = (Vec::new(), Vec::new());
        for weights in self.weights.chunks_exact(a_channel) {
            let largest = weights
                .iter()
                .fold(0.0_f64, |most, weight| most.max(weight.abs()));
            let scale = (largest / MOST) as f32;
            // Of a channel without weights any step is right.
            let scale = if scale.is_normal() { scale } else { 1.0 };
            let step = |weight: &f64| (weight / f64::from(scale)).round_ties_even() as i8;
            steps.extend(weights.iter().map(step));
            scales.push(scale);
        }
        (steps, scales)
    }

    /// The biases.
    pub(super) fn bias(&self) -> Vec<f32> {
        self.biases.iter().map(|&bias| bias as f32).collect()
    }
}

impl BatchNorm {
    /// Reads a `BatchNormalization` of so many channels.
    ///
    /// `(value - mean) / sqrt(variance + epsilon) * gamma + beta`, by the ONNX operator's definition.
    ///
    /// # Errors
    /// [`PrepareError::Node`] when one of the four is not stored with a value for each channel, or one of
    /// the factors is not finite.
    pub(super) fn of(
        node: &Node,
        channels: usize,
        stored: &HashMap<&str, &Tensor>,
    ) -> Result<Self, PrepareError> {
        let part = |at| floats(node, at, stored).filter(|values| values.len() == channels);
        let (Some(gamma), Some(beta), Some(mean), Some(variance)) =
            (part(1), part(2), part(3), part(4))
        else {
            return Err(refuse(node, "its parameters are not one a channel"));
        };
        let epsilon = f64::from(node.float("epsilon").unwrap_or(EPSILON));
        let channel = |at: usize| {
            let factor = gamma[at] / (variance[at] + epsilon).sqrt();
            (factor, beta[at] - mean[at] * factor)
        };
        let channels: Vec<(f64, f64)> = (0..channels).map(channel).collect();
        if !channels
            .iter()
            .all(|(factor, offset)| factor.is_finite() && offset.is_finite())
        {
            return Err(refuse(node, "a channel's factor is not finite"));
        }
        Ok(Self { channels })
    }
}
