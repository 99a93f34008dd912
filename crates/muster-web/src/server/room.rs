//! How many connections there is room for.

use muster_base::descriptors;

/// File descriptors of stores, queues, the gallery and workers: an idle service with one worker has 35.
const OTHERS: u64 = 40;
/// A connection's own, and that of a file which is written or read for it.
const OF_CONNECTION: u64 = 2;
/// However few descriptors there are, somebody has to be answered.
const FEWEST: u64 = 4;

/// As many connections as the settings say, or as the system's limit of file descriptors leaves room for.
pub fn connections(most: usize) -> usize {
    let Some(limit) = descriptors::raise_limit() else {
        return most;
    };
    let room = within(limit);
    if room < most {
        tracing::warn!(
            "there is room for {room} connections rather than {most} (max_connections): the system allows \
             {limit} file descriptors; raise that limit (`ulimit -n`, LimitNOFILE)"
        );
    }
    room.min(most)
}

fn within(limit: u64) -> usize {
    let room = limit.saturating_sub(OTHERS) / OF_CONNECTION;
    usize::try_from(room.max(FEWEST)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_what_answers_them() {
        let room = [10, 64, 1024, 1 << 20].map(within);
        assert_eq!(room, [4, 12, 492, 524_268]);
    }
}
