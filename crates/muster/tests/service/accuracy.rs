//! What `muster eval` prints of photographs of known people.

use std::process::Output;

use serde_json::Value;

use crate::support::{LIMIT, muster, samples};

async fn eval(args: &[&str]) -> Output {
    let command = muster().arg("eval").args(args).output();
    tokio::time::timeout(LIMIT, command).await.unwrap().unwrap()
}

#[tokio::test]
async fn where_it_is_hard_every_variation_has_its_row() {
    let Some(samples) = samples() else { return };
    let folder = tempfile::tempdir().unwrap();
    // One has a photograph enrolled and another looked up, one is a stranger.
    for ((name, photos), count) in samples.people.iter().zip([2, 1]) {
        let person = folder.path().join(name);
        std::fs::create_dir(&person).unwrap();
        for (n, photo) in photos[..count].iter().enumerate() {
            let small = image::open(photo).unwrap().thumbnail(160, 160);
            small.save(person.join(format!("{n}.jpg"))).unwrap();
        }
    }
    let images = folder.path().to_str().unwrap();
    let output = eval(&["robust", "--images", images, "--probes", "1", "--json"]).await;
    assert!(output.status.success(), "{output:?}");
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    let counts = ["people", "faces", "probes", "strangers"].map(|name| figures[name].as_u64());
    assert_eq!(counts, [Some(1); 4]);
    let rows = figures["variations"].as_array().unwrap();
    assert_eq!(rows.len(), 50);
    let row = |name: &str| {
        let mut rows = rows.iter();
        rows.find(|row| row["variation"] == name)
            .unwrap_or_else(|| panic!("no {name}"))
    };
    let happened = |name: &str, pointer: &str| row(name).pointer(pointer).unwrap().as_u64();
    // What everybody recognises, and what nobody does.
    for easy in ["as it is", "JPEG 50", "dark 0.5"] {
        assert_eq!(happened(easy, "/found/happened"), Some(2), "{easy}");
        for rate in ["/scores/decided/fnir", "/scores/decided/fpir"] {
            let wrong = happened(easy, &format!("{rate}/happened"));
            assert_eq!(wrong, Some(0), "{easy}: {rate}");
        }
    }
    let missed = happened("face 12 px", "/scores/decided/fnir/happened");
    assert_eq!(missed, Some(1), "a face of 12 pixels is unfit to be named");
    let only = ["robust", "--images", images, "--only", "face", "--json"];
    let some: Value = serde_json::from_slice(&eval(&only).await.stdout).unwrap();
    let some = some["variations"].as_array().unwrap();
    assert_eq!(some.len(), 6);
    for alone in some {
        assert_eq!(alone, row(alone["variation"].as_str().unwrap()));
    }
}

#[tokio::test]
async fn what_can_not_be_measured_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().to_str().unwrap();
    let said = async |args: &[&str], sentence: &str| {
        let output = eval(args).await;
        assert!(!output.status.success(), "{args:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        let line = said.lines().next().unwrap();
        assert!(line.ends_with(sentence), "{args:?}: {said}");
    };
    let none =
        format!("there are no photographs in {images}: name a folder with one folder a person");
    said(&["robust", "--images", images], &none).await;
    std::fs::create_dir(folder.path().join("Ann")).unwrap();
    std::fs::write(folder.path().join("Ann/1.jpg"), "never opened").unwrap();
    let alone = format!(
        "nobody in {images} has two photographs, one to enrol and one to look up: add some"
    );
    said(&["robust", "--images", images], &alone).await;
    let probes = "0 is no number of photographs: name a whole one from 1 on";
    said(&["robust", "--images", images, "--probes", "0"], probes).await;
    let only = r#"no variation's name begins with "upside": run it without --only to see them all"#;
    said(&["robust", "--images", images, "--only", "upside"], only).await;
    for command in ["robust", "identify", "health"] {
        let seed = "x is no seed: name a whole number from 0 to 18446744073709551615";
        said(&[command, "--images", images, "--seed", "x"], seed).await;
    }
}
