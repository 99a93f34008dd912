//! `muster bench`: a service under load, from zero instances to zero instances, so many times.

mod arrivals;
mod baseline;
mod figures;
mod latency;
mod load;
mod observers;
mod photos;
mod report;
mod rows;
mod service;
mod spread;
mod upload;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use arrivals::Arrivals;
use baseline::{Baseline, Comparison};
use load::Load;
use muster_api::client::{Client, ClientError};
use muster_base::settings::Settings;
use muster_base::{descriptors, print_error_line, print_line};
use report::{LoadSettings, Report};
use service::StartedService;

/// The service that is measured where none is named and one answers.
const DEFAULT_URL: &str = "http://127.0.0.1:8000";
/// Photographs under way at one time, where neither that nor a rate is named.
const DEFAULT_CONCURRENCY: usize = 100;
/// How long a constant rate warms up by default, in seconds: longer than a fleet of one machine takes
/// to start.
const WARM_UP_S: f64 = 2.0;
/// Rates that can be kept, in requests a second: a thread's timer has a millisecond.
const RATES: std::ops::RangeInclusive<f64> = 0.001..=100_000.0;
/// Most photographs under way at one time at a constant rate: each takes a connection of its own, and
/// there are 28,000 ports for them on Linux.
const MOST_UNDER_WAY: u64 = 10_000;
/// File descriptors for everything else.
const OTHER_DESCRIPTORS: u64 = 64;

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
    /// Photographs measured, in each repetition
    #[arg(long, default_value_t = 1000, value_name = "N")]
    requests: usize,
    /// Photographs under way at one time: each is sent once another is answered [default: 100]
    #[arg(long, value_name = "N", conflicts_with = "rate")]
    concurrency: Option<usize>,
    /// Photographs sent a second, whatever is answered; latencies count from when each was due
    #[arg(long, value_name = "RATE")]
    rate: Option<f64>,
    /// Photographs sent before the measured ones; of these only errors count, and what is from zero
    /// instances on (first answer, scale-out) [default: as many as are under way at one time, or as are due in
    /// two seconds; no more than --requests]
    #[arg(long, value_name = "N")]
    warm_up: Option<usize>,
    /// How often it is measured, each time from zero instances to zero; the figures are medians
    #[arg(long, default_value_t = 3, value_name = "N")]
    repetitions: usize,
    /// An earlier measurement to compare with, by the same flags: what --json printed
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Photographs are cut and resized to this many pixels square
    #[arg(long, default_value_t = 512, value_name = "PIXELS")]
    size: u32,
    /// Measure what watching costs: this many viewers of /v1/events and a scraper of /metrics, on and off
    /// for four seconds each; prints the latencies with and without them
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
    let settings_of_load = args.load_settings()?;
    let baseline = match &args.baseline {
        Some(file) => Some(Baseline::read(file, &settings_of_load)?),
        None => None,
    };
    let running = match &args.url {
        Some(url) => Some(Client::new(url, args.api_key.as_deref())?),
        None => find_running(DEFAULT_URL, args.api_key.as_deref()).await?,
    };
    if running.is_none() {
        may_start(settings)?;
    }
    let photos = photos::prepare(
        args.images.as_deref(),
        args.requests + settings_of_load.warm_up,
        args.size,
        settings,
    );
    let forms: Vec<Bytes> = photos.await?.iter().map(upload::form).collect();
    let (client, started) = match running {
        Some(client) => (client, None),
        None => {
            let service = StartedService::start(settings, config).await?;
            print_error_line!("measuring a service that was started for this");
            (Client::new(&service.url, None)?, Some(service))
        }
    };
    let measured = repeat(
        &client,
        Arc::new(forms),
        &settings_of_load,
        started.is_none(),
    );
    let measured = measured.await;
    if let Some(service) = started {
        service.stop().await?;
    }
    let report = Report::new(settings_of_load, measured?)
        .context("--repetitions is 0: measure at least once")?;
    let baseline = baseline.map(|baseline| baseline.compare(&report));
    if args.json {
        let output = Output {
            report: &report,
            baseline,
        };
        print_line!(
            "{}",
            serde_json::to_string(&output).context("write the figures")?
        )?;
    } else {
        report.print()?;
        if let Some(baseline) = baseline {
            baseline.print()?;
        }
    }
    Ok(if report.medians.errors == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What `--json` prints.
#[derive(Serialize)]
struct Output<'a> {
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline: Option<Comparison>,
}

impl BenchArgs {
    /// The load that the flags ask for.
    ///
    /// # Errors
    /// When a flag has a value that can not be measured with.
    fn load_settings(&self) -> anyhow::Result<LoadSettings> {
        anyhow::ensure!(self.requests > 0, "--requests is 0: send at least one");
        anyhow::ensure!(
            self.concurrency != Some(0),
            "--concurrency is 0: send at least one at a time"
        );
        anyhow::ensure!(
            self.size > 0,
            "--size is 0: choose the photographs' size in pixels"
        );
        anyhow::ensure!(
            self.repetitions > 0,
            "--repetitions is 0: measure at least once"
        );
        let (concurrency, usual) = match self.rate {
            Some(rate) => {
                anyhow::ensure!(
                    RATES.contains(&rate),
                    "--rate is {rate}: send {} to {} requests a second",
                    RATES.start(),
                    RATES.end()
                );
                (None, (rate * WARM_UP_S).ceil() as usize)
            }
            None => {
                let concurrency = self.concurrency.unwrap_or(DEFAULT_CONCURRENCY);
                (Some(concurrency), concurrency)
            }
        };
        Ok(LoadSettings {
            size: self.size,
            requests: self.requests,
            warm_up: self.warm_up.unwrap_or(usual.min(self.requests)),
            concurrency,
            rate_rps: self.rate,
            repetitions: self.repetitions,
            observers: self.observers,
        })
    }
}

