//! Bad input: each gets its status and one clear line, nothing waits, no worker dies, and the next
//! good request is answered.

use crate::support::{Answer, Service, jpeg, read, samples, until};
use reqwest::multipart::{Form, Part};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The check sum of a PNG's chunk.
pub fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ 0xedb8_8320
            } else {
                crc >> 1
            };
        }
    }
    !crc
}

/// The first bytes of a PNG that says it has that size.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(width.to_be_bytes());
    chunk.extend(height.to_be_bytes());
    chunk.extend([8, 2, 0, 0, 0]);
    let sum = crc32(&chunk).to_be_bytes();
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    png.extend(chunk);
    png.extend(sum);
    png
}

pub fn grey_jpeg() -> Vec<u8> {
    let mut bytes = Vec::new();
    let photo = image::RgbImage::from_pixel(300, 300, image::Rgb([127, 127, 127]));
    image::codecs::jpeg::JpegEncoder::new(&mut bytes)
        .encode_image(&photo)
        .unwrap();
    bytes
}

async fn both(service: &Service, file: &str, bytes: &[u8], status: u16, code: &str) {
    let answer = service
        .post(
            "/v1/recognize",
            Form::new().part("image", jpeg(file, bytes)),
        )
        .await;
    assert_problem(&answer, status, code);
    let plain = service
        .post("/", Form::new().part("inputFile", jpeg(file, bytes)))
        .await;
    assert_eq!(plain.status, status, "POST / of {file}: {}", plain.text());
    assert_eq!(
        plain.text().trim_end().lines().count(),
        1,
        "one line: {:?}",
        plain.text()
    );
}

pub fn assert_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    let problem = answer.json();
    assert_eq!(
        (&problem["code"], &problem["status"]),
        (&code.into(), &status.into())
    );
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        !detail.is_empty() && !detail.contains('\n'),
        "one clear line: {detail:?}"
    );
}

#[tokio::test]
async fn every_bad_input_gets_its_status_and_the_service_lives_on() {
    let Some(samples) = samples() else { return };
    let service = Service::up("max_instances = 1\nidle_grace_s = 30.0").await;
    let (name, photos) = &samples.people[0];
    let good = read(&photos[0]);
    assert_eq!(service.enroll(name, &[&good]).await.status, 201);
    let workers = service.workers();

    for (path, body) in [("/v1/recognize", ""), ("/", ""), ("/v1/people", "hello")] {
        let request = service.http.post(service.at(path)).body(body);
        let answer = Answer::read(request.send().await.unwrap()).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
    }
    let missing = service
        .post("/v1/recognize", Form::new().text("other", "x"))
        .await;
    assert_problem(&missing, 400, "request.invalid");
    assert!(
        missing.text().contains("image"),
        "names the field: {}",
        missing.text()
    );

    both(&service, "empty.jpg", b"", 422, "image.unreadable").await;
    both(
        &service,
        "text.jpg",
        b"this is not a photograph",
        415,
        "image.unsupported",
    )
    .await;
    both(
        &service,
        "a.heic",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        422,
        "image.unreadable",
    )
    .await;
    both(
        &service,
        "cut.jpg",
        &good[..good.len() / 2],
        422,
        "image.unreadable",
    )
    .await;
    both(
        &service,
        "huge.png",
        &png_header(30_000, 30_000),
        413,
        "image.too_large",
    )
    .await;
    for (width, height) in [(1, 50_000_000), (50_000_000, 1), (10, 5_000_000)] {
        let png = png_header(width, height);
        both(&service, "thin.png", &png, 413, "image.too_large").await;
    }
    both(
        &service,
        "big.jpg",
        &vec![0xff; 50 << 20],
        413,
        "image.too_large",
    )
    .await;
    both(&service, "grey.jpg", &grey_jpeg(), 422, "face.none").await;

    let group = service.enroll("Group", &[&read(&samples.group)]).await;
    assert_problem(&group, 422, "face.multiple");
    assert_problem(
        &service.enroll("Nobody", &[&grey_jpeg()]).await,
        422,
        "face.none",
    );
    let mixed = service
        .enroll("Mixed", &[&good, &grey_jpeg(), b"text"])
        .await;
    assert_problem(&mixed, 415, "image.unsupported");
    let mixed = service.enroll("Mixed", &[&good, &grey_jpeg()]).await;
    assert_problem(&mixed, 422, "face.none");
    assert_eq!(mixed.json()["refused"][0]["file"], "1.jpg");
    let people = service.status().await["gallery"]["people"].as_u64();
    assert_eq!(people, Some(1), "a refused enrolment leaves nobody behind");
    for bad in ["", "  ", "a\nb", &"x".repeat(201)] {
        let answer = service.enroll(bad, &[&good]).await;
        assert_problem(&answer, 400, "request.invalid");
    }

    for (path, status) in [
        ("/nowhere", 404),
        ("/v1/people/x", 404),
        ("/v1/jobs/x", 404),
    ] {
        let answer = Answer::read(service.http.get(service.at(path)).send().await.unwrap()).await;
        assert_problem(&answer, status, "not_found");
    }
    let answer = service
        .http
        .put(service.at("/v1/status"))
        .send()
        .await
        .unwrap();
    assert_problem(&Answer::read(answer).await, 405, "method.not_allowed");

    let status = service.status().await;
    assert_eq!(
        status["requests"]["waiting"], 0,
        "nothing is left waiting: {status}"
    );
    // A request is deleted a little after its answer.
    until("nothing is left on the queue", async || {
        let queue = &service.status().await["queue"];
        queue["visible"] == 0 && queue["in_flight"] == 0
    })
    .await;
    assert_eq!(service.workers(), workers, "no worker died");
    assert_eq!(service.recognize(&read(&photos[1])).await.name(), *name);
}

