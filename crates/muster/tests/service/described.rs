//! The service does what its document says: schemathesis tries, on a real one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::keys::create;
use crate::support::{Service, samples};

/// Longest time for the tries.
const LIMIT: Duration = Duration::from_secs(480);

/// The program; `None`, said visibly, where it is not installed.
fn schemathesis() -> Option<PathBuf> {
    let program = std::env::var_os("MUSTER_SCHEMATHESIS").map(PathBuf::from);
    if program.is_none() {
        assert!(
            !muster_testbed::in_ci(),
            "schemathesis is needed in CI: set MUSTER_SCHEMATHESIS, as `make test` does"
        );
        eprintln!("SKIPPED: MUSTER_SCHEMATHESIS is not set: run `make test`");
    }
    program
}

#[tokio::test]
async fn the_service_does_what_its_document_says() {
    let (Some(program), Some(samples)) = (schemathesis(), samples()) else {
        return;
    };
    let toml = "require_keys = true\nmax_instances = 1\nidle_grace_s = 600.0";
    let service = Service::up(toml).await;
    let key = create(&service.data, &["--scope", "admin"]).await;
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/service");
    let folder = tempfile::tempdir().unwrap();
    let mut command = tokio::process::Command::new(program);
    command
        .kill_on_drop(true)
        .current_dir(folder.path())
        .env("SCHEMATHESIS_HOOKS", here.join("schemathesis_hooks.py"))
        .env("MUSTER_PHOTO", &samples.people[0].1[0])
        .arg("--config-file")
        .arg(here.join("schemathesis.toml"))
        .args(["run", &service.at("/openapi.json")])
        .args(["--header", &format!("Authorization: Bearer {key}")])
        .args([
            "--checks",
            "all",
            "--phases",
            "examples,coverage,fuzzing,stateful",
        ])
        // It has no end.
        .args(["--exclude-path", "/v1/events"])
        // The same tries each time.
        .args(["--seed", "20261125", "--max-examples", "20"])
        .args(["--generation-database", "none", "--workers", "1"])
        .args(["--request-timeout", "60", "--no-color"]);
    let output = tokio::time::timeout(LIMIT, command.output()).await;
    let output = output.expect("schemathesis ends").unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "schemathesis: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains(" passed"), "it tried: {said}");
    let requests = &service.status_with(&key).await["requests"];
    assert_eq!(requests["failed"], 0, "nothing that was tried timed out");
    assert!(
        requests["answered"].as_u64().unwrap() > 20,
        "photographs were among it"
    );
}
