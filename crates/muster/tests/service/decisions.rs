//! What is decided of several faces, of people who are too much alike and of unfit photographs, and
//! what the service says of its own gallery.

use std::io::Cursor;
use std::path::Path;

use crate::support::{Answer, Service, muster, read, samples};
use image::imageops::{FilterType, replace};
use image::{DynamicImage, ImageFormat, RgbImage};
use serde_json::Value;

fn encoded(image: &RgbImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
    bytes.into_inner()
}

/// Photographs side by side, each 500 pixels high.
fn side_by_side(photos: &[&Path]) -> Vec<u8> {
    let open = |path: &&Path| {
        let photo = image::load_from_memory(&read(path)).unwrap();
        photo.resize(2000, 500, FilterType::Triangle).to_rgb8()
    };
    let photos: Vec<RgbImage> = photos.iter().map(open).collect();
    let width = photos.iter().map(RgbImage::width).sum();
    let mut whole = RgbImage::new(width, 500);
    let mut left = 0;
    for photo in photos {
        replace(&mut whole, &photo, left, 0);
        left += i64::from(photo.width());
    }
    encoded(&whole)
}

/// The faces of an answer from left to right: the decision, the name and the reasons.
fn faces(answer: &Answer) -> Vec<(String, Option<String>, Vec<String>)> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    let mut faces = answer["faces"].as_array().unwrap().clone();
    faces.sort_by(|a, b| {
        let left = |face: &Value| face["box"]["x"].as_f64().unwrap();
        left(a).total_cmp(&left(b))
    });
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let face = |face: &Value| {
        let reasons = face["reasons"].as_array().unwrap().iter();
        (
            text(&face["decision"]),
            face["person"]["name"].as_str().map(str::to_owned),
            reasons.map(text).collect(),
        )
    };
    faces.iter().map(face).collect()
}

