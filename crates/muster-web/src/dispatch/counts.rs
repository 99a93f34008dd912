//! What a web tier counts: photographs, latencies, and what workers spent beside the models.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use muster_jobs::WorkerCpu;

/// Latencies kept to answer the percentiles from.
const LATENCIES: usize = 1000;
/// How long the clock of a worker's processor time is remembered after its last reply.
const WORKER_MEMORY: Duration = Duration::from_secs(600);

/// Counts and latencies since the web tier started.
#[derive(Debug, Default)]
pub struct Counts {
    /// Photographs submitted.
    pub accepted: AtomicU64,
    /// Photographs answered, refusals of the photograph included.
    pub answered: AtomicU64,
    /// Photographs that timed out, that Muster failed on, or whose client hung up.
    pub failed: AtomicU64,
    /// Each with the time of the answer, oldest first.
    latencies: Mutex<VecDeque<(Instant, Duration)>>,
    workers: Mutex<WorkersCpu>,
}

/// Processor time that workers spent on everything but inference.
#[derive(Debug, Default)]
struct WorkersCpu {
    total_ms: f64,
    last: HashMap<String, WorkerState>,
}

/// One worker, as its last reply left it.
#[derive(Debug)]
struct WorkerState {
    /// The worker's own count.
    io_ms: f64,
    at: Instant,
    /// Its replies so far.
    answered: u64,
}

impl Counts {
    /// Adds what a worker has spent since its last reply.
    pub(super) fn note_cpu(&self, cpu: WorkerCpu) {
        let mut workers = self.workers();
        let now = Instant::now();
        let before = workers.last.remove(&cpu.instance);
        match &before {
            Some(before) => workers.total_ms += (cpu.io_ms - before.io_ms).max(0.0),
            // What it took to start is no request's.
            None => workers
                .last
                .retain(|_, state| now.duration_since(state.at) < WORKER_MEMORY),
        }
        let state = WorkerState {
            // Replies may overtake each other.
            io_ms: before
                .as_ref()
                .map_or(0.0, |before| before.io_ms)
                .max(cpu.io_ms),
            at: now,
            answered: before.map_or(0, |before| before.answered) + 1,
        };
        workers.last.insert(cpu.instance, state);
    }

    fn workers(&self) -> MutexGuard<'_, WorkersCpu> {
        self.workers
            .lock()
            .expect("no code panics while it holds these")
    }

    fn latencies(&self) -> MutexGuard<'_, VecDeque<(Instant, Duration)>> {
        self.latencies
            .lock()
            .expect("no code panics while it holds these")
    }

    /// How many replies came from each worker that was heard from of late.
    pub fn answered_by(&self) -> HashMap<String, u64> {
        let workers = self.workers();
        let counts = workers.last.iter();
        counts
            .map(|(instance, state)| (instance.clone(), state.answered))
            .collect()
    }

    /// Processor time that the workers spent on everything but inference, as far as replies said.
    pub fn workers_io(&self) -> Duration {
        Duration::try_from_secs_f64(self.workers().total_ms / 1e3).unwrap_or_default()
    }

    /// Notes an answer and how long it took.
    pub(super) fn note(&self, latency: Duration) {
        let mut latencies = self.latencies();
        if latencies.len() == LATENCIES {
            latencies.pop_front();
        }
        latencies.push_back((Instant::now(), latency));
    }

    /// The given percentiles (0 to 1) of the last answers; `None` before the first.
    pub fn percentiles<const N: usize>(&self, wanted: [f64; N]) -> Option<[Duration; N]> {
        self.percentiles_within(wanted, Duration::MAX)
    }

    /// The given percentiles of the last answers that are no older than `span`; `None` where there are none.
    pub fn percentiles_within<const N: usize>(
        &self,
        wanted: [f64; N],
        span: Duration,
    ) -> Option<[Duration; N]> {
        let mut sorted: Vec<Duration> = self
            .latencies()
            .iter()
            .rev()
            .take_while(|(at, _)| at.elapsed() <= span)
            .map(|(_, latency)| *latency)
            .collect();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1)?;
        Some(wanted.map(|p| sorted[(p * last as f64).round() as usize]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_that_overtake_each_other_count_once() {
        let counts = Counts::default();
        for io_ms in [10.0, 12.0, 11.0, 15.0] {
            counts.note_cpu(WorkerCpu {
                instance: "worker-1".to_owned(),
                io_ms,
            });
        }
        // The first tells of the start.
        assert_eq!(counts.workers_io(), Duration::from_millis(5));
        assert_eq!(counts.answered_by()["worker-1"], 4);
    }
}
