//! Who goes to whom, so that nobody is given twice.

/// Assigns each row at most one column and each column to at most one row, so that the sum of the
/// weights of what was assigned is greatest.
///
/// `weights[row]` holds the columns that the row may be given, each with a weight of 0 or more; a
/// row may be given nothing, for 0. Columns are below `columns`. Answers each row's column.
///
/// `pathfinding`'s `kuhn_munkres` wants weights that are totally ordered and finite, a full matrix
/// with no more rows than columns, and six more crates; here weights are `f64`, most pairs are not
/// allowed, and among equal sums the answer stays what it was.
///
/// The Hungarian method with potentials (H. W. Kuhn, 1955; J. Munkres, 1957), in
/// O(rows^2 x (rows + columns)).
pub fn best(weights: &[Vec<(usize, f64)>], columns: usize) -> Vec<Option<usize>> {
    let rows = weights.len();
    // A column of its own for each row means that it is given nothing.
    let width = columns + rows;
    let mut cost = vec![vec![f64::INFINITY; width]; rows];
    for (row, given) in weights.iter().enumerate() {
        cost[row][columns + row] = 0.0;
        for &(column, weight) in given {
            cost[row][column] = -weight;
        }
    }
    // Row and column 0 of the method are no row and no column.
    let (mut u, mut v) = (vec![0.0; rows + 1], vec![0.0; width + 1]);
    let mut holder = vec![0; width + 1];
    for row in 1..=rows {
        holder[0] = row;
        let mut at = 0;
        let mut slack = vec![f64::INFINITY; width + 1];
        let mut from = vec![0; width + 1];
        let mut used = vec![false; width + 1];
        while holder[at] != 0 {
            used[at] = true;
            let here = holder[at];
            let (mut least, mut next) = (f64::INFINITY, 0);
            for column in 1..=width {
                if used[column] {
                    continue;
                }
                let reduced = cost[here - 1][column - 1] - u[here] - v[column];
                if reduced < slack[column] {
                    slack[column] = reduced;
                    from[column] = at;
                }
                if slack[column] < least {
                    least = slack[column];
                    next = column;
                }
            }
            for column in 0..=width {
                if used[column] {
                    u[holder[column]] += least;
                    v[column] -= least;
                } else {
                    slack[column] -= least;
                }
            }
            at = next;
        }
        while at != 0 {
            holder[at] = holder[from[at]];
            at = from[at];
        }
    }
    let mut assigned = vec![None; rows];
    for (column, row) in holder.iter().enumerate().skip(1) {
        if *row != 0 && column <= columns {
            assigned[row - 1] = Some(column - 1);
        }
    }
    assigned
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The greatest sum of all assignments, tried one by one.
    fn greatest(weights: &[Vec<(usize, f64)>], taken: &mut Vec<usize>) -> f64 {
        let Some((first, rest)) = weights.split_first() else {
            return 0.0;
        };
        let mut most = greatest(rest, taken);
        for &(column, weight) in first {
            if !taken.contains(&column) {
                taken.push(column);
                most = most.max(weight + greatest(rest, taken));
                taken.pop();
            }
        }
        most
    }

    proptest! {
        #[test]
        fn no_assignment_has_a_greater_sum(
            table in prop::collection::vec(prop::collection::vec(-50i32..100, 5), 0..6)
        ) {
            let weights: Vec<Vec<(usize, f64)>> = table
                .iter()
                .map(|row| {
                    let columns = row.iter().enumerate().filter(|(_, weight)| **weight >= 0);
                    columns.map(|(column, weight)| (column, f64::from(*weight))).collect()
                })
                .collect();
            let assigned = best(&weights, 5);
            let mut sum = 0.0;
            let mut taken = Vec::new();
            for (row, column) in assigned.iter().enumerate() {
                let Some(column) = column else { continue };
                let weight = weights[row].iter().find(|(c, _)| c == column);
                prop_assert!(weight.is_some(), "a column that the row may not be given");
                prop_assert!(!taken.contains(column), "a column twice");
                taken.push(*column);
                sum += weight.unwrap().1;
            }
            prop_assert_eq!(sum, greatest(&weights, &mut Vec::new()));
        }
    }
}
