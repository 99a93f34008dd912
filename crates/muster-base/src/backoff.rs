//! Pauses between attempts at something that fails, so that an outage is not a busy loop.

use std::time::Duration;

/// The longest first pause. Each failure in a row doubles it.
const FIRST: Duration = Duration::from_millis(250);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(30);

/// How long to pause after so many failures in a row; not at all after none.
///
/// Half of it is random: those that failed together do not come again together.
pub fn after(failures: u32) -> Duration {
    let longest = longest_after(failures);
    (longest + longest.mul_f64(fastrand::f64())) / 2
}

fn longest_after(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        n => FIRST.saturating_mul(1 << (n - 1).min(16)).min(LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses = [0, 1, 2, 3, 8, 100].map(longest_after);
        let ms = Duration::from_millis;
        let expected = [ms(0), ms(250), ms(500), ms(1000), LONGEST, LONGEST];
        assert_eq!(pauses, expected);
        assert_eq!(after(0), Duration::ZERO);
    }

    #[test]
    fn those_that_failed_together_come_again_apart() {
        let pauses: Vec<_> = (0..100).map(|_| after(100)).collect();
        assert!(
            pauses
                .iter()
                .all(|pause| (LONGEST / 2..=LONGEST).contains(pause))
        );
        let different: HashSet<_> = pauses.iter().map(Duration::as_millis).collect();
        assert!(different.len() > 50);
    }
}
