//! How much of a measurement its thread did not run, because something else did.
//!
//! Neither half of a profile waits for anything: what a half took beyond its thread's processor time, the
//! machine gave to others.

use std::time::{Duration, Instant};

use muster_base::cpu;

/// By how much the ratio may be wrong before it is said.
const TOLERANCE: f64 = 0.02;

/// A moment, by the clock and by the calling thread's processor time.
pub struct Moment {
    at: Instant,
    cpu: Option<Duration>,
}

impl Moment {
    /// This moment.
    pub fn now() -> Self {
        Self {
            at: Instant::now(),
            cpu: cpu::of_this_thread(),
        }
    }

    /// What has been spent since; on the same thread.
    pub fn spent(&self) -> Spent {
        // The processor time first: what is read later is not more of it than of the other.
        let cpu = cpu::of_this_thread();
        Spent {
            wall: self.at.elapsed(),
            cpu: self.cpu.and_then(|before| cpu?.checked_sub(before)),
        }
    }
}

/// Time that was spent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spent {
    /// By the clock.
    pub wall: Duration,
    /// Of it, what the thread ran; `None` where the kernel does not tell.
    pub cpu: Option<Duration>,
}

/// How a profile's two halves were disturbed: the pipeline, and the models alone.
#[derive(Clone, Debug, Default)]
pub struct Disturbance {
    pipeline: Half,
    models: Half,
    ratios: Vec<f64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Half {
    wall: Duration,
    cpu: Duration,
}

impl Half {
    fn not_running(&self) -> f64 {
        match self.wall.as_secs_f64() {
            0.0 => 0.0,
            wall => (1.0 - self.cpu.as_secs_f64() / wall).max(0.0),
        }
    }
}

impl Disturbance {
    /// Adds both halves of a photograph, if the kernel told what each ran.
    pub fn add(&mut self, pipeline: Spent, models: Spent) {
        let (Some(pipeline_cpu), Some(models_cpu)) = (pipeline.cpu, models.cpu) else {
            return;
        };
        for (half, wall, cpu) in [
            (&mut self.pipeline, pipeline.wall, pipeline_cpu),
            (&mut self.models, models.wall, models_cpu),
        ] {
            half.wall += wall;
            half.cpu += cpu;
        }
        if !models_cpu.is_zero() {
            let ratio = pipeline_cpu.as_secs_f64() / models_cpu.as_secs_f64();
            self.ratios.push(ratio);
        }
    }

    /// The shares of the pipeline's and of the models' time in which the thread did not run, 0 to 1;
    /// `None` where the kernel did not tell.
    pub fn not_running(&self) -> Option<[f64; 2]> {
        let known = !self.ratios.is_empty();
        known.then(|| [self.pipeline, self.models].map(|half| half.not_running()))
    }

    /// Whether the halves were disturbed so differently that their ratio is wrong by more than 2 %.
    pub fn differs(&self) -> bool {
        self.not_running().is_some_and(|[pipeline, models]| {
            let (ran, models_ran) = (1.0 - pipeline, 1.0 - models);
            (models_ran - ran).abs() > TOLERANCE * ran
        })
    }

    /// The ratio of the halves' processor times, photograph by photograph.
    pub fn cpu_ratios(self) -> Vec<f64> {
        self.ratios
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(wall: u64, cpu: u64) -> Spent {
        Spent {
            wall: Duration::from_micros(wall),
            cpu: Some(Duration::from_micros(cpu)),
        }
    }

    #[test]
    fn halves_that_are_disturbed_alike_have_a_ratio() {
        let of = |pipeline, models| {
            let mut disturbance = Disturbance::default();
            disturbance.add(pipeline, models);
            let shares = disturbance.not_running().unwrap();
            (shares, disturbance.differs(), disturbance.cpu_ratios())
        };
        let (shares, differs, ratios) = of(spent(2000, 1000), spent(1600, 800));
        assert_eq!((shares, differs, ratios), ([0.5, 0.5], false, vec![1.25]));
        // 2 % of the ratio, from both sides.
        assert!(!of(spent(1019, 1000), spent(1000, 1000)).1);
        assert!(of(spent(1021, 1000), spent(1000, 1000)).1);
        assert!(!of(spent(1000, 1000), spent(1020, 1000)).1);
        assert!(of(spent(1000, 1000), spent(1021, 1000)).1);
        // A thread can not run for longer than it took; clocks may say so by a hair.
        assert_eq!(of(spent(1000, 1001), spent(1000, 1000)).0, [0.0, 0.0]);
    }

    #[test]
    fn what_the_kernel_does_not_tell_is_not_known() {
        let mut disturbance = Disturbance::default();
        let untold = Spent {
            cpu: None,
            ..spent(5, 5)
        };
        disturbance.add(spent(100, 1), untold);
        assert_eq!(
            (disturbance.not_running(), disturbance.differs()),
            (None, false)
        );
    }

    #[test]
    fn a_thread_that_waits_does_not_run() {
        let begun = Moment::now();
        // Another thread is awaited, which takes its own processor time.
        let other = std::thread::spawn(|| {
            let begun = Moment::now();
            loop {
                let spent = begun.spent();
                if spent.cpu.unwrap() > Duration::from_millis(20) {
                    return spent;
                }
            }
        });
        let other = other.join().unwrap();
        let own = begun.spent();
        assert!(own.wall >= other.wall, "{own:?} {other:?}");
        assert!(own.cpu.unwrap() < other.cpu.unwrap(), "{own:?} {other:?}");
    }
}
