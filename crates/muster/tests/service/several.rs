//! Several photographs at once: recognised together, and compared with each other.

use muster_jobs::RequestId;
use reqwest::multipart::Form;

use crate::bad_input::{assert_problem, grey_jpeg};
use crate::support::{Answer, Service, jpeg, muster, read, samples};

async fn send(service: &Service, path: &str, photos: &[(&str, &[u8])]) -> Answer {
    let mut form = Form::new();
    for (file, photo) in photos {
        form = form.part("image", jpeg(file, photo));
    }
    service.post(path, form).await
}

#[tokio::test]
async fn several_photographs_are_answered_in_their_order() {
    let Some(samples) = samples() else { return };
    let service = Service::up("max_instances = 2\nidle_grace_s = 30.0\nmax_images = 5").await;
    let (name, photos) = &samples.people[0];
    assert_eq!(service.enroll(name, &[&read(&photos[0])]).await.status, 201);
    let (known, stranger) = (read(&photos[1]), read(&samples.people[1].1[0]));
    let grey = grey_jpeg();

    let sent: [(&str, &[u8]); 5] = [
        ("text.jpg", b"this is not a photograph"),
        ("known.jpg", &known),
        ("cut.jpg", &known[..known.len() / 2]),
        ("stranger.jpg", &stranger),
        ("grey.jpg", &grey),
    ];
    let answer = send(&service, "/v1/recognize", &sent).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert!(
        answer["request_id"]
            .as_str()
            .unwrap()
            .parse::<RequestId>()
            .is_ok()
    );
    let results = answer["results"].as_array().unwrap();
    let files: Vec<_> = results
        .iter()
        .map(|r| r["file"].as_str().unwrap())
        .collect();
    assert_eq!(files, sent.map(|(file, _)| file));
    for (place, code) in [
        (0, "image.unsupported"),
        (2, "image.unreadable"),
        (4, "face.none"),
    ] {
        assert_eq!(results[place]["problem"]["code"], code, "{answer}");
        assert!(results[place].get("faces").is_none());
    }
    assert_eq!(results[1]["faces"][0]["person"]["name"], *name);
    assert_eq!(results[3]["faces"][0]["decision"], "unknown");
    assert!(results[3]["timing_ms"]["total"].is_number());
    assert_ne!(results[1]["request_id"], results[3]["request_id"]);

    // One keeps its shape, refused or not.
    let one = send(&service, "/v1/recognize", &sent[1..2]).await.json();
    assert_eq!(one["faces"][0]["person"]["name"], *name);
    assert!(one.get("results").is_none() && one.get("file").is_none());
    let refused = send(&service, "/v1/recognize", &sent[..1]).await;
    assert_problem(&refused, 415, "image.unsupported");

    let six = [sent[1]; 6];
    let many = send(&service, "/v1/recognize", &six).await;
    assert_problem(&many, 413, "image.too_many");
    assert!(many.text().contains("more than 5"), "{}", many.text());
    let form = Form::new()
        .part("inputFile", jpeg("a.jpg", &known))
        .part("inputFile", jpeg("b.jpg", &known));
    assert_eq!(
        service.post("/", form).await.status,
        400,
        "POST / takes one"
    );
}

#[tokio::test]
async fn two_photographs_are_compared() {
    let Some(samples) = samples() else { return };
    let service = Service::up("max_instances = 2\nidle_grace_s = 30.0").await;
    let [(_, one), (_, other), ..] = &samples.people[..] else {
        panic!("two people at least");
    };
    let (first, again, stranger) = (read(&one[0]), read(&one[1]), read(&other[0]));
    let group = read(&samples.group);

    // Nobody is enrolled.
    let same = send(
        &service,
        "/v1/verify",
        &[("a.jpg", &first), ("b.jpg", &again)],
    )
    .await;
    assert_eq!(same.status, 200, "{}", same.text());
    let same = same.json();
    assert_eq!(same["same"], true, "{same}");
    assert_eq!(same["model"], "sface");
    let cutoff = same["cutoff"].as_f64().unwrap();
    assert!(same["similarity"].as_f64().unwrap() >= cutoff);
    for (n, file) in ["a.jpg", "b.jpg"].iter().enumerate() {
        let face = &same["faces"][n];
        assert_eq!(
            (&face["file"], &face["faces_found"]),
            (&(*file).into(), &1.into())
        );
        assert!(face["box"]["width"].as_f64().unwrap() > 0.0);
        assert!(face["confidence"].as_f64().unwrap() > 0.5);
        assert!(face.get("embedding").is_none());
    }
    let different = send(
        &service,
        "/v1/verify",
        &[("a.jpg", &first), ("b.jpg", &stranger)],
    )
    .await;
    let different = different.json();
    assert_eq!(different["same"], false, "{different}");
    assert!(different["similarity"].as_f64().unwrap() < cutoff);
    // The largest face of a group, and how many there were.
    let among = send(
        &service,
        "/v1/verify",
        &[("a.jpg", &first), ("g.jpg", &group)],
    )
    .await;
    assert_eq!(among.json()["faces"][1]["faces_found"], 6);

    let faceless = send(
        &service,
        "/v1/verify",
        &[("a.jpg", &first), ("grey.jpg", &grey_jpeg())],
    )
    .await;
    assert_problem(&faceless, 422, "face.none");
    assert_eq!(faceless.json()["photograph"], "second");
    assert!(faceless.text().contains("the second photograph, grey.jpg"));
    let cut = &first[..first.len() / 2];
    let damaged = send(
        &service,
        "/v1/verify",
        &[("cut.jpg", cut), ("b.jpg", &first)],
    )
    .await;
    assert_problem(&damaged, 422, "image.unreadable");
    assert_eq!(damaged.json()["photograph"], "first");
    let alone = send(&service, "/v1/verify", &[("a.jpg", &first)]).await;
    assert_problem(&alone, 400, "request.invalid");
    assert!(alone.text().contains("2 are needed"), "{}", alone.text());
    let three = [("a.jpg", &*first); 3];
    assert_problem(
        &send(&service, "/v1/verify", &three).await,
        413,
        "image.too_many",
    );

    // Nothing of it is kept.
    for folder in ["input", "output"] {
        let folder = service.data.join("objects").join(folder);
        let left = std::fs::read_dir(folder).into_iter().flatten().count();
        assert_eq!(left, 0);
    }

    let command = async |photos: [&std::path::PathBuf; 2], more: &[&str]| {
        let output = muster()
            .args(["verify", "--url", &service.url])
            .args(photos)
            .args(more)
            .output()
            .await
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        (output.status.success(), said)
    };
    let (is_same, said) = command([&one[0], &one[1]], &[]).await;
    assert!(
        is_same && said.starts_with("the same person: similarity 0."),
        "{said}"
    );
    let (is_same, said) = command([&one[0], &other[0]], &["--json"]).await;
    let verified: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert!(!is_same && verified["same"] == false, "{said}");
}

/// The operator's cutoff is the one that two photographs are compared by.
#[tokio::test]
async fn the_cutoff_that_is_set_counts() {
    let Some(samples) = samples() else { return };
    let service = Service::up("max_instances = 1\ncutoff = 0.999").await;
    let photos = &samples.people[0].1;
    let (first, again) = (read(&photos[0]), read(&photos[1]));
    let compared = send(
        &service,
        "/v1/verify",
        &[("a.jpg", &first), ("b.jpg", &again)],
    )
    .await;
    let compared = compared.json();
    assert_eq!(compared["same"], false, "{compared}");
    assert!((compared["cutoff"].as_f64().unwrap() - 0.999).abs() < 1e-6);
}
