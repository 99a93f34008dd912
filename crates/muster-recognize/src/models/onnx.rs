//! The part of the ONNX file format (protocol buffers, `onnx.proto3`) that the prepared models use.
//!
//! Field numbers are ONNX's. `prost` drops fields that no message here names, so [`super::prepare`]
//! checks that a file written back unchanged is as long as it was read.

use std::borrow::Cow;

use prost::Message;

/// ONNX element type of 32-bit floats.
pub(super) const FLOAT: i32 = 1;
/// ONNX element type of unsigned bytes.
pub(super) const UINT8: i32 = 2;
/// ONNX element type of signed bytes.
pub(super) const INT8: i32 = 3;
/// ONNX element type of 64-bit integers.
pub(super) const INT64: i32 = 7;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Model {
    #[prost(int64, optional, tag = "1")]
    pub ir_version: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub producer_name: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub producer_version: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub domain: Option<String>,
    #[prost(int64, optional, tag = "5")]
    pub model_version: Option<i64>,
    #[prost(string, optional, tag = "6")]
    pub doc_string: Option<String>,
    #[prost(message, optional, tag = "7")]
    pub graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSet>,
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<Property>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OperatorSet {
    #[prost(string, optional, tag = "1")]
    pub domain: Option<String>,
    #[prost(int64, optional, tag = "2")]
    pub version: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Property {
    #[prost(string, optional, tag = "1")]
    pub key: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<Node>,
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<Tensor>,
    #[prost(string, optional, tag = "10")]
    pub doc_string: Option<String>,
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<Value>,
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<Value>,
    #[prost(message, repeated, tag = "13")]
    pub value_info: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    #[prost(string, optional, tag = "3")]
    pub name: Option<String>,
    #[prost(string, tag = "4")]
    pub op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<Attribute>,
    #[prost(string, optional, tag = "6")]
    pub doc_string: Option<String>,
    #[prost(string, optional, tag = "7")]
    pub domain: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Attribute {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(float, optional, tag = "2")]
    pub f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    pub i: Option<i64>,
    #[prost(bytes = "vec", optional, tag = "4")]
    pub s: Option<Vec<u8>>,
    #[prost(message, optional, tag = "5")]
    pub t: Option<Tensor>,
    #[prost(float, repeated, packed = "false", tag = "7")]
    pub floats: Vec<f32>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    #[prost(bytes = "vec", repeated, tag = "9")]
    pub strings: Vec<Vec<u8>>,
    #[prost(string, optional, tag = "13")]
    pub doc_string: Option<String>,
    #[prost(int32, optional, tag = "20")]
    pub kind: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Tensor {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dims: Vec<i64>,
    #[prost(int32, optional, tag = "2")]
    pub data_type: Option<i32>,
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    pub int32_data: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    #[prost(string, optional, tag = "8")]
    pub name: Option<String>,
    #[prost(bytes = "vec", optional, tag = "9")]
    pub raw_data: Option<Vec<u8>>,
    #[prost(string, optional, tag = "12")]
    pub doc_string: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Value {
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    #[prost(message, optional, tag = "2")]
    pub kind: Option<ValueType>,
    #[prost(string, optional, tag = "3")]
    pub doc_string: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ValueType {
    #[prost(message, optional, tag = "1")]
    pub tensor: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorType {
    #[prost(int32, optional, tag = "1")]
    pub elem_type: Option<i32>,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Shape {
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Dimension {
    #[prost(int64, optional, tag = "1")]
    pub value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub parameter: Option<String>,
}

impl Node {
    /// Finds an integer attribute.
    pub(super) fn int(&self, name: &str) -> Option<i64> {
        self.attribute
            .iter()
            .find(|attribute| attribute.name == name)?
            .i
    }

    /// Finds a float attribute.
    pub(super) fn float(&self, name: &str) -> Option<f32> {
        self.attribute
            .iter()
            .find(|attribute| attribute.name == name)?
            .f
    }
}

impl Tensor {
    /// Makes a tensor of floats, stored as little-endian bytes.
    pub(super) fn of_floats(name: String, dims: Vec<i64>, values: &[f32]) -> Self {
        Self {
            dims,
            data_type: Some(FLOAT),
            name: Some(name),
            raw_data: Some(
                values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect(),
            ),
            ..Self::default()
        }
    }

    /// Makes a tensor of signed bytes.
    pub(super) fn of_int8s(name: String, dims: Vec<i64>, values: &[i8]) -> Self {
        Self {
            dims,
            data_type: Some(INT8),
            name: Some(name),
            raw_data: Some(values.iter().map(|&value| value as u8).collect()),
            ..Self::default()
        }
    }

    /// Multiplies the dimensions; `None` when one is negative or the product is beyond memory.
    pub(super) fn len(&self) -> Option<usize> {
        self.dims.iter().try_fold(1_usize, |product, &dim| {
            product.checked_mul(usize::try_from(dim).ok()?)
        })
    }

    /// Reads the floats, as many as the dimensions say.
    pub(super) fn floats(&self) -> Option<Cow<'_, [f32]>> {
        let values = match &self.raw_data {
            Some(raw) => Cow::Owned(
                words(raw)?
                    .iter()
                    .map(|&word| f32::from_le_bytes(word))
                    .collect(),
            ),
            None => Cow::Borrowed(self.float_data.as_slice()),
        };
        (self.data_type == Some(FLOAT) && Some(values.len()) == self.len()).then_some(values)
    }

    /// Changes each of the floats, wherever they are stored.
    pub(super) fn change_floats(&mut self, change: impl Fn(f32) -> f32) {
        for value in &mut self.float_data {
            *value = change(*value);
        }
        let (words, _) = self
            .raw_data
            .as_deref_mut()
            .unwrap_or_default()
            .as_chunks_mut::<4>();
        for word in words {
            *word = change(f32::from_le_bytes(*word)).to_le_bytes();
        }
    }

    /// Reads the signed bytes, as many as the dimensions say.
    pub(super) fn int8s(&self) -> Option<&[u8]> {
        let raw = self.raw_data.as_deref()?;
        (self.data_type == Some(INT8) && Some(raw.len()) == self.len()).then_some(raw)
    }

    /// Reads the 64-bit integers, as many as the dimensions say.
    pub(super) fn int64s(&self) -> Option<Vec<i64>> {
        let values: Vec<i64> = match &self.raw_data {
            Some(raw) => words(raw)?
                .iter()
                .map(|&word| i64::from_le_bytes(word))
                .collect(),
            None => self.int64_data.clone(),
        };
        (self.data_type == Some(INT64) && Some(values.len()) == self.len()).then_some(values)
    }
}

fn words<const N: usize>(raw: &[u8]) -> Option<&[[u8; N]]> {
    let (words, rest) = raw.as_chunks::<N>();
    rest.is_empty().then_some(words)
}
