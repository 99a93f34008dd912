//! Manifests of an operator's, and a model that a test writes.

use std::fs;

use muster_jobs::Embedding;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::super::entry::Placement;
use super::super::installation::{Installation, default_root};
use super::super::onnx::{
    Attribute, Dimension, FLOAT, Graph, Model, Node, OperatorSet, Shape, TensorType, Value,
    ValueType,
};
use super::*;
use crate::align::Aligner;
use crate::decode::{DecodeLimits, decode};
use crate::recognizer::{Options, Recognizer};

const ENTRY: &str = r#"schema = 1
[[embedder]]
name = "facenet"
title = "Ours"
licence = "MIT"
file = "nets/facenet.onnx"
sha256 = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
alignment = "box"
input = { name = "x", width = 160, height = 160, colour_order = "rgb", mean = 127.5, scale = 0.0078125 }
dimensions = 512
cutoff = 0.6
"#;

fn extended(text: &str) -> Result<(Manifest, tempfile::TempDir), String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(OWN_MANIFEST);
    fs::write(&path, text).unwrap();
    let manifest = Manifest::embedded().unwrap().with_own(&path);
    let manifest = manifest.map_err(|error| error.to_string())?;
    Ok((manifest, folder))
}

#[test]
fn an_entry_is_a_profile_with_a_cautious_calibration() {
    let (manifest, folder) = extended(ENTRY).unwrap();
    let profile = manifest.profile("facenet").unwrap();
    let own = manifest.embedder(profile).unwrap();
    assert_eq!(profile.detector, "yunet");
    assert_eq!(
        Path::new(&own.file),
        folder.path().join("nets/facenet.onnx")
    );
    assert_eq!(own.placement(), Placement::Box { margin: 32 });
    let calibration = own.calibration.as_ref().unwrap();
    assert_eq!(calibration.impostor_mean, 0.0);
    assert!((calibration.impostor_std - 0.194).abs() < 1e-3);
    let layout = |manifest: &Manifest| manifest.layout(None, "x86_64");
    assert_eq!(layout(&manifest), layout(&Manifest::embedded().unwrap()));
}

#[test]
fn a_wrong_entry_is_refused_with_the_remedy() {
    for (right, wrong, said) in [
        ("schema = 1", "schema = 3", "schema 3"),
        (
            "name = \"facenet\"",
            "name = \"sface\"",
            "the name sface is taken",
        ),
        (
            "name = \"facenet\"",
            "name = \"fast\"",
            "the name fast is taken",
        ),
        (
            "name = \"facenet\"",
            "name = \"a b\"",
            "is not of 1 to 64 letters",
        ),
        ("sha256 = \"aa", "sha256 = \"AA", "hexadecimal"),
        ("licence = \"MIT\"", "licence = \"\"", "licence is not said"),
        ("licence = \"MIT\"\n", "", "missing field `licence`"),
        ("cutoff = 0.6", "cutoff = 1.6", "between 0 and 1"),
        (
            "cutoff = 0.6",
            "cutoff = 0.6\nmargin = 160",
            "leaves nothing",
        ),
        (
            "cutoff = 0.6",
            "cutoff = 0.6\nmargins = 16",
            "unknown field `margins`",
        ),
    ] {
        assert!(ENTRY.contains(right), "{right}");
        let error = extended(&ENTRY.replace(right, wrong)).unwrap_err();
        assert!(
            error.contains(said) && error.contains("models.toml"),
            "{error}"
        );
    }
    let without = ENTRY.lines().filter(|line| !line.starts_with("sha256"));
    let error = extended(&without.collect::<Vec<_>>().join("\n")).unwrap_err();
    assert!(error.contains("`sha256sum nets/facenet.onnx`"), "{error}");
    let nowhere = Manifest::embedded()
        .unwrap()
        .with_own(Path::new("/nowhere.toml"));
    assert!(nowhere.unwrap_err().to_string().contains("/nowhere.toml"));
}

