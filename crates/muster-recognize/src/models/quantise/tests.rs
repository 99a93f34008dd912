use proptest::prelude::*;

use super::super::onnx::{Model, UINT8, Value};
use super::*;

fn node(op_type: &str, name: &str, input: &[&str], output: &str) -> Node {
    Node {
        input: input.iter().map(|&name| name.to_owned()).collect(),
        ..Node {
            name: Some(name.to_owned()),
            ..operator(op_type, Vec::new(), output)
        }
    }
}

fn floats(name: &str, dims: &[i64], values: &[f32]) -> Tensor {
    Tensor::of_floats(name.to_owned(), dims.to_vec(), values)
}

fn float(name: &str, value: f32) -> Attribute {
    Attribute {
        name: name.to_owned(),
        f: Some(value),
        kind: Some(1),
        ..Attribute::default()
    }
}

/// `data` -> conv of 1 x 1 (3 to 2 channels), batch norm -> relu -> flat -> gemm (2 to 1), batch norm -> `out`.
fn plain() -> Model {
    let mut norm = node(
        "BatchNormalization",
        "norm",
        &["seen", "gamma", "beta", "mean", "variance"],
        "normed",
    );
    norm.attribute = vec![float("epsilon", 1.0)];
    let mut gemm = node("Gemm", "full", &["flat", "w2", "b2"], "made");
    gemm.attribute = vec![
        float("alpha", 1.0),
        Attribute {
            name: "transB".to_owned(),
            i: Some(1),
            kind: Some(INT),
            ..Attribute::default()
        },
    ];
    let mut last = node(
        "BatchNormalization",
        "last",
        &["made", "g2", "e2", "m2", "v2"],
        "out",
    );
    last.attribute = vec![float("epsilon", 0.0)];
    let value = |name: &str| Value {
        name: Some(name.to_owned()),
        ..Value::default()
    };
    let graph = Graph {
        node: vec![
            node("Mul", "scaled", &["data", "tenth"], "scaled"),
            node("Conv", "conv", &["scaled", "w1"], "seen"),
            norm,
            node("Relu", "relu", &["normed"], "relu"),
            node("Flatten", "flat", &["relu"], "flat"),
            gemm,
            last,
        ],
        initializer: vec![
            floats("tenth", &[], &[0.1]),
            floats("w1", &[2, 3, 1, 1], &[1.0, -2.0, 0.26, 0.0, 0.0, 0.0]),
            floats("gamma", &[2], &[8.0, 1.0]),
            floats("beta", &[2], &[0.5, 0.25]),
            floats("mean", &[2], &[3.0, -4.0]),
            floats("variance", &[2], &[15.0, 3.0]),
            floats("w2", &[1, 2], &[0.5, -1.0]),
            floats("b2", &[1], &[7.0]),
            floats("g2", &[1], &[-3.0]),
            floats("e2", &[1], &[1.0]),
            floats("m2", &[1], &[5.0]),
            floats("v2", &[1], &[4.0]),
        ],
        input: vec![value("data")],
        output: vec![value("out")],
        value_info: vec![value("seen")],
        ..Graph::default()
    };
    Model {
        graph: Some(graph),
        ..Model::default()
    }
}

fn ranges() -> BTreeMap<String, [f32; 2]> {
    BTreeMap::from([
        ("scaled".to_owned(), [-1.0, 1.55]),
        ("flat".to_owned(), [-0.64, 1.91]),
    ])
}

fn quantised(model: &Model, ranges: &BTreeMap<String, [f32; 2]>) -> Result<Graph, PrepareError> {
    let bytes = quantise(&model.encode_to_vec(), ranges)?;
    Ok(Model::decode(bytes.as_slice()).unwrap().graph.unwrap())
}

fn stored<'a>(graph: &'a Graph, name: &str) -> &'a Tensor {
    let mut tensors = graph.initializer.iter();
    let found = tensors.find(|tensor| tensor.name.as_deref() == Some(name));
    found.unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn each_layer_reads_bytes_and_has_its_batch_norm_in_it() {
    let graph = quantised(&plain(), &ranges()).unwrap();
    let nodes: Vec<String> = (graph.node.iter())
        .map(|node| {
            format!(
                "{} {} -> {}",
                node.op_type,
                node.input.join(" "),
                node.output[0]
            )
        })
        .collect();
    assert_eq!(
        nodes,
        [
            "Mul data tenth -> scaled",
            "QuantizeLinear scaled scaled_scale scaled_zero_point -> scaled_quantised",
            "DequantizeLinear scaled_quantised scaled_scale scaled_zero_point -> scaled_dequantised",
            "DequantizeLinear w1_quantised w1_scale -> w1_dequantised",
            "Conv scaled_dequantised w1_dequantised w1_bias -> normed",
            "Relu normed -> relu",
            "Flatten relu -> flat",
            "QuantizeLinear flat flat_scale flat_zero_point -> flat_quantised",
            "DequantizeLinear flat_quantised flat_scale flat_zero_point -> flat_dequantised",
            "DequantizeLinear w2_quantised w2_scale -> w2_dequantised",
            "Gemm flat_dequantised w2_dequantised w2_bias -> out",
        ]
    );
    let left: Vec<_> = (graph.initializer.iter())
        .filter_map(|tensor| tensor.name.as_deref())
        .filter(|name| !name.contains('_'))
        .collect();
    assert_eq!(left, ["tenth"]);
    assert!(graph.value_info.is_empty());
    assert_eq!(graph.node[3].int("axis"), Some(0));
    assert_eq!(graph.node[10].int("transB"), Some(1));
}

