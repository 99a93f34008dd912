//! Requests that nobody waits for: jobs, and those that a client gave up.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use muster_jobs::RequestId;

/// How long a queued request that nobody waits for counts as backlog here: a worker is launched for
/// it all the same, since its client was promised a result. One that waits for longer is seen by the
/// queue's own counts.
const UNAWAITED: Duration = Duration::from_secs(600);

/// Since when nobody waits for a request.
#[derive(Clone, Copy, Debug)]
pub enum Since {
    /// It was submitted as a job.
    Submitted(Instant),
    /// Its client waits no longer.
    Abandoned(Instant),
}

impl Since {
    fn elapsed(self) -> Duration {
        let (Self::Submitted(at) | Self::Abandoned(at)) = self;
        at.elapsed()
    }
}

/// The requests that nobody waits for here, each with since when.
#[derive(Debug, Default)]
pub struct Unawaited(Mutex<BTreeMap<RequestId, Since>>);

impl Unawaited {
    /// Adds a job.
    pub fn submit(&self, id: RequestId) {
        self.requests().insert(id, Since::Submitted(Instant::now()));
    }

    /// Adds a request whose client waits no longer; `false` where there are `most` such already.
    pub fn abandon(&self, id: RequestId, most: usize) -> bool {
        let mut requests = self.requests();
        let given_up = |since: &&Since| matches!(since, Since::Abandoned(_));
        let room = requests.values().filter(given_up).count() < most;
        if room {
            requests.insert(id, Since::Abandoned(Instant::now()));
        }
        room
    }

    /// Removes a request, and says since when nobody waited for it.
    pub fn remove(&self, id: RequestId) -> Option<Since> {
        self.requests().remove(&id)
    }

    /// Removes those that have had no answer for too long, and says how many.
    pub fn expire(&self) -> u64 {
        let mut requests = self.requests();
        let before = requests.len();
        requests.retain(|_, since| since.elapsed() < UNAWAITED);
        (before - requests.len()) as u64
    }

    /// The oldest request.
    pub fn oldest(&self) -> Option<RequestId> {
        let requests = self.requests();
        requests.first_key_value().map(|(id, _)| *id)
    }

    /// How many are jobs.
    pub fn jobs(&self) -> usize {
        let submitted = |since: &&Since| matches!(since, Since::Submitted(_));
        self.requests().values().filter(submitted).count()
    }

    fn requests(&self) -> MutexGuard<'_, BTreeMap<RequestId, Since>> {
        self.0.lock().expect("no code panics while it holds these")
    }
}
