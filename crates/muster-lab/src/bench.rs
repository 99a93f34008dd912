//! `muster bench`: a service under load, from zero instances to zero instances.

mod load;
mod observers;
mod photos;
mod report;
mod service;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde_json::Value;

use muster_api::client::{Client, ClientError};
use muster_base::settings::Settings;
use muster_base::{print_error_line, print_line};
use service::StartedService;

/// The service that is measured where none is named and one answers.
const DEFAULT_URL: &str = "http://127.0.0.1:8000";

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
    anyhow::ensure!(args.requests > 0, "--requests is 0: send at least one");
    anyhow::ensure!(
        args.concurrency > 0,
        "--concurrency is 0: send at least one at a time"
    );
    anyhow::ensure!(
        args.size > 0,
        "--size is 0: choose the photographs' size in pixels"
    );
    let running = match &args.url {
        Some(url) => Some(Client::new(url, args.api_key.as_deref())?),
        None => find_running(DEFAULT_URL, args.api_key.as_deref()).await?,
    };
    if running.is_none() {
        may_start(settings)?;
    }
    let photos =
        photos::prepare(args.images.as_deref(), args.requests, args.size, settings).await?;
    let (client, started) = match running {
        Some(client) => (client, None),
        None => {
            let service = StartedService::start(settings, config).await?;
            print_error_line!("measuring a service that was started for this");
            (Client::new(&service.url, None)?, Some(service))
        }
    };
    let load = load::Load {
        requests: args.requests,
        concurrency: args.concurrency,
        observers: args.observers,
        separate: started.is_none(),
    };
    let measured = load::run(&client, photos, load).await;
    if let Some(service) = started {
        service.stop().await?;
    }
    let figures = measured?;
    if args.json {
        print_line!(
            "{}",
            serde_json::to_string(&figures).context("write the figures")?
        )?;
    } else {
        report::print(&figures)?;
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
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;
    use muster_base::settings::{QueueKind, QueueSettings};

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
