//! `muster status`: a running service's fleet, backlog and latencies.

mod watch;

use clap::Args;
use serde_json::Value;

use muster_api::client::ServiceArgs;
use muster_api::status::StatusView;
use muster_base::output::OutputError;
use muster_base::print_line;

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
    if args.watch {
        return watch::run(&args.service, args.json).await;
    }
    let client = args.service.client()?;
    if args.json {
        print_line!("{}", client.get::<Value>("/v1/status").await?)?;
    } else {
        print(&client.get("/v1/status").await?)?;
    }
    Ok(())
}

fn print(status: &StatusView) -> Result<(), OutputError> {
    print_line!(
        "muster    {} up {:.0} s, model {}",
        status.version,
        status.uptime_s,
        status.model
    )?;
    let queue = &status.queue;
    print_line!(
        "queue     {} visible, {} in flight, {} dead letters",
        queue.visible,
        queue.in_flight,
        queue.dead_letter
    )?;
    let fleet = &status.fleet;
    print_line!(
        "fleet     {} running, {} pending, {} draining (at most {})",
        fleet.running,
        fleet.pending,
        fleet.draining,
        fleet.max
    )?;
    print_line!("          {}", fleet.reason)?;
    if let (Some(per_hour), Some(today)) = (fleet.dollars_per_hour, fleet.dollars_today) {
        let limit = |limit: Option<f64>| {
            limit.map_or_else(String::new, |dollars| format!(" (at most ${dollars:.2})"))
        };
        print_line!(
            "cost      ${per_hour:.2} an hour{}, ${today:.2} today{}",
            limit(fleet.max_dollars_per_hour),
            limit(fleet.max_dollars_per_day)
        )?;
    }
    let requests = &status.requests;
    print_line!(
        "requests  {} accepted, {} answered, {} failed, {} waiting",
        requests.accepted,
        requests.answered,
        requests.failed,
        requests.waiting
    )?;
    match (status.latency_ms.p50, status.latency_ms.p99) {
        (Some(p50), Some(p99)) => print_line!("latency   p50 {p50:.0} ms, p99 {p99:.0} ms")?,
        _ => print_line!("latency   nothing answered yet")?,
    }
    let gallery = &status.gallery;
    print_line!(
        "gallery   {} people with {} faces, version {}",
        gallery.people,
        gallery.faces,
        gallery.version
    )
}
