//! Where the audit log is kept: `audit/<day>/<UUIDv7>.jsonl`, an entry a line.

use std::sync::Arc;

use anyhow::Context;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use muster_jobs::keys::{self, AUDIT_PREFIX};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use uuid::Uuid;

use super::entry::Entry;

/// Objects read at one time.
const READS: usize = 16;

/// The log of an installation. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AuditLog {
    state: Arc<dyn ObjectStore>,
}

impl AuditLog {
    /// The log in that state store.
    pub fn new(state: Arc<dyn ObjectStore>) -> Self {
        Self { state }
    }

    /// Writes entries as one new object: all of them, or none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn append(&self, entries: &[Entry]) -> anyhow::Result<()> {
        let mut lines = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut lines, entry).context("write an audit entry")?;
            lines.push(b'\n');
        }
        let key = Path::from(keys::audit_entries(&today(), Uuid::now_v7()));
        let put = self
            .state
            .put_opts(&key, PutPayload::from(lines), PutMode::Create.into());
        put.await.context("write the audit log")?;
        Ok(())
    }

    /// Everything from `since` to `until`, both in milliseconds since the Unix epoch, oldest first.
    ///
    /// # Errors
    /// When the store fails, or an object is no part of a log.
    pub async fn read(&self, since: u64, until: u64) -> anyhow::Result<Vec<Entry>> {
        // An object holds what was done before it was written, maybe on the day before.
        let (first, last) = (day(since), day(until).tomorrow().unwrap_or(Date::MAX));
        let below = Path::from(AUDIT_PREFIX);
        let offset = Path::from(keys::audit_day(&first.to_string()));
        let listed = self.state.list_with_offset(Some(&below), &offset);
        let wanted = listed.try_filter_map(async |meta| {
            let of_day = keys::day_of_audit_entries(meta.location.as_ref());
            let of_day = of_day.and_then(|day| day.parse::<Date>().ok());
            Ok(of_day.filter(|day| *day <= last).map(|_| meta.location))
        });
        let mut entries: Vec<Entry> = wanted
            .map(|location| async {
                let location = location.context("list the audit log")?;
                self.object(&location).await
            })
            .buffer_unordered(READS)
            .try_concat()
            .await?;
        entries.retain(|entry| (since..=until).contains(&entry.at_ms));
        entries.sort_by_key(|entry| entry.at_ms);
        Ok(entries)
    }

    async fn object(&self, location: &Path) -> anyhow::Result<Vec<Entry>> {
        let found = self.state.get(location).await;
        let bytes = match found {
            Ok(found) => found.bytes().await,
            Err(error) => Err(error),
        };
        let bytes = bytes.context("read the audit log")?;
        let lines = bytes.split(|byte| *byte == b'\n');
        lines
            .filter(|line| !line.is_empty())
            .map(|line| {
                serde_json::from_slice(line).with_context(|| {
                    format!("{location} in the state store is no part of an audit log")
                })
            })
            .collect()
    }
}

fn today() -> String {
    Timestamp::now().to_zoned(TimeZone::UTC).date().to_string()
}

/// The day of a moment, in UTC.
fn day(ms: u64) -> Date {
    let moment = i64::try_from(ms).ok().map(Timestamp::from_millisecond);
    match moment {
        Some(Ok(moment)) => moment.to_zoned(TimeZone::UTC).date(),
        _ => Date::MAX,
    }
}

#[cfg(test)]
mod tests {
    use muster_gallery::PersonId;
    use object_store::memory::InMemory;

    use super::*;
    use crate::audit::{Action, Who};

    fn entry(at_ms: u64) -> Entry {
        Entry {
            at_ms,
            people: vec![PersonId::new()],
            ..Entry::now(Who::Anybody, Action::LookedAt)
        }
    }

    #[tokio::test]
    async fn what_was_appended_is_read_in_order_and_within_the_time_asked_for() {
        let log = AuditLog::new(Arc::new(InMemory::new()));
        let now = muster_jobs::now_ms();
        let entries: Vec<Entry> = (0..50).map(|n| entry(now - n * 10)).collect();
        for some in entries.chunks(7) {
            log.append(some).await.unwrap();
        }
        let mut all = entries.clone();
        all.reverse();
        assert_eq!(log.read(0, u64::MAX).await.unwrap(), all);
        let some = log.read(now - 200, now - 100).await.unwrap();
        assert_eq!(some, all[29..40]);
        assert!(log.read(now + 1, u64::MAX).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn days_that_were_not_asked_for_are_not_read() {
        let store = Arc::new(InMemory::new());
        let log = AuditLog::new(store.clone());
        for name in ["2001-02-03/a.jsonl", "2999-01-01/a.jsonl"] {
            let key = Path::from(format!("{AUDIT_PREFIX}/{name}"));
            store.put(&key, "no entry".into()).await.unwrap();
        }
        log.append(&[entry(muster_jobs::now_ms())]).await.unwrap();
        let (since, until) = (muster_jobs::now_ms() - 60_000, muster_jobs::now_ms());
        assert_eq!(log.read(since, until).await.unwrap().len(), 1);
        let error = log.read(0, until).await.unwrap_err().to_string();
        assert!(error.contains("2001-02-03/a.jsonl"), "{error}");
    }
}
