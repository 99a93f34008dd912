//! A share that was counted, and how far the count is to be trusted.

use serde::Serialize;

/// The standard normal value that leaves 2.5 % on either side: intervals are of 95 %.
const CONFIDENCE_Z: f64 = 1.959_963_984_540_054;

/// How often something happened, with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rate {
    /// The share; `None` where nothing was counted.
    pub estimate: Option<f64>,
    /// The interval's lower end; 0 where nothing was counted.
    pub low: f64,
    /// The interval's upper end; 1 where nothing was counted.
    pub high: f64,
    /// How often it happened.
    pub happened: usize,
    /// Out of how many.
    pub of: usize,
}

impl Rate {
    /// The share of `happened` among `of`.
    ///
    /// The interval is Wilson's score interval (E. B. Wilson, 1927), which holds for rare events
    /// and small counts too. It takes the counted to be independent of each other.
    #[must_use]
    pub fn of(happened: usize, of: usize) -> Self {
        if of == 0 {
            return Self {
                estimate: None,
                low: 0.0,
                high: 1.0,
                happened: 0,
                of: 0,
            };
        }
        let n = of as f64;
        let p = happened as f64 / n;
        let z2 = CONFIDENCE_Z.powi(2);
        let middle = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let half = CONFIDENCE_Z / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
        Self {
            estimate: Some(p),
            low: if happened == 0 { 0.0 } else { middle - half },
            high: if happened == of { 1.0 } else { middle + half },
            happened,
            of,
        }
    }

    /// Counts those of which `test` says that it happened.
    pub fn count<T>(all: impl IntoIterator<Item = T>, mut test: impl FnMut(T) -> bool) -> Self {
        let (mut happened, mut of) = (0, 0);
        for one in all {
            happened += usize::from(test(one));
            of += 1;
        }
        Self::of(happened, of)
    }

    /// Whether the interval holds that share.
    #[must_use]
    pub fn holds(&self, share: f64) -> bool {
        (self.low..=self.high).contains(&share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_wilsons() {
        let near = |a: f64, b: f64| (a - b).abs() < 5e-4;
        // Newcombe (1998), table I, method 3.
        for (happened, of, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
            (29, 29, 0.8830, 1.0),
        ] {
            let rate = Rate::of(happened, of);
            assert!(near(rate.low, low) && near(rate.high, high), "{rate:?}");
            assert!(rate.holds(happened as f64 / of as f64));
        }
        assert_eq!(Rate::of(0, 0).estimate, None);
        assert!(Rate::of(0, 0).holds(0.5));
    }
}
