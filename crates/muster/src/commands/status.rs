//! `muster status`: how a running service fares.

mod watch;

use clap::Args;
use serde_json::Value;

use muster_api::client::ServiceArgs;

/// Arguments of `muster status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    service: ServiceArgs,
    /// Print the service's own JSON; with --watch, a line for each moment
    #[arg(long)]
    json: bool,
    /// Show it live, until interrupted; where the output is no terminal, a line for each moment
    #[arg(long)]
    watch: bool,
}

/// Prints the status.
///
/// # Errors
/// When the service can not be reached.
pub async fn run(args: StatusArgs) -> anyhow::Result<()> {
    let client = args.service.client()?;
    if args.watch {
        return watch::run(&client, args.json).await;
    }
    let status: Value = client.get("/v1/status").await?;
    if args.json {
        println!("{status}");
        return Ok(());
    }
    let number = |pointer: &str| {
        status
            .pointer(pointer)
            .and_then(Value::as_f64)
            .unwrap_or(0.0)
    };
    let text = |pointer: &str| {
        status
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or("-")
    };
    println!(
        "muster    {} up {:.0} s, model {}",
        text("/version"),
        number("/uptime_s"),
        text("/model")
    );
    println!(
        "queue     {} visible, {} in flight, {} dead letters",
        number("/queue/visible"),
        number("/queue/in_flight"),
        number("/queue/dead_letter")
    );
    println!(
        "fleet     {} running, {} pending, {} draining (at most {})",
        number("/fleet/running"),
        number("/fleet/pending"),
        number("/fleet/draining"),
        number("/fleet/max")
    );
    println!("          {}", text("/fleet/reason"));
    println!(
        "requests  {} accepted, {} answered, {} failed, {} waiting",
        number("/requests/accepted"),
        number("/requests/answered"),
        number("/requests/failed"),
        number("/requests/waiting")
    );
    match status["latency_ms"]["p50"].is_null() {
        true => println!("latency   nothing answered yet"),
        false => println!(
            "latency   p50 {:.0} ms, p99 {:.0} ms",
            number("/latency_ms/p50"),
            number("/latency_ms/p99")
        ),
    }
    println!(
        "gallery   {} people with {} faces, version {}",
        number("/gallery/people"),
        number("/gallery/faces"),
        number("/gallery/version")
    );
    Ok(())
}
