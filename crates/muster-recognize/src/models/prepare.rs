//! Turning a block-quantised ONNX model into a plain one that every runtime takes, and one with
//! vanishing weights into one without.
//!
//! Equal bytes in give equal bytes out, so that the result is pinned by its hash like
//! everything else that is installed.

use std::collections::{HashMap, HashSet};

use prost::Message;

use super::onnx::{Graph, Model, Node, Tensor};

/// Why a model could not be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// The bytes are no ONNX model.
    #[error("it is not an ONNX model")]
    Decode(#[source] prost::DecodeError),
    /// The model holds something that would be lost.
    #[error(
        "it holds fields that the preparation does not know ({lost_bytes} bytes would be lost)"
    )]
    Lossy {
        /// Bytes by which the model would shrink.
        lost_bytes: usize,
    },
    /// A node cannot be folded or quantised.
    #[error("node {node:?} cannot be prepared: {reason}")]
    Node {
        /// The node's name.
        node: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The graph misses a part.
    #[error("{0}")]
    Graph(&'static str),
    /// A Python module does not hold the bytes.
    #[error("the bytes literal {name} can not be read: {reason}")]
    Literal {
        /// What it is assigned to.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// Dequantises the weights of `model` and strips what only training needs.
///
/// - Blocked `DequantizeLinear` nodes on initializers, and a `Reshape` behind one, become plain
///   fp32 initializers: `(q - zero_point) * scale` of the block, by the ONNX operator's definition.
/// - Of the graph's inputs only `input` stays: the others are initializers listed a second time.
/// - `Dropout` nodes go, and with them constants and initializers that nothing reads any more.
///
/// # Errors
/// Any malformed model; what is allocated stays within about ten times the size of `model`.
pub fn dequantise(model: &[u8], input: &str) -> Result<Vec<u8>, PrepareError> {
    let mut parsed = parse(model)?;
    let graph = parsed
        .graph
        .as_mut()
        .ok_or(PrepareError::Graph("it has no graph"))?;
    fold(graph, 2 * model.len())?;
    graph
        .input
        .retain(|value| value.name.as_deref() == Some(input));
    if graph.input.is_empty() {
        return Err(PrepareError::Graph(
            "its graph has no input of the expected name",
        ));
    }
    Ok(parsed.encode_to_vec())
}

/// Makes the weights of `model` that are nearer to zero than `below` zero.
///
/// Training with weight decay leaves filters that nothing needs at values like 1e-30. Products of
/// those are below what a processor computes with in hardware (1.2e-38), and each takes it a hundred
/// times as long.
///
/// # Errors
/// [`PrepareError::Decode`], [`PrepareError::Lossy`], or a model without a graph.
pub fn flush(model: &[u8], below: f32) -> Result<Vec<u8>, PrepareError> {
    let mut parsed = parse(model)?;
    let graph = parsed
        .graph
        .as_mut()
        .ok_or(PrepareError::Graph("it has no graph"))?;
    for tensor in &mut graph.initializer {
        let vanishes = |value: f32| value.abs() < below;
        let vanishing = tensor
            .floats()
            .is_some_and(|values| values.iter().any(|value| vanishes(*value)));
        if vanishing {
            tensor.change_floats(|value| if vanishes(value) { 0.0 } else { value });
        }
    }
    Ok(parsed.encode_to_vec())
}

/// Reads a model of which nothing is lost when it is written again.
pub(super) fn parse(model: &[u8]) -> Result<Model, PrepareError> {
    let parsed = Model::decode(model).map_err(PrepareError::Decode)?;
    let lost_bytes = model.len().abs_diff(parsed.encoded_len());
    if lost_bytes != 0 {
        return Err(PrepareError::Lossy { lost_bytes });
    }
    Ok(parsed)
}

fn fold(graph: &mut Graph, floats_left: usize) -> Result<(), PrepareError> {
    let mut weights = Weights {
        stored: graph
            .initializer
            .iter()
            .filter_map(|tensor| Some((tensor.name.as_deref()?, tensor)))
            .collect(),
        folded: Vec::new(),
        place: HashMap::new(),
        floats_left,
    };
    // What a dropped node's output is called where it is read.
    let mut renamed: HashMap<String, String> = HashMap::new();
    let mut nodes = Vec::with_capacity(graph.node.len());
    for mut node in std::mem::take(&mut graph.node) {
        for name in &mut node.input {
            if let Some(source) = renamed.get(name) {
                name.clone_from(source);
            }
        }
        match node.op_type.as_str() {
            "DequantizeLinear" => weights.dequantise(&node)?,
            "Reshape"
                if node
                    .input
                    .first()
                    .is_some_and(|name| weights.place.contains_key(name)) =>
            {
                weights.reshape(&node)?;
            }
            "Dropout" => {
                let (Some(source), Some(target)) = (node.input.first(), node.output.first()) else {
                    return Err(refuse(&node, "it has no input or no output"));
                };
                renamed.insert(target.clone(), source.clone());
            }
            _ => nodes.push(node),
        }
    }
    let folded = weights.folded;

    let mut read: HashSet<&str> = nodes
        .iter()
        .flat_map(|node| &node.input)
        .map(String::as_str)
        .collect();
    read.extend(
        graph
            .output
            .iter()
            .filter_map(|value| value.name.as_deref()),
    );
    if graph.output.iter().any(|value| {
        value
            .name
            .as_ref()
            .is_some_and(|name| renamed.contains_key(name))
    }) {
        return Err(PrepareError::Graph("its output is a Dropout"));
    }
    let is_read = |tensor: &Tensor| {
        tensor
            .name
            .as_deref()
            .is_some_and(|name| read.contains(name))
    };
    graph.initializer.retain(is_read);
    graph.initializer.extend(folded.into_iter().filter(is_read));
    let unread: HashSet<usize> = (0..nodes.len())
        .filter(|&at| {
            nodes[at].op_type == "Constant"
                && !nodes[at]
                    .output
                    .iter()
                    .any(|name| read.contains(name.as_str()))
        })
        .collect();
    graph.node = nodes
        .into_iter()
        .enumerate()
        .filter(|(at, _)| !unread.contains(at))
        .map(|(_, node)| node)
        .collect();
    // Shapes of tensors in between: they name folded ones, and every runtime infers its own.
    graph.value_info.clear();
    Ok(())
}

/// The graph's initializers, and those that folding has made.
struct Weights<'a> {
    stored: HashMap<&'a str, &'a Tensor>,
    folded: Vec<Tensor>,
    /// Where in `folded` a node's output is.
    place: HashMap<String, usize>,
    /// Floats that may still be made: every weight once flat and once reshaped, so that no model
    /// grows without bound.
    floats_left: usize,
}

impl Weights<'_> {
    fn dequantise(&mut self, node: &Node) -> Result<(), PrepareError> {
        let stored = |at: usize| {
            node.input
                .get(at)
                .and_then(|name| self.stored.get(name.as_str()).copied())
        };
        let (Some(quantised), Some(scale)) = (stored(0), stored(1)) else {
            return Err(refuse(node, "its weights or scales are not initializers"));
        };
        let zero_point = stored(2);
        if zero_point.is_none() && node.input.len() > 2 {
            return Err(refuse(node, "its zero points are not initializers"));
        }
        let block = node
            .int("block_size")
            .and_then(|size| usize::try_from(size).ok())
            .filter(|&size| size > 0);
        let block = block.ok_or_else(|| refuse(node, "it has no block size"))?;
        let rank = quantised.dims.len();
        let axis = node.int("axis").unwrap_or(1);
        let axis = usize::try_from(if axis < 0 { axis + rank as i64 } else { axis })
            .ok()
            .filter(|&axis| axis < rank);
        let axis = axis.ok_or_else(|| refuse(node, "its axis is outside the weights"))?;

        let values = quantised
            .int8s()
            .ok_or_else(|| refuse(node, "its weights are not whole int8"))?;
        let scales = scale
            .floats()
            .ok_or_else(|| refuse(node, "its scales are not whole fp32"))?;
        let zero_points = match zero_point {
            Some(tensor) if tensor.dims == scale.dims => Some(
                tensor
                    .int8s()
                    .ok_or_else(|| refuse(node, "its zero points are not whole int8"))?,
            ),
            Some(_) => return Err(refuse(node, "its zero points and scales differ in shape")),
            None => None,
        };

        let along = quantised.dims[axis] as usize;
        let mut expected = quantised.dims.clone();
        expected[axis] = along.div_ceil(block) as i64;
        if scale.dims != expected {
            return Err(refuse(node, "its scales do not cover the weights"));
        }
        self.spend(node, quantised)?;
        let inner: usize = quantised.dims[axis + 1..]
            .iter()
            .map(|&dim| dim as usize)
            .product();
        let blocks = along.div_ceil(block);
        let floats: Vec<f32> = values
            .iter()
            .enumerate()
            .map(|(at, &value)| {
                let (column, row) = (at % inner, at / inner);
                let of = (row / along * blocks + row % along / block) * inner + column;
                let zero = zero_points.map_or(0, |zeros| zeros[of] as i8);
                f32::from(i16::from(value as i8) - i16::from(zero)) * scales[of]
            })
            .collect();
        self.add(node, |name| {
            Tensor::of_floats(name, quantised.dims.clone(), &floats)
        })
    }

    fn reshape(&mut self, node: &Node) -> Result<(), PrepareError> {
        let source = node
            .input
            .first()
            .and_then(|name| self.place.get(name))
            .copied();
        let shape = node
            .input
            .get(1)
            .and_then(|name| self.stored.get(name.as_str()));
        let (Some(source), Some(shape)) = (source, shape.and_then(|tensor| tensor.int64s())) else {
            return Err(refuse(node, "its shape is not an initializer"));
        };
        let reshaped = Tensor {
            dims: shape.clone(),
            ..Tensor::default()
        };
        if reshaped.len().is_none() || reshaped.len() != self.folded[source].len() {
            return Err(refuse(node, "its shape does not fit the weights"));
        }
        self.spend(node, &reshaped)?;
        let flat = self.folded[source].clone();
        self.add(node, |name| Tensor {
            name: Some(name),
            dims: shape,
            ..flat
        })
    }

    /// Takes the floats of one more tensor of this shape from what may be allocated.
    fn spend(&mut self, node: &Node, tensor: &Tensor) -> Result<(), PrepareError> {
        let left = tensor
            .len()
            .and_then(|floats| self.floats_left.checked_sub(floats));
        self.floats_left = left.ok_or_else(|| refuse(node, "its weights are folded too often"))?;
        Ok(())
    }

    fn add(
        &mut self,
        node: &Node,
        make: impl FnOnce(String) -> Tensor,
    ) -> Result<(), PrepareError> {
        let name = node
            .output
            .first()
            .ok_or_else(|| refuse(node, "it has no output"))?;
        if self.place.insert(name.clone(), self.folded.len()).is_some() {
            return Err(refuse(node, "another node has the same output"));
        }
        self.folded.push(make(name.clone()));
        Ok(())
    }
}

/// Says what is wrong with a node.
pub(super) fn refuse(node: &Node, reason: &'static str) -> PrepareError {
    PrepareError::Node {
        node: node.name.clone().unwrap_or_else(|| node.op_type.clone()),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::onnx::{Attribute, INT8, INT64, Value};
    use super::*;

    fn int(name: &str, value: i64) -> Attribute {
        Attribute {
            name: name.into(),
            i: Some(value),
            kind: Some(2),
            ..Attribute::default()
        }
    }

    fn node(op_type: &str, input: &[&str], output: &str, attribute: Vec<Attribute>) -> Node {
        Node {
            op_type: op_type.into(),
            name: Some(format!("{op_type} to {output}")),
            input: input.iter().map(ToString::to_string).collect(),
            output: vec![output.into()],
            attribute,
            ..Node::default()
        }
    }

    fn tensor(name: &str, dims: &[i64], data_type: i32, raw: Vec<u8>) -> Tensor {
        Tensor {
            name: Some(name.into()),
            dims: dims.to_vec(),
            data_type: Some(data_type),
            raw_data: Some(raw),
            ..Tensor::default()
        }
    }

    fn value(name: &str) -> Value {
        Value {
            name: Some(name.into()),
            ..Value::default()
        }
    }

    /// Two rows of five weights in blocks of three, with what the real models have around them.
    fn quantised() -> Model {
        let weights = [1_i8, 2, 3, 4, -128, 127, 0, -1, -2, 5];
        let graph = Graph {
            node: vec![
                node(
                    "DequantizeLinear",
                    &["q", "s", "z"],
                    "flat",
                    vec![int("block_size", 3), int("axis", 1)],
                ),
                node("Reshape", &["flat", "shape"], "weight", vec![]),
                node("Constant", &[], "ratio", vec![]),
                node("Dropout", &["data", "ratio"], "kept", vec![]),
                node("Conv", &["kept", "weight"], "out", vec![]),
            ],
            initializer: vec![
                tensor(
                    "q",
                    &[2, 5],
                    INT8,
                    weights.map(|weight| weight as u8).to_vec(),
                ),
                Tensor::of_floats("s".into(), vec![2, 2], &[0.5, 2.0, 1.0, 0.25]),
                tensor("z", &[2, 2], INT8, vec![0, 1, 0xFF, 0]),
                tensor(
                    "shape",
                    &[3],
                    INT64,
                    [5_i64, 1, 2]
                        .iter()
                        .flat_map(|dim| dim.to_le_bytes())
                        .collect(),
                ),
            ],
            input: vec![value("data"), value("q"), value("s")],
            output: vec![value("out")],
            value_info: vec![value("flat")],
            ..Graph::default()
        };
        Model {
            ir_version: Some(6),
            graph: Some(graph),
            ..Model::default()
        }
    }

    fn prepare(model: &Model) -> Result<Graph, PrepareError> {
        let bytes = dequantise(&model.encode_to_vec(), "data")?;
        Ok(Model::decode(bytes.as_slice()).unwrap().graph.unwrap())
    }

    #[test]
    fn blocks_are_dequantised_and_the_rest_is_stripped() {
        let graph = prepare(&quantised()).unwrap();
        let names: Vec<_> = graph
            .initializer
            .iter()
            .filter_map(|tensor| tensor.name.as_deref())
            .collect();
        assert_eq!(names, ["weight"]);
        assert_eq!(graph.initializer[0].dims, [5, 1, 2]);
        assert_eq!(
            graph.initializer[0].floats().unwrap().as_ref(),
            [0.5, 1.0, 1.5, 6.0, -258.0, 128.0, 1.0, 0.0, -0.5, 1.25]
        );
        assert_eq!(graph.node.len(), 1);
        assert_eq!(graph.node[0].input, ["data", "weight"]);
        assert_eq!(graph.input, [value("data")]);
        assert!(graph.value_info.is_empty());
    }

    #[test]
    fn a_column_axis_and_absent_zero_points_are_understood() {
        let mut model = quantised();
        let graph = model.graph.as_mut().unwrap();
        graph.node[0].attribute = vec![int("block_size", 2), int("axis", -2)];
        graph.node[0].input.pop();
        graph.initializer[1] =
            Tensor::of_floats("s".into(), vec![1, 5], &[1.0, 2.0, 3.0, 4.0, 0.5]);
        let graph = prepare(&model).unwrap();
        assert_eq!(
            graph.initializer[0].floats().unwrap().as_ref(),
            [1.0, 4.0, 9.0, 16.0, -64.0, 127.0, 0.0, -3.0, -8.0, 2.5]
        );
    }

    #[test]
    fn the_same_model_gives_the_same_bytes() {
        let bytes = quantised().encode_to_vec();
        assert_eq!(
            dequantise(&bytes, "data").unwrap(),
            dequantise(&bytes, "data").unwrap()
        );
    }

    fn dequantise_all(model: &Model) -> String {
        prepare(model)
            .map(|graph| graph.node.len())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn what_cannot_be_folded_is_refused_with_the_node() {
        type Break = fn(&mut Graph);
        let cases: [(Break, &str); 9] = [
            (|graph| graph.node[0].attribute.clear(), "no block size"),
            (|graph| graph.node[0].attribute[1].i = Some(7), "axis"),
            (
                |graph| graph.node[0].input[1] = "elsewhere".into(),
                "not initializers",
            ),
            (
                |graph| graph.initializer[0].dims = vec![2, 6],
                "not whole int8",
            ),
            (
                |graph| graph.initializer[0].dims = vec![i64::MAX, i64::MAX],
                "not whole int8",
            ),
            (
                |graph| graph.initializer[1].dims = vec![4],
                "differ in shape",
            ),
            (
                |graph| graph.initializer[2].raw_data = Some(vec![0]),
                "zero points",
            ),
            (|graph| graph.initializer[3].dims = vec![2], "its shape"),
            (|graph| graph.input.clear(), "no input"),
        ];
        for (break_it, reason) in cases {
            let mut model = quantised();
            break_it(model.graph.as_mut().unwrap());
            let message = prepare(&model).unwrap_err().to_string();
            assert!(message.contains(reason), "{message} should tell {reason}");
        }
        let mut greedy = quantised();
        let graph = greedy.graph.as_mut().unwrap();
        graph.initializer[0] = tensor("q", &[2, 5000], INT8, vec![0; 10_000]);
        graph.node[0].attribute[0].i = Some(2500);
        let dequantise = graph.node[0].clone();
        graph.node = (0..20)
            .map(|copy| Node {
                output: vec![format!("copy {copy}")],
                ..dequantise.clone()
            })
            .collect();
        let refused = dequantise_all(&greedy);
        assert!(refused.contains("too often"), "{refused}");
        greedy.graph.as_mut().unwrap().node = vec![dequantise.clone(), dequantise];
        let refused = dequantise_all(&greedy);
        assert!(refused.contains("same output"), "{refused}");
    }

    #[test]
    fn vanishing_weights_become_zero_and_nothing_else_changes() {
        let mut model = quantised();
        let weights = [1.0, -1e-30, 1e-11, 2e-10, 0.0, f32::MIN_POSITIVE / 2.0];
        let of = |values: &[f32]| Tensor::of_floats("w".into(), vec![6], values);
        let graph = model.graph.as_mut().unwrap();
        graph.initializer.push(of(&weights));
        let apart = Tensor {
            raw_data: None,
            float_data: weights.into(),
            ..of(&weights)
        };
        graph.initializer.push(apart);
        let flushed = flush(&model.encode_to_vec(), 1e-10).unwrap();
        let flushed = Model::decode(flushed.as_slice()).unwrap();
        let graph = model.graph.as_mut().unwrap();
        let zeroed = [1.0, 0.0, 0.0, 2e-10, 0.0, 0.0];
        let last = graph.initializer.len() - 1;
        graph.initializer[last - 1] = of(&zeroed);
        graph.initializer[last].float_data = zeroed.into();
        assert_eq!(flushed, model);
    }

    #[test]
    fn unknown_fields_are_not_lost_silently() {
        let mut bytes = quantised().encode_to_vec();
        // Field 20 of the model: training information.
        bytes.extend([0xA2, 0x01, 0x00]);
        assert!(matches!(
            dequantise(&bytes, "data"),
            Err(PrepareError::Lossy { lost_bytes: 3 })
        ));
    }

    proptest! {
        #[test]
        fn damaged_models_never_panic(
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = quantised().encode_to_vec();
            for (at, value) in edits {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let _ = dequantise(&bytes, "data");
            let _ = dequantise(&bytes[..cut.index(bytes.len())], "data");
        }
    }
}
