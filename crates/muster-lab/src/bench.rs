//! `muster bench`: a service under load, from zero instances to zero instances.

mod load;
mod observers;
mod report;

use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::photos::{Variation, open, photos_in, square_jpeg};
use muster_api::client::{Client, ClientError};
use muster_api::files::file_name;
use muster_api::progress;
use muster_base::settings::Settings;

/// The service that is measured where none is named and one answers.
const DEFAULT_URL: &str = "http://127.0.0.1:8000";
/// What a service says of its address, on standard output.
const LISTENING: &str = "muster listens on ";
/// Longest wait for a fleet of zero before the measurement.
const SETTLE: Duration = Duration::from_secs(30);

/// Arguments of `muster bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// The service's address [default: one on this machine at port 8000 if it answers, else one
    /// that is started for the measurement, where the settings keep everything on this machine]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// An API key with the scope admin, where the service wants one
    #[arg(
        long,
        value_name = "KEY",
        env = "MUSTER_API_KEY",
        hide_env_values = true
    )]
    api_key: Option<String>,
    /// Folder of photographs [default: the installed sample photographs, varied]
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Photographs sent
    #[arg(long, default_value_t = 1000, value_name = "N")]
    requests: usize,
    /// Photographs under way at one time
    #[arg(long, default_value_t = 100, value_name = "N")]
    concurrency: usize,
    /// Photographs are cut and resized to this many pixels square
    #[arg(long, default_value_t = 512, value_name = "PIXELS")]
    size: u32,
    /// Have so many viewers and a scraper look on every other four seconds, and compare the latencies
    #[arg(long, value_name = "N")]
    observers: Option<usize>,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the measurement and prints its figures; the exit code says whether there were no errors.
///
/// # Errors
/// When photographs can not be read or the service can not be reached.
pub async fn run(
    args: BenchArgs,
    settings: &Settings,
    config: Option<PathBuf>,
) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(args.requests > 0, "--requests is 0: send at least one");
    anyhow::ensure!(
        args.concurrency > 0,
        "--concurrency is 0: send at least one at a time"
    );
    anyhow::ensure!(
        args.size > 0,
        "--size is 0: choose the photographs' size in pixels"
    );
    let there = match &args.url {
        Some(url) => Some(Client::new(url, args.api_key.as_deref())?),
        None => running(DEFAULT_URL, args.api_key.as_deref()).await?,
    };
    if there.is_none() {
        may_start(settings)?;
    }
    let photos = prepare(&args, settings).await?;
    let (client, own) = match there {
        Some(client) => (client, None),
        None => {
            let own = OwnService::start(settings, config).await?;
            eprintln!("measuring a service that was started for this");
            (Client::new(&own.url, None)?, Some(own))
        }
    };
    let measured = measure(&args, &client, photos, own.is_none()).await;
    if let Some(own) = own {
        own.stop().await?;
    }
    let figures = measured?;
    if args.json {
        println!(
            "{}",
            serde_json::to_string(&figures).context("write the figures")?
        );
    } else {
        report::print(&figures);
    }
    Ok(if figures.errors == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The service at `url`, if one runs there.
///
/// # Errors
/// When it does not tell its status.
async fn running(url: &str, api_key: Option<&str>) -> anyhow::Result<Option<Client>> {
    let client = Client::new(url, api_key)?;
    match client.get::<Value>("/v1/status").await {
        Ok(_) => {
            eprintln!("measuring the service at {url}");
            Ok(Some(client))
        }
        Err(ClientError::Problem(problem)) => {
            anyhow::bail!("the service at {url} answers: {}", problem.detail)
        }
        // Nothing is there, or something else.
        Err(_) => Ok(None),
    }
}

/// Whether a service that is started for the measurement has nothing to do with any other.
///
/// # Errors
/// When it would share people, photographs, queues or workers.
fn may_start(settings: &Settings) -> anyhow::Result<()> {
    anyhow::ensure!(
        !settings.remote(),
        "by the settings a service that is started for the measurement would use stores, queues or \
         workers elsewhere than on this machine: name the service to be measured with --url"
    );
    Ok(())
}

async fn measure(
    args: &BenchArgs,
    client: &Client,
    photos: Vec<Bytes>,
    apart: bool,
) -> anyhow::Result<report::Figures> {
    load::until_zero(client, SETTLE).await?;
    let load = load::Load {
        requests: args.requests,
        concurrency: args.concurrency,
        observers: args.observers,
        apart,
    };
    load::run(client, photos, load).await
}

/// A service of this program in a process of its own, with a temporary data folder.
struct OwnService {
    url: String,
    process: Child,
    /// Kept open: what the service prints after its address is nobody's to read.
    _stdout: Lines<BufReader<ChildStdout>>,
    _folder: tempfile::TempDir,
}

impl OwnService {
    async fn start(settings: &Settings, config: Option<PathBuf>) -> anyhow::Result<Self> {
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
            .env("MUSTER_REQUIRE_KEYS", "false")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        let mut process = command.spawn().context("start a service")?;
        let stdout = process
            .stdout
            .take()
            .context("read what the service says")?;
        let mut lines = BufReader::new(stdout).lines();
        let said = lines
            .next_line()
            .await
            .context("read what the service says")?;
        let url = said
            .as_deref()
            .and_then(|line| line.strip_prefix(LISTENING))
            .context("the service did not start: its own words above say why")?
            .to_owned();
        let samples = settings.models.installation()?.samples().people;
        let own = Self {
            url,
            process,
            _stdout: lines,
            _folder: folder,
        };
        let client = Client::new(&own.url, None)?;
        for (name, files) in samples {
            let photo = files.first().context("a sample person has a photograph")?;
            let bytes = std::fs::read(photo)
                .with_context(|| format!("read the photograph {}", photo.display()))?;
            client
                .enroll(&name, &[(file_name(photo), bytes.into())])
                .await
                .context("enrol a sample person")?;
        }
        Ok(own)
    }

    /// Has the service finish what it has, and waits for its end.
    async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.process.stdin.take());
        let ended = self.process.wait().await.context("stop the service")?;
        anyhow::ensure!(ended.success(), "the service ended with {ended}");
        Ok(())
    }
}

