//! The launches that are under way, written down before EC2 is asked.
//!
//! Invariant: no RunInstances is sent before its client token and its slots stand in the record,
//! and no holder of the lease can write the record once a later one has opened it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use object_store::path::Path;
use object_store::{
    Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutPayload, UpdateVersion,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::options::Ec2FleetOptions;
use super::pools::Pool;
use crate::fleet::{FleetError, SourceError};
use crate::lease::in_time;

/// How long one call to the store may take.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Writes tried in a row: a lost answer costs one or two, and nobody else writes under the same
/// fence.
const WRITES: u32 = 4;

/// A launch that was or is about to be asked for.
///
/// It holds everything that the call was made of, so that it can be made again: EC2 answers the
/// same token and parameters with the same instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Launch {
    /// The client token, and the instances' tag `muster:launch`.
    pub token: String,
    /// One for each instance, by its AMI launch index.
    pub slots: Vec<u32>,
    /// By this machine's clock, in milliseconds since the Unix epoch.
    pub begun_at_ms: u64,
    pub template: String,
    pub template_version: String,
    pub pool: Pool,
    /// Whether this process knows the launch's instances.
    #[serde(skip)]
    pub resolved: bool,
}

impl Launch {
    /// A launch of `slots` from `pool` that is about to be asked for, under a token of its own.
    pub fn new(options: &Ec2FleetOptions, slots: Vec<u32>, pool: Pool) -> Self {
        Self {
            token: Uuid::now_v7().to_string(),
            slots,
            begun_at_ms: now_ms(),
            template: options.launch_template.clone(),
            template_version: options.launch_template_version.clone(),
            pool,
            resolved: false,
        }
    }
}

/// This machine's clock, in milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Writes that failed, in a row.
struct Tries {
    begun: Instant,
    left: u32,
}

impl Default for Tries {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            left: WRITES,
        }
    }
}

impl Tries {
    /// Call it for each that failed.
    fn is_last(&mut self) -> bool {
        self.left -= 1;
        self.left == 0 || self.begun.elapsed() >= ATTEMPT
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// The fencing number of the lease that it was last written under.
    fence: u64,
    launches: Vec<Launch>,
}

/// The record as the holder of the lease keeps it.
#[derive(Debug)]
pub(super) struct Record {
    store: Arc<dyn ObjectStore>,
    path: Path,
    fence: u64,
    /// `None` when the object has to be read before it can be written.
    version: Option<UpdateVersion>,
    launches: Vec<Launch>,
}

impl Record {
    /// Reads what the controllers before have left, and shuts them out.
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        path: Path,
        fence: u64,
    ) -> Result<Self, FleetError> {
        let mut record = Self {
            store,
            path,
            fence,
            version: None,
            launches: Vec::new(),
        };
        let mut tries = Tries::default();
        loop {
            // Read anew each time: until this is written, the one before may still begin launches.
            let left = record.read().await?;
            record.version = left.as_ref().map(|(_, version)| version.clone());
            let launches = left.map_or_else(Vec::new, |(stored, _)| stored.launches);
            match record.put(&launches).await {
                Ok(()) => return Ok(record),
                Err(error) if tries.is_last() => return Err(record.failed(error)),
                Err(_) => {}
            }
        }
    }

    pub fn launches(&self) -> &[Launch] {
        &self.launches
    }

    /// Writes the launch down; returns once that is sure to have happened.
    pub async fn begin(&mut self, launch: Launch) -> Result<(), FleetError> {
        let mut launches = self.launches.clone();
        launches.push(launch);
        self.write(launches).await
    }

    /// The launch's instances are known to this process.
    pub fn resolve(&mut self, token: &str) {
        let found = self.launches.iter_mut().find(|l| l.token == token);
        if let Some(launch) = found {
            launch.resolved = true;
        }
    }

    /// Forgets launches that are over.
    pub async fn forget(&mut self, over: impl Fn(&Launch) -> bool) -> Result<(), FleetError> {
        let left: Vec<_> = self.launches.iter().filter(|l| !over(l)).cloned().collect();
        if left.len() == self.launches.len() {
            return Ok(());
        }
        self.write(left).await
    }

