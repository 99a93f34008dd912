//! What all web replicas together have submitted and had answered.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use muster_fleet::RequestTotals;
use muster_jobs::WebReport;
use tokio::sync::watch;

/// A replica that reports every 10 s and was not heard from for this long waits for nothing.
const SILENT: Duration = Duration::from_secs(60);
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(10);

/// The web tier of this process.
pub struct OwnWeb {
    /// Its id, so that its reports are not counted twice.
    pub replica: String,
    /// What was submitted to it and answered.
    pub totals: watch::Receiver<RequestTotals>,
}

/// The sum of the replicas' totals. It only grows, whichever replicas come and go.
#[derive(Debug)]
pub struct ReplicaTotals {
    own: Option<(String, watch::Receiver<RequestTotals>)>,
    others: Mutex<Others>,
    total: watch::Sender<RequestTotals>,
    /// Since when every report that was sent could be received and read.
    listening_since: Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Others {
    replicas: HashMap<String, Replica>,
    /// What replicas that are gone have submitted and answered, all of it settled.
    gone: RequestTotals,
    /// When replicas said their last, of which earlier reports may still come.
    stopped: HashMap<String, Instant>,
}

#[derive(Debug)]
struct Replica {
    heard: Instant,
    /// What it had done before it was first heard from: that is no news.
    before: RequestTotals,
    now: RequestTotals,
}

impl Replica {
    /// What it did since it was first heard from.
    fn done(&self) -> RequestTotals {
        RequestTotals {
            submitted: self.now.submitted.saturating_sub(self.before.submitted),
            answered: self.now.answered.saturating_sub(self.before.answered),
            timed: self.now.timed.saturating_sub(self.before.timed),
            worked: self.now.worked.saturating_sub(self.before.worked),
            oldest: self.now.oldest,
        }
    }
}

fn add(total: &mut RequestTotals, more: &RequestTotals) {
    total.submitted += more.submitted;
    total.answered += more.answered;
    total.timed += more.timed;
    total.worked += more.worked;
    total.oldest = total.oldest.into_iter().chain(more.oldest).min();
}

impl Others {
    /// Takes a replica out; nobody waits for what it had not answered.
    fn remove(&mut self, id: &str) {
        if let Some(replica) = self.replicas.remove(id) {
            let mut done = replica.done();
            done.answered = done.submitted;
            done.oldest = None;
            add(&mut self.gone, &done);
        }
    }
}

impl ReplicaTotals {
    /// Of this process's web tier, if there is one, and of whichever others report.
    pub fn new(own: Option<&OwnWeb>) -> Self {
        let totals = Self {
            own: own.map(|own| (own.replica.clone(), own.totals.clone())),
            others: Mutex::default(),
            total: watch::Sender::default(),
            listening_since: Mutex::default(),
        };
        totals.sum();
        totals
    }

    /// The sum, as it changes.
    pub fn total(&self) -> watch::Receiver<RequestTotals> {
        self.total.subscribe()
    }

    /// Whether a replica is there, as far as is known.
    pub fn knows(&self, replica: &str) -> bool {
        self.own.as_ref().is_some_and(|(id, _)| id == replica)
            || self.others().replicas.contains_key(replica)
    }

    /// Notes whether reports can be received and read.
    pub fn listening(&self, listening: bool) {
        let mut since = self
            .listening_since
            .lock()
            .expect("no code panics while it holds this");
        *since = match (listening, *since) {
            (true, None) => Some(Instant::now()),
            (true, since) => since,
            (false, _) => None,
        };
    }

