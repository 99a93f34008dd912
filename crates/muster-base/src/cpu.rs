//! Processor time of everything but the models: storage, queues, HTTP, messages.
//!
//! Two readings of a clock of the kernel, which are cheap enough for every answer. By `nix`: the clocks
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

/// What this process has used so far, without the thread that runs the models; `None` where the
/// kernel does not tell.
pub fn beside_models() -> Option<Duration> {
    let read = |clock| clock_gettime(clock).ok().map(Duration::from);
    // The part before the whole, so that the difference is not negative.
    let models = match MODELS.get() {
        Some(clock) => read(*clock)?,
        None => Duration::ZERO,
    };
    read(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.checked_sub(models)
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
}
