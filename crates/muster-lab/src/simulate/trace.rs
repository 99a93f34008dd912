//! Traces of arrivals: CSV files with a header line.
//!
//! One arrival a row (a column of times), counts at given times (a column of times and one of
//! counts), consecutive counts (a column of counts), or many series of counts a minute
//! (`minute_1`, `minute_2`, … as in the Azure Functions traces), which are summed.

use std::io::Read;
use std::path::Path;

use anyhow::Context;
use csv::StringRecord;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use muster_fleet::simulate::spread;

/// Most arrivals of one trace; each takes 8 bytes here and more in each policy's simulation.
const MAX_ARRIVALS: u64 = 50_000_000;
/// Longest trace, in seconds.
const MAX_LENGTH_S: f64 = 400.0 * 86_400.0;
/// Columns that are taken for times where none is named.
const TIMES: [&str; 6] = [
    "timestamp",
    "time",
    "arrival",
    "arrival_s",
    "second",
    "minute",
];
/// Columns that are taken for counts where none is named.
const COUNTS: [&str; 4] = ["count", "requests", "invocations", "arrivals"];

/// How a file's columns are to be read where its header does not say enough.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Columns {
    /// The column of times.
    pub time: Option<String>,
    /// The column of counts.
    pub count: Option<String>,
    /// Seconds that one count stands for.
    pub step_s: Option<f64>,
}

/// Arrivals, in seconds since the trace began, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// The arrivals.
    pub arrivals: Vec<f64>,
    /// How long the trace is, in seconds.
    pub length_s: f64,
}

/// What the rows of a file are.
enum Layout {
    /// One arrival a row, at a time in units of `unit_s`.
    Arrivals { time: usize, unit_s: f64 },
    /// A count a row: at a time in units of `unit_s`, or a step after the one before.
    Counts {
        time: Option<(usize, f64)>,
        count: usize,
        step_s: Option<f64>,
    },
    /// Columns of counts, one minute after another, summed over the rows.
    Minutes(Vec<usize>),
}

/// Reads a trace; counts are spread over their step at random, by `seed`.
///
/// # Errors
/// Names the file, the line and what was expected there.
pub fn read(path: &Path, columns: &Columns, seed: u64) -> anyhow::Result<Trace> {
    let file =
        std::fs::File::open(path).with_context(|| format!("open the trace {}", path.display()))?;
    parse(file, columns, seed).with_context(|| format!("read the trace {}", path.display()))
}

fn parse(source: impl Read, columns: &Columns, seed: u64) -> anyhow::Result<Trace> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(source);
    let header = reader.headers()?.clone();
    let layout = layout(&header, columns)?;
    let mut rows = Rows::default();
    let mut record = StringRecord::new();
    while reader.read_record(&mut record)? {
        let line = record.position().map_or(0, csv::Position::line);
        rows.take(&layout, &header, &record)
            .with_context(|| format!("line {line}"))?;
    }
    anyhow::ensure!(rows.total > 0, "there is no arrival in it");
    rows.into_trace(&layout, seed)
}