#[tokio::test]
async fn file_names_are_data() {
    let Some(samples) = samples() else { return };
    let service = Service::up("max_instances = 1\nidle_grace_s = 30.0").await;
    let photo = read(&samples.people[0].1[0]);
    let long = "x".repeat(4000);
    for (sent, stem) in [
        (b"../../../etc/passwd.jpg".to_vec(), Some("passwd")),
        (b"..\\..\\boot.jpg".to_vec(), None),
        (b"no extension".to_vec(), Some("no extension")),
        (b"a%0d%0aX-Evil: 1.jpg".to_vec(), None),
        (format!("{long}.jpg").into_bytes(), None),
        (b"\xff\xfe\x80.jpg".to_vec(), None),
        ("zażółć 漢字.jpg".as_bytes().to_vec(), Some("zażółć 漢字")),
        (b"".to_vec(), None),
        // As .NET writes a name, in two ways.
        (b"=?utf-8?B?xbzDs8WCdy5qcGc=?=".to_vec(), Some("żółw")),
        (
            b"x\"; filename*=utf-8''na%C3%AFve.jpg; y=\"".to_vec(),
            Some("naïve"),
        ),
    ] {
        let answer = raw_post(&service.url, &sent, &photo).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let shown = String::from_utf8_lossy(&sent);
        assert!(head.starts_with("HTTP/1.1 200"), "{shown}: {answer}");
        assert!(!head.contains("X-Evil"), "{head}");
        assert_eq!(body.lines().count(), 1, "{shown}: {body:?}");
        if let Some(stem) = stem {
            assert_eq!(body, format!("{stem}:unknown"));
        }
    }
    // CR and LF in a header break the form, which is refused.
    let answer = raw_post(&service.url, b"a\r\nX-Evil: 1\r\n\r\n.jpg", &photo).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");

    let mut outside = Vec::new();
    for entry in std::fs::read_dir(service.data.parent().unwrap()).unwrap() {
        outside.push(entry.unwrap().file_name());
    }
    outside.sort();
    assert_eq!(
        outside,
        ["data", "data.up.toml"],
        "nothing is written beside the data folder"
    );
    until("nothing waits", async || {
        service.status().await["requests"]["waiting"] == 0
    })
    .await;
}

/// Sends a form whose file name is exactly these bytes; the whole answer as text.
async fn raw_post(url: &str, file: &[u8], photo: &[u8]) -> String {
    let mut body =
        b"--b\r\nContent-Disposition: form-data; name=\"inputFile\"; filename=\"".to_vec();
    body.extend_from_slice(file);
    body.extend_from_slice(b"\"\r\nContent-Type: image/jpeg\r\n\r\n");
    body.extend_from_slice(photo);
    body.extend_from_slice(b"\r\n--b--\r\n");
    let host = url.strip_prefix("http://").unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n\
         Content-Type: multipart/form-data; boundary=b\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(host).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(crate::support::LIMIT, stream.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn too_many_at_once_are_told_when_to_come_back() {
    // No worker ever starts here, so that requests stay waiting; the models are not needed.
    let folder = tempfile::tempdir().unwrap();
    let toml = "max_waiting = 2\nrequest_timeout_s = 3.0";
    let service = Service::start("web", &folder.path().join("data"), toml).await;
    let photo = grey_jpeg();
    let answers = futures::future::join_all((0..5).map(|_| service.recognize(&photo))).await;
    let of = |status| answers.iter().filter(move |answer| answer.status == status);
    assert_eq!((of(429).count(), of(504).count()), (3, 2));
    for answer in of(429) {
        assert_problem(answer, 429, "overloaded");
        assert!(
            answer.headers["retry-after"]
                .to_str()
                .unwrap()
                .parse::<u32>()
                .unwrap()
                >= 1
        );
    }
    for answer in of(504) {
        assert_problem(answer, 504, "timeout");
        let problem = answer.json();
        let job = service
            .http
            .get(service.at(problem["job"].as_str().unwrap()))
            .send()
            .await;
        let job = Answer::read(job.unwrap()).await;
        assert_eq!((job.status, &job.json()["state"]), (200, &"pending".into()));
    }
    let form = Form::new().part("image", Part::bytes(photo));
    assert_eq!(
        service.post("/v1/recognize", form).await.status,
        504,
        "without a file name too"
    );
}
