//! `muster status --watch`: fleet, backlog and latencies, live in a terminal.

mod frame;
mod last_minute;

use std::io::IsTerminal;

use anyhow::Context;
use console::Term;
use serde::Deserialize;
use serde_json::Value;

use frame::{clock, frame, line};
use last_minute::{LastMinute, Point, points};
use muster_api::client::{Event, EventStream, ServiceArgs};
use muster_api::events::{History, Sample, Trouble};
use muster_base::{ErrorChain, backoff, print_error_line, print_line};
use muster_jobs::Printable;

/// Rows of the frame besides the workers.
const ROWS: usize = 7;
/// Room for workers where the terminal does not tell its height, and the least there is.
const FEWEST_WORKERS: usize = 3;

/// Where it is shown.
enum Screen {
    /// A terminal, on which so many lines were drawn.
    Terminal(Term, usize),
    /// A file or a pipe: a line for each moment.
    Lines { json: bool },
}

impl Screen {
    fn show(&mut self, head: &str, data: &Value, minute: &mut LastMinute) -> anyhow::Result<()> {
        let sample: Sample = Deserialize::deserialize(data).context(UNKNOWN)?;
        minute.push(Point::from(&sample));
        match self {
            Self::Terminal(term, drawn) => {
                let (rows, columns) = term.size();
                let room = usize::from(rows).saturating_sub(ROWS).max(FEWEST_WORKERS);
                let mut lines = vec![format!("{head}  {}", clock(sample.at_ms))];
                lines.extend(frame(&sample, minute, room));
                redraw(term, drawn, &lines, usize::from(columns))?;
            }
            Self::Lines { json: true } => print_line!("{data}")?,
            Self::Lines { json: false } => print_line!("{}", line(&sample))?,
        }
        Ok(())
    }

    fn trouble(&mut self, head: &str, what: &str) -> anyhow::Result<()> {
        match self {
            Self::Terminal(term, drawn) => {
                let columns = usize::from(term.size().1);
                redraw(term, drawn, &[format!("{head}  {what}")], columns)?;
            }
            Self::Lines { .. } => print_error_line!("{what}"),
        }
        Ok(())
    }
}

const UNKNOWN: &str = "read what the service tells: it is another version of Muster";

/// Draws over what was drawn before; no line is broken.
fn redraw(term: &Term, drawn: &mut usize, lines: &[String], columns: usize) -> anyhow::Result<()> {
    term.clear_last_lines(*drawn)?;
    for line in lines {
        let line = Printable(line).to_string();
        term.write_line(&console::truncate_str(&line, columns, "…"))?;
    }
    *drawn = lines.len();
    Ok(())
}

/// Shows each moment until it is interrupted; a service that goes away is waited for.
///
/// # Errors
/// When the service can not be reached at first, or nothing can be written any more.
pub async fn run(service: &ServiceArgs, json: bool) -> anyhow::Result<()> {
    let client = service.client()?;
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
        // A service that was started again has another local token.
        match service.client()?.events().await {
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
    let mut minute = LastMinute::default();
    loop {
        let Event { name, data } = match stream.next().await {
            Ok(Some(event)) => event,
            Ok(None) => return Ok("the service has stopped".to_owned()),
            Err(error) => return Ok(ErrorChain(&error).to_string()),
        };
        match &*name {
            "history" => {
                let history: History = Deserialize::deserialize(&data).context(UNKNOWN)?;
                points(&history).for_each(|point| minute.push(point));
            }
            "sample" => {
                *failures = 0;
                screen.show(head, &data, &mut minute)?;
            }
            "trouble" => {
                let trouble: Trouble = Deserialize::deserialize(&data).context(UNKNOWN)?;
                screen.trouble(head, &trouble.detail)?;
            }
            _ => {}
        }
    }
}