fn layout(header: &StringRecord, columns: &Columns) -> anyhow::Result<Layout> {
    let names: Vec<String> = header
        .iter()
        .map(|name| name.trim_start_matches('\u{feff}').to_lowercase())
        .collect();
    let named = |name: &Option<String>| -> anyhow::Result<Option<usize>> {
        let Some(name) = name else { return Ok(None) };
        let at = names.iter().position(|n| *n == name.to_lowercase());
        Ok(Some(at.with_context(|| {
            format!("there is no column {name}: the header has {}", few(&names))
        })?))
    };
    let known = |known: &[&str]| names.iter().position(|name| known.contains(&name.as_str()));
    let any_named = columns.time.is_some() || columns.count.is_some();
    let minutes: Vec<usize> = (1..=names.len())
        .map_while(|n| names.iter().position(|name| *name == format!("minute_{n}")))
        .collect();
    if !any_named && !minutes.is_empty() {
        let is_minute = |name: &&String| {
            let number = name.strip_prefix("minute_");
            number.is_some_and(|number| number.parse::<u32>().is_ok())
        };
        let there = names.iter().filter(is_minute).count();
        anyhow::ensure!(
            there == minutes.len(),
            "{there} columns are counts of a minute, and minute_1 to minute_{} are {}: name each minute \
             once and leave none out",
            minutes.len(),
            minutes.len()
        );
        return Ok(Layout::Minutes(minutes));
    }
    for at in 0..names.len() {
        let is_read = TIMES.contains(&names[at].as_str()) || COUNTS.contains(&names[at].as_str());
        anyhow::ensure!(
            !is_read || !names[..at].contains(&names[at]),
            "there are two columns {}: leave one of them out",
            names[at]
        );
    }
    let time = named(&columns.time)?.or_else(|| known(&TIMES));
    let count = match named(&columns.count)? {
        // A column of times alone was named: each row is an arrival.
        None if any_named => None,
        None => known(&COUNTS),
        found => found,
    };
    let unit_s = |time: usize| if names[time] == "minute" { 60.0 } else { 1.0 };
    match (time, count) {
        (Some(time), None) => Ok(Layout::Arrivals {
            time,
            unit_s: unit_s(time),
        }),
        (time, Some(count)) => {
            let step_s = columns
                .step_s
                .or(time.and_then(|at| match names[at].as_str() {
                    "minute" => Some(60.0),
                    "second" => Some(1.0),
                    _ => None,
                }));
            anyhow::ensure!(
                time.is_some() || step_s.is_some(),
                "its column {} has counts, but nothing says of how long: add --step-s",
                names[count]
            );
            Ok(Layout::Counts {
                time: time.map(|at| (at, unit_s(at))),
                count,
                step_s,
            })
        }
        (None, None) => anyhow::bail!(
            "nothing says which column has times or counts: the header has {}; name one with \
             --time-column or --count-column",
            few(&names)
        ),
    }
}

fn few(names: &[String]) -> String {
    match names {
        [first, second, third, _, rest @ ..] => {
            format!("{first}, {second}, {third} and {} more", rest.len() + 1)
        }
        few => few.join(", "),
    }
}

#[derive(Default)]
struct Rows {
    times: Vec<f64>,
    /// `(second, arrivals)`.
    counts: Vec<(f64, u64)>,
    total: u64,
}

impl Rows {
    fn take(
        &mut self,
        layout: &Layout,
        header: &StringRecord,
        record: &StringRecord,
    ) -> anyhow::Result<()> {
        let moment = |at: usize, unit_s: f64| named(header, record, at, moment).map(|t| t * unit_s);
        let whole = |at: usize| named(header, record, at, whole);
        match layout {
            Layout::Arrivals { time, unit_s } => {
                self.times.push(moment(*time, *unit_s)?);
                self.add(1)
            }
            Layout::Counts {
                time,
                count,
                step_s,
            } => {
                let at = match time {
                    Some((time, unit_s)) => moment(*time, *unit_s)?,
                    None => self.counts.len() as f64 * step_s.unwrap_or(1.0),
                };
                let count = whole(*count)?;
                self.counts.push((at, count));
                self.add(count)
            }
            Layout::Minutes(columns) => {
                self.counts.resize(columns.len(), (0.0, 0));
                for (minute, column) in columns.iter().enumerate() {
                    let count = whole(*column)?;
                    let (at, sum) = &mut self.counts[minute];
                    *at = minute as f64 * 60.0;
                    *sum = sum.saturating_add(count);
                    self.add(count)?;
                }
                Ok(())
            }
        }
    }

    fn add(&mut self, arrivals: u64) -> anyhow::Result<()> {
        self.total = self.total.saturating_add(arrivals);
        anyhow::ensure!(
            self.total <= MAX_ARRIVALS,
            "there are more than {MAX_ARRIVALS} arrivals up to here: cut the trace"
        );
        Ok(())
    }