/// Photographs of one size, distinct as far as requests need them.
async fn prepare(args: &BenchArgs, settings: &Settings) -> anyhow::Result<Vec<Bytes>> {
    let (files, varied) = match &args.images {
        Some(folder) => (photos_in(folder)?, false),
        None => {
            let samples = settings.models.installation()?.samples().people;
            (
                samples.into_iter().flat_map(|(_, files)| files).collect(),
                true,
            )
        }
    };
    anyhow::ensure!(
        !files.is_empty(),
        "there are no photographs to send: name a --images DIR"
    );
    // A varied sample is new for each of the original's 1,000 images; more requests begin again.
    let distinct = if varied {
        args.requests.min(1000)
    } else {
        files.len().min(args.requests)
    };
    let size = args.size;
    let bar = progress::bar(distinct, "preparing photographs");
    let files = Arc::new(files);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let parts: Vec<_> = (0..threads)
        .map(|part| {
            let (files, bar) = (Arc::clone(&files), bar.clone());
            tokio::task::spawn_blocking(move || -> anyhow::Result<Vec<(usize, Bytes)>> {
                let mut made = Vec::new();
                let mut opened: Option<(usize, image::RgbImage)> = None;
                // By file, so that each is decoded once a thread.
                for file in (0..files.len()).skip(part).step_by(threads) {
                    for n in (file..distinct).step_by(files.len()) {
                        if opened.as_ref().is_none_or(|(which, _)| *which != file) {
                            opened = Some((file, open(&files[file])?));
                        }
                        let Some((_, photo)) = &opened else { continue };
                        let variation = if varied {
                            Variation::nth(n as u64)
                        } else {
                            Variation::default()
                        };
                        made.push((n, square_jpeg(photo, size, variation)?));
                        bar.inc(1);
                    }
                }
                Ok(made)
            })
        })
        .collect();
    let mut photos = Vec::new();
    for part in parts {
        photos.extend(part.await.context("prepare the photographs")??);
    }
    bar.finish_and_clear();
    photos.sort_by_key(|(n, _)| *n);
    Ok(photos.into_iter().map(|(_, photo)| photo).collect())
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;
    use muster_base::settings::{QueueKind, QueueSettings};

    #[tokio::test]
    async fn a_service_that_refuses_is_a_running_one() {
        let refusal = get(|| async {
            let problem = json!({ "status": 401, "code": "unauthorized", "detail": "send a key" });
            (StatusCode::UNAUTHORIZED, Json(problem))
        });
        let router = Router::new().route("/v1/status", refusal);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await });
        let error = running(&url, None).await.unwrap_err().to_string();
        assert!(error.contains("send a key"), "{error}");
        let not_muster = running(&format!("{url}/other"), None).await.unwrap();
        assert!(not_muster.is_none());
        serving.abort();
        let _ = serving.await;
        assert!(running(&url, None).await.unwrap().is_none());
    }

    #[test]
    fn no_service_is_started_on_what_others_use() {
        may_start(&Settings::default()).unwrap();
        let settings = Settings {
            queues: QueueSettings {
                kind: QueueKind::Sqs,
                ..QueueSettings::default()
            },
            ..Settings::default()
        };
        let error = may_start(&settings).unwrap_err().to_string();
        assert!(error.contains("--url"), "{error}");
    }
}
