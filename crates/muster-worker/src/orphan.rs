//! Whether anybody still controls this instance: one that nobody does would be billed for ever.
//!
//! The controller that acts renews its lease in the state store. A worker that is idle looks at the lease
//! now and then; only what it has read itself counts, by its own clock. A lease that can not be read says
//! nothing, and the time begins anew with the next one that can: where the store was away, the
//! controller could not renew its lease either.

use std::time::Duration;

use bytes::Bytes;
use muster_base::ErrorChain;
use muster_jobs::keys::CONTROLLER_LEASE;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt};
use tokio::time::{Instant, sleep};

/// Looks within the time after which nobody controls the instance.
const LOOKS: u32 = 15;

/// Returns once the worker has been idle, and the lease unchanged, for `timeout`; never if that is zero.
///
/// `work` says how many requests the worker has done so far, or that it has some in hand.
pub async fn orphaned(state: &dyn ObjectStore, timeout: Duration, work: impl Fn() -> Option<u64>) {
    until_unchanged(|| read(state), timeout, work).await;
}

/// The lease as it stands there; `None` where there is none.
async fn read(state: &dyn ObjectStore) -> Result<Option<Bytes>, Error> {
    match state.get(&Path::from(CONTROLLER_LEASE)).await {
        Ok(found) => Ok(Some(found.bytes().await?)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn until_unchanged<F: Future<Output = Result<Option<Bytes>, Error>>>(
    read: impl Fn() -> F,
    timeout: Duration,
    work: impl Fn() -> Option<u64>,
) {
    if timeout.is_zero() {
        std::future::pending::<()>().await;
    }
    let mut unchanged: Option<((Option<Bytes>, u64), Instant)> = None;
    let mut failing = false;
    loop {
        sleep(timeout / LOOKS).await;
        let Some(done) = work() else {
            unchanged = None;
            continue;
        };
        // Before it is asked for: it may be renewed while the answer is on its way.
        let looked = Instant::now();
        let lease = match read().await {
            Ok(lease) => lease,
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(
                        error = %ErrorChain(&error),
                        "the controller's lease can not be read: this instance stays"
                    );
                }
                unchanged = None;
                continue;
            }
        };
        failing = false;
        let seen = (lease, done);
        match &unchanged {
            Some((before, since)) if *before == seen => {
                // What came meanwhile is done first.
                if since.elapsed() >= timeout && work() == Some(done) {
                    return;
                }
            }
            _ => unchanged = Some((seen, looked)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::ready;

    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(150);
    /// Looks in which it is seen that somebody never counts as orphaned: twice the time.
    const MANY: u32 = 2 * LOOKS;

    fn denied() -> Error {
        Error::PermissionDenied {
            path: CONTROLLER_LEASE.to_owned(),
            source: "AccessDenied".into(),
        }
    }

    /// Whether the worker counts as orphaned before it has looked so often. `lease` and `work` are told how
    /// often they were asked before.
    async fn orphaned_by(
        looks: u32,
        lease: impl Fn(u32) -> Result<Option<&'static str>, Error>,
        work: impl Fn(u32) -> Option<u64>,
    ) -> bool {
        let (reads, asked) = (Cell::new(0), Cell::new(0));
        let read = || {
            let found = lease(reads.replace(reads.get() + 1));
            ready(found.map(|found| found.map(|text| Bytes::from_static(text.as_bytes()))))
        };
        let work = || work(asked.replace(asked.get() + 1));
        let enough = async {
            while asked.get() < looks {
                sleep(TIMEOUT / LOOKS).await;
            }
        };
        tokio::select! {
            () = until_unchanged(read, TIMEOUT, work) => true,
            () = enough => false,
        }
    }

    #[tokio::test]
    async fn an_idle_worker_whose_lease_stands_still_is_orphaned_after_the_whole_time() {
        for lease in [Some("a"), None] {
            let begun = Instant::now();
            assert!(orphaned_by(u32::MAX, |_| Ok(lease), |_| Some(7)).await);
            assert!(begun.elapsed() >= TIMEOUT);
        }
    }

    #[tokio::test]
    async fn a_controller_that_comes_back_is_waited_for_anew() {
        let renewed = Cell::new(None);
        let lease = |read| {
            if read < 5 {
                return Ok(Some("a"));
            }
            renewed.set(renewed.get().or(Some(Instant::now())));
            Ok(Some("b"))
        };
        assert!(orphaned_by(u32::MAX, lease, |_| Some(7)).await);
        assert!(renewed.get().unwrap().elapsed() >= TIMEOUT);
    }

    #[tokio::test]
    async fn who_works_or_is_controlled_or_can_not_see_it_stays() {
        let still = |_| Ok(Some("a"));
        let idle = |_| Some(7);
        assert!(!orphaned_by(MANY, still, |_| None).await, "busy");
        assert!(
            !orphaned_by(MANY, still, |asked| Some(asked.into())).await,
            "it works"
        );
        let renewed = |read| Ok(Some(if read % 2 == 0 { "a" } else { "b" }));
        assert!(!orphaned_by(MANY, renewed, idle).await, "it is controlled");
        assert!(!orphaned_by(MANY, |_| Err(denied()), idle).await, "denied");
        // Nor could a controller renew it in between.
        let away = |read| {
            if read % 2 == 0 {
                Ok(Some("a"))
            } else {
                Err(denied())
            }
        };
        assert!(!orphaned_by(MANY, away, idle).await, "the store is away");
    }

    #[tokio::test]
    async fn a_timeout_of_zero_is_never() {
        let never = until_unchanged(|| ready(Ok(None)), Duration::ZERO, || Some(0));
        assert!(tokio::time::timeout(TIMEOUT, never).await.is_err());
    }
}