    fn into_trace(mut self, layout: &Layout, seed: u64) -> anyhow::Result<Trace> {
        let step_s = match layout {
            Layout::Arrivals { .. } => 0.0,
            Layout::Minutes(_) => 60.0,
            Layout::Counts { step_s, .. } => {
                self.counts.sort_by(|a, b| a.0.total_cmp(&b.0));
                let gaps = self.counts.windows(2).map(|two| two[1].0 - two[0].0);
                let least = gaps.filter(|gap| *gap > 0.0).min_by(f64::total_cmp);
                step_s
                    .or(least)
                    .context("nothing says how long its one count lasts: add --step-s")?
            }
        };
        let times = self.times.iter().copied();
        let first = times
            .chain(self.counts.iter().map(|(at, _)| *at))
            .fold(f64::INFINITY, f64::min);
        let mut arrivals: Vec<f64> = self.times.iter().map(|at| at - first).collect();
        for count in &mut self.counts {
            count.0 -= first;
        }
        arrivals.extend(spread(&self.counts, step_s, seed));
        arrivals.sort_unstable_by(f64::total_cmp);
        let last = arrivals.last().copied().unwrap_or(0.0);
        let end = self.counts.last().map_or(last, |(at, _)| at + step_s);
        let length_s = last.max(end);
        anyhow::ensure!(
            length_s <= MAX_LENGTH_S,
            "its times span {:.0} days, more than {:.0}: are they in seconds?",
            length_s / 86_400.0,
            MAX_LENGTH_S / 86_400.0
        );
        Ok(Trace { arrivals, length_s })
    }
}

fn named<T>(
    header: &StringRecord,
    record: &StringRecord,
    at: usize,
    parse: impl Fn(&str) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    parse(record.get(at).unwrap_or_default())
        .with_context(|| format!("column {}", header.get(at).unwrap_or_default()))
}

/// Seconds: a number, or a date and time, in UTC unless it says otherwise.
fn moment(text: &str) -> anyhow::Result<f64> {
    if let Ok(seconds) = text.parse::<f64>() {
        anyhow::ensure!(seconds.is_finite(), "`{text}` is not a time");
        return Ok(seconds);
    }
    let instant = match text.parse::<Timestamp>() {
        Ok(instant) => instant,
        Err(_) => text
            .parse::<DateTime>()
            .and_then(|time| time.to_zoned(TimeZone::UTC))
            .map(|time| time.timestamp())
            .ok()
            .with_context(|| {
                format!(
                    "`{text}` is not a time: expected seconds, or a date and time such as \
                     2023-11-16 18:17:03.98"
                )
            })?,
    };
    Ok(instant.as_nanosecond() as f64 / 1e9)
}

