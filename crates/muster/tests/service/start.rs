//! How a start treats what it finds: variables that are not its own, and folders and files in its way.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use tokio::io::AsyncReadExt;

use crate::support::{LIMIT, Service, muster, read};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Starts a service that has to fail, and what it says.
async fn refused(data: &Path) -> String {
    let mut command = muster();
    command.args(["up", "--listen", "127.0.0.1:0", "--data"]);
    let ended = tokio::time::timeout(LIMIT, command.arg(data).output()).await;
    let output = ended.expect("it starts").unwrap();
    assert!(!output.status.success(), "it starts");
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn variables_that_are_no_settings_are_told_and_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let output = muster()
        .args(["keys", "create", "--name", "a test", "--scope", "admin"])
        // One that is a setting counts.
        .env("MUSTER_DATA_DIR", folder.path().join("data"))
        // As Kubernetes names them for a service called muster, and with a slip of the finger.
        .env("MUSTER_PORT_8000_TCP", "tcp://10.0.0.7:8000")
        .env("MUSTER_MAX_INSTANCE", "many")
        .env("MUSTER_EC2__LAUNCH_TEMPLAT", "x")
        .env("MUSTER_EC2__LAUNCH_TEMPLATE", "worker")
        .env("MUSTER_BIN", "/usr/bin/muster")
        .output()
        .await
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(folder.path().join("data").is_dir());
    for named in [
        "MUSTER_MAX_INSTANCE is no setting and is left out; the nearest is MUSTER_MAX_INSTANCES",
        "MUSTER_EC2__LAUNCH_TEMPLAT is no setting and is left out; the nearest is \
         MUSTER_EC2__LAUNCH_TEMPLATE",
        "MUSTER_PORT_8000_TCP is no setting",
        "MUSTER_BIN is no setting",
    ] {
        assert!(said.contains(named), "{named}: {said}");
    }
    let warnings = said.lines().filter(|line| line.contains("is no setting"));
    assert_eq!(warnings.count(), 4, "{said}");
}

/// A mistyped folder is no new Muster.
#[tokio::test]
async fn commands_that_read_begin_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("mistyped");
    for (args, expected) in [
        (&["keys", "list"][..], "there is no Muster in"),
        (
            &["keys", "revoke", "0000000000000000"],
            "there is no Muster in",
        ),
        (&["audit"], "there is no Muster in"),
        (&["token"], "no service with a local token runs on"),
    ] {
        let mut command = muster();
        let output = command.args(args).arg("--data").arg(&data).output();
        let output = output.await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{args:?}: {said}");
        assert!(said.contains(expected), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
        assert!(!data.exists(), "{args:?}");
    }
    for (args, expected) in [
        (
            &["enroll", "=x.jpg"][..],
            "=x.jpg names nobody: write NAME=FILE",
        ),
        (
            &["status", "--url", "ftp://x"],
            "write it as http://HOST:PORT",
        ),
    ] {
        let output = muster().args(args).output().await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && said.contains(expected),
            "{said}"
        );
    }
}

/// Whoever listens at its port now is not sent it.
#[tokio::test]
async fn the_local_token_of_a_killed_service_is_nobodys() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut service = Service::start("web", &data, "").await;
    let token = service.local_token().unwrap();
    let url = service.url.clone();
    let printed = async |args: &[&str]| {
        let output = muster().arg("token").args(args).output().await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let folder = data.to_str().unwrap();
    for args in [["--url", &url], ["--data", folder]] {
        assert_eq!(printed(&args).await.trim_end(), token, "{args:?}");
    }
    // Another one on the same folder takes nothing away from it.
    let mut another = Service::start("web", &data, "").await;
    assert_eq!(printed(&["--data", folder]).await.trim_end(), token);
    another.signal("-TERM");
    another.ends().await;
    assert_eq!(printed(&["--data", folder]).await.trim_end(), token);
    service.signal("-KILL");
    service.ends().await;
    assert_eq!(
        service.local_token().as_deref(),
        Some(&*token),
        "its note is there"
    );
    for args in [["--url", &url], ["--data", folder]] {
        assert_eq!(printed(&args).await, "", "{args:?}");
    }
    let port = url.strip_prefix("http://").unwrap();
    let another = tokio::net::TcpListener::bind(port).await.unwrap();
    let mut command = muster();
    command.args(["status", "--url", &url]);
    let asking = tokio::spawn(async move { command.output().await.unwrap() });
    let accepted = tokio::time::timeout(LIMIT, another.accept()).await;
    let (mut stream, _) = accepted.expect("it asks").unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    drop(stream);
    let head = String::from_utf8(head).unwrap();
    assert!(!head.to_lowercase().contains("authorization"), "{head}");
    drop(another);
    asking.await.unwrap();
}

#[tokio::test]
async fn a_data_folder_that_is_there_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let shared = folder.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    // As a volume of Kubernetes under fsGroup.
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o2775)).unwrap();
    let service = Service::start("up", &shared, "max_instances = 1").await;
    assert_eq!(mode(&shared), 0o2775);
    for private in ["objects", "gallery-cache", "queue.db", "controller.lock"] {
        assert_eq!(mode(&shared.join(private)) & 0o077, 0, "{private}");
    }
    drop(service);
    let own = folder.path().join("parent/own");
    std::fs::create_dir(own.parent().unwrap()).unwrap();
    let _service = Service::start("up", &own, "max_instances = 1").await;
    assert_eq!(mode(&own), 0o700);
}

#[tokio::test]
async fn links_in_place_of_its_files_are_refused_and_lead_to_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let victim = folder.path().join("victim");
    std::fs::write(&victim, "somebody else's").unwrap();
    for (n, file) in ["controller.lock", "queue.db", "queue.db-wal"]
        .iter()
        .enumerate()
    {
        let data = folder.path().join(format!("data-{n}"));
        std::fs::create_dir(&data).unwrap();
        symlink(&victim, data.join(file)).unwrap();
        let said = refused(&data).await;
        assert!(said.contains(&format!("{file} is a link")), "{said}");
        assert_eq!(read(&victim), b"somebody else's", "{file}");
    }
}
