//! Where the audit log is kept: `audit/<day>/<UUIDv7>.jsonl`, an entry a line.
//!
//! Days that are over may be joined into one object. Until the objects that it was made of are
//! deleted an entry stands there twice, and is read once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use muster_jobs::keys::{self, AUDIT_PREFIX};
use muster_jobs::now_ms;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use uuid::Uuid;

use super::entry::Entry;

/// Objects read at one time.
const READS: usize = 16;
/// A part that grows is full from this size on: it is written again with each addition.
const MAX_PART_BYTES: usize = 128 << 10;
/// A part that grows is left from this age on.
const MAX_PART_AGE: Duration = Duration::from_secs(600);
/// How long after its end a day is joined: clocks differ, and an old part may still grow.
const JOIN_DELAY: Duration = Duration::from_secs(3600);

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
        let key = Path::from(keys::audit_entries(&today(), Uuid::now_v7()));
        let lines = lines(entries)?;
        let put = self
            .state
            .put_opts(&key, PutPayload::from(lines), PutMode::Create.into());
        put.await.context("write the audit log")?;
        Ok(())
    }

    /// Writes an object of one entry, or what has become of it since, under the id that names it; with
    /// `None` nothing has.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn write(&self, id: Uuid, entry: Option<&Entry>) -> anyhow::Result<()> {
        let begun = id.get_timestamp().map_or(0, |at| at.to_unix().0);
        let key = Path::from(keys::audit_entries(&day(begun * 1000).to_string(), id));
        let lines = lines(entry.map(std::slice::from_ref).unwrap_or_default())?;
        let put = self.state.put(&key, PutPayload::from(lines));
        put.await.context("write the audit log")?;
        Ok(())
    }

    /// Adds entries to those of `part`, or to a new one where that is full: all of them, or none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn extend(&self, part: &mut Part, entries: &[Entry]) -> anyhow::Result<()> {
        let day = today();
        if part.lines.len() >= MAX_PART_BYTES
            || part.begun.elapsed() >= MAX_PART_AGE
            || part.day != day
        {
            *part = Part::new();
        }
        let mut grown = part.lines.clone();
        grown.extend(lines(entries)?);
        let key = Path::from(keys::audit_entries(&part.day, part.id));
        let put = self.state.put(&key, PutPayload::from(grown.clone()));
        put.await.context("write the audit log")?;
        part.lines = grown;
        Ok(())
    }

    /// Joins the objects of each day before today into one a day.
    ///
    /// # Errors
    /// When the store fails, or an object is no part of a log.
    pub async fn join_past_days(&self) -> anyhow::Result<()> {
        let below = Path::from(AUDIT_PREFIX);
        let listed = self.state.list_with_delimiter(Some(&below)).await;
        // Another replica may still write into the day that has just ended.
        let current = day(now_ms().saturating_sub(JOIN_DELAY.as_millis() as u64));
        for folder in listed.context("list the audit log")?.common_prefixes {
            let named = keys::day_of_audit_entries(folder.as_ref());
            match named.and_then(|named| named.parse::<Date>().ok()) {
                Some(past) if past < current => self.join_day(past).await?,
                _ => {}
            }
        }
        Ok(())
    }

    async fn join_day(&self, day: Date) -> anyhow::Result<()> {
        let below = Path::from(keys::audit_day(&day.to_string()));
        let listed = self.state.list(Some(&below)).map_ok(|meta| meta.location);
        let parts: Vec<Path> = listed.try_collect().await.context("list the audit log")?;
        if parts.len() < 2 {
            return Ok(());
        }
        let entries = self.objects(parts.clone()).await?;
        let key = Path::from(keys::audit_entries(&day.to_string(), Uuid::now_v7()));
        let put = self.state.put(&key, PutPayload::from(lines(&entries)?));
        put.await.context("join a day of the audit log")?;
        for part in parts {
            match self.state.delete(&part).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error).context("delete what was joined of the audit log"),
            }
        }
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
        let wanted: Vec<Path> = wanted.try_collect().await.context("list the audit log")?;
        let mut entries = self.objects(wanted).await?;
        entries.retain(|entry| (since..=until).contains(&entry.at_ms));
        Ok(entries)
    }

    /// The entries of these objects, each once, oldest first.
    async fn objects(&self, locations: Vec<Path>) -> anyhow::Result<Vec<Entry>> {
        let mut entries: Vec<Entry> = stream::iter(locations)
            .map(|location| async move { self.object(&location).await })
            .buffer_unordered(READS)
            .try_concat()
            .await?;
        let mut seen = HashSet::new();
        entries.retain(|entry| seen.insert(entry.clone()));
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

/// Some entries that are written together and still become more.
#[derive(Debug)]
pub struct Part {
    day: String,
    id: Uuid,
    begun: Instant,
    /// What is written.
    lines: Vec<u8>,
}

impl Part {
    /// A part of today's without an entry, which is not written yet.
    #[expect(
        clippy::new_without_default,
        reason = "a default that differs each time misleads"
    )]
    pub fn new() -> Self {
        Self {
            day: today(),
            id: Uuid::now_v7(),
            begun: Instant::now(),
            lines: Vec::new(),
        }
    }
}

