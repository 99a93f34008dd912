//! What observers cost: every other few seconds of a measurement there are viewers and a scraper.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use muster_api::client::Client;

/// How long the service is watched, and then not.
const PHASE: Duration = Duration::from_secs(4);
/// Time between two scrapes; Prometheus takes fifteen times as long by default.
const SCRAPE: Duration = Duration::from_secs(1);
/// Phases at the beginning that count for nothing: the fleet is still growing.
const GROWING: usize = 1;

/// Latencies with and without observers, in one measurement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// Viewers of `/v1/events`, beside one scraper of `/metrics`.
    pub viewers: usize,
    /// Average latency of what was sent and answered while they were there.
    pub latency_ms: f64,
    /// Average latency of what was sent and answered while they were not.
    pub alone_ms: f64,
    /// How many answers each rests on.
    pub answers: (usize, usize),
}

/// Observes the service in every other phase until `stop`; returns when each phase began. The first
/// is one without observers.
pub async fn observe(
    client: Client,
    viewers: usize,
    begun: Instant,
    stop: CancellationToken,
) -> Vec<Duration> {
    let mut phases = Vec::new();
    while !stop.is_cancelled() {
        phases.push(begun.elapsed());
        let over = async {
            tokio::select! {
                () = tokio::time::sleep(PHASE) => {}
                () = stop.cancelled() => {}
            }
        };
        if phases.len() % 2 == 1 {
            over.await;
            continue;
        }
        let view = async || {
            // A viewer that is cut off has observed for as long as it could.
            if let Ok(mut events) = client.events().await {
                while let Ok(Some(_)) = events.next().await {}
            }
        };
        let scrape = async || {
            loop {
                let response = client.http().get(client.at("/metrics")).send().await;
                if let Ok(response) = response {
                    let _ = response.bytes().await;
                }
                tokio::time::sleep(SCRAPE).await;
            }
        };
        tokio::select! {
            () = over => {}
            _ = async { tokio::join!(join_all((0..viewers).map(|_| view())), scrape()) } => {}
        }
    }
    phases
}

/// Compares latencies, each with the time of its end, between observed and other phases. What crosses
/// from one into another is left out.
pub fn compare(viewers: usize, phases: &[Duration], answers: &[(Duration, Duration)]) -> Observed {
    let mut sums = [Duration::ZERO; 2];
    let mut counts = [0u32; 2];
    for (latency, end) in answers {
        let phase_at = |at: Duration| phases.partition_point(|begun| *begun <= at);
        let (first, last) = (phase_at(end.saturating_sub(*latency)), phase_at(*end));
        if first == last && first > GROWING {
            let observed = first.is_multiple_of(2);
            sums[usize::from(observed)] += *latency;
            counts[usize::from(observed)] += 1;
        }
    }
    let average = |n: usize| match counts[n] {
        0 => 0.0,
        count => (sums[n] / count).as_secs_f64() * 1e3,
    };
    Observed {
        viewers,
        latency_ms: average(1),
        alone_ms: average(0),
        answers: (counts[1] as usize, counts[0] as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_count_where_they_were_both_sent_and_answered() {
        let ms = Duration::from_millis;
        let phases = [0, 1000, 2000, 3000].map(ms);
        let answers = [
            (100, 500),  // while the fleet grows
            (200, 1500), // watched
            (400, 1900), // watched
            (200, 2100), // from one into the other
            (150, 2500), // not
            (100, 3500), // watched
        ];
        let answers = answers.map(|(latency, end)| (ms(latency), ms(end)));
        let observed = compare(7, &phases, &answers);
        assert_eq!(observed.viewers, 7);
        assert_eq!(observed.answers, (3, 1));
        assert!((observed.latency_ms - 700.0 / 3.0).abs() < 0.01);
        assert!((observed.alone_ms - 150.0).abs() < 0.01);
    }
}