/// Measures as often as the settings say.
///
/// # Errors
/// As [`load::run`].
async fn repeat(
    client: &Client,
    forms: Arc<Vec<Bytes>>,
    settings: &LoadSettings,
    separate: bool,
) -> anyhow::Result<Vec<figures::Figures>> {
    let arrivals = match settings.rate_rps {
        Some(rate) => Arrivals::Constant {
            rate,
            most: most_under_way(descriptors::raise_limit()),
        },
        None => Arrivals::Closed {
            concurrency: settings.concurrency.unwrap_or(DEFAULT_CONCURRENCY),
        },
    };
    let load = Load {
        requests: settings.requests,
        warm_up: settings.warm_up,
        arrivals,
        observers: settings.observers,
        separate,
    };
    let mut repetitions = Vec::new();
    for _ in 0..settings.repetitions {
        repetitions.push(load::run(client, &forms, load).await?);
    }
    Ok(repetitions)
}

/// Connections for which there is room within a limit of file descriptors.
fn most_under_way(descriptors: Option<u64>) -> usize {
    let room = descriptors.map(|limit| limit.saturating_sub(OTHER_DESCRIPTORS).max(1));
    room.map_or(MOST_UNDER_WAY, |room| room.min(MOST_UNDER_WAY)) as usize
}

/// The service at `url`, if one runs there.
///
/// # Errors
/// When it does not tell its status.
async fn find_running(url: &str, api_key: Option<&str>) -> anyhow::Result<Option<Client>> {
    let client = Client::new(url, api_key)?;
    match client.get::<Value>("/v1/status").await {
        Ok(_) => {
            print_error_line!("measuring the service at {url}");
            Ok(Some(client))
        }
        Err(ClientError::Problem { problem, .. }) => {
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

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::routing::get;
    use axum::{Json, Router};
    use clap::{Parser, error::ErrorKind};
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;
    use muster_base::settings::{QueueKind, QueueSettings};

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: BenchArgs,
    }

    fn load_settings(flags: &str) -> Result<LoadSettings, String> {
        let flags = flags.split_whitespace();
        let cli = Cli::try_parse_from(std::iter::once("bench").chain(flags)).unwrap();
        cli.args.load_settings().map_err(|error| error.to_string())
    }

    #[test]
    fn a_load_is_a_closed_loop_or_a_constant_rate() {
        let load = |flags| {
            let of = load_settings(flags).unwrap();
            (of.concurrency, of.rate_rps, of.warm_up, of.repetitions)
        };
        assert_eq!(load(""), (Some(100), None, 100, 3));
        assert_eq!(
            load("--concurrency 8 --repetitions 1"),
            (Some(8), None, 8, 1)
        );
        assert_eq!(load("--rate 12.6"), (None, Some(12.6), 26, 3));
        assert_eq!(load("--rate 60 --requests 40"), (None, Some(60.0), 40, 3));
        assert_eq!(load("--requests 40 --warm-up 0").2, 0);
        assert_eq!(load("--requests 40 --warm-up 90").2, 90);
        let both = Cli::try_parse_from(["bench", "--rate", "5", "--concurrency", "5"]);
        assert_eq!(both.unwrap_err().kind(), ErrorKind::ArgumentConflict);
        for (flags, said) in [
            ("--requests 0", "--requests is 0"),
            ("--concurrency 0", "--concurrency is 0"),
            ("--size 0", "--size is 0"),
            ("--repetitions 0", "--repetitions is 0"),
            (
                "--rate 0",
                "--rate is 0: send 0.001 to 100000 requests a second",
            ),
            ("--rate -5", "--rate is -5"),
            ("--rate NaN", "--rate is NaN"),
        ] {
            let flags = flags.replace("--rate ", "--rate=");
            let error = load_settings(&flags).unwrap_err();
            assert!(error.starts_with(said), "{flags}: {error}");
        }
    }

    #[test]
    fn what_is_under_way_leaves_file_descriptors() {
        let most = [None, Some(10), Some(1024), Some(1 << 20)].map(most_under_way);
        assert_eq!(most, [10_000, 1, 960, 10_000]);
    }

    #[tokio::test]
    async fn a_service_that_refuses_is_a_running_one() {
        let refusal = get(|| async {
            let problem = json!({
                "type": "about:blank", "title": "Unauthorized",
                "status": 401, "code": "unauthorized", "detail": "send a key",
            });
            (StatusCode::UNAUTHORIZED, Json(problem))
        });
        let router = Router::new().route("/v1/status", refusal);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await });
        let error = find_running(&url, None).await.unwrap_err().to_string();
        assert!(error.contains("send a key"), "{error}");
        let not_muster = find_running(&format!("{url}/other"), None).await.unwrap();
        assert!(not_muster.is_none());
        serving.abort();
        let _ = serving.await;
        assert!(find_running(&url, None).await.unwrap().is_none());
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
