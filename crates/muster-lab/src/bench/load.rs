//! The load: photographs as they arrive, while the fleet is polled, from zero to zero.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::arrivals::{Arrivals, Meter, Sent, send_all};
use super::figures::{Figures, Measurements};
use super::observers;
use super::upload::{Answer, cpu_between, http_alone, send, status};
use muster_api::client::Client;
use muster_api::progress;
use muster_base::print_error_line;

/// Longest wait for a fleet of zero before the first photograph.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
/// How often the fleet is polled while it may still grow.
const POLL_GROWING: Duration = Duration::from_millis(50);
/// How often once it has its most instances: a poll takes time from the work that is measured.
const POLL_FULL: Duration = Duration::from_millis(500);
/// How often while it is expected to reach zero.
const POLL_SHRINKING: Duration = Duration::from_millis(10);
/// Longest wait for the fleet to reach zero after the last answer.
const SCALE_IN_LIMIT: Duration = Duration::from_secs(60);

/// Waits until nothing but the service's minimum runs.
///
/// # Errors
/// When that takes longer than `limit`: the figures would not be from zero.
async fn until_zero(client: &Client, limit: Duration) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    loop {
        let fleet = status(client).await?.fleet;
        let instances = fleet.pending + fleet.running + fleet.draining;
        if instances <= fleet.min {
            return Ok(begun.elapsed());
        }
        anyhow::ensure!(
            begun.elapsed() < limit,
            "the fleet still has {instances} instances after {limit:?}: measure an idle service"
        );
        tokio::time::sleep(POLL_SHRINKING).await;
    }
}

/// The largest fleet that was seen.
struct Peak {
    instances: u32,
    /// When it was first reached.
    at: Duration,
}

/// Polls the fleet for its peak until `stop`.
async fn poll_peak(
    client: Client,
    begun: Instant,
    stop: CancellationToken,
) -> anyhow::Result<Peak> {
    let mut peak = Peak {
        instances: 0,
        at: Duration::ZERO,
    };
    while !stop.is_cancelled() {
        let now = status(&client).await?.fleet;
        if now.running > peak.instances {
            peak = Peak {
                instances: now.running,
                at: begun.elapsed(),
            };
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(if now.running < now.max { POLL_GROWING } else { POLL_FULL }) => {}
        }
    }
    Ok(peak)
}

/// The load that is put on a service.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Photographs that are measured.
    pub requests: usize,
    /// Photographs that are sent before them, and measured in nothing but errors and elasticity.
    pub warm_up: usize,
    /// How they arrive.
    pub arrivals: Arrivals,
    /// Viewers that there are every other few seconds.
    pub observers: Option<usize>,
    /// Whether the service is another than the one that was started for the measurement.
    pub separate: bool,
}

/// Waits for a fleet of zero, sends the photographs' forms and waits for zero again.
///
/// # Errors
/// When the service's status can not be read or the fleet does not return to zero.
pub async fn run(client: &Client, forms: &Arc<Vec<Bytes>>, load: Load) -> anyhow::Result<Figures> {
    until_zero(client, SETTLE_LIMIT).await?;
    let all = load.warm_up + load.requests;
    let bar = progress::bar(all, "recognising");
    let meter = Arc::new(Meter::new(load.warm_up, bar.clone()));
    let before = status(client).await?;
    let begun = Instant::now();
    let stop_polling = CancellationToken::new();
    let peak = tokio::spawn(poll_peak(client.clone(), begun, stop_polling.clone()));
    let stop_observing = CancellationToken::new();
    let observing = load.observers.map(|viewers| {
        let stop = stop_observing.clone();
        let phases = observers::observe(client.clone(), viewers, begun, stop);
        (viewers, tokio::spawn(phases))
    });
    let (to, sent) = (client.clone(), Arc::clone(forms));
    let one = move |number: usize| {
        let (to, forms) = (to.clone(), Arc::clone(&sent));
        async move { send(&to, &forms[number % forms.len()]).await }
    };
    let sent = send_all(load.arrivals, all, begun, &meter, one).await?;
    let generator_cpu = meter.cpu_since_warm_up();
    stop_observing.cancel();
    let observed = match observing {
        None => None,
        Some((viewers, phases)) => {
            let phases = phases.await.context("observe the service")?;
            let answered = sent.iter().filter(|one| one.is_answered());
            let answered: Vec<_> = answered.map(|one| (one.latency, one.end)).collect();
            Some(observers::compare(viewers, &phases, &answered))
        }
    };
    let scale_in = until_zero(client, SCALE_IN_LIMIT).await?;
    let after = status(client).await?;
    bar.finish_and_clear();
    stop_polling.cancel();
    let peak = peak.await.context("poll the fleet")??;

    let http_cpu = match load.separate {
        true => http_alone(client, forms, load.requests).await?,
        false => None,
    };
    if let Some(reason) = first_error(&sent) {
        print_error_line!("first error: {reason}");
    }
    Ok(Figures::new(&Measurements {
        requests: load.requests,
        warm_up: load.warm_up,
        sent,
        constant_rate: matches!(load.arrivals, Arrivals::Constant { .. }),
        scale_out: peak.at,
        peak_instances: u64::from(peak.instances),
        scale_in,
        web_cpu: cpu_between(before.cpu_s.web, after.cpu_s.web).filter(|_| load.separate),
        worker_cpu: cpu_between(Some(before.cpu_s.workers), Some(after.cpu_s.workers)),
        http_cpu,
        generator_cpu,
        observed,
    }))
}

/// Why the first of the photographs that failed did.
fn first_error(sent: &[Sent]) -> Option<String> {
    let failed = sent.iter().filter(|one| !one.is_answered());
    let first = failed.min_by_key(|one| one.number)?;
    Some(match &first.answer {
        Answer::NotSent(most) => format!(
            "photograph {} was not sent: {most} were under way already, the most for which there is room",
            first.number
        ),
        Answer::Error(reason) => reason.clone(),
        Answer::Faces(_) | Answer::NoFace => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_that_of_the_first_photograph() {
        let sent = |number, answer| Sent {
            number,
            latency: Duration::ZERO,
            lag: Duration::ZERO,
            end: Duration::ZERO,
            answer,
        };
        let mut all = vec![sent(0, Answer::NoFace), sent(1, Answer::Faces(1.0))];
        assert_eq!(first_error(&all), None);
        all.push(sent(7, Answer::Error("503".to_owned())));
        assert_eq!(first_error(&all).unwrap(), "503");
        all.push(sent(5, Answer::NotSent(9)));
        let reason = first_error(&all).unwrap();
        assert!(
            reason.starts_with("photograph 5 was not sent: 9 were"),
            "{reason}"
        );
    }
}