#[test]
fn weights_are_steps_of_their_channel_after_the_batch_norm() {
    let graph = quantised(&plain(), &ranges()).unwrap();
    // The first channel's factor is 8 / sqrt(15 + 1) = 2: weights 2, -4 and 0.52, of which 4 is 64 steps.
    let weights = stored(&graph, "w1_quantised");
    assert_eq!(weights.dims, [2, 3, 1, 1]);
    assert_eq!(
        weights.int8s().unwrap(),
        [32, -64_i8 as u8, 8, 0, 0, 0] // 8.32 steps
    );
    let of = |name| stored(&graph, name).floats().unwrap().into_owned();
    assert_eq!(of("w1_scale"), [0.0625, 1.0]);
    // 0.5 - 3 x 2, and 0.25 + 4 x 1 / sqrt(3 + 1).
    assert_eq!(of("w1_bias"), [-5.5, 2.25]);
    // The factor is -3 / sqrt(4): weights -0.75 and 1.5, bias 7 x -1.5 + 1 - 5 x -1.5.
    assert_eq!(
        stored(&graph, "w2_quantised").int8s().unwrap(),
        [-32_i8 as u8, 64]
    );
    assert_eq!(of("w2_scale"), [1.5 / 64.0]);
    assert_eq!(of("w2_bias"), [-2.0]);
}

#[test]
fn what_a_layer_reads_has_one_scale_and_zero_point() {
    let graph = quantised(&plain(), &ranges()).unwrap();
    for (name, zero_point) in [("scaled", 100), ("flat", 64)] {
        let scale = stored(&graph, &format!("{name}_scale")).floats().unwrap()[0];
        assert!((scale - 0.01).abs() < 1e-8, "{name}: {scale}");
        let zero = stored(&graph, &format!("{name}_zero_point"));
        assert_eq!(zero.raw_data.as_deref(), Some([zero_point].as_slice()));
        assert_eq!((zero.data_type, zero.dims.len()), (Some(UINT8), 0));
    }
}

#[test]
fn a_batch_norm_that_shares_its_layer_stays() {
    let mut model = plain();
    let graph = model.graph.as_mut().unwrap();
    graph.node.push(node("Neg", "other", &["seen"], "other"));
    let graph = quantised(&model, &ranges()).unwrap();
    assert_eq!(graph.node[4].output, ["seen"]);
    assert_eq!(graph.node[5].op_type, "BatchNormalization");
    assert_eq!(graph.node[12].input, ["seen"]);
    let biases = stored(&graph, "w1_bias").floats().unwrap();
    assert_eq!(biases.as_ref(), [0.0, 0.0]);
}

#[test]
fn whoever_reads_what_a_layer_reads_gets_what_the_bytes_say() {
    let mut model = plain();
    let graph = model.graph.as_mut().unwrap();
    graph.node.push(node("Neg", "other", &["scaled"], "other"));
    let graph = quantised(&model, &ranges()).unwrap();
    assert_eq!(graph.node[11].input, ["scaled_dequantised"]);
}

#[test]
fn the_same_model_gives_the_same_bytes() {
    let bytes = plain().encode_to_vec();
    assert_eq!(
        quantise(&bytes, &ranges()).unwrap(),
        quantise(&bytes, &ranges()).unwrap()
    );
}

#[test]
fn what_cannot_be_quantised_is_refused_with_the_node() {
    type Break = fn(&mut Graph, &mut BTreeMap<String, [f32; 2]>);
    let cases: [(Break, &str); 12] = [
        (
            |_, ranges| {
                ranges.remove("scaled");
            },
            "conv\" cannot be prepared: what it reads has no range",
        ),
        (
            |_, ranges| {
                ranges.insert("x".into(), [0.0, 1.0]);
            },
            "of no tensor",
        ),
        (
            |_, ranges| {
                ranges.insert("flat".into(), [0.0, 0.0]);
            },
            "the range of what it makes",
        ),
        (
            |graph, _| graph.node[1].input[1] = "elsewhere".into(),
            "weights are not whole",
        ),
        (
            |graph, _| graph.initializer[1].dims = vec![2, 4],
            "weights are not whole",
        ),
        (
            |graph, _| graph.initializer[1] = floats("w1", &[1], &[f32::NAN]),
            "weights are not whole",
        ),
        (
            |graph, _| graph.initializer[7] = floats("b2", &[2], &[1.0, 2.0]),
            "biases",
        ),
        (
            |graph, _| graph.initializer[2] = floats("gamma", &[1], &[1.0]),
            "one a channel",
        ),
        (
            |graph, _| graph.initializer[11] = floats("v2", &[1], &[0.0]),
            "not finite",
        ),
        (
            |graph, _| graph.node[5].attribute[0].f = Some(0.5),
            "scaled or not transposed",
        ),
        (
            |graph, _| drop(graph.node[5].attribute.pop()),
            "scaled or not transposed",
        ),
        (|graph, _| graph.node[3].output.clear(), "not one output"),
    ];
    for (break_it, reason) in cases {
        let (mut model, mut ranges) = (plain(), ranges());
        break_it(model.graph.as_mut().unwrap(), &mut ranges);
        let message = quantised(&model, &ranges).unwrap_err().to_string();
        assert!(message.contains(reason), "{message} should tell {reason}");
    }
}

proptest! {
    #[test]
    fn damaged_models_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = plain().encode_to_vec();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = quantise(&bytes, &ranges());
        let _ = quantise(&bytes[..cut.index(bytes.len())], &ranges());
    }
}