fn lines(entries: &[Entry]) -> anyhow::Result<Vec<u8>> {
    let mut lines = Vec::new();
    for entry in entries {
        serde_json::to_writer(&mut lines, entry).context("write an audit entry")?;
        lines.push(b'\n');
    }
    Ok(lines)
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

    async fn objects(store: &InMemory) -> Vec<Path> {
        let listed = store.list(None).map_ok(|meta| meta.location);
        let mut all: Vec<Path> = listed.try_collect().await.unwrap();
        all.sort();
        all
    }

    #[tokio::test]
    async fn looks_grow_into_few_objects() {
        let store = Arc::new(InMemory::new());
        let log = AuditLog::new(store.clone());
        let mut part = Part::new();
        let entries: Vec<Entry> = (0..2_000).map(|n| entry(now_ms() + n)).collect();
        for some in entries.chunks(10) {
            log.extend(&mut part, some).await.unwrap();
        }
        assert_eq!(log.read(0, u64::MAX).await.unwrap(), entries);
        let count = objects(&store).await.len();
        assert!((2..5).contains(&count), "{count}");
        part.begun = Instant::now().checked_sub(MAX_PART_AGE).unwrap();
        log.extend(&mut part, &entries[..1]).await.unwrap();
        assert_eq!(objects(&store).await.len(), count + 1);
    }

    #[tokio::test]
    async fn a_day_that_is_over_becomes_one_object_wherever_it_is_cut_off() {
        let store = Arc::new(InMemory::new());
        let log = AuditLog::new(store.clone());
        let old = 1_000_000_000_000;
        let entries: Vec<Entry> = (0..20).map(|n| entry(old + n)).collect();
        let put = async |some: &[Entry]| {
            let key = keys::audit_entries(&day(old).to_string(), Uuid::now_v7());
            let lines = PutPayload::from(lines(some).unwrap());
            store.put(&Path::from(key), lines).await.unwrap();
        };
        for some in entries[..15].chunks(2) {
            put(some).await;
        }
        let today = entry(now_ms());
        log.append(std::slice::from_ref(&today)).await.unwrap();
        let parts = objects(&store).await;
        let everything = || async { log.read(0, u64::MAX).await.unwrap() };
        let expected = [&entries[..15], std::slice::from_ref(&today)].concat();
        log.join_past_days().await.unwrap();
        assert_eq!(
            (objects(&store).await.len(), everything().await),
            (2, expected.clone())
        );
        // A join that was cut off before it had deleted what it joined.
        for part in parts.iter().skip(1).step_by(3) {
            let twice = lines(&entries[..2]).unwrap();
            store.put(part, PutPayload::from(twice)).await.unwrap();
        }
        assert_eq!(everything().await, expected);
        log.join_past_days().await.unwrap();
        assert_eq!(
            (objects(&store).await.len(), everything().await),
            (2, expected)
        );
        // What comes late is joined with the rest, whatever the clock of its writer says.
        put(&entries[15..]).await;
        log.join_past_days().await.unwrap();
        let expected = [&entries[..], std::slice::from_ref(&today)].concat();
        assert_eq!(
            (objects(&store).await.len(), everything().await),
            (2, expected)
        );
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
