//! Making the layers of a plain ONNX model compute in 8 bits.
//!
//! What comes out is plain ONNX, too: around each layer stand `QuantizeLinear` and `DequantizeLinear`, of which
//! the runtime makes integer kernels. All arithmetic is that of 64-bit floats, rounded once, so equal bytes in
//! give equal bytes out on every processor.

mod layer;
mod range;

use std::collections::{BTreeMap, HashMap, HashSet};

use prost::Message as _;

use super::onnx::{Attribute, Graph, Node, Tensor};
use super::prepare::{PrepareError, parse, refuse};
use layer::{BatchNorm, Layer};
use range::Range;

/// ONNX attribute type of integers.
const INT: i32 = 2;

/// Quantises the convolutions and fully connected layers (`Gemm`) of `model`.
///
/// - A batch norm that alone reads a layer's output becomes part of the layer's weights and bias.
/// - Weights become int8 with a scale for each output channel, of which the largest has [`layer::MOST`] steps.
/// - What a layer reads becomes uint8, from the least to the greatest value that `ranges` has for the
///   tensor's name. Values outside are cut off.
/// - Biases and all that is not in `ranges` stay in 32 bits.
///
/// # Errors
/// A malformed model; a layer that reads a tensor without a range, a range of no tensor, or weights that are
/// no initializer.
pub(super) fn quantise(
    model: &[u8],
    ranges: &BTreeMap<String, [f32; 2]>,
) -> Result<Vec<u8>, PrepareError> {
    let mut parsed = parse(model)?;
    let graph = parsed
        .graph
        .as_mut()
        .ok_or(PrepareError::Graph("it has no graph"))?;
    let (nodes, mut made) = Quantiser::new(graph, ranges).run()?;
    let read: HashSet<&str> = nodes
        .iter()
        .flat_map(|node| &node.input)
        .map(String::as_str)
        .collect();
    let is_read =
        |tensor: &Tensor| (tensor.name.as_deref()).is_some_and(|name| read.contains(name));
    graph.initializer.retain(is_read);
    graph.initializer.append(&mut made);
    graph.node = nodes;
    graph.value_info.clear();
    Ok(parsed.encode_to_vec())
}

/// A graph that is rewritten from its first node to its last.
struct Quantiser<'a> {
    graph: &'a Graph,
    ranges: &'a BTreeMap<String, [f32; 2]>,
    stored: HashMap<&'a str, &'a Tensor>,
    /// Who reads each tensor.
    readers: HashMap<&'a str, Vec<&'a Node>>,
    nodes: Vec<Node>,
    made: Vec<Tensor>,
    /// What a quantised tensor is called where it is read.
    quantised: HashMap<&'a str, String>,
}

impl<'a> Quantiser<'a> {
    fn new(graph: &'a Graph, ranges: &'a BTreeMap<String, [f32; 2]>) -> Self {
        let stored = graph.initializer.iter();
        let mut readers: HashMap<&str, Vec<&Node>> = HashMap::new();
        for node in &graph.node {
            for name in &node.input {
                readers.entry(name).or_default().push(node);
            }
        }
        Self {
            graph,
            ranges,
            stored: stored
                .filter_map(|tensor| Some((tensor.name.as_deref()?, tensor)))
                .collect(),
            readers,
            nodes: Vec::new(),
            made: Vec::new(),
            quantised: HashMap::new(),
        }
    }