/// An embedder of 48 numbers: the colours of 4 x 4 fields of its input, `[1, 3, 160, 160]`.
fn mosaic() -> Vec<u8> {
    let ints = |name: &str, values: [i64; 2]| Attribute {
        name: name.to_owned(),
        ints: values.into(),
        kind: Some(7),
        ..Attribute::default()
    };
    let value = |name: &str, sides: &[i64]| Value {
        name: Some(name.to_owned()),
        kind: Some(ValueType {
            tensor: Some(TensorType {
                elem_type: Some(FLOAT),
                shape: Some(Shape {
                    dim: sides
                        .iter()
                        .map(|side| Dimension {
                            value: Some(*side),
                            parameter: None,
                        })
                        .collect(),
                }),
            }),
        }),
        doc_string: None,
    };
    let node = |kind: &str, from: &str, to: &str, attribute| Node {
        input: vec![from.to_owned()],
        output: vec![to.to_owned()],
        op_type: kind.to_owned(),
        attribute,
        ..Node::default()
    };
    let fields = vec![ints("kernel_shape", [40, 40]), ints("strides", [40, 40])];
    let model = Model {
        ir_version: Some(8),
        graph: Some(Graph {
            node: vec![
                node("AveragePool", "photo", "fields", fields),
                node("Flatten", "fields", "embedding", Vec::new()),
            ],
            name: Some("mosaic".to_owned()),
            input: vec![value("photo", &[1, 3, 160, 160])],
            output: vec![value("embedding", &[1, 48])],
            ..Graph::default()
        }),
        opset_import: vec![OperatorSet {
            domain: None,
            version: Some(13),
        }],
        ..Model::default()
    };
    model.encode_to_vec()
}

fn hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_box_model_is_fed_the_box_and_what_it_is_not_is_said() {
    let root = std::env::var_os("MUSTER_MODELS_DIR")
        .map(PathBuf::from)
        .or_else(default_root)
        .expect("a home folder");
    if let Err(error) = Installation::open(&root) {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{error}");
        eprintln!("SKIPPED: {error}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (model, manifest) = (
        folder.path().join("mosaic.onnx"),
        folder.path().join("own.toml"),
    );
    fs::write(&model, mosaic()).unwrap();
    let entry = |change: &dyn Fn(String) -> String| {
        let text = ENTRY
            .replace("\"facenet\"", "\"mosaic\"")
            .replace("nets/facenet.onnx", "mosaic.onnx")
            .replace(&"a".repeat(64), &hex(&mosaic()))
            .replace("name = \"x\"", "name = \"photo\"")
            .replace("dimensions = 512", "dimensions = 48\nmargin = 20");
        fs::write(&manifest, change(text)).unwrap();
        let own = Manifest::embedded().unwrap().with_own(&manifest).unwrap();
        Installation::open_with(own, &root)
            .unwrap()
            .with_profile("mosaic")
            .unwrap()
    };
    let load = |change: &dyn Fn(String) -> String| {
        Recognizer::load(&entry(change).model_files(), Options::default())
    };

    let installation = entry(&|text| text);
    installation.verify_models().unwrap();
    let mut recognizer = load(&|text| text).unwrap_or_else(|error| panic!("{error:?}"));
    let photograph = fs::read(&installation.samples().people[0].1[0]).unwrap();
    let photo = decode(&photograph, &DecodeLimits::default()).unwrap();
    let analysis = recognizer.analyze_photo(&photo).unwrap();
    let face = &analysis.faces[0];
    let mut aligner = Aligner::default();
    let pixels = aligner
        .cut(&photo, &face.bounds, 20, 160, 160)
        .as_chunks::<3>()
        .0;
    let mut fields = [0.0; 48];
    for (at, pixel) in pixels.iter().enumerate() {
        let field = at / 160 / 40 * 4 + at % 160 / 40;
        for (plane, value) in pixel.iter().enumerate() {
            fields[plane * 16 + field] += (f32::from(*value) - 127.5) / 128.0;
        }
    }
    let expected = Embedding::normalise(&fields).unwrap();
    let alike = expected.cosine(&face.embedding);
    // A processor that computes in bfloat16 has eight bits of a value.
    assert!(alike > 0.9995, "{alike}");

    for (right, wrong, said) in [
        (
            "width = 160, height = 160",
            "width = 96, height = 96",
            "`width` and `height`",
        ),
        (
            "name = \"photo\"",
            "name = \"image\"",
            "`image`, was expected, and it has photo",
        ),
        (
            "dimensions = 48",
            "dimensions = 49",
            "[1, 49], and it is [1, 48]",
        ),
    ] {
        let refused = load(&|text| text.replace(right, wrong));
        let error = refused.err().expect("it is refused").to_string();
        assert!(
            error.contains(said) && error.contains("mosaic.onnx"),
            "{error}"
        );
    }
    let other = entry(&|text| text.replace(&hex(&mosaic()), &hex(b"another")));
    let error = other.verify_models().unwrap_err().to_string();
    assert!(
        error.contains("has another hash") && error.contains("mosaic.onnx"),
        "{error}"
    );
    fs::remove_file(&model).unwrap();
    let error = installation.verify_models().unwrap_err().to_string();
    assert!(
        error.contains("is missing") && error.contains("mosaic"),
        "{error}"
    );
}