/// A count of arrivals; what is empty is none, and what a spreadsheet has made of a count (`94.0`) is one.
fn whole(text: &str) -> anyhow::Result<u64> {
    if text.is_empty() {
        return Ok(0);
    }
    if let Ok(count) = text.parse() {
        return Ok(count);
    }
    // Above 2^53 there are whole numbers that a float does not have.
    let number = text.parse::<f64>().ok();
    let count = number.filter(|n| n.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(n));
    count.map(|count| count as u64).with_context(|| {
        format!("`{text}` is not a count: expected a whole number, rounded where it is an average")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, columns: &Columns) -> anyhow::Result<Trace> {
        super::parse(text.as_bytes(), columns, 1)
    }

    /// How many arrivals there are in each `step_s`.
    fn per_step(trace: &Trace, step_s: f64) -> Vec<usize> {
        let mut counts = vec![0; (trace.length_s / step_s).ceil() as usize];
        for at in &trace.arrivals {
            counts[(at / step_s) as usize] += 1;
        }
        counts
    }

    #[test]
    fn one_arrival_a_row_with_dates_or_seconds_in_any_order() {
        for text in [
            "TIMESTAMP,Tokens\n2023-11-16 18:17:03.9799600,1\n2023-11-16 18:17:05.4799600,2\n",
            "timestamp\n2023-11-16T18:17:03.97996Z\n2023-11-16T19:17:05.47996+01:00\n",
            "\u{feff}arrival_s,who\n11.5,b\n10,a\n",
        ] {
            let trace = parse(text, &Columns::default()).unwrap();
            assert_eq!(trace.arrivals.len(), 2, "{text}");
            assert_eq!(trace.arrivals[0], 0.0);
            assert!(
                (trace.arrivals[1] - 1.5).abs() < 1e-6,
                "{:?}",
                trace.arrivals
            );
        }
    }

    #[test]
    fn counts_a_minute_are_summed_over_the_rows_and_spread() {
        let text = "Function,minute_1,minute_2,minute_3\na,1,0,2\nb,3,,4\n";
        let trace = parse(text, &Columns::default()).unwrap();
        assert_eq!(trace.length_s, 180.0);
        assert_eq!(per_step(&trace, 60.0), [4, 0, 6]);
        assert!(trace.arrivals.is_sorted());
        assert_eq!(
            trace,
            parse(text, &Columns::default()).unwrap(),
            "by the seed alone"
        );
    }

    #[test]
    fn counts_have_their_own_times_or_follow_one_another() {
        let named = |time: Option<&str>, count: Option<&str>, step_s| Columns {
            time: time.map(str::to_owned),
            count: count.map(str::to_owned),
            step_s,
        };
        for (text, columns) in [
            ("second,count\n5,2\n6,0\n7,1\n", Columns::default()),
            ("time,requests\n100,2\n101,0\n102,1\n", Columns::default()),
            ("n\n2\n0\n1\n", named(None, Some("n"), Some(1.0))),
            ("second,count\n5,2.0\n6,0.\n7,1e0\n", Columns::default()),
            (
                "a,b\n100,2\n102,1\n",
                named(Some("A"), Some("B"), Some(1.0)),
            ),
        ] {
            let trace = parse(text, &columns).unwrap();
            assert_eq!(per_step(&trace, 1.0), [2, 0, 1], "{text}");
        }
        let minutes = parse("minute,count\n0,1\n2,1\n", &Columns::default()).unwrap();
        assert_eq!(per_step(&minutes, 60.0), [1, 0, 1]);
    }

    #[test]
    fn errors_name_the_line_the_column_and_the_remedy() {
        let columns = |time: &str| Columns {
            time: Some(time.to_owned()),
            ..Columns::default()
        };
        for (text, columns, expected) in [
            (
                "time\n1\nsoon\n",
                Columns::default(),
                vec!["line 3", "time", "`soon`"],
            ),
            (
                "second,count\n1,2\n2,-1\n",
                Columns::default(),
                vec!["line 3", "count", "`-1`"],
            ),
            (
                "a,minute_1\nx,1.5\n",
                Columns::default(),
                vec!["line 2", "minute_1", "`1.5`", "rounded"],
            ),
            (
                "second,count\n1,94.0\n2,94.5\n",
                Columns::default(),
                vec!["line 3", "count", "`94.5`", "rounded"],
            ),
            (
                "second,count\n1,-0.5\n",
                Columns::default(),
                vec!["line 2", "`-0.5`"],
            ),
            (
                "second,count\n1,inf\n",
                Columns::default(),
                vec!["line 2", "`inf`"],
            ),
            (
                "a,b\n1,2\n",
                Columns::default(),
                vec!["a, b", "--time-column"],
            ),
            ("a,b\n1,2\n", columns("c"), vec!["column c", "a, b"]),
            ("count\n1\n", Columns::default(), vec!["--step-s"]),
            ("time,x\n1\n", Columns::default(), vec!["line: 2"]),
            ("time\n", Columns::default(), vec!["no arrival"]),
            (
                "count,second\n99999999999,1\n",
                Columns::default(),
                vec!["line 2", "cut"],
            ),
            ("time\n1\n1700000000\n", Columns::default(), vec!["days"]),
            (
                "a,minute_1,minute_3\nx,1,2\n",
                Columns::default(),
                vec!["2 columns", "minute_1 to minute_1 are 1"],
            ),
            (
                "a,minute_1,minute_1\nx,1,2\n",
                Columns::default(),
                vec!["name each minute once"],
            ),
            (
                "time,count,count\n1,2,3\n",
                Columns::default(),
                vec!["two columns count"],
            ),
        ] {
            let error = format!("{:#}", parse(text, &columns).unwrap_err());
            for part in expected {
                assert!(error.contains(part), "{text}: {error}");
            }
        }
    }
}
