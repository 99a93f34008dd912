//! An earlier measurement, and how the figures of a new one stand to it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use muster_base::output::OutputError;
use muster_base::{print_error_line, print_line};
use serde::Serialize;

use super::report::{LoadSettings, Report};
use super::rows::{ROWS, Row};
use super::spread::{Spread, round};

/// An earlier measurement by the settings of a new one.
pub struct Baseline {
    file: PathBuf,
    report: Report,
}

/// A figure beside that of the baseline.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// The figure's place in the JSON: names with dots between.
    pub figure: &'static str,
    /// The median, in the figure's unit.
    pub measured: f64,
    /// The baseline's, in the same unit.
    pub baseline: f64,
    /// The first through the second; `null` where the baseline's is 0.
    pub ratio: Option<f64>,
    /// Whether one of the medians lies within the other's spread: no difference was measured.
    pub within_spread: bool,
}

/// A measurement beside its baseline.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The baseline's file.
    pub file: PathBuf,
    /// Repetitions of the measurement and of the baseline.
    pub repetitions: (usize, usize),
    /// Errors of both, in per cent of what was sent.
    pub errors_percent: (f64, f64),
    /// Every figure that both know.
    pub ratios: Vec<Ratio>,
}

impl Baseline {
    /// Reads what `muster bench --json` printed.
    ///
    /// # Errors
    /// When the file can not be read, is something else, or was measured by other settings.
    pub fn read(file: &Path, settings: &LoadSettings) -> anyhow::Result<Self> {
        let shown = file.display();
        let text = std::fs::read(file)
            .with_context(|| format!("read the baseline {shown}: name an earlier measurement"))?;
        let report: Report = serde_json::from_slice(&text).with_context(|| {
            format!(
                "{shown} is no output of `muster bench`: make a baseline by \
                 `muster bench --json > FILE`"
            )
        })?;
        let differences = match &report.settings {
            Some(earlier) => differences(earlier, settings),
            None => difference("--requests", &report.medians.requests, &settings.requests)
                .into_iter()
                .collect(),
        };
        anyhow::ensure!(
            differences.is_empty(),
            "the baseline {shown} was measured with {}: give the same flags, or measure a new baseline",
            differences.join(", ")
        );
        if report.settings.is_none() {
            print_error_line!(
                "the baseline {shown} is of an older build, which did not say its --size, --concurrency and \
                 --warm-up (there was none): compare only if they are the same"
            );
        }
        Ok(Self {
            file: file.to_owned(),
            report,
        })
    }

    /// Compares a measurement with this one.
    pub fn compare(self, report: &Report) -> Comparison {
        let (now, before) = (report.repetitions(), self.report.repetitions());
        let ratio = |row: &Row| Some(ratio(row.key, row.spread(now)?, row.spread(before)?));
        Comparison {
            repetitions: (now.len(), before.len()),
            errors_percent: (report.errors_percent(), self.report.errors_percent()),
            ratios: ROWS.iter().filter_map(ratio).collect(),
            file: self.file,
        }
    }
}

impl Comparison {
    /// Prints the ratios.
    ///
    /// # Errors
    /// When nothing can be printed any more.
    pub fn print(&self) -> Result<(), OutputError> {
        let (now, before) = self.repetitions;
        print_line!("")?;
        print_line!("compared with {}", self.file.display())?;
        print_line!(
            "{:<25}{:>11} {:>11}{:<12}{:>8}",
            "",
            "measured",
            "baseline",
            "",
            "ratio"
        )?;
        for of in &self.ratios {
            let Some(row) = ROWS.iter().find(|row| row.key == of.figure) else {
                continue;
            };
            let ratio = of
                .ratio
                .map_or("-".to_owned(), |ratio| format!("{ratio:.3}"));
            let verdict = match of.within_spread {
                true => "   no difference: within the spread",
                false => "",
            };
            print_line!(
                "{:<25}{:>11} {:>11} {:<11}{ratio:>8}{verdict}",
                row.name,
                row.show(of.measured),
                row.show(of.baseline),
                row.unit
            )?;
        }
        let (errors, errors_before) = self.errors_percent;
        print_line!("{:<25}{errors:>11.2} {errors_before:>11.2} %", "errors")?;
        if now == 1 && before == 1 {
            print_line!(
                "one repetition each has no spread: whether a ratio is more than chance is not known"
            )?;
        }
        Ok(())
    }
}

fn ratio(figure: &'static str, now: Spread, before: Spread) -> Ratio {
    Ratio {
        figure,
        measured: now.median,
        baseline: before.median,
        ratio: match before.median {
            0.0 => None,
            median => Some(round(now.median / median)),
        },
        within_spread: now.holds(before.median) || before.holds(now.median),
    }
}

