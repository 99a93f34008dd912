//! The service that is started for a measurement.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use muster_api::client::Client;
use muster_api::files::file_name;
use muster_base::settings::Settings;

/// What a service prints before its address, on standard output.
const LISTENING: &str = "muster listens on ";

/// A service of this program in a process of its own, with a temporary data folder.
pub struct StartedService {
    /// Its address.
    pub url: String,
    process: Child,
    /// Kept open: what the service prints after its address is nobody's to read.
    _stdout: Lines<BufReader<ChildStdout>>,
    _folder: tempfile::TempDir,
}

impl StartedService {
    /// Starts a service with the sample people enrolled, and waits until it listens.
    ///
    /// # Errors
    /// When it does not start, or a sample person is refused.
    pub async fn start(settings: &Settings, config: Option<PathBuf>) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("make a temporary data folder")?;
        let program = std::env::current_exe().context("find muster's own program")?;
        let mut command = Command::new(program);
        command
            .args([
                "up",
                "--exit-with-stdin",
                "--listen",
                "127.0.0.1:0",
                "--data",
            ])
            .arg(folder.path().join("data"))
            .args(["--profile", &settings.models.profile])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        if settings.web.require_keys == Some(true) {
            // There is no key yet, and nobody else's photographs.
            command.env("MUSTER_REQUIRE_KEYS", "false");
        }
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        let mut process = command.spawn().context("start a service")?;
        let stdout = process
            .stdout
            .take()
            .context("read what the service prints")?;
        let mut lines = BufReader::new(stdout).lines();
        let first_line = lines
            .next_line()
            .await
            .context("read what the service prints")?;
        let url = first_line
            .as_deref()
            .and_then(|line| line.strip_prefix(LISTENING))
            .context("the service did not start: its own words above say why")?
            .to_owned();
        let samples = settings.models.installation()?.samples().people;
        let service = Self {
            url,
            process,
            _stdout: lines,
            _folder: folder,
        };
        let client = Client::new(&service.url, None)?;
        for (name, files) in samples {
            let photo = files.first().context("a sample person has a photograph")?;
            let bytes = std::fs::read(photo)
                .with_context(|| format!("read the photograph {}", photo.display()))?;
            client
                .enroll(&name, &[(file_name(photo), bytes.into())], false)
                .await
                .context("enrol a sample person")?;
        }
        Ok(service)
    }

    /// Has the service finish what it has, and waits for its end.
    ///
    /// # Errors
    /// When it ends otherwise than asked.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.process.stdin.take());
        let ended = self.process.wait().await.context("stop the service")?;
        anyhow::ensure!(ended.success(), "the service ended with {ended}");
        Ok(())
    }
}
