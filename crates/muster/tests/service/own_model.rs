//! An operator's own embedder, by one entry in a manifest of theirs: here the installed one under
//! another name.

use std::path::Path;
use std::process::Stdio;

use crate::support::{Service, muster, read, samples, write_config};
use muster_recognize::models::{Installation, Manifest, OWN_MANIFEST, default_root};
use sha2::{Digest as _, Sha256};

/// The installed SFace as a model of the operator's, `name`, in a manifest in `folder`; the settings
/// that choose it.
pub fn own_copy(folder: &Path, name: &str) -> String {
    let root = std::env::var_os("MUSTER_MODELS_DIR").map(Into::into);
    let root = root.or_else(default_root).expect("a home folder");
    let installation = Installation::open(&root).unwrap();
    let bytes = std::fs::read(installation.embedder_file()).unwrap();
    let file = folder.join(format!("{name}.onnx"));
    std::fs::write(&file, &bytes).unwrap();
    let digest = Sha256::digest(&bytes);
    let hash: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let manifest = folder.join(OWN_MANIFEST);
    let entry = format!(
        "schema = 1\n[[embedder]]\nname = \"{name}\"\ntitle = \"A copy\"\nlicence = \"Apache-2.0\"\n\
         file = \"{name}.onnx\"\nsha256 = \"{hash}\"\nalignment = \"five-point\"\n\
         input = {{ name = \"data\", width = 112, height = 112, colour_order = \"rgb\", mean = 0.0, \
         scale = 1.0 }}\ndimensions = 128\ncutoff = 0.4\n"
    );
    std::fs::write(&manifest, entry).unwrap();
    // It parses, so that a test fails here and not in a service's log.
    Manifest::embedded().unwrap().with_own(&manifest).unwrap();
    format!("models_manifest = {:?}\n", manifest.to_str().unwrap())
}

#[tokio::test]
async fn an_own_embedder_serves_by_one_entry() {
    let Some(samples) = samples() else { return };
    let folder = tempfile::tempdir().unwrap();
    let settings = own_copy(folder.path(), "ours");
    let service = Service::up(&format!("{settings}profile = \"ours\"\nmax_instances = 1")).await;
    let [(name, photos), ..] = &samples.people[..] else {
        panic!("no people")
    };
    let made = service.enroll(name, &[&read(&photos[0])]).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let answer = service.recognize(&read(&photos[1])).await;
    assert_eq!(
        (answer.name(), &answer.json()["model"]),
        (name.clone(), &"ours".into())
    );
    let stranger = service.recognize(&read(&samples.people[1].1[0])).await;
    assert_eq!(stranger.name(), "unknown");
    // Of one face the cutoff is what the supposed distribution gives: the published one.
    let cutoff = answer.json()["faces"][0]["cutoff"].as_f64().unwrap();
    assert!((cutoff - 0.4).abs() < 1e-3, "{cutoff}");
}

#[tokio::test]
async fn a_wrong_own_model_ends_the_start_with_the_remedy() {
    if samples().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let settings = own_copy(folder.path(), "ours");
    let data = folder.path().join("data");
    let said = async |toml: &str| {
        let config = write_config(&data, "up", toml);
        let ended = muster()
            .args(["up", "--listen", "127.0.0.1:0", "--config"])
            .arg(config)
            .arg("--data")
            .arg(&data)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output();
        let ended = ended.await.unwrap();
        assert!(!ended.status.success());
        String::from_utf8(ended.stderr).unwrap()
    };
    let error = said(&format!("{settings}profile = \"theirs\"")).await;
    assert!(
        error.contains("use one of default, int8, fast, ours"),
        "{error}"
    );
    std::fs::write(folder.path().join("ours.onnx"), b"another").unwrap();
    let error = said(&format!("{settings}profile = \"ours\"")).await;
    assert!(
        error.contains("has another hash") && error.contains("ours.onnx"),
        "{error}"
    );
    std::fs::remove_file(folder.path().join("ours.onnx")).unwrap();
    let error = said(&format!("{settings}profile = \"ours\"")).await;
    assert!(error.contains("ours.onnx, is missing"), "{error}");
    let error = said("models_manifest = \"/nowhere/models.toml\"").await;
    assert!(error.contains("/nowhere/models.toml"), "{error}");
}
