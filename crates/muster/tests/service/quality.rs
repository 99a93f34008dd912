//! The limits of quality: set, overridden for one enrolment, and what small photographs come to.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use futures::{StreamExt, stream};
use image::imageops::FilterType;
use image::{DynamicImage, ImageFormat};
use reqwest::multipart::Form;
use serde_json::Value;

use crate::support::{Answer, Service, jpeg, muster, read, samples};

/// A photograph made so small that it fits a square of this side.
fn small(path: &Path, side: u32) -> Vec<u8> {
    let photo = image::load_from_memory(&read(path)).unwrap();
    encoded(&photo.resize(side, side, FilterType::Lanczos3))
}

fn encoded(photo: &DynamicImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    photo.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

async fn get(service: &Service, path: &str) -> Value {
    let answer = Answer::read(service.http.get(service.at(path)).send().await.unwrap()).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

fn form(name: Option<&str>, photo: &[u8], accept: Option<&str>) -> Form {
    let mut form = Form::new().part("image", jpeg("small.jpg", photo));
    for (field, text) in [("name", name), ("accept_unfit", accept)] {
        if let Some(text) = text {
            form = form.text(field, text.to_owned());
        }
    }
    form
}

/// The measures of which a face's mark says that it does not meet them.
fn unmet(face: &Value) -> Vec<&str> {
    let unfit = face["unfit"].as_array().unwrap().iter();
    unfit.map(|one| one["measure"].as_str().unwrap()).collect()
}

/// A side at which the samples' portraits have a face of fewer than 20 pixels.
const TINY: u32 = 44;

#[tokio::test]
async fn an_unfit_face_is_enrolled_where_that_is_accepted_and_marked() {
    let Some(samples) = samples() else { return };
    let (name, photos) = &samples.people[0];
    let (tiny, other) = (small(&photos[0], TINY), read(&photos[1]));
    let service = Service::up("").await;
    for accept in [None, Some("false")] {
        let refused = service
            .post("/v1/people", form(Some(name), &tiny, accept))
            .await;
        assert_eq!(refused.status, 422, "{}", refused.text());
        let problem = refused.json();
        assert_eq!(problem["code"], "face.unfit");
        let detail = problem["detail"].as_str().unwrap();
        for said in [
            "too small",
            "accept_unfit=true",
            "quality.enrolment.size_px",
        ] {
            assert!(detail.contains(said), "{detail}");
        }
    }
    let unclear = service
        .post("/v1/people", form(Some(name), &tiny, Some("yes")))
        .await;
    assert_eq!(unclear.status, 400);
    assert!(
        unclear
            .text()
            .contains("accept_unfit is yes: send true or false")
    );

    // What it never overrides.
    let nobody = encoded(&DynamicImage::new_rgb8(200, 200));
    for (photo, code) in [
        (&nobody, "face.none"),
        (&read(&samples.group), "face.multiple"),
    ] {
        let refused = service
            .post("/v1/people", form(Some(name), photo, Some("true")))
            .await;
        assert_eq!(
            (refused.status, &refused.json()["code"]),
            (422, &code.into())
        );
    }

    let enrolled = service
        .post("/v1/people", form(Some(name), &tiny, Some("true")))
        .await;
    assert_eq!(enrolled.status, 201, "{}", enrolled.text());
    let person = enrolled.json();
    let face = &person["faces"][0];
    assert!(unmet(face).contains(&"size_px"), "{face}");
    let size = face["quality"]["size_px"].as_f64().unwrap();
    assert_eq!(face["unfit"][0]["measured"], size);
    let path = format!("/v1/people/{}/faces", person["id"].as_str().unwrap());
    let refused = service.post(&path, form(None, &tiny, None)).await;
    assert_eq!(refused.json()["code"], "face.unfit");
    let added = service.post(&path, form(None, &tiny, Some("true"))).await;
    assert_eq!(added.status, 201, "{}", added.text());
    assert_eq!(
        service.post(&path, form(None, &other, None)).await.status,
        201
    );
    let listed = get(&service, &path).await;
    let marks = listed["faces"].as_array().unwrap().iter();
    let marks: Vec<bool> = marks.map(|face| unmet(face).is_empty()).collect();
    assert_eq!(marks, [false, false, true]);
    let health = get(&service, "/v1/gallery/health").await;
    let weak = health["weak"].as_array().unwrap();
    let marked = weak.iter().filter(|weak| unmet(weak).contains(&"size_px"));
    assert_eq!(marked.count(), 2, "{health}");
    assert_eq!(
        health["required"],
        get(&service, "/v1/status").await["quality"]["enrolment"]
    );

    // The command.
    let (name, photos) = &samples.people[1];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tiny.png");
    std::fs::write(&file, small(&photos[0], TINY)).unwrap();
    let enroll = async |more: &[&str]| {
        let source = format!("{name}={}", file.display());
        let mut command = muster();
        command
            .args(["enroll", &source, "--url", &service.url, "--json"])
            .args(more);
        let output = command.output().await.unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let (done, report) = enroll(&[]).await;
    assert!(!done && report.contains("accept_unfit"), "{report}");
    let (done, report) = enroll(&["--accept-unfit"]).await;
    assert!(done && report.contains("\"enrolled\""), "{report}");
}

#[tokio::test]
async fn the_limits_are_settings_of_web_tier_and_workers() {
    let Some(samples) = samples() else { return };
    let (name, photos) = &samples.people[0];
    let service = Service::up(
        "[quality.enrolment]\nsize_px = 10\nsharpness = 0.1\n[quality.matching]\nsize_px = 1000",
    )
    .await;
    let limits = &get(&service, "/v1/status").await["quality"];
    assert_eq!(limits["enrolment"]["size_px"], 10.0);
    assert_eq!(limits["matching"]["size_px"], 1000.0);
    let enrolled = service
        .post(
            "/v1/people",
            form(Some(name), &small(&photos[0], TINY), None),
        )
        .await;
    assert_eq!(enrolled.status, 201, "{}", enrolled.text());
    assert_eq!(unmet(&enrolled.json()["faces"][0]), [""; 0]);
    assert_eq!(
        get(&service, "/v1/gallery/health").await["weak"],
        Value::Array(vec![])
    );
    let answer = service.recognize(&small(&photos[1], 400)).await.json();
    let face = &answer["faces"][0];
    assert_eq!(face["decision"], "unknown");
    assert!(
        face["reasons"][0]
            .as_str()
            .unwrap()
            .contains("1000 required"),
        "{face}"
    );
}

/// Photographs of Labeled Faces in the Wild, one folder a person; `None` where they are not there.
fn labelled_faces() -> Option<Vec<Vec<PathBuf>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/lfw/images");
    let sorted = |folder: &Path| {
        let entries = std::fs::read_dir(folder).ok()?;
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        Some(paths)
    };
    let Some(people) = sorted(&folder) else {
        assert!(
            !muster_testbed::in_ci(),
            "{} is needed in CI",
            folder.display()
        );
        eprintln!("skipped: {} is not there", folder.display());
        return None;
    };
    people.iter().map(|person| sorted(person)).collect()
}

/// The first ten people by name who have two photographs; of each the first that is enrolled, and the
/// next of the others is asked. The strangers are the first hundred people with one photograph.
#[tokio::test]
async fn ten_people_in_photographs_of_64_pixels_are_named_and_strangers_are_not() {
    let (Some(people), Some(_)) = (labelled_faces(), samples()) else {
        return;
    };
    let service = Service::up("target_fpir = 0.01").await;
    let (several, one): (Vec<_>, Vec<_>) = people.into_iter().partition(|own| own.len() > 1);
    let mut asked: Vec<(String, PathBuf)> = Vec::new();
    for mut photos in several {
        let name = photos[0].parent().unwrap().file_name().unwrap();
        let name = name.to_string_lossy().into_owned();
        for place in 0..photos.len() {
            let tiny = small(&photos[place], 64);
            if service.enroll(&name, &[&tiny]).await.status == 201 {
                photos.remove(place);
                asked.push((name, photos.remove(0)));
                break;
            }
        }
        if asked.len() == 10 {
            break;
        }
    }
    let names = async |photo: &Path| {
        let answer = service.recognize(&small(photo, 64)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let faces = answer.json()["faces"].as_array().unwrap().clone();
        let named = faces
            .iter()
            .filter_map(|face| face["person"]["name"].as_str());
        named.map(str::to_owned).collect::<Vec<String>>()
    };
    for (name, photo) in &asked {
        assert_eq!(names(photo).await, std::slice::from_ref(name));
    }
    assert_eq!(asked.len(), 10);
    let strangers = stream::iter(one.iter().take(100));
    let named = strangers
        .map(|photos| names(&photos[0]))
        .buffer_unordered(8);
    let named: Vec<Vec<String>> = named
        .filter(|names| std::future::ready(!names.is_empty()))
        .collect()
        .await;
    assert!(named.len() <= 1, "{named:?}");
}