    /// Nobody else writes under this fence, so what is here is the truth, whatever became of a
    /// write whose answer was lost.
    async fn write(&mut self, launches: Vec<Launch>) -> Result<(), FleetError> {
        let mut tries = Tries::default();
        loop {
            if self.version.is_none() {
                self.version = self.read().await?.map(|(_, version)| version);
            }
            match self.put(&launches).await {
                Ok(()) => return Ok(()),
                Err(error) if tries.is_last() => return Err(self.failed(error)),
                Err(_) => {}
            }
        }
    }

    async fn put(&mut self, launches: &[Launch]) -> Result<(), StoreError> {
        let stored = Stored {
            fence: self.fence,
            launches: launches.to_vec(),
        };
        let body = PutPayload::from(serde_json::to_vec(&stored).expect("only string keys"));
        let mode = match self.version.take() {
            Some(version) => PutMode::Update(version),
            None => PutMode::Create,
        };
        let put = self.store.put_opts(&self.path, body, mode.into());
        self.version = Some(in_time(ATTEMPT, put).await?.into());
        self.launches = stored.launches;
        Ok(())
    }

    async fn read(&self) -> Result<Option<(Stored, UpdateVersion)>, FleetError> {
        let read = async {
            let found = self.store.get(&self.path).await?;
            let version = UpdateVersion {
                e_tag: found.meta.e_tag.clone(),
                version: found.meta.version.clone(),
            };
            Ok((found.bytes().await?, version))
        };
        let (bytes, version) = match in_time(ATTEMPT, read).await {
            Ok(found) => found,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(source) => return Err(self.failed(source)),
        };
        let stored: Stored = serde_json::from_slice(&bytes).map_err(|error| self.failed(error))?;
        if stored.fence > self.fence {
            return Err(FleetError::LeaseLost);
        }
        Ok(Some((stored, version)))
    }

    fn failed(&self, source: impl Into<SourceError>) -> FleetError {
        FleetError::Record {
            path: self.path.to_string(),
            source: source.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    fn launch(token: &str) -> Launch {
        Launch {
            token: token.to_owned(),
            slots: vec![1, 2],
            begun_at_ms: 1,
            template: "worker".to_owned(),
            template_version: "$Default".to_owned(),
            pool: Pool::default(),
            resolved: false,
        }
    }

    async fn open(store: &Arc<InMemory>, fence: u64) -> Result<Record, FleetError> {
        let store: Arc<dyn ObjectStore> = Arc::clone(store) as _;
        Record::open(store, Path::from("launches.json"), fence).await
    }

    #[tokio::test]
    async fn a_successor_finds_the_launch_and_shuts_the_predecessor_out() {
        let store = Arc::new(InMemory::new());
        let mut first = open(&store, 1).await.unwrap();
        first.begin(launch("a")).await.unwrap();
        let second = open(&store, 2).await.unwrap();
        assert_eq!(second.launches(), [launch("a")]);
        let refused = first.begin(launch("b")).await;
        assert!(matches!(refused, Err(FleetError::LeaseLost)), "{refused:?}");
        assert_eq!(open(&store, 2).await.unwrap().launches(), [launch("a")]);
        assert!(matches!(open(&store, 1).await, Err(FleetError::LeaseLost)));
    }

    #[tokio::test]
    async fn a_write_whose_answer_was_lost_does_not_stop_the_next() {
        let store = Arc::new(InMemory::new());
        let mut record = open(&store, 1).await.unwrap();
        let mut lost = open(&store, 1).await.unwrap();
        lost.begin(launch("lost")).await.unwrap();
        record.begin(launch("a")).await.unwrap();
        assert_eq!(open(&store, 1).await.unwrap().launches(), [launch("a")]);
        record.forget(|launch| launch.token == "a").await.unwrap();
        assert!(open(&store, 1).await.unwrap().launches().is_empty());
    }

    #[tokio::test]
    async fn what_is_not_a_record_is_left_alone() {
        let store = Arc::new(InMemory::new());
        let path = Path::from("launches.json");
        store.put(&path, "a photograph".into()).await.unwrap();
        let refused = open(&store, 1).await;
        assert!(matches!(refused, Err(FleetError::Record { .. })));
    }
}
