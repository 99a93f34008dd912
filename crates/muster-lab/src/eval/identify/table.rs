//! What is decided in galleries of several sizes, and at several sizes of faces, over several splits.

use anyhow::Context;
use muster_base::output::OutputError;
use muster_base::print_line;
use serde::Serialize;

use super::score::{AtThreshold, Scores};

/// What a cell is of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Of {
    /// How many people were asked to be enrolled; as many as there are when `None`.
    pub people: Option<usize>,
    /// The enrolled faces' size, in pixels; as they are when `None`.
    pub gallery_face_px: Option<f32>,
    /// The size of those that were looked up.
    pub probe_face_px: Option<f32>,
}

/// What one number of people and one pair of sizes came to, all splits together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cell {
    #[serde(flatten)]
    of: Of,
    /// Photographs of enrolled people.
    probes: usize,
    /// Those that were not given their own name.
    not_named: usize,
    /// Photographs of strangers.
    strangers: usize,
    /// Those that were given a name.
    wrongly_named: usize,
    fnir: Option<f64>,
    fpir: Option<f64>,
    /// Splits of which the 95 % interval of the FPIR has the target in it or is below.
    within_target: usize,
    /// The mean over the splits.
    threshold: f32,
}

impl Cell {
    /// Adds up what every split came to. What is counted is what is decided with every rule.
    pub fn new(of: Of, splits: &[Scores], target: f64) -> Self {
        let sum = |count: fn(&AtThreshold) -> usize| {
            let splits = splits.iter();
            splits.map(|scores| count(&scores.decided)).sum::<usize>()
        };
        let (probes, not_named) = (sum(|at| at.fnir.of), sum(|at| at.fnir.happened));
        let (strangers, wrongly_named) = (sum(|at| at.fpir.of), sum(|at| at.fpir.happened));
        let share = |happened: usize, of: usize| (of > 0).then(|| happened as f64 / of as f64);
        let thresholds = splits.iter().map(|scores| scores.at.threshold);
        let within = splits
            .iter()
            .filter(|scores| scores.decided.fpir.low <= target);
        Self {
            of,
            probes,
            not_named,
            strangers,
            wrongly_named,
            fnir: share(not_named, probes),
            fpir: share(wrongly_named, strangers),
            within_target: within.count(),
            threshold: thresholds.sum::<f32>() / splits.len().max(1) as f32,
        }
    }
}

/// A size, for a row or a column.
fn size(face_px: Option<f32>) -> String {
    face_px.map_or_else(|| "as is".to_owned(), |size| size.to_string())
}

/// What a table shows of a cell.
type Shown<'a> = &'a dyn Fn(&Cell) -> String;

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.2}", 100.0 * share))
}

/// Prints the cells: by the number of people, or in rows of one size of the enrolled faces each.
pub fn print(cells: &[Cell], splits: u64, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        let cells = serde_json::to_string(cells).context("write the figures")?;
        print_line!("{cells}")?;
        return Ok(());
    }
    let as_is = |cell: &Cell| (cell.of.gallery_face_px, cell.of.probe_face_px) == (None, None);
    if cells.iter().all(as_is) {
        return Ok(by_people(cells, splits)?);
    }
    for of_people in cells.chunk_by(|a, b| a.of.people == b.of.people) {
        by_size(of_people, splits)?;
    }
    Ok(())
}

/// Prints a row for each number of people.
fn by_people(cells: &[Cell], splits: u64) -> Result<(), OutputError> {
    print_line!(
        "{:>8}{:>8}{:>12}{:>8}{:>8}{:>10}{:>8}{:>16}",
        "people",
        "cutoff",
        "strangers",
        "named",
        "FPIR %",
        "probes",
        "FNIR %",
        "within target"
    )?;
    for cell in cells {
        let people = cell.of.people;
        print_line!(
            "{:>8}{:>8.3}{:>12}{:>8}{:>8}{:>10}{:>8}{:>16}",
            people.map_or_else(|| "all".to_owned(), |people| people.to_string()),
            cell.threshold,
            cell.strangers,
            cell.wrongly_named,
            percent(cell.fpir),
            cell.probes,
            percent(cell.fnir),
            format!("{} of {splits}", cell.within_target)
        )?;
    }
    Ok(())
}

/// Prints tables of the sizes of one number of people.
fn by_size(cells: &[Cell], splits: u64) -> Result<(), OutputError> {
    let Some(first) = cells.first() else {
        return Ok(());
    };
    print_line!(
        "{splits} splits; in each table {} photographs of enrolled people, {} of strangers",
        first.probes,
        first.strangers
    )?;
    if let Some(people) = first.of.people {
        print_line!("{people} people enrolled")?;
    }
    let fnir = |cell: &Cell| percent(cell.fnir);
    let fpir = |cell: &Cell| percent(cell.fpir);
    let cutoff = |cell: &Cell| format!("{:.3}", cell.threshold);
    let tables: [(_, Shown<'_>); 3] = [
        ("FNIR, %: not named", &fnir),
        ("FPIR, %: strangers named", &fpir),
        ("cutoff", &cutoff),
    ];
    for (title, shown) in tables {
        print_line!("")?;
        print_line!("{title}")?;
        let rows = cells.chunk_by(|a, b| a.of.gallery_face_px == b.of.gallery_face_px);
        for (n, row) in rows.enumerate() {
            let line = |head: &str, cell: Shown<'_>| {
                let cells = row.iter().map(|one| format!("{:>8}", cell(one)));
                format!("{head:<18}{}", cells.collect::<String>())
            };
            if n == 0 {
                print_line!(
                    "{}",
                    line("enrolled | probe", &|cell| size(cell.of.probe_face_px))
                )?;
            }
            print_line!("{}", line(&size(row[0].of.gallery_face_px), shown))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use muster_gallery::calibration::Rate;

    use super::*;

    #[test]
    fn splits_are_added_up() {
        let at = |missed, named| AtThreshold {
            threshold: 0.5,
            fnir: Rate::of(missed, 10),
            fpir: Rate::of(named, 40),
        };
        let scores = |missed, named| Scores {
            rank1: Rate::of(10, 10),
            at: at(0, 0),
            decided: at(missed, named),
            ambiguous_probes: 0,
            ambiguous_strangers: 0,
            table: Vec::new(),
        };
        let of = Of {
            people: None,
            gallery_face_px: Some(24.0),
            probe_face_px: None,
        };
        let cell = Cell::new(of, &[scores(1, 0), scores(4, 2)], 0.001);
        assert_eq!(
            (cell.probes, cell.not_named, cell.fnir),
            (20, 5, Some(0.25))
        );
        assert_eq!((cell.strangers, cell.wrongly_named), (80, 2));
        assert_eq!((cell.fpir, cell.threshold), (Some(0.025), 0.5));
        // 2 of 40 are at least 0.6 %.
        assert_eq!(cell.within_target, 1);
        assert_eq!(
            (size(Some(24.0)), size(None)),
            ("24".to_owned(), "as is".to_owned())
        );
    }
}