async fn get(service: &Service, path: &str) -> Value {
    let answer = Answer::read(service.http.get(service.at(path)).send().await.unwrap()).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

#[tokio::test]
async fn a_person_is_in_a_photograph_once() {
    let Some(samples) = samples() else { return };
    let [(obama, of_obama), (biden, of_biden)] = &samples.people[..] else {
        panic!("the samples show two people")
    };
    let (both, twice) = (
        side_by_side(&[&of_obama[1], &of_biden[0]]),
        side_by_side(&[&of_obama[1], &of_obama[2]]),
    );
    let service = Service::up("").await;
    for (name, photos) in &samples.people {
        let enrolled = service.enroll(name, &[&read(&photos[0])]).await;
        assert_eq!(enrolled.status, 201, "{}", enrolled.text());
    }
    let found = faces(&service.recognize(&both).await);
    let name = |name: &String| ("match".to_owned(), Some(name.clone()), vec![]);
    assert_eq!(found, [name(obama), name(biden)]);

    let found = faces(&service.recognize(&twice).await);
    let (matched, lost): (Vec<_>, Vec<_>) = found.into_iter().partition(|(d, ..)| d == "match");
    assert_eq!(matched, [name(obama)]);
    let [(decision, None, reasons)] = &lost[..] else {
        panic!("{lost:?}")
    };
    assert_eq!(decision, "unknown");
    let expected = "is another face of this photograph: one person is in a photograph once";
    assert!(reasons[0].contains(expected), "{reasons:?}");
    drop(service);

    let service = Service::up("one_person_once = false").await;
    service.enroll(obama, &[&read(&of_obama[0])]).await;
    let found = faces(&service.recognize(&twice).await);
    assert_eq!(found, [name(obama), name(obama)]);
}

#[tokio::test]
async fn people_who_are_too_much_alike_are_ambiguous_and_the_gallery_is_examined() {
    let Some(samples) = samples() else { return };
    let [(_, of_obama), (_, of_biden)] = &samples.people[..] else {
        panic!("the samples show two people")
    };
    let service = Service::up("").await;
    let (first, second, third) = (read(&of_obama[0]), read(&of_obama[1]), read(&of_obama[2]));
    service.enroll("Ann", &[&first]).await;
    service.enroll("Bob", &[&first]).await;
    let answer = service.recognize(&third).await;
    let [(decision, None, reasons)] = &faces(&answer)[..] else {
        panic!("{}", answer.text())
    };
    assert_eq!(decision, "ambiguous");
    let face = &answer.json()["faces"][0];
    assert!(face["margin"].as_f64().unwrap() < 0.05);
    assert_eq!(face["candidates"].as_array().unwrap().len(), 2);
    let (cutoff, similarity) = (&face["cutoff"], &face["similarity"]);
    assert!(similarity.as_f64() >= cutoff.as_f64(), "{face}");
    assert!(face["quality"]["size_px"].as_f64().unwrap() > 100.0);
    assert!(
        reasons[0].contains("too close: the margin 0.000 is below the required 0.050"),
        "{reasons:?}"
    );

    let report = get(&service, "/v1/calibration").await;
    assert_eq!(
        (&report["people"], &report["faces"]),
        (&2.into(), &2.into())
    );
    assert_eq!(
        &report["cutoff"], cutoff,
        "what is decided by is what is shown"
    );
    assert_eq!(report["basis"], "shipped");
    assert_eq!(
        report["fpir"]["happened"], 2,
        "each would be taken for the other"
    );
    assert!(report["fnir"]["estimate"].is_null());
    assert!(report["notes"].to_string().contains("nobody has two faces"));

    let health = get(&service, "/v1/gallery/health").await;
    let [pair] = &health["duplicates"].as_array().unwrap()[..] else {
        panic!("{health}")
    };
    let names = (&pair["first"]["name"], &pair["second"]["name"]);
    assert_eq!(names, (&"Ann".into(), &"Bob".into()));

    // A photograph of Ann under somebody else's name.
    let gone = service.http.delete(service.at(&format!(
        "/v1/people/{}",
        pair["second"]["id"].as_str().unwrap()
    )));
    assert!(gone.send().await.unwrap().status().is_success());
    let biden = read(&of_biden[0]);
    assert_eq!(service.enroll("Cleo", &[&first, &third]).await.status, 201);
    let gone = service.http.delete(service.at(&format!(
        "/v1/people/{}",
        pair["first"]["id"].as_str().unwrap()
    )));
    assert!(gone.send().await.unwrap().status().is_success());
    assert_eq!(service.enroll("Dan", &[&biden, &second]).await.status, 201);
    let output = muster()
        .args(["gallery", "health", "--json", "--url", &service.url])
        .output()
        .await
        .unwrap();
    let health: Value = serde_json::from_slice(&output.stdout).unwrap();
    let [found] = &health["mislabelled"].as_array().unwrap()[..] else {
        panic!("{health}")
    };
    assert_eq!(found["file"], "1.jpg");
    assert_eq!(found["person"]["name"], "Dan");
    assert_eq!(found["looks_like"]["name"], "Cleo");
    for command in ["health", "calibration"] {
        let output = muster()
            .args(["gallery", command, "--url", &service.url])
            .output()
            .await
            .unwrap();
        let shown = String::from_utf8(output.stdout).unwrap();
        assert!(shown.contains("2 people with 4 faces"), "{shown}");
    }
    let refused = service.http.get(service.at("/v1/gallery/health?after=x"));
    assert_eq!(refused.send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn an_unfit_photograph_is_refused_with_what_it_lacks() {
    let Some(samples) = samples() else { return };
    let (name, photos) = &samples.people[0];
    let photo = image::load_from_memory(&read(&photos[0])).unwrap();
    let small = photo.resize(50, 50, FilterType::Triangle).to_rgb8();
    let blurred = photo.resize(500, 500, FilterType::Triangle).blur(8.0);
    let mut dark = photo.to_rgb8();
    dark.iter_mut().for_each(|value| *value /= 10);
    let service = Service::up("").await;
    for (photo, reason) in [
        (DynamicImage::from(small), "the face is too small: "),
        (blurred, "the face is blurred: sharpness "),
        (
            DynamicImage::from(dark),
            "the face is too dark: brightness ",
        ),
    ] {
        let refused = service.enroll(name, &[&encoded(&photo.to_rgb8())]).await;
        assert_eq!(refused.status, 422, "{}", refused.text());
        let problem = refused.json();
        assert_eq!(problem["code"], "face.unfit");
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains(reason) && detail.contains("required"),
            "{detail}"
        );
        assert_eq!(problem["refused"][0]["file"], "0.jpg");
    }
    assert_eq!(get(&service, "/v1/people").await["total"], 0);
}
