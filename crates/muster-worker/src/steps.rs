//! Whether the work in hand gets on: what a worker's signs of life depend on.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The steps that are under way: a photograph is fetched, it is at the models, its answer is stored.
///
/// A wait for another's turn is no step.
#[derive(Debug, Default)]
pub struct Steps(Mutex<Underway>);

#[derive(Debug, Default)]
struct Underway {
    next: u64,
    begun: HashMap<u64, Instant>,
}

impl Steps {
    /// Does one step.
    pub async fn during<T>(&self, step: impl Future<Output = T>) -> T {
        let _step = self.begin();
        step.await
    }

    /// Says for how long the longest step has been under way.
    pub fn longest(&self) -> Duration {
        let underway = self.underway();
        let first = underway.begun.values().min();
        first.map_or(Duration::ZERO, Instant::elapsed)
    }

    fn begin(&self) -> Step<'_> {
        let mut underway = self.underway();
        underway.next += 1;
        let number = underway.next;
        underway.begun.insert(number, Instant::now());
        Step {
            steps: self,
            number,
        }
    }

    fn underway(&self) -> MutexGuard<'_, Underway> {
        self.0
            .lock()
            .expect("no code panics while it holds the steps")
    }
}

/// Ends its step when it is dropped.
struct Step<'a> {
    steps: &'a Steps,
    number: u64,
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        self.steps.underway().begun.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_longest_step_counts_whichever_others_end() {
        let steps = Steps::default();
        assert_eq!(steps.longest(), Duration::ZERO);
        let pause = Duration::from_millis(20);
        let stuck = steps.during(std::future::pending::<()>());
        let others = async {
            for _ in 0..5 {
                steps.during(tokio::time::sleep(pause)).await;
            }
            steps.longest()
        };
        tokio::select! {
            biased;
            () = stuck => unreachable!("it never ends"),
            longest = others => assert!(longest >= 5 * pause, "{longest:?}"),
        }
        assert_eq!(steps.longest(), Duration::ZERO, "a step that was given up");
    }
}
