//! File descriptors: how many this process may have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of file descriptors as far as it may, and returns it; `None` where there is none.
///
/// What a shell sets is meant for programs that wait for descriptors by `select`, which Muster does not.
pub fn raise_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    // A system may refuse its own maximum; then what there is stays.
    if current != maximum && setrlimit(Resource::Nofile, raised).is_ok() {
        maximum
    } else {
        current
    }
}
