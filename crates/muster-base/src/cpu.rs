//! Processor time: of everything but the models (storage, queues, HTTP, messages), of a process and of
//! a thread.
//!
//! Readings of a clock of the kernel are cheap enough for every answer. By `nix`: the clocks
//! of `rustix` are a closed set, in which another thread's processor time is missing.

use std::sync::OnceLock;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::gettid;

/// The name of the runtime's threads, and of those that block for it; Linux keeps 15 bytes.
pub const RUNTIME_THREAD: &str = "muster-io";

/// The clock of the thread that runs the models.
static MODELS: OnceLock<ClockId> = OnceLock::new();

/// Says that the calling thread runs the models of this process.
pub fn this_thread_runs_models() {
    MODELS.get_or_init(clock_of_this_thread);
}

/// The processor time of the calling thread, as a clock that others can read.
fn clock_of_this_thread() -> ClockId {
    // As Linux numbers them (include/linux/posix-timers.h): a thread's clock (4), in the scheduler's
    // nanoseconds (2).
    ClockId::from_raw((!gettid().as_raw() << 3) | 4 | 2)
}

/// The processor time that all threads of this process have used so far, in programs and in the kernel;
/// `None` where the kernel does not tell.
pub fn of_process() -> Option<Duration> {
    read(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

/// The processor time that the calling thread has used so far, likewise.
pub fn of_this_thread() -> Option<Duration> {
    read(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

fn read(clock: ClockId) -> Option<Duration> {
    clock_gettime(clock).ok().map(Duration::from)
}

/// What this process has used so far, without the thread that runs the models; `None` where the
/// kernel does not tell.
pub fn beside_models() -> Option<Duration> {
    // The part before the whole, so that the difference is not negative.
    let models = match MODELS.get() {
        Some(clock) => read(*clock)?,
        None => Duration::ZERO,
    };
    of_process()?.checked_sub(models)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_read_by_others() {
        let own = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
        let clock = clock_of_this_thread();
        let before = own();
        let read = clock_gettime(clock).unwrap();
        assert!((before..=own()).contains(&read), "{before} {read}");
        let other = std::thread::spawn(move || clock_gettime(clock).unwrap());
        assert!(other.join().unwrap() >= read);
    }

    #[test]
    fn a_thread_is_a_part_of_its_process() {
        let own = of_this_thread().unwrap();
        let other = std::thread::spawn(move || {
            loop {
                let used = of_this_thread().unwrap();
                if used > own + Duration::from_millis(10) {
                    return used;
                }
            }
        });
        let other = other.join().unwrap();
        assert!(of_process().unwrap() >= own + other);
        assert!(of_this_thread().unwrap() < other);
    }
}
