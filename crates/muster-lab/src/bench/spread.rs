//! How far the repetitions of a measurement lie apart.

/// The middle of some values, and between which they lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Smallest.
    pub low: f64,
    /// The middle one; of an even number, half way between the two in the middle.
    pub median: f64,
    /// Largest.
    pub high: f64,
}

impl Spread {
    /// Of these values; `None` of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        let upper = values.len() / 2;
        let median = match values.len() % 2 {
            0 => (values[upper - 1] + values[upper]) / 2.0,
            _ => values[upper],
        };
        Some(Self { low, median, high })
    }

    /// Whether a value lies between the smallest and the largest.
    pub fn holds(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

/// A figure to a thousandth of its unit.
pub fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle_of_the_spread() {
        let of = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(of(&[]), None);
        let spread = |low, median, high| Some(Spread { low, median, high });
        assert_eq!(of(&[2.0]), spread(2.0, 2.0, 2.0));
        assert_eq!(of(&[4.0, 1.0]), spread(1.0, 2.5, 4.0));
        assert_eq!(of(&[9.0, 10.0, 1.0]), spread(1.0, 9.0, 10.0));
        let spread = of(&[9.0, 10.0, 1.0]).unwrap();
        assert_eq!(
            [0.9, 1.0, 10.0, 10.1].map(|value| spread.holds(value)),
            [false, true, true, false]
        );
    }
}
