//! `muster status --watch`: how a running service fares, live in a terminal.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};

use anyhow::Context;
use console::Term;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::Value;

use muster_api::client::{Client, Event, EventStream};
use muster_base::{ErrorChain, backoff};

/// Seconds that one column of a chart stands for, and columns of a chart.
const COLUMN_MS: u64 = 2000;
const COLUMNS: u64 = 30;
/// Rows of the frame besides the workers.
const ROWS: usize = 7;
/// Room for workers where the terminal does not tell its height, and the least there is.
const FEWEST_WORKERS: usize = 3;

/// What is told of one moment.
#[derive(Debug, Deserialize)]
struct Sample {
    at_ms: u64,
    queue: Queue,
    fleet: Fleet,
    requests: Requests,
    latency_ms: Latency,
}

#[derive(Debug, Deserialize)]
struct Queue {
    visible: u64,
    in_flight: u64,
}

#[derive(Debug, Deserialize)]
struct Fleet {
    pending: u64,
    running: u64,
    draining: u64,
    min: u64,
    max: u64,
    reason: String,
    instances: Vec<Instance>,
}

#[derive(Debug, Deserialize)]
struct Instance {
    id: String,
    state: String,
    age_s: f64,
    busy: Option<bool>,
    answered: u64,
}

#[derive(Debug, Deserialize)]
struct Requests {
    accepted: u64,
    answered: u64,
    failed: u64,
    waiting: u64,
}

#[derive(Debug, Deserialize)]
struct Latency {
    p50: Option<f64>,
    p99: Option<f64>,
}

/// Columns of what was before.
#[derive(Debug, Deserialize)]
struct History {
    at_ms: Vec<u64>,
    visible: Vec<u64>,
    in_flight: Vec<u64>,
    pending: Vec<u64>,
    running: Vec<u64>,
    draining: Vec<u64>,
    answered: Vec<u64>,
    p99: Vec<Option<f64>>,
}

/// What the charts are drawn of.
#[derive(Clone, Copy, Debug, Default)]
struct Point {
    at_ms: u64,
    backlog: u64,
    members: u64,
    answered: u64,
    p99: f64,
}

impl From<&Sample> for Point {
    fn from(sample: &Sample) -> Self {
        let fleet = &sample.fleet;
        Self {
            at_ms: sample.at_ms,
            backlog: sample.queue.visible + sample.queue.in_flight,
            members: fleet.pending + fleet.running + fleet.draining,
            answered: sample.requests.answered,
            p99: sample.latency_ms.p99.unwrap_or(0.0),
        }
    }
}

impl History {
    fn points(&self) -> impl Iterator<Item = Point> {
        let at = |column: &[u64], n: usize| column.get(n).copied().unwrap_or(0);
        self.at_ms.iter().enumerate().map(move |(n, at_ms)| Point {
            at_ms: *at_ms,
            backlog: at(&self.visible, n) + at(&self.in_flight, n),
            members: at(&self.pending, n) + at(&self.running, n) + at(&self.draining, n),
            answered: at(&self.answered, n),
            p99: self.p99.get(n).copied().flatten().unwrap_or(0.0),
        })
    }
}

/// The last minute.
#[derive(Debug, Default)]
struct Past(VecDeque<Point>);

impl Past {
    fn push(&mut self, point: Point) {
        // One more column, to count the first one's answers from.
        let oldest = point.at_ms.saturating_sub((COLUMNS + 1) * COLUMN_MS);
        while self.0.front().is_some_and(|first| first.at_ms < oldest) {
            self.0.pop_front();
        }
        self.0.push_back(point);
    }

    /// The greatest value of each column, oldest first.
    fn columns(&self, of: impl Fn(&Point) -> f64) -> Vec<f64> {
        let mut columns = vec![0.0; COLUMNS as usize];
        let now = self.0.back().map_or(0, |last| last.at_ms);
        for point in &self.0 {
            let ago = (now.saturating_sub(point.at_ms) / COLUMN_MS) as usize;
            if let Some(place) = columns.len().checked_sub(ago + 1) {
                columns[place] = of(point).max(columns[place]);
            }
        }
        columns
    }

