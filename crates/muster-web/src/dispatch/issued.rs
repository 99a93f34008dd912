//! The requests of this web replica, where another may be on the same reply queue.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use muster_jobs::{RequestId, now_ms};

/// The ids that this replica has issued, for as long as a client waits for its answer at most.
///
/// Only one replica is meant to receive from a queue that is shared. There are two while one takes the
/// other's place, and by mistake: then each gives the other's replies back.
#[derive(Debug)]
pub struct Issued {
    ids: Mutex<BTreeSet<RequestId>>,
    longest_wait: Duration,
}

impl Issued {
    /// No id was issued yet; a client waits for `longest_wait` at most.
    pub fn new(longest_wait: Duration) -> Self {
        Self {
            ids: Mutex::default(),
            longest_wait,
        }
    }

    /// Adds an id.
    pub fn add(&self, id: RequestId) {
        let mut ids = self.ids();
        while ids.first().is_some_and(|first| self.is_over(*first)) {
            ids.pop_first();
        }
        ids.insert(id);
    }

    /// Whether somebody at another replica may wait for the reply to this request.
    pub fn may_be_anothers(&self, id: RequestId) -> bool {
        !self.is_over(id) && !self.ids().contains(&id)
    }

    /// Whether nobody waits for a request any more, whoever submitted it.
    fn is_over(&self, id: RequestId) -> bool {
        let now = Duration::from_millis(now_ms());
        let submitted = id.submitted_at().unwrap_or_default();
        now.saturating_sub(submitted) > self.longest_wait
    }

    fn ids(&self) -> MutexGuard<'_, BTreeSet<RequestId>> {
        self.ids
            .lock()
            .expect("no code panics while it holds these")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_anothers_for_as_long_as_a_client_waits() {
        let (own, other) = (RequestId::new(), RequestId::new());
        let issued = Issued::new(Duration::from_secs(60));
        issued.add(own);
        assert!(issued.may_be_anothers(other) && !issued.may_be_anothers(own));
        let impatient = Issued::new(Duration::from_millis(1));
        impatient.add(own);
        std::thread::sleep(Duration::from_millis(5));
        assert!(!impatient.may_be_anothers(other), "nobody waits any more");
        impatient.add(RequestId::new());
        assert_eq!(impatient.ids().len(), 1, "what is over is forgotten");
    }
}
