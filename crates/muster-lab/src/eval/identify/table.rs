//! What is decided at several sizes of faces, side by side, over several splits.

use anyhow::Context;
use muster_base::print_line;
use serde::Serialize;

use super::score::{AtThreshold, Scores};

/// What one pair of sizes came to, all splits together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cell {
    /// The enrolled faces' size, in pixels; as they are when `None`.
    gallery_face_px: Option<f32>,
    /// The size of those that were looked up.
    probe_face_px: Option<f32>,
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
    /// The mean over the splits.
    threshold: f32,
}

impl Cell {
    /// Adds up what every split came to. What is counted is what is decided with every rule.
    pub fn new(
        gallery_face_px: Option<f32>,
        probe_face_px: Option<f32>,
        splits: &[Scores],
    ) -> Self {
        let sum = |count: fn(&AtThreshold) -> usize| {
            let splits = splits.iter();
            splits.map(|scores| count(&scores.decided)).sum::<usize>()
        };
        let (probes, not_named) = (sum(|at| at.fnir.of), sum(|at| at.fnir.happened));
        let (strangers, wrongly_named) = (sum(|at| at.fpir.of), sum(|at| at.fpir.happened));
        let share = |happened: usize, of: usize| (of > 0).then(|| happened as f64 / of as f64);
        let thresholds = splits.iter().map(|scores| scores.at.threshold);
        Self {
            gallery_face_px,
            probe_face_px,
            probes,
            not_named,
            strangers,
            wrongly_named,
            fnir: share(not_named, probes),
            fpir: share(wrongly_named, strangers),
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

/// Prints the cells, which stand in rows of one size of the enrolled faces each.
pub fn print(cells: &[Cell], splits: u64, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        let cells = serde_json::to_string(cells).context("write the figures")?;
        print_line!("{cells}")?;
        return Ok(());
    }
    let Some(first) = cells.first() else {
        return Ok(());
    };
    print_line!(
        "{splits} splits; in each table {} photographs of enrolled people, {} of strangers",
        first.probes,
        first.strangers
    )?;
    let percent = |share: Option<f64>| match share {
        Some(share) => format!("{:.2}", 100.0 * share),
        None => "-".to_owned(),
    };
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
        let rows = cells.chunk_by(|a, b| a.gallery_face_px == b.gallery_face_px);
        for (n, row) in rows.enumerate() {
            let line = |head: &str, cell: Shown<'_>| {
                let cells = row.iter().map(|one| format!("{:>8}", cell(one)));
                format!("{head:<18}{}", cells.collect::<String>())
            };
            if n == 0 {
                print_line!(
                    "{}",
                    line("enrolled | probe", &|cell| size(cell.probe_face_px))
                )?;
            }
            print_line!("{}", line(&size(row[0].gallery_face_px), shown))?;
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
        let cell = Cell::new(Some(24.0), None, &[scores(1, 0), scores(4, 2)]);
        assert_eq!(
            (cell.probes, cell.not_named, cell.fnir),
            (20, 5, Some(0.25))
        );
        assert_eq!((cell.strangers, cell.wrongly_named), (80, 2));
        assert_eq!((cell.fpir, cell.threshold), (Some(0.025), 0.5));
        assert_eq!(
            (size(Some(24.0)), size(None)),
            ("24".to_owned(), "as is".to_owned())
        );
    }
}
