//! What commands print: safe for a terminal, for a pipe that is closed, and for a script.

use std::path::Path;
use std::process::{Output, Stdio};

use axum::Router;
use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::bad_input::grey_jpeg;
use crate::support::{LIMIT, Service, muster, samples};

/// ESC, OSC with BEL, CSI of C1, a line break and an override of the writing direction.
const HOSTILE: &str = "a\u{1b}]0;title\u{7}\u{9b}2J\nmuster: forged\u{202e}";

async fn run(args: &[&str]) -> Output {
    let command = muster().args(args).output();
    tokio::time::timeout(LIMIT, command).await.unwrap().unwrap()
}

/// Holds a command's whole output to what a terminal may get.
fn assert_safe(what: &str, output: &Output) {
    for bytes in [&output.stdout, &output.stderr] {
        let text = std::str::from_utf8(bytes).unwrap();
        let act = |c: char| c.is_control() && !matches!(c, '\n' | '\t') || c == '\u{202e}';
        assert!(!text.contains(act), "{what}: {text:?}");
        let forged = text.lines().any(|line| line.starts_with("muster: forged"));
        assert!(!forged, "{what}: {text}");
    }
}

#[tokio::test]
async fn nothing_of_a_stranger_acts_on_a_terminal() {
    // A service that answers what it likes.
    let answer = || async {
        let problem = json!({
            "type": "about:blank", "title": HOSTILE, "status": 422, "code": "face.none",
            "detail": HOSTILE, "request_id": HOSTILE,
        });
        (StatusCode::UNPROCESSABLE_ENTITY, problem.to_string())
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(answer);
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });

    let folder = tempfile::tempdir().unwrap();
    let file = folder
        .path()
        .join(format!("{}.jpg", HOSTILE.replace('/', "")));
    std::fs::write(&file, grey_jpeg()).unwrap();
    let person = folder.path().join("people").join(HOSTILE);
    std::fs::create_dir_all(&person).unwrap();
    let (people, file) = (folder.path().join("people"), file.to_str().unwrap());
    let nowhere = format!("/nowhere/{HOSTILE}");
    let hostile_url = format!("http://127.0.0.1:1/{HOSTILE}");
    let flag = format!("--{HOSTILE}");
    for args in [
        &["recognize", "--url", &url, file, &nowhere][..],
        &["recognize", "--json", "--url", &url, file],
        &["recognize", "--url", &hostile_url, file],
        &["verify", "--url", &url, file, file],
        &["verify", "--json", "--url", &url, file, file],
        &["verify", &nowhere, file],
        &["enroll", "--url", &url, people.to_str().unwrap()],
        &["enroll", "--url", &url, &nowhere],
        &["enroll", &format!("{HOSTILE}={nowhere}")],
        &["status", "--url", &url],
        &["gallery", "health", "--url", &url],
        &[
            "audit",
            "--person",
            HOSTILE,
            "--data",
            people.to_str().unwrap(),
        ],
        &["status", &flag],
        &["doctor", "--config", &nowhere],
    ] {
        let output = run(args).await;
        assert_safe(&args.join(" "), &output);
        assert!(!output.status.success(), "{args:?}: {output:?}");
    }
    let output = run(&["recognize", "--json", "--url", &url, file]).await;
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["detail"], HOSTILE, "JSON stays what it was");
    serving.abort();
}

#[tokio::test]
async fn a_closed_pipe_ends_every_command_quietly() {
    if samples().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let service = Service::up("max_instances = 1").await;
    let (url, data) = (&*service.url, service.data.to_str().unwrap());
    for args in [
        &["--help"][..],
        &["status", "--url", url],
        &["status", "--json", "--url", url],
        &["status", "--watch", "--url", url],
        &["gallery", "health", "--url", url],
        &["gallery", "calibration", "--url", url],
        &["gallery", "model", "--url", url],
        &["recognize", "--url", url, "/nowhere.jpg"],
        &["keys", "list", "--data", data],
        &["models", "list"],
        &["models", "list", "--json"],
        &["models", "samples"],
        &["doctor"],
        &["doctor", "--json"],
    ] {
        let command = muster()
            .args(args)
            .current_dir(folder.path())
            .stdout(std::io::pipe().unwrap().1)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = tokio::time::timeout(LIMIT, command.wait_with_output()).await;
        let output = output.expect("it ends").unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let quiet = output.status.code() == Some(0) && said.is_empty();
        assert!(quiet, "{args:?}: {output:?}");
    }
}

#[tokio::test]
async fn photographs_that_are_not_there_are_passed_over_and_codes_tell_why() {
    let Some(samples) = samples() else { return };
    let service = Service::up("max_instances = 1\nidle_grace_s = 30.0").await;
    let folder = tempfile::tempdir().unwrap();
    let grey = folder.path().join("grey.jpg");
    std::fs::write(&grey, grey_jpeg()).unwrap();
    fn text(path: &Path) -> &str {
        path.to_str().unwrap()
    }
    let (obama, again) = (text(&samples.people[0].1[0]), text(&samples.people[0].1[1]));
    let (other, grey) = (text(&samples.people[1].1[0]), text(&grey));
    let url = &*service.url;

    // No header of a form can carry such a name; the photograph is looked at all the same.
    let odd = folder.path().join("a\r\n\u{1b}[31m.jpg");
    std::fs::copy(obama, &odd).unwrap();
    let odd = odd.to_str().unwrap();
    for args in [
        ["recognize", odd, "--url", url].as_slice(),
        &["verify", odd, obama, "--url", url],
    ] {
        let output = run(args).await;
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
    }
    let output = run(&["recognize", "--url", url, obama, "/missing.jpg", other]).await;
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = lines.lines().collect();
    assert_eq!(
        (output.status.code(), lines.len()),
        (Some(1), 3),
        "{lines:?}"
    );
    assert!(lines[1].contains("can not be read"), "{lines:?}");
    assert!(lines[2].contains("unknown"), "{lines:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "muster: 1 of 3 photographs were not recognised\n");
    let output = run(&["recognize", "--json", "--url", url, "/missing.jpg", other]).await;
    let lines = String::from_utf8(output.stdout).unwrap();
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(first["code"], "file.unreadable");
    assert_eq!(lines.lines().count(), 2);

    for (args, code) in [
        (&["--url", url, obama, again][..], 0),
        (&["--url", url, obama, other], 1),
        (&["--url", url, obama], 2),
        (&["--url", url, obama, grey], 65),
        (&["--url", url, obama, "/missing.jpg"], 66),
        (&["--url", "http://127.0.0.1:1", obama, again], 69),
        (&["--url", "nowhere", obama, again], 70),
        (
            &["--url", url, "--api-key", "muster_of_nobody", obama, again],
            77,
        ),
    ] {
        let output = run(&[&["verify"], args].concat()).await;
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    }
}