    /// How long reports have been received and read without interruption.
    pub fn listened_for(&self) -> Duration {
        let since = self
            .listening_since
            .lock()
            .expect("no code panics while it holds this");
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Takes in a report. One that counts less than was known is late, and dropped.
    pub fn report(&self, report: &WebReport) {
        if self
            .own
            .as_ref()
            .is_some_and(|(id, _)| *id == report.replica)
        {
            return;
        }
        let now = RequestTotals {
            submitted: report.submitted,
            answered: report.answered,
            timed: report.timed,
            worked: Duration::try_from_secs_f64(report.worked_ms / 1e3).unwrap_or_default(),
            oldest: report.oldest_at_ms.map(Duration::from_millis),
        };
        {
            let mut others = self.others();
            let now_is = Instant::now();
            others
                .stopped
                .retain(|_, at| now_is.duration_since(*at) < SILENT);
            if others.stopped.contains_key(&report.replica) {
                return;
            }
            let replica = others
                .replicas
                .entry(report.replica.clone())
                .or_insert_with(|| Replica {
                    heard: Instant::now(),
                    // What waits now is news.
                    before: RequestTotals {
                        submitted: now.answered,
                        ..now
                    },
                    now,
                });
            if now.submitted < replica.now.submitted || now.answered < replica.now.answered {
                return;
            }
            replica.heard = Instant::now();
            replica.now = now;
            if report.stopped {
                others.stopped.insert(report.replica.clone(), now_is);
                others.remove(&report.replica);
            }
        }
        self.sum();
    }

    /// Follows this process's own web tier, and gives up on replicas that fell silent.
    pub async fn follow(&self) {
        let mut own = self.own.as_ref().map(|(_, totals)| totals.clone());
        let mut look = tokio::time::interval(LOOK);
        loop {
            let changed = async {
                match &mut own {
                    Some(own) => own.changed().await.is_ok(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                there = changed => if !there {
                    own = None;
                },
                // Who could not be heard has not fallen silent.
                _ = look.tick() => if self.listened_for() > SILENT {
                    self.forget_silent(Instant::now());
                },
            }
            self.sum();
        }
    }

    fn forget_silent(&self, now: Instant) {
        let mut others = self.others();
        let silent: Vec<_> = others
            .replicas
            .iter()
            .filter(|(_, replica)| now.duration_since(replica.heard) > SILENT)
            .map(|(id, _)| id.clone())
            .collect();
        for id in silent {
            tracing::warn!(
                replica = id,
                "a web replica fell silent; nothing is awaited from it"
            );
            others.remove(&id);
        }
    }

    fn sum(&self) {
        let others = self.others();
        let mut total = others.gone;
        for replica in others.replicas.values() {
            add(&mut total, &replica.done());
        }
        if let Some((_, own)) = &self.own {
            add(&mut total, &own.borrow());
        }
        self.total.send_if_modified(|last| {
            let changed = *last != total;
            *last = total;
            changed
        });
    }

    fn others(&self) -> MutexGuard<'_, Others> {
        self.others
            .lock()
            .expect("no code panics while it holds the totals")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(replica: &str, submitted: u64, answered: u64) -> WebReport {
        WebReport {
            replica: replica.to_owned(),
            submitted,
            answered,
            timed: answered,
            worked_ms: answered as f64 * 10.0,
            oldest_at_ms: (submitted > answered).then_some(1000 * submitted),
            stopped: false,
        }
    }

    fn waiting(totals: &ReplicaTotals) -> (u64, u64) {
        let total = *totals.total().borrow();
        (total.submitted, total.submitted - total.answered)
    }

    #[test]
    fn replicas_add_up_and_late_reports_are_dropped() {
        let (sender, reported) = watch::channel(RequestTotals::default());
        let own = OwnWeb {
            replica: "own".to_owned(),
            totals: reported,
        };
        let totals = ReplicaTotals::new(Some(&own));
        // Only what still waits is news of a replica that has long been there.
        totals.report(&report("a", 1000, 990));
        assert_eq!(waiting(&totals), (10, 10));
        totals.report(&report("a", 1005, 1000));
        assert_eq!(waiting(&totals), (15, 5));
        totals.report(&report("a", 1001, 990));
        assert_eq!(waiting(&totals), (15, 5));
        totals.report(&report("b", 3, 0));
        assert_eq!(waiting(&totals), (18, 8));
        // This process's own is read, not reported.
        totals.report(&report("own", 500, 0));
        sender.send_modify(|totals| totals.submitted = 2);
        totals.sum();
        assert_eq!(waiting(&totals), (20, 10));
    }

    #[test]
    fn the_oldest_of_all_replicas_is_known_for_as_long_as_its_replica_waits() {
        let totals = ReplicaTotals::new(None);
        let oldest = || totals.total().borrow().oldest;
        totals.report(&report("a", 7, 6));
        totals.report(&report("b", 5, 1));
        assert_eq!(oldest(), Some(Duration::from_secs(5)));
        totals.report(&report("b", 5, 5));
        assert_eq!(oldest(), Some(Duration::from_secs(7)));
        totals.forget_silent(Instant::now() + SILENT + LOOK);
        totals.sum();
        assert_eq!(oldest(), None);
    }

    #[test]
    fn nobody_waits_for_what_a_replica_that_is_gone_had_not_answered() {
        let totals = ReplicaTotals::new(None);
        totals.report(&report("a", 7, 0));
        totals.report(&report("b", 5, 1));
        let mut last = report("b", 5, 4);
        last.stopped = true;
        totals.report(&last);
        assert_eq!(waiting(&totals), (11, 7));
        assert!(totals.knows("a") && !totals.knows("b"));
        totals.forget_silent(Instant::now() + SILENT + LOOK);
        totals.sum();
        assert_eq!(waiting(&totals), (11, 0));
        totals.report(&report("b", 9, 4));
        assert_eq!(
            waiting(&totals),
            (11, 0),
            "a late report of one that has stopped"
        );
        // Heard from again, it begins anew, and the sum goes on growing.
        totals.report(&report("a", 8, 7));
        assert_eq!(waiting(&totals), (12, 1));
    }
}
