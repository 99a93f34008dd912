//! One picture of a service, line by line.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use muster_api::events::{InstanceNow, Sample};
use muster_api::status::InstanceState;

use super::last_minute::LastMinute;

/// Draws values as blocks, the greatest as the tallest.
fn chart(values: &[f64]) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = values.iter().copied().fold(0.0, f64::max);
    let block = |value: &f64| match (value / most * 8.0).ceil() as usize {
        0 => ' ',
        eighths => BLOCKS[(eighths - 1).min(7)],
    };
    values.iter().map(block).collect()
}

/// One picture: a line for each thing, and one for each worker as far as there is room.
pub fn frame(sample: &Sample, minute: &LastMinute, workers: usize) -> Vec<String> {
    let fleet = &sample.fleet;
    let rates = minute.rates();
    // The last column has only begun.
    let rate = rates.iter().rev().nth(1).copied().unwrap_or(0.0);
    let latency = match (sample.latency_ms.p50, sample.latency_ms.p99) {
        (Some(p50), Some(p99)) => format!("p50 {p50:.0} ms, p99 {p99:.0} ms"),
        _ => "nothing answered of late".to_owned(),
    };
    let mut lines = vec![
        format!(
            "queue     {}  {} visible, {} in flight",
            chart(&minute.columns(|point| point.backlog as f64)),
            sample.queue.visible,
            sample.queue.in_flight
        ),
        format!(
            "fleet     {}  {} running, {} pending, {} draining ({} to {})",
            chart(&minute.columns(|point| point.instances as f64)),
            fleet.running,
            fleet.pending,
            fleet.draining,
            fleet.min,
            fleet.max
        ),
        format!(
            "answers   {}  {rate:.1} a second; {} accepted, {} answered, {} failed, {} waiting",
            chart(&rates),
            sample.requests.accepted,
            sample.requests.answered,
            sample.requests.failed,
            sample.requests.waiting
        ),
        format!(
            "latency   {}  {latency}",
            chart(&minute.columns(|point| point.p99))
        ),
        format!("plan      {}", fleet.reason),
    ];
    let shown = match fleet.instances.len() {
        all if all <= workers => all,
        _ => workers.saturating_sub(1),
    };
    for InstanceNow { instance, answered } in &fleet.instances[..shown] {
        let busy = match instance.busy {
            Some(true) => ", busy",
            Some(false) => ", idle",
            None => "",
        };
        lines.push(format!(
            "          {}  {} for {:.0} s{busy}, {answered} answered",
            instance.id,
            state(instance.state),
            instance.age_s
        ));
    }
    match fleet.instances.len() - shown {
        0 => {}
        more => lines.push(format!("          and {more} more")),
    }
    lines
}

fn state(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Pending => "pending",
        InstanceState::Running => "running",
        InstanceState::Draining => "draining",
    }
}

/// One moment on one line.
pub fn line(sample: &Sample) -> String {
    let fleet = &sample.fleet;
    format!(
        "{}  {} visible, {} in flight | {} running, {} pending, {} draining | {} answered, {} \
         failed | {}",
        clock(sample.at_ms),
        sample.queue.visible,
        sample.queue.in_flight,
        fleet.running,
        fleet.pending,
        fleet.draining,
        sample.requests.answered,
        sample.requests.failed,
        fleet.reason
    )
}

/// The time of day, in UTC, as the logs have it.
pub fn clock(at_ms: u64) -> String {
    let at = i64::try_from(at_ms).ok().map(Timestamp::from_millisecond);
    match at {
        Some(Ok(at)) => at.to_zoned(TimeZone::UTC).strftime("%H:%M:%SZ").to_string(),
        _ => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use muster_api::events::{Backlog, FleetNow, Latency, Requests};
    use muster_api::status::{InstanceTier, InstanceView};

    use super::super::last_minute::Point;
    use super::*;

    fn sample(at_ms: u64, backlog: u64, workers: usize) -> Sample {
        let instance = |n: usize| InstanceNow {
            instance: InstanceView {
                id: format!("i-{n}"),
                state: InstanceState::Running,
                tier: InstanceTier::Ec2,
                age_s: 12.4,
                busy: Some(n == 0),
            },
            answered: 7,
        };
        Sample {
            at_ms,
            queue: Backlog {
                visible: backlog,
                in_flight: 0,
            },
            fleet: FleetNow {
                pending: 0,
                running: u32::try_from(workers).unwrap(),
                draining: 0,
                min: 0,
                max: 15,
                reason: "enough run".to_owned(),
                observed_at_ms: at_ms,
                instances: (0..workers).map(instance).collect(),
            },
            requests: Requests {
                accepted: at_ms / 100,
                answered: at_ms / 100,
                failed: 0,
                waiting: 0,
            },
            latency_ms: Latency {
                p50: Some(40.0),
                p99: Some(80.0),
            },
        }
    }

    #[test]
    fn the_greatest_value_is_the_tallest_block_and_nothing_is_empty() {
        assert_eq!(chart(&[0.0, 0.1, 4.0, 8.0]), " ▁▄█");
        assert_eq!(chart(&[0.0, 0.0]), "  ");
    }

    #[test]
    fn a_frame_has_a_line_for_everything_and_for_the_workers_that_fit() {
        let now = sample(5000, 3, 4);
        let mut minute = LastMinute::default();
        minute.push(Point::from(&now));
        let lines = frame(&now, &minute, 3);
        assert!(
            lines[0].ends_with("█  3 visible, 0 in flight"),
            "{}",
            lines[0]
        );
        assert!(lines[1].ends_with("4 running, 0 pending, 0 draining (0 to 15)"));
        assert!(lines[3].ends_with("p50 40 ms, p99 80 ms"));
        assert_eq!(lines[4], "plan      enough run");
        assert_eq!(
            lines[5],
            "          i-0  running for 12 s, busy, 7 answered"
        );
        assert_eq!(lines.last().unwrap(), "          and 2 more");
        assert_eq!(lines.len(), 8);
        assert_eq!(frame(&now, &minute, 4).len(), 9);
    }
}
