//! Processor time of this process's asynchronous part: storage, queues, HTTP, messages.
//!
//! Inference runs on threads of its own, so what the threads of the runtime have used is what
//! everything around it costs.

use std::time::Duration;

/// The name of the runtime's threads, and of those that block for it; Linux keeps 15 bytes.
pub const RUNTIME_THREAD: &str = "muster-io";

/// What the runtime's threads have used so far, by the kernel's count in nanoseconds; `None` where
/// the kernel does not tell.
pub fn runtime_time() -> Option<Duration> {
    let mut total = Duration::ZERO;
    for task in std::fs::read_dir("/proc/self/task").ok()?.flatten() {
        // A thread may end while it is looked at.
        let Ok(name) = std::fs::read_to_string(task.path().join("comm")) else {
            continue;
        };
        if name.trim_end() != RUNTIME_THREAD {
            continue;
        }
        let used = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        let nanoseconds = used.split_whitespace().next()?.parse().ok()?;
        total += Duration::from_nanos(nanoseconds);
    }
    Some(total)
}