    /// Answers a second in each column.
    fn rates(&self) -> Vec<f64> {
        let mut rates = vec![0.0; COLUMNS as usize];
        let now = self.0.back().map_or(0, |last| last.at_ms);
        for (before, point) in self.0.iter().zip(self.0.iter().skip(1)) {
            let ago = (now.saturating_sub(point.at_ms) / COLUMN_MS) as usize;
            if let Some(place) = rates.len().checked_sub(ago + 1) {
                let came = point.answered.saturating_sub(before.answered);
                rates[place] += came as f64 * 1e3 / COLUMN_MS as f64;
            }
        }
        rates
    }
}

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
fn frame(sample: &Sample, past: &Past, workers: usize) -> Vec<String> {
    let fleet = &sample.fleet;
    let rates = past.rates();
    // The last column has only begun.
    let rate = rates.iter().rev().nth(1).copied().unwrap_or(0.0);
    let latency = match (sample.latency_ms.p50, sample.latency_ms.p99) {
        (Some(p50), Some(p99)) => format!("p50 {p50:.0} ms, p99 {p99:.0} ms"),
        _ => "nothing answered of late".to_owned(),
    };
    let mut lines = vec![
        format!(
            "queue     {}  {} visible, {} in flight",
            chart(&past.columns(|point| point.backlog as f64)),
            sample.queue.visible,
            sample.queue.in_flight
        ),
        format!(
            "fleet     {}  {} running, {} pending, {} draining ({} to {})",
            chart(&past.columns(|point| point.members as f64)),
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
            chart(&past.columns(|point| point.p99))
        ),
        format!("plan      {}", fleet.reason),
    ];
    let shown = match fleet.instances.len() {
        all if all <= workers => all,
        _ => workers.saturating_sub(1),
    };
    for instance in &fleet.instances[..shown] {
        let busy = match instance.busy {
            Some(true) => ", busy",
            Some(false) => ", idle",
            None => "",
        };
        lines.push(format!(
            "          {}  {} for {:.0} s{busy}, {} answered",
            instance.id, instance.state, instance.age_s, instance.answered
        ));
    }
    match fleet.instances.len() - shown {
        0 => {}
        more => lines.push(format!("          and {more} more")),
    }
    lines
}

/// One moment on one line.
fn line(sample: &Sample) -> String {
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
fn clock(at_ms: u64) -> String {
    let at = i64::try_from(at_ms).ok().map(Timestamp::from_millisecond);
    match at {
        Some(Ok(at)) => at.to_zoned(TimeZone::UTC).strftime("%H:%M:%SZ").to_string(),
        _ => "?".to_owned(),
    }
}

/// Where it is shown.
enum Screen {
    /// A terminal, on which so many lines were drawn.
    Terminal(Term, usize),
    /// A file or a pipe: a line for each moment.
    Lines { json: bool },
}

impl Screen {
    fn show(&mut self, head: &str, data: &Value, past: &mut Past) -> anyhow::Result<()> {
        let sample: Sample = Deserialize::deserialize(data).context(UNKNOWN)?;
        past.push(Point::from(&sample));
        match self {
            Self::Terminal(term, drawn) => {
                let (rows, columns) = term.size();
                let room = usize::from(rows).saturating_sub(ROWS).max(FEWEST_WORKERS);
                let mut lines = vec![format!("{head}  {}", clock(sample.at_ms))];
                lines.extend(frame(&sample, past, room));
                redraw(term, drawn, &lines, usize::from(columns))?;
            }
            Self::Lines { json: true } => print(data)?,
            Self::Lines { json: false } => print(&line(&sample))?,
        }
        Ok(())
    }

    fn trouble(&mut self, head: &str, what: &str) -> anyhow::Result<()> {
        match self {
            Self::Terminal(term, drawn) => {
                let columns = usize::from(term.size().1);
                redraw(term, drawn, &[format!("{head}  {what}")], columns)?;
            }
            Self::Lines { .. } => eprintln!("{what}"),
        }
        Ok(())
    }
}

const UNKNOWN: &str = "read what the service tells: it is another version of Muster";

/// Draws over what was drawn before; no line is broken.
fn redraw(term: &Term, drawn: &mut usize, lines: &[String], columns: usize) -> anyhow::Result<()> {
    term.clear_last_lines(*drawn)?;
    for line in lines {
        term.write_line(&console::truncate_str(line, columns, "…"))?;
    }
    *drawn = lines.len();
    Ok(())
}

fn print(what: &impl std::fmt::Display) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{what}")?;
    out.flush()?;
    Ok(())
}