/// What of an earlier measurement's settings differs from these, but for its repetitions.
fn differences(earlier: &LoadSettings, now: &LoadSettings) -> Vec<String> {
    [
        difference("--size", &earlier.size, &now.size),
        difference("--requests", &earlier.requests, &now.requests),
        difference("--warm-up", &earlier.warm_up, &now.warm_up),
        difference(
            "--concurrency",
            &Flag(earlier.concurrency),
            &Flag(now.concurrency),
        ),
        difference("--rate", &Flag(earlier.rate_rps), &Flag(now.rate_rps)),
        difference(
            "--observers",
            &Flag(earlier.observers),
            &Flag(now.observers),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn difference<T: PartialEq + std::fmt::Display>(
    flag: &str,
    earlier: &T,
    now: &T,
) -> Option<String> {
    (earlier != now).then(|| format!("{flag} {earlier} (here: {now})"))
}

/// A flag that may be absent.
#[derive(PartialEq)]
struct Flag<T>(Option<T>);

impl<T: std::fmt::Display> std::fmt::Display for Flag<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("not given"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::{older, report, settings};

    fn read(text: &str, settings: &LoadSettings) -> Result<Baseline, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("baseline.json");
        std::fs::write(&file, text).unwrap();
        Baseline::read(&file, settings).map_err(|error| format!("{error:#}"))
    }

    fn throughput(baseline: Baseline, now: &Report) -> Ratio {
        let compared = baseline.compare(now);
        *compared
            .ratios
            .iter()
            .find(|ratio| ratio.figure == "throughput_rps")
            .unwrap()
    }

    #[test]
    fn a_ratio_within_the_spread_of_either_is_no_difference() {
        let earlier = serde_json::to_string(&report(&[50.0, 60.0, 55.0])).unwrap();
        let ratio = |now: &[f64]| {
            let ratio = throughput(read(&earlier, &settings()).unwrap(), &report(now));
            (ratio.ratio, ratio.within_spread)
        };
        assert_eq!(ratio(&[66.0]), (Some(1.2), false));
        // Within the baseline's spread, and the baseline within this one's.
        assert_eq!(ratio(&[59.4]), (Some(1.08), true));
        assert_eq!(ratio(&[66.0, 54.0, 67.0]), (Some(1.2), true));
        assert_eq!(ratio(&[66.0, 56.0, 67.0]), (Some(1.2), false));
    }

    #[test]
    fn a_figure_that_one_of_both_lacks_has_no_ratio() {
        let older = older().to_string();
        let mut now = report(&[75.0]);
        let compared = read(&older, &settings()).unwrap().compare(&now);
        let figures: Vec<_> = compared.ratios.iter().map(|ratio| ratio.figure).collect();
        assert!(figures.contains(&"latency_ms.p99"), "{figures:?}");
        assert!(!figures.contains(&"generator_cpu_ms"), "{figures:?}");
        assert_eq!(
            (compared.repetitions, compared.errors_percent),
            ((1, 1), (2.0, 5.0))
        );
        let ratio = throughput(read(&older, &settings()).unwrap(), &now);
        assert_eq!((ratio.ratio, ratio.within_spread), (Some(1.5), false));
        // No ratio to nothing.
        now.repetitions[0].throughput_rps = 0.0;
        let nothing = serde_json::to_string(&now).unwrap();
        let ratio = throughput(read(&nothing, &settings()).unwrap(), &report(&[75.0]));
        assert_eq!(ratio.ratio, None);
    }

    #[test]
    fn another_file_or_other_settings_are_refused_by_name_and_remedy() {
        let other = LoadSettings {
            size: 256,
            concurrency: None,
            rate_rps: Some(12.5),
            repetitions: 1,
            ..settings()
        };
        let earlier = serde_json::to_string(&report(&[50.0])).unwrap();
        let fewer = LoadSettings {
            requests: 20,
            ..settings()
        };
        for (text, settings, parts) in [
            (
                "",
                settings(),
                ["is no output of `muster bench`", "--json > FILE"],
            ),
            (
                "{\"rank1\": 0.9}",
                settings(),
                ["is no output of", "missing field"],
            ),
            (
                &earlier,
                other,
                [
                    "--size 512 (here: 256), --concurrency 4 (here: not given), --rate not given (here: 12.5):",
                    "give the same flags",
                ],
            ),
            (
                &older().to_string(),
                fewer,
                ["--requests 40 (here: 20)", "measure a new"],
            ),
        ] {
            let error = read(text, &settings).err().unwrap();
            assert!(error.contains("baseline.json"), "{error}");
            for part in parts {
                assert!(error.contains(part), "{error}");
            }
        }
        let missing = Baseline::read(Path::new("nowhere.json"), &settings());
        assert!(format!("{:#}", missing.err().unwrap()).contains("nowhere.json"));
        let again = LoadSettings {
            repetitions: 9,
            ..settings()
        };
        assert!(read(&earlier, &again).is_ok());
    }
}
