//! The quota on photographs that are stored on this machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use object_store::ObjectStore;
use tokio_util::sync::CancellationToken;

use crate::api::problem::ApiError;

/// How often what is stored is measured at most, and how much of the time that may take: each file is
/// looked at.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(60);
const SHARE_OF_TIME: u32 = 50;

/// What photographs may take of the disk together. What is deleted is noticed when it is measured
/// again, and what other replicas store there too.
#[derive(Debug)]
pub struct Quota {
    /// No bound where photographs are in a bucket.
    limit: Option<u64>,
    /// Bytes that were there when they were last measured.
    measured: AtomicU64,
    /// Bytes that this replica has stored since it began, and those that were measured among them.
    stored: AtomicU64,
    stored_before: AtomicU64,
}

impl Quota {
    /// A quota of so many bytes.
    pub fn new(limit: Option<u64>) -> Self {
        Self {
            limit,
            measured: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            stored_before: AtomicU64::new(0),
        }
    }

    /// Takes a photograph's bytes of the quota.
    ///
    /// # Errors
    /// 429 where it is used up.
    pub fn take(&self, bytes: usize) -> Result<(), ApiError> {
        let Some(limit) = self.limit else {
            return Ok(());
        };
        let since =
            self.stored.load(Ordering::Relaxed) - self.stored_before.load(Ordering::Relaxed);
        let used = self.measured.load(Ordering::Relaxed) + since;
        if used + bytes as u64 > limit {
            return Err(ApiError::overloaded(
                format!(
                    "{used} bytes of photographs are stored, and {limit} may be: send it again once \
                     older ones are deleted"
                ),
                SHORTEST_INTERVAL,
            ));
        }
        self.stored.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Measures what is stored, again and again until `stop`.
    pub async fn follow(self: Arc<Self>, input: Arc<dyn ObjectStore>, stop: CancellationToken) {
        if self.limit.is_none() {
            return;
        }
        loop {
            let begun = Instant::now();
            if let Err(error) = self.measure(&*input).await {
                tracing::warn!(
                    error = %muster_base::ErrorChain(&error),
                    "the stored photographs could not be measured"
                );
            }
            let pause = SHORTEST_INTERVAL.max(begun.elapsed() * SHARE_OF_TIME);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn measure(&self, input: &dyn ObjectStore) -> Result<(), object_store::Error> {
        // What is stored meanwhile may count twice, until the next time.
        let before = self.stored.load(Ordering::Relaxed);
        let sizes = input.list(None).map_ok(|meta| meta.size);
        let sum = sizes.try_fold(0, async |sum, size| Ok(sum + size)).await?;
        self.measured.store(sum, Ordering::Relaxed);
        self.stored_before.store(before, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use muster_api::problem::Code;
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use object_store::{ObjectStoreExt, PutPayload};

    use super::*;

    #[tokio::test]
    async fn what_is_stored_counts_at_once_and_what_is_deleted_when_it_is_measured() {
        let input = InMemory::new();
        let quota = Quota::new(Some(100));
        let key = |n: u32| Path::from(format!("{n}/a.jpg"));
        input
            .put(&key(1), PutPayload::from(vec![0; 60]))
            .await
            .unwrap();
        quota.measure(&input).await.unwrap();
        quota.take(40).unwrap();
        let refused = quota.take(1).unwrap_err();
        assert_eq!(refused.code(), Code::Overloaded);
        input
            .put(&key(2), PutPayload::from(vec![0; 40]))
            .await
            .unwrap();
        quota.measure(&input).await.unwrap();
        assert!(quota.take(1).is_err());
        input.delete(&key(1)).await.unwrap();
        quota.measure(&input).await.unwrap();
        quota.take(60).unwrap();
        assert!(quota.take(1).is_err());
        Quota::new(None).take(usize::MAX).unwrap();
    }
}