/// Shows each moment until it is interrupted; a service that goes away is waited for.
///
/// # Errors
/// When the service can not be reached at first, or nothing can be written any more.
pub async fn run(client: &Client, json: bool) -> anyhow::Result<()> {
    let mut screen = if std::io::stdout().is_terminal() && !json {
        Screen::Terminal(Term::stdout(), 0)
    } else {
        Screen::Lines { json }
    };
    let head = client.at("");
    let mut stream = client.events().await?;
    let mut failures = 0;
    loop {
        let ended = follow(&mut stream, &mut screen, &head, &mut failures).await?;
        failures += 1;
        screen.trouble(&head, &format!("{ended}; trying again"))?;
        tokio::time::sleep(backoff::after(failures)).await;
        match client.events().await {
            Ok(again) => stream = again,
            Err(error) => {
                screen.trouble(&head, &format!("{}; trying again", ErrorChain(&error)))?
            }
        }
    }
}

/// Shows what comes, until nothing does; says why not.
async fn follow(
    stream: &mut EventStream,
    screen: &mut Screen,
    head: &str,
    failures: &mut u32,
) -> anyhow::Result<String> {
    let mut past = Past::default();
    loop {
        let Event { name, data } = match stream.next().await {
            Ok(Some(event)) => event,
            Ok(None) => return Ok("the service has stopped".to_owned()),
            Err(error) => return Ok(ErrorChain(&error).to_string()),
        };
        match &*name {
            "history" => {
                let history: History = Deserialize::deserialize(&data).context(UNKNOWN)?;
                history.points().for_each(|point| past.push(point));
            }
            "sample" => {
                *failures = 0;
                screen.show(head, &data, &mut past)?;
            }
            "trouble" => screen.trouble(head, data["detail"].as_str().unwrap_or("trouble"))?,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_ms: u64, backlog: u64, workers: usize) -> Sample {
        let instance = |n: usize| Instance {
            id: format!("i-{n}"),
            state: "running".to_owned(),
            age_s: 12.4,
            busy: Some(n == 0),
            answered: 7,
        };
        Sample {
            at_ms,
            queue: Queue {
                visible: backlog,
                in_flight: 0,
            },
            fleet: Fleet {
                pending: 0,
                running: workers as u64,
                draining: 0,
                min: 0,
                max: 15,
                reason: "enough run".to_owned(),
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
    fn the_last_minute_is_drawn_column_by_column() {
        let mut past = Past::default();
        // Ten answers a second, a backlog that grows and is gone after a minute and a half.
        for at in (0..120_000u64).step_by(250) {
            let backlog = if at < 90_000 { at / 1000 } else { 0 };
            past.push(Point::from(&sample(at, backlog, 1)));
        }
        let backlog = past.columns(|point| point.backlog as f64);
        assert_eq!(backlog.len(), COLUMNS as usize);
        assert_eq!((backlog[0], backlog[14], backlog[29]), (61.0, 89.0, 0.0));
        let rates = past.rates();
        assert!(
            rates.iter().all(|rate| (9.0..=11.0).contains(rate)),
            "{rates:?}"
        );
    }

    #[test]
    fn a_frame_has_a_line_for_everything_and_for_the_workers_that_fit() {
        let now = sample(5000, 3, 4);
        let mut past = Past::default();
        past.push(Point::from(&now));
        let lines = frame(&now, &past, 3);
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
        assert_eq!(frame(&now, &past, 4).len(), 9);
    }
}