    fn run(mut self) -> Result<(Vec<Node>, Vec<Tensor>), PrepareError> {
        // The outputs of batch norms that their layers have taken in.
        let mut folded: HashSet<&str> = HashSet::new();
        for node in &self.graph.node {
            let [output] = node.output.as_slice() else {
                return Err(refuse(node, "it has not one output"));
            };
            let output = if matches!(node.op_type.as_str(), "Conv" | "Gemm") {
                let norm = self.norm_of(output);
                let output = norm.map_or(output, |norm| &norm.output[0]);
                self.layer(node, norm, output)?;
                folded.extend(norm.map(|norm| norm.output[0].as_str()));
                output
            } else if folded.contains(output.as_str()) {
                continue;
            } else {
                let mut kept = node.clone();
                for name in &mut kept.input {
                    if let Some(quantised) = self.quantised.get(name.as_str()) {
                        name.clone_from(quantised);
                    }
                }
                self.nodes.push(kept);
                output
            };
            if let Some(&range) = self.ranges.get(output) {
                self.activation(node, output, range)?;
            }
        }
        if self.quantised.len() != self.ranges.len() {
            return Err(PrepareError::Graph("one of the ranges is of no tensor"));
        }
        Ok((self.nodes, self.made))
    }

    /// The batch norm that alone reads this tensor.
    fn norm_of(&self, name: &str) -> Option<&'a Node> {
        match self.readers.get(name)?.as_slice() {
            [norm] if norm.op_type == "BatchNormalization" && norm.output.len() == 1 => Some(norm),
            _ => None,
        }
    }

    /// Writes a layer with quantised weights, which gives `output`.
    fn layer(
        &mut self,
        node: &Node,
        norm: Option<&Node>,
        output: &str,
    ) -> Result<(), PrepareError> {
        let Some(read) = (node.input.first()).and_then(|name| self.quantised.get(name.as_str()))
        else {
            return Err(refuse(node, "what it reads has no range"));
        };
        let mut layer = Layer::of(node, &self.stored)?;
        if let Some(norm) = norm {
            layer.fold(&BatchNorm::of(norm, layer.channels(), &self.stored)?);
        }
        let weights = &node.input[1];
        let (quantised, scales) = layer.quantised();
        let names = ["quantised", "scale", "bias"].map(|part| format!("{weights}_{part}"));
        let [name, scale, bias] = names.clone();
        let channels = layer.channels() as i64;
        self.made
            .push(Tensor::of_int8s(name, layer.dims.clone(), &quantised));
        self.made
            .push(Tensor::of_floats(scale, vec![channels], &scales));
        self.made
            .push(Tensor::of_floats(bias, vec![channels], &layer.bias()));
        let [name, scale, bias] = names;
        let dequantised = format!("{weights}_dequantised");
        let mut dequantise = operator("DequantizeLinear", [name, scale].into(), &dequantised);
        dequantise.attribute.push(Attribute {
            name: "axis".to_owned(),
            i: Some(0),
            kind: Some(INT),
            ..Attribute::default()
        });
        let layer = Node {
            input: vec![read.clone(), dequantised, bias],
            output: vec![output.to_owned()],
            ..node.clone()
        };
        self.nodes.extend([dequantise, layer]);
        Ok(())
    }

    /// Quantises what a node has made, and names it for those that read it.
    fn activation(
        &mut self,
        node: &Node,
        name: &'a str,
        [least, greatest]: [f32; 2],
    ) -> Result<(), PrepareError> {
        let range = Range::between(least, greatest)
            .ok_or_else(|| refuse(node, "the range of what it makes is none"))?;
        let [quantised, dequantised, scale, zero_point] =
            ["quantised", "dequantised", "scale", "zero_point"]
                .map(|part| format!("{name}_{part}"));
        self.made
            .push(Tensor::of_floats(scale.clone(), vec![], &[range.scale]));
        self.made.push(range.zero_point(zero_point.clone()));
        let with = |value: &str| vec![value.to_owned(), scale.clone(), zero_point.clone()];
        self.nodes
            .push(operator("QuantizeLinear", with(name), &quantised));
        self.nodes
            .push(operator("DequantizeLinear", with(&quantised), &dequantised));
        self.quantised.insert(name, dequantised);
        Ok(())
    }
}

/// A node without attributes, named after its output.
fn operator(op_type: &str, input: Vec<String>, output: &str) -> Node {
    Node {
        input,
        output: vec![output.to_owned()],
        name: Some(output.to_owned()),
        op_type: op_type.to_owned(),
        ..Node::default()
    }
}

#[cfg(test)]
mod tests;
